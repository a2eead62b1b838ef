"""A treemap: the area of each rectangle is a number of bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from feliss_nb.errors import UsageError
from feliss_nb.runtime.table import human_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's palette: told apart by the colour-blind.
_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#F0E442", "#0072B2", "#CC79A7", "#D55E00")
_GREY = "#DDDDDD"
#: Parts of fewer than this share of the area are drawn as one: nobody would see them.
_LEAST = 0.005
_WIDTH, _HEIGHT = 10.0, 4.0

Sizes = Sequence[tuple[str, int]]


class Picture:
    """A figure that shows itself in a notebook, with or without ``%matplotlib``.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
    """

    _what = "picture"

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, in the format of the file's ending."""
        self.figure.savefig(path, dpi=120)

    def __repr__(self) -> str:
        # The same in every run: notebooks that are compared have it as their text.
        return f"<{self._what}: .save('name.svg') writes it, .figure is matplotlib's>"

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=96)
        return file.getvalue()


def treemap(title: str, inside: Sizes, besides: Sizes) -> Picture:
    """Draw what a checkpoint holds in colours, and in grey what a dump would save besides.

    Parameters
    ----------
    title : str
        Stands above; wrapped.
    inside, besides : sequence of (str, int)
        Names and bytes.

    Returns
    -------
    Picture
        Two maps: the checkpoint's alone, and both at the same scale.

    Raises
    ------
    UsageError
        If matplotlib or squarify is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("a treemap needs matplotlib: pip install 'feliss_nb[lab]'") from None

    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    colours = [_COLOURS[index % len(_COLOURS)] for index in range(len(inside))]
    parts = list(zip(inside, colours, strict=True))
    _fill(left, parts)
    left.set_title("the checkpoint", fontsize=9, loc="left")
    _fill(right, parts + [(each, _GREY) for each in besides])
    right.set_title("in grey: what a dump would save besides", fontsize=9, loc="left")
    figure.suptitle(title, fontsize=9, x=0.01, ha="left", wrap=True)
    return Picture(figure)


def _fill(axes: Axes, parts: Sequence[tuple[tuple[str, int], str]]) -> None:
    try:
        import squarify
    except ImportError:
        raise UsageError("a treemap needs squarify: pip install 'feliss_nb[lab]'") from None

    whole = sum(size for (_, size), _ in parts)
    large = [part for part in parts if part[0][1] > _LEAST * whole]
    rest = whole - sum(size for (_, size), _ in large)
    if rest > _LEAST * whole:
        large.append((("the rest", rest), _GREY))
    large.sort(key=lambda part: -part[0][1])  # as squarify wants them
    axes.set_axis_off()
    axes.set_xlim(0, _WIDTH / 2)
    axes.set_ylim(0, _HEIGHT)
    if not large:
        return
    areas = squarify.normalize_sizes([size for (_, size), _ in large], _WIDTH / 2, _HEIGHT)
    boxes = squarify.squarify(areas, 0, 0, _WIDTH / 2, _HEIGHT)
    for ((name, size), colour), box in zip(large, boxes, strict=True):
        x, y, dx, dy = box["x"], box["y"], box["dx"], box["dy"]
        axes.bar(x, dy, dx, y, align="edge", color=colour, edgecolor="white", linewidth=1.5)
        if dx > 0.6 and dy > 0.35:
            text = f"{_fit(name, int(dx * 13))}\n{human_bytes(size)}"
            axes.text(x + dx / 2, y + dy / 2, text, ha="center", va="center", fontsize=8)


def _fit(name: str, room: int) -> str:
    """Cut a name; its kind, which its neighbours have too, goes first."""
    if len(name) > room:
        name = name.partition(" ")[2] or name
    return name if len(name) <= room else f"{name[: max(room - 1, 1)]}…"
