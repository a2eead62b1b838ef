"""The fake clock and the fake network of a simulation.

A link is first in, first out; messages of different links come in any order. What goes wrong on
links between engines that live, is `simulated_faults.FaultyNetwork`.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feliss_nb.lab.simulated_engine import SimulatedEngine
    from feliss_nb.lab.simulated_faults import FaultyNetwork

LinkName = tuple[str, str, str]
"""Control or data, the source and the target."""


class Clock:
    """What is still to happen, in the order of its time.

    Attributes
    ----------
    now : float
        The time of what happened last.
    events : int
        How many things have happened.
    """

    def __init__(self) -> None:
        self.now, self.events = 0.0, 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def after(self, delay: float, act: Callable[[], None]) -> None:
        """Do something later."""
        self.at(self.now + delay, act)

    def at(self, time: float, act: Callable[[], None]) -> None:
        """Do something at a time."""
        heapq.heappush(self._heap, (time, next(self._order), act))

    def step(self) -> bool:
        """Let the next thing happen; return False when there is none."""
        if not self._heap:
            return False
        self.now, _, act = heapq.heappop(self._heap)
        self.events += 1
        act()
        return True


@dataclass(slots=True)
class Parcel:
    """Something under way on a link."""

    act: Callable[[], None]
    kind: str
    content: Any
    lost: bool = False
    term: int = 0


class Links:
    """Carries parcels.

    Parameters
    ----------
    clock : Clock
        Of the simulation.
    rng : Random
        Draws delays and losses.
    delay : float
        The longest time that a message takes.
    faults : FaultyNetwork
        Delays and loses messages besides.
    engines : mapping of str to SimulatedEngine
        Where a link may end.

    Attributes
    ----------
    under_way : dict of (str, str, str) to deque of Parcel
        What is on each link.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        delay: float,
        faults: FaultyNetwork,
        engines: Mapping[str, SimulatedEngine],
    ) -> None:
        self.under_way: dict[LinkName, deque[Parcel]] = {}
        self._clock, self._rng, self._delay = clock, rng, delay
        self._faults, self._engines = faults, engines
        self._arrivals: dict[LinkName, float] = {}

    def send(self, plane: str, source: str, target: str, parcel: Parcel) -> None:
        """Put something on its way."""
        key = (plane, source, target)
        link = self.under_way.setdefault(key, deque())
        link.append(parcel)
        delay = self._rng.random() ** 3 * self._delay  # mostly short, now and then long
        delay += self._faults.delay(source, target)
        parcel.lost = not self._faults.passes(source, target)
        at = max(self._clock.now + delay, self._arrivals.get(key, 0.0))
        self._arrivals[key] = at

        def arrive() -> None:
            engine = self._engines.get(target)
            if engine is not None and engine.alive and self._clock.now < engine.still_until:
                # it waits there, with what comes behind it
                self._clock.at(engine.still_until, arrive)
                return
            first = link.popleft()
            if not first.lost:
                first.act()

        self._clock.at(at, arrive)


def lose(parcels: deque[Parcel], behind: int = 0) -> None:
    """Lose what is under way behind so many parcels."""
    for parcel in list(parcels)[behind:]:
        parcel.lost = True
