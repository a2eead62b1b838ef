"""What a session tells of itself: plain data that shows itself in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from feliss_nb.errors import UsageError
from feliss_nb.runtime.table import Table, human_bytes, human_seconds, printable

if TYPE_CHECKING:
    from feliss_nb.runtime.anatomy import Anatomy

__all__ = [
    "Checkpoint",
    "EngineStatus",
    "JobStatus",
    "Pacing",
    "RankStatus",
    "Status",
    "StoreStatus",
    "Table",
    "human_bytes",
    "human_seconds",
    "printable",
]


@dataclass(frozen=True)
class EngineStatus:
    """An engine at one moment.

    Attributes
    ----------
    engine : int
        Its ipyparallel id.
    pid : int
        Its process.
    role : str
        ``worker`` hosts ranks, ``spare`` hosts none yet, ``dead`` is fenced or gone.
    ranks : tuple of int
        The ranks that it hosts.
    copies_of : tuple of int
        The ranks of whose snapshots it keeps a copy.
    own_bytes, copy_bytes : int
        Memory of the snapshots of its own ranks, and of the copies that it keeps for others.
    memory : int
        Memory of its process, in bytes; 0 when it is dead.
    beat : float or None
        Seconds since it was heard of; it says ten times a second that it lives.
    stopped : bool
        Whether its process stands still (SIGSTOP).
    fenced : bool
        Whether it is suspected, and being killed.
    """

    engine: int
    pid: int
    role: Literal["worker", "spare", "dead"]
    ranks: tuple[int, ...]
    copies_of: tuple[int, ...]
    own_bytes: int
    copy_bytes: int
    memory: int = 0
    beat: float | None = None
    stopped: bool = False
    fenced: bool = False


@dataclass(frozen=True)
class RankStatus:
    """A rank at one moment.

    Attributes
    ----------
    rank : int
        Which one.
    engine : int or None
        The engine that hosts it; none while it is being recovered.
    state : str
        What it does.
    pool : int
        Continuations that it has still to run.
    job : str
        Label of the job it works on, or empty.
    """

    rank: int
    engine: int | None
    state: str
    pool: int
    job: str = ""


@dataclass(frozen=True)
class JobStatus:
    """A job at one moment.

    Attributes
    ----------
    id : int
        Its number in the session's log.
    label : str
        What the user calls it.
    state : str
        ``held``, ``running``, ``done``, ``failed`` or ``cancelled``.
    done, total : int
        Units of work behind it and in all; a total of zero or none is not known yet.
    unit : str
        What is counted.
    """

    id: int
    label: str
    state: str
    done: int = 0
    total: int | None = None
    unit: str = ""

    @property
    def fraction(self) -> float | None:
        """The part that is done, 0 to 1, or none where the total is not known."""
        return min(max(self.done / self.total, 0.0), 1.0) if self.total else None

    @property
    def progress(self) -> str:
        """The progress in words: ``120/400 files (30 %)``."""
        unit = f" {self.unit}" if self.unit else ""
        if self.fraction is not None:
            # Rounded down: 100 % is said of what is complete, and of nothing else.
            return f"{self.done}/{self.total}{unit} ({int(self.fraction * 100)} %)"
        return f"{self.done}{unit}" if self.done else ""


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """A committed checkpoint.

    Attributes
    ----------
    id, epoch : int
        Counts the checkpoints of the session; the epoch it was taken in.
    bytes : int
        The snapshots of all ranks, each counted once.
    seconds : float
        From the request to the commit.
    pause : float
        The longest time, in seconds, that a rank did not run for it.
    at : float
        When it was committed.
    written : int or None
        Bytes that the captures wrote, if these are not the snapshots whole (None): less with an
        incremental or compressed capture.
    stored : bool
        Whether the session's store has it as well; `seconds` is until then.
    """

    id: int
    epoch: int
    bytes: int
    seconds: float
    pause: float
    at: float
    written: int | None = None
    stored: bool = False
    _anatomy: Callable[[int], Anatomy] | None = field(default=None, repr=False, compare=False)

    def anatomy(self) -> Anatomy:
        """Return what it is made of, while it is the last one: see ``Session.anatomy``.

        Raises
        ------
        UsageError
            If a later checkpoint has been committed, or this one is a copy.
        """
        if self._anatomy is None:
            raise UsageError("only what checkpoint() has returned has an anatomy")
        return self._anatomy(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        figures = self.id, self.epoch, self.bytes, self.seconds, self.pause, self.at
        return Checkpoint, (*figures, self.written, self.stored)

    def __str__(self) -> str:
        part = ""
        if self.written is not None and self.written < self.bytes:
            part = f" ({human_bytes(self.written)} written)"
        return (
            f"checkpoint {self.id}: {human_bytes(self.bytes)}{part} in "
            f"{human_seconds(self.seconds)}, ranks paused {human_seconds(self.pause)}"
            + (", on the store" if self.stored else "")
        )

    def __repr__(self) -> str:
        return f"<{self}, epoch {self.epoch}>"

    def _repr_html_(self) -> str:
        columns = ("checkpoint", "epoch", "size", "time", "pause")
        figures = human_bytes(self.bytes), human_seconds(self.seconds), human_seconds(self.pause)
        return Table("", columns, [(self.id, self.epoch, *figures)])._repr_html_()


@dataclass(frozen=True)
class StoreStatus:
    """The store of a session at one moment.

    Attributes
    ----------
    place : str
        Where it is.
    checkpoint : int or None
        The last checkpoint that it has.
    bytes : int
        Its size, the master's share included.
    seconds : float or None
        From its commit in memory until the store had it; none: another session kept it.
    copying : int or None
        The checkpoint that is being copied.
    trouble : str
        Why the last copy failed; empty if it did not.
    """

    place: str
    checkpoint: int | None = None
    bytes: int = 0
    seconds: float | None = None
    copying: int | None = None
    trouble: str = ""

    def __str__(self) -> str:
        parts = [f"nothing yet on {self.place}"]
        if self.checkpoint is not None:
            time = "" if self.seconds is None else f" in {human_seconds(self.seconds)}"
            size = human_bytes(self.bytes)
            parts = [f"checkpoint {self.checkpoint} on {self.place}: {size}{time}"]
        if self.copying is not None:
            parts.append(f"checkpoint {self.copying} is being copied")
        return "; ".join([*parts, *([self.trouble] if self.trouble else [])])


@dataclass(frozen=True)
class Pacing:
    """How often checkpoints are taken, and what that costs.

    Attributes
    ----------
    chosen : bool
        Whether the session chooses the interval.
    every : float
        Seconds of running work from one checkpoint to the next.
    predicted : float or None
        Time that is not work, to be expected, as a part of the work; None before anything was
        measured, or where the interval was given.
    actual : float or None
        The same, as it was since the interval was asked for: pauses, recoveries, and work done
        again.
    cost, mtbf : float or None
        By how much a checkpoint delays the work, and the mean time between losses, in seconds;
        what the interval is chosen from.
    """

    chosen: bool
    every: float
    predicted: float | None
    actual: float | None
    cost: float | None
    mtbf: float | None

    def __str__(self) -> str:
        parts = [f"every {human_seconds(self.every)} of work"]
        if self.chosen:
            parts[0] += ", chosen"
            if self.cost is not None and self.mtbf is not None:
                parts[0] += (
                    f" for a pause of {human_seconds(self.cost)} and a loss in "
                    f"{human_seconds(self.mtbf)}"
                )
        if self.predicted is not None:
            parts.append(f"overhead predicted {_percent(self.predicted)}")
        if self.actual is not None:
            word = "actual" if self.predicted is not None else "overhead"
            parts.append(f"{word} {_percent(self.actual)}")
        return "; ".join(parts)


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %" if part >= 0.1 else f"{100 * part:.2g} %"


@dataclass(frozen=True, repr=False)
class Status:
    """A session at one moment.

    Attributes
    ----------
    session : str
        Its name.
    state : str
        What it does.
    epoch : int
        Incarnation of its ranks.
    copies : int
        Copies asked for of each snapshot, besides the owner's own.
    protected : bool
        Every snapshot has them; false while copies that a loss destroyed are being made anew.
    engines, ranks, jobs : tuple
        Their parts.
    checkpoint : Checkpoint or None
        The last committed.
    memory_own, memory_copies : int
        Bytes that the checkpoints take on all engines: the ranks' own snapshots, and the copies.
    messages : tuple of str
        What the user should know, oldest first.
    carrier : str
        What carries the messages of SPMD programs: ``MPI``, or ``sockets`` and why.
    store : StoreStatus or None
        Where checkpoints are kept besides memory.
    pacing : Pacing or None
        How often checkpoints are taken; none: only on request.
    capture : str
        How a rank becomes a snapshot.
    at : float
        When this was: seconds since the session began, as its events have them.
    """

    session: str
    state: str
    epoch: int
    copies: int
    protected: bool
    engines: tuple[EngineStatus, ...]
    ranks: tuple[RankStatus, ...]
    jobs: tuple[JobStatus, ...]
    checkpoint: Checkpoint | None = None
    memory_own: int = 0
    memory_copies: int = 0
    messages: tuple[str, ...] = ()
    carrier: str = "sockets"
    store: StoreStatus | None = None
    pacing: Pacing | None = None
    capture: str = "full"
    at: float = 0.0

    def tables(self) -> tuple[Table, ...]:
        """Give the tables that a status is shown as.

        Returns
        -------
        tuple of Table
            The facts of the session, then its engines, ranks and jobs, then what it has to say.
        """
        size = human_bytes
        facts = [
            ("state", self.state),
            ("epoch", str(self.epoch)),
            ("copies", self._copies()),
            (
                "memory",
                f"{size(self.memory_own)} of snapshots, {size(self.memory_copies)} of copies",
            ),
            ("last", str(self.checkpoint) if self.checkpoint else "no checkpoint yet"),
        ]
        if self.store is not None:
            facts.append(("store", str(self.store)))
        if self.pacing is not None:
            facts.append(("interval", str(self.pacing)))
        if self.carrier != "sockets":  # then there is no MPI
            facts.append(("carrier", self.carrier))
        engines = [
            (e.engine, e.pid, e.role, e.ranks, e.copies_of, size(e.own_bytes), size(e.copy_bytes))
            for e in self.engines
        ]
        ranks = [(r.rank, r.engine, r.state, r.pool, r.job) for r in self.ranks]
        jobs = [(j.id, j.label, j.state, j.progress) for j in self.jobs]
        columns = ("engine", "pid", "role", "ranks", "copies of", "snapshots", "copies")
        tables = [
            Table(f"session {self.session}", ("", ""), facts),
            Table("engines", columns, engines),
            Table("ranks", ("rank", "engine", "state", "pool", "job"), ranks),
            Table("jobs", ("job", "label", "state", "progress"), jobs),
        ]
        if self.messages:
            tables.append(Table("messages", ("",), [(message,) for message in self.messages]))
        return tuple(tables)

    def _copies(self) -> str:
        if not self.copies:
            return "0: a rank whose engine dies is lost"
        if self.checkpoint is None:
            return f"{self.copies} of each snapshot, from the first checkpoint on"
        return f"{self.copies}, " + ("all in place" if self.protected else "being made anew")

    def __repr__(self) -> str:
        return "\n\n".join(repr(table) for table in self.tables())

    def _repr_html_(self) -> str:
        return f"<div>{''.join(table._repr_html_() for table in self.tables())}</div>"
