"""What master, workers and their runtimes say to each other: the control plane.

Messages name snapshots and never carry them. Opaque values (``work``, ``body``, ``error``) belong
to the runtime; the core passes them on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Engine = str
"""An engine's identity; the runtime uses the uuid of the ipyparallel engine."""

Counts = Mapping[int, int]


@dataclass(slots=True, eq=False)
class Continuation:
    """A piece of the rest of the computation, as the core sees it.

    Parameters
    ----------
    id : bytes
        See `ids`.
    job : int
        The submission that it descends from.
    needs : tuple of int
        The variables that must have a partition on the rank before it starts.
    work : object
        The function and its arguments, live or packed: the runtime's.
    gang : tuple of (int, int), optional
        For a step of a gang: the gang, which is its job's number, and the step's. Every rank has
        one; they may wait for each other.
    """

    id: bytes
    job: int
    needs: tuple[int, ...]
    work: Any
    gang: tuple[int, int] | None = None


# ---------------------------------------------------------------- master -> worker


@dataclass(frozen=True, slots=True)
class Running:
    """What a rank ran when its engine was lost: a continuation's id, or its record's."""

    rank: int
    job: int
    id: bytes


@dataclass(frozen=True, slots=True)
class Rollback:
    """Stand up the ranks of `routes` that are yours from checkpoint `checkpoint`.

    `poisoned` must not run, with the number of engines that were lost while each ran; `waiting`
    ranks start nothing before `StartWaiting`.
    """

    epoch: int
    attempt: int
    checkpoint: int
    cut: int
    routes: Mapping[int, Engine]
    sources: Mapping[int, Engine | None]
    garbage: frozenset[int] = frozenset()
    poisoned: Mapping[bytes, int] = field(default_factory=dict)
    waiting: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Resume:
    """Every rank stands: run."""

    epoch: int


@dataclass(frozen=True, slots=True)
class StartWaiting:
    """Another engine is here, with copies: the ranks that wait for that may start again."""

    epoch: int


@dataclass(frozen=True, slots=True)
class StartStep:
    """Every rank has what this step of a gang needs: start it."""

    gang: int
    step: int


@dataclass(frozen=True, slots=True)
class Prepare:
    """Begin no step of a gang beyond `limits`; say when you have begun those."""

    round: int
    limits: Counts


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut each rank as soon as its running continuation ends; `holders` get the copies.

    `capture` names the way in which the runtime writes the snapshots.
    """

    checkpoint: int
    holders: Mapping[int, tuple[Engine, ...]]
    capture: str = "full"


@dataclass(frozen=True, slots=True)
class Channels:
    """How many messages each rank had been sent, by source, at the sources' cuts."""

    checkpoint: int
    expected: Mapping[int, Counts]


@dataclass(frozen=True, slots=True)
class Commit:
    """The checkpoint is whole: drop older ones, and the garbage it proved."""

    checkpoint: int
    garbage: frozenset[int]


@dataclass(frozen=True, slots=True)
class Abort:
    """Forget the checkpoint under way."""

    checkpoint: int


@dataclass(frozen=True, slots=True)
class Inject:
    """A continuation that the notebook submitted, for one rank."""

    rank: int
    cut: int
    continuation: Continuation


@dataclass(frozen=True, slots=True)
class Forget:
    """These jobs have ended: their counters go, what they left empty stays empty."""

    jobs: tuple[int, ...]
    outputs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancel:
    """Drop what is left of a job; nobody shall wait for its outputs."""

    job: int
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Free:
    """No handle is left of these variables."""

    variables: frozenset[int]


@dataclass(frozen=True, slots=True)
class Replicate:
    """Send your copy of a rank's snapshot to another engine."""

    checkpoint: int
    rank: int
    target: Engine


# ---------------------------------------------------------------- worker -> master


@dataclass(frozen=True, slots=True)
class Restored:
    """A rank stands, ready to resume."""

    epoch: int
    attempt: int
    rank: int


@dataclass(frozen=True, slots=True)
class RestoreFailed:
    """A rank could not be loaded from the snapshot that `source` gave."""

    epoch: int
    attempt: int
    rank: int
    source: Engine
    error: Any


@dataclass(frozen=True, slots=True)
class StepReady:
    """A rank has the variables that a step of a gang needs."""

    epoch: int
    rank: int
    gang: int
    step: int


@dataclass(frozen=True, slots=True)
class Begun:
    """The last step that a rank has begun of each gang; it begins none beyond the limits."""

    epoch: int
    round: int
    rank: int
    steps: Counts


