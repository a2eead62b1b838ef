"""Large buffers between the engines of one machine, through memory that both of them map.

Here is what both sides know; `segments` is the owner's side, `mappings` the readers'.

A segment is an anonymous file in memory (``memfd_create``: it has no name anywhere, its mode is
0600, and it ends with the last process that maps it, however that ends). The sender writes a
message's buffers into a segment of its own and sends the place; the receiver maps the segment once
and reads where it lies. So what goes from engine to engine is copied once by its sender, where a
socket copies it into the kernel and out of it again, piece by piece.

A reference to a segment is a *lease*: its Python object ends when nothing refers to the memory any
more. The owner counts the leases that it grants each engine; each engine counts those that it gave
back in a word of the segment's header that is its own. Both counts only grow, each has one writer,
and the segment is free when they agree and the owner refers to it no more. An engine that has ended
is forgotten with its leases. A segment is sealed against shrinking: nobody dies of SIGBUS.

What is kept is bounded: `Limits` says by how much. A free segment is used again, for its pages are
there already; one that is idle is emptied, and its file closed, unless another of its size is in
use. Where there is no room the message
goes through the socket.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: In front of the data: the owner's token, then a word that says that the segment is given up,
#: then a word for each engine that got leases.
HEADER = max(4096, mmap.PAGESIZE)
TOKEN = 16
WORDS = 64  # where they begin
GIVEN_UP = 0
SLOTS = (4096 - WORDS) // 8

# Linux 5.14; Python has no names for them. Pages come at once, not by one fault each: that is half
# the time of a first use.
POPULATE_READ, POPULATE_WRITE = 22, 23
_libc = ctypes.CDLL(None)
_libc.madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


def _memory() -> int:
    """Give the bytes that this process may use: of the machine, or of its control group."""
    everything = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(everything, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):  # "max" where there is no limit
        return everything


_MEMORY = _memory()


@dataclass(slots=True)
class Limits:
    """How much memory the segments of one engine take at most.

    Attributes
    ----------
    least : int
        A message with fewer bytes goes through the socket.
    nbytes : int
        Of all segments together.
    spare : int
        Of free segments that are kept where none like them is in use.
    segments : int
        How many: each holds a descriptor.
    held : int
        Leases of one owner's segments that an engine holds before it copies what comes.
    idle : float
        Seconds until a free segment is given up.
    """

    least: int = 64 * 1024
    nbytes: int = _MEMORY // 4
    spare: int = min(256 << 20, _MEMORY // 16)
    segments: int = 256
    held: int = 8
    idle: float = 5.0


#: Of this process. What is measured against the socket changes ``least``.
LIMITS = Limits()

#: How one frame of a message is found: a place (which segment, first byte, bytes), or None where it
#: goes through the socket.
Place = tuple[int, int, int] | None
#: A segment as its receivers find it: its number, the owner's descriptor, bytes, and whether
#: several may read it, so that none may write.
Reference = tuple[int, int, int, bool]


class Returns:
    """Takes back leases on whatever thread the last reference ends, within a lock's scope or not.

    So it never waits for a lock: who finds it taken leaves the work to its holder.
    """

    def __init__(self, take_back: Callable[[Any], None]) -> None:
        self._take_back = take_back
        self._items: deque[Any] = deque()
        self._lock = threading.Lock()
        self._holds = 0

    def add(self, item: Any) -> None:
        """Take a lease back, now or as soon as the lock's holder comes to it."""
        self._items.append(item)
        self._work()

    def _work(self) -> None:
        while self._items and not self._holds and self._lock.acquire(blocking=False):
            try:
                while self._items and not self._holds:
                    self._take_back(self._items.popleft())
            finally:
                self._lock.release()

    def hold(self) -> None:
        """Take nothing back until `release`: a forked child reads what this process still maps."""
        with self._lock:
            self._holds += 1

    def release(self) -> None:
        """End a `hold`."""
        with self._lock:
            self._holds -= 1
        self._work()


class Lease:
    """Ends with the last reference to it, and then is taken back."""

    __slots__ = ("_item", "_returns")

    def __init__(self, returns: Returns, item: Any) -> None:
        self._returns, self._item = returns, item

    def __del__(self) -> None:
        self._returns.add(self._item)


class Block(np.ndarray):
    """Memory in a segment: whatever refers to it keeps the lease. Its slices are views of it."""

    lease: Lease
    segment: Any
    shared: bool

    @classmethod
    def make(cls, memory: mmap.mmap, size: int, lease: Lease, segment: Any, shared: bool) -> Block:
        """Give the first bytes of a segment's data as a block that holds a lease."""
        block = np.frombuffer(memory, np.uint8, size, HEADER).view(cls)
        block.lease, block.segment, block.shared = lease, segment, shared
        return block


def check(fd: int, token: bytes) -> None:
    """Raise OSError unless a file is this user's and begins with the token."""
    if os.fstat(fd).st_uid != os.getuid() or os.pread(fd, TOKEN, 0) != token:
        raise OSError("not a segment of the engine that named it")


def advise(memory: mmap.mmap, how: int, start: int, end: int) -> None:
    """Advise the kernel on a stretch of the data: what it refuses changes nothing but the time.

    Not by ``mmap.madvise``, which keeps the interpreter's lock while the kernel clears pages.
    """
    first = (HEADER + start) // mmap.PAGESIZE * mmap.PAGESIZE
    address = np.frombuffer(memory, np.uint8, 1).ctypes.data
    madvise(address + first, HEADER + end - first, how)


def madvise(address: int, nbytes: int, how: int) -> bool:
    """Advise the kernel on memory of this process; tell whether it took the advice."""
    return int(_libc.madvise(address, nbytes, how)) == 0
