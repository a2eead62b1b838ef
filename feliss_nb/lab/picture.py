"""A picture of a run: what each rank did, on which engine, and where it went back."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feliss_nb.errors import UsageError
from feliss_nb.runtime import Event

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette: told apart by the colour-blind, and in grey by their lightness.
_RUNS, _LOST, _STANDS, _CUT = "#56B4E9", "#D55E00", "#E69F00", "#000000"


def draw(events: Iterable[Event], path: str | Path, title: str) -> None:
    """Draw the ranks' time line into an SVG or PNG file.

    Parameters
    ----------
    events : iterable of Event
        A session's event log.
    path : path
        Where; its ending says in which format.
    title : str
        What stands above.

    Raises
    ------
    UsageError
        As `check_picture` does.
    """
    check_picture(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _draw(axes, list(events))
    axes.set_title(title, fontsize=10, loc="left")
    figure.savefig(path, dpi=120)


def check_picture(path: str | Path) -> None:
    """Raise UsageError if no picture can be drawn into a file, before any work is done."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("a picture needs matplotlib: pip install 'feliss_nb[lab]'")
    if Path(path).suffix not in (".svg", ".png"):
        raise UsageError(f"a picture is an .svg or a .png file, not {str(path)!r}")
    if not Path(path).resolve().parent.is_dir():
        raise UsageError(f"the folder of {str(path)!r} does not exist: make it first")


def _draw(axes: Axes, events: list[Event]) -> None:
    begun = next((e.at for e in events if e.kind == "started"), 0.0)
    end = events[-1].at - begun
    hosts: dict[int, str] = {}
    since: dict[int, float] = {}
    for event in events:
        at = event.at - begun
        if event.kind == "recovering":
            hosts.update(event.data["routes"])
            since = dict.fromkeys(hosts, at) if at <= 0 else since
        elif event.kind == "engine-lost":
            for rank in hosts:
                _bar(axes, rank, since[rank], at, hosts[rank], _RUNS)
            since = dict.fromkeys(hosts, at)
        elif event.kind in ("recovered", "started"):
            for rank in hosts:
                if event.kind == "recovered":
                    _bar(axes, rank, since[rank], at, "", _STANDS)
                since[rank] = at
        _mark(axes, event, at)
    for rank in hosts:
        _bar(axes, rank, since[rank], end, hosts[rank], _RUNS)
    axes.set_yticks(sorted(hosts), [f"rank {rank}" for rank in sorted(hosts)])
    axes.set_ylim(len(hosts) - 0.6, -0.9)  # rank 0 on top, and room for the marks' words
    axes.set_xlim(0, end)
    axes.set_xlabel("seconds since the ranks started", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    handles = [_patch(_RUNS, "runs"), _patch(_STANDS, "stands up from the checkpoint")]
    axes.legend(handles=handles, loc="upper right", bbox_to_anchor=(1, -0.14), ncols=2, fontsize=8)


def _bar(axes: Axes, rank: int, start: float, stop: float, host: str, colour: str) -> None:
    axes.barh(rank, stop - start, left=start, height=0.6, color=colour, edgecolor="white")
    if host:
        text = f"engine {host}"
        axes.text((start + stop) / 2, rank, text, ha="center", va="center", fontsize=8)


def _mark(axes: Axes, event: Event, at: float) -> None:
    above: dict[str, Any] = {"va": "top", "fontsize": 8}
    if event.kind == "committed":
        axes.axvline(at, color=_CUT, linestyle="--", linewidth=1)
        megabytes = event.data["bytes"] / 1e6
        text = f"checkpoint {event.data['checkpoint']}: {megabytes:.1f} MB  "
        axes.text(at, -0.85, text, ha="right", **above)
    elif event.kind == "engine-lost":
        for rank in event.data["ranks"]:
            axes.plot([at], [rank], marker="X", markersize=12, color=_LOST, zorder=5)
            axes.text(at, -0.85, " SIGKILL", ha="left", color=_LOST, **above)


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)
