"""What each part of a state takes in a snapshot; what parts share counts for the first of them."""

from __future__ import annotations

import bisect
import pickle
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from feliss_nb.state.pickler import Pickler

__all__ = ["sizes"]


def sizes(parts: Iterable[tuple[Hashable, object]]) -> dict[Hashable, int]:
    """Give the bytes that each part adds to a snapshot which holds the parts before it already.

    Parameters
    ----------
    parts : iterable of (hashable, object)
        A key and what belongs to it. Parts with one key count together.

    Returns
    -------
    dict
        Bytes of stream and buffers for each key, in the order of the keys. Nothing is copied.

    Raises
    ------
    Exception
        What the pickler raises for an object that cannot be saved.
    """
    counter, memory = _Counter(), _Memory()

    def count(buffer: pickle.PickleBuffer) -> bool:
        counter.nbytes += memory.add(buffer.raw())
        return False

    # One pickler for all: what it has written once it only refers to again.
    pickler = Pickler(counter, count, None, share=True)
    found: dict[Hashable, int] = {}
    for key, obj in parts:
        before = counter.nbytes
        pickler.dump(obj)
        found[key] = found.get(key, 0) + counter.nbytes - before
    return found


class _Counter:
    """A file that keeps nothing of what is written but its size."""

    def __init__(self) -> None:
        self.nbytes = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.nbytes += size
        return size


class _Memory:
    """Stretches of memory that have been counted: apart from each other, in order."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, view: memoryview) -> int:
        """Count a stretch; give how much of it is new."""
        if not view.nbytes:
            return 0
        start = np.frombuffer(view, np.uint8).ctypes.data
        stop = start + view.nbytes
        first = bisect.bisect_left(self._stops, start)
        last = bisect.bisect_right(self._starts, stop)
        known = zip(self._starts[first:last], self._stops[first:last], strict=True)
        new = stop - start - sum(min(stop, b) - max(start, a) for a, b in known)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last], self._stops[first:last] = [start], [stop]
        return new
