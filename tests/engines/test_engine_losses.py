"""Real losses: SIGKILL, SIGSTOP, spares, holders of copies, the last copy."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import engine_work as work
import numpy as np
import psutil
import pytest

import feliss_nb as feliss
from feliss_nb import errors

PATIENCE = 60.0


def host(session: feliss.Session, rank: int) -> Any:
    return next(e for e in session.status().engines if rank in e.ranks)


def is_dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def remember(value: Any) -> Any:
    return (feliss.here().rank, value)


# ---------------------------------------------------------------- the module's session: with spares


def test_a_loss_does_not_wait_for_user_code(idle: feliss.Session, flags: Any) -> None:
    """One rank spins in Python, one swallows every interrupt, one dies."""
    jobs = [
        idle.put(work.spin, flags.path("spins"), rank=0),
        idle.put(work.spin_deaf, flags.path("deaf"), flags.path("go"), rank=1),
        idle.put(work.touch_and_wait, flags.path("runs"), flags.path("go"), rank=2),
    ]
    for name in ("spins", "deaf", "runs"):
        flags.wait(name)
        os.unlink(flags.path(name))
    recovered = len(idle.events.of_kind("recovered"))
    idle.kill(2)
    idle.events.wait_for("recovered", recovered + 1, PATIENCE)
    for name in ("spins", "deaf", "runs"):
        flags.wait(name)  # under the new epoch all of them run again
    flags.set("go")
    for job in jobs[1:]:
        job.wait(PATIENCE)
    assert jobs[0].state == "running"


def test_a_loss_leaves_a_module_whole_that_is_being_imported(
    idle: feliss.Session, flags: Any, eventually: Any
) -> None:
    """The rank of the new epoch waits for the import that the one of the old epoch is in."""
    name = f"slow_{os.getpid()}"
    flags.folder.joinpath(f"{name}.py").write_text(
        "import os, time\n"
        f"open({flags.path('imports')!r}, 'a').write('once\\n')\n"
        f"while not os.path.exists({flags.path('go')!r}):\n"
        "    time.sleep(0.005)\n"
        "value = 42\n"
    )
    out = idle.variable(lambda rank, size: None)
    job = idle.put(work.import_value, out, str(flags.folder), name, flags.path("runs"), rank=0)
    eventually(lambda: flags.lines("imports"), PATIENCE, "the import")
    recovered = len(idle.events.of_kind("recovered"))
    idle.kill(1)
    idle.events.wait_for("recovered", recovered + 1, PATIENCE)
    eventually(lambda: len(flags.lines("runs")) == 2, PATIENCE, "rank 0 in the new epoch")
    flags.set("go")
    job.wait(PATIENCE)
    assert out.partitions()[0] == 42
    assert flags.lines("imports") == ["once"]


def test_an_engine_whose_worker_failed_is_fenced(idle: feliss.Session, flags: Any) -> None:
    kept = idle.variable(lambda rank, size: rank)
    kept.wait(PATIENCE)
    idle.checkpoint(PATIENCE)
    recovered = len(idle.events.of_kind("recovered"))
    idle.put(work.break_worker_once, flags.path("broke"), rank=1)
    idle.events.wait_for("recovered", recovered + 1, PATIENCE)
    assert idle.events.of_kind("fencing")[-1].data["why"] == "its worker failed"
    assert kept.partitions() == [0, 1, 2]


def late_effects(out: Any, started: str, go: str) -> None:
    """Ignore the stop, and act when the epoch is over: nothing of it may count."""
    at = feliss.here()
    work.note(started, os.getpid())
    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(go) and time.monotonic() < deadline:
        try:
            time.sleep(0.005)
        except BaseException:  # noqa: BLE001
            continue
    at[out].append("set")
    at.put(append, out, "own")
    at.put(append, out, "other", rank=(at.rank + 1) % at.size)


def append(out: Any, text: str) -> None:
    feliss.here()[out].append(text)


def test_what_an_old_epoch_still_does_has_no_effect(
    idle: feliss.Session, flags: Any, eventually: Any
) -> None:
    out = idle.variable(lambda rank, size: [])
    out.wait(PATIENCE)
    job = idle.put(late_effects, out, flags.path("runs"), flags.path("go"), rank=0)
    flags.wait("runs")
    idle.kill(1)
    eventually(lambda: len(flags.lines("runs")) == 2, PATIENCE, "rank 0 in the new epoch")
    assert len(set(flags.lines("runs"))) == 1, "rank 0 should run twice in one engine"
    flags.set("go")  # both go on: the one of the old epoch and the one that counts
    job.wait(PATIENCE)
    assert out.collect() == [["set", "own"], ["other"], []]


@pytest.mark.parametrize("also_nanny", [False, True])
def test_a_stopped_engine_is_fenced_and_its_rank_recovered(
    idle: feliss.Session, also_nanny: bool
) -> None:
    value = idle.variable(lambda rank, size: rank * 10)
    value.wait(PATIENCE)
    engine = host(idle, 1)
    nannies = psutil.Process(engine.pid).children(recursive=True)
    if also_nanny:
        for nanny in nannies:
            nanny.kill()
    lost = len(idle.events.of_kind("engine-lost"))
    os.kill(engine.pid, signal.SIGSTOP)
    event = idle.events.wait_for("engine-lost", lost + 1, PATIENCE)
    assert event.engine == str(engine.engine)
    assert is_dead(engine.pid), "a stopped engine must not wake up later"
    assert value.collect() == [0, 10, 20]
    assert [e.engine for e in idle.events.of_kind("fencing")][-1] == str(engine.engine)


def test_the_death_of_a_nanny_alone_costs_nothing(idle: feliss.Session) -> None:
    engine = host(idle, 0)
    for nanny in psutil.Process(engine.pid).children(recursive=True):
        nanny.kill()
    assert idle.apply(remember, 1).collect() == [(0, 1), (1, 1), (2, 1)]
    idle.kill(0, wait=True)
    assert idle.apply(remember, 2).collect() == [(0, 2), (1, 2), (2, 2)]


def test_the_death_of_a_spare_rolls_nothing_back(idle: feliss.Session, eventually: Any) -> None:
    spare = next(e for e in idle.status().engines if e.role == "spare")
    epoch = idle.epoch
    os.kill(spare.pid, signal.SIGKILL)
    eventually(
        lambda: any(e.engine == str(spare.engine) for e in idle.events.of_kind("engine-lost")),
        PATIENCE,
        "the loss of the spare",
    )
    assert idle.apply(remember, 3).collect() == [(0, 3), (1, 3), (2, 3)]
    assert idle.epoch == epoch
    idle.kill(0)  # whether the replacement has come or not
    assert idle.apply(remember, 4).collect() == [(0, 4), (1, 4), (2, 4)]


def test_two_kills_in_a_row(idle: feliss.Session) -> None:
    value = idle.variable(lambda rank, size: np.full(1000, rank))
    idle.checkpoint(PATIENCE)
    idle.kill(2)
    idle.kill(2)  # in the middle of the recovery, or behind it
    assert [int(part.sum()) for part in value.collect()] == [0, 1000, 2000]


def test_a_used_spare_is_replaced(idle: feliss.Session, eventually: Any) -> None:
    joined = len(idle.events.of_kind("engine-joined"))
    idle.kill(1)
    idle.events.wait_for("engine-joined", joined + 1, PATIENCE)
    eventually(
        lambda: (
            sorted(e.role for e in idle.status().engines if e.role != "dead")
            == ["spare", "worker", "worker", "worker"]
        ),
        PATIENCE,
        "four engines again",
    )


def test_a_kill_of_what_is_dead_is_refused(idle: feliss.Session) -> None:
    dead = host(idle, 0).engine
    idle.kill(0, wait=True)
    with pytest.raises(errors.UsageError, match="dead already"):
        idle.kill(engine=dead)


def test_kill_with_wait_returns_when_all_run_and_all_copies_are_there(
    idle: feliss.Session,
) -> None:
    idle.variable(lambda rank, size: np.zeros(500_000)).wait(PATIENCE)
    idle.checkpoint(PATIENCE)
    idle.kill(1, wait=True)
    status = idle.status()
    assert status.state == "running"
    assert status.protected
    for number in range(3):
        holders = [e for e in status.engines if number in (*e.ranks, *e.copies_of)]
        assert len(holders) >= 2, status


# ---------------------------------------------------------------- without spares


def wait_for_file(path: str) -> str:
    while not os.path.exists(path):
        time.sleep(0.005)
    return "seen"


def meet(ready: str, partner: str) -> tuple[int, str]:
    at = feliss.here()
    if at.rank in (0, 1):
        mine, other = (ready, partner) if at.rank == 0 else (partner, ready)
        work.touch(mine)
        wait_for_file(other)
    return at.rank, str(os.getpid())


def send_own_list(out: Any) -> None:
    sent = ["sent"]
    at = feliss.here()
    for rank in range(at.size):
        at.put(hold, out, sent, rank=rank) if rank != at.rank else None
    sent.append("changed later")


def hold(out: Any, got: list[str]) -> None:
    feliss.here()[out] = list(got)
    got.append("by the receiver")


def test_without_spares_ranks_move_in_with_survivors(flags: Any) -> None:
    """Three losses, one worker after the other; copies are made anew between them."""
    with feliss.start(workers=3, replace=False, checkpoint_every=None) as session:
        value = session.variable(lambda rank, size: {"rank": rank, "big": np.zeros(100_000)})
        value.wait(PATIENCE)
        session.checkpoint()  # from here on the log alone would not bring it back
        engines = len(session.status().engines)
        session.kill(1, wait=True)  # it held the copy of rank 0
        session.kill(0, wait=True)
        assert [part["rank"] for part in value.collect()] == [0, 1, 2]
        alive = [e for e in session.status().engines if e.role != "dead"]
        assert len(alive) == 1
        assert alive[0].ranks == (0, 1, 2)
        assert len(session.status().engines) == engines, "replace=False starts no engine"
        assert any("one engine only" in text for text in session.status().messages)
        # ranks on one engine run side by side, so that they can wait for each other ...
        met = session.apply(meet, flags.path("a"), flags.path("b")).collect()
        assert [rank for rank, _ in met] == [0, 1, 2]
        assert len({pid for _, pid in met}) == 1
        # ... and what one sends to another is a copy
        out = session.variable(lambda rank, size: None)
        session.put(send_own_list, out, rank=1).wait(PATIENCE)
        assert out.collect() == [["sent"], None, ["sent"]]
        # checkpoints go on with the one engine that is left
        assert session.checkpoint(PATIENCE).bytes > 0
        session.kill(2)
        with pytest.raises(errors.LossError, match=r"every engine.*killed by request; .*killed by"):
            session.wait(PATIENCE)


def test_without_copies_a_loss_is_an_error_that_says_so() -> None:
    with feliss.start(workers=2, spares=1, copies=0, checkpoint_every=None) as session:
        value = session.variable(lambda rank, size: rank)
        assert value.collect() == [0, 1]
        session.kill(0, wait=True)  # before the first checkpoint the log brings all back
        assert value.collect() == [0, 1]
        session.checkpoint(PATIENCE)
        assert "copies" in repr(session.status())
        session.kill(0)
        with pytest.raises(errors.LossError, match="rank 0 and every copy of it were lost"):
            value.collect()
        for call in (
            lambda: session.wait(PATIENCE),
            lambda: session.checkpoint(PATIENCE),
            lambda: session.put(work.nothing, rank=1),
            lambda: session.kill(1),
            lambda: session.map(remember, [1]),
            lambda: value.partitions(),
        ):
            with pytest.raises(errors.LossError):
                call()
        assert session.state == "failed"
        assert "every copy" in repr(session.status())


@pytest.mark.parametrize("during", ["waiting", "a checkpoint"])
def test_losing_owner_and_holder_at_once_ends_with_an_error(during: str, flags: Any) -> None:
    with feliss.start(workers=3, spares=1, replace=False, checkpoint_every=None) as session:
        value = session.variable(lambda rank, size: np.zeros(10_000))
        value.wait(PATIENCE)
        session.checkpoint(PATIENCE)
        status = session.status()
        owner = host(session, 0)
        holder = next(e for e in status.engines if 0 in e.copies_of)
        job = session.put(work.touch_and_wait, flags.path("runs"), flags.path("go"), rank=2)
        flags.wait("runs")
        token = None
        if during == "a checkpoint":  # it waits for rank 2
            from feliss_nb.core.events import TakeCheckpoint

            token = session._driver.ask(TakeCheckpoint)
            session.events.wait_for("checkpoint-begun", 2, PATIENCE)
        for engine in (owner, holder):
            os.kill(engine.pid, signal.SIGSTOP)  # so that neither is noticed before the other
        for engine in (owner, holder):
            os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(errors.LossError, match="every copy"):
            job.wait(PATIENCE)
        if token is not None:
            with pytest.raises(errors.LossError):
                token.result(PATIENCE)


def test_a_loss_while_copies_are_made_anew() -> None:
    """The engine that was sending them, to an engine that hosts no rank, sends again."""
    with feliss.start(
        workers=2, spares=4, copies=3, replace=False, checkpoint_every=None
    ) as session:
        value = session.variable(lambda rank, size: np.full(6_000_000, float(rank)))
        value.wait(PATIENCE)
        session.checkpoint(PATIENCE)
        session.kill(0)
        session.events.wait_for("recovered", 1, PATIENCE)
        session.kill(0, wait=True)  # this hung
        session.kill(1, wait=True)
        assert session.apply(mean_of, value).collect() == [0.0, 1.0]


def mean_of(value: Any) -> float:
    return float(feliss.here()[value].mean())


def test_a_deep_sleep_in_c_does_not_hold_up_a_recovery(flags: Any) -> None:
    with feliss.start(workers=2, spares=1, replace=False, checkpoint_every=None) as session:
        value = session.variable(lambda rank, size: rank)
        value.wait(PATIENCE)
        session.put(work.sleep_in_c, flags.path("sleeps"), 3600.0, rank=0)
        flags.wait("sleeps")
        os.unlink(flags.path("sleeps"))
        session.kill(1)
        session.events.wait_for("recovered", 1, PATIENCE)
        flags.wait("sleeps")  # again, in the new epoch
        assert session.put(work.nothing, rank=1).wait(PATIENCE).state == "done"


def test_a_session_outlives_its_controller() -> None:
    """What the controller is needed for fails with a line in the log; the job goes on."""
    with feliss.start(workers=2, spares=1, checkpoint_every=None) as session:
        controller = psutil.Process(session._cluster._cluster.controller.pid)
        for process in [controller, *controller.children(recursive=True)]:
            process.kill()
        session.kill(0, wait=True)
        assert session.apply(remember, 1).collect() == [(0, 1), (1, 1)]
