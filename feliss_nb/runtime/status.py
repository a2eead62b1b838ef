"""What a session tells of itself: plain data that shows itself in a terminal and in a notebook.

Standard library only, so that whoever holds these classes (a report, a test) needs neither IPython
nor ipyparallel. Names in them are the user's: everything is escaped in HTML, and a control
character never reaches the terminal.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

#: A longer cell is cut in a terminal, except in the last column, which pushes nothing aside.
WIDEST_CELL = 60

_NUMBER = re.compile(r"-?\d[\d.]*(e[+-]?\d+)?( [^\s\d]+)?")


def human_bytes(count: float) -> str:
    """Write a size with a decimal unit (``12.3 MB``).

    Parameters
    ----------
    count : float
        Bytes.

    Returns
    -------
    str
        Three digits and a unit.
    """
    if count < 1000:
        return f"{count:.0f} B"
    value, units = count / 1000, ["kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.{0 if value >= 99.95 else 1}f} {units[0]}"


def human_seconds(seconds: float) -> str:
    """Write a duration with the unit that suits it (``45 ms``, ``3.2 s``, ``2 min 5 s``).

    Parameters
    ----------
    seconds : float
        Seconds, not negative.

    Returns
    -------
    str
        The duration.
    """
    if seconds < 0.0095:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 99.5:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def printable(value: object) -> str:
    """Give the text of a cell: one line, no control characters, a float's first four digits.

    Parameters
    ----------
    value : object
        ``None`` is a dash; a tuple or list is joined with commas.

    Returns
    -------
    str
        One line.
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (tuple, list)):
        return ", ".join(printable(item) for item in value) or "-"
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in str(value)
    )


def _width(text: str) -> int:
    """Columns of a terminal that `text` takes: two for a wide character, none for a mark."""
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST_CELL else text[: WIDEST_CELL - 1] + "…"


