"""A picture of a run in a file: what each rank did, on which engine, and where it went back."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from feliss_nb.errors import UsageError
from feliss_nb.lab.figures import Timeline
from feliss_nb.lab.history import History
from feliss_nb.runtime import Event


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
    Timeline(History(events), title=title).save(path)


def check_picture(path: str | Path) -> None:
    """Raise UsageError if no picture can be drawn into a file, before any work is done."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("a picture needs matplotlib: pip install 'feliss_nb[lab]'")
    if Path(path).suffix not in (".svg", ".png"):
        raise UsageError(f"a picture is an .svg or a .png file, not {str(path)!r}")
    if not Path(path).resolve().parent.is_dir():
        raise UsageError(f"the folder of {str(path)!r} does not exist: make it first")
