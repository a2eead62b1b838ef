"""What continuations print goes to the notebook; what the engine prints stays where it goes."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from feliss_nb.runtime.engine import EngineWorker

# The Jupyter server drops output past a thousand messages a second; a print in a tight loop is cut
# here, with a line that says so.
MOST_LINES = 500


class Printer:
    """Collects the lines that the runner threads of an engine print.

    Parameters
    ----------
    engine : EngineWorker
        Whose runners.
    """

    def __init__(self, engine: EngineWorker) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        # What lacks its line end, in pieces: to join them at every dot of a progress bar would
        # take longer and longer.
        self._partial: dict[tuple[int, int, str], list[str]] = {}
        self._lines: list[tuple[int, int, str, str]] = []
        self._dropped = 0
        self._streams = [_Router(self, "stdout"), _Router(self, "stderr")]

    def runner_of_this_thread(self) -> tuple[int, int] | None:
        """Return the rank and the job that run on this thread, if any."""
        me = threading.current_thread()
        for runner in list(self._engine.runners.values()):
            if runner.thread is me and runner.rank.running is not None:
                return runner.rank.rank, runner.rank.running.job
        return None

    def write(self, rank: int, job: int, stream: str, text: str) -> None:
        """Take text; whole lines are sent, the rest waits for its end."""
        with self._lock:
            key = rank, job, stream
            if "\n" not in text:
                if text:
                    self._partial.setdefault(key, []).append(text)
                return
            *lines, rest = "".join([*self._partial.pop(key, ()), text]).split("\n")
            if rest:
                self._partial[key] = [rest]
            for line in lines:
                if len(self._lines) < MOST_LINES:
                    self._lines.append((rank, job, stream, line))
                else:
                    self._dropped += 1

    def take(self, is_over: Callable[[int, int], bool]) -> list[tuple[int, int, str, str]]:
        """Return the lines since the last call.

        Parameters
        ----------
        is_over : callable
            Tells whether a rank has nothing left of a job: what lacks its line end then gets none.
        """
        with self._lock:
            for rank, job, stream in [key for key in self._partial if is_over(*key[:2])]:
                rest = self._partial.pop((rank, job, stream))
                self._lines.append((rank, job, stream, "".join(rest)))
            lines, self._lines = self._lines, []
            if self._dropped:
                rank, job, stream, _ = lines[-1]
                lines.append((rank, job, stream, f"... {self._dropped} more lines not shown"))
                self._dropped = 0
            return lines

    def close(self) -> None:
        """Give the engine its streams back."""
        for stream in self._streams:
            stream.restore()


class _Router(io.TextIOBase):
    """Stands in for a standard stream: a runner's text goes to the printer."""

    def __init__(self, printer: Printer, name: str) -> None:
        self._printer, self._name = printer, name
        self._original: TextIO = getattr(sys, name)
        setattr(sys, name, self)

    def write(self, text: str) -> int:
        found = self._printer.runner_of_this_thread()
        if found is None:
            return self._original.write(text)
        self._printer.write(*found, self._name, text)
        return len(text)

    def flush(self) -> None:
        self._original.flush()

    def restore(self) -> None:
        if getattr(sys, self._name) is self:
            setattr(sys, self._name, self._original)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)
