"""Messages as frames: a pickled head, and large buffers behind it without a copy.

A head is unpickled once it is known to come from a process of the session: see `doors`.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import zmq

# Below this size a frame of its own costs more than the copy.
SMALL = 16 * 1024


@dataclass(slots=True)
class Parcel:
    """A function call, packed to travel: from the notebook, or from another rank.

    Parameters
    ----------
    root : tuple or None
        The function: the digest of its blob and its name there, or the names of a module and of
        the function in it; None if it stands in `data`.
    data : bytes
        The pickled arguments, or the pair of function and arguments.
    buffers : tuple of buffers
        What `data` refers to out of band.
    digests : tuple of bytes
        The blobs that must be loaded before `data` is read.
    reaches : frozenset of int
        The variables that are read and written through it. A snapshot that holds it keeps them:
        no pickler sees what stands in `data`.
    """

    root: tuple[bytes, str | None] | tuple[str, str] | None
    data: bytes
    buffers: tuple[Any, ...]
    digests: tuple[bytes, ...]
    reaches: frozenset[int] = frozenset()

    @property
    def nbytes(self) -> int:
        """Bytes of the arguments."""
        return len(self.data) + sum(memoryview(buffer).nbytes for buffer in self.buffers)

    def bare(self) -> Parcel:
        """Return it without the arguments."""
        return Parcel(self.root, b"", (), self.digests, self.reaches)

    def __reduce__(self) -> tuple[Any, ...]:
        buffers = tuple(pickle.PickleBuffer(buffer) for buffer in self.buffers)
        return Parcel, (self.root, self.data, buffers, self.digests, self.reaches)


@dataclass(slots=True)
class Body:
    """Frames of a snapshot inside a message."""

    frames: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return Body, (tuple(pickle.PickleBuffer(frame) for frame in self.frames),)


@dataclass(frozen=True, slots=True)
class Known:
    """Stands for a buffer that the receiver has, by the digest of its content."""

    digest: bytes


@dataclass(slots=True)
class Blob:
    """A function with the globals that it captured, under the digest of its content."""

    digest: bytes
    data: bytes
    buffers: tuple[Any, ...]
    modules: tuple[tuple[str, str], ...] = ()
    handles: frozenset[int] = frozenset()
    targets: frozenset[int] = frozenset()

    def __reduce__(self) -> tuple[Any, ...]:
        buffers = tuple(
            buffer if isinstance(buffer, Known) else pickle.PickleBuffer(buffer)
            for buffer in self.buffers
        )
        names = self.modules, self.handles, self.targets
        return Blob, (self.digest, self.data, buffers, *names)


@dataclass(frozen=True, slots=True)
class DropBlobs:
    """No live job uses these functions."""

    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an engine stands in the world that an mpiexec made.

    Parameters
    ----------
    world : str
        mpiexec's name of it.
    rank, size : int
        The engine's rank there, and how many there are.
    is_up : bool
        Whether MPI is initialized.
    trouble : str
        Why gangs cannot use it; empty if they can.
    """

    world: str
    rank: int
    size: int
    is_up: bool
    trouble: str


@dataclass(frozen=True, slots=True)
class Hello:
    """An engine's worker is up, or has found another master.

    Parameters
    ----------
    heard : int
        The number of the last message that it has heard; see `core.seat`.
    carries : (int, bool) or None
        The last rollback that it was told the carrier for, and whether that is MPI.
    """

    engine: str
    pid: int
    started: float
    place: Place | None = None
    heard: int = 0
    carries: tuple[int, bool] | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    """The master knows of an engine, and has heard so many of its messages.

    It looks for modules in these folders, so the engine shall too.
    """

    heard: int
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Heard:
    """The messages up to this number have been heard."""

    heard: int


@dataclass(frozen=True, slots=True)
class Numbered:
    """A message of the core's between master and engine; see `core.seat`.

    Parameters
    ----------
    number : int
        Its number on the link.
    heard : int
        The number of the last message that came the other way.
    message : object
    """

    number: int
    heard: int
    message: Any


