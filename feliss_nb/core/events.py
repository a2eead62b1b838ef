"""What the notebook and the runtime tell the master: the events that `Master.handle` takes.

Each ``token`` is the notebook's: an `Answer` names it. Opaque values (``work``) belong to the
runtime; the core passes them on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feliss_nb.core.messages import Engine, Running


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
