"""Checkpoints in a directory of a local disk, or of a shared one that is mounted.

A checkpoint is a folder with one file a rank, and a manifest that is written last::

    checkpoint-00000007/
        manifest.json
        rank-00000000-<digest>.shard
        rank-00000001-<digest>.shard

Every file is written under another name, synced to the disk and renamed, and then its folder is
synced. Whatever is interrupted at any point leaves names that no manifest speaks of; ``keep`` and
``clean`` remove them. The system is called through ``os`` alone, which the tests replace by a disk
that forgets whatever was not synced.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import xxhash

from feliss_nb.errors import (
    CorruptSnapshot,
    MissingSnapshot,
    StoreError,
    StoreWarning,
    UsageError,
)
from feliss_nb.store import shards
from feliss_nb.store.base import MANIFEST, STAGING, checkpoint_of, folder, shard_name, surplus
from feliss_nb.store.manifest import Manifest, Record, from_json

#: Whole blocks of zeros of this size become holes in the file. Smaller ones would cost more calls
#: than they save bytes.
HOLE = 1 << 16
#: After so many bytes the disk is asked to begin, so that it works while the next are digested, and
#: the sync at the end has less to wait for.
AHEAD = 1 << 24
# Linux takes it as "begin to write these"; what is not wanted in the page cache need not stay.
_DONTNEED = os.POSIX_FADV_DONTNEED
#: Written at once of a shard whose frames are still being made.
AT_ONCE = 1 << 23
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MAX_MANIFEST = 1 << 28
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Turn what the system refuses into a ``StoreError`` that says what was tried."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if isinstance(error, FileNotFoundError):
            raise StoreError(
                f"cannot {doing}: {why}. If it was there, it was moved or deleted, or its disk is "
                "not mounted any more, and the checkpoints went with it: bring it back, or keep "
                "them in another place"
            ) from error
        hint = "; make room there, or give another place" if error.errno in _FULL else ""
        raise StoreError(
            f"cannot {doing}: {why}{hint}. The checkpoints before it stay as they are"
        ) from error


def make_private(path: str) -> None:
    """Make a directory that only the user can enter, and those above it where they are missing."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_private(os.path.dirname(path))
        try:
            os.mkdir(path, 0o700)  # where nothing can be made, as in /proc, this says so
        except FileExistsError:
            return
    above = os.open(os.path.dirname(path), _DIRECTORY)
    try:
        os.fsync(above)
    finally:
        os.close(above)


@contextmanager
def private(name: str, above: int | None = None, shown: str = "") -> Iterator[int]:
    """Open a directory that belongs to the user and that others cannot write.

    Who can write there can have any program run: what is read is unpickled. The directory stays
    open while files are opened in it, so that nobody can put another one under its name.

    Parameters
    ----------
    name : str
    above : int, optional
        The open directory in which it stands.
    shown : str, optional
        Its name in an error.

    Yields
    ------
    int
        A file descriptor.
    """
    # A folder in the store must be one; the store itself may be reached through a link.
    follow = 0 if above is None else os.O_NOFOLLOW
    here = os.open(name, _DIRECTORY | follow, dir_fd=above)
    try:
        _check_owner(os.fstat(here), shown or name, "directory")
        yield here
    finally:
        os.close(here)


def _check_owner(status: os.stat_result, name: str, what: str) -> None:
    if status.st_uid != os.geteuid():
        raise UsageError(
            f"the {what} {name} belongs to user {status.st_uid}, not to you: whoever owns it could "
            "have this program run anything. Use a directory of your own"
        )
    if status.st_mode & 0o022:
        raise UsageError(
            f"others can write the {what} {name}, so they could have this program run anything: "
            f"chmod go-w it if nobody has, or use another"
        )


