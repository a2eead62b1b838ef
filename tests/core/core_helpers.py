"""What the tests of the core share: ready-made machines, programs and fault plans."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from feliss_nb.core import commands as cmd
from feliss_nb.core import events as ev
from feliss_nb.core import messages as m
from feliss_nb.core.master import Master
from feliss_nb.core.rank import Rank
from feliss_nb.errors import LossError
from feliss_nb.lab.campaign import FAULTS
from feliss_nb.lab.simulator import Simulation


def continuation(job: int = 0, name: bytes = b"c", needs: tuple[int, ...] = ()) -> m.Continuation:
    return m.Continuation(name, job, needs, None)


def running_rank(number: int = 0) -> Rank:
    rank = Rank(number, 0)
    rank.load(m.RankImage(), (), (), 0)
    rank.resume()
    return rank


def only(commands: list[Any], kind: type) -> list[Any]:
    """The commands of one kind; for a message, those of its kind on their way to an engine."""
    found = [c for c in commands if isinstance(c, kind)]
    return found or [c.message for c in commands if isinstance(getattr(c, "message", None), kind)]


def restore_all(master: Master) -> list[Any]:
    """Let every rank of the master's last rollback stand."""
    commands: list[Any] = []
    for rank, engine in list(master.routes.items()):
        restored = m.Restored(master.epoch + 1, master.attempt, rank)
        commands += master.hear(engine, restored)
    return commands


def running_master(size: int = 2, spares: int = 1, copies: int = 1) -> Master:
    master = Master(copies=copies)
    engines = tuple(f"e{i}" for i in range(size + spares))
    master.handle(ev.Start(engines, size))
    restore_all(master)
    assert master.state == "running"
    return master


def submit(master: Master, *ranks: int, **more: Any) -> int:
    """Submit a job that starts on `ranks`; return its number."""
    starts = tuple((rank, None, ()) for rank in ranks or (0,))
    return only(master.handle(ev.Submit("submit", "job", starts, **more)), cmd.Answer)[0].value


def end(master: Master, job: int, *ranks: int) -> list[Any]:
    """Let the ranks report that they received the job's starts and have nothing left."""
    commands: list[Any] = []
    for rank in ranks or (0,):
        report = m.Report(master.epoch, rank, {job: ({}, {-1: 1})})
        commands += master.hear(master.routes[rank], report)
    return commands


def begin_all(master: Master, steps: dict[int, int] | None = None) -> list[Any]:
    """Let every rank tell the steps of gangs that it has begun: `steps`."""
    commands: list[Any] = []
    for rank, engine in master.routes.items():
        begun = m.Begun(master.epoch, master.checkpoints.round, rank, steps or {})
        commands += master.hear(engine, begun)
    return commands


def cut_all(master: Master) -> None:
    if master.state == "preparing":
        begin_all(master)
    for rank, engine in master.routes.items():
        master.hear(engine, m.CutDone(master.epoch, master.cut, rank, {}))


def commit(master: Master, variables: tuple[int, ...] = (), reached: tuple[int, ...] = ()) -> Any:
    """Take a checkpoint to its commit; return the commands of the last step."""
    if master.state == "running":
        master.handle(ev.TakeCheckpoint("checkpoint"))
    if master.state == "preparing":
        begin_all(master)
    number, holders = master.cut, master.pending.holders
    if master.state == "cutting":
        cut_all(master)
    commands: list[Any] = []
    for rank, engine in master.routes.items():
        saved = m.Saved(
            master.epoch, number, rank, 1, 0.0, frozenset(reached), frozenset(variables)
        )
        commands += master.hear(engine, saved)
        for holder in holders[rank]:
            commands += master.hear(holder, m.Stored(number, rank))
    assert master.committed.id == number
    return commands


# ---------------------------------------------------------------- programs and plans

_small = st.integers(0, 3)
#: Calls whose effect does not depend on which number their job has.
plain_ops = st.one_of(
    st.tuples(st.just("shuffle"), _small, st.integers(0, 4)),
    st.tuples(st.just("ring"), _small, _small, st.integers(0, 12)),
    st.tuples(st.just("fill_and_read"), _small, _small),
    st.tuples(st.just("keep_and_follow"), _small, st.integers(0, 5)),
    st.tuples(st.just("loop"), _small, st.integers(0, 2)),
    st.tuples(st.just("make"), _small),
    st.tuples(st.just("checkpoint")),
    st.tuples(st.just("wait")),
)
all_ops = st.one_of(
    plain_ops,
    st.tuples(st.just("tree"), _small, _small, st.integers(1, 4)),
    st.tuples(st.just("walk"), _small, st.integers(0, 9), st.integers(0, 6)),
    st.tuples(st.just("gang"), _small, st.integers(0, 6), st.integers(0, 3)),
    st.tuples(st.just("gang"), _small, st.integers(0, 6), st.integers(0, 3)),
    st.tuples(st.just("gang_waits"), _small, _small, _small),
    st.tuples(st.just("cancel_gang"), _small, st.integers(0, 1)),
    st.tuples(st.just("fail"), _small),
    st.tuples(st.just("cancel"), st.integers(0, 1)),
)
programs = st.lists(all_ops, min_size=1, max_size=6)
worlds = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32),
        "workers": st.integers(1, 4),
        "spares": st.integers(0, 2),
        "copies": st.sampled_from([1, 1, 1, 2, 0]),
        "replace": st.booleans(),
        "replacements": st.integers(0, 4),
        "delay": st.sampled_from([0.2, 1.0, 5.0]),
        "detection": st.sampled_from([0.1, 3.0, 20.0]),
        "checkpoint_every": st.sampled_from([None, 3.0, 10.0, 30.0]),
        "record": st.just(True),
    }
)
faults = st.tuples(
    st.sampled_from(FAULTS),
    st.integers(0, 7),
)
plans = st.lists(st.tuples(st.integers(0, 150), faults), max_size=6)


def outcome(sim: Simulation) -> list[Any] | None:
    """What the notebook saw in the end; None where more was lost than the copies tolerate."""
    try:
        return sim.run()
    except LossError:
        return None
