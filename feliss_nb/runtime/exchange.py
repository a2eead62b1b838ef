"""The master's socket to the engines, and what wakes the one thread that uses it."""

from __future__ import annotations

import math
import os
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zmq

from feliss_nb.runtime import terms, wire
from feliss_nb.runtime.doors import Doors


class Exchange:
    """Messages from and to engines, and actions that other threads put in between.

    The master's thread alone may use it, but for `run_soon`.

    Parameters
    ----------
    directory : Path
        The session's private directory.
    term : int
        Of the master: engines turn to the socket of this name.
    """

    def __init__(self, directory: Path, term: int) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._doors = Doors(self._context, directory)
        self._doors.bind(self._socket, terms.name(term))
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wake, zmq.POLLIN)
        self._has_mail = False

    def run_soon(self, action: Callable[[], None]) -> None:
        """Run an action on the master's thread. Any thread may call it."""
        self._inbox.put(action)
        os.eventfd_write(self._wake, 1)

    def watch(self, fd: int) -> None:
        """Wake up when a descriptor is readable."""
        self._poller.register(fd, zmq.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Look at a descriptor no more."""
        self._poller.unregister(fd)

    def wait(self, seconds: float) -> set[int]:
        """Wait for something to do; return the watched descriptors that are readable."""
        ready = dict(self._poller.poll(math.ceil(seconds * 1000)))
        if ready.pop(self._wake, None):
            os.eventfd_read(self._wake)
        self._has_mail = ready.pop(self._socket, None) is not None
        return set(ready)

    def run_inbox(self) -> None:
        """Run the actions that have been put in."""
        while True:
            try:
                action = self._inbox.get_nowait()
            except queue.Empty:
                return
            action()

    def received(self) -> Iterator[tuple[str, Any, list[Any]]]:
        """Yield what has come: the engine, the message, and the frames that it came in."""
        while self._has_mail:
            try:
                identity, *sealed = wire.receive(self._socket, zmq.NOBLOCK)
            except zmq.Again:
                return
            frames = self._doors.open(sealed) if sealed else None
            if frames is not None:
                yield bytes(identity).decode(), wire.decode(frames), frames

    def send(self, engine: str, message: Any) -> None:
        """Send a message to an engine; it waits for nothing."""
        frames = self._doors.seal(wire.encode(message))
        self._socket.send_multipart([engine.encode(), *frames], copy=False)

    @property
    def sockets(self) -> str:
        """What the session's sockets are: ``ipc`` or ``tcp``."""
        return self._doors.kind

    @property
    def kept_out(self) -> tuple[int, int]:
        """How many connections were refused, and how many messages dropped: see `Doors`."""
        return self._doors.refused, self._doors.dropped

    def close(self) -> None:
        """Say what is still to be said, and go."""
        self._socket.close(200)
        self._doors.close()
        self._context.term()
