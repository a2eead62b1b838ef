"""An engine's side of the session's store: shards from memory to it, and back.

It has a thread of its own, which waits for the store and never holds the engine's lock meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from feliss_nb.errors import FelissError, MissingSnapshot, StoreError
from feliss_nb.runtime import wire
from feliss_nb.state.modules import digests
from feliss_nb.store.base import Store

if TYPE_CHECKING:
    from feliss_nb.runtime.engine import EngineWorker

# Of the copier's thread. Copying is to use what the work leaves over, digests above all.
NICE = 10


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

    def take(self, message: wire.StoreAt | wire.Keep | wire.Fetch) -> None:
        """Do what the master says. The engine's lock is held."""
        if isinstance(message, wire.StoreAt):
            if self._data is None:
                self._data = message.data
                threading.Thread(target=self._main, name="feliss-copier", daemon=True).start()
        elif isinstance(message, wire.Keep):
            for rank in message.ranks:
                # Taken now: the next commit drops it from the memory store.
                frames = self._frames(message.checkpoint, rank)
                self._work.put(partial(self._keep, message.checkpoint, rank, frames))
        else:
            for rank in message.ranks:
                self._work.put(partial(self._fetch, message.checkpoint, rank))

    def close(self) -> None:
        """End the thread once it has done what it is at."""
        self._work.put(None)

    def _frames(self, checkpoint: int, rank: int) -> list[Any] | None:
        try:
            return self._engine.store.get((checkpoint, rank))
        except KeyError:
            return None

    def _main(self) -> None:
        with contextlib.suppress(OSError):  # it costs more then, no more than that
            thread = threading.get_native_id()
            nice = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, max(nice, NICE))
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

    def _keep(self, checkpoint: int, rank: int, frames: list[Any] | None, store: Store) -> None:
        outcome: Any
        try:
            if frames is None:
                raise MissingSnapshot(f"the snapshot of rank {rank} was dropped before its copy")
            self.before()
            outcome = store.put(checkpoint, rank, frames)
        except BaseException as error:  # noqa: BLE001 - whatever failed, the job goes on
            outcome = told(error)
        self._engine.to_master(wire.Kept(checkpoint, rank, outcome, digests()))

    def _fetch(self, checkpoint: int, rank: int, store: Store) -> None:
        engine = self._engine
        try:
            # In memory that other engines can read: copies are the first thing to be made.
            frames = engine.fresh(store.get(checkpoint, rank), shared=True)
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
