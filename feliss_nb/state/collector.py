"""Python's garbage collector, paused while a large stream is read.

What pickle makes is no garbage, and every few hundred objects the collector would look for some.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: A shorter stream is read before the collector looks at everything once.
LEAST = 1 << 20

_lock = threading.Lock()
_readers: set[object] = set()
_was_on = False


@contextmanager
def paused(nbytes: int) -> Iterator[None]:
    """Read a stream of so many bytes: the last of several readers lets the collector go on."""
    if nbytes < LEAST:
        yield
        return
    global _was_on
    me = object()
    try:
        with _lock:
            if not _readers:
                _was_on = gc.isenabled()
                gc.disable()
            _readers.add(me)
        yield
    finally:
        with _lock:
            _readers.discard(me)
            if _was_on and not _readers:
                gc.enable()
