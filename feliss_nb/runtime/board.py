"""What each rank of an engine runs now, in memory that the session's process reads.

A file of the session's private directory, mapped by both: it says what ran when the engine is dead
already, to a process that comes later too, and for how long when the engine hangs. To note a
continuation costs less than a microsecond.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from time import monotonic

from feliss_nb.core.ids import record_id
from feliss_nb.core.messages import Running

# A slot for each rank: when it began (0: nothing runs), its job, its record (-1: none), its id;
# behind it how many the rank has begun here.
_SLOT = struct.Struct("=dqq16s")
SIZE = 64
_BEGAN, RECORD, _COUNT = 0, 2, 5  # in words of 8 bytes


def path_of(directory: Path, engine: str) -> Path:
    """Return the file of an engine's board, in its session's directory."""
    return directory / f"feliss-board-{engine}"


def remove_files(directory: Path, engine: str) -> None:
    """Remove what a dead machine would have taken with it: an engine's board, its socket."""
    path_of(directory, engine).unlink(missing_ok=True)
    (directory / f"data-{engine}").unlink(missing_ok=True)


def left_running(directory: Path, engine: str) -> tuple[Running, ...]:
    """Return what ran on an engine when it ended, whether a master was there or not."""
    try:
        board = BoardView(path_of(directory, engine))
    except OSError:
        return ()
    running = tuple(one for one, _ in board.running())
    board.close()
    return running


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
    path : Path
        The file: see `path_of`.
    size : int
        How many ranks there are.
    """

    def __init__(self, path: Path, size: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, size * SIZE)
            self._memory = memoryview(mmap.mmap(fd, size * SIZE))
        finally:
            os.close(fd)

    def slot(self, rank: int) -> Slot:
        """Return where a rank notes what it runs."""
        return Slot(self._memory[rank * SIZE : (rank + 1) * SIZE])

    @staticmethod
    def nowhere() -> Slot:
        """Return a slot that nobody reads, for a rank that is retired."""
        return Slot(memoryview(bytearray(SIZE)))


class BoardView:
    """The session's side: works when the engine has ended, too.

    Parameters
    ----------
    path : Path
        The file: see `path_of`.

    Raises
    ------
    OSError
        If there is none.
    """

    def __init__(self, path: Path) -> None:
        own = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
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
