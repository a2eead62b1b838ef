"""What each rank of an engine runs now, in memory that the session's process reads.

An anonymous file, mapped by both: it says what ran when the engine is dead already, and for how
long when the engine hangs. To note a continuation costs less than a microsecond.
"""

from __future__ import annotations

import mmap
import os
import struct
from time import monotonic

from feliss_nb.core.ids import record_id
from feliss_nb.core.messages import Running

# A slot for each rank: when it began (0: nothing runs), its job, its record (-1: none), its id;
# behind it how many the rank has begun here.
_SLOT = struct.Struct("=dqq16s")
SIZE = 64
_BEGAN, RECORD, _COUNT = 0, 2, 5  # in words of 8 bytes


class Slot:
    """Where a rank notes what it runs. The engine's lock is held, but for `record` and `pause`.

    Parameters
    ----------
    memory : memoryview
        Of the slot.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self.words = memory.cast("q")  # words[RECORD] = index of the record at hand
        self._times = memory.cast("d")
        self._spent = 0.0

    def begin(self, identity: bytes, job: int) -> None:
        """Note a continuation."""
        _SLOT.pack_into(self._memory, 0, 0.0, job, -1, identity)
        self.words[_COUNT] += 1
        self._times[_BEGAN] = monotonic()

    def end(self) -> None:
        """Note that nothing runs."""
        self._times[_BEGAN] = 0.0

    def pause(self) -> None:
        """Stop the clock: it waits for others, who may be the ones that hang."""
        self._spent = monotonic() - self._times[_BEGAN]
        self._times[_BEGAN] = -self._spent

    def go_on(self) -> None:
        """Let the clock run again."""
        self._times[_BEGAN] = monotonic() - self._spent


class Board:
    """An engine's side.

    Parameters
    ----------
    size : int
        How many ranks there are.

    Attributes
    ----------
    fd : int
        Of the file, for the session's process to open.
    """

    def __init__(self, size: int) -> None:
        self.fd = os.memfd_create("feliss-board", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size * SIZE)
        self._memory = memoryview(mmap.mmap(self.fd, size * SIZE))

    def slot(self, rank: int) -> Slot:
        """Return where a rank notes what it runs."""
        return Slot(self._memory[rank * SIZE : (rank + 1) * SIZE])

    @staticmethod
    def nowhere() -> Slot:
        """Return a slot that nobody reads, for a rank that is retired."""
        return Slot(memoryview(bytearray(SIZE)))

    def close(self) -> None:
        """Close the file; slots may go on using the memory."""
        os.close(self.fd)


class BoardView:
    """The session's side: works when the engine has ended, too.

    Parameters
    ----------
    pid, fd : int
        The engine's process, and the file there.

    Raises
    ------
    OSError
        If it cannot be opened: the engine has ended meanwhile.
    """

    def __init__(self, pid: int, fd: int) -> None:
        own = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._memory = mmap.mmap(own, 0, prot=mmap.PROT_READ)
        finally:
            os.close(own)

    def running(self) -> list[tuple[Running, float]]:
        """Return what runs, or ran, and for how many seconds (of its own: without waits)."""
        now = monotonic()
        found = []
        for rank in range(len(self._memory) // SIZE):
            began, job, index, identity = _SLOT.unpack_from(self._memory, rank * SIZE)
            if began == 0.0:
                continue
            key = identity if index < 0 else record_id(job, rank, index)
            found.append((Running(rank, job, key), now - began if began > 0 else -began))
        return found

    def begun(self, rank: int) -> int:
        """Return how many continuations a rank has begun in this engine."""
        (count,) = struct.unpack_from("=q", self._memory, rank * SIZE + 8 * _COUNT)
        return int(count)

    def close(self) -> None:
        """Unmap it."""
        self._memory.close()
