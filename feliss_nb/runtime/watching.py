"""Who wants to see what happens: a thread that looks at a session a few times a second."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from feliss_nb.runtime.events import Event, EventLog
from feliss_nb.runtime.status import Status

#: Looks a second, at most: a Jupyter server drops what comes faster than a page can take it.
RATE = 4.0

#: Gets the events since the last look, and the state now (None: the session has ended).
Look = Callable[[list[Event], "Status | None"], None]


class Watch:
    """Calls `look` up to four times a second, on a thread of its own, until it is closed.

    The first call comes at once, with every event so far; the last one with the session's end.

    Parameters
    ----------
    events : EventLog
        Of the session.
    status : callable
        Gives the state now.
    look : callable
        If it raises, the watch ends.
    """

    def __init__(self, events: EventLog, status: Callable[[], Status], look: Look) -> None:
        self._events, self._status, self._look = events, status, look
        self._seen = 0
        self._over = threading.Event()
        self._last = False
        self._thread = threading.Thread(target=self._main, name="feliss-watch", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether it looks no more."""
        return self._over.is_set()

    def close(self) -> None:
        """Look no more; return when the thread has ended, unless this is the thread."""
        self._over.set()
        if self._thread is not threading.current_thread():
            self._thread.join(10.0)

    def end(self) -> None:
        """Look a last time, at a session that has ended."""
        if not self._over.is_set():
            self._last = True
            self.close()

    def _main(self) -> None:
        try:
            while True:
                self._look_once(self._status())
                if self._over.wait(1 / RATE):
                    break
            if self._last:
                self._look_once(None)
        except Exception:
            # A page that is gone, a disk that is full: the session does not suffer from it.
            logging.getLogger(__name__).debug("a watch has ended", exc_info=True)
        finally:
            self._over.set()

    def _look_once(self, status: Status | None) -> None:
        new = self._events[self._seen :]
        self._seen += len(new)
        self._look(new, status)
