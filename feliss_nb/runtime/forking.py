"""When an engine may fork: where it may not, a capture is taken without a child.

*Other threads in user code.* OpenBLAS waits in a fork for its own threads to end; while a thread of
Python's computes with them they do not, and the whole process stands still for ever (seen within
seconds with two threads that multiply). So no other rank, no thread that a lost epoch left behind
and no cell that runs on the engine itself may be at work. Threads that the user's code starts
nobody can see: who has them compute chooses a capture without a fork.

*MPI.* Its libraries do not stand a fork.

*Memory that is shared.* A fork copies, page by page and on the first write, what a process has for
itself. Arrays in a segment (what another rank sent), in a writable ``numpy.memmap`` or in
``multiprocessing.shared_memory`` would go on to change under the child.
"""

from __future__ import annotations

import sys
import threading

# Mappings of these hold no array that changes: segments that nobody may write to (others are asked
# for elsewhere), what a child has written, the engine's board, semaphores.
_HARMLESS = ("/memfd:feliss", "/feliss-board-", "/dev/shm/sem.")  # noqa: S108 - looked for only


def process_stands_fork() -> bool:
    """Tell whether the engine's own thread is idle and no memory is shared beside the segments."""
    return _main_thread_rests() and not _has_shared_memory()


def _main_thread_rests() -> bool:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return frame is None or frame.f_code.co_filename.endswith("selectors.py")


def _has_shared_memory() -> bool:
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            access = line.split(maxsplit=2)[1]
            if access[1] == "w" and access[3] == "s" and not any(n in line for n in _HARMLESS):
                return True
    return False
