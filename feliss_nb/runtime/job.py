"""A job as the notebook holds it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from feliss_nb.core import jobs as core
from feliss_nb.errors import FelissError, JobCancelled, UsageError
from feliss_nb.runtime.failure import Failure

if TYPE_CHECKING:
    from feliss_nb.runtime.session import BaseSession


class Job:
    """One submission and all its descendants.

    Attributes
    ----------
    id : int
        Its number in the session's log.
    label : str
        What it is, for people.
    state : str
        ``held`` (until the replay reaches it), ``running``, ``done``, ``failed`` or ``cancelled``.
    """

    def __init__(self, session: BaseSession, label: str, internal: bool = False) -> None:
        self._session = session
        self.id = -1
        self.label = label
        self.internal = internal
        self.state = "held"
        self.quiet = False
        self.reported = False  # its error was raised to the user
        self.results: dict[int, core.Result] = {}
        #: What it prints, (stream, line) each, if that is kept and not printed in the notebook.
        self.lines: list[tuple[str, str]] | None = None
        self._failure: Any = None
        self._progress: dict[int, tuple[int, int]] = {}

    def follow(self, state: core.Job) -> None:
        """Take over what the master knows. Called on the master's thread.

        An outcome that was told stays while a replay comes to it again.
        """
        if state.expected is not None and state.state in ("held", "running"):
            return
        self.state, self.quiet = state.state, state.quiet
        self.results = dict(state.results)
        self._failure = None if state.error is None else state.error[1]

    def set_progress(self, rank: int, done: int, total: int) -> None:
        """Take a rank's figures. Called on the master's thread."""
        self._progress[rank] = done, total

    @property
    def done(self) -> int:
        """Units of work done, as far as the model tells."""
        return sum(done for done, _ in list(self._progress.values()))

    @property
    def total(self) -> int:
        """Units of work in all, as far as the model tells."""
        return sum(total for _, total in list(self._progress.values()))

    def wait(self, timeout: float | None = None) -> Job:
        """Wait until nothing of the job is left anywhere.

        Parameters
        ----------
        timeout : float, optional
            Seconds; the job goes on when they are over.

        Raises
        ------
        FunctionError
            If a continuation raised: with the user's traceback.
        JobCancelled
            If it was cancelled.
        WaitTimeout
            When the time is over.
        """
        self._session.wait_for_jobs((self.id,), timeout, f"job {self.id} ({self.label})")
        self.raise_error()
        return self

    def result(self, timeout: float | None = None) -> Any:
        """Wait for a job of `BaseSession.run`; return what its function returned.

        Raises
        ------
        UsageError
            If it is another job: what those give lies in variables.
        FunctionError, JobCancelled, WaitTimeout
            As `wait` does.
        """
        self.wait(timeout)
        found = list(self.results.values())
        if not found:
            raise UsageError(
                f"job {self.id} ({self.label}) has no result of its own: collect the variable that "
                "it fills"
            )
        return self._session._open(found[0].body)

    def raise_error(self) -> None:
        """Raise what ended the job, if that was not its own end."""
        self.reported = True
        error = self.error
        if error is not None:
            raise error

    @property
    def error(self) -> FelissError | None:
        """What ended the job, or None."""
        if self.state == "cancelled":
            return JobCancelled(f"job {self.id} ({self.label}) was cancelled")
        if self.state == "failed" and isinstance(self._failure, Failure):
            return self._failure.error()
        return None

    def cancel(self) -> None:
        """Drop what is left of the job; what it wrote before stays."""
        self._session.cancel(self)

    def __repr__(self) -> str:
        total = self.total
        share = f", {100 * self.done / total:.0f} %" if total else ""
        return f"<job {self.id}: {self.label}, {self.state}{share}>"

    def _repr_html_(self) -> str:
        return f"<code>{html.escape(repr(self))}</code>"
