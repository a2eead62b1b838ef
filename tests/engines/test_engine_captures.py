"""Captures on real engines: losses behind them and in the middle, changes while a job runs."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import capture_work as work
import pytest
from engine_processes import is_dead
from engine_work import on_engines, touch

import feliss_nb as feliss
from feliss_nb import errors
from feliss_nb.core.events import TakeCheckpoint
from feliss_nb.state import canonical_digest
from feliss_nb.state.captures import names
from feliss_nb.state.handle import Target

PATIENCE = 60.0
LAST = 400
MOST = ["full+zstd", "forked", "incremental", "incremental+forked", "incremental+forked+xor"]


@pytest.fixture
def session(idle: feliss.Session) -> Any:
    yield idle
    if idle.state == "running":
        idle.capture = "full"


def walk(session: feliss.Session, flags: Any, *gates: int) -> Any:
    ring = session.variable(work.start_state)
    named = {gate: flags.path(f"gate{gate}") for gate in gates}
    job = session.put(work.walk, ring, 0, LAST, named, rank=0)
    return ring, job


def check(session: feliss.Session, ring: Any, job: Any) -> None:
    job.wait(PATIENCE)
    wanted = [canonical_digest(part) for part in work.walked(session.size, LAST)]
    assert [canonical_digest(part) for part in ring.partitions()] == wanted


def keep_waiting(session: feliss.Session, flags: Any, go: str | None = None) -> Any:
    """Make a variable on rank 0 whose capture takes a child until `go`."""
    waits = session.declare()
    args = Target(waits.variable), flags.path("child"), go and flags.path(go)
    session.submit([(0, work.set_waits, args)], [waits]).wait(PATIENCE)
    return waits


def child_of(flags: Any, name: str) -> int:
    flags.eventually(lambda: flags.lines(name), PATIENCE, "the number of the child")
    return int(flags.lines(name)[0])


# ---------------------------------------------------------------- names


def test_a_wrong_name_is_refused_at_once(session: feliss.Session) -> None:
    with pytest.raises(errors.UsageError, match=r"did you mean 'forked'.*incremental\+forked"):
        session.capture = "forkd"
    assert session.capture == "full"
    with pytest.raises(errors.UsageError, match="there is no capture 'nothing'"):
        feliss.start(capture="nothing")


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("name", MOST)
def test_a_loss_behind_checkpoints(session: feliss.Session, flags: Any, name: str) -> None:
    session.capture = name
    ring, job = walk(session, flags, 100, 101, 300)
    for gate in (100, 101):
        flags.wait(f"gate{gate}")
        last = session.checkpoint(PATIENCE)
        flags.set(f"gate{gate}-open")
    assert last.written is not None
    if "incremental" in name:
        assert last.written < last.bytes / 3
    flags.wait("gate300")
    os.unlink(flags.path("gate300"))
    session.kill(1, wait=True)
    flags.wait("gate300")  # from the second checkpoint on it comes here again
    session.checkpoint(PATIENCE)  # the first one of its epoch: whole
    assert session.checkpoint(PATIENCE).id
    flags.set("gate300-open")
    session.kill(2, wait=True)
    check(session, ring, job)
    assert not session.events.of_kind("trouble")


@pytest.mark.parametrize("name", ["forked", "incremental+forked"])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_loss_while_a_child_writes(
    session: feliss.Session, flags: Any, eventually: Any, name: str, victim: int
) -> None:
    """The engine of the child, and another one; the checkpoint before that counts."""
    session.capture = name
    ring, job = walk(session, flags, 200)
    flags.wait("gate200")
    session.checkpoint(PATIENCE)
    _held = keep_waiting(session, flags, "go")
    token = session._driver.ask(TakeCheckpoint)
    child = child_of(flags, "child")
    recovered = len(session.events.of_kind("recovered"))
    session.kill(victim)
    session.events.wait_for("recovered", recovered + 1, PATIENCE)
    eventually(lambda: is_dead(child), PATIENCE, "the child's end")
    flags.set("go")  # for the child of the next attempt
    token.result(PATIENCE)
    flags.set("gate200-open")
    check(session, ring, job)

    def none_left() -> bool:
        return all(found == (0, 0) for found in on_engines(session, work.left_of_children))

    eventually(none_left, PATIENCE, "no child, nothing of its memory")


def test_a_holder_that_lacks_the_base_gets_the_whole(session: feliss.Session, flags: Any) -> None:
    session.capture = "incremental"
    ring, job = walk(session, flags, 200)
    flags.wait("gate200")
    first = session.checkpoint(PATIENCE)  # engines may have copies of the one before for a moment
    assert sum(on_engines(session, work.forget_copies, first.id)) == session.size
    last = session.checkpoint(PATIENCE)
    assert last.written is not None
    assert last.written < last.bytes / 3
    session.kill(0, wait=True)
    flags.set("gate200-open")
    check(session, ring, job)


def test_a_holder_without_memory_fails_the_checkpoint_and_lives(
    session: feliss.Session, flags: Any
) -> None:
    session.capture = "incremental"
    ring, job = walk(session, flags, 200)
    flags.wait("gate200")
    last = session.checkpoint(PATIENCE)
    lost = len(session.events.of_kind("engine-lost"))
    on_engines(session, work.memory_for("data", "apply", False))
    with pytest.raises(errors.StoreError, match=r"cannot keep a snapshot.*there is none"):
        session.checkpoint(PATIENCE)
    on_engines(session, work.memory_for("data", "apply", True))
    assert session.checkpoint(PATIENCE).id > last.id
    assert len(session.events.of_kind("engine-lost")) == lost
    session.kill(0, wait=True)
    flags.set("gate200-open")
    check(session, ring, job)


def test_what_a_rank_cannot_put_together_behind_its_capture_is_made_anew(
    session: feliss.Session, flags: Any, eventually: Any
) -> None:
    session.capture = "incremental"
    ring, job = walk(session, flags, 200)
    flags.wait("gate200")
    session.checkpoint(PATIENCE)
    on_engines(session, work.memory_for("capturing", "prepare", False))
    told = [len(session.events.of_kind(kind)) for kind in ("copy-lost", "checkpoint-failed")]
    with contextlib.suppress(errors.StoreError):  # told in time; else the copy is lost
        session.checkpoint(PATIENCE)

    def heard() -> bool:
        now = [len(session.events.of_kind(kind)) for kind in ("copy-lost", "checkpoint-failed")]
        return now != told and session.status().protected

    eventually(heard, PATIENCE, "the word of it, and all copies")
    on_engines(session, work.memory_for("capturing", "prepare", True))
    session.kill(0, wait=True)
    session.checkpoint(PATIENCE)
    flags.set("gate200-open")
    check(session, ring, job)


# ---------------------------------------------------------------- while a job runs


def test_the_capture_changes_while_a_job_runs(session: feliss.Session, flags: Any) -> None:
    ring, job = walk(session, flags, *range(20, 20 + len(names())))
    for gate, name in enumerate(names(), 20):
        flags.wait(f"gate{gate}")
        session.capture = name
        assert session.capture == name
        session.checkpoint(PATIENCE)
        flags.set(f"gate{gate}-open")
    session.kill(2, wait=True)
    check(session, ring, job)


def test_the_rank_goes_on_while_its_child_writes(session: feliss.Session, flags: Any) -> None:
    session.capture = "forked"
    waits = keep_waiting(session, flags, "go")
    token = session._driver.ask(TakeCheckpoint)
    flags.wait("child")
    session.submit([(0, work.count, (waits,))]).wait(PATIENCE)
    session.put(touch, flags.path("ran"), rank=0).wait(PATIENCE)
    assert not token.done()
    flags.set("go")
    token.result(PATIENCE)
    session.kill(0, wait=True)  # what ran behind the cut is replayed once
    session.submit([(0, work.check_count, (waits, 1))]).wait(PATIENCE)


def test_a_child_that_is_stuck_costs_a_full_capture(session: feliss.Session, flags: Any) -> None:
    session.capture = "incremental+forked"
    ring, job = walk(session, flags, 200)
    flags.wait("gate200")
    _held = keep_waiting(session, flags)
    lost = len(session.events.of_kind("capture-lost"))
    on_engines(session, work.patience(0.3))
    try:
        session.checkpoint(PATIENCE)
    finally:
        on_engines(session, work.patience(120.0))
    event = session.events.of_kind("capture-lost")[lost:][0]
    assert event.data["rank"] == 0
    assert "was killed" in event.data["why"]
    assert is_dead(child_of(flags, "child"))
    session.kill(0, wait=True)
    flags.set("gate200-open")
    check(session, ring, job)


@pytest.mark.parametrize("name", ["forked", "incremental+forked"])
def test_a_gang_that_keeps_what_it_received(session: feliss.Session, flags: Any, name: str) -> None:
    """It lies in memory that a fork does not copy."""
    last = 300
    wanted = session.spmd(work.start_relax, last, flags.path("plain")).partitions()
    session.capture = name
    out = session.spmd(work.start_relax, last, flags.path("step"))
    flags.wait("step20")
    for _ in range(3):
        session.checkpoint(PATIENCE)
    session.kill(1, wait=True)
    session.checkpoint(PATIENCE)
    session.kill(0, wait=True)
    assert out.partitions() == wanted
    assert not session.events.of_kind("trouble")


@pytest.mark.parametrize("name", ["full", "forked", "incremental+forked+zstd"])
def test_what_cannot_be_saved_is_named(session: feliss.Session, name: str) -> None:
    session.capture = name
    bad = session.declare(name="bad")
    session.submit([(0, work.set_lock, (Target(bad.variable),))], [bad]).wait(PATIENCE)
    with pytest.raises(errors.UnpicklableError, match=r"variable 'bad'\['inside'\]\[0\] is a lock"):
        session.checkpoint(PATIENCE)
    assert session.state == "running"
    del session["bad"]


# ---------------------------------------------------------------- sessions of their own


def test_no_fork_beside_a_rank_that_computes(flags: Any) -> None:
    """Two ranks on an engine, one inside BLAS, which a fork would wait for: and for ever."""
    with feliss.start(2, replace=False, checkpoint_every=None, capture="forked") as session:
        session.checkpoint(PATIENCE)
        session.kill(1, wait=True)
        ring, job = walk(session, flags, 200)
        flags.wait("gate200")
        args = flags.path("computes"), flags.path("go")
        busy = session.put(work.multiply_until, *args, rank=1)
        flags.wait("computes")
        token = session._driver.ask(TakeCheckpoint)
        session.put(touch, flags.path("goes on"), rank=0).wait(PATIENCE)
        flags.set("go")
        token.result(PATIENCE)
        busy.wait(PATIENCE)
        flags.set("gate200-open")
        check(session, ring, job)


def test_nothing_is_left_behind_a_session(flags: Any, eventually: Any) -> None:
    session = feliss.start(2, checkpoint_every=None, capture="incremental+forked")
    _held = keep_waiting(session, flags)
    session._driver.ask(TakeCheckpoint)
    child = child_of(flags, "child")
    assert any(found == (1, 1) for found in on_engines(session, work.left_of_children))
    session.stop()
    eventually(lambda: is_dead(child), PATIENCE, "the child's end")
