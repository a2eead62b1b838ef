"""What carries the messages of gangs in each epoch: MPI where it can, else the sockets.

Decided in the session's process alone, so that all ranks do the same. MPI can where every rank has
an engine of its own in one world, and none of them fails to make its communicator. Nothing waits
for the decision but the first step of a gang.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping

from feliss_nb.runtime import wire

# Seconds for the engines to make a communicator; milliseconds as a rule. Where they begin by
# initializing MPI on a busy machine, a few seconds.
PATIENCE = 30.0

SOCKETS = "sockets"
MPI = "MPI"

_sessions = itertools.count(os.getpid() * 64)


class Linking:
    """Orders the engines' communicators, and tells them what carries.

    Parameters
    ----------
    send : callable
        ``send(engine, message)``.
    on_change : callable
        Given what carries from now on, and in words why.

    Attributes
    ----------
    carrier : str
        ``MPI``, or ``sockets`` and the reason.
    settled : threading.Event
        Set while that is decided.
    """

    def __init__(
        self, send: Callable[[str, object], None], on_change: Callable[[str], object]
    ) -> None:
        self._send, self._on_change = send, on_change
        self._session = 1 + next(_sessions) % 30_000  # a tag of MPI's has at least 15 bits
        self._places: dict[str, wire.Place] = {}  # of the engines that live
        self._world = ""
        self._members: set[str] = set()  # that made the session's communicator together
        self._is_joined = False  # all of them have said so
        self._off = ""  # why MPI carries nothing any more
        self._attempt = -1
        self._link: wire.Link | None = None
        self._waiting: set[str] = set()  # engines that have not answered
        self._deadline = 0.0
        self.carrier = SOCKETS
        self.settled = threading.Event()  # it is decided what carries
        self.settled.set()

    def joined(self, engine: str, place: wire.Place | None) -> None:
        """An engine is up."""
        if place is not None:
            self._places[engine] = place

    def lost(self, engine: str) -> None:
        """An engine is gone."""
        self._places.pop(engine, None)
        self._members.discard(engine)
        if engine in self._waiting:
            self._decide("an engine was lost in between")

    def order(self, engine: str, attempt: int, routes: Mapping[int, str]) -> None:
        """Tell an engine, right behind the rollback that begins an epoch."""
        if attempt != self._attempt:
            self._begin(attempt, routes)
        if self._link is not None and engine in self._members:
            self._send(engine, self._link)

    def _begin(self, attempt: int, routes: Mapping[int, str]) -> None:
        self._attempt = attempt
        self._link, self._waiting = None, set()
        self.settled.set()
        hindrance = self._look(routes)
        if self._members:
            members = tuple(sorted(self._places[engine].rank for engine in self._members))
            group: tuple[int, ...] = ()
            if not hindrance:
                group = tuple(self._places[routes[rank]].rank for rank in sorted(routes))
            if group or (self._is_joined and not self._off):
                self._link = wire.Link(attempt, self._session, members, group)
        if hindrance or self._link is None:
            self._change(f"{SOCKETS}: {hindrance}" if hindrance else SOCKETS)
        else:
            self.settled.clear()
            self._waiting = set(self._members)
            self._deadline = time.monotonic() + PATIENCE

    def _look(self, routes: Mapping[int, str]) -> str:
        """Say what keeps MPI from carrying; empty where nothing does."""
        if self._off or not (self._members or self._places):
            return self._off
        if not self._members:
            self._off = self._choose()
            if self._off:
                return self._off
        for engine in routes.values():
            if engine not in self._members:
                return f"engine {engine} is not in the MPI world of the others"
        if len(set(routes.values())) < len(routes):
            return "ranks share an engine"
        return ""

    def _choose(self) -> str:
        """Take the engines of the largest world as members, or say why not."""
        worlds: dict[str, set[str]] = {}
        for engine, place in self._places.items():
            worlds.setdefault(place.world, set()).add(engine)
        found = max(worlds.values(), key=len)
        places = [self._places[engine] for engine in found]
        for place in places:
            if place.trouble:
                return place.trouble
        # Who initializes MPI waits for all others of its world.
        if len(found) < places[0].size and not all(place.is_up for place in places):
            return "the session has not all engines of the MPI world, and MPI is not initialized"
        self._members = found
        return ""

    def hear(self, engine: str, message: wire.Linked) -> None:
        """An engine has carried out an order, or could not."""
        if message.is_final or (message.error and not self._is_joined):
            self._off = self._off or message.error
        if message.attempt != self._attempt:
            return
        if message.error:
            self._decide(message.error)
            return
        self._waiting.discard(engine)
        if not self._waiting and self._link is not None:
            self._is_joined = True
            self._decide("")

    def look(self) -> None:
        """Look at the clock."""
        if self._waiting and time.monotonic() > self._deadline:
            self._off = "an MPI call of an engine does not end"
            self._decide(self._off)

    def _decide(self, hindrance: str) -> None:
        link, self._waiting = self._link, set()
        self.settled.set()
        if link is None or not link.group:
            return
        self._link = None
        self._change(f"{SOCKETS}: {hindrance}" if hindrance else MPI)
        for engine in self._members:
            self._send(engine, wire.Carrier(link.attempt, not hindrance))

    def _change(self, carrier: str) -> None:
        if carrier != self.carrier:
            self.carrier = carrier
            self._on_change(carrier)
