"""The segments that an engine owns: see `shared`."""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any

import numpy as np

from feliss_nb.runtime.shared import (
    GIVEN_UP,
    HEADER,
    LIMITS,
    POPULATE_WRITE,
    SLOTS,
    TOKEN,
    WORDS,
    Block,
    Lease,
    Limits,
    Place,
    Reference,
    Returns,
    advise,
)
from feliss_nb.state import codec


class _Segment:
    """A segment, seen by its owner."""

    def __init__(self, number: int, capacity: int, token: bytes) -> None:
        self.number, self.capacity = number, capacity
        self.fd = os.memfd_create("feliss", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.fchmod(self.fd, 0o600)
            os.ftruncate(self.fd, HEADER + capacity)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self.memory = mmap.mmap(self.fd, HEADER + capacity)
        except BaseException:
            os.close(self.fd)
            raise
        self.memory[:TOKEN] = token
        self.words = memoryview(self.memory)[WORDS:HEADER].cast("Q")
        self.shared = False  # whether nobody may write to what lies here now
        self.taken = 0  # leases of the owner's own, and those that ended: a lock guards each
        self.given_back = 0
        self.granted: dict[int, int] = {}
        self.touched = 0  # bytes that have pages
        self.used = 0.0  # when it was taken, or last seen in use

    def is_free(self) -> bool:
        if self.taken != self.given_back:
            return False
        words = self.words
        return all(words[slot] == count for slot, count in self.granted.items())

    def give_up(self) -> None:
        """Give its memory back; what still maps it is told to forget it."""
        self.words[GIVEN_UP] = 1
        self.words.release()
        advise(self.memory, mmap.MADV_REMOVE, 0, self.capacity)
        os.close(self.fd)


class Segments:
    """The segments that one engine owns. Every method may be called from any thread.

    Parameters
    ----------
    clock : callable
        Gives seconds.
    limits : Limits, optional
    """

    def __init__(self, clock: Callable[[], float] = monotonic, limits: Limits = LIMITS) -> None:
        self.token = secrets.token_bytes(TOKEN)
        self.limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._returns = Returns(_end_local)
        #: by capacity, the one used last at the end: its memory is in the caches
        self._classes: dict[int, list[_Segment]] = {}
        self._slots: dict[str, int] = {}
        self._numbers = 0
        self._next_slot = GIVEN_UP + 1
        self._closed = False

    # ------------------------------------------------------------ the copies

    def fresh(self, buffers: Iterable[Any], shared: bool = False) -> list[memoryview]:
        """Copy buffers, into a segment if they are large and there is room: see ``codec.fresh``.

        Parameters
        ----------
        buffers : iterable of bytes-like
            Contiguous.
        shared : bool
            Several engines may get them: nobody writes to them any more.
        """
        sources = [memoryview(buffer).cast("B") for buffer in buffers]
        copies = self.room(map(len, sources), shared)
        for copy, source in zip(copies, sources, strict=True):
            if len(source):  # numpy's copy lets other threads run
                np.frombuffer(copy, np.uint8)[:] = np.frombuffer(source, np.uint8)
        return [copy.toreadonly() for copy in copies] if shared else copies

    def room(self, sizes: Iterable[int], shared: bool = False) -> list[memoryview]:
        """Give writable memory of each of these sizes, where `fresh` would put copies."""
        sizes = list(sizes)
        places, size = _lay_out(sizes)
        block = self._block(size, shared) if size >= self.limits.least else None
        if block is None:
            return codec.allocate_each(sizes)
        whole = block.data
        return [whole[place : place + n] for place, n in zip(places, sizes, strict=True)]

    def _block(self, size: int, shared: bool) -> Block | None:
        with self._lock:
            segment = self._take(size)
            if segment is None:
                return None
            # Counted with the lock held: the segment is taken from now on.
            segment.taken += 1
            segment.shared = shared
            new = segment.touched
            segment.touched = max(new, size)
        block = Block.make(segment.memory, size, Lease(self._returns, segment), segment, shared)
        if size > new:
            advise(segment.memory, POPULATE_WRITE, new, size)
        return block

    def _take(self, size: int) -> _Segment | None:
        capacity = max(1 << (size - 1).bit_length(), mmap.PAGESIZE)
        same = self._classes.setdefault(capacity, [])
        for index in range(len(same) - 1, -1, -1):
            if same[index].is_free():
                segment = same.pop(index)
                break
        else:
            if self._closed or not self._has_room(size):
                return None
            try:
                segment = _Segment(self._numbers, capacity, self.token)
            except OSError:  # no descriptor, no memory
                return None
            self._numbers += 1
        same.append(segment)
        segment.used = self._clock()
        return segment

    def _has_room(self, size: int) -> bool:
        def fits() -> bool:
            everything = self._all()
            room = self.limits.nbytes - sum(segment.touched for segment in everything)
            return len(everything) < self.limits.segments and size <= room

        for segment in self._free():
            if fits():
                break
            self._give_up(segment)
        return fits()

    def has_writable(self) -> bool:
        """Tell whether somebody here may write to what lies in a segment."""
        with self._lock:
            return any(s.taken != s.given_back and not s.shared for s in self._all())

    def hold(self) -> None:
        """Use no segment again until `release`."""
        self._returns.hold()

    def release(self) -> None:
        """End a `hold`."""
        self._returns.release()

    # ------------------------------------------------------------ the messages

    def slot(self, engine: str) -> int | None:
        """Give the number of an engine's word in each header; None if there is none left."""
        with self._lock:
            if engine not in self._slots and self._next_slot < SLOTS:
                self._slots[engine] = self._next_slot
                self._next_slot += 1
            return self._slots.get(engine)

    def refer(
        self, engine: str, frames: Sequence[Any]
    ) -> tuple[list[Reference], list[Place], list[Any]] | None:
        """Say where frames lie, and grant an engine the leases; None if none lies in a segment.

        Returns
        -------
        tuple
            The segments, the place of each frame, and the frames that the socket must carry.
        """
        references: list[Reference] = []
        known: dict[int, int] = {}
        places: list[Place] = []
        rest = []
        with self._lock:
            slot = self._slots.get(engine)
            for frame in frames:
                block = _ours(frame)
                if slot is None or block is None:
                    places.append(None)
                    rest.append(frame)
                    continue
                segment = block.segment
                if segment.number not in known:
                    known[segment.number] = len(references)
                    references.append((segment.number, segment.fd, segment.capacity, block.shared))
                    segment.granted[slot] = segment.granted.get(slot, 0) + 1
                start = _address(frame) - _address(block) if len(frame) else 0
                places.append((known[segment.number], start, len(frame)))
        return (references, places, rest) if references else None

    def forget(self, engine: str) -> None:
        """Take an ended engine's leases back."""
        with self._lock:
            slot = self._slots.pop(engine, None)
            if slot is not None:
                for segment in self._all():
                    segment.granted.pop(slot, None)

    # ------------------------------------------------------------ what is kept

    def _all(self) -> list[_Segment]:
        return [segment for same in self._classes.values() for segment in same]

    def _free(self) -> list[_Segment]:
        """Give the free segments, the one that was used longest ago first."""
        return sorted((s for s in self._all() if s.is_free()), key=lambda segment: segment.used)

    def _give_up(self, segment: _Segment) -> None:
        self._classes[segment.capacity].remove(segment)
        segment.give_up()

    def tidy(self) -> None:
        """Give up what has been idle for long, and what is more than is kept. Call it at times.

        One whose like is in use is kept: a snapshot is made while the one before is needed, so the
        two take turns, however much time lies between.
        """
        if not self._classes:
            return
        with self._lock:
            now = self._clock()
            likes: dict[int, int] = {}
            for segment in self._all():
                if not segment.is_free():
                    segment.used = now
                    likes[segment.capacity] = likes.get(segment.capacity, 0) + 1
            free = []
            for segment in reversed(self._free()):
                if likes.get(segment.capacity):
                    likes[segment.capacity] -= 1
                else:
                    free.append(segment)
            kept = sum(segment.touched for segment in free)
            for segment in reversed(free):
                if segment.used <= now - self.limits.idle or kept > self.limits.spare:
                    kept -= segment.touched
                    self._give_up(segment)

    def nbytes(self) -> int:
        """Count the bytes of all segments."""
        with self._lock:
            return sum(segment.touched for segment in self._all())

    def close(self) -> None:
        """Give up what is free, and make no more; the rest ends with its leases."""
        with self._lock:
            self._closed = True
            for segment in self._free():
                self._give_up(segment)
            for segment in self._all():
                os.close(segment.fd)
            self._classes.clear()


def _ours(frame: Any) -> Block | None:
    """Give the block that a frame lies in, if it is in a segment of this engine."""
    block: Any = frame.obj if type(frame) is memoryview else None
    return block if type(block) is Block and type(block.segment) is _Segment else None


def _end_local(segment: _Segment) -> None:
    segment.given_back += 1


class Trial:
    """A descriptor that others try to open, to learn whether they can open the segments."""

    def __init__(self, token: bytes) -> None:
        self.fd = os.memfd_create("feliss", os.MFD_CLOEXEC)
        os.fchmod(self.fd, 0o600)
        os.write(self.fd, token)

    def close(self) -> None:
        """Close it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _lay_out(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Give each buffer an aligned place, one behind the other, and the bytes of all."""
    places = []
    end = 0
    for size in sizes:
        places.append(end)
        end += -(-size // codec.ALIGNMENT) * codec.ALIGNMENT
    return places, end


def _address(memory: Any) -> int:
    address: int = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
    return address
