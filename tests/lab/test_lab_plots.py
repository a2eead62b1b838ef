"""Pictures of measurements, from figures that were not measured; and one that is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from feliss_nb.errors import UsageError
from feliss_nb.lab import bench_overhead, plots
from feliss_nb.lab.plots import Measured

ROWS: dict[str, list[dict[str, Any]]] = {
    "recovery": [
        {
            "megabytes": size,
            "run": run,
            "detection": 0.02,
            "load": 0.1 * size,
            "resume": 0.01,
            "total": 0.03 + 0.1 * size,
        }
        for size in (1, 2)
        for run in (1, 2)
    ],
    "overhead": [
        {
            "megabytes": size,
            "capture": how,
            "run": run,
            "without": 1.0,
            "with": 1.0 + run / 50,
            "commits": 5,
            "overhead": 2.0 * run,
        }
        for size in (1, 2)
        for how in ("full", "forked")
        for run in (1, 2)
    ],
    "speedup": [
        {"workers": workers, "megabytes": size, "run": run, "seconds": size * run / workers}
        for workers in (1, 2)
        for size in (1, 2)
        for run in (1, 2)
    ],
}


@pytest.mark.parametrize("what", ROWS)
def test_a_picture_has_axes_with_units_and_the_number_of_runs(what: str, tmp_path: Any) -> None:
    measured = Measured(what, tuple(ROWS[what]), 2)
    figure = measured.figure
    [axes] = figure.axes
    assert " 2 " in axes.get_title(loc="left")
    labels = f"{axes.get_xlabel()} {axes.get_ylabel()}"
    assert {"recovery": ", ms", "overhead": ", %", "speedup": "workers"}[what] in labels
    legends = [*figure.legends, axes.get_legend()]
    assert any(legend is not None and legend.get_texts() for legend in legends)
    for name in ("a.svg", "a.png"):
        measured.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000
    assert measured._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("what", ROWS)
def test_the_data_behind_it(what: str) -> None:
    measured = Measured(what, tuple(ROWS[what]), 2)
    assert measured.data.to_dict("records") == ROWS[what]
    assert f"{what}, 2 runs of each" in repr(measured)


def test_speedup_is_told_from_the_medians() -> None:
    [axes] = Measured("speedup", tuple(ROWS["speedup"]), 2).figure.axes
    [ideal, *others] = [list(map(float, line.get_ydata())) for line in axes.get_lines()]
    assert ideal == [1.0, 2.0]
    # Of 2 and 1 s, and of 1 and 0.5 s; likewise with twice the text.
    assert [values for values in others if values == [1.0, 2.0]] == [[1.0, 2.0]] * 2


def test_there_is_no_other() -> None:
    with pytest.raises(UsageError, match="there are: checkpoints, recovery, overhead, speedup"):
        plots.measure("weather")


def test_an_overhead_is_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def run_pairs(capture: str, sizes: bench_overhead.Sizes, runs: int) -> Any:
        asked.append((capture, sizes.megabytes, runs))
        with_, without = bench_overhead.Run(1.1, 0, 4, 0, 0), bench_overhead.Run(1, 0, 0, 0, 0)
        return 10, [(with_, without)] * runs

    monkeypatch.setattr(bench_overhead, "run_pairs", run_pairs)
    measured = plots.measure("overhead", megabytes=[1, 2], repeats=2)
    assert asked == [(how, size, 2) for size in (1, 2) for how in plots._CAPTURES]
    assert all(row["overhead"] == pytest.approx(10.0) for row in measured.rows)
    assert [row["commits"] for row in measured.rows] == [4] * 12
    assert measured.plot()._repr_png_()


def test_what_checkpoints_cost_is_seen_though_a_machine_gets_slower() -> None:
    calm = np.linspace(1.0, 1.1, 400)
    assert bench_overhead.excess(calm) == pytest.approx(0.0, abs=0.01)
    disturbed = calm.copy()
    disturbed[[50, 51, 150, 151, 250, 251]] += 0.5
    assert bench_overhead.excess(disturbed) == pytest.approx(3.0, rel=0.02)
    assert bench_overhead.excess(np.array([1.0, 1.0, 3.0])) == pytest.approx(2.0)
