"""Faults, and seeded lists of them."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real

from feliss_nb.errors import UsageError

KINDS = {
    "kill": "SIGKILL to the engine",
    "kill-with-nanny": "SIGKILL to the engine and to the process that watches it",
    "stop": "SIGSTOP, and SIGCONT after `seconds`",
    "hang": "the engine's Python stands still for `seconds`: user code that keeps the GIL",
    "slow": "the engine runs `factor` times slower for `seconds`",
    "exhaust-memory": "the engine fills what memory it may have, and is killed as the kernel would",
    "delay": "what the engine sends to `peer` (a rank) comes `seconds` later, for `seconds`",
    "drop": "what the engine sends to `peer` is lost, `count` messages",
    "cut": "what the engine sends to `peer` (a rank, or 'master') is lost, for ever",
    "lose-shard": "the engine's copy of a snapshot is not there any more",
    "flip-bit": "one bit of the engine's copy of a snapshot is another",
    "flip-bit-in-store": "one bit of a file of the newest checkpoint on the store is another",
    "fill-disk": "the engine cannot write to the store for `seconds`: no space is left",
    "kill-controller": "SIGKILL to ipyparallel's controller",
    "kill-kernel": "SIGKILL to the process that has the session: in a notebook, to its kernel",
}
"""What can go wrong.

``kill-kernel`` is real: it ends the process that injected it, and all that was not saved there. It
needs a session with a name, with which another process goes on by `feliss_nb.resume`; what has not
happened of the plan by then does not happen.
"""

PHASES = {
    "mapping": "a rank has mapped records",
    "shuffling": "a rank sends what it has mapped to those that reduce",
    "reducing": "a rank reduces",
    "capturing": "a rank has cut, and its state is being written",
    "encoding": "a rank's snapshot is taken, and its copies are on their way",
    "committing": "the master has committed, and the engines have not heard of it",
    "detecting": "another fault has just happened, and nobody has noticed",
    "loading": "the ranks are being stood up again after a loss",
}
"""Moments at which a fault can happen."""

#: Kinds that take an engine's copy or word, and need a partner.
_WITH_PEER = ("delay", "drop", "cut")
_OF_NO_ENGINE = ("kill-controller", "kill-kernel", "flip-bit-in-store")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what, when, to whom.

    When: `at`, or `phase`, or `after`; with none of them at once. Whom: `rank`, or drawn from the
    plan's seed.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    at : float or None
        Seconds after the plan was injected.
    phase : str or None
        One of `PHASES`.
    nth : int
        At the how manieth time that the phase comes, counted from the injection.
    after : int or None
        When the victim has begun this many continuations since the injection.
    rank : int or None
        The engine that hosts it is the victim.
    victim : {"host", "holder", "spare"}
        The rank's host, or an engine that keeps a copy of its snapshot, or one that hosts nothing.
        Where there is no such engine, the host.
    peer : int, "master" or None
        To whom messages are lost or late: a rank's host. None: to every engine.
    seconds : float
        How long.
    factor : float
        How much slower.
    count : int
        How many messages.
    """

    kind: str
    at: float | None = None
    phase: str | None = None
    nth: int = 1
    after: int | None = None
    rank: int | None = None
    victim: str = "host"
    peer: int | str | None = None
    seconds: float = 1.0
    factor: float = 4.0
    count: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"there is no fault {self.kind!r}; there are: {', '.join(KINDS)}")
        if self.phase is not None and self.phase not in PHASES:
            raise UsageError(f"there is no phase {self.phase!r}; there are: {', '.join(PHASES)}")
        if sum(when is not None for when in (self.at, self.phase, self.after)) > 1:
            raise UsageError("a fault takes one of at=, phase= and after=")
        if self.victim not in ("host", "holder", "spare"):
            raise UsageError(f"victim= takes 'host', 'holder' or 'spare', not {self.victim!r}")
        for name, least in (("at", 0.0), ("seconds", 0.0), ("factor", 1.0)):
            value = getattr(self, name)
            number = isinstance(value, Real) and not isinstance(value, bool)
            if value is not None and not (number and value >= least):
                raise UsageError(f"{name}= takes a number of at least {least:g}, not {value!r}")
        for name, low in (("nth", 1), ("after", 0), ("rank", 0), ("count", 1)):
            value = getattr(self, name)
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if value is not None and not (whole and value >= low):
                raise UsageError(f"{name}= takes a whole number of at least {low}, not {value!r}")
        if self.peer is not None and self.kind not in _WITH_PEER:
            raise UsageError(f"{self.kind} takes no peer=")
        if self.peer == "master" and self.kind != "cut":
            raise UsageError(f"{self.kind} takes a rank as peer=; only a cut takes 'master'")

    @property
    def needs_engine(self) -> bool:
        """Whether it happens to an engine."""
        return self.kind not in _OF_NO_ENGINE

    @property
    def needs_name(self) -> bool:
        """Whether only a session with a name goes on behind it."""
        return self.kind == "kill-kernel"

    def __str__(self) -> str:
        when = "at once"
        if self.at is not None:
            when = f"at {self.at:g} s"
        elif self.phase is not None:
            when = self.phase + (f", time {self.nth}" if self.nth > 1 else "")
        elif self.after is not None:
            when = f"after {self.after} continuations"
        whom = "" if self.rank is None else f" {self.victim} of rank {self.rank}"
        whither = ""
        if self.peer is not None:
            whither = " to the master" if self.peer == "master" else f" to rank {self.peer}"
        return f"{self.kind}{whom}{whither} ({when})"


