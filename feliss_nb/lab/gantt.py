"""The time line of a session's ranks, as an SVG text: cheap enough to be drawn four times a second.

Pure. `runs` is what the picture of matplotlib (`lab.figures`) is drawn of, too.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from feliss_nb.lab.history import KINDS, Commit, History, Span
from feliss_nb.runtime.status import human_bytes

#: Okabe and Ito's palette: told apart by the colour-blind. In grey some are alike, so each kind
#: but two has a pattern or a height of its own.
COLOURS = {
    "idle": "#F2F2F2",
    "running": "#56B4E9",
    "loading": "#E69F00",
    "lost": "#D55E00",
    "capturing": "#0072B2",
    "sending": "#CC79A7",
}
#: What is drawn over what.
_ORDER = ("idle", "running", "loading", "lost", "capturing", "sending")

_WIDTH, _LEFT, _RIGHT = 900, 64, 10
_TOP, _ROW, _BAR, _STRIP, _JOB, _FOOT = 20, 30, 17, 5, 13, 42
_JOB_LANES = 3


@dataclass(frozen=True, slots=True)
class Run:
    """Equal columns of a row, put together.

    Attributes
    ----------
    row : int
        The rank.
    kind : str
        What it did.
    begin, end : float
        In columns.
    """

    row: int
    kind: str
    begin: int
    end: int


def runs(
    spans: Iterable[Span], ranks: Iterable[int], begin: float, end: float, columns: int
) -> list[Run]:
    """Paint spans into columns of time, so that no number of them makes a picture large.

    A span is at least one column wide; what matters most wins.

    Parameters
    ----------
    spans : iterable of Span
        In any order.
    ranks : iterable of int
        The rows.
    begin, end : float
        The time that is shown, in seconds.
    columns : int
        How many.
    """
    scale = columns / max(end - begin, 1e-9)
    lines = {rank: bytearray(columns) for rank in ranks}
    sorted_ = sorted(spans, key=lambda span: _ORDER.index(span.kind))
    for span in sorted_:
        line = lines.get(span.row)
        if line is None or span.begin > end or span.end <= begin != span.begin:
            continue
        first = min(max(int((span.begin - begin) * scale), 0), columns - 1)
        last = min(max(math.ceil((span.end - begin) * scale), first + 1), columns)
        line[first:last] = bytes([_ORDER.index(span.kind) + 1]) * (last - first)
    found = []
    for rank, line in lines.items():
        at = 0
        for code, group in itertools.groupby(line):
            length = len(list(group))
            if code:
                found.append(Run(rank, _ORDER[code - 1], at, at + length))
            at += length
    return found


def hosts(spans: Iterable[Span], begin: float, end: float) -> list[Span]:
    """Give for each rank on which engine it ran, and when."""
    found: dict[int, Span] = {}
    done: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.row, span.begin)):
        if span.kind in ("lost", "loading") or span.end <= begin or span.begin >= end:
            continue
        before = found.get(span.row)
        start = max(span.begin, begin)
        if before is not None and before.engine == span.engine and start - before.end < 1e-6:
            start = before.begin
        elif before is not None:
            done.append(before)
        found[span.row] = Span(span.row, "host", start, min(span.end, end), span.engine)
    return [*done, *found.values()]


def job_lanes(jobs: Iterable[Span], begin: float, end: float) -> list[tuple[int, Span]]:
    """Lay jobs on lanes so that none covers another; where there is no room, the oldest go."""
    lanes: list[float] = []
    found = []
    for span in jobs:
        if span.end < begin or span.begin > end:
            continue
        lane = next((n for n, busy in enumerate(lanes) if busy <= span.begin), len(lanes))
        lanes[lane:] = [span.end] if lane >= len(lanes) else [span.end, *lanes[lane + 1 :]]
        found.append((lane, span))
    return [(lane, span) for lane, span in found if lane < _JOB_LANES]


_PATTERNS = (
    '<defs><pattern id="feliss-loading" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" fill="#E69F00"/>'
    '<rect width="2" height="6" fill="#fff"/></pattern>'
    '<pattern id="feliss-lost" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<rect width="6" height="6" fill="#D55E00"/>'
    '<path d="M0 0L6 6M6 0L0 6" stroke="#fff" stroke-width="1.2"/></pattern>'
    '<pattern id="feliss-sending" width="4" height="4" patternUnits="userSpaceOnUse">'
    '<rect width="4" height="4" fill="#CC79A7"/><rect width="2" height="4" fill="#fff"/>'
    "</pattern></defs>"
)
_PATTERNED = ("loading", "lost", "sending")


def _fill(kind: str) -> str:
    return f"url(#feliss-{kind})" if kind in _PATTERNED else COLOURS[kind]


def svg(history: History, begin: float, end: float) -> str:
    """Draw the time line.

    Parameters
    ----------
    history : History
    begin, end : float
        What is shown, in seconds since the session began.

    Returns
    -------
    str
        An ``<svg>`` element, on white.
    """
    ranks = history.ranks
    end = max(end, begin + 1.0)
    inner = _WIDTH - _LEFT - _RIGHT
    scale = inner / (end - begin)
    lanes = job_lanes(history.jobs, begin, end)
    jobs_height = (max((lane for lane, _ in lanes), default=-1) + 1) * _JOB
    top = _TOP + jobs_height
    height = top + len(ranks) * _ROW + _FOOT
    spans, captures = history.spans(begin), history.captures(begin)
    row_of = {rank: index for index, rank in enumerate(ranks)}

    def x(at: float) -> float:
        return _LEFT + (min(max(at, begin), end) - begin) * scale

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="100%" class="feliss-timeline" role="img" '
        f'style="background:#fff;font:11px sans-serif;max-width:{_WIDTH * 1.3:.0f}px">',
        _PATTERNS,
    ]
    for lane, span in lanes:
        parts.append(_job(span, x(span.begin), x(span.end), _TOP + lane * _JOB))
    for rank in ranks:
        y = top + row_of[rank] * _ROW
        parts.append(_text(_LEFT - 6, y + 13, f"rank {rank}", anchor="end"))
    for run in runs(spans, ranks, begin, end, inner):
        y = top + row_of[run.row] * _ROW
        parts.append(_box(run, y, _BAR))
    for run in runs(captures, ranks, begin, end, inner):
        y = top + row_of[run.row] * _ROW + _BAR
        parts.append(_box(run, y, _STRIP))
    for span in hosts(spans, begin, end):
        left, right = x(span.begin), x(span.end)
        if right - left > 52:
            y = top + row_of[span.row] * _ROW + 13
            parts.append(_text(left + 4, y, f"engine {span.engine}"))
    bottom = top + len(ranks) * _ROW
    parts += _marks(history, begin, end, x, row_of, top, bottom)
    parts += _axis(begin, end, x, bottom)
    parts += _legend(bottom + 34)
    return "".join([*parts, "</svg>"])


def _box(run: Run, y: int, height: int) -> str:
    return (
        f'<rect x="{_LEFT + run.begin}" y="{y}" width="{run.end - run.begin}" height="{height}" '
        f'fill="{_fill(run.kind)}"><title>rank {run.row} {KINDS[run.kind]}</title></rect>'
    )


def _job(span: Span, left: float, right: float, y: int) -> str:
    width = max(right - left, 1.0)
    dash = ' stroke-dasharray="3 2"' if span.kind == "running" else ""
    fill = "#F0E442" if span.kind in ("failed", "cancelled") else "#fff"
    label = html.escape(f"{span.label} ({span.kind})")
    box = (
        f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{_JOB - 2}" fill="{fill}" '
        f'stroke="#777" stroke-width="0.8"{dash}><title>job {span.row}: {label}</title></rect>'
    )
    room = int((width - 6) / 5.6)
    text = f"{span.row}: {span.label}"
    text = text if len(text) <= room else f"{text[: room - 1]}…" if room > 4 else ""
    return box + (_text(left + 3, y + 9, text, size=9) if text else "")


def _text(
    x: float, y: float, text: str, anchor: str = "start", size: int = 11, colour: str = "#000"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{colour}">{html.escape(text)}</text>'
    )


def _marks(
    history: History,
    begin: float,
    end: float,
    x: Callable[[float], float],
    row_of: dict[int, int],
    top: int,
    bottom: int,
) -> list[str]:
    found = []
    free = 0.0  # where the last text above has ended
    for mark in sorted(history.marks, key=lambda mark: mark.at):
        if not begin <= mark.at <= end:
            continue
        at = x(mark.at)
        title = f"<title>{html.escape(mark.text)} at {mark.at:.2f} s</title>"
        if mark.kind == "loss":
            for rank in mark.ranks:
                y = top + row_of.get(rank, 0) * _ROW + _BAR / 2
                found.append(
                    f'<path class="feliss-mark-loss" d="M{at - 5:.1f} {y - 5}l10 10m0 -10l-10 10" '
                    f'stroke="#000" stroke-width="2.4">{title}</path>'
                )
            continue
        dash = {"checkpoint": "5 3", "recovered": "1 2", "fault": "1 4"}[mark.kind]
        found.append(
            f'<path class="feliss-mark-{mark.kind}" d="M{at:.1f} {_TOP - 4}V{bottom - 4}" '
            f'stroke="#000" stroke-width="1.2" stroke-dasharray="{dash}">{title}</path>'
        )
        width = 5.2 * len(mark.text)
        if at - width / 2 > free:
            left = min(max(at - width / 2, 2), _WIDTH - width - 2)
            found.append(_text(left, _TOP - 8, mark.text, size=10))
            free = left + width + 6
    return found


def _axis(begin: float, end: float, x: Callable[[float], float], bottom: int) -> list[str]:
    step = tick(end - begin)
    found = [f'<path d="M{_LEFT} {bottom}H{_WIDTH - _RIGHT}" stroke="#777"/>']
    at = math.ceil(begin / step) * step
    while at <= end:
        found.append(f'<path d="M{x(at):.1f} {bottom}v4" stroke="#777"/>')
        found.append(_text(x(at), bottom + 15, f"{at:g} s", anchor="middle", size=10))
        at += step
    return found


def tick(seconds: float) -> float:
    """Give the distance of an axis's ticks: 1, 2 or 5 of a power of ten."""
    rough = max(seconds, 1e-3) / 8
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)


