"""Pictures of a run and of measurements, for paper and slide: by matplotlib, as SVG and PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feliss_nb.errors import UsageError
from feliss_nb.lab import gantt
from feliss_nb.lab.history import History
from feliss_nb.runtime.status import human_bytes
from feliss_nb.runtime.table import new_frame
from feliss_nb.runtime.treemap import Picture

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

#: Told apart in grey, too: white lines on some.
HATCHES = {"loading": "////", "lost": "xxxx", "sending": "||||"}
_WORDS = {
    "running": "runs",
    "idle": "has nothing to do",
    "capturing": "is captured",
    "sending": "copies are sent",
    "loading": "stands up",
    "lost": "is lost",
}
_COLUMNS = 2000


def new_figure(width: float, height: float) -> Any:
    """Make a figure that needs no display.

    Raises
    ------
    UsageError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("a picture needs matplotlib: pip install 'feliss_nb[lab]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


class Timeline(Picture):
    """What each rank did, drawn; `data` is what it is drawn of.

    Parameters
    ----------
    history : History
    last : float, optional
        Only so many seconds before the end.
    title : str
        What stands above.
    """

    _what = "time line"

    def __init__(self, history: History, last: float | None = None, title: str = "") -> None:
        if not history.ranks or history.begun is None:
            raise UsageError("there is nothing to draw yet: no rank has run")
        self._history = history
        self._end = max(history.now, history.begun + 1e-3)
        self._begin = history.begun if last is None else max(history.begun, self._end - last)
        super().__init__(_draw(history, self._begin, self._end, title))

    @property
    def data(self) -> pandas.DataFrame:
        """A row for each span: the rank or job, what it did, from when to when, on which engine."""
        rows = []
        groups = (
            ("rank", self._history.spans(self._begin)),
            ("snapshot", self._history.captures(self._begin)),
            ("job", self._history.jobs),
        )
        for what, spans in groups:
            for span in spans:
                if span.end >= self._begin:
                    about = {"what": what, "number": span.row, "kind": span.kind}
                    times = {"begin": span.begin, "end": span.end}
                    rows.append({**about, **times, "engine": span.engine, "text": span.label})
        for mark in self._history.marks:
            if mark.at >= self._begin:
                about = {"what": "mark", "number": -1, "kind": mark.kind}
                times = {"begin": mark.at, "end": mark.at}
                rows.append({**about, **times, "engine": "", "text": mark.text})
        rows.sort(key=lambda row: (row["begin"], row["end"]))
        columns = ["what", "number", "kind", "begin", "end", "engine", "text"]
        return new_frame(rows, columns)


def _draw(history: History, begin: float, end: float, title: str) -> Any:
    ranks = history.ranks
    lanes = gantt.job_lanes(history.jobs, begin, end)
    above = (max((lane for lane, _ in lanes), default=-1) + 1) * 0.42
    figure = new_figure(8.6, 1.75 + 0.34 * len(ranks) + 0.34 * above)
    axes = figure.subplots()
    start = history.begun or 0.0
    scale = (end - begin) / _COLUMNS
    row_of = {rank: index for index, rank in enumerate(ranks)}
    used: dict[str, None] = {}
    lines = (
        (history.spans(begin), 0.58, -0.29),
        (history.captures(begin), 0.16, 0.31),
    )
    for spans, height, top in lines:
        for run in gantt.runs(spans, ranks, begin, end, _COLUMNS):
            used[run.kind] = None
            axes.barh(
                row_of[run.row] + top,
                (run.end - run.begin) * scale,
                left=begin - start + run.begin * scale,
                height=height,
                align="edge",
                **_style(run.kind),
            )
    for span in gantt.hosts(history.spans(begin), begin, end):
        if (span.end - span.begin) > 0.09 * (end - begin):
            left = span.begin - start + 0.006 * (end - begin)
            axes.text(left, row_of[span.row], f"engine {span.engine}", va="center", fontsize=7.5)
    for lane, span in lanes:
        left = max(span.begin, begin) - start
        width = max(min(span.end, end) - start - left, scale)
        y = -0.85 - 0.42 * lane
        axes.barh(y, width, left=left, height=0.34, color="white", edgecolor="#777777", lw=0.8)
        if width > 0.07 * (end - begin):
            room = int(width / (end - begin) * 110)
            text = f"{span.row}: {span.label}"[:room]
            axes.text(left + 0.006 * (end - begin), y, text, va="center", fontsize=6.5)
    top = -0.95 - 0.42 * max((lane for lane, _ in lanes), default=0)
    _marks(axes, history, begin, end, start, row_of, top)
    axes.set_yticks(range(len(ranks)), [f"rank {rank}" for rank in ranks], fontsize=9)
    axes.set_ylim(len(ranks) - 0.45, top - 0.5)  # rank 0 on top, and room for jobs and marks
    axes.set_xlim(begin - start, end - start)
    axes.set_xlabel("seconds since the ranks started", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, fontsize=10, loc="left")
    order = [kind for kind in _WORDS if kind in used]
    _legend(figure, order, {mark.kind for mark in history.marks if begin <= mark.at <= end})
    return figure


def _style(kind: str) -> dict[str, Any]:
    style: dict[str, Any] = {"facecolor": gantt.COLOURS[kind], "linewidth": 0}
    if kind == "idle":
        style |= {"edgecolor": "#BBBBBB", "linewidth": 0.6}
    if kind in HATCHES:
        style |= {"hatch": HATCHES[kind], "edgecolor": "white"}
    return style


_LINES: dict[str, Any] = {"checkpoint": "--", "recovered": ":", "fault": (0, (1, 5))}


def _marks(
    axes: Axes,
    history: History,
    begin: float,
    end: float,
    start: float,
    row_of: dict[int, int],
    top: float,
) -> None:
    free = begin - start
    commits = {f"checkpoint {each.checkpoint}": each for each in history.commits}
    for mark in sorted(history.marks, key=lambda mark: mark.at):
        if not begin <= mark.at <= end:
            continue
        at = mark.at - start
        if mark.kind == "loss":
            for rank in mark.ranks:
                axes.plot([at], [row_of[rank]], "X", color="black", mec="white", ms=10, zorder=5)
        else:
            style: Any = _LINES[mark.kind]
            axes.vlines(at, top - 0.2, len(row_of) - 0.45, "black", style, linewidth=1)
        text = mark.text
        commit = commits.get(mark.text)
        if commit is not None:
            text += f": {human_bytes(commit.bytes)}"
        width = len(text) * 0.0082 * (end - begin)
        left = min(max(at - width / 2, begin - start), end - start - width)
        if left >= free:
            axes.text(left, top - 0.3, text, fontsize=7.5, va="bottom")
            free = left + width * 1.04


def _legend(figure: Any, kinds: list[str], marks: set[str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(label=_WORDS[kind], **_style(kind)) for kind in kinds]
    words = {"checkpoint": "checkpoint", "recovered": "all run again", "fault": "fault"}
    for kind, word in words.items():
        if kind in marks:
            style: Any = _LINES[kind]
            handles.append(Line2D([], [], color="black", lw=1, linestyle=style, label=word))
    if "loss" in marks:
        line = Line2D([], [], marker="X", ls="", color="black", mec="white", ms=9)
        line.set_label("engine lost")
        handles.append(line)
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=5,
        fontsize=8,
        frameon=False,
        handleheight=1,
    )
