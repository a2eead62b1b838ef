"""Two stores as one: a fast one, and behind it one that lasts."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from feliss_nb.errors import CorruptSnapshot, MissingSnapshot, StoreWarning
from feliss_nb.store.base import Store
from feliss_nb.store.manifest import Manifest, Record
from feliss_nb.store.shards import Frames

Work = Callable[[], None]
Copied = Callable[[int, int, "Record | Exception"], None]
"""``(checkpoint, rank, record or what failed)``"""


def _thread(work: Work) -> None:
    threading.Thread(target=work, name="feliss-copier", daemon=True).start()


def _warn(checkpoint: int, error: Exception) -> None:
    warnings.warn(
        StoreWarning(f"checkpoint {checkpoint} stays in the fast store only: {error}"), stacklevel=2
    )


class TieredStore:
    """A fast store first; a copier in the background brings checkpoints to one that lasts.

    Where one process has all shards, ``commit`` starts the copy of the whole checkpoint. While one
    is copied, the newest committed meanwhile waits and those between are never copied: a slow
    store gets fewer checkpoints, and holds nobody up. Where each engine has its own, the engines
    ``put`` and, asked to, ``copy``; the master commits to the slow store once it has all records.

    Parameters
    ----------
    fast, slow : Store
    keep_fast : int
        How many checkpoints ``keep`` leaves in the fast store.
    start : callable
        Runs a function in the background; a thread of its own unless told otherwise. At most one
        function of this store is under way.
    failed : callable
        ``(checkpoint, error)``: a copy did not succeed. A warning unless told otherwise. The next
        checkpoint is copied all the same.
    """

    def __init__(
        self,
        fast: Store,
        slow: Store,
        keep_fast: int = 1,
        start: Callable[[Work], object] = _thread,
        failed: Callable[[int, Exception], object] = _warn,
    ) -> None:
        self.fast, self.slow, self.keep_fast = fast, slow, keep_fast
        self._start, self._failed = start, failed
        # Also says that the copier has done something.
        self._changed = threading.Condition()
        self._jobs: deque[tuple[int, Work]] = deque()
        self._next: Manifest | None = None  # the checkpoint to copy when there is time
        self._working = False
        self._held: int | None = None  # the checkpoint that the copier is at
        self._fetching: set[tuple[int, int]] = set()
        self._late: list[Work] = []  # deletions that wait for the copier
        self._last: int | None = None

    def __repr__(self) -> str:
        return f"TieredStore({self.fast!r}, {self.slow!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # What runs and what hears of failures belongs to a process.
        return TieredStore, (self.fast, self.slow, self.keep_fast)

    # ------------------------------------------------------------ a store

    def put(self, checkpoint: int, rank: int, frames: Frames) -> Record:
        """Put a rank's shard into the fast store."""
        return self.fast.put(checkpoint, rank, frames)

    def get(self, checkpoint: int, rank: int) -> list[Any]:
        """Return the frames from the fast store; from the slow one where they are not there."""
        with self._changed:
            self._changed.wait_for(lambda: (checkpoint, rank) not in self._fetching)
        try:
            return self.fast.get(checkpoint, rank)
        except CorruptSnapshot as first:
            try:
                return self.slow.get(checkpoint, rank)
            except CorruptSnapshot as second:
                # One store may simply never have had it: say what both found.
                raise type(second)(f"{second}; and {first}") from first

    def commit(self, manifest: Manifest) -> None:
        """Commit to the fast store, and copy the checkpoint to the slow one in the background."""
        self.fast.commit(manifest)
        with self._changed:
            self._next = manifest
        self._go_on()

    def manifests(self) -> list[Manifest]:
        """Return the checkpoints committed to either, the newest first."""
        found = {m.checkpoint: m for store in (self.slow, self.fast) for m in store.manifests()}
        return [found[number] for number in sorted(found, reverse=True)]

    def drop(self, checkpoint: int) -> None:
        """Delete a checkpoint from both.

        A shard that is being copied goes when that is done; those that wait are not copied.
        """

        def delete() -> None:
            self.fast.drop(checkpoint)
            self.slow.drop(checkpoint)

        with self._changed:
            if self._next is not None and self._next.checkpoint == checkpoint:
                self._next = None
            wait = self._held == checkpoint
            if wait:
                self._late.append(delete)
        if not wait:
            delete()

    def keep(self, last: int) -> None:
        """Keep the last checkpoints in the slow store, and `keep_fast` in the fast one."""
        with self._changed:
            self._last = last
            wait = self._working
            if wait:
                self._late.append(self._trim)
        if not wait:
            self._trim()

    def numbers(self) -> list[int]:
        """Return the checkpoints of which either has anything, the largest first."""
        return sorted({*self.fast.numbers(), *self.slow.numbers()}, reverse=True)

    def claim(self) -> None:
        """Claim both, or neither."""
        self.slow.claim()
        try:
            self.fast.claim()
        except BaseException:
            self.slow.release()
            raise

    def release(self) -> None:
        """Release both."""
        self.fast.release()
        self.slow.release()

    def clean(self) -> list[str]:
        """Remove from both what interrupted writers left."""
        return [*self.fast.clean(), *self.slow.clean()]

    # ------------------------------------------------------------ the copier

    def copy(self, checkpoint: int, ranks: Iterable[int], copied: Copied) -> None:
        """Copy shards to the slow store in the background; nothing is committed there.

        Parameters
        ----------
        checkpoint : int
        ranks : iterable of int
            They are in the fast store.
        copied : callable
            ``(checkpoint, rank, record)``, or with the error in place of the record; called in the
            background, once for each rank.
        """
        for rank in ranks:

            def work(rank: int = rank) -> None:
                try:
                    outcome: Record | Exception = self.slow.put(
                        checkpoint, rank, self.fast.get(checkpoint, rank)
                    )
                except Exception as error:  # noqa: BLE001  (whatever failed, the job goes on)
                    outcome = error
                copied(checkpoint, rank, outcome)

            with self._changed:
                self._jobs.append((checkpoint, work))
        self._go_on()

    def prefetch(self, checkpoint: int, ranks: Iterable[int]) -> None:
        """Bring shards from the slow store to the fast one in the background, for ``get``.

        One that cannot be read is left to ``get``, which says why.
        """
        for rank in ranks:
            key = checkpoint, rank

            def work(key: tuple[int, int] = key) -> None:
                try:
                    self.fast.put(*key, self.slow.get(*key))
                except Exception:  # noqa: BLE001, S110  (get tries again, and raises it)
                    pass
                finally:
                    with self._changed:
                        self._fetching.discard(key)
                        self._changed.notify_all()

            with self._changed:
                self._fetching.add(key)
                self._jobs.append((checkpoint, work))
        self._go_on()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the copier has nothing left to do; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._working, timeout)

    def _go_on(self) -> None:
        with self._changed:
            if self._working:
                return
            self._working = True
        self._start(self._work)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._held = None
                if self._late:
                    work = self._late.pop(0)
                elif self._jobs:
                    self._held, work = self._jobs.popleft()
                elif self._next is not None:
                    manifest, self._next = self._next, None
                    self._held, work = manifest.checkpoint, partial(self._copy_all, manifest)
                else:
                    self._working = False
                    self._changed.notify_all()
                    return
            try:
                work()
            except Exception as error:  # noqa: BLE001  (what is left costs room, nothing else)
                warnings.warn(StoreWarning(str(error)), stacklevel=2)

    def _copy_all(self, manifest: Manifest) -> None:
        number = manifest.checkpoint
        try:
            there = set(self.slow.numbers()) if manifest.bases else set()
            for base in sorted(manifest.bases - there):  # it was passed over, but is needed now
                self._copy_one(self._of(base))
            self._copy_one(manifest)
            if self._last is not None:
                self.slow.keep(self._last)
        except Exception as error:  # noqa: BLE001  (whatever failed, the job goes on)
            self._failed(number, error)

    def _of(self, checkpoint: int) -> Manifest:
        for manifest in self.fast.manifests():
            if manifest.checkpoint == checkpoint:
                return manifest
        raise MissingSnapshot(f"checkpoint {checkpoint} is not in the fast store any more")

    def _copy_one(self, manifest: Manifest) -> None:
        number = manifest.checkpoint
        records = []
        for record in manifest.shards:
            # The order of its frames may be another here, and so the digest.
            put = self.slow.put(number, record.rank, self.fast.get(number, record.rank))
            records.append(replace(put, bases=record.bases))
        self.slow.commit(replace(manifest, shards=tuple(records)))

    def _trim(self) -> None:
        if self._last is not None:
            self.slow.keep(self._last)
            self.fast.keep(self.keep_fast)
