"""The rules of the design on real engines: cut, memory, ready, same bits, the notebook outside."""

from __future__ import annotations

import gc
import os
import random
import time
from typing import Any

import engine_work as work
import numpy as np
import pytest

import feliss_nb as feliss
from feliss_nb import errors
from feliss_nb.core.events import WaitProtected
from feliss_nb.state.handle import Target

PATIENCE = 60.0


def protected(session: feliss.Session) -> None:
    """Wait until a loss can be survived: the random victims may be owner and holder."""
    session._result(session._driver.ask(WaitProtected), "the copies", PATIENCE)


# ---------------------------------------------------------------- cut


def test_a_cut_loses_and_doubles_nothing(idle: feliss.Session) -> None:
    """Checkpoints in the middle of tokens and random puts, and a loss after each."""
    ring = idle.variable(work.zeros)
    steps, walks, length = 2400, 6, 500
    tokens = [idle.put(work.token, ring, 1, steps, rank=rank) for rank in range(3)]
    walkers = [idle.put(work.scatter_steps, ring, length, rank=rank % 3) for rank in range(walks)]
    jobs = [*tokens, *walkers]
    interrupted = 0
    for victim in (1, 0):
        idle.checkpoint(PATIENCE)
        interrupted += any(job.state == "running" for job in jobs)
        idle.kill(victim)
    idle.wait(PATIENCE)
    parts = ring.collect()
    assert sum(part["visits"] for part in parts) == 3 * steps + walks * (length + 1)
    assert sum(part["sum"] for part in parts) == (
        3 * steps * (steps + 1) // 2 + walks * length * (length + 1) // 2
    )
    assert interrupted, "no checkpoint fell into the work: make it longer"


def test_messages_under_way_at_the_cut_are_in_it(
    idle: feliss.Session, flags: Any, begin_cut: Any
) -> None:
    """Rank 0 floods a rank that is busy; the cut falls between, and everybody dies in turn."""
    got = idle.variable(work.zeros)
    busy = idle.put(work.touch_and_wait, flags.path("busy"), flags.path("free"), rank=1)
    flags.wait("busy")
    flood_job = idle.put(flood, got, 300, flags.path("sent"), rank=0)
    flags.wait("sent")
    token = begin_cut(idle)
    flags.set("free")
    token.result(PATIENCE)
    idle.kill(1, wait=True)
    idle.kill(0)
    busy.wait(PATIENCE)
    flood_job.wait(PATIENCE)
    part = got.collect()[1]
    assert part["visits"] == 300
    assert sorted(part["order"]) == list(range(300))


def flood(got: Any, count: int, sent: str) -> None:
    for number in range(count):
        feliss.here().put(take, got, number, rank=1)
    work.touch(sent)


def take(got: Any, number: int) -> None:
    mine = feliss.here()[got]
    mine["visits"] += 1
    mine["order"].append(number)


def test_what_only_a_packed_continuation_reaches_is_saved(
    idle: feliss.Session, flags: Any, begin_cut: Any
) -> None:
    """The cut falls before a reader, whose job and variable are over when it is committed.

    The reader lies in the snapshot as it came, packed: what it reads is no garbage.
    """
    value = idle.apply(lambda: "kept")
    got = idle.variable(lambda rank, size: None)
    value.wait(PATIENCE)
    for rank in (0, 1):
        idle.put(work.touch_and_wait, flags.path(f"runs{rank}"), flags.path(f"go{rank}"), rank=rank)
        flags.wait(f"runs{rank}")
    reader = idle.put(work.read_variable, value, got, rank=0)
    token = begin_cut(idle)
    flags.set("go0")
    reader.wait(PATIENCE)  # behind the cut of rank 0, before that of rank 1
    del value
    gc.collect()
    flags.set("go1")
    token.result(PATIENCE)
    idle.kill(0)
    assert got.collect() == ["kept", None, None]


# ---------------------------------------------------------------- memory


def first_step(data: Any, notes: str, started: str, free: str, go: str) -> None:
    at = feliss.here()
    work.mutate(data, 1.0)
    at.put(second_step, data, notes, started, go)
    work.touch(f"{started}-first-{at.rank}")
    while not os.path.exists(free):
        time.sleep(0.005)


def second_step(data: Any, notes: str, started: str, go: str) -> None:
    at = feliss.here()
    mine = at[data]
    base, view = mine["base"], mine["view"]
    view[1] = 7.0
    shared = base[11] == 7.0
    view[1] = 1.0
    seen = (
        base[0],
        base[-1],
        base[10],
        mine["small"].tolist(),
        mine["raw"][0],
        shared,
        base.flags.writeable,
        base.flags.aligned,
    )
    work.note(f"{notes}-{at.rank}", [int(x) if not isinstance(x, list) else x for x in seen])
    work.mutate(data, 2.0)
    work.touch(f"{started}-{at.rank}-{os.getpid()}")
    while not os.path.exists(go):
        time.sleep(0.005)


