"""A rank by itself: its pool, its counters, its cut."""

from __future__ import annotations

import pytest
from core_helpers import continuation, running_rank

from feliss_nb.core.ids import NOTEBOOK, child_id, submission_id
from feliss_nb.core.rank import Rank
from feliss_nb.errors import InternalError


def run(rank, check=True):
    started = rank.next()
    if started is not None:
        rank.finish()
    if check:
        rank.check_invariants()
    return None if started is None else started.id


def test_a_pool_runs_in_order():
    rank = running_rank()
    for name in (b"a", b"b"):
        rank.put(continuation(name=name))
    assert [run(rank), run(rank), run(rank)] == [b"a", b"b", None]


def test_one_continuation_runs_at_a_time():
    rank = running_rank()
    rank.put(continuation())
    rank.put(continuation())
    assert rank.next() is not None
    assert rank.next() is None
    rank.finish()
    with pytest.raises(InternalError, match="nothing was running"):
        rank.finish()


def test_a_continuation_waits_for_each_variable_that_it_needs():
    rank = running_rank()
    rank.put(continuation(name=b"reader", needs=(1, 2)))
    assert run(rank) is None
    rank.set_ready(2)
    assert run(rank) is None
    rank.set_ready(1)
    assert run(rank) == b"reader"


def test_what_waits_for_a_variable_that_nobody_fills_starts_and_can_tell():
    rank = running_rank()
    rank.put(continuation(name=b"reader", needs=(1,)))
    assert run(rank) is None
    rank.give_up([1])
    reader = rank.next()
    assert reader is not None
    assert rank.missing(reader) == 1


def test_giving_up_leaves_a_filled_variable_alone():
    rank = running_rank()
    rank.set_ready(1)
    rank.give_up([1])
    assert rank.missing(continuation(needs=(1,))) is None


def test_a_report_tells_of_jobs_without_work_here_once():
    rank = running_rank()
    rank.deliver(NOTEBOOK, 0, continuation(job=7))
    assert rank.report() == {}
    rank.next()
    rank.send(7, 1)
    rank.finish()
    assert rank.report() == {7: ({1: 1}, {NOTEBOOK: 1})}
    assert rank.report() == {}


def test_cancelling_drops_what_waits_and_what_comes_late_but_counts_it():
    rank = running_rank()
    for needs in ((), (5,)):
        rank.deliver(1, 0, continuation(job=7, needs=needs))
    rank.next()
    rank.cancel(7, [5])
    rank.deliver(1, 0, continuation(job=7))
    rank.check_invariants()
    assert rank.report() == {}  # one still runs
    rank.finish()
    assert rank.report() == {7: ({}, {1: 3})}


def test_a_job_that_is_alive_here_cannot_be_forgotten():
    rank = running_rank()
    rank.deliver(NOTEBOOK, 0, continuation(job=1))
    run(rank)
    rank.put(continuation(job=2))
    with pytest.raises(InternalError, match="job 2"):
        rank.forget([1, 2])
    assert 1 in rank.received  # all or nothing


# ---------------------------------------------------------------- the cut


def test_a_cut_waits_for_what_runs_and_starts_nothing():
    rank = running_rank()
    rank.put(continuation(name=b"a"))
    rank.put(continuation(name=b"b"))
    rank.next()
    assert rank.ask_cut(1) is False
    assert rank.finish() is True
    assert rank.next() is None
    image = rank.make_cut()
    assert [c.id for c in image.pool] == [b"b"]
    assert run(rank) == b"b"  # while it records, it runs


def test_a_rank_cannot_cut_inside_a_continuation():
    rank = running_rank()
    rank.put(continuation())
    rank.next()
    rank.ask_cut(1)
    with pytest.raises(InternalError, match="inside a continuation"):
        rank.make_cut()
    assert rank.state == "cutting"


def test_a_message_from_behind_a_cut_is_held_until_this_rank_has_cut():
    rank = running_rank()
    rank.deliver(1, 1, continuation(name=b"behind"))
    assert run(rank) is None
    rank.ask_cut(1)
    image = rank.make_cut()
    assert image.pool == []
    assert image.received == {}
    assert run(rank) == b"behind"


def test_a_message_from_before_its_senders_cut_is_recorded_and_delivered():
    rank = running_rank()
    rank.deliver(1, 0, continuation(name=b"early"))
    rank.ask_cut(1)
    rank.make_cut()
    rank.captured = True
    rank.expected = {1: 2}
    assert not rank.is_sealed()
    rank.deliver(1, 1, continuation(name=b"after"))
    assert not rank.is_sealed()
    rank.deliver(1, 0, continuation(name=b"late"))
    assert rank.is_sealed()
    assert [(source, c.id) for source, c in rank.seal()] == [(1, b"late")]
    rank.check_invariants()
    assert [run(rank) for _ in range(3)] == [b"early", b"after", b"late"]


def test_an_aborted_checkpoint_uses_up_its_number():
    rank = running_rank()
    rank.deliver(1, 1, continuation(name=b"behind"))
    rank.ask_cut(1)
    rank.abort(1)
    assert (rank.state, rank.cut) == ("running", 1)
    assert run(rank) == b"behind"
    rank.deliver(1, 2, continuation(name=b"behind the next"))
    assert run(rank) is None


def test_a_rank_stands_up_with_its_pool_its_channel_and_its_counters():
    rank = running_rank()
    rank.deliver(1, 0, continuation(job=3, name=b"pool", needs=(4,)))
    rank.next()
    rank.ask_cut(1)
    image = rank.make_cut()
    other = Rank(0, 1)
    other.load(image, [(1, continuation(job=3, name=b"channel"))], [4], 5)
    other.check_invariants()
    other.resume()
    assert other.cut == 5
    assert [run(other), run(other)] == [b"pool", b"channel"]
    assert other.report() == {3: ({}, {1: 2})}


# ---------------------------------------------------------------- identities


def test_ids_depend_on_origin_alone_and_differ():
    ids = {submission_id(job, n) for job in range(20) for n in range(20)}
    ids |= {child_id(parent, n) for parent in list(ids) for n in range(5)}
    assert len(ids) == 400 * 6
    assert submission_id(11, 1) == submission_id(11, 1) != submission_id(1, 11)
