"""A row for each engine: what a dashboard shows of it, and a terminal as a table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from feliss_nb.lab.history import History
from feliss_nb.runtime import Status, Table
from feliss_nb.runtime.status import EngineStatus, human_bytes, human_seconds

#: What an engine can be seen at.
STATES = {
    "running": "hosts ranks, and runs what they have to do",
    "capturing": "the state of its ranks is being captured",
    "sending": "copies of its ranks' snapshots are on their way",
    "loading": "its ranks stand up from their snapshots",
    "slow": "a fault makes it slow: its process stands still most of the time",
    "stopped": "its process stands still (SIGSTOP)",
    "fenced": "is suspected, and being killed",
    "dead": "has ended; its ranks live elsewhere",
    "spare": "hosts no rank, and waits to take some over",
    "ended": "the session has ended",
}

#: Seconds without a word from which on a beat is late: it comes ten times a second.
LATE = 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """What is shown of an engine.

    Attributes
    ----------
    engine, pid : int
    ranks : tuple of int
        That it hosts.
    state : str
        One of `STATES`.
    pool : int or None
        Continuations that its ranks have still to run; none: it has no rank.
    memory : int
        Bytes of its process.
    beat : float or None
        Seconds since it was heard of; none: it is dead.
    own_bytes, copy_bytes : int
        Of the snapshots that it keeps: of its ranks, and of others.
    """

    engine: int
    pid: int
    ranks: tuple[int, ...]
    state: str
    pool: int | None
    memory: int
    beat: float | None
    own_bytes: int
    copy_bytes: int

    @property
    def is_late(self) -> bool:
        """Whether it has not been heard of for long: it hangs, is stopped, or computes in C."""
        return self.beat is not None and self.beat > LATE

    def cells(self) -> tuple[str, ...]:
        """Give the texts of `COLUMNS`."""
        return (
            str(self.engine),
            ", ".join(map(str, self.ranks)) or "-",
            self.state,
            "-" if self.pool is None else str(self.pool),
            human_bytes(self.memory) if self.memory else "-",
            human_bytes(self.own_bytes + self.copy_bytes) if self.memory else "-",
            "-" if self.beat is None else f"{beat_of(self.beat)} ago",
        )


COLUMNS = ("engine", "ranks", "state", "pool", "memory", "snapshots", "last beat")


def beat_of(seconds: float) -> str:
    """Write the age of a beat, without digits that change with every look."""
    if seconds < 1:
        return "< 1 s"
    return f"{int(seconds)} s" if seconds < 100 else human_seconds(seconds)


def rows(status: Status, history: History, ended: bool = False) -> list[Row]:
    """Give a row for each engine, dead ones too, in the order of their numbers.

    Parameters
    ----------
    status : Status
        The last one.
    history : History
        Of the events up to it.
    ended : bool
        Whether the session has ended since.
    """
    pools = {rank.rank: rank.pool for rank in status.ranks}
    found = []
    for engine in sorted(status.engines, key=lambda engine: engine.engine):
        pool = sum(pools.get(rank, 0) for rank in engine.ranks) if engine.ranks else None
        state = _state(engine, status, history)
        if ended and state != "dead":
            state = "ended"
        figures = engine.own_bytes, engine.copy_bytes
        beat = None if ended else engine.beat
        memory = 0 if ended else engine.memory
        about = engine.engine, engine.pid, engine.ranks, state, pool
        found.append(Row(*about, memory, beat, *figures))
    return found


def _state(engine: EngineStatus, status: Status, history: History) -> str:
    if engine.role == "dead":
        return "dead"
    if engine.fenced:
        return "fenced"
    if history.is_slow(str(engine.engine)):
        return "slow"
    if engine.stopped:
        return "stopped"
    if not engine.ranks:
        return "spare"
    if status.state in ("recovering", "starting"):
        return "loading"
    captures = {history.capturing(rank) for rank in engine.ranks}
    for kind in ("capturing", "sending"):
        if kind in captures:
            return kind
    return "running"


def table(title: str, found: Sequence[Row]) -> Table:
    """Give the rows as a table."""
    return Table(title, COLUMNS, [row.cells() for row in found])