class StagedFile:
    """A file that is there whole, or not at all.

    It is written under a name of its own; ``publish`` gives it its name once it is on the disk.
    Leave its context without that, and it is gone.

    Parameters
    ----------
    directory : int
        A descriptor of the directory; see ``private``.

    Attributes
    ----------
    nbytes : int
        Bytes that were written.
    stored : int
        Bytes of these that are not in holes.
    """

    def __init__(self, directory: int) -> None:
        self._directory = directory
        # Process numbers are not enough: a shared disk is written from several machines.
        self._name = f"{STAGING}{os.getpid()}-{os.urandom(8).hex()}"
        self._fd = os.open(self._name, _NEW, 0o600, dir_fd=directory)
        self._state = xxhash.xxh3_128()
        self._begun = 0  # up to here the disk was asked to begin
        self.nbytes = 0
        self.stored = 0

    def __enter__(self) -> StagedFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            os.close(self._fd)
        finally:
            if self._name:
                try:
                    os.unlink(self._name, dir_fd=self._directory)
                except FileNotFoundError:  # a clean-up was quicker
                    pass

    @property
    def digest(self) -> str:
        """xxh3-128 of what was written."""
        return self._state.hexdigest()

    def write(
        self, views: Iterable[memoryview], block: int = HOLE, at_once: int = shards.PIECE
    ) -> None:
        """Append buffers; they are not joined. Blocks of zeros become holes."""
        for group in shards.pieces(views, at_once):
            run: list[memoryview] = []
            place = self.nbytes
            for view in group:
                self._state.update(view)
                stretches = shards.solid(view, block) if view.nbytes >= block else None
                for start, stop in [(0, view.nbytes)] if stretches is None else stretches:
                    if self.nbytes + start > place + shards.size(run):
                        self._write_all(run, place)
                        run, place = [], self.nbytes + start
                    run.append(view[start:stop])
                self.nbytes += view.nbytes
            self._write_all(run, place)
            if self.nbytes - self._begun >= AHEAD:
                try:
                    os.posix_fadvise(self._fd, self._begun, self.nbytes - self._begun, _DONTNEED)
                except OSError:  # advice only
                    pass
                self._begun = self.nbytes

    def _write_all(self, views: list[memoryview], place: int) -> None:
        self.stored += shards.size(views)
        while views:
            done = os.pwritev(self._fd, views, place)
            place += done
            while views and done >= views[0].nbytes:
                done -= views.pop(0).nbytes
            if done:
                views[0] = views[0][done:]

    def publish(self, name: str) -> None:
        """Bring it to the disk, then to its name, then its name to the disk."""
        os.ftruncate(self._fd, self.nbytes)  # it may end in a hole
        os.fsync(self._fd)
        os.rename(self._name, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._name = ""
        os.fsync(self._directory)


class FileStore:
    """Checkpoints in a directory that belongs to the user.

    Engines put and get from processes of their own, each with its own object; an object can be
    pickled. One master at a time commits, keeps and cleans: ``claim`` sees to that.

    Parameters
    ----------
    directory : str or path
        It is made where it is missing, with mode 0700; files have mode 0600.

    Raises
    ------
    UsageError
        It belongs to another user, or others can write it.
    StoreError
        It cannot be made.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = os.path.abspath(os.path.expanduser(os.fspath(directory)))
        self._lock: int | None = None
        with told(f"use the directory {self.directory}"):
            make_private(self.directory)
            with private(self.directory):
                pass

    def __repr__(self) -> str:
        return f"FileStore({self.directory!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return FileStore, (self.directory,)

    def put(self, checkpoint: int, rank: int, frames: shards.Frames) -> Record:
        """Write a rank's shard; it is on the disk when this returns."""
        # Who makes the frames meanwhile holds the interpreter: fewer calls, fewer waits for it.
        at_once = AT_ONCE if isinstance(frames, Iterator) else shards.PIECE
        where = self._path(checkpoint)
        with told(f"write the snapshot of rank {rank} to {where}"), private(self.directory) as top:
            try:
                os.mkdir(folder(checkpoint), 0o700, dir_fd=top)  # synced by commit
            except FileExistsError:  # another rank's engine, or an attempt before
                pass
            with private(folder(checkpoint), top, where) as here, StagedFile(here) as file:
                file.write(shards.parts(frames), at_once=at_once)
                record = Record(rank, file.nbytes, file.digest)
                file.publish(shard_name(record))
        return record

    def get(self, checkpoint: int, rank: int) -> list[memoryview]:
        """Return the frames of a committed checkpoint, in memory of their own; digest checked."""
        where = self._path(checkpoint)
        with told(f"read the snapshot of rank {rank} from {where}"), self._open(checkpoint) as here:
            record = self._manifest(checkpoint, here).shard(rank)
            name = shard_name(record)
            shown = os.path.join(where, name)
            with _opened(name, here, shown) as fd:
                size = os.fstat(fd).st_size
                if size != record.nbytes:
                    raise CorruptSnapshot(
                        f"{shown} is damaged: it has {size} bytes and was written with "
                        f"{record.nbytes}"
                    )
                return shards.read(record, _filler(fd), shown)

    def commit(self, manifest: Manifest) -> None:
        """Make a checkpoint of the shards that were put; its manifest is on the disk after this.

        Raises
        ------
        MissingSnapshot, CorruptSnapshot
            A shard is not there, or has another size.
        UsageError
            The checkpoint is committed already.
        """
        number = manifest.checkpoint
        where = self._path(number)
        with (
            told(f"commit checkpoint {number} in {self.directory}"),
            private(self.directory) as top,
            self._open(number, top) as here,
        ):
            for record in manifest.shards:
                _check_shard(record, here, os.path.join(where, shard_name(record)))
            for base in manifest.bases:
                with self._open(base, top) as there:
                    if not _exists(MANIFEST, there):
                        raise MissingSnapshot(f"{self._path(base)} is no checkpoint any more")
            if _exists(MANIFEST, here):
                raise UsageError(f"{where} is committed already: numbers of checkpoints only grow")
            os.fsync(top)  # once for the folder, whichever engine made it
            with StagedFile(here) as file:
                file.write([memoryview(manifest.to_json())])
                file.publish(MANIFEST)

    def manifests(self) -> list[Manifest]:
        """Return the committed checkpoints, the newest first; damaged manifests give a warning."""
        found = []
        with told(f"list {self.directory}"):
            for number in self.numbers():
                try:
                    with self._open(number) as here:
                        found.append(self._manifest(number, here))
                except MissingSnapshot:  # not committed, or dropped a moment ago
                    continue
                except (CorruptSnapshot, UsageError) as error:
                    warnings.warn(StoreWarning(str(error)), stacklevel=2)
        return found

    def drop(self, checkpoint: int) -> None:
        """Delete a checkpoint, committed or not."""
        with (
            told(f"delete {self._path(checkpoint)}"),
            private(self.directory) as top,
        ):
            try:
                with private(folder(checkpoint), top, self._path(checkpoint)) as here:
                    # Without its manifest it is none any more, so the rest may go in any order.
                    if _exists(MANIFEST, here):
                        _remove(MANIFEST, here)
                        os.fsync(here)
                    for name in os.listdir(here):
                        _remove(name, here)
                os.rmdir(folder(checkpoint), dir_fd=top)
                os.fsync(top)
            except FileNotFoundError:
                pass

    def keep(self, last: int) -> None:
        """Keep the last committed checkpoints only; see ``Store.keep``."""
        found = self.numbers()
        for number in surplus(self.manifests(), found, last):
            self.drop(number)

    def clean(self) -> list[str]:
        """Remove what interrupted writers left, and return its names.

        That is: folders without a manifest, and in those with one every file that it does not
        name. A folder whose manifest is damaged is left for you to look at. Call it when nobody
        writes: at the start of a session, after ``claim``.
        """
        removed = []
        self.claim()
        with told(f"clean {self.directory}"), private(self.directory) as top:
            for name in os.listdir(top):
                if name.startswith(STAGING):
                    _remove(name, top)
                    removed.append(name)
            for number in self.numbers():
                try:
                    with self._open(number, top) as here:
                        manifest = self._manifest(number, here)
                        known = {MANIFEST, *(shard_name(record) for record in manifest.shards)}
                        for name in sorted(set(os.listdir(here)) - known):
                            _remove(name, here)
                            removed.append(f"{folder(number)}/{name}")
                except MissingSnapshot:
                    self.drop(number)
                    removed.append(folder(number))
                except (CorruptSnapshot, UsageError):  # `manifests` tells of it
                    continue
        return removed

    def claim(self) -> None:
        """Be the one process that commits, keeps and cleans here, until it ends or releases.

        Raises
        ------
        UsageError
            Another living process is.
        """
        if self._lock is not None:
            return
        with told(f"claim {self.directory}"), private(self.directory) as top:
            lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=top)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise UsageError(
                    f"another session writes its checkpoints to {self.directory}: stop it, or use "
                    "another directory"
                ) from None
            except OSError:
                os.close(lock)
                raise
        self._lock = lock

    def release(self) -> None:
        """Let another process claim the directory."""
        lock, self._lock = self._lock, None
        if lock is not None:
            try:
                # A process that was forked meanwhile has the lock too: closing would leave it.
                fcntl.flock(lock, fcntl.LOCK_UN)
            finally:
                os.close(lock)

    def _path(self, checkpoint: int) -> str:
        return os.path.join(self.directory, folder(checkpoint))

    def numbers(self) -> list[int]:
        """Return the checkpoints of which there is anything, the largest first."""
        with told(f"list {self.directory}"), private(self.directory) as top:
            numbers = [checkpoint_of(name) for name in os.listdir(top)]
        return sorted((number for number in numbers if number is not None), reverse=True)

    @contextmanager
    def _open(self, checkpoint: int, above: int | None = None) -> Iterator[int]:
        name = self._path(checkpoint)
        if above is None:
            with private(self.directory) as top, self._open(checkpoint, top) as here:
                yield here
            return
        # Not around the yield: what the caller does not find is another matter.
        try:
            opened = private(folder(checkpoint), above, name)
            here = opened.__enter__()
        except FileNotFoundError:
            raise MissingSnapshot(f"there is no checkpoint {checkpoint} at {name}") from None
        try:
            yield here
        finally:
            opened.__exit__(None, None, None)

    def _manifest(self, checkpoint: int, here: int) -> Manifest:
        shown = os.path.join(self._path(checkpoint), MANIFEST)
        with _opened(MANIFEST, here, shown) as fd:
            size = os.fstat(fd).st_size
            if size > _MAX_MANIFEST:
                raise CorruptSnapshot(f"{shown} is damaged: it is too long for a manifest")
            raw = bytearray(size)
            try:
                _filler(fd)([memoryview(raw)], 0)
            except EOFError:
                raise CorruptSnapshot(f"{shown} changed while it was read") from None
        manifest = from_json(bytes(raw), shown)
        if manifest.checkpoint != checkpoint:
            raise CorruptSnapshot(
                f"{shown} is damaged: it speaks of checkpoint {manifest.checkpoint}"
            )
        return manifest


