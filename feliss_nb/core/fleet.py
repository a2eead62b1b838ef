"""The engines that live, and which of them hosts which rank."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from feliss_nb.core.commands import ToEngine
from feliss_nb.core.messages import Engine


@dataclass(slots=True)
class Fleet:
    """Who is there.

    Parameters
    ----------
    engines : list of str
        Alive, in the order in which they joined.
    suspects : set of str
        Alive as far as we know, and being fenced.
    routes : dict of int to str
        The host of each rank.
    """

    engines: list[Engine] = field(default_factory=list)
    suspects: set[Engine] = field(default_factory=set)
    routes: dict[int, Engine] = field(default_factory=dict)

    def to_all(self, message: Any) -> list[Any]:
        """Return the commands that send `message` to every engine."""
        return [ToEngine(engine, message) for engine in self.engines]

    def to_rank(self, rank: int, message: Any) -> ToEngine:
        """Return the command that sends `message` to a rank's host."""
        return ToEngine(self.routes[rank], message)

    def by_host(self) -> dict[Engine, list[int]]:
        """Return the ranks of each host."""
        hosts: dict[Engine, list[int]] = {}
        for rank, engine in self.routes.items():
            hosts.setdefault(engine, []).append(rank)
        return hosts

    def remove(self, engine: Engine) -> tuple[int, ...]:
        """Forget a lost engine; return the ranks that it hosted."""
        self.engines.remove(engine)
        self.suspects.discard(engine)
        return tuple(rank for rank, host in self.routes.items() if host == engine)

    def by_trust(self) -> list[Engine]:
        """Return the engines, the suspects last."""
        return sorted(self.engines, key=lambda engine: engine in self.suspects)
