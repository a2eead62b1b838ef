"""What the machines of master and worker tell the runtime to do: all that they can ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from feliss_nb.core.messages import Continuation, Engine, RankImage


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
