"""Waiting for the master's answers: with progress to show, and open to Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from numbers import Real
from types import TracebackType
from typing import Any, Protocol

from feliss_nb.core import events as ev
from feliss_nb.errors import SessionClosed, UsageError, WaitTimeout
from feliss_nb.runtime.driver import Driver
from feliss_nb.runtime.failure import is_ours
from feliss_nb.runtime.status import JobStatus

TICK = 0.1  # seconds between looks of a waiting call


class ProgressLike(Protocol):
    """What shows the progress of a wait."""

    def tick(self) -> None:
        """Show how far it is."""

    def close(self) -> None:
        """Clear up."""


Factory = Callable[[Callable[[], list[JobStatus]], Callable[[], str]], ProgressLike]

_factory: Factory | None = None


def show_with(factory: Factory | None) -> None:
    """Let `factory` make the display of every wait; the notebook layer sets it."""
    global _factory
    _factory = factory


def display(
    statuses: Callable[[], list[JobStatus]], waiting_for: Callable[[], str]
) -> ProgressLike | None:
    """Return a display of a wait, if there is one to be had."""
    return None if _factory is None else _factory(statuses, waiting_for)


def check_seconds(what: str, seconds: object, above: bool = False) -> None:
    """Raise UsageError unless this is a time to wait, or None.

    Parameters
    ----------
    what : str
        The argument, for the error.
    seconds : object
        What was given for it.
    above : bool
        Whether 0 is no time.
    """
    if seconds is None:
        return
    number = isinstance(seconds, Real) and not isinstance(seconds, bool)
    if not number or not (seconds > 0 if above else seconds >= 0):  # type: ignore[operator]
        least = "above 0" if above else "of at least 0"
        raise UsageError(f"{what} takes a number of seconds {least}, or None; not {seconds!r}")


def _users_part(stop: KeyboardInterrupt) -> list[str]:
    """Return what IPython shows of an interrupt: the frames down to the call of this package."""
    from IPython import get_ipython

    kept, trace = [], stop.__traceback__
    while trace is not None and not is_ours(trace.tb_frame.f_code.co_filename):
        kept.append(trace)
        trace = trace.tb_next
    trace = None
    for each in reversed(kept):
        trace = TracebackType(trace, each.tb_frame, each.tb_lasti, each.tb_lineno)
    shell: Any = get_ipython()
    lines: list[str] = shell.InteractiveTB.structured_traceback(type(stop), stop, trace, 1)
    return lines


def wait_for(
    token: Future[Any],
    driver: Driver,
    what: str,
    statuses: Callable[[], list[JobStatus]],
    timeout: float | None = None,
) -> Any:
    """Wait for an answer of the master's.

    Raises
    ------
    WaitTimeout
        When `timeout` seconds are over.
    SessionClosed
        If the session ends meanwhile.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    progress: ProgressLike | None = None
    try:
        while True:
            left = TICK if deadline is None else min(TICK, deadline - time.monotonic())
            try:
                return token.result(max(left, 0.0))
            except FutureTimeout:
                if token.done():  # the answer itself may be a timeout
                    return token.result()
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeout(f"{what} did not end in {timeout} s; it goes on")
            if not driver.is_alive():
                raise driver.master.error or SessionClosed("the session was stopped meanwhile")
            if progress is None:
                progress = display(statuses, lambda: what)
            if progress is not None:
                progress.tick()
    except BaseException as error:
        if not token.done():
            driver.post(ev.Unwait(token))
        if isinstance(error, KeyboardInterrupt):
            # IPython asks an exception for this method. Our frames say nothing to who waits.
            vars(error)["_render_traceback_"] = partial(_users_part, error)
        raise
    finally:
        if progress is not None:
            progress.close()
