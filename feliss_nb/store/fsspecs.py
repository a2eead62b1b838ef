"""Checkpoints on any file system that fsspec reaches: object stores, SSH, HDFS, memory, ..."""

from __future__ import annotations

import importlib
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from feliss_nb.errors import (
    CorruptSnapshot,
    FelissError,
    MissingSnapshot,
    StoreError,
    StoreWarning,
    UsageError,
)
from feliss_nb.store import shards
from feliss_nb.store.base import MANIFEST, STAGING, checkpoint_of, folder, shard_name, surplus
from feliss_nb.store.files import make_private, private
from feliss_nb.store.manifest import Manifest, Record, from_json


class FsspecStore:
    """Checkpoints under a URL, laid out as ``FileStore`` does.

    Shards get their names at once: the digest stands in them, and no manifest speaks of one that
    was not written whole. How safe what was written is, and who can write there, is the server's
    matter: give nobody else the right to, for what is read is unpickled.

    Parameters
    ----------
    url : str
        ``s3://bucket/folder``, ``sftp://host/folder``, ``memory://folder``, ...
    **options
        For the file system.

    Raises
    ------
    UsageError
        fsspec, or what it needs for this URL, is not installed.
    """

    def __init__(self, url: str, **options: Any) -> None:
        try:
            core = importlib.import_module("fsspec.core")
        except ImportError as error:
            raise UsageError(
                f"{url} needs fsspec, which is not installed: pip install 'feliss_nb[stores]'"
            ) from error
        self.url, self._options = url, options
        try:
            # Any: fsspec ships no types, and a file system is whatever a plug-in makes it.
            self._fs: Any
            self._fs, self._root = core.url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise UsageError(f"fsspec cannot use {url}: {error}") from error
        self._root = self._root.rstrip("/")
        with self._told(f"use {self.url}"):
            self._make(self._root)

    def __repr__(self) -> str:
        return f"FsspecStore({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.url, self._options)

    def put(self, checkpoint: int, rank: int, frames: shards.Frames) -> Record:
        """Write a rank's shard."""
        frames = shards.gathered(frames)  # its name has the digest, and a server may not rename
        record = shards.seal(rank, frames)
        path = self._path(checkpoint, shard_name(record))
        with self._told(f"write the snapshot of rank {rank} to {path}"):
            self._make(self._path(checkpoint))
            with self._fs.open(path, "wb") as file:
                for part in shards.parts(frames):
                    file.write(part)
            self._protect(path)
        return record

    def get(self, checkpoint: int, rank: int) -> list[memoryview]:
        """Return the frames of a committed checkpoint, in memory of their own; digest checked."""
        with self._told(f"read the snapshot of rank {rank} of checkpoint {checkpoint}"):
            record = self._manifest(checkpoint).shard(rank)
            path = self._path(checkpoint, shard_name(record))
            try:
                with self._fs.open(path, "rb") as file:
                    frames = shards.read(record, _filler(file), path)
                    file.seek(record.nbytes)
                    if file.read(1):
                        raise CorruptSnapshot(
                            f"{path} is damaged: it is longer than {record.nbytes} bytes"
                        )
            except FileNotFoundError:
                raise MissingSnapshot(f"{path} is missing") from None
        return frames

    def commit(self, manifest: Manifest) -> None:
        """Make a checkpoint of the shards that were put."""
        number = manifest.checkpoint
        final, staging = self._path(number, MANIFEST), self._path(number, STAGING + MANIFEST)
        with self._told(f"commit checkpoint {number} at {self.url}"):
            self._forget()
            for record in manifest.shards:
                path = self._path(number, shard_name(record))
                try:
                    size = self._fs.info(path)["size"]
                except FileNotFoundError:
                    raise MissingSnapshot(f"{path} is missing") from None
                if size != record.nbytes:
                    raise CorruptSnapshot(
                        f"{path} is damaged: it has {size} bytes, not {record.nbytes}"
                    )
            for base in manifest.bases:
                if not self._fs.exists(self._path(base, MANIFEST)):
                    raise MissingSnapshot(f"{self._path(base)} is no checkpoint any more")
            if self._fs.exists(final):
                raise UsageError(f"{final} is there already: numbers of checkpoints only grow")
            # A server may show a file while it is written; what a copy or a rename makes is whole,
            # and where it is not, the manifest's own digest tells.
            self._fs.pipe_file(staging, manifest.to_json())
            self._protect(staging)
            self._fs.mv(staging, final)

    def manifests(self) -> list[Manifest]:
        """Return the committed checkpoints, the newest first; damaged manifests give a warning."""
        found = []
        for number in self.numbers():
            try:
                with self._told(f"read the manifest of checkpoint {number} at {self.url}"):
                    found.append(self._manifest(number))
            except MissingSnapshot:
                continue
            except (CorruptSnapshot, UsageError) as error:
                warnings.warn(StoreWarning(str(error)), stacklevel=2)
        return found

    def drop(self, checkpoint: int) -> None:
        """Delete a checkpoint, committed or not."""
        with self._told(f"delete checkpoint {checkpoint} at {self.url}"):
            for path, recursive in [
                (self._path(checkpoint, MANIFEST), False),
                (self._path(checkpoint), True),
            ]:
                try:
                    self._fs.rm(path, recursive=recursive)
                except FileNotFoundError:
                    pass
            self._forget()

    def keep(self, last: int) -> None:
        """Keep the last committed checkpoints only; see ``Store.keep``."""
        found = self.numbers()
        for number in surplus(self.manifests(), found, last):
            self.drop(number)

    def clean(self) -> list[str]:
        """Remove folders without a manifest, and return their names. Call it when nobody writes."""
        removed = []
        for number in self.numbers():
            with self._told(f"clean {self.url}"):
                committed = self._fs.exists(self._path(number, MANIFEST))
            if not committed:
                self.drop(number)
                removed.append(folder(number))
        return removed

    def _path(self, checkpoint: int, name: str = "") -> str:
        path = f"{self._root}/{folder(checkpoint)}"
        return f"{path}/{name}" if name else path

    def claim(self) -> None:
        """Do nothing: servers have no locks. One session at a time is yours to see to."""

    def release(self) -> None:
        """Do nothing; see `claim`."""

    def numbers(self) -> list[int]:
        """Return the checkpoints of which there is anything, the largest first."""
        with self._told(f"list {self.url}"):
            self._forget()
            try:
                names = self._fs.ls(self._root, detail=False)
            except FileNotFoundError:  # object stores have no empty folders
                return []
        numbers = [checkpoint_of(name.rstrip("/").rpartition("/")[2]) for name in names]
        return sorted((number for number in numbers if number is not None), reverse=True)

    def _manifest(self, checkpoint: int) -> Manifest:
        path = self._path(checkpoint, MANIFEST)
        try:
            if self._is_local():
                with private(self._root), private(self._path(checkpoint)):
                    pass
            manifest = from_json(self._fs.cat_file(path), path)
        except FileNotFoundError:
            raise MissingSnapshot(f"there is no checkpoint at {path}") from None
        if manifest.checkpoint != checkpoint:
            raise CorruptSnapshot(f"{path} speaks of checkpoint {manifest.checkpoint}")
        return manifest

    def _make(self, path: str) -> None:
        if self._is_local():
            make_private(os.path.abspath(path))
            with private(path):
                pass
        else:
            self._fs.makedirs(path, exist_ok=True)

    def _forget(self) -> None:
        # Listings are kept by fsspec; other processes write here too.
        self._fs.invalidate_cache()

    def _is_local(self) -> bool:
        protocol = self._fs.protocol
        return "file" in ([protocol] if isinstance(protocol, str) else protocol)

    def _protect(self, path: str) -> None:
        if self._is_local():
            os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        """What a plug-in raises may be of any class: make it one that callers know."""
        try:
            yield
        except FelissError:
            raise
        except Exception as error:
            raise StoreError(
                f"cannot {doing}: {error}. The checkpoints before it stay as they are"
            ) from error


def _again(url: str, options: dict[str, Any]) -> FsspecStore:
    return FsspecStore(url, **options)


def _filler(file: Any) -> shards.ReadInto:
    def fill(views: list[memoryview], place: int) -> None:
        if file.tell() != place:
            file.seek(place)
        for view in views:
            done = 0
            while done < view.nbytes:
                count = file.readinto(view[done:])
                if not count:
                    raise EOFError
                done += count

    return fill
