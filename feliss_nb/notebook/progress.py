"""Progress while a call waits: one updating display in a notebook, one line in a terminal.

Only the waiting thread draws, at most `RATE` times a second (a Jupyter server drops output above a
thousand messages a second), and not before `PATIENCE` is over: a short wait leaves no trace.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from feliss_nb.notebook.display import ProgressView
from feliss_nb.runtime.status import JobStatus

#: Updates a second, at most.
RATE = 4.0
#: A wait shorter than this shows nothing, in seconds.
PATIENCE = 0.5


class Sink(Protocol):
    """Where progress is drawn."""

    def show(self, view: ProgressView) -> None:
        """Draw it in the place of what was drawn before."""

    def clear(self) -> None:
        """Leave nothing behind."""


class Line:
    """One line of a terminal, drawn over itself.

    Parameters
    ----------
    stream : TextIO
        The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._width = 0

    def show(self, view: ProgressView) -> None:
        """Draw over the line; it never wraps, for a wrapped one cannot be taken back."""
        text = repr(view)[: shutil.get_terminal_size().columns - 1]
        self._write("\r" + text.ljust(self._width))
        self._width = len(text)

    def clear(self) -> None:
        """Blank the line and go back to its start."""
        self._write("\r" + " " * self._width + "\r")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Cell:
    """One display of a notebook, updated in place.

    Parameters
    ----------
    display : callable, optional
        ``IPython.display.display``, or what stands in for it.
    """

    def __init__(self, display: Callable[..., Any] | None = None) -> None:
        if display is None:
            from IPython.display import display as shown

            display = shown
        self._display = display
        self._handle: Any = None

    def show(self, view: ProgressView) -> None:
        """Draw it, or update what was drawn."""
        if self._handle is None:
            self._handle = self._display(view, display_id=True)
        else:
            self._handle.update(view)

    def clear(self) -> None:
        """Empty the display: the result of the cell follows it."""
        self._handle.update({"text/plain": "", "text/html": ""}, raw=True)


def default_sink() -> Sink | None:
    """Give the place that suits where the code runs.

    Returns
    -------
    Sink or None
        None where progress would be noise: a script with its output in a file, a test.
    """
    if threading.current_thread() is not threading.main_thread():
        return None  # what waits in the background has no cell of its own to draw in
    ipython = sys.modules.get("IPython")  # who runs in a notebook has imported it
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is not None:
        return Cell()
    stream = sys.stderr
    try:
        return Line(stream) if stream is not None and stream.isatty() else None
    except ValueError:  # closed
        return None


class Progress:
    """Show what a wait waits for.

    Parameters
    ----------
    get : callable
        Gives the jobs that the wait waits for, the oldest first. Called only when it is drawn.
    waiting_for : callable
        Says in words what the wait waits for.
    clock : callable, optional
        Seconds, rising.
    sink : Sink, optional
        Where it is drawn; found out if not given.
    """

    def __init__(
        self,
        get: Callable[[], list[JobStatus]],
        waiting_for: Callable[[], str],
        *,
        clock: Callable[[], float] = time.monotonic,
        sink: Sink | None = None,
    ) -> None:
        self._get, self._waiting_for, self._clock = get, waiting_for, clock
        self._sink = default_sink() if sink is None else sink
        self._began = clock()
        self._due = self._began + PATIENCE
        self._drawn = False

    def tick(self) -> None:
        """Draw the progress if it is time to; call it from the waiting thread, often."""
        now = self._clock()
        if self._sink is None or now < self._due:
            return
        self._due = now + 1 / RATE
        view = ProgressView(self._waiting_for(), tuple(self._get()), now - self._began)
        self._draw(lambda sink: sink.show(view))
        self._drawn = True

    def close(self) -> None:
        """Take the display away; call it when the wait ends, however it ends. Twice is no harm."""
        if self._drawn:
            self._draw(lambda sink: sink.clear())
        self._sink = None
        self._drawn = False

    def _draw(self, action: Callable[[Sink], None]) -> None:
        if self._sink is None:
            return
        try:
            action(self._sink)
        except (OSError, ValueError):
            self._sink = None  # the terminal is gone; the wait goes on without
