"""Snapshots in an engine's memory."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from feliss_nb.errors import CorruptSnapshot, MissingSnapshot, UsageError
from feliss_nb.store.base import folder, surplus
from feliss_nb.store.manifest import Manifest, Record
from feliss_nb.store.shards import Frames, gathered, seal

Key = tuple[int, int]
"""A checkpoint's id and a rank."""


class MemoryStore:
    """Frames of snapshots, by checkpoint and rank."""

    def __init__(self) -> None:
        self._shards: dict[Key, list[Any]] = {}
        self._filling: dict[Key, Future[None]] = {}

    def put(self, key: Key, frames: list[Any], filled: Future[None] | None = None) -> None:
        """Keep the frames of a snapshot; they must not change any more.

        Parameters
        ----------
        key : (int, int)
        frames : list of bytes-like
        filled : Future, optional
            Ends when they have their content.
        """
        if filled is not None:
            self._filling[key] = filled
        self._shards[key] = frames

    def get(self, key: Key) -> list[Any]:
        """Return the frames of a snapshot; wait until they have their content.

        Raises
        ------
        KeyError
            If it is not here.
        """
        filled = self._filling.get(key)
        if filled is not None and filled.exception() is not None:
            self.lose(key)
        return self._shards[key]

    def replace(self, key: Key, old: list[Any], new: list[Any]) -> None:
        """Keep other frames with the same content, if these are still kept."""
        if self._shards.get(key) is old:
            self._shards[key] = new

    def drop(self, older: int = 0, exactly: int = 0) -> None:
        """Delete the snapshots of checkpoints before `older`, and those of `exactly`."""
        # A copier may look at the same time: no step of this runs other Python code halfway.
        for key in list(self._shards):
            if key[0] < older or key[0] == exactly:
                self.lose(key)

    def lose(self, key: Key) -> None:
        """Delete one snapshot, as if it had never been here."""
        self._shards.pop(key, None)
        self._filling.pop(key, None)

    def nbytes(self) -> dict[Key, int]:
        """Return the bytes of each snapshot."""
        return {key: total(frames) for key, frames in list(self._shards.items())}


class MemoryTier:
    """Memory as a store like the others: the fast tier of a ``TieredStore``.

    It lasts as long as its process. What is kept is what was put, not a copy: it must not change.

    Parameters
    ----------
    shards : MemoryStore, optional
        Where the frames are, when an engine fills it from its peers as well.
    """

    def __init__(self, shards: MemoryStore | None = None) -> None:
        self.shards = MemoryStore() if shards is None else shards
        self._manifests: dict[int, Manifest] = {}

    def put(self, checkpoint: int, rank: int, frames: Frames) -> Record:
        """Keep the frames of a rank's snapshot."""
        frames = gathered(frames)
        record = seal(rank, frames)
        self.shards.put((checkpoint, rank), list(frames))
        return record

    def get(self, checkpoint: int, rank: int) -> list[Any]:
        """Return the frames of a rank's snapshot, of a committed one with its digest checked."""
        try:
            frames = self.shards.get((checkpoint, rank))
        except KeyError:
            raise MissingSnapshot(
                f"checkpoint {checkpoint}: the snapshot of rank {rank} is not in memory"
            ) from None
        manifest = self._manifests.get(checkpoint)
        if manifest is not None:
            found, wanted = seal(rank, frames).digest, manifest.shard(rank).digest
            if found != wanted:
                raise CorruptSnapshot(
                    f"the snapshot of rank {rank} of checkpoint {checkpoint} changed in memory: "
                    f"it has digest {found}, was put with {wanted}"
                )
        return frames

    def commit(self, manifest: Manifest) -> None:
        """Make a checkpoint of what was put; the shards may be in other processes' memory."""
        if manifest.checkpoint in self._manifests:
            raise UsageError(f"checkpoint {manifest.checkpoint} is already committed")
        self._manifests[manifest.checkpoint] = manifest

    def manifests(self) -> list[Manifest]:
        """Return the committed checkpoints, the newest first."""
        return [m for _, m in sorted(self._manifests.items(), reverse=True)]

    def drop(self, checkpoint: int) -> None:
        """Forget a checkpoint."""
        self._manifests.pop(checkpoint, None)
        self.shards.drop(exactly=checkpoint)

    def keep(self, last: int) -> None:
        """Keep the last checkpoints only."""
        for checkpoint in surplus(self._manifests.values(), self.numbers(), last):
            self.drop(checkpoint)

    def numbers(self) -> list[int]:
        """Return the checkpoints of which there is anything, the largest first."""
        found = {checkpoint for checkpoint, _ in self.shards.nbytes()} | set(self._manifests)
        return sorted(found, reverse=True)

    def claim(self) -> None:
        """Do nothing: no other process has this memory."""

    def release(self) -> None:
        """Do nothing; see `claim`."""

    def clean(self) -> list[str]:
        """Forget shards that were not committed."""
        left = sorted(set(self.numbers()) - set(self._manifests))
        for checkpoint in left:
            self.drop(checkpoint)
        return [folder(checkpoint) for checkpoint in left]


def total(buffers: Iterable[Any]) -> int:
    """Return the bytes in some buffers."""
    return sum(memoryview(buffer).nbytes for buffer in buffers)
