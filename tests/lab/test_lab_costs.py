"""Checkpoints next to dumps: every figure is there, of the state that was meant."""

from __future__ import annotations

from dataclasses import replace

import pandas
import pytest

from feliss_nb.errors import UsageError
from feliss_nb.lab.costs import Comparison, Cost, measure
from feliss_nb.lab.states import STATES, make


@pytest.fixture(scope="module")
def small() -> Comparison:
    steps: list[str] = []
    found = measure(
        ("dict of ints", "float array"),
        2,
        ("full", "incremental"),
        ("memory",),
        repeats=2,
        on_step=steps.append,
    )
    assert steps == ["dict of ints, 2 MB", "float array, 2 MB"]
    return found


@pytest.mark.engines
def test_every_figure_is_there(small: Comparison) -> None:
    groups = small.groups()
    hows = [("full", False), ("incremental", False), ("memory", True)]
    assert [(key[0], key[2], costs[0].dump) for key, costs in groups.items()] == [
        (state, *how) for state in ("dict of ints", "float array") for how in hows
    ]
    assert all(len(costs) == 2 for costs in groups.values())
    assert all(0 < cost.pause <= cost.seconds for cost in small.costs)
    assert all(cost.pause <= cost.commit <= cost.seconds for cost in small.costs)
    for (_, _, how), costs in groups.items():  # the last of each capture was stood up again
        tried = [cost.restore is not None for cost in costs]
        assert tried == ([False, False] if how == "memory" else [False, True])
    for (state, _, how), costs in groups.items():
        if how == "full" and state == "float array":
            assert all(2e6 < cost.bytes < 2.1e6 for cost in costs)
            assert all(2e6 < cost.written < 2.1e6 for cost in costs)
        elif how == "incremental" and state == "float array":
            assert all(cost.written < 2e5 for cost in costs)
        elif how == "memory":  # an interpreter with numpy, at least
            assert all(cost.bytes == cost.written > 1e7 for cost in costs)


@pytest.mark.engines
def test_they_are_shown(small: Comparison) -> None:
    frame = small.frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(Cost.__dataclass_fields__)
    assert len(frame) == len(small.costs)
    text = repr(small)
    assert "dump: memory" in text
    assert "incremental" in text
    assert small._repr_png_().startswith(b"\x89PNG")
    figure = small.plot().figure
    assert [axes.get_title() for axes in figure.axes[:2]] == ["dict of ints", "float array"]
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert labels == ["until safe, s", "pause, s", "restore, s", "on the disk, MB"]
    kinds = [len(axes.containers) for axes in figure.axes]  # a line with its bars each
    assert kinds == [3, 3, 3, 3, 2, 2, 3, 3]
    assert "2 of each kind" in figure.get_suptitle()


def test_a_single_size_lies_inside_of_its_axes() -> None:
    kinds = ("dict of ints", "float array", "DataFrame")
    cost = Cost(kinds[0], 4.0, "full", False, 0.06, 0.02, 241_000, 240_000, 0.04, 0.01)
    picture = Comparison(tuple(replace(cost, state=kind) for kind in kinds)).plot()
    for axes in picture.figure.axes:
        assert axes.get_xlim() == pytest.approx((4 / 1.3, 4 * 1.3))
        low, high = axes.get_ylim()
        assert low < axes.lines[0].get_ydata()[0] < high


def test_wrong_names_and_numbers() -> None:
    with pytest.raises(UsageError, match="there is no state 'dict of cats'; there are: dict of"):
        measure(("dict of cats",))
    with pytest.raises(UsageError, match="there is no dumper 'blcr'; there are: memory"):
        measure(dumpers=("blcr",))
    with pytest.raises(UsageError, match="there is no capture 'fulll'"):
        measure(how=("fulll",))
    for sizes in (0, -1, (2, 0), True, "big", (float("nan"),)):
        with pytest.raises(UsageError, match="sizes above 0, in MB"):
            measure(megabytes=sizes)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 1, not 0"):
        measure(repeats=0)
    with pytest.raises(UsageError, match="nothing was measured"):
        Comparison(()).plot()


@pytest.mark.parametrize("kind", STATES)
def test_states_are_the_same_each_time(kind: str) -> None:
    one, other = make(kind, 0.1), make(kind, 0.1)
    assert type(one) is type(other)
    if kind == "DataFrame":
        pandas.testing.assert_frame_equal(one, other)
    elif kind == "float array":
        assert (one == other).all()
    elif kind.startswith("mixture"):
        assert one["counts"] == other["counts"]
        assert one["bodies"] == other["bodies"]
    else:
        assert one == other
