"""What checkpoints cost, drawn: time and bytes of each capture and each dump."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING

from feliss_nb.errors import UsageError
from feliss_nb.lab.costs import Comparison, Cost
from feliss_nb.runtime.treemap import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette. In grey some of them are alike, so lines and markers differ too: captures
# have filled markers, dumps hollow ones on broken lines.
_CAPTURES = ("#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#000000")
_DUMPS = ("#D55E00", "#E69F00", "#7F7F7F", "#000000")
_LINES = ("-", (0, (1, 1)), (0, (6, 1.5)), (0, (6, 1.5, 1, 1.5)))
_MARKERS = "osv^DPX"

Value = Callable[[Cost], "float | None"]
_ROWS: tuple[tuple[str, Value], ...] = (
    ("until safe, s", lambda cost: cost.seconds),
    ("pause, s", lambda cost: cost.pause),
    ("restore, s", lambda cost: cost.restore),
    ("on the disk, MB", lambda cost: cost.bytes / 1e6),
)


def draw(comparison: Comparison) -> Picture:
    """Draw a column for each kind of state, a row for each figure; dumps are hollow.

    Points are medians, bars go from the least to the most. Nobody stands a dump up again here, so
    that row has captures only.

    Parameters
    ----------
    comparison : Comparison
        With one cost or more.

    Raises
    ------
    UsageError
        If matplotlib is not installed, or there is nothing to draw.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("a picture needs matplotlib: pip install 'feliss_nb[lab]'") from None
    states = list(dict.fromkeys(cost.state for cost in comparison.costs))
    if not states:
        raise UsageError("nothing was measured, so there is nothing to draw")
    rows = [row for row in _ROWS if any(row[1](cost) is not None for cost in comparison.costs)]
    width = max(2.1 * len(states) + 2.2, 6.5)
    figure = Figure(figsize=(width, 1.9 * len(rows) + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(states), squeeze=False, sharex="col", sharey="row")
    styles = _styles(comparison)
    for column, state in enumerate(states):
        for row, (label, value) in enumerate(rows):
            axes = grid[row][column]
            _lines(axes, comparison, state, value, styles)
            if column == 0:
                axes.set_ylabel(label, fontsize=9)
        grid[0][column].set_title(state, fontsize=9)
        grid[-1][column].set_xlabel("state, MB", fontsize=9)
    for row in range(len(rows)):  # whole decades: two of them at least have a number
        low, high = (math.log10(limit) for limit in grid[row][0].get_ylim())
        grid[row][0].set_ylim(10.0 ** math.floor(low), 10.0 ** math.ceil(high))
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=9, frameon=False)
    counts = {len(costs) for costs in comparison.groups().values()}
    runs = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
    what = "median of each" if counts == {1} else "medians, bars from the least to the most"
    title = f"Checkpoints and dumps of the same state; {runs} of each kind: {what}"
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    return Picture(figure)


def _styles(comparison: Comparison) -> dict[str, dict[str, object]]:
    """Give a colour, a line and a marker to each capture and dumper."""
    found: dict[str, dict[str, object]] = {}
    counts = {True: 0, False: 0}
    for cost in comparison.costs:
        if cost.how not in found:
            palette = _DUMPS if cost.dump else _CAPTURES
            number = counts[cost.dump]
            counts[cost.dump] += 1
            found[cost.how] = {
                "color": palette[number % len(palette)],
                "linestyle": "--" if cost.dump else _LINES[number % len(_LINES)],
                "marker": _MARKERS[len(found) % len(_MARKERS)],
                "markerfacecolor": "white" if cost.dump else palette[number % len(palette)],
                "label": f"dump: {cost.how}" if cost.dump else cost.how,
            }
    return found


def _lines(
    axes: Axes,
    comparison: Comparison,
    state: str,
    value: Value,
    styles: dict[str, dict[str, object]],
) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    sizes: set[float] = set()
    for how, style in styles.items():
        points = [
            (size, sorted(found))
            for (kind, size, name), costs in comparison.groups().items()
            if kind == state and name == how
            if (found := [v for v in map(value, costs) if v is not None])
        ]
        if not points:
            continue
        places = [size for size, _ in points]
        middles = [median(found) for _, found in points]
        below = [m - found[0] for m, (_, found) in zip(middles, points, strict=True)]
        above = [found[-1] - m for m, (_, found) in zip(middles, points, strict=True)]
        axes.errorbar(
            places,
            middles,
            yerr=[below, above],
            markersize=4.5,
            linewidth=1.2,
            elinewidth=0.8,
            **style,  # type: ignore[arg-type]
        )
        sizes.update(places)
    axes.set_xscale("log")
    axes.set_yscale("log")
    # Plain numbers: those of the sizes that were measured.
    plain = FuncFormatter(lambda number, _: f"{number:g}")
    if sizes:  # a single size would have an axis of no length
        axes.set_xlim(min(sizes) / 1.3, max(sizes) * 1.3)
    axes.set_xticks(sorted(sizes))
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="major", linewidth=0.3)
    axes.tick_params(labelsize=8)
