"""The end of a session: stopped with all that it has, or left for another process to go on with."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future

from feliss_nb.errors import SessionTaken
from feliss_nb.runtime.cluster import Engines
from feliss_nb.runtime.driver import Driver
from feliss_nb.runtime.events import EventLog


class Ending:
    """Ends a session once, whoever asks for it and how often. Any thread may call it.

    Parameters
    ----------
    driver, cluster, events
        What ends.
    ended : callable
        Called when all has ended.

    Attributes
    ----------
    has_begun : bool
        Whether the session was stopped or left.
    """

    def __init__(
        self, driver: Driver, cluster: Engines, events: EventLog, ended: Callable[[], None]
    ) -> None:
        self.has_begun = False
        self._driver, self._cluster, self._events = driver, cluster, events
        self._ended = ended
        self._is_over = False
        self._taken: SessionTaken | None = None
        self._process = os.getpid()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """End the session; Ctrl-C ends the waiting only, and calling it again waits again.

        A session that another process goes on with is left to it, with a warning to who called what
        called this.
        """
        if self._is_over or self._is_forked():
            return
        self.has_begun = True
        done: Future[None] = Future()

        def end() -> None:
            try:
                self._stop()
                done.set_result(None)
            except BaseException as error:  # noqa: BLE001 - whoever stops it hears of it
                done.set_exception(error)

        threading.Thread(target=end, name="feliss-stop").start()
        done.result()
        if self._taken is not None:
            warnings.warn(str(self._taken), stacklevel=3)

    def leave(self) -> None:
        """Let the session go on without this process; one without a name ends with it."""
        if self._driver.record is None or not self._driver.record.is_open:
            self._stop()
            return
        self.has_begun = True
        with self._lock:
            if not (self._is_over or self._is_forked()):
                self._let_go()

    @property
    def is_taken(self) -> bool:
        """Whether another process goes on with the session."""
        return self._who_took_it() is not None

    def _who_took_it(self) -> SessionTaken | None:
        try:
            self.check_taken()
        except SessionTaken as error:
            return error
        return None

    def check_taken(self) -> None:
        """Raise SessionTaken if another process goes on with the session."""
        if self._driver.is_taken:
            raise self._driver.master.error or AssertionError
        if self._driver.record is not None:
            self._driver.record.check()

    def _is_forked(self) -> bool:
        """Whether this process is a fork of the notebook's, whose session it is."""
        return os.getpid() != self._process

    def _stop(self) -> None:
        self.has_begun = True
        with self._lock:
            if not (self._is_over or self._is_forked()):
                record = self._driver.record
                if record is not None:
                    self._taken = self._who_took_it()
                if self._taken is not None:
                    self._let_go()
                    return
                self._driver.stop()
                self._cluster.stop()
                if self._driver.keeper is not None:
                    self._driver.keeper.join()
                self._events.close()
                if record is not None:
                    record.remove()
                self._is_over = True
                self._ended()

    def _let_go(self) -> None:
        self._driver.leave()
        self._events.close()
        self._cluster.leave()
        if self._driver.keeper is not None:
            self._driver.keeper.end()
            self._driver.keeper.join(tidy=False)
        self._is_over = True
        self._ended()