@dataclass(frozen=True, slots=True)
class CutDone:
    """A rank has cut; `sent` counts its messages before the cut, by destination."""

    epoch: int
    checkpoint: int
    rank: int
    sent: Counts


@dataclass(frozen=True, slots=True)
class Saved:
    """A rank's snapshot, channels included, is in its own engine's store."""

    epoch: int
    checkpoint: int
    rank: int
    nbytes: int
    pause: float
    handles: frozenset[int]
    variables: frozenset[int] = frozenset()
    written: int | None = None  # bytes that the capture wrote, where they are not all of `nbytes`


@dataclass(frozen=True, slots=True)
class Stored:
    """An engine keeps a copy of a rank's snapshot."""

    checkpoint: int
    rank: int


@dataclass(frozen=True, slots=True)
class CaptureFailed:
    """A rank's state could not be written."""

    epoch: int
    checkpoint: int
    rank: int
    error: Any


@dataclass(frozen=True, slots=True)
class CaptureLost:
    """A rank's capture was lost on the way, and its state has changed since: begin anew."""

    epoch: int
    checkpoint: int
    rank: int
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """Counters of the jobs that have nothing left on a rank (termination detection)."""

    epoch: int
    rank: int
    jobs: Mapping[int, tuple[Counts, Counts]]


@dataclass(frozen=True, slots=True)
class Output:
    """A value for the notebook from a job, sent at the sender's cut number `cut`."""

    epoch: int
    cut: int
    rank: int
    job: int
    digest: bytes
    body: Any
    handles: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Failed:
    """A continuation raised."""

    epoch: int
    cut: int
    rank: int
    job: int
    error: Any


@dataclass(frozen=True, slots=True)
class SetAside:
    """A continuation did not run, since it must not any more: see `poison`.

    Parameters
    ----------
    id : bytes
        Its identity, or its record's.
    job, rank, losses : int
        Of what job, where, and how many engines were lost with it.
    function : str
        Its name.
    record : str or None
        The record at hand.
    call : object
        The function and its arguments, packed, or why they cannot travel: the runtime's.
    """

    id: bytes
    job: int
    rank: int
    losses: int
    function: str
    record: str | None
    call: Any


@dataclass(frozen=True, slots=True)
class LinkBroken:
    """Messages that this engine was sent by another are lost."""

    engine: Engine


# ---------------------------------------------------------------- notebook -> master


@dataclass(frozen=True, slots=True)
class Start:
    """The first engines are here: stand up `size` ranks on the first of them."""

    engines: tuple[Engine, ...]
    size: int


@dataclass(frozen=True, slots=True)
class StartFrom:
    """Go on from a checkpoint of another session: its shards are in these engines' stores.

    Parameters
    ----------
    engines : tuple of str
        Those that are here.
    image : MasterImage
        The old master's share of the checkpoint; the new one takes it over.
    shards : mapping of int to str
        The engine that has each rank's shard, and hosts it.
    held : frozenset of int
        The variables that this notebook holds.
    cut : int
        The largest number that a checkpoint had; the next is one more.
    """

    engines: tuple[Engine, ...]
    image: Any
    shards: Mapping[int, Engine]
    held: frozenset[int] = frozenset()
    cut: int = 0


@dataclass(frozen=True, slots=True)
class Submit:
    """A new job; the master gives it its place in the log and answers `token` with it."""

    token: Any
    label: str
    starts: tuple[tuple[int, Any, tuple[int, ...]], ...]  # (rank, work, needs)
    outputs: tuple[int, ...] = ()
    handles: frozenset[int] = frozenset()
    internal: bool = False
    gang: bool = False  # the starts, one a rank, are the first step of a gang
    timeout: float | None = None  # seconds that one of its continuations may run


@dataclass(frozen=True, slots=True)
class Wait:
    """Answer `token` when these jobs have ended (None: when every job is quiet)."""

    token: Any
    jobs: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Unwait:
    """Nobody waits for `token` any more."""

    token: Any


@dataclass(frozen=True, slots=True)
class CancelJob:
    """The notebook cancels a job."""

    job: int


@dataclass(frozen=True, slots=True)
class Hold:
    """The notebook holds a handle of a variable again (one came with a result)."""

    variable: int


@dataclass(frozen=True, slots=True)
class Release:
    """The notebook holds no handle and no name of a variable any more."""

    variable: int


@dataclass(frozen=True, slots=True)
class TakeCheckpoint:
    """Take a checkpoint that begins after this; answer `token` when it is committed."""

    token: Any


@dataclass(frozen=True, slots=True)
class WaitProtected:
    """Answer `token` when every rank runs and every snapshot has its copies."""

    token: Any


@dataclass(frozen=True, slots=True)
class EngineJoined:
    """A new engine is ready."""

    engine: Engine


