"""Tables and figures that show themselves in a terminal and in a notebook.

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
from typing import TYPE_CHECKING, Any

from feliss_nb.errors import UsageError

if TYPE_CHECKING:
    import pandas

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


def new_frame(rows: Sequence[Any], columns: Sequence[str]) -> pandas.DataFrame:
    """Make a DataFrame of rows.

    Raises
    ------
    UsageError
        If pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise UsageError("a DataFrame needs pandas: pip install 'feliss_nb[lab]'") from None
    return pandas.DataFrame(rows, columns=list(columns))
