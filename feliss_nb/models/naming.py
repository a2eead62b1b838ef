"""How functions, values and records are called in labels and in errors."""

from __future__ import annotations

import functools
import reprlib
from typing import Any

_LONGEST = 120


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = self.maxfrozenset = 4


_short = _Short()


def shorten(value: Any) -> str:
    """Give a value's repr, short enough for a line, whatever the value's own ``__repr__`` does.

    Parameters
    ----------
    value : object
        Any value.

    Returns
    -------
    str
        One line of at most 120 characters.
    """
    try:
        text = " ".join(_short.repr(value).split())
    except Exception:  # noqa: BLE001 - a repr that fails must not hide what is being reported
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def name_of(f: Any) -> str:
    """Give the name that a user knows a function by.

    Parameters
    ----------
    f : callable
        A function, a partial, a method, or an object with ``__call__``.

    Returns
    -------
    str
        Its qualified name without the function that it was defined in.
    """
    while isinstance(f, functools.partial):
        f = f.func
    name = getattr(f, "__qualname__", None) or type(f).__qualname__
    return str(name).rpartition("<locals>.")[2]