def victims(
    fault: Fault,
    routes: Mapping[int, str],
    copies: Mapping[int, Collection[str]],
    engines: Iterable[str],
) -> list[str]:
    """Return the engines that a fault may happen to: the first of them that lives is the victim.

    Parameters
    ----------
    fault : Fault
        With its rank named.
    routes : mapping of int to str
        The host of each rank.
    copies : mapping of int to collection of str
        The engines that keep the snapshot of each rank.
    engines : iterable of str
        All.
    """
    rank = fault.rank or 0
    host = [routes[rank]] if rank in routes else []
    if fault.victim == "holder":
        return [*sorted(engine for engine in copies.get(rank, ()) if engine not in host), *host]
    if fault.victim == "spare":
        used = set(routes.values())
        return [*(engine for engine in engines if engine not in used), *host]
    return host


class FaultPlan(Sequence[Fault]):
    """A seeded list of faults.

    Parameters
    ----------
    faults : iterable of Fault
        In any order.
    seed : int
        Draws the victims that are not named.
    """

    def __init__(self, faults: Iterable[Fault] = (), seed: int = 0) -> None:
        if isinstance(faults, Fault):
            faults = (faults,)
        self.faults = tuple(faults)
        self.seed = seed
        for fault in self.faults:
            if not isinstance(fault, Fault):
                raise UsageError(f"a plan is a list of feliss_nb.Fault, and {fault!r} is none")

    def drawn(self, size: int) -> FaultPlan:
        """Return the plan with every victim named, of `size` ranks.

        Raises
        ------
        UsageError
            If it names a rank that there is not.
        """
        rng = random.Random(self.seed)
        found = []
        for fault in self.faults:
            rank, other = rng.randrange(size), rng.randrange(size)
            for named in (fault.rank, fault.peer):
                if isinstance(named, int) and named >= size:
                    raise UsageError(f"{fault}: there is no rank {named}")
            if fault.rank is None:
                fault = replace(fault, rank=rank)
            if fault.kind in _WITH_PEER and fault.peer is None:
                fault = replace(fault, peer=other)
            found.append(fault)
        return FaultPlan(found, self.seed)

    @classmethod
    def random(
        cls,
        seed: int,
        count: int = 3,
        seconds: float = 5.0,
        kinds: Sequence[str] = ("kill",),
        phases: Sequence[str] = tuple(PHASES),
        longest: float = 1.0,
    ) -> FaultPlan:
        """Draw a plan.

        Parameters
        ----------
        seed : int
            Of everything.
        count : int
            How many faults.
        seconds : float
            They happen within these.
        kinds : sequence of str
            Of these kinds.
        phases : sequence of str
            Some of them in one of these phases.
        longest : float
            None lasts for more seconds.
        """
        rng = random.Random(seed)
        found = []
        for _ in range(count):
            kind = rng.choice(list(kinds))
            draw = rng.random()
            when: dict[str, object] = {"at": round(rng.uniform(0.0, seconds), 3)}
            if draw < 0.5 and phases:
                when = {"phase": rng.choice(list(phases)), "nth": rng.randint(1, 2)}
            elif draw < 0.6:
                when = {"after": rng.randint(1, 200)}
            victim = rng.choice(["host", "host", "host", "holder", "spare"])
            span: dict[str, object] = {
                "seconds": round(rng.uniform(0.1, longest), 3),
                "factor": rng.randint(2, 8),
            }
            if kind == "cut" and rng.random() < 0.5:
                span["peer"] = "master"
            found.append(Fault(kind, victim=victim, **when, **span))  # type: ignore[arg-type]
        return cls(found, seed)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.faults[index]

    def __len__(self) -> int:
        return len(self.faults)

    def __iter__(self) -> Iterator[Fault]:
        return iter(self.faults)

    def __repr__(self) -> str:
        return f"FaultPlan([{', '.join(str(fault) for fault in self.faults)}], seed={self.seed})"
