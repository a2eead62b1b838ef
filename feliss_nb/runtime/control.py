"""An engine's line to the master: the *control* thread, and what waits there for a master."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

import zmq

from feliss_nb.core import messages as m
from feliss_nb.core.seat import Link
from feliss_nb.runtime import terms, wire
from feliss_nb.runtime.doors import Doors

if TYPE_CHECKING:
    from feliss_nb.runtime.engine import EngineWorker

TICK = 0.1  # seconds between looks at printed lines, progress, late reports, and for the master

# So many messages on their way to the master mean that it does not listen: reports wait, so that
# they do not pile up.
MOST_UNHEARD = 1000


class Control:
    """Speaks with the master of now. The engine's lock guards what is here.

    Parameters
    ----------
    engine : EngineWorker
        Takes what the master says.
    context, doors
        Of the engine's sockets.

    Attributes
    ----------
    masters : int
        How many have welcomed this engine: what was told to one only is told to the next.
    mute : bool
        A faulty network: the master hears nothing any more.
    """

    def __init__(self, engine: EngineWorker, context: zmq.Context[Any], doors: Doors) -> None:
        self.masters = 0
        self.mute = False
        self._engine, self._context, self._doors = engine, context, doors
        self._outbox: deque[list[Any]] = deque()
        self._link = Link()
        self._term = 0  # of the master that this engine listens to
        self._is_heard = False  # it is there, and has welcomed this engine
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._talk, name="feliss-control", daemon=True)

    def start(self) -> None:
        """Turn to the master."""
        self._thread.start()

    @property
    def is_heard(self) -> bool:
        """Whether a master is there, and has welcomed this engine."""
        return self._is_heard

    @property
    def is_idle(self) -> bool:
        """Whether a master keeps up: what may wait, waits until one does."""
        return self._is_heard and len(self._link.kept) < MOST_UNHEARD

    @property
    def heard(self) -> int:
        """How many messages of the master's were heard."""
        return self._link.heard

    def send(self, message: Any) -> None:
        """Send a message to the master, in order. What the core says arrives in any case."""
        with self._engine.lock:
            if type(message).__module__ == m.__name__:
                number = self._link.keep(message)
                if self._is_heard:
                    self._post(number, message)
            elif self._is_heard:
                self._outbox.append(wire.encode(message))
        os.eventfd_write(self._wake, 1)

    def _post(self, number: int, message: Any) -> None:
        self._outbox.append(wire.encode(wire.Numbered(number, self._link.heard, message)))

    # ------------------------------------------------------------ the thread

    def _talk(self) -> None:
        engine = self._engine
        poller = zmq.Poller()
        poller.register(self._wake, zmq.POLLIN)
        socket = self._meet_master(poller)
        next_tick = monotonic()
        try:
            while not engine.is_closed:
                poller.modify(socket, zmq.POLLIN | (zmq.POLLOUT if self._outbox else 0))
                ready = dict(poller.poll(int(TICK * 1000)))
                if self._wake in ready:
                    os.eventfd_read(self._wake)
                if ready.get(socket, 0) & zmq.POLLIN:
                    self._take_all(socket)
                if monotonic() >= next_tick:
                    engine.tick()
                    next_tick = monotonic() + TICK
                    if terms.read(engine.directory) > self._term:
                        poller.unregister(socket)
                        socket.close(0)
                        socket = self._meet_master(poller)
                self._send_all(socket)
        except BaseException as error:  # the master must hear of a bug of ours
            wire.send(socket, self._doors.seal(wire.encode(trouble(error))))
            raise
        finally:
            socket.close(0 if engine.is_closed else 1000)

    def _meet_master(self, poller: zmq.Poller) -> zmq.Socket[bytes]:
        """Turn to the master of now. It tells what it has heard, then it gets the rest."""
        self._term = terms.read(self._engine.directory)
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.IDENTITY, self._engine.engine.encode())
        socket.set_hwm(0)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing piles up for a master that is not there
        self._doors.connect(socket, terms.name(self._term))
        poller.register(socket, zmq.POLLIN)
        with self._engine.lock:
            self._is_heard = False
            self._outbox.clear()
            self._outbox.append(wire.encode(self._engine.hello(self._link.heard)))
        return socket

    def _send_all(self, socket: zmq.Socket[bytes]) -> None:
        if self.mute:
            self._outbox.clear()
        while self._outbox:
            try:
                wire.send(socket, self._doors.seal(self._outbox[0]), zmq.NOBLOCK)
            except zmq.Again:
                self._is_heard = False  # what counts is kept
                return
            self._outbox.popleft()

    def _take_all(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            try:
                frames = self._doors.open(wire.receive(socket, zmq.NOBLOCK))
            except zmq.Again:
                return
            if frames is None:
                continue
            message = wire.decode(frames)
            with self._engine.lock:
                self._take(message)

    def _take(self, message: Any) -> None:
        if isinstance(message, wire.Numbered):
            self._link.acknowledged(message.heard)
            if self._link.is_new(message.number):
                self._link.heard = message.number
                self._engine.take_order(message.message)
        elif isinstance(message, wire.Welcome):
            sys.path.extend(path for path in message.paths if path not in sys.path)
            for number, kept in self._link.again(message.heard):
                self._post(number, kept)
            self._is_heard = True
            self.masters += 1
        elif isinstance(message, wire.Heard):
            self._link.acknowledged(message.heard)
        else:
            self._engine.take(message)

    @property
    def is_alive(self) -> bool:
        """Whether the thread uses a socket still."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Let the thread of an engine that is closed end."""
        os.eventfd_write(self._wake, 1)
        self._thread.join(2.0)


def trouble(error: BaseException) -> wire.Trouble:
    """Return what the master is told of a bug of ours."""
    return wire.Trouble("".join(traceback.format_exception(error)))