@dataclass(frozen=True, repr=False)
class Table:
    """A table that prints itself aligned, and as escaped HTML in a notebook.

    Attributes
    ----------
    title : str
        Stands above it.
    columns : tuple of str
        Their names; all empty for a table of facts, which has no head.
    rows : tuple of tuple
        One value a column; see `printable` for what each looks like.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __post_init__(self) -> None:
        rows = tuple(tuple(row) for row in self.rows)
        for row in rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{len(row)} cells for {len(self.columns)} columns: {row!r}")
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "rows", rows)

    def _right(self, cells: list[list[str]]) -> list[bool]:
        """Which columns stand to the right: those of numbers, with or without a unit."""
        result = []
        for index in range(len(self.columns)):
            values = [row[index] for row in cells if row[index] not in ("", "-")]
            result.append(bool(values) and all(_NUMBER.fullmatch(value) for value in values))
        return result

    def __repr__(self) -> str:
        texts = [[printable(value) for value in row] for row in self.rows]
        cells = [[*map(_cut, row[:-1]), *row[-1:]] for row in texts]
        right = self._right(cells)
        head = [list(self.columns)] if any(self.columns) else []
        widths = [max(map(_width, column)) for column in zip(*head, *cells, strict=True)]
        lines = [printable(self.title)] if self.title else []
        for row in head + cells:
            padded = []
            for text, width, to_right in zip(row, widths, right, strict=True):
                space = " " * (width - _width(text))
                padded.append(space + text if to_right else text + space)
            lines.append("  ".join(padded).rstrip())
        return "\n".join(lines if cells else [*lines, "(none)"])

    def _repr_html_(self) -> str:
        cells = [[printable(value) for value in row] for row in self.rows]
        styles = ["right" if right else "left" for right in self._right(cells)]

        def line(tag: str, texts: Iterable[str]) -> str:
            inner = "".join(
                f'<{tag} style="text-align:{style}">{html.escape(text)}</{tag}>'
                for text, style in zip(texts, styles, strict=True)
            )
            return f"<tr>{inner}</tr>"

        caption = ""
        if self.title:
            style = "caption-side:top;text-align:left;font-weight:bold"
            caption = f'<caption style="{style}">{html.escape(printable(self.title))}</caption>'
        head = f"<thead>{line('th', self.columns)}</thead>" if any(self.columns) else ""
        body = "".join(line("td", row) for row in cells)
        if not cells:
            body = f'<tr><td colspan="{max(len(self.columns), 1)}">(none)</td></tr>'
        return f"<table>{caption}{head}<tbody>{body}</tbody></table>"


@dataclass(frozen=True)
class EngineStatus:
    """An engine at one moment.

    Attributes
    ----------
    engine : int
        Its ipyparallel id.
    pid : int
        Its process.
    role : str
        ``worker`` hosts ranks, ``spare`` hosts none yet, ``dead`` is fenced or gone.
    ranks : tuple of int
        The ranks that it hosts.
    copies_of : tuple of int
        The ranks of whose snapshots it keeps a copy.
    own_bytes, copy_bytes : int
        Memory of the snapshots of its own ranks, and of the copies that it keeps for others.
    """

    engine: int
    pid: int
    role: Literal["worker", "spare", "dead"]
    ranks: tuple[int, ...]
    copies_of: tuple[int, ...]
    own_bytes: int
    copy_bytes: int


@dataclass(frozen=True)
class RankStatus:
    """A rank at one moment.

    Attributes
    ----------
    rank : int
        Which one.
    engine : int or None
        The engine that hosts it; none while it is being recovered.
    state : str
        What it does.
    pool : int
        Continuations that it has still to run.
    job : str
        Label of the job it works on, or empty.
    """

    rank: int
    engine: int | None
    state: str
    pool: int
    job: str = ""


@dataclass(frozen=True)
class JobStatus:
    """A job at one moment.

    Attributes
    ----------
    id : int
        Its number in the session's log.
    label : str
        What the user calls it.
    state : str
        ``held``, ``running``, ``done``, ``failed`` or ``cancelled``.
    done, total : int
        Units of work behind it and in all; a total of zero or none is not known yet.
    unit : str
        What is counted.
    """

    id: int
    label: str
    state: str
    done: int = 0
    total: int | None = None
    unit: str = ""

    @property
    def fraction(self) -> float | None:
        """The part that is done, 0 to 1, or none where the total is not known."""
        return min(max(self.done / self.total, 0.0), 1.0) if self.total else None

    @property
    def progress(self) -> str:
        """The progress in words: ``120/400 files (30 %)``."""
        unit = f" {self.unit}" if self.unit else ""
        if self.fraction is not None:
            # Rounded down: 100 % is said of what is complete, and of nothing else.
            return f"{self.done}/{self.total}{unit} ({int(self.fraction * 100)} %)"
        return f"{self.done}{unit}" if self.done else ""


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """A committed checkpoint.

    Attributes
    ----------
    id, epoch : int
        Counts the checkpoints of the session; the epoch it was taken in.
    bytes : int
        The snapshots of all ranks, each counted once.
    seconds : float
        From the request to the commit.
    pause : float
        The longest time, in seconds, that a rank did not run for it.
    at : float
        When it was committed.
    written : int or None
        Bytes that the captures wrote, if these are not the snapshots whole (None): less with an
        incremental or compressed capture.
    """

    id: int
    epoch: int
    bytes: int
    seconds: float
    pause: float
    at: float
    written: int | None = None

    def __str__(self) -> str:
        part = ""
        if self.written is not None and self.written < self.bytes:
            part = f" ({human_bytes(self.written)} written)"
        return (
            f"checkpoint {self.id}: {human_bytes(self.bytes)}{part} in "
            f"{human_seconds(self.seconds)}, ranks paused {human_seconds(self.pause)}"
        )

    def __repr__(self) -> str:
        return f"<{self}, epoch {self.epoch}>"

    def _repr_html_(self) -> str:
        columns = ("checkpoint", "epoch", "size", "time", "pause")
        figures = human_bytes(self.bytes), human_seconds(self.seconds), human_seconds(self.pause)
        return Table("", columns, [(self.id, self.epoch, *figures)])._repr_html_()


@dataclass(frozen=True, repr=False)
class Status:
    """A session at one moment.

    Attributes
    ----------
    session : str
        Its name.
    state : str
        What it does.
    epoch : int
        Incarnation of its ranks.
    copies : int
        Copies asked for of each snapshot, besides the owner's own.
    protected : bool
        Every snapshot has them; false while copies that a loss destroyed are being made anew.
    engines, ranks, jobs : tuple
        Their parts.
    checkpoint : Checkpoint or None
        The last committed.
    memory_own, memory_copies : int
        Bytes that the checkpoints take on all engines: the ranks' own snapshots, and the copies.
    messages : tuple of str
        What the user should know, oldest first.
    carrier : str
        What carries the messages of SPMD programs: ``MPI``, or ``sockets`` and why.
    """

    session: str
    state: str
    epoch: int
    copies: int
    protected: bool
    engines: tuple[EngineStatus, ...]
    ranks: tuple[RankStatus, ...]
    jobs: tuple[JobStatus, ...]
    checkpoint: Checkpoint | None = None
    memory_own: int = 0
    memory_copies: int = 0
    messages: tuple[str, ...] = ()
    carrier: str = "sockets"

    def tables(self) -> tuple[Table, ...]:
        """Give the tables that a status is shown as.

        Returns
        -------
        tuple of Table
            The facts of the session, then its engines, ranks and jobs, then what it has to say.
        """
        size = human_bytes
        facts = [
            ("state", self.state),
            ("epoch", str(self.epoch)),
            ("copies", self._copies()),
            (
                "memory",
                f"{size(self.memory_own)} of snapshots, {size(self.memory_copies)} of copies",
            ),
            ("last", str(self.checkpoint) if self.checkpoint else "no checkpoint yet"),
        ]
        if self.carrier != "sockets":  # then there is no MPI
            facts.append(("carrier", self.carrier))
        engines = [
            (e.engine, e.pid, e.role, e.ranks, e.copies_of, size(e.own_bytes), size(e.copy_bytes))
            for e in self.engines
        ]
        ranks = [(r.rank, r.engine, r.state, r.pool, r.job) for r in self.ranks]
        jobs = [(j.id, j.label, j.state, j.progress) for j in self.jobs]
        columns = ("engine", "pid", "role", "ranks", "copies of", "snapshots", "copies")
        tables = [
            Table(f"session {self.session}", ("", ""), facts),
            Table("engines", columns, engines),
            Table("ranks", ("rank", "engine", "state", "pool", "job"), ranks),
            Table("jobs", ("job", "label", "state", "progress"), jobs),
        ]
        if self.messages:
            tables.append(Table("messages", ("",), [(message,) for message in self.messages]))
        return tuple(tables)

    def _copies(self) -> str:
        if not self.copies:
            return "0: a rank whose engine dies is lost"
        if self.checkpoint is None:
            return f"{self.copies} of each snapshot, from the first checkpoint on"
        return f"{self.copies}, " + ("all in place" if self.protected else "being made anew")

    def __repr__(self) -> str:
        return "\n\n".join(repr(table) for table in self.tables())

    def _repr_html_(self) -> str:
        return f"<div>{''.join(table._repr_html_() for table in self.tables())}</div>"