@dataclass(frozen=True, slots=True)
class EngineSuspect:
    """An engine misses its beats and its process may live: fence it first."""

    engine: Engine
    why: str


@dataclass(frozen=True, slots=True)
class EngineLost:
    """An engine's process is known to be gone.

    `running` is what may be the cause: empty where the cause is known to be another.
    """

    engine: Engine
    why: str
    running: tuple[Running, ...] = ()


@dataclass(frozen=True, slots=True)
class NotReplaced:
    """A replacement that was ordered does not come."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The answer to a Compare."""

    job: int
    rank: int
    same: bool


@dataclass(frozen=True, slots=True)
class UseCapture:
    """Take the next checkpoint in the way that the runtime calls by this name."""

    capture: str


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Another notebook goes on: what the one before waited for and fetched concerns nobody now.

    Parameters
    ----------
    held : frozenset of int
        The variables that it holds.
    """

    held: frozenset[int]


@dataclass(frozen=True, slots=True)
class Stop:
    """The session ends."""


# ---------------------------------------------------------------- worker -> worker


@dataclass(frozen=True, slots=True)
class Want:
    """Send me a rank's snapshot."""

    checkpoint: int
    rank: int
    engine: Engine


@dataclass(frozen=True, slots=True)
class Absent:
    """This engine does not have that snapshot: to who wants it, and to the master."""

    checkpoint: int
    rank: int
    engine: Engine


# ---------------------------------------------------------------- commands to the runtimes


@dataclass(frozen=True, slots=True)
class ToMaster:
    """Send to the master."""

    message: Any


@dataclass(frozen=True, slots=True)
class ToEngine:
    """Send to an engine."""

    engine: Engine
    message: Any


@dataclass(frozen=True, slots=True)
class Send:
    """Send to an engine, under this number of its link."""

    engine: Engine
    number: int
    message: Any


@dataclass(frozen=True, slots=True)
class Capture:
    """Write the rank's pool and partitions to bytes, as they are before its next continuation."""

    rank: int
    checkpoint: int
    image: RankImage
    capture: str = "full"


@dataclass(frozen=True, slots=True)
class Seal:
    """Add the messages that were under way to the capture, keep it, and send the copies."""

    rank: int
    checkpoint: int
    channel: tuple[tuple[int, Continuation], ...]
    holders: tuple[Engine, ...]


@dataclass(frozen=True, slots=True)
class Discard:
    """A capture under way is not wanted any more."""

    rank: int
    checkpoint: int


@dataclass(frozen=True, slots=True)
class Load:
    """Stand up a rank from a snapshot in this engine's store (checkpoint 0: from nothing)."""

    rank: int
    checkpoint: int


@dataclass(frozen=True, slots=True)
class Retire:
    """Ask what runs on a rank of an old epoch to stop; never wait for it."""

    rank: int


@dataclass(frozen=True, slots=True)
class Run:
    """There may be something to run on this rank."""

    rank: int


@dataclass(frozen=True, slots=True)
class StopJob:
    """Ask the running continuation of this job on this rank to stop."""

    rank: int
    job: int


@dataclass(frozen=True, slots=True)
class JobOver:
    """A job left this rank: what the runtime kept for it can go."""

    job: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete snapshots for which `older` than this or equal to `exactly` holds."""

    older: int = 0
    exactly: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete partitions."""

    variables: frozenset[int]


@dataclass(frozen=True, slots=True)
class SendShard:
    """Send a snapshot of this engine's store to another engine."""

    engine: Engine
    checkpoint: int
    rank: int


@dataclass(frozen=True, slots=True)
class Fence:
    """Make sure that an engine is dead before another takes its place."""

    engine: Engine


@dataclass(frozen=True, slots=True)
class Replace:
    """Start a spare in the place of a lost engine."""


@dataclass(frozen=True, slots=True)
class Compare:
    """A delivered result came out with another digest: are the values equal?"""

    job: int
    rank: int
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a token of the notebook's: a value, or an error to raise."""

    token: Any
    value: Any = None
    error: Any = None


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A job's state or outcome is another; the notebook's view of it follows."""

    job: int


@dataclass(frozen=True, slots=True)
class Log:
    """One line of the event log."""

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class RankImage:
    """The core's share of a rank's snapshot."""

    pool: list[Continuation] = field(default_factory=list)
    sent: dict[int, dict[int, int]] = field(default_factory=dict)
    received: dict[int, dict[int, int]] = field(default_factory=dict)
    sent_total: dict[int, int] = field(default_factory=dict)
    received_total: dict[int, int] = field(default_factory=dict)
    cancelled: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
