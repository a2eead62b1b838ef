"""``%feliss plot``: what is measured in sessions of its own, as a frame, a table and a picture."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import feliss_nb as feliss
from feliss_nb.errors import UsageError
from feliss_nb.lab import bench_overhead, bench_recovery, bench_wordcount, costs
from feliss_nb.lab.figures import new_figure
from feliss_nb.lab.zipf import write_text
from feliss_nb.runtime.table import Table, new_frame
from feliss_nb.runtime.treemap import Picture

if TYPE_CHECKING:
    import pandas

KINDS = ("checkpoints", "recovery", "overhead", "speedup")

#: What is measured if no sizes are given, in MB.
_SIZES = {
    "checkpoints": (10, 40),
    "recovery": (1, 20),
    "overhead": (10,),
    "speedup": (2, 8),
}
_CAPTURES = ("full", "forked", "incremental")
_MTBF = 2.0  # seconds: the interval is chosen for losses so close that a short run has checkpoints

Row = dict[str, Any]
Say = Callable[[str], None]


def measure(
    what: str, megabytes: Any = None, repeats: int = 3, on_step: Say = lambda text: None
) -> Measured | costs.Comparison:
    """Measure what is to be drawn, on engines that are started and stopped for it.

    Parameters
    ----------
    what : str
        One of `KINDS`.
    megabytes : float or sequence of float, optional
        Sizes of the state of all ranks, or of the text whose words are counted (speedup).
    repeats : int
        Runs of each.
    on_step : callable
        Told what is measured.

    Raises
    ------
    UsageError
        If there is nothing of that name to plot, or a number makes no sense.
    """
    if what not in KINDS:
        raise UsageError(f"there is no plot {what!r}; there are: {', '.join(KINDS)}")
    sizes = _sizes(_SIZES[what] if megabytes is None else megabytes)
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise UsageError(f"repeats= takes a whole number of at least 1, not {repeats!r}")
    if what == "checkpoints":
        return costs.measure(megabytes=sizes, repeats=repeats, on_step=on_step)
    rows = _MEASURES[what](sizes, repeats, on_step)
    return Measured(what, tuple(rows), repeats)


def _sizes(given: Any) -> tuple[float, ...]:
    sizes = (given,) if isinstance(given, int | float) else tuple(given)
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < 1e6:
            raise UsageError(f"megabytes= takes sizes above 0, in MB, not {size!r}")
    if not sizes:
        raise UsageError("megabytes= takes one size or more")
    return sizes


@dataclass(frozen=True, repr=False)
class Measured:
    """What was measured: a picture in a notebook, a table in a terminal.

    Attributes
    ----------
    what : str
        One of `KINDS`.
    rows : tuple of dict
        One for each run.
    repeats : int
        Runs of each kind.
    """

    what: str
    rows: tuple[Row, ...]
    repeats: int

    @property
    def data(self) -> pandas.DataFrame:
        """A row for each run."""
        return new_frame(list(self.rows), list(self.rows[0]))

    def table(self) -> Table:
        """Give each run as a row."""
        names = tuple(self.rows[0])
        return Table(
            f"{self.what}, {self.repeats} runs of each",
            names,
            [tuple(row[name] for name in names) for row in self.rows],
        )

    def plot(self) -> Picture:
        """Draw it.

        Raises
        ------
        UsageError
            If matplotlib is not installed.
        """
        return Picture(_DRAWINGS[self.what](self))

    @property
    def figure(self) -> Any:
        """Matplotlib's figure of it."""
        return self.plot().figure

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture to a file, in the format of its ending: .svg, .png, .pdf."""
        self.plot().save(path)

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_png_(self) -> bytes:
        return self.plot()._repr_png_()


# ------------------------------------------------------------------------------------- measuring


def _recovery(sizes: Sequence[float], repeats: int, say: Say) -> list[Row]:
    """Kill a worker of two, with a spare, `repeats` times; the parts of each recovery."""
    found: list[Row] = []
    for size in sizes:
        say(f"recovery, {size:g} MB a rank: {repeats} kills")
        how = bench_recovery.Sizes(kills=repeats, workers=2, spares=1)
        for run, parts in enumerate(bench_recovery.measure(how, size, "numpy")):
            row = {"megabytes": size, "run": run + 1, "detection": parts.detection}
            found.append({**row, "load": parts.load, "resume": parts.resume, "total": parts.total})
    return found


def _overhead(sizes: Sequence[float], repeats: int, say: Say) -> list[Row]:
    """Run the same job with and without checkpoints, with each capture."""
    found: list[Row] = []
    for size in sizes:
        for capture in _CAPTURES:
            say(f"overhead, {size:g} MB, {capture}: {repeats} pairs of runs")
            how = bench_overhead.Sizes(size, _MTBF, 5, 2000)
            _, pairs = bench_overhead.run_pairs(capture, how, repeats)
            for run, (one, other) in enumerate(pairs):
                row = {"megabytes": size, "capture": capture, "run": run + 1}
                times = {"without": other.seconds, "with": one.seconds, "commits": one.commits}
                percent = (one.seconds / other.seconds - 1) * 100
                found.append({**row, **times, "overhead": percent})
    return found


def _speedup(sizes: Sequence[float], repeats: int, say: Say) -> list[Row]:
    """Count the words of texts on one worker, and on more; checkpoints are on."""
    found: list[Row] = []
    cores = max(len(os.sched_getaffinity(0)), 2)
    counts = [count for count in (1, 2, 4, 8) if count <= min(cores, 8)]
    with tempfile.TemporaryDirectory(prefix="feliss-") as name:
        paths = {size: Path(name) / f"{size:g}.txt" for size in sizes}
        for size, path in paths.items():
            write_text(path, int(size * 1e6))
        for workers in counts:
            say(f"speedup, {workers} worker{'s' if workers > 1 else ''}: {repeats} runs of each")
            with feliss.start(workers=workers) as session:
                for size, path in paths.items():
                    for run in range(repeats + 1):
                        begun = time.perf_counter()
                        bench_wordcount.count_in_session(session, path)
                        seconds = time.perf_counter() - begun
                        if run:  # the first has imported what it needs
                            row = {"workers": workers, "megabytes": size, "run": run}
                            found.append({**row, "seconds": seconds})
    return found


_MEASURES: dict[str, Callable[[Sequence[float], int, Say], list[Row]]] = {
    "recovery": _recovery,
    "overhead": _overhead,
    "speedup": _speedup,
}

# --------------------------------------------------------------------------------------- drawing

_STYLES = (
    {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    {"color": "#009E73", "marker": "^", "linestyle": "-."},
    {"color": "#CC79A7", "marker": "D", "linestyle": ":"},
)
_PARTS = (
    ("detection", "until it is noticed", "#0072B2", ""),
    ("load", "until all stand up from snapshots", "#E69F00", "////"),
    ("resume", "until all run again", "#DDDDDD", "...."),
)


def _frame(title: str, width: float = 6.4, height: float = 3.6) -> tuple[Any, Any]:
    figure = new_figure(width, height)
    axes = figure.subplots()
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    return figure, axes


def _groups(rows: Sequence[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def _draw_recovery(measured: Measured) -> Any:
    groups = _groups(measured.rows, "megabytes")
    title = f"Recovery from SIGKILL; means of {measured.repeats} kills, dots are single ones"
    figure, axes = _frame(title, height=1.7 + 0.55 * len(groups))
    for place, rows in enumerate(groups.values()):
        left = 0.0
        for name, word, colour, hatch in _PARTS:
            value = fmean(row[name] for row in rows) * 1e3  # so that the parts make the whole
            style = {"color": colour, "hatch": hatch, "edgecolor": "black", "linewidth": 0.6}
            label = word if place == 0 else None
            axes.barh(place, value, left=left, height=0.5, label=label, **style)
            left += value
        totals = [row["total"] * 1e3 for row in rows]
        axes.plot(totals, [place] * len(rows), "o", color="black", mfc="white", ms=4.5, zorder=5)
    axes.set_yticks(range(len(groups)), [f"{size:g} MB a rank" for (size,) in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("time since the SIGKILL, ms", fontsize=9)
    figure.legend(loc="outside lower left", ncols=3, fontsize=8, frameon=False)
    return figure


def _draw_overhead(measured: Measured) -> Any:
    groups = _groups(measured.rows, "megabytes", "capture")
    names = list(dict.fromkeys(capture for _, capture in groups))
    pairs = f"{measured.repeats} pair" + ("s" if measured.repeats > 1 else "")
    title = f"How checkpoints delay a job; medians of {pairs} of runs, bars from least to most"
    figure, axes = _frame(title)
    for (size, capture), rows in groups.items():
        sizes = list(dict.fromkeys(size for size, _ in groups))
        style = _STYLES[sizes.index(size) % len(_STYLES)]
        shift = 0.16 * (sizes.index(size) - (len(sizes) - 1) / 2)
        values = sorted(row["overhead"] for row in rows)
        middle = median(values)
        error = [[middle - values[0]], [values[-1] - middle]]
        commits = median(row["commits"] for row in rows)
        at = names.index(capture) + shift
        label = f"{size:g} MB" if capture == names[0] else None
        look = {"color": style["color"], "marker": style["marker"], "linestyle": "none"}
        axes.errorbar(at, middle, error, capsize=3, ms=7, label=label, **look)
        text = f"{middle:.1f} %, {commits:g} checkpoints"
        axes.annotate(text, (at, middle), (9, 0), textcoords="offset points", fontsize=8)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.4, len(names) - 0.2)
    axes.set_xlabel("how a rank is captured", fontsize=9)
    axes.set_ylabel("longer than without, %", fontsize=9)
    axes.legend(fontsize=8, frameon=False, title="state of all ranks", title_fontsize=8)
    return figure


def _draw_speedup(measured: Measured) -> Any:
    groups = _groups(measured.rows, "megabytes", "workers")
    sizes = list(dict.fromkeys(size for size, _ in groups))
    counts = sorted({workers for _, workers in groups})
    runs = f"{measured.repeats} run" + ("s" if measured.repeats > 1 else "")
    title = f"Word count with checkpoints; medians of {runs}, bars from least to most"
    figure, axes = _frame(title)
    axes.plot(counts, counts, color="black", linewidth=0.8, linestyle=(0, (1, 3)), label="ideal")
    for index, size in enumerate(sizes):
        alone = median(row["seconds"] for row in groups[size, 1])
        middles, below, above = [], [], []
        for workers in counts:
            seconds = [row["seconds"] for row in groups[size, workers]]
            middles.append(alone / median(seconds))
            below.append(middles[-1] - alone / max(seconds))
            above.append(alone / min(seconds) - middles[-1])
        style: Any = _STYLES[index % len(_STYLES)]
        label = f"{size:g} MB of text"
        axes.errorbar(counts, middles, [below, above], capsize=3, ms=6, label=label, **style)
    axes.set_xticks(counts)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("workers", fontsize=9)
    axes.set_ylabel("times as fast as one worker", fontsize=9)
    axes.grid(True, linewidth=0.3)
    axes.legend(fontsize=8, frameon=False)
    return figure


_DRAWINGS: dict[str, Callable[[Measured], Any]] = {
    "recovery": _draw_recovery,
    "overhead": _draw_overhead,
    "speedup": _draw_speedup,
}
