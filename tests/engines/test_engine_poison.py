"""Continuations that take their engine with them, or never end: set aside before they took all."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import engine_work as work
import pytest

import feliss_nb as feliss
from feliss_nb import errors

PATIENCE = 60.0
#: Seconds: what does not hang is done long before, on a busy machine and a new engine too.
DEADLINE = 5.0


def die(*args: object, **more: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_on(rank: int, text: str) -> None:
    if feliss.here().rank == rank:
        die()


def die_of_four(record: int) -> int:
    if record == 4:
        die()
    return record * 10


def hang_once(started: str) -> None:
    """Sleep for ever where no interrupt is heard; the second time, do nothing."""
    if not os.path.exists(started):
        work.touch(started)
        time.sleep(3600.0)


def wait_for_last(comm: Any, started: str) -> int:
    """Rank 2 hangs the first time; the others wait for what it sends."""
    if comm.rank == 2:
        hang_once(started)
        comm.send(7, 0)
        comm.send(7, 1)
        return 7
    return int(comm.recv(source=2))


def lost(session: feliss.Session) -> int:
    return len(session.events.of_kind("engine-lost"))


def test_a_continuation_that_kills_its_engine_is_set_aside(idle: feliss.Session) -> None:
    before, value = lost(idle), idle.variable(lambda rank, size: rank)
    value.wait(PATIENCE)
    idle.checkpoint(PATIENCE)
    job = idle.put(die, "a long text " * 50, {"key": [1, 2]}, rank=1)
    with pytest.raises(errors.PoisonError, match=r"die\('a long text .* on rank 1 is set") as found:
        job.wait(PATIENCE)
    assert lost(idle) - before == 3
    assert (found.value.rank, found.value.function, found.value.losses) == (1, "die", 3)
    [kept] = [one for one in idle.set_aside if one.job == job.id]
    assert kept.function is not None
    assert (kept.function.__name__, kept.args) == ("die", ("a long text " * 50, {"key": [1, 2]}))
    assert value.collect() == [0, 1, 2]


def test_a_record_is_named_however_the_map_is_cut(idle: feliss.Session) -> None:
    source = idle.scatter(list(range(9)))
    with pytest.raises(errors.PoisonError, match=r"die_of_four.*record 1") as found:
        idle.map(die_of_four, source).wait(PATIENCE)
    assert found.value.rank == 1
    assert idle.set_aside[-1].args == (4,)
    assert idle.apply(abs, -3).collect() == [3, 3, 3]


def test_apply_names_the_users_function(idle: feliss.Session) -> None:
    with pytest.raises(errors.PoisonError, match=r"die_on\(1, 'text'\) on rank 1"):
        idle.apply(die_on, 1, "text").wait(PATIENCE)


def test_what_is_killed_by_request_is_not_blamed(idle: feliss.Session, flags: Any) -> None:
    job = idle.put(work.touch_and_wait, flags.path("runs"), flags.path("go"), rank=0)
    joined = len(idle.events.of_kind("engine-joined"))
    for one in range(1, 4):
        flags.wait("runs")
        os.unlink(flags.path("runs"))
        idle.kill(0, wait=True)
        idle.events.wait_for("engine-joined", joined + one, PATIENCE)
    flags.set("go")
    assert job.wait(PATIENCE).state == "done"


def test_a_continuation_past_its_deadline_costs_its_engine(
    idle: feliss.Session, flags: Any
) -> None:
    before = lost(idle)
    job = idle.put(hang_once, flags.path("hangs"), rank=2, timeout=DEADLINE)
    job.wait(PATIENCE)
    assert lost(idle) == before + 1
    assert f"more than {DEADLINE:g} s" in idle.events.of_kind("fencing")[-1].data["why"]


def test_what_always_hangs_is_set_aside_after_some_losses(idle: feliss.Session, flags: Any) -> None:
    before = lost(idle)
    job = idle.put(work.sleep_in_c, flags.path("hangs"), 3600.0, rank=1, timeout=0.3)
    with pytest.raises(errors.PoisonError, match="sleep_in_c"):
        job.wait(PATIENCE)
    assert lost(idle) == before + 3


def test_who_waits_for_a_hanging_rank_is_not_late(flags: Any) -> None:
    with feliss.start(workers=3, spares=1, continuation_timeout=DEADLINE) as session:
        assert session.spmd(wait_for_last, flags.path("hangs")).collect() == [7, 7, 7]
        [fenced] = session.events.of_kind("fencing")
        assert "rank 2" in fenced.data["why"]


@pytest.mark.parametrize("wrong", [0, -1.0, "1", True])
def test_a_deadline_is_a_time(idle: feliss.Session, wrong: Any) -> None:
    with pytest.raises(errors.UsageError, match="timeout= takes a number"):
        idle.put(work.nothing, rank=0, timeout=wrong)


@pytest.mark.parametrize("wrong", [0, 1.5, "3", True])
def test_losses_is_a_count(wrong: Any) -> None:
    with pytest.raises(errors.UsageError, match="losses= takes a whole number"):
        feliss.start(workers=2, losses=wrong)