@contextmanager
def _opened(name: str, here: int, shown: str) -> Iterator[int]:
    """Open a file of the user's for reading."""
    try:
        fd = os.open(name, _READ, dir_fd=here)
    except FileNotFoundError:
        raise MissingSnapshot(f"{shown} is missing") from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise CorruptSnapshot(f"{shown} is a link, which no store makes") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise CorruptSnapshot(f"{shown} is no file, which no store makes")
        _check_owner(status, shown, "file")
        yield fd
    finally:
        os.close(fd)


def _filler(fd: int) -> shards.ReadInto:
    def fill(views: list[memoryview], place: int) -> None:
        views = [view for view in views if view.nbytes]
        while views:
            done = os.preadv(fd, views, place)
            if not done:
                raise EOFError
            place += done
            while views and done >= views[0].nbytes:
                done -= views.pop(0).nbytes
            if done:
                views[0] = views[0][done:]

    return fill


def _check_shard(record: Record, here: int, shown: str) -> None:
    try:
        size = os.stat(shard_name(record), dir_fd=here, follow_symlinks=False).st_size
    except FileNotFoundError:
        raise MissingSnapshot(
            f"{shown} is missing: rank {record.rank} has not put it here, or it was cleaned away"
        ) from None
    if size != record.nbytes:
        raise CorruptSnapshot(f"{shown} is damaged: it has {size} bytes, not {record.nbytes}")


def _exists(name: str, here: int) -> bool:
    try:
        os.stat(name, dir_fd=here, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _remove(name: str, here: int) -> None:
    try:
        os.unlink(name, dir_fd=here)
    except FileNotFoundError:  # somebody else did
        pass
