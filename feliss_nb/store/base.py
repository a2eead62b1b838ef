"""What every store can do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Protocol

from feliss_nb.errors import UsageError
from feliss_nb.store.manifest import Manifest, Record
from feliss_nb.store.shards import Frames

#: The name of a checkpoint's manifest in its folder.
MANIFEST = "manifest.json"
#: What the name of a file that is being written begins with.
STAGING = ".staging-"
_FOLDER = re.compile(r"checkpoint-(\d{8,})")


class Store(Protocol):
    """Shards of checkpoints and their manifests.

    Several processes use one place at the same time: engines put and get, one master commits and
    drops. Numbers of checkpoints only grow. Every method raises ``StoreError`` when the place
    fails; checkpoints that were committed before are not touched by that.
    """

    def put(self, checkpoint: int, rank: int, frames: Frames) -> Record:
        """Write a rank's shard; when this returns it is as safe as the store can make it.

        Parameters
        ----------
        checkpoint, rank : int
        frames : sequence of bytes-like, or iterator of (int, bytes-like)
            Contiguous; they must not change any more. An iterator gives pieces of frames as they
            are made, with the number of the frame; if it raises, nothing was put.

        Returns
        -------
        Record
            What the manifest has to say of it.
        """

    def get(self, checkpoint: int, rank: int) -> list[Any]:
        """Return the frames of a committed checkpoint, their digest checked.

        Where the record has `bases`, they are what has changed since the last of these.

        Raises
        ------
        CorruptSnapshot
            They are not what was put, or not there any more; the error names what is damaged.
        """

    def commit(self, manifest: Manifest) -> None:
        """Make a checkpoint of the shards that were put; it is one when this returns."""

    def manifests(self) -> list[Manifest]:
        """Return the committed checkpoints, the newest first; damaged manifests give a warning."""

    def drop(self, checkpoint: int) -> None:
        """Delete a checkpoint, committed or not."""

    def keep(self, last: int) -> None:
        """Keep the last committed checkpoints only.

        Shards that were never committed go too, where a later checkpoint was.
        """

    def numbers(self) -> list[int]:
        """Return the checkpoints of which there is anything, whole or not, the largest first."""

    def claim(self) -> None:
        """Be the one process that commits, keeps and cleans, where the place can tell.

        Raises
        ------
        UsageError
            Another living process is.
        """

    def release(self) -> None:
        """Let another process claim it."""

    def clean(self) -> list[str]:
        """Remove what interrupted writers left, and return its names; call it after `claim`."""


def surplus(committed: Iterable[Manifest], found: Iterable[int], last: int) -> list[int]:
    """The checkpoints to delete, the newest first, so that the last ones are left.

    What these are made of stays with them.

    Parameters
    ----------
    committed : iterable of Manifest
        The checkpoints that can be read.
    found : iterable of int
        Those of which there is anything.
    last : int
        How many stay, one or more.
    """
    if last < 1:
        raise UsageError(f"a store keeps one checkpoint or more, not {last}")
    stay = sorted(committed, key=lambda manifest: manifest.checkpoint, reverse=True)[:last]
    if not stay:
        return []
    needed = {number for manifest in stay for number in (manifest.checkpoint, *manifest.bases)}
    # What is newer than the newest may be on its way.
    surplus = {number for number in found if number < stay[0].checkpoint} - needed
    return sorted(surplus, reverse=True)  # none is listed whose base is gone


def verify(store: Store, manifest: Manifest) -> None:
    """Read a whole checkpoint.

    Raises
    ------
    CorruptSnapshot
        Something of it is damaged; take the one before.
    """
    for record in manifest.shards:
        for number in (*record.bases, manifest.checkpoint):
            store.get(number, record.rank)


def folder(checkpoint: int) -> str:
    """The name of a checkpoint's folder: sorted by name they are sorted by number."""
    return f"checkpoint-{checkpoint:08d}"


def checkpoint_of(name: str) -> int | None:
    """The checkpoint whose folder has this name; None where it is none."""
    match = _FOLDER.fullmatch(name)
    return None if match is None else int(match[1])


def shard_name(record: Record) -> str:
    """The name of a shard's file.

    The digest stands in it: two attempts at one checkpoint (a master that took over, a second
    session) never write over each other's shards.
    """
    return f"rank-{record.rank:08d}-{record.digest}.shard"
