"""An engine's memory in huge pages, so that its next fork is short.

A fork copies the page tables: 16 to 20 ms for each GB in pages of 4 KiB, which is what objects of
Python lie in, and next to nothing for pages of 2 MiB. The kernel puts pages together on request
(``MADV_COLLAPSE``, Linux 6.1). That takes about a second for a GB, so it is done behind a capture
whose fork was long, beside the ranks, and once: pages that are together stay so until a rank writes
to them while a child reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from feliss_nb.runtime.background import stand_back
from feliss_nb.runtime.shared import madvise

_COLLAPSE = 25  # Python has no name for it
_HUGE = 2 << 20
_STEP = 16 * _HUGE
# Of a stretch: what has no page yet would get one, so only where nearly all has.
_LEAST, _DENSE, _TOGETHER = 2 * _HUGE, 0.9, 0.5

_lock = threading.Lock()


def gather(is_over: Callable[[], bool]) -> int:
    """Put this process's pages together. On a thread of its own, which ends behind it.

    Parameters
    ----------
    is_over : callable
        Asked at times; true: stop.

    Returns
    -------
    int
        The bytes that lie in huge pages now and did not before, nearly. 0 where the kernel knows no
        such request, and while another thread is at it.
    """
    if not _lock.acquire(blocking=False):
        return 0
    try:
        stand_back()
        done = 0
        for start, end in list(_stretches()):
            for place in range(start, end, _STEP):
                if is_over():
                    return done
                size = min(_STEP, end - place)
                done += size * (madvise(place, size, _COLLAPSE))
        return done
    except OSError:  # no /proc to look into
        return 0
    finally:
        _lock.release()


def _stretches() -> Iterator[tuple[int, int]]:
    """Yield where memory is this process's own, has nearly all its pages, and those are small."""
    start = end = resident = 0
    is_own = False
    with Path("/proc/self/smaps").open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            first, *words = line.split()
            if not first.endswith(":"):
                start, end = (int(word, 16) for word in first.split("-"))
                is_own = words[0] == "rw-p" and words[4:] in ([], ["[heap]"])
            elif first == "Rss:":
                resident = int(words[0]) << 10
            elif first == "AnonHugePages:" and is_own and resident >= _DENSE * (end - start):
                aligned = -(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE
                small = int(words[0]) << 10 < _TOGETHER * resident
                if small and aligned[1] - aligned[0] >= _LEAST:
                    yield aligned