def test_restored_arrays_are_those_of_the_checkpoint(
    idle: feliss.Session, flags: Any, eventually: Any, begin_cut: Any
) -> None:
    """Mutate in place, checkpoint, mutate, kill twice without a commit between."""
    data = idle.variable(work.start_arrays)
    paths = [flags.path(name) for name in ("seen", "runs", "free", "go")]
    jobs = [idle.put(first_step, data, *paths, rank=rank) for rank in range(3)]
    for rank in range(3):
        flags.wait(f"runs-first-{rank}")
    token = begin_cut(idle)
    flags.set("free")
    checkpoint = token.result(PATIENCE)["checkpoint"]
    before = len(idle.events.of_kind("recovered"))
    for times in (1, 2):
        eventually(
            lambda t=times: all(len(flags.lines(f"seen-{rank}")) == t for rank in range(3)),
            PATIENCE,
            "every rank in its second step",
        )
        idle.kill(0)
    idle.events.wait_for("recovered", before + 2, PATIENCE)
    eventually(lambda: len(flags.lines("seen-0")) == 3, PATIENCE, "rank 0 stands again")
    recovered = idle.events.of_kind("recovered")[-2:]
    assert [event.checkpoint for event in recovered] == [checkpoint, checkpoint]
    flags.set("go")
    for job in jobs:
        job.wait(PATIENCE)
    for rank in range(3):
        expected = str([1, 1, -1, [1.0, 1.0, 1.0], 1, 1, 1, 1])
        assert flags.lines(f"seen-{rank}") == [expected] * 3
    part = data.collect()[1]
    assert part["base"][0] == 2.0
    assert part["base"][10] == -2.0
    assert part["view"][0] == -2.0
    assert part["small"].tolist() == [3.0] * 3


# ---------------------------------------------------------------- ready


def test_a_continuation_waits_for_a_variable_that_is_filled_later(
    idle: feliss.Session, flags: Any
) -> None:
    late = idle.declare()
    out = idle.variable(lambda rank, size: None)
    reader = idle.put(work.read_variable, late, out, rank=1)
    idle.put(work.set_variable, Target(late.variable), "elsewhere", rank=0).wait(PATIENCE)
    idle.put(work.nothing, rank=1).wait(PATIENCE)  # the rank is not blocked meanwhile
    assert reader.state == "running"
    idle.put(work.set_variable, Target(late.variable), "here", rank=1).wait(PATIENCE)
    reader.wait(PATIENCE)
    assert out.collect() == [None, "here", None]


def test_waiting_continuations_are_saved_too(idle: feliss.Session) -> None:
    late = idle.declare()
    out = idle.variable(lambda rank, size: None)
    reader = idle.put(work.read_variable, late, out, rank=1)
    idle.checkpoint(PATIENCE)
    idle.kill(1, wait=True)
    assert reader.state == "running"
    idle.put(work.set_variable, Target(late.variable), 5, rank=1).wait(PATIENCE)
    reader.wait(PATIENCE)
    assert out.collect()[1] == 5


def refuse(record: Any) -> Any:
    raise ValueError(f"refused {record}")


def identity(record: Any) -> Any:
    return record


def test_what_depends_on_a_failed_job_fails_and_says_why(idle: feliss.Session) -> None:
    bad = idle.map(refuse, [1, 2, 3])
    dependent = idle.map(identity, bad)
    with pytest.raises(errors.FunctionError, match="refused"):
        bad.collect()
    with pytest.raises(errors.DependencyError, match=r"has no partition .* failed"):
        dependent.job.wait(PATIENCE)
    with pytest.raises(errors.FelissError):
        dependent.collect()


def test_what_depends_on_a_cancelled_job_fails(idle: feliss.Session, flags: Any) -> None:
    slow = idle.apply(work.spin, flags.path("runs"))
    flags.wait("runs")
    dependent = idle.map(identity, slow)
    slow.job.cancel()
    with pytest.raises(errors.DependencyError):
        dependent.job.wait(PATIENCE)
    with pytest.raises(errors.JobCancelled):
        slow.collect()


# ---------------------------------------------------------------- the notebook outside the cut


def add(counter: Any, value: int) -> None:
    feliss.here()[counter].append(value)


def test_a_driver_loop_sees_each_of_its_calls_take_effect_once(idle: feliss.Session) -> None:
    idle.checkpoint_every(0.15)
    moments = random.Random(5)
    counter = idle.variable(lambda rank, size: [])
    expected: list[list[int]] = [[], [], []]
    try:
        for number in range(60):
            rank = number % 3
            idle.put(add, counter, number, rank=rank)
            expected[rank].append(number)
            if number in (20, 40):
                protected(idle)
                idle.kill(moments.randrange(3))
            if moments.random() < 0.3:
                idle.wait(PATIENCE)
            if moments.random() < 0.3:
                assert counter.collect() == expected
        assert counter.collect() == expected
    finally:
        idle.checkpoint_every(None)


def test_an_error_that_was_told_is_not_told_again(idle: feliss.Session) -> None:
    with pytest.raises(errors.FunctionError, match="refused 1"):
        idle.map(refuse, [1]).collect()
    idle.kill(0, wait=True)  # the replay fails in the same way
    idle.wait(PATIENCE)
    assert idle.map(identity, [1, 2]).collect() == [1, 2]


