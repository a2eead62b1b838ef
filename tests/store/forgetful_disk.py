"""A disk that loses what was not synced: it stands in for ``os`` in ``feliss_nb.store.files``.

After a loss of power a name in a folder is, each by itself, as it was at the folder's last sync or
as it is now; a file has its content of its last sync, or what came later in part. This is what
POSIX allows and more than any file system does. Descriptors follow inodes, as they should.
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class PowerLoss(BaseException):
    """The machine is off: no clean-up of the program does anything any more."""


class File:
    mode = stat_module.S_IFREG | 0o600

    def __init__(self) -> None:
        self.now = bytearray()
        self.synced = b""


class Folder:
    mode = stat_module.S_IFDIR | 0o700

    def __init__(self) -> None:
        self.now: dict[str, File | Folder] = {}
        self.synced: dict[str, File | Folder] = {}


class ForgetfulDisk:
    """``steps`` counts the calls that change something; at ``stop_at`` the power goes or they fail.

    ``room`` is how many bytes may be written from now on; then the disk is full.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.top = Folder()
        self.steps = 0
        self.stop_at: int | None = None
        self.fails_with: int | None = None  # an errno, in place of a loss of power
        self.room: int | None = None
        self.off = False
        self._open: dict[int, File | Folder] = {}
        self._next = 1000

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("O_", "path", "fspath", "getpid", "geteuid", "urandom", "PathLike")):
            return getattr(os, name)
        raise AttributeError(f"the disk has no {name}")

    # ------------------------------------------------------------ power

    def _step(self) -> None:
        self._alive()
        self.steps += 1
        if self.stop_at == self.steps:
            if self.fails_with is None:
                self.off = True
                raise PowerLoss
            raise OSError(self.fails_with, os.strerror(self.fails_with))

    def _alive(self) -> None:
        if self.off:
            raise PowerLoss

    def power_on(self, choose: Callable[[int], int]) -> None:
        """Come back with what a loss of power leaves; ``choose(n)`` draws from 0 ... n - 1."""
        self.off, self.stop_at, self._open = False, None, {}
        self._settle(self.top, choose)

    def _settle(self, folder: Folder, choose: Callable[[int], int]) -> None:
        for name in sorted(set(folder.now) | set(folder.synced)):
            before, after = folder.synced.get(name), folder.now.get(name)
            kept = after if before is after or choose(2) else before
            folder.now.pop(name, None)
            if kept is not None:
                folder.now[name] = kept
        folder.synced = dict(folder.now)
        for entry in folder.now.values():
            if isinstance(entry, Folder):
                self._settle(entry, choose)
            elif bytes(entry.now) != entry.synced:
                content = [
                    entry.synced,
                    bytes(entry.now),
                    bytes(entry.now[: len(entry.now) // 2]),
                    bytes(len(entry.now)),  # its length came through, its data did not
                    b"",
                ][choose(5)]
                entry.now, entry.synced = bytearray(content), content

    # ------------------------------------------------------------ the calls

    def _folder(self, fd: int | None) -> Folder:
        folder = self._open[fd] if fd is not None else self.top
        assert isinstance(folder, Folder)
        return folder

    def mkdir(self, name: str, mode: int, dir_fd: int | None = None) -> None:
        assert mode == 0o700
        self._step()
        folder = self._folder(dir_fd)
        if name == self.root or name in folder.now:
            raise FileExistsError(errno.EEXIST, "there already", name)
        folder.now[name] = Folder()

    def open(self, name: str, flags: int, mode: int = 0, dir_fd: int | None = None) -> int:
        self._alive()
        folder = self._folder(dir_fd)
        if dir_fd is None:
            assert name == self.root
            entry: File | Folder | None = self.top
        else:
            entry = folder.now.get(name)
        if flags & os.O_CREAT:
            assert mode == 0o600
            self._step()
            assert entry is None
            entry = folder.now[name] = File()
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, "not there", name)
        self._next += 1
        self._open[self._next] = entry
        return self._next

    def close(self, fd: int) -> None:
        self._alive()
        del self._open[fd]

    def fstat(self, fd: int) -> Any:
        self._alive()
        entry = self._open[fd]
        size = len(entry.now) if isinstance(entry, File) else 0
        return SimpleNamespace(st_uid=os.geteuid(), st_mode=entry.mode, st_size=size)

    def stat(self, name: str, dir_fd: int, follow_symlinks: bool) -> Any:
        self._alive()
        try:
            entry = self._folder(dir_fd).now[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "not there", name) from None
        return SimpleNamespace(st_size=len(entry.now), st_mode=entry.mode)

    def listdir(self, fd: int) -> list[str]:
        self._alive()
        return list(self._folder(fd).now)

    def pwritev(self, fd: int, views: list[memoryview], place: int) -> int:
        self._step()
        file = self._open[fd]
        assert isinstance(file, File)
        data = b"".join(views)
        data = data[: max(1, len(data) * 2 // 3)]  # a write may be short
        if self.room is not None:
            data = data[: self.room]
            if not data:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room -= len(data)
        if len(file.now) < place:
            file.now.extend(bytes(place - len(file.now)))
        file.now[place : place + len(data)] = data
        return len(data)

    def preadv(self, fd: int, views: list[memoryview], place: int) -> int:
        self._alive()
        file = self._open[fd]
        assert isinstance(file, File)
        data = bytes(file.now[place : place + max(1, views[0].nbytes * 2 // 3)])
        views[0][: len(data)] = data
        return len(data)

    def posix_fadvise(self, fd: int, start: int, size: int, advice: int) -> None:
        self._step()

    def ftruncate(self, fd: int, size: int) -> None:
        self._step()
        file = self._open[fd]
        assert isinstance(file, File)
        del file.now[size:]
        file.now.extend(bytes(size - len(file.now)))

    def fsync(self, fd: int) -> None:
        self._step()
        entry = self._open[fd]
        if isinstance(entry, Folder):
            entry.synced = dict(entry.now)
        else:
            entry.synced = bytes(entry.now)

    def rename(self, old: str, new: str, src_dir_fd: int, dst_dir_fd: int) -> None:
        assert src_dir_fd == dst_dir_fd
        self._step()
        folder = self._folder(src_dir_fd)
        if old not in folder.now:
            raise FileNotFoundError(errno.ENOENT, "not there", old)
        folder.now[new] = folder.now.pop(old)

    def unlink(self, name: str, dir_fd: int) -> None:
        self._step()
        if self._folder(dir_fd).now.pop(name, None) is None:
            raise FileNotFoundError(errno.ENOENT, "not there", name)

    def rmdir(self, name: str, dir_fd: int) -> None:
        self._step()
        folder = self._folder(dir_fd)
        if folder.now[name].now:
            raise OSError(errno.ENOTEMPTY, "not empty", name)
        del folder.now[name]

    # ------------------------------------------------------------ what a test looks at

    def files(self) -> dict[str, File]:
        """Every file, by folder and name."""
        found = {}
        for name, entry in self.top.now.items():
            if isinstance(entry, File):
                found[name] = entry
            else:
                found |= {f"{name}/{n}": f for n, f in entry.now.items() if isinstance(f, File)}
        return found