def _legend(y: int) -> list[str]:
    found, at = [], float(_LEFT)
    words = {
        "running": "runs",
        "idle": "idle",
        "capturing": "captured",
        "sending": "copies sent",
        "loading": "stands up",
        "lost": "lost",
    }
    for kind, word in words.items():
        found.append(
            f'<rect x="{at:.0f}" y="{y - 9}" width="14" height="10" fill="{_fill(kind)}" '
            'stroke="#777" stroke-width="0.6"/>'
        )
        found.append(_text(at + 18, y, word, size=10))
        at += 32 + 5.6 * len(word)
    for dash, word in (("5 3", "checkpoint"), ("1 2", "all run again")):
        found.append(
            f'<path d="M{at + 7:.0f} {y - 10}v12" stroke="#000" stroke-width="1.2" '
            f'stroke-dasharray="{dash}"/>'
        )
        found.append(_text(at + 14, y, word, size=10))
        at += 28 + 5.6 * len(word)
    found.append(f'<path d="M{at:.0f} {y - 9}l9 9m0 -9l-9 9" stroke="#000" stroke-width="2.2"/>')
    found.append(_text(at + 14, y, "engine lost", size=10))
    return found


def sizes_svg(commits: Sequence[Commit], most: int = 40) -> str:
    """Draw the sizes of the last checkpoints: what was written is dark, the rest is light.

    Parameters
    ----------
    commits : sequence of Commit
    most : int
        How many are shown.

    Returns
    -------
    str
        An ``<svg>`` element, on white.
    """
    shown = commits[-most:]
    height, base, wide = 110, 84, 20
    width = max(_LEFT + wide * len(shown) + 10, 300)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" class="feliss-sizes" role="img" '
        'style="background:#fff;font:10px sans-serif">'
    ]
    if not shown:
        parts.append(_text(8, 40, "no checkpoint yet"))
        return "".join([*parts, "</svg>"])
    largest = max(max(each.bytes for each in shown), 1)
    parts.append(_text(_LEFT - 6, base - 56, human_bytes(largest), "end", 10))
    parts.append(_text(_LEFT - 6, base, "0", "end", 10))
    parts.append(f'<path d="M{_LEFT} {base}H{width - 8}M{_LEFT} {base - 60}h-3" stroke="#777"/>')
    step = max(len(shown) // 10, 1)
    for index, each in enumerate(shown):
        at = _LEFT + 4 + index * wide
        whole, written = (60 * size / largest for size in (each.bytes, each.written))
        title = (
            f"checkpoint {each.checkpoint}: {human_bytes(each.bytes)}, "
            f"{human_bytes(each.written)} written, paused {each.pause * 1e3:.0f} ms"
        )
        parts.append(
            f'<g class="feliss-size"><title>{title}</title>'
            f'<rect x="{at}" y="{base - whole:.1f}" width="{wide - 6}" height="{whole:.1f}" '
            'fill="#fff" stroke="#0072B2"/>'
            f'<rect x="{at}" y="{base - written:.1f}" width="{wide - 6}" height="{written:.1f}" '
            'fill="#0072B2"/></g>'
        )
        if index % step == 0:
            parts.append(_text(at + 7, base + 12, str(each.checkpoint), "middle", 10))
    parts.append(_text(_LEFT, base + 24, "checkpoint; filled: what its captures wrote", size=10))
    return "".join([*parts, "</svg>"])
