"""Calls that Ctrl-C must not leave in the middle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

PATIENCE = 10.0  # seconds, behind a Ctrl-C

_T = TypeVar("_T")


def wait_out(call: Callable[[], _T]) -> _T:
    """Make a call on a thread, and return what it returns; Ctrl-C is raised behind its end.

    ipyparallel's calls run an event loop. An exception in the middle of one leaves tasks of which
    asyncio complains, and processes that are half started, which nobody ends.
    """
    done: Future[_T] = Future()

    def work() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            done.set_exception(error)

    thread = threading.Thread(target=work, name="feliss-call", daemon=True)
    try:
        thread.start()
        return done.result()
    except KeyboardInterrupt:
        wait([done], PATIENCE)
        raise
