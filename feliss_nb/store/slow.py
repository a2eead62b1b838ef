"""A store behind a slow disk or network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from feliss_nb.errors import UsageError
from feliss_nb.store.base import Store
from feliss_nb.store.files import AT_ONCE
from feliss_nb.store.manifest import Manifest, Record
from feliss_nb.store.shards import Frames


class SlowStore:
    """A store with a limited bandwidth and a latency, to reproduce slow disks and networks.

    Every operation takes `latency` more; reads and writes pass through one channel of
    `bytes_per_second`, one after the other, as they would on a disk or a network card. It takes at
    least as long as the store behind it. Each process has a channel of its own: for a disk that
    several share, divide its rate among them.

    Parameters
    ----------
    store : Store
    bytes_per_second : float
        ``math.inf`` for no limit.
    latency : float
        Seconds.
    sleep, clock : callable
        ``time.sleep`` and ``time.monotonic``, or a simulation's.
    """

    def __init__(
        self,
        store: Store,
        bytes_per_second: float,
        latency: float = 0.0,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not bytes_per_second > 0 or not latency >= 0:
            raise UsageError(
                "a slow store needs more than 0 bytes a second and a latency of 0 or more, "
                f"not {bytes_per_second} and {latency}"
            )
        self.store = store
        self.bytes_per_second = bytes_per_second
        self.latency = latency
        self._sleep, self._clock = sleep, clock
        self._lock = threading.Lock()
        self._free = -float("inf")  # when the channel has carried all it was given

    def __repr__(self) -> str:
        return f"SlowStore({self.store!r}, {self.bytes_per_second}, {self.latency})"

    def __reduce__(self) -> tuple[Any, ...]:
        return SlowStore, (
            self.store,
            self.bytes_per_second,
            self.latency,
            self._sleep,
            self._clock,
        )

    def put(self, checkpoint: int, rank: int, frames: Frames) -> Record:
        """Write a rank's shard."""
        began = self._clock()
        if isinstance(frames, Iterator):
            record = self.store.put(checkpoint, rank, self._slowed(frames))
            self._wait(began, 0)
        else:
            record = self.store.put(checkpoint, rank, frames)
            self._wait(began, record.nbytes)
        return record

    def _slowed(self, frames: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        """Give the pieces as fast as the channel carries them."""
        began, carried = self._clock(), 0
        for number, piece in frames:
            yield number, piece
            carried += memoryview(piece).nbytes
            if carried >= AT_ONCE:
                self._wait(began, carried)
                began, carried = self._clock(), 0
        self._wait(began, carried)

    def get(self, checkpoint: int, rank: int) -> list[Any]:
        """Return the frames of a committed checkpoint."""
        began = self._clock()
        frames = self.store.get(checkpoint, rank)
        self._wait(began, sum(memoryview(frame).nbytes for frame in frames))
        return frames

    def commit(self, manifest: Manifest) -> None:
        """Make a checkpoint of the shards that were put."""
        began = self._clock()
        # The manifest must not be there before its time: who looks would find it.
        self._wait(began, len(manifest.to_json()))
        self.store.commit(manifest)

    def manifests(self) -> list[Manifest]:
        """Return the committed checkpoints, the newest first."""
        began = self._clock()
        found = self.store.manifests()
        self._wait(began, 0)
        return found

    def drop(self, checkpoint: int) -> None:
        """Delete a checkpoint."""
        began = self._clock()
        self.store.drop(checkpoint)
        self._wait(began, 0)

    def keep(self, last: int) -> None:
        """Keep the last committed checkpoints only."""
        began = self._clock()
        self.store.keep(last)
        self._wait(began, 0)

    def numbers(self) -> list[int]:
        """Return the checkpoints of which there is anything, the largest first."""
        began = self._clock()
        found = self.store.numbers()
        self._wait(began, 0)
        return found

    def claim(self) -> None:
        """Claim the store behind this one."""
        self.store.claim()

    def release(self) -> None:
        """Release the store behind this one."""
        self.store.release()

    def clean(self) -> list[str]:
        """Remove what interrupted writers left."""
        began = self._clock()
        found = self.store.clean()
        self._wait(began, 0)
        return found

    def _wait(self, began: float, nbytes: int) -> None:
        with self._lock:
            self._free = max(self._free, began) + nbytes / self.bytes_per_second
            until = self._free + self.latency if nbytes else began + self.latency
        left = until - self._clock()
        if left > 0:
            self._sleep(left)
