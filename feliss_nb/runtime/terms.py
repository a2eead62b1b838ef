"""Where engines find their master: another one has another term, and so another socket.

It stands in a file of the session's private directory. Whoever listens to one term does not hear
the one before: a master whose place was taken speaks to nobody.
"""

from __future__ import annotations

import os
from pathlib import Path

FIRST = 1

_TERM = "term"


def read(directory: Path) -> int:
    """Return the term of the master of now."""
    try:
        return int((directory / _TERM).read_text())
    except FileNotFoundError:  # of most sessions there is one only
        return FIRST


def write(directory: Path, term: int) -> None:
    """Let engines turn to the master of a term."""
    staged = directory / f".{_TERM}"
    staged.write_text(str(term))
    os.replace(staged, directory / _TERM)


def name(term: int) -> str:
    """Return the name of the socket at which the master of a term listens."""
    return f"master-{term}"