def test_a_result_at_hand_when_a_rank_dies_is_whole(idle: feliss.Session) -> None:
    """A loss between the end of a fetch and its reading undoes the job, not the result."""
    value = idle.apply(np.zeros, 1000)
    value.wait(PATIENCE)
    opened = idle._open

    def kill_while_opening(body: Any) -> Any:
        idle._open = opened  # type: ignore[method-assign]
        idle.kill(1, wait=True)
        return opened(body)

    idle._open = kill_while_opening  # type: ignore[method-assign]
    parts = value.partitions()
    assert [part.tolist() for part in parts] == [[0.0] * 1000] * 3


def test_an_outcome_that_was_told_stays_what_it_is(idle: feliss.Session, flags: Any) -> None:
    good = idle.put(work.note, flags.path("good"), 1, rank=0)
    failed = idle.put(refuse, 1, rank=1)
    with pytest.raises(errors.FunctionError):
        idle.wait(PATIENCE)
    idle.put(work.touch_and_wait, flags.path("runs"), flags.path("go"), rank=2)
    flags.wait("runs")
    recovered = len(idle.events.of_kind("recovered"))
    idle.kill(0)
    assert (good.state, failed.state) == ("done", "failed")
    idle.events.wait_for("recovered", recovered + 1, PATIENCE)
    assert (good.state, failed.state) == ("done", "failed")
    assert isinstance(failed.error, errors.FunctionError)
    flags.set("go")


@pytest.mark.parametrize("source", [lambda: os.urandom(8), lambda: time.perf_counter_ns()])
def test_a_replay_that_comes_out_different_is_refused(source: Any) -> None:
    with feliss.start(workers=2, spares=1, replace=False, checkpoint_every=None) as session:
        drawn = session.apply(source)
        assert len(drawn.collect()) == 2
        session.kill(0)
        with pytest.raises(errors.ReplayDiverged, match="delivered"):
            session.wait(PATIENCE)
        with pytest.raises(errors.ReplayDiverged):
            drawn.collect()
        assert session.state == "failed"


def unreadable() -> Any:
    class Unreadable:
        """Another one in each process, and no notebook can read it."""

        def __reduce__(self) -> Any:
            return int, ("no number", os.getpid())

    return Unreadable()


def test_a_replay_that_cannot_be_compared_is_refused() -> None:
    with feliss.start(workers=2, spares=1, replace=False, checkpoint_every=None) as session:
        made = session.apply(unreadable)
        with pytest.raises((TypeError, ValueError)):
            made.collect()
        session.kill(0)
        with pytest.raises(errors.ReplayDiverged, match="delivered"):
            session.wait(PATIENCE)
        assert session.state == "failed"


def test_a_replay_may_pickle_in_another_order(idle: feliss.Session) -> None:
    """Equal sets of strings pickle differently on two engines: no divergence."""
    words = idle.apply(lambda: ({f"word {n}" for n in range(50)}, {"b": 1, "a": np.arange(3)}))
    before = words.collect()
    idle.kill(0, wait=True)
    idle.kill(1, wait=True)
    idle.wait(PATIENCE)
    assert repr(sorted(words.collect()[0][0])) == repr(sorted(before[0][0]))


# ---------------------------------------------------------------- same bits


def noisy(rank: int, size: int) -> np.ndarray:
    return feliss.here().rng.standard_normal(5_000) * 10.0 ** (rank * 5)


def scaled(data: Any, factor: float) -> np.ndarray:
    mine = feliss.here()[data]
    mine *= 1.0 + factor * 1e-9
    return mine[:50] / 3.0


def to_pairs(value: int) -> Any:
    rng = feliss.here().rng
    for _ in range(3):
        yield f"key {value % 17}", float(rng.standard_normal()) * 10.0 ** (value % 9)


def run_program(kills: dict[int, int], seed: int) -> tuple[bytes, Any, int]:
    with feliss.start(workers=3, spares=1, seed=seed, checkpoint_every=0.3) as session:
        data = session.variable(noisy)
        total = np.zeros(50)
        sums: Any = None
        for step in range(12):
            if step in kills:
                protected(session)
                session.kill(kills[step])
            total = total + session.apply(scaled, data, float(np.tanh(total[0]))).reduce(np.add)
            sums = session.mapreduce(to_pairs, sum, range(300)).collect()
            draws = session.map(lambda x: feliss.here().rng.random(), range(20)).collect()
        return total.tobytes(), (sums, draws), session.epoch


def test_the_same_bits_whatever_is_killed() -> None:
    moments = random.Random()
    steps = moments.sample(range(12), 3)
    kills = {step: moments.randrange(3) for step in steps}
    clean, pairs, epoch = run_program({}, seed=11)
    faulty, faulty_pairs, faulty_epoch = run_program(kills, seed=11)
    assert epoch == 0
    assert faulty_epoch >= 1
    assert faulty == clean, kills
    assert repr(faulty_pairs) == repr(pairs), kills  # the order of keys too
