"""The master's book of checkpoints: wanted, under way, committed, and their copies.

The master steps its state; this says when, and what to tell the engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from feliss_nb.core import commands as cmd
from feliss_nb.core import messages as m
from feliss_nb.core.checkpoints import Committed, Pending
from feliss_nb.core.fleet import Fleet
from feliss_nb.core.ledger import Ledger
from feliss_nb.core.placement import copy_holders

Commands = list[Any]


class Checkpoints:
    """What is kept, what is being taken, and who asked for it.

    Parameters
    ----------
    fleet : Fleet
        The engines.
    ledger : Ledger
        What the notebook did: its log gives the cut its place.
    copies : int
        How many other engines keep each rank's snapshot.
    """

    def __init__(self, fleet: Fleet, ledger: Ledger, copies: int) -> None:
        self.fleet, self.ledger, self.copies = fleet, ledger, copies
        self.capture = "full"  # how the next checkpoint is taken: the runtime's name for it
        self.committed = Committed()
        self.pending: Pending | None = None
        self.cut = 0  # the number of the last checkpoint begun
        self.wanted: list[Any] = []  # tokens of checkpoints that were asked for
        self.round = 0  # counts the questions how far the gangs are
        self.begun: dict[int, m.Counts] = {}  # the answers to the last one, by rank

    def adopt(self, committed: Committed, shards: Mapping[int, m.Engine], cut: int) -> None:
        """Go on from a checkpoint of another session, which these engines have in their stores."""
        found = {rank: {engine} for rank, engine in shards.items()}
        self.committed = replace(committed, shards=found, coming={}, refused=set())
        self.cut = cut

    # ------------------------------------------------------------ how far the gangs go

    def prepare(self) -> Commands:
        """Ask every rank which steps of gangs it has begun; it begins no other before its cut."""
        self.begun = {}
        return self._ask({})

    def _ask(self, limits: m.Counts) -> Commands:
        self.round += 1
        return self.fleet.to_all(m.Prepare(self.round, limits))

    def agree(self, message: m.Begun) -> Commands | None:
        """Take an answer; return None when all ranks have begun the same steps.

        Where they have not, every rank goes as far as the one that is furthest. It can: whoever
        has begun a step had left the gangs before it, so their last steps are among the limits.
        """
        if message.round != self.round:
            return []
        self.begun[message.rank] = message.steps
        if len(self.begun) < len(self.fleet.routes):
            return []
        answers, self.begun = list(self.begun.values()), {}
        if all(steps == answers[0] for steps in answers):
            return None
        limits: dict[int, int] = {}
        for steps in answers:
            for gang, step in steps.items():
                limits[gang] = max(step, limits.get(gang, step))
        return self._ask(limits)

    # ------------------------------------------------------------ one checkpoint

    def begin(self, epoch: int) -> Commands:
        """Ask every rank to cut."""
        self.cut += 1
        ledger = self.ledger
        holders = copy_holders(self.fleet.routes, self.fleet.by_trust(), self.copies)
        self.pending = Pending(
            self.cut,
            ledger.log.cursor,
            ledger.ended(),
            frozenset(ledger.variables.freed),
            holders,
            self.wanted,
        )
        self.wanted = []
        data = {"checkpoint": self.cut, "epoch": epoch}
        cut = self.fleet.to_all(m.Cut(self.cut, holders, self.capture))
        return [cmd.Log("checkpoint-begun", data), *cut]

    def current(self, checkpoint: int) -> Pending | None:
        """Return the checkpoint under way, if it is this one."""
        pending = self.pending
        return pending if pending is not None and pending.id == checkpoint else None

    def cut_done(self, message: m.CutDone) -> bool:
        """Note that a rank has cut; return True when it was the last."""
        pending = self.current(message.checkpoint)
        if pending is None:
            return False
        pending.cuts[message.rank] = message.sent
        return len(pending.cuts) == len(self.fleet.routes)

    def channels(self) -> Commands:
        """Tell every rank how many messages were under way to it at the cuts."""
        pending = self.pending
        if pending is None:
            return []
        expected = pending.expected(self.fleet.routes)
        return [
            cmd.ToEngine(host, m.Channels(pending.id, {rank: expected[rank] for rank in ranks}))
            for host, ranks in self.fleet.by_host().items()
        ]

    def saved(self, engine: m.Engine, message: m.Saved) -> None:
        """Note a rank's own snapshot."""
        pending = self.current(message.checkpoint)
        if pending is not None:
            pending.saved[message.rank] = message
            pending.shards.setdefault(message.rank, set()).add(engine)

    def stored(self, engine: m.Engine, message: m.Stored) -> Commands:
        """Note a copy, of the checkpoint under way or of the committed one."""
        pending = self.current(message.checkpoint)
        if pending is not None:
            pending.shards.setdefault(message.rank, set()).add(engine)
        if message.checkpoint != self.committed.id:
            return []
        before = self.is_protected()
        self.committed.add(message.rank, engine)
        if before or not self.is_protected():
            return []
        return [cmd.Log("protected", {"checkpoint": self.committed.id})]

    def is_whole(self) -> bool:
        """Whether every snapshot of the checkpoint under way has its copies."""
        return self.pending is not None and self.pending.is_whole(self.fleet.routes)

    def commit(self, epoch: int) -> Commands:
        """Let the checkpoint under way be the one that a loss goes back to."""
        pending = self.pending
        if pending is None:
            return []
        garbage = self.ledger.commit(pending)
        self.committed, self.pending = pending.commit(garbage), None
        data = {**pending.figures(), "epoch": epoch, "garbage": len(garbage)}
        return [
            *self.fleet.to_all(m.Commit(pending.id, garbage)),
            cmd.Log("committed", data),
            *(cmd.Answer(token, data) for token in pending.tokens),
        ]

    def abort(self) -> Commands:
        """Drop the checkpoint under way; those who asked for it get the next one."""
        pending, self.pending = self.pending, None
        if pending is None:
            return []
        self.wanted[:0] = pending.tokens
        return self.fleet.to_all(m.Abort(pending.id))

    # ------------------------------------------------------------ who asked

    def unwant(self, token: Any) -> None:
        """Nobody waits for `token` any more."""
        self.wanted = [t for t in self.wanted if t != token]
        if self.pending is not None:
            self.pending.tokens = [t for t in self.pending.tokens if t != token]

    def forget_who_asked(self) -> None:
        """Nobody waits any more."""
        self.wanted = []
        if self.pending is not None:
            self.pending.tokens = []

    def give_up(self) -> list[Any]:
        """No checkpoint will be taken any more: return the tokens of all who asked."""
        pending = self.pending.tokens if self.pending is not None else []
        tokens = [*self.wanted, *pending]
        self.wanted, self.pending = [], None
        return tokens

    # ------------------------------------------------------------ copies

    def _required(self) -> int:
        return min(self.copies + 1, len(self.fleet.engines))

    def is_protected(self) -> bool:
        """Whether every snapshot of the committed checkpoint has its copies."""
        return self.committed.is_protected(self.fleet.routes, self._required())

    def is_bare(self) -> bool:
        """Whether a rank's snapshot is nowhere any more: then there is nothing to copy."""
        return self.committed.is_bare(self.fleet.routes)

    def is_stuck(self) -> bool:
        """Whether copies are missing that nobody can keep."""
        return self.committed.is_stuck(self.fleet.engines, self._required())

    def replicate_missing(self) -> Commands:
        """Make anew the copies that a loss destroyed."""
        fleet = self.fleet
        orders = self.committed.order_copies(fleet.routes, fleet.by_trust(), self._required())
        return [
            cmd.ToEngine(source, m.Replicate(self.committed.id, rank, target))
            for rank, source, target in orders
        ]
