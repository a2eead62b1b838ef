"""``%%feliss run``: a cell as a job; what it printed and returned is shown where it was started."""

from __future__ import annotations

import html
import threading
from typing import TYPE_CHECKING, Any

from feliss_nb.runtime import Event, Status
from feliss_nb.runtime.status import human_seconds, printable

if TYPE_CHECKING:
    from feliss_nb.models.session import Session
    from feliss_nb.runtime import Job

_OPEN = ("held", "running")


class Running:
    """A job whose outcome is shown when it ends.

    Parameters
    ----------
    session : Session
    job : Job
        Of `Session.run`, quiet.
    """

    def __init__(self, session: Session, job: Job) -> None:
        self.job = job
        self._begun = session.events.now
        self._ended: float | None = None
        self._outcome = ""
        self._shown: tuple[Any, ...] = ()
        self._handle: Any = None
        self._lock = threading.Lock()
        self._session = session
        self._watch: Any = None

    def show(self) -> None:
        """Display it, and again whenever there is something new, until the job ends."""
        from IPython import get_ipython

        if getattr(get_ipython(), "kernel", None) is not None:
            from IPython.display import display

            self._handle = display(self, display_id=True)
        else:
            print(f"{self!r}; its outcome follows", flush=True)  # noqa: T201 (a terminal)
        with self._lock:
            self._watch = self._session.watch(self._look)

    def _look(self, events: list[Event], status: Status | None) -> None:
        with self._lock:  # the watch is known
            watch = self._watch
        now = self._session.events.now
        if self._ended is None and (self.job.state not in _OPEN or status is None):
            self._ended = now
            self._outcome = self._result()
        shown = (self.job.state, len(self.job.lines or ()), self._ended)
        if shown != self._shown:
            self._shown = shown
            if self._handle is not None:
                self._handle.update(self)
            elif self._ended is not None:
                print(repr(self), flush=True)  # noqa: T201 (a terminal)
        if self._ended is not None:
            watch.close()

    def _result(self) -> str:
        if self.job.state in _OPEN:
            return "the session was stopped before it ended"
        error = self.job.error
        if error is not None:
            self.job.reported = True
            return f"{type(error).__name__}: {error}"
        try:
            value = self.job.result(1.0)
            return "" if value is None else repr(value)
        except Exception as problem:  # noqa: BLE001 (a repr of the user's may raise anything)
            return f"its result cannot be shown here: {problem}"

    def _head(self) -> str:
        ended = self._ended
        seconds = "" if ended is None else f" after {human_seconds(ended - self._begun)}"
        return f"job {self.job.id} ({printable(self.job.label)}): {self.job.state}{seconds}"

    def __repr__(self) -> str:
        lines = [line for _, line in self.job.lines or ()]
        return "\n".join([self._head(), *lines, *([self._outcome] if self._outcome else [])])

    def _repr_html_(self) -> str:
        lines = "".join(
            f"<span{_RED if stream == 'stderr' else ''}>{html.escape(line)}\n</span>"
            for stream, line in self.job.lines or ()
        )
        outcome = html.escape(self._outcome)
        state = html.escape(self._head())
        return f'<div class="feliss-run"><b>{state}</b><pre>{lines}{outcome}</pre></div>'


_RED = ' style="color:#a00"'
