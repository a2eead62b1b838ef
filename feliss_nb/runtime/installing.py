"""Workers are brought to engines, and asked for again until they say hello."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import Any

from feliss_nb.errors import FelissError
from feliss_nb.runtime.cluster import Engines

INSTALL_AGAIN = 5.0  # seconds until a worker that does not answer is asked for again, then twice
HELLO_PATIENCE = 120.0  # for the worker of a replacement


class Installer:
    """Starts workers on engines. Any thread may use it.

    Parameters
    ----------
    cluster : Engines
        The engines.
    code : callable
        Gives the code that starts the worker on an engine.
    """

    def __init__(self, cluster: Engines, code: Callable[[str], str]) -> None:
        self._cluster, self._code = cluster, code
        self._expected: dict[str, Future[None]] = {}
        self._requests: list[Any] = []
        self._closed = False

    def expect(self, engine: int) -> Future[None]:
        """Install the worker on an engine; the future is done when it says hello."""
        done = self._expected[str(engine)] = Future()
        self._request(engine)
        return done

    def _request(self, engine: int) -> None:
        self._requests.append(self._cluster.execute(engine, self._code(str(engine))))

    def said_hello(self, engine: str) -> None:
        """A worker is there."""
        expected = self._expected.pop(engine, None)
        if expected is not None:
            expected.set_result(None)

    def await_hello(
        self, engine: int, hello: Future[None], deadline: float, on_wait: Callable[[str], None]
    ) -> None:
        """Wait until the worker on an engine has said hello.

        It is asked for again at times: what is sent to an engine that has just been registered may
        be lost, where its connection to the controller is not there yet.

        Raises
        ------
        FelissError
            If the deadline (of ``time.monotonic``) is over, or the worker cannot be started.
        """
        patience = INSTALL_AGAIN
        again = time.monotonic() + patience
        while True:
            try:
                hello.result(0.05)
                return
            except FutureTimeout:
                on_wait("the workers on the engines")
            self._raise_errors()
            now = time.monotonic()
            if now > deadline or self._closed:
                raise FelissError(
                    f"the worker on engine {engine} did not come up in time: give start() a longer "
                    "timeout= on a slow machine"
                ) from None
            if now > again:
                patience *= 2
                again = now + patience
                self._request(engine)

    def _raise_errors(self) -> None:
        """Raise the error of an engine on which the worker could not be started."""
        for result in list(self._requests):
            if result.ready():
                self._requests.remove(result)
                result.get(timeout=1)

    def add(self, engine: int | None, failed: Callable[[str | None], None]) -> None:
        """Bring the worker to one more engine, on a thread of its own.

        Parameters
        ----------
        engine : int or None
            None: one is started.
        failed : callable
            Called if no worker came, with the error if there was one; not behind `close`.
        """
        work = partial(self._add, engine, failed)
        threading.Thread(target=work, name="feliss-replace", daemon=True).start()

    def _add(self, engine: int | None, failed: Callable[[str | None], None]) -> None:
        came, why = False, None
        try:
            if engine is None:
                engine = self._cluster.add()
            if engine is not None and not self._closed:
                hello = self.expect(engine)
                deadline = time.monotonic() + HELLO_PATIENCE
                self.await_hello(engine, hello, deadline, lambda what: None)
                came = True
        except Exception as error:  # noqa: BLE001 - a session without a spare goes on
            why = str(error)
        finally:
            if not came and not self._closed:
                failed(why)

    def close(self) -> None:
        """Wait no more: the session is at its end."""
        self._closed = True
