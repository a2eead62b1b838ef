"""What checkpoints cost, drawn: time and bytes of each capture and each dump."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING

from feliss_nb.errors import UsageError
from feliss_nb.lab.costs import Comparison, Cost
from feliss_nb.runtime.treemap import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, without the colours of the dumps.
_CAPTURES = ("#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#F0E442")
_DUMPS = ("#D55E00", "#E69F00", "#000000")
_MARKERS = "osv^Dx*"

Figure_ = Callable[[Cost], float]
_ROWS: tuple[tuple[str, Figure_], ...] = (
    ("seconds until safe", lambda cost: cost.seconds),
    ("seconds of pause", lambda cost: cost.pause),
    ("MB on the disk", lambda cost: cost.bytes / 1e6),
)


def draw(comparison: Comparison) -> Picture:
    """Draw a column for each kind of state, a row for each figure; dumps are broken lines.

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
    width = max(2.2 * len(states) + 1.8, 6.0)
    figure = Figure(figsize=(width, 7.0), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(_ROWS), len(states), squeeze=False, sharex="col", sharey="row")
    styles = _styles(comparison)
    for column, state in enumerate(states):
        for row, (label, value) in enumerate(_ROWS):
            axes = grid[row][column]
            _lines(axes, comparison, state, value, styles)
            if column == 0:
                axes.set_ylabel(label, fontsize=8)
        grid[0][column].set_title(state, fontsize=8)
        grid[-1][column].set_xlabel("MB of state", fontsize=8)
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=8, frameon=False)
    return Picture(figure)


def _styles(comparison: Comparison) -> dict[str, tuple[str, str, str]]:
    """Give a colour, a line and a marker to each capture and dumper."""
    found: dict[str, tuple[str, str, str]] = {}
    counts = {True: 0, False: 0}
    for cost in comparison.costs:
        if cost.how not in found:
            palette = _DUMPS if cost.dump else _CAPTURES
            number = counts[cost.dump]
            counts[cost.dump] += 1
            line = "--" if cost.dump else "-"
            marker = _MARKERS[len(found) % len(_MARKERS)]
            found[cost.how] = palette[number % len(palette)], line, marker
    return found


def _lines(
    axes: Axes,
    comparison: Comparison,
    state: str,
    value: Figure_,
    styles: dict[str, tuple[str, str, str]],
) -> None:
    for how, (colour, line, marker) in styles.items():
        points = [
            (size, median(map(value, costs)))
            for (kind, size, name), costs in comparison.groups().items()
            if kind == state and name == how
        ]
        is_dump = any(cost.how == how and cost.dump for cost in comparison.costs)
        label = f"dump: {how}" if is_dump else how
        axes.plot(*zip(*points, strict=True), line, marker=marker, ms=4, color=colour, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(True, which="major", linewidth=0.3)
    axes.tick_params(labelsize=7)