@dataclass(frozen=True, slots=True)
class Printed:
    """What continuations printed on an engine: (rank, job, stream, text)."""

    lines: tuple[tuple[int, int, str, str], ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far jobs are: (rank, job) -> (done, total); and records mapped since the last one.

    `unanswered` are engines that owe an answer for long to what was sent to them; `kept_out` says
    how often strangers were refused, and how many messages dropped.
    """

    epoch: int
    progress: dict[tuple[int, int], tuple[int, int]]
    mapped: dict[tuple[int, int], int]
    pools: dict[int, int]
    heard: int = 0
    unanswered: tuple[str, ...] = ()
    kept_out: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A rank in a step of a gang waits for a message: for what, and what it sent and received."""

    epoch: int
    cut: int
    rank: int
    step: tuple[int, int]
    waits: list[Any]
    sent: tuple[int, ...]
    received: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """Make the communicator of an epoch, together with the other engines of the world.

    Parameters
    ----------
    attempt : int
        Of the rollback that begins the epoch.
    session : int
        A tag of the session: others may use the same engines.
    members : tuple of int
        The session's engines that live, by their ranks in the world.
    group : tuple of int
        The engine of each rank, likewise.
    """

    attempt: int
    session: int
    members: tuple[int, ...]
    group: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Linked:
    """The communicator is made, or why it is not."""

    attempt: int
    error: str


@dataclass(frozen=True, slots=True)
class Carrier:
    """Whether MPI carries an epoch's messages: every engine has its communicator then."""

    attempt: int
    mpi: bool


@dataclass(frozen=True, slots=True)
class StoreAt:
    """The session's store, pickled."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Keep:
    """Copy these ranks' shards of a committed checkpoint from your memory to the store.

    Parameters
    ----------
    checkpoint : int
    ranks : tuple of int
    base : int
        The store's newest checkpoint: what has changed since then is enough. 0: there is none.
    """

    checkpoint: int
    ranks: tuple[int, ...]
    base: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """The store has a rank's shard, or why not.

    Parameters
    ----------
    checkpoint, rank : int
    outcome : Record or FelissError
    code : dict of str to str
        Digests of the user's modules that this engine has imported, by name.
    base : int
        The checkpoint since which it holds the changes; 0: it is whole.
    """

    checkpoint: int
    rank: int
    outcome: Any
    code: dict[str, str]
    base: int = 0


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring these ranks' shards of a checkpoint from the store to your memory.

    Parameters
    ----------
    checkpoint : int
    ranks : dict of int to tuple of int
        For each, the checkpoints with what comes before it; see ``store.Record``.
    """

    checkpoint: int
    ranks: dict[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A rank's shard is in the engine's memory, or why not."""

    checkpoint: int
    rank: int
    error: Any = None


@dataclass(frozen=True, slots=True)
class Phase:
    """A rank has come to a phase of a job."""

    epoch: int
    rank: int
    job: int
    phase: str


@dataclass(frozen=True, slots=True)
class Misbehave:
    """Do to yourself what a fault plan says: see `faults.Fault`; `peer` is an engine."""

    kind: str
    seconds: float
    peer: str | None
    rank: int | None
    count: int


@dataclass(frozen=True, slots=True)
class Names:
    """What the notebook calls its variables, for messages to people."""

    names: dict[int, str]


@dataclass(frozen=True, slots=True)
class Quit:
    """The session ends; the engine goes on without it."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A worker's own thread failed: a bug."""

    text: str


def encode(message: Any) -> list[Any]:
    """Return the frames of a message; the buffers are views of live memory."""
    frames: list[Any] = [b""]

    def out_of_band(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < SMALL:
            return True
        frames.append(view)
        return False

    frames[0] = pickle.dumps(message, protocol=5, buffer_callback=out_of_band)
    return frames


def decode(frames: Sequence[Any]) -> Any:
    """Return the message of `frames`."""
    return pickle.loads(frames[0], buffers=frames[1:])


def receive(socket: zmq.Socket[bytes], flags: int = 0) -> list[Any]:
    """Receive a message: small frames as bytes, large ones as views of the memory received."""
    frame = socket.recv(flags, copy=False)
    frames: list[Any] = [frame.bytes]
    while frame.more:
        frame = socket.recv(copy=False)
        frames.append(frame.buffer if len(frame) >= SMALL else frame.bytes)
    return frames


def send(socket: zmq.Socket[bytes], frames: Sequence[Any], flags: int = 0) -> None:
    """Send a message; large frames are not copied and must not change."""
    if len(frames) == 1:
        socket.send(frames[0], flags)
    else:
        socket.send_multipart(frames, flags, copy=False)
