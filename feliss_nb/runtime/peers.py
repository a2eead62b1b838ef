"""Engine to engine: one inbox, and one outgoing socket for each peer.

Who speaks here, and who is heard, belongs to the session: see `doors`. Large frames go through
memory that both engines map (`shared`), once both have found that they can. A new engine offers its
own to all that it finds, and they theirs to it; until an answer is here, and where none comes,
everything goes through the socket.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import zmq

from feliss_nb.runtime import wire
from feliss_nb.runtime.doors import Doors
from feliss_nb.runtime.mappings import Mappings
from feliss_nb.runtime.segments import Segments, Trial

_END = "inproc://end"  # in the context of one worker
_PREFIX = "data-"  # of the names of inboxes

# Kinds of messages that are between two of these.
_SHARED, _OFFER, _ACCEPTED = "shared", "offer", "accepted"
_SENT, _RECEIVED = "sent", "received"

# Seconds until who sends complains that nothing of it has arrived: longer than the largest message
# takes that goes through a socket.
ANSWER = 10.0

LOST = "lost"
"""The kind of what `receive` gives when messages of an engine were lost on the way."""


class Peers:
    """The data plane of one engine. Every method may be called from any thread.

    Parameters
    ----------
    context : zmq.Context
        Of this worker alone.
    doors : Doors
        The way to the others.
    engine : str
        This engine.

    Attributes
    ----------
    segments : Segments
        Where to put what goes to peers: what lies there is not copied again.
    lock : Lock
        Of the sockets.
    """

    def __init__(self, context: zmq.Context[Any], doors: Doors, engine: str) -> None:
        self._context, self._doors, self._engine = context, doors, engine
        self.lock = threading.Lock()
        self._end = os.urandom(16)  # lets the inbox's thread end
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self.segments = Segments()
        self._mappings = Mappings()
        self._trial = Trial(self.segments.token)
        self._sharing: set[str] = set()  # engines that can map our segments
        # Messages are numbered, so that one that is lost or comes twice is noticed. Of the last no
        # number tells: so peers are told how many have gone to them, and owe an answer.
        self._sent: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._asked: dict[str, float] = {}
        self._received: dict[str, int] = {}
        # A faulty network: takes a message over, and sends it later or never.
        self.filter: Callable[[str, Callable[[], None]], bool] | None = None

    def bind(self) -> zmq.Socket[bytes]:
        """Return the inbox, for one thread to receive from, and let the others know of it."""
        inbox = self._context.socket(zmq.PULL)
        inbox.set_hwm(0)
        self._doors.bind(inbox, _name(self._engine))
        inbox.bind(_END)
        # A spare may have spoken to nobody before it is to take a snapshot over.
        with self.lock:
            for name in self._doors.names(_PREFIX):
                engine = name.removeprefix(_PREFIX)
                if engine != self._engine:
                    with contextlib.suppress(OSError):  # it has ended meanwhile
                        self._connect(engine)
        return inbox

    def send(self, engine: str, head: Any, frames: Sequence[Any] = ()) -> None:
        """Send a message; large frames are not copied and must not change. Never waits."""
        with self.lock:
            socket = self._sockets.get(engine)
            if socket is None:
                socket = self._connect(engine)
            if frames and engine in self._sharing:
                lies = self.segments.refer(engine, frames)
                if lies is not None:
                    references, places, frames = lies
                    head = (_SHARED, references, places, head)
            number = self._sent[engine] = self._sent.get(engine, 0) + 1
            whole = self._doors.seal([pickle.dumps((self._engine, number, head), 5), *frames])
            if self.filter is not None:

                def late() -> None:
                    if not socket.closed:
                        wire.send(socket, whole)

                if self.filter(engine, late):
                    return
            wire.send(socket, whole)

    def _connect(self, engine: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.PUSH)
        socket.set_hwm(0)
        socket.setsockopt(zmq.LINGER, 0)
        self._doors.connect(socket, _name(engine))
        self._sockets[engine] = socket
        slot = self.segments.slot(engine)
        if slot is not None:
            about = os.getpid(), self._trial.fd, self.segments.token, slot
            wire.send(socket, self._word((_OFFER, self._engine, *about)))
        return socket

    def _say(self, engine: str, head: tuple[Any, ...]) -> None:
        """Send a word between two of these, by the way of all messages. The lock is held."""
        socket = self._sockets.get(engine)
        if socket is None:
            socket = self._connect(engine)
        word = self._word(head)

        def send() -> None:
            if not socket.closed:
                wire.send(socket, word)

        if self.filter is None or not self.filter(engine, send):
            send()

    def _word(self, head: tuple[Any, ...]) -> list[Any]:
        return self._doors.seal([pickle.dumps((self._engine, 0, head), 5)])

    def count(self) -> list[str]:
        """Tell peers how many messages they must have; return those that have not answered.

        Call it at times.
        """
        now = monotonic()
        with self.lock:
            for engine, sent in self._sent.items():
                if sent > self._told.get(engine, 0) and engine not in self._asked:
                    self._told[engine], self._asked[engine] = sent, now
                    self._say(engine, (_SENT, sent))
            return [engine for engine, since in self._asked.items() if now - since > ANSWER]

    def receive(self, inbox: zmq.Socket[bytes]) -> tuple[Any, list[Any]] | None:
        """Wait for a message and give its head and its frames; None at the end."""
        while True:
            sealed = wire.receive(inbox)
            if sealed[0] == self._end:
                return None
            whole = self._doors.open(sealed)
            if whole is None:
                continue
            first, *frames = whole
            engine, number, head = pickle.loads(first)
            kind = head[0]
            if kind == _SENT:
                with self.lock:
                    self._say(engine, (_RECEIVED, head[1]))
                if self._received.get(engine, 0) < head[1]:
                    return (LOST, engine), []
                continue
            if kind == _RECEIVED:
                with self.lock:
                    self._asked.pop(engine, None)
                continue
            if number:
                expected = self._received.get(engine, 0) + 1
                if number < expected:
                    self._doors.dropped += 1  # it has come before
                    continue
                self._received[engine] = number
                if number > expected:
                    return (LOST, engine), []
            if kind == _SHARED:
                _, references, places, head = head
                found = self._mappings.take(engine, references, places, frames)
                if found is not None:
                    return head, found
                # Its sender has ended, so has its epoch. Who waits for a snapshot must hear of it.
                if head[0] == "shard":
                    return ("absent", *head[1:], engine), []
            elif kind == _OFFER:
                if self._mappings.meet(*head[1:]):
                    with self.lock:
                        self._say(head[1], (_ACCEPTED, self._engine))
            elif kind == _ACCEPTED:
                with self.lock:
                    if head[1] in self._sockets:
                        self._sharing.add(head[1])
            else:
                return head, frames

    def share_memory(self, engines: set[str]) -> bool:
        """Tell whether these engines have found that they can map our segments."""
        return engines <= self._sharing

    def has_writable(self) -> bool:
        """Tell whether an array here may lie in memory that engines share, and be written to."""
        return self.segments.has_writable() or self._mappings.has_writable()

    def hold(self) -> None:
        """Leave what lies in shared memory there until `release`, though nobody refers to it."""
        self.segments.hold()
        self._mappings.hold()

    def release(self) -> None:
        """End a `hold`."""
        self.segments.release()
        self._mappings.release()

    def tidy(self) -> None:
        """Give back memory that is not used. Call it at times."""
        self.segments.tidy()
        self._mappings.tidy()

    def forget_dead(self) -> None:
        """Close the sockets of engines that have ended, and forget the memory shared with them.

        Of those alone: to one that hosts no rank a copy of a snapshot may be on its way.
        """
        with self.lock:
            for engine in [e for e in self._sockets if not self._doors.is_there(_name(e))]:
                self._sockets.pop(engine).close(0)
                self._sharing.discard(engine)
                for counts in (self._sent, self._told, self._asked, self._received):
                    counts.pop(engine, None)
                self.segments.forget(engine)
                self._mappings.forget(engine)

    def close(self) -> None:
        """Close every outgoing socket, and let the inbox's thread end."""
        with self.lock:
            for socket in self._sockets.values():
                socket.close(0)
            self._sockets.clear()
            self._sharing.clear()
            # Not through the inbox's file: the session may have removed its directory already.
            end = self._context.socket(zmq.PUSH)
            end.connect(_END)
            end.send(self._end)
            end.close(1000)
        self._trial.close()
        self.segments.close()
        self._mappings.close()


def _name(engine: str) -> str:
    return f"{_PREFIX}{engine}"
