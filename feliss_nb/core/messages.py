"""What master and workers say to each other: the control plane.

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


@dataclass(frozen=True, slots=True)
class Running:
    """What a rank ran when its engine was lost: a continuation's id, or its record's."""

    rank: int
    job: int
    id: bytes


# ---------------------------------------------------------------- master -> worker


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
    """A rank's state could not be written, or an engine cannot keep the snapshot."""

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
