"""An engine's side of the session's store: shards from memory to it, and back.

It has a thread of its own, which waits for the store and never holds the engine's lock meanwhile.
Where it has nothing else to do, a shard goes to the store while its rank is still being captured:
when the checkpoint is committed, most of the way is behind it.
"""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from feliss_nb.errors import FelissError, MissingSnapshot, StoreError
from feliss_nb.runtime import wire
from feliss_nb.runtime.background import stand_back
from feliss_nb.runtime.shard import MAIN, whole
from feliss_nb.state.codec import allocate_each
from feliss_nb.state.modules import digests
from feliss_nb.store import Record, Store
from feliss_nb.store.files import AT_ONCE

if TYPE_CHECKING:
    from feliss_nb.runtime.engine import EngineWorker


class _CalledOff(Exception):
    """What was to be written will not be made."""


class Stream:
    """The shard of a rank on its way to the store: its frames in the order in which they are made.

    One thread makes it, another takes the pieces; neither waits for the other but for its turn.
    """

    def __init__(self) -> None:
        self._pieces: queue.SimpleQueue[list[tuple[int, Any]] | None] = queue.SimpleQueue()
        self._group: list[tuple[int, Any]] = []
        self._held = 0
        self._heard: set[int] = set()
        self._is_over = False

    def hear(self, frame: int, piece: Any) -> None:
        """Take the next bytes of a frame of the main part."""
        self._add(frame + MAIN, piece)

    def forget(self) -> None:
        """Call it off: whoever takes the pieces is told."""
        if not self._is_over:
            self._is_over = True
            self._group = []
            self._pieces.put(None)

    def end(self, shard: Sequence[Any]) -> None:
        """Take what is left of the shard, which is complete now."""
        if self._is_over:
            return
        for number, frame in enumerate(shard):
            if number not in self._heard:
                self._add(number, frame)
        self._pieces.put(self._group)
        self._pieces.put([])
        self._is_over, self._group = True, []

    def _add(self, number: int, piece: Any) -> None:
        if self._is_over:
            return
        self._heard.add(number)
        self._group.append((number, piece))
        self._held += memoryview(piece).nbytes
        if self._held >= AT_ONCE:
            self._pieces.put(self._group)
            self._group, self._held = [], 0

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Give the pieces; one who takes them waits here."""
        while group := self._pieces.get():
            yield from group
        if group is None:
            raise _CalledOff


class Copier:
    """Copies shards between an engine's memory and the session's store.

    Parameters
    ----------
    engine : EngineWorker
        The engine's worker.
    """

    def __init__(self, engine: EngineWorker) -> None:
        self._engine = engine
        self._work: queue.SimpleQueue[Callable[[Store], None] | None] = queue.SimpleQueue()
        self._data: bytes | None = None
        self.before: Callable[[], None] = lambda: None  # called before each write: a faulty disk
        self._queued: list[int] = []  # for each work: the checkpoint that it follows, or 0
        self._streams: dict[int, Stream] = {}  # of the ranks that are being captured
        self._followed: dict[tuple[int, int], Record | FelissError] = {}
        # What the last capture of a rank wrote: its checkpoint, that before it, frames of a shard.
        self._written: dict[int, tuple[int, int, list[Any]]] = {}

    def take(self, message: wire.StoreAt | wire.Keep | wire.Fetch) -> None:
        """Do what the master says. The engine's lock is held."""
        if isinstance(message, wire.StoreAt):
            if self._data is None:
                self._data = message.data
                threading.Thread(target=self._main, name="feliss-copier", daemon=True).start()
        elif isinstance(message, wire.Keep):
            for rank in message.ranks:
                # Taken now: the next commit drops it from the memory store.
                base, frames = self._frames(message, rank)
                self._add(partial(self._keep, message.checkpoint, rank, base, frames))
        else:
            for rank, bases in message.ranks.items():
                self._add(partial(self._fetch, (*bases, message.checkpoint), rank))

    def follow(self, checkpoint: int, rank: int) -> Stream | None:
        """Have the store hear of a shard while it is made. The engine's lock is held.

        Returns
        -------
        Stream or None
            None if there is no store, or if it has other things to do.
        """
        if self._data is None or any(number != checkpoint for number in self._queued):
            return None
        stream = self._streams[rank] = Stream()
        self._add(partial(self._follow, checkpoint, rank, stream), checkpoint)
        return stream

    def sealed(
        self, checkpoint: int, rank: int, shard: list[Any], base: int, written: list[Any]
    ) -> None:
        """Take a shard that is complete, and what its capture wrote. The engine's lock is held."""
        if self._data is None:
            return
        self._written[rank] = checkpoint, base, written
        stream = self._streams.pop(rank, None)
        if stream is not None:
            stream.end(shard)

    def call_off(self, rank: int | None = None) -> None:
        """What is being captured will not be a checkpoint. The engine's lock is held."""
        for each in list(self._streams) if rank is None else [rank]:
            stream = self._streams.pop(each, None)
            if stream is not None:
                stream.forget()

    def _add(self, work: Callable[[Store], None], follows: int = 0) -> None:
        self._queued.append(follows)
        self._work.put(work)

    def close(self) -> None:
        """End the thread once it has done what it is at."""
        self.call_off()
        self._work.put(None)

    def _frames(self, message: wire.Keep, rank: int) -> tuple[int, list[Any] | None]:
        """Return what to write, and the checkpoint since which it holds the changes."""
        checkpoint, base, written = self._written.get(rank, (0, 0, []))
        if checkpoint == message.checkpoint and base in (0, message.base):
            return base, written
        try:
            return 0, self._engine.store.get((message.checkpoint, rank))
        except KeyError:
            return 0, None

    def _main(self) -> None:
        stand_back()
        try:
            store: Store = pickle.loads(self._data or b"")
        except BaseException as error:  # noqa: BLE001 - it is said for each shard
            store = _Broken(error)
        while True:
            work = self._work.get()
            if work is None or self._engine.is_closed:
                return
            work(store)
            work = None  # its frames may be the last of a checkpoint that was dropped
            with self._engine.lock:
                self._queued.pop(0)

    def _follow(self, checkpoint: int, rank: int, stream: Stream, store: Store) -> None:
        outcome: Record | FelissError
        try:
            self.before()
            outcome = store.put(checkpoint, rank, iter(stream))
        except _CalledOff:
            return
        except BaseException as error:  # noqa: BLE001 - whatever failed, the job goes on
            outcome = told(error)
        with self._engine.lock:
            stream.forget()  # what it still holds, if the store has failed
            self._followed = {key: found for key, found in self._followed.items() if key[1] != rank}
            self._followed[checkpoint, rank] = outcome

    def _keep(
        self, checkpoint: int, rank: int, base: int, frames: list[Any] | None, store: Store
    ) -> None:
        outcome: Any = self._followed.pop((checkpoint, rank), None)
        if outcome is not None:
            base = 0
        else:
            outcome = self._put(checkpoint, rank, frames, store)
        self._engine.to_master(wire.Kept(checkpoint, rank, outcome, digests(), base))

    def _put(
        self, checkpoint: int, rank: int, frames: list[Any] | None, store: Store
    ) -> Record | FelissError:
        try:
            if frames is None:
                raise MissingSnapshot(f"the snapshot of rank {rank} was dropped before its copy")
            self.before()
            return store.put(checkpoint, rank, frames)
        except BaseException as error:  # noqa: BLE001 - whatever failed, the job goes on
            return told(error)

    def _fetch(self, chain: Sequence[int], rank: int, store: Store) -> None:
        engine, checkpoint = self._engine, chain[-1]
        try:
            shard = whole([store.get(number, rank) for number in chain], allocate_each)
            # In memory that other engines can read: copies are the first thing to be made.
            frames = engine.fresh(shard, shared=True)
        except BaseException as error:  # noqa: BLE001 - the master decides what else to try
            engine.to_master(wire.Fetched(checkpoint, rank, told(error)))
            return
        with engine.lock:
            engine.store.put((checkpoint, rank), frames)
            engine.execute(engine.worker.stored(checkpoint, rank))
        engine.to_master(wire.Fetched(checkpoint, rank))


class _Broken:
    """Stands for a store that cannot be opened on this engine."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise StoreError(
            f"the store cannot be opened on an engine ({type(self._error).__name__}: {self._error})"
        )


def told(error: BaseException) -> FelissError:
    """Return an error that travels and that callers know."""
    if isinstance(error, FelissError):
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return error
    return StoreError(f"the store failed ({type(error).__name__}: {error})")
