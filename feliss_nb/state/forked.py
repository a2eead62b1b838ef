"""Work done by a forked child, on memory as it is now, while this process goes on.

The child has one thread, the one that forked, and all that the others held stays held: so it
imports nothing that is not there, uses no socket, writes to one file in memory and leaves by
``os._exit``. What else it may come upon, in the code of a user's class for example, ends with its
deadline: then it is killed. It is killed too when the thread that forked it ends.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import pickle
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from cloudpickle import cloudpickle as cloud

from feliss_nb.errors import FelissError, UnpicklableError

__all__ = ["Child", "ChildLost", "fork"]

_DONE, _REFUSED, _FAILED = 0, 1, 2
_WORD = 8
_PR_SET_PDEATHSIG = 1
_MOST = 1 << 30  # bytes in one write: the kernel takes no more than 2 GiB
_libc = ctypes.CDLL(None)


class ChildLost(FelissError):
    """The child gave no result: it failed, was killed, or took too long."""


class Child:
    """A child at work.

    Parameters
    ----------
    pid : int
    fd : int
        The file in memory that it writes to.
    """

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self._fd = fd
        try:
            self._process = os.pidfd_open(pid)
        except OSError:  # no descriptor
            os.close(fd)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._lock = threading.Lock()
        self._is_reaped = False

    def kill(self) -> None:
        """Kill it; whoever waits for its result reaps it. Any thread may call this."""
        with self._lock:
            if not self._is_reaped:
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def result(self, seconds: float) -> list[memoryview]:
        """Wait for the buffers that it wrote; call it once, it leaves nothing of the child.

        Raises
        ------
        UnpicklableError
            As the child raised it.
        ChildLost
            It failed in another way, was killed, or took longer than this.
        """
        try:
            poll = select.poll()
            poll.register(self._process, select.POLLIN)
            is_late = not poll.poll(seconds * 1000)
            if is_late:
                self.kill()
            status = self._reap()
            if is_late:
                raise ChildLost(f"it did not end in {seconds:g} s and was killed")
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                raise ChildLost(f"it was ended by signal {signal.Signals(-code).name}")
            if code not in (_DONE, _REFUSED, _FAILED):
                raise ChildLost(f"it ended with status {code}")
            if code == _DONE:
                return _read(self._fd)
            text = bytes(_read(self._fd)[0])  # an error that lives long holds no descriptor
        finally:
            os.close(self._fd)
        if code == _REFUSED:
            raise UnpicklableError(*pickle.loads(text))
        raise ChildLost(text.decode())

    def _reap(self) -> int:
        try:
            return os.waitpid(self.pid, 0)[1]
        except ChildProcessError:
            raise ChildLost("somebody else waited for it") from None
        finally:
            with self._lock:
                self._is_reaped = True
                os.close(self._process)


def fork(work: Callable[[], Sequence[Any]]) -> Child:
    """Let a forked child call ``work``, and write the buffers that it gives.

    The caller makes sure that no other thread is inside a library that does not stand a fork:
    OpenBLAS waits for ever for its threads to end if one of them computes.
    """
    fd = os.memfd_create("feliss-child", os.MFD_CLOEXEC)
    parent = os.getpid()
    try:
        # A lock that our own pickler takes in the child: no other thread may hold it meanwhile.
        with cloud._DYNAMIC_CLASS_TRACKER_LOCK:
            pid = _fork()
    except BaseException:
        os.close(fd)
        raise
    if pid == 0:
        _work(work, fd, parent)
    return Child(pid, fd)


def _fork() -> int:
    # Python 3.12 and later warn of a fork with threads, since most children go on as if they had
    # them. This one does not: see above.
    if sys.version_info >= (3, 12):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
            return os.fork()
    return os.fork()


def _work(work: Callable[[], Sequence[Any]], fd: int, parent: int) -> NoReturn:
    """Be the child."""
    code = _FAILED
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        gc.disable()  # finalizers belong to the parent
        # With its sockets open in the child, the parent would seem to live on after its end.
        os.closerange(0, fd)
        os.closerange(fd + 1, 1 << 30)
        if os.getppid() == parent:  # else it had ended before the first line
            code = _try(work, fd)
    finally:
        os._exit(code)


def _try(work: Callable[[], Sequence[Any]], fd: int) -> int:
    try:
        _write(fd, work())
        return _DONE
    except UnpicklableError as error:
        code, text = _REFUSED, pickle.dumps((error.path, error.type_name, error.reason))
    except BaseException as error:  # noqa: BLE001 - the parent hears of it
        code, text = _FAILED, f"{type(error).__name__}: {error}".encode("utf-8", "replace")
    os.ftruncate(fd, 0)
    _write(fd, [text])
    return code


def _write(fd: int, parts: Sequence[Any]) -> None:
    views = [memoryview(part).cast("B") for part in parts]
    table = b"".join(n.to_bytes(_WORD, "little") for n in (len(views), *map(len, views)))
    os.lseek(fd, 0, os.SEEK_SET)
    for view in (memoryview(table), *views):
        done = 0
        while done < len(view):
            done += os.write(fd, view[done : done + _MOST])


def _read(fd: int) -> list[memoryview]:
    size = os.fstat(fd).st_size
    if not size:
        raise ChildLost("it wrote nothing")
    whole = memoryview(mmap.mmap(fd, size))
    count = int.from_bytes(whole[:_WORD], "little")
    place = _WORD * (count + 1)
    parts = []
    for number in range(1, count + 1):
        size = int.from_bytes(whole[_WORD * number : _WORD * (number + 1)], "little")
        parts.append(whole[place : place + size])
        place += size
    return parts
