"""What the master knows of a checkpoint: under way, and committed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from feliss_nb.core.messages import Counts, Engine, Saved
from feliss_nb.core.placement import copy_holders


@dataclass(frozen=True, slots=True)
class Committed:
    """The checkpoint that a loss goes back to; 0 is the empty start of the session.

    Parameters
    ----------
    id : int
        Its number.
    position : int
        The cut's place in the log: lines before it are in the snapshots.
    ended : frozenset of int
        Jobs that were quiet at the cut.
    shards : dict of int to set of str
        The engines that keep each rank's snapshot.
    garbage : frozenset of int
        Variables in the snapshots that nothing reaches.
    sizes : dict of int to int
        Bytes of each rank's snapshot.
    coming : dict of (int, str) to str
        Copies on their way: the source, by rank and target.
    refused : set of (int, str)
        Copies that an engine could not keep: it is not asked for them again.
    """

    id: int = 0
    position: int = 0
    ended: frozenset[int] = frozenset()
    shards: dict[int, set[Engine]] = field(default_factory=dict)
    garbage: frozenset[int] = frozenset()
    sizes: dict[int, int] = field(default_factory=dict)
    coming: dict[tuple[int, Engine], Engine] = field(default_factory=dict)
    refused: set[tuple[int, Engine]] = field(default_factory=set)

    def add(self, rank: int, engine: Engine) -> None:
        """An engine keeps a copy."""
        self.coming.pop((rank, engine), None)
        if self.id:
            self.shards.setdefault(rank, set()).add(engine)

    def lose(self, engine: Engine) -> None:
        """An engine is gone, with its copies and those that it was sending or getting."""
        for holders in self.shards.values():
            holders.discard(engine)
        for (rank, target), source in list(self.coming.items()):
            if engine in (source, target):
                del self.coming[rank, target]

    def lose_copy(self, rank: int, engine: Engine) -> None:
        """An engine has no copy (any more), and what it was to send does not come."""
        self.shards.get(rank, set()).discard(engine)
        if self.coming.pop((rank, engine), None) is not None:
            self.refused.add((rank, engine))
        for (r, target), source in list(self.coming.items()):
            if r == rank and source == engine:
                del self.coming[r, target]

    def source(self, rank: int, host: Engine, engines: Sequence[Engine]) -> Engine | None:
        """Return where `host` gets a rank's snapshot, or None: every copy is lost."""
        holders = self.shards.get(rank, set())
        if self.id == 0 or host in holders:
            return host
        return min(holders, key=engines.index, default=None)

    def is_protected(self, ranks: Iterable[int], wanted: int) -> bool:
        """Whether every rank's snapshot is on `wanted` engines."""
        return self.id == 0 or all(len(self.shards.get(rank, ())) >= wanted for rank in ranks)

    def is_bare(self, ranks: Iterable[int]) -> bool:
        """Whether a rank's snapshot is on no engine, nor on its way to one."""
        found = {rank for rank, holders in self.shards.items() if holders}
        found |= {rank for rank, _ in self.coming}
        return self.id != 0 and not found.issuperset(ranks)

    def is_stuck(self, engines: Iterable[Engine], wanted: int) -> bool:
        """Whether copies of a rank's snapshot are missing, and who has none cannot keep it."""
        return any(
            len(self.shards.get(rank, set()) | self._coming(rank)) < wanted
            and not self._targets(rank, engines)
            for rank in {rank for rank, _ in self.refused}
        )

    def _coming(self, rank: int) -> set[Engine]:
        return {target for r, target in self.coming if r == rank}

    def _targets(self, rank: int, engines: Iterable[Engine]) -> list[Engine]:
        """Return who can get a copy, of these."""
        there = self.shards.get(rank, set()) | self._coming(rank)
        return [e for e in engines if e not in there and (rank, e) not in self.refused]

    def survives(self, engine: Engine) -> bool:
        """Whether every snapshot is on another engine than this one, too."""
        return self.id == 0 or all(holders - {engine} for holders in self.shards.values())

    def order_copies(
        self, routes: Mapping[int, Engine], engines: Sequence[Engine], wanted: int
    ) -> list[tuple[int, Engine, Engine]]:
        """Return (rank, source, target) of the copies to make, and note them as coming."""
        orders: list[tuple[int, Engine, Engine]] = []
        if self.is_protected(routes, wanted):
            return orders
        plan = copy_holders(routes, engines, len(engines))
        for rank, host in routes.items():
            holders = self.shards.get(rank, set())
            missing = wanted - len(holders | self._coming(rank))
            if missing <= 0 or not holders:
                continue
            source = host if host in holders else min(holders, key=engines.index)
            for target in self._targets(rank, (host, *plan[rank]))[:missing]:
                self.coming[rank, target] = source
                orders.append((rank, source, target))
        return orders


@dataclass(slots=True)
class Pending:
    """A checkpoint under way."""

    id: int
    position: int
    ended: frozenset[int]
    freed: frozenset[int]  # variables freed before the cut: not in the snapshots
    holders: Mapping[int, tuple[Engine, ...]]
    tokens: list[Any]
    cuts: dict[int, Counts] = field(default_factory=dict)
    saved: dict[int, Saved] = field(default_factory=dict)
    shards: dict[int, set[Engine]] = field(default_factory=dict)

    def expected(self, ranks: Iterable[int]) -> dict[int, dict[int, int]]:
        """Return how many messages each of `ranks` was sent before the cuts, by source."""
        found: dict[int, dict[int, int]] = {rank: {} for rank in ranks}
        for source, sent in self.cuts.items():
            for rank, messages in sent.items():
                if messages:
                    found[rank][source] = messages
        return found

    def is_whole(self, routes: Mapping[int, Engine]) -> bool:
        """Whether every rank's snapshot is on its own engine and has its copies."""
        return len(self.saved) == len(routes) and all(
            {host, *self.holders[rank]} <= self.shards.get(rank, set())
            for rank, host in routes.items()
        )

    def ready_variables(self) -> set[int]:
        """Return the variables that have a partition in the snapshots."""
        return {v for saved in self.saved.values() for v in saved.variables}

    def figures(self) -> dict[str, Any]:
        """Return what it cost: bytes of the ranks' own snapshots, and the longest pause.

        Of these bytes so many were written, and so many went to the copies' holders.
        """
        written = {
            rank: saved.nbytes if saved.written is None else saved.written
            for rank, saved in self.saved.items()
        }
        return {
            "checkpoint": self.id,
            "bytes": sum(saved.nbytes for saved in self.saved.values()),
            "written": sum(written.values()),
            "copies": sum(size * len(self.holders[rank]) for rank, size in written.items()),
            "pause": max(saved.pause for saved in self.saved.values()),
        }

    def commit(self, garbage: frozenset[int]) -> Committed:
        """Return it as committed."""
        sizes = {rank: saved.nbytes for rank, saved in self.saved.items()}
        return Committed(self.id, self.position, self.ended, self.shards, garbage, sizes)
