"""Split a line into words on whitespace outside brackets and quotes.

So ``%feliss map (lambda x: x + 1) range(10) --out d`` has four words behind ``map``.
"""

from __future__ import annotations

from feliss_nb.errors import UsageError

_CLOSING = {"(": ")", "[": "]", "{": "}"}


def split(line: str) -> list[str]:
    """Split a line on whitespace outside brackets and quotes.

    Parameters
    ----------
    line : str
        What stands behind the magic's name. A word that begins with ``#`` starts a comment.

    Returns
    -------
    list of str
        The words, as they were written.

    Raises
    ------
    UsageError
        When a bracket or a quote has no partner.
    """
    words, open_end = split_open(line)
    if open_end:
        raise UsageError(open_end)
    return words


def split_open(line: str) -> tuple[list[str], str]:
    """Split a line that may not be finished, as completion sees it.

    Parameters
    ----------
    line : str
        The line, up to the cursor.

    Returns
    -------
    words : list of str
        The words; the last may be incomplete.
    problem : str
        What has no partner, or empty.
    """
    words: list[str] = []
    brackets: list[str] = []
    start: int | None = None  # of the word at hand
    at = 0
    while at < len(line):
        char = line[at]
        if char.isspace() and not brackets:
            if start is not None:
                words.append(line[start:at])
            start = None
        elif char == "#" and start is None:
            return words, ""
        else:
            start = at if start is None else start
            if char in "'\"":
                end = _end_of_quote(line, at)
                if end is None:
                    words.append(line[start:])
                    return words, f"the quote {char} is never closed: {line[at:]}"
                at = end
                continue
            if char in _CLOSING:
                brackets.append(char)
            elif char in _CLOSING.values() and (not brackets or _CLOSING[brackets.pop()] != char):
                return [*words, line[start:]], f"{char!r} closes nothing: {line[start : at + 1]}"
        at += 1
    if start is not None:
        words.append(line[start:])
    if brackets and start is not None:
        return words, f"{brackets[-1]!r} is never closed: {line[start:]}"
    return words, ""


def _end_of_quote(line: str, at: int) -> int | None:
    """Index behind the string literal that begins at `at`, or none if it does not end."""
    quote = line[at : at + 3] if line[at : at + 3] in ("'''", '"""') else line[at]
    at += len(quote)
    while at < len(line):
        if line[at] == "\\":
            at += 2  # in a raw string too, a backslash keeps a quote from closing it
        elif line.startswith(quote, at):
            return at + len(quote)
        else:
            at += 1
    return None
