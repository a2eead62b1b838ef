"""States of a rank to measure checkpoints with: what real programs hold, of any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["STATES", "make"]


@dataclass
class Body:
    """A thing as a simulation has thousands of them."""

    name: str
    mass: float
    position: tuple[float, float, float]
    neighbours: list[int]


def integers(entries: int) -> dict[int, int]:
    """A map of whole numbers to whole numbers: the state that Feliss was measured with."""
    return {i: i * 7919 % entries for i in range(entries)}


def strings(entries: int) -> dict[str, int]:
    """A map of words to counts."""
    return {f"word-{i * 7919 % entries}": i for i in range(entries)}


def instances(entries: int) -> list[Body]:
    """Instances of a dataclass, with attributes of several types."""
    return [
        Body(f"body {i}", i / 3, (i / 7, i / 11, i / 13), [i, i + 1, i + 2]) for i in range(entries)
    ]


def floats(entries: int) -> np.ndarray:
    """An array that no compression makes smaller."""
    return np.random.default_rng(0).standard_normal(entries)


def frame(entries: int) -> Any:
    """A table of numbers and words."""
    import pandas

    random = np.random.default_rng(0)
    return pandas.DataFrame(
        {
            "key": random.integers(0, entries, entries),
            "value": random.standard_normal(entries),
            "word": pandas.Series([f"w{i % 1000}" for i in range(entries)], dtype=object),
        }
    )


def mixture(entries: int) -> dict[str, Any]:
    """A part of each, behind a computation that has left much dead memory."""
    _leave_behind(entries)
    return {
        "counts": integers(entries // 4),
        "index": strings(entries // 8),
        "bodies": instances(entries // 16),
        "grid": floats(entries),
    }


# What a program once needed, and neither it nor anybody else frees.
_left: list[Any] = []


def _leave_behind(entries: int) -> None:
    """Use memory as programs do: large temporaries, and pieces that keep pages from being freed."""
    pieces: list[Any] = [bytearray(2000) for _ in range(entries // 50)]
    _left[:] = pieces[::16]
    del pieces
    table = {i: str(i) for i in range(entries)}
    _left.append(table.popitem())


@dataclass(frozen=True)
class State:
    """A kind of state.

    Attributes
    ----------
    make : callable
        ``make(entries)``.
    bytes_each : float
        Memory that an entry takes, about.
    """

    make: Callable[[int], Any]
    bytes_each: float


#: By the names that tables and plots use.
STATES: Mapping[str, State] = {
    "dict of ints": State(integers, 100),
    "dict of strings": State(strings, 150),
    "dataclass instances": State(instances, 550),
    "float array": State(floats, 8),
    "DataFrame": State(frame, 90),
    "mixture, much dead memory": State(mixture, 90),
}


def make(kind: str, megabytes: float) -> Any:
    """Make a state of a kind that takes about this much memory."""
    state = STATES[kind]
    return state.make(max(int(megabytes * 1e6 / state.bytes_each), 16))
