"""What carries the messages of gangs in each epoch: MPI where it can, else the sockets.

Decided in the session's process alone, so that all ranks do the same. MPI can where every rank has
an engine of its own in one world, and none of them fails to make its communicator. Nothing waits
for the decision but the first step of a gang.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Mapping

from feliss_nb.runtime import wire

# Seconds for the engines to make a communicator; milliseconds as a rule. Where they begin by
# initializing MPI on a busy machine, a few seconds.
PATIENCE = 30.0

# Seconds without a loss before they make one. Open MPI 5 crashes in a process that hears of the
# loss of another one while it makes a communicator with it (its failure handler walks over one that
# is not set up yet), and losses often come together.
QUIET = 0.1

TAKEN = "the process that linked its engines has ended"

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
        self._members: set[str] = set()  # that make communicators together
        self._off = ""  # why MPI carries nothing any more
        self._attempt = -1
        self._group: tuple[int, ...] = ()  # who is to have a communicator: it is not decided yet
        self._waiting: set[str] = set()  # engines that are making it
        self._deadline = 0.0
        self._last_loss = -math.inf
        self._is_taken = False  # it goes on for another process
        self._carries = False  # MPI does, as far as it is decided
        self.carrier = SOCKETS
        self.settled = threading.Event()  # it is decided what carries
        self.settled.set()

    def take_over(self, attempt: int) -> None:
        """Go on for a process that has ended: what carries now stays, later epochs use sockets."""
        self._is_taken, self._attempt = True, attempt
        self.settled.clear()

    def met(self) -> None:
        """Every engine that lives has found this process. Whoever was not told what carries, is."""
        if self._is_taken and not self.settled.is_set():
            self._tell(self._carries, MPI if self._carries else SOCKETS)

    def joined(
        self, engine: str, place: wire.Place | None, carries: tuple[int, bool] | None = None
    ) -> None:
        """An engine is up, or has found this process; what it was told last, by attempt."""
        if place is None:
            return
        self._places[engine] = place
        if not self._is_taken:
            return
        self._off = TAKEN
        if self.settled.is_set():
            self._send(engine, wire.Carrier(self._attempt, self._carries))
        elif carries == (self._attempt, True):  # then every engine has made its communicator
            self._carries = True

    def lost(self, engine: str) -> None:
        """An engine is gone."""
        self._last_loss = time.monotonic()
        self._places.pop(engine, None)
        self._members.discard(engine)
        if self._waiting:  # a call of MPI's may hang now, or the next one
            self._give_up("an engine was lost while MPI made a communicator")

    def begin(self, attempt: int, routes: Mapping[int, str]) -> None:
        """Decide what carries the epoch of a rollback, of which all engines have been told."""
        self._attempt = attempt
        self._group, self._waiting = (), set()
        hindrance = self._look_for_hindrance(routes)
        if hindrance or not self._members:
            self._decide(hindrance)
        else:
            self._group = tuple(self._places[routes[rank]].rank for rank in sorted(routes))
            self.settled.clear()

    def _look_for_hindrance(self, routes: Mapping[int, str]) -> str:
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

    def look(self) -> None:
        """Look at the clock: order the communicator that is wanted, or give it up."""
        now = time.monotonic()
        if self._waiting:
            if now > self._deadline:
                self._give_up("an MPI call of an engine does not end")
        elif self._group and now - self._last_loss >= QUIET:
            members = tuple(sorted(self._places[engine].rank for engine in self._members))
            self._waiting = set(self._members)
            self._deadline = now + PATIENCE
            for engine in self._members:
                self._send(engine, wire.Link(self._attempt, self._session, members, self._group))

    def hear(self, engine: str, message: wire.Linked) -> None:
        """An engine has carried out an order, or could not."""
        if message.attempt != self._attempt or not self._waiting:
            return
        if message.error:
            self._give_up(message.error)
            return
        self._waiting.discard(engine)
        if not self._waiting:
            self._decide("")

    def _give_up(self, why: str) -> None:
        """Use MPI no more: who is in a call, and with whom, is not known."""
        self._off = why
        self._decide(why)

    def _decide(self, hindrance: str) -> None:
        carries = bool(self._group) and not hindrance
        self._group, self._waiting = (), set()
        self._tell(carries, MPI if carries else f"{SOCKETS}: {hindrance}" if hindrance else SOCKETS)

    def _tell(self, carries: bool, carrier: str) -> None:
        self._carries = carries
        for engine in self._places:
            self._send(engine, wire.Carrier(self._attempt, carries))
        if carrier != self.carrier:
            self.carrier = carrier
            self._on_change(carrier)
        self.settled.set()
