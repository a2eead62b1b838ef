"""Bytes of parts: each thing counts once, and all parts together are the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feliss_nb.state.sizes import _Memory, sizes
from feliss_nb.state.snapshot import capture


def test_what_is_shared_counts_for_the_first() -> None:
    shared = list(range(100_000))
    found = sizes([("a", {"mine": shared}), ("b", [shared, 1]), ("c", "x" * 5000)])
    assert found["a"] > 200_000
    assert found["b"] < 100
    assert 5000 < found["c"] < 5100
    assert list(found) == ["a", "b", "c"]


def test_parts_of_one_key_count_together() -> None:
    one = sizes([("f", b"x" * 1000)])["f"]
    assert sizes([("f", b"x" * 1000), ("g", 1), ("f", b"y" * 1000)])["f"] == 2 * one


def test_views_of_one_array_count_once() -> None:
    array = np.zeros(100_000)
    found = sizes([("left", array[:60_000]), ("all", array), ("strided", array[::2])])
    assert 480_000 <= found["left"] < 480_500
    assert 320_000 <= found["all"] < 320_500
    assert found["strided"] < 500


def test_all_parts_are_as_much_as_a_snapshot_of_them() -> None:
    state: dict[str, Any] = {
        "counts": {f"word{i}": i for i in range(20_000)},
        "grid": np.random.default_rng(0).standard_normal((300, 300)),
        "rows": [(i, float(i)) for i in range(1000)],
    }
    whole = capture(state).nbytes
    assert abs(sum(sizes(state.items()).values()) - whole) < 0.01 * whole


def test_an_empty_array_takes_nothing_but_its_name() -> None:
    assert sizes([("empty", np.zeros(0))])["empty"] < 300


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=30))
def test_stretches_of_memory(stretches: list[tuple[int, int]]) -> None:
    room = memoryview(bytearray(100))
    memory, seen = _Memory(), set()
    for start, size in stretches:
        new = set(range(start, start + size)) - seen
        assert memory.add(room[start : start + size]) == len(new)
        seen |= new
