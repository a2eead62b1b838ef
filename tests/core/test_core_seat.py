"""The master's place: links that lose nothing, and replays that come to the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from core_helpers import only, running_master

from feliss_nb.core import commands as cmd
from feliss_nb.core import events as ev
from feliss_nb.core import messages as m
from feliss_nb.core.master import Master
from feliss_nb.core.seat import Link, Seat
from feliss_nb.errors import InternalError


def test_a_link_gives_each_message_once_and_in_order() -> None:
    mine, other = Link(), Link()
    numbers = [mine.keep(text) for text in "abc"]
    assert numbers == [1, 2, 3]
    assert other.is_new(1)
    other.heard = 1
    assert not other.is_new(1)
    with pytest.raises(InternalError, match="message 3 came behind 1"):
        other.is_new(3)
    assert mine.again(other.heard) == [(2, "b"), (3, "c")]
    mine.acknowledged(3)
    assert mine.again(0) == []


def test_what_a_seat_tells_engines_is_numbered_and_kept() -> None:
    seat = Seat(running_master())
    token = object()
    work = [(0, None, ()), (1, None, ())]
    commands = seat.handle(ev.Submit(token, "job", tuple(work)))
    assert [(c.engine, c.number) for c in only(commands, cmd.Send)] == [("e0", 1), ("e1", 1)]
    assert [number for number, _ in seat.link("e0").again(0)] == [1]
    seat.acknowledged("e0", 1)
    assert seat.link("e0").again(0) == []


def test_a_message_that_comes_twice_counts_once() -> None:
    seat = Seat(running_master())
    seat.handle(ev.Submit(object(), "job", ((0, None, ()),)))
    report = m.Report(0, 0, {0: ({}, {-1: 1})})
    assert only(seat.hear("e0", report, 1), cmd.Send)
    assert seat.hear("e0", report, 1) == []
    seat.handle(ev.EngineLost("e1", "it ended"))
    assert not seat.is_new("e1", 1)


def test_another_notebook_hears_nothing_of_what_the_one_before_asked() -> None:
    seat = Seat(running_master())
    submit = ev.Submit(0, "job", ((0, None, ()),), (7,))
    fetch = ev.Submit(1, "fetch", ((0, None, ()),), (), frozenset({7}), internal=True)
    for event in (submit, fetch, ev.Wait(2, None), ev.TakeCheckpoint(3), ev.WaitProtected(4)):
        seat.handle(event)
    seat.handle(ev.Hold(8))
    again: Any = copy.deepcopy(seat)
    commands = again.handle(ev.TakeOver(frozenset({7})))
    assert [c.message.job for c in only(commands, cmd.Send)] == [1] * 3  # the fetch is called off
    assert again.master.held == {7}
    assert again.master.waits == again.master.wanted == []
    report = m.Report(0, 0, {0: ({}, {-1: 1}), 1: ({}, {-1: 1})})
    assert only(again.hear("e0", report, 1), cmd.Answer) == []
    assert again.master.jobs[0].state == "done"
    assert not again.master.jobs[0].delivered  # the new notebook may still ask


def test_what_an_engine_said_last_is_dropped_behind_its_loss_in_a_session_that_is_over():
    seat = Seat(Master(copies=0))
    seat.handle(ev.Start(("e0", "e1"), 2))
    seat.handle(ev.Stop())
    seat.handle(ev.EngineLost("e1", "killed"))
    assert not seat.is_new("e1", 7)
