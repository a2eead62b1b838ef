"""What the simulator runs: small bodies over a rank's partitions, and a notebook that uses them.

A continuation's work is ``(name, args)``: a body of `BODIES` and what it is called with. Bodies
change partitions in ways that commute, and draw random numbers from their continuation's id, so
that a run with losses must give what a run without gives.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from feliss_nb.core import events as ev

Work = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Ref:
    """A handle of a variable."""

    variable: int


def refs(value: Any) -> set[int]:
    """Return the variables whose handles `value` holds."""
    if isinstance(value, Ref):
        return {value.variable}
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple | set | frozenset):
        return set()
    found: set[int] = set()
    for item in value:
        found |= refs(item)
    return found


class Failure(Exception):
    """A body's own error."""


@dataclass(slots=True)
class Here:
    """What a body sees: its rank, its partitions, and what it does (a list, done by the engine)."""

    rank: int
    size: int
    rng: random.Random
    partitions: dict[int, Any]
    done: list[tuple[Any, ...]] = field(default_factory=list)

    def put(self, rank: int, name: str, *args: Any, needs: tuple[int, ...] = ()) -> None:
        """Put a continuation to a rank."""
        self.done.append(("put", rank % self.size, (name, args), needs))

    def then(self, name: str, *args: Any, needs: tuple[int, ...] = ()) -> None:
        """Make this the gang's next step."""
        self.done.append(("then", (name, args), needs))

    def set(self, variable: int, value: Any) -> None:
        """Set this rank's partition."""
        self.done.append(("set", variable, value))

    def give(self, value: Any) -> None:
        """Give a value to the notebook."""
        self.done.append(("give", value))

    def add(self, ref: Ref, amount: int) -> None:
        """Add to this rank's partition."""
        self.partitions[ref.variable] += amount


# ---------------------------------------------------------------- bodies


def make(here: Here, target: Ref, value: Any) -> None:
    """Set a partition."""
    here.set(target.variable, value)


def ring(here: Here, total: Ref, token: int, last: int) -> None:
    """Pass a token around."""
    here.add(total, token)
    if token < last:
        here.put(here.rank + 1, "ring", total, token + 1, last)


def tree(here: Here, total: Ref, depth: int) -> None:
    """Put children to random ranks."""
    here.add(total, here.rng.randrange(1, 100))
    for _ in range(here.rng.randint(0, 3) if depth else 0):
        here.put(here.rng.randrange(here.size), "tree", total, depth - 1)


def shuffle(here: Here, total: Ref, count: int) -> None:
    """Send something to every rank, this one too."""
    for rank in range(here.size):
        here.put(rank, "add", total, count * (rank + 1) + here.rank)


def add(here: Here, total: Ref, amount: int) -> None:
    """Add to a partition."""
    here.add(total, amount)


def walk(here: Here, purse: Ref, amount: int, hops: int) -> None:
    """Carry an amount some hops, and leave it there: the sum is conserved."""
    if hops:
        here.put(here.rng.randrange(here.size), "walk", purse, amount, hops - 1)
    else:
        here.add(purse, amount)


def fill(here: Here, target: Ref, hops: int) -> None:
    """Set a partition after some hops to oneself through others."""
    if hops:
        here.put(here.rank + 1, "fill_back", target, here.rank, hops)
    else:
        here.set(target.variable, 7 * here.rank + 1)


def fill_back(here: Here, target: Ref, rank: int, hops: int) -> None:
    """Go back."""
    here.put(rank, "fill", target, hops - 1)


def copy(here: Here, source: Ref, total: Ref) -> None:
    """Add one variable's partition to another's."""
    here.add(total, here.partitions[source.variable])


def follow(here: Here, kept: Ref, total: Ref) -> None:
    """Use a handle found in a partition."""
    here.add(total, here.partitions[here.partitions[kept.variable].variable])


def gang(here: Here, total: Ref, step: int, last: int, spill: int) -> None:
    """Add what the step makes, now and then through another rank; go on to the next step."""
    here.add(total, step * (here.rank + 1) + 1)
    if spill and here.rng.randrange(spill) == 0:
        here.put(here.rng.randrange(here.size), "add", total, step)
    if step < last:
        here.then("gang", total, step + 1, last, spill)


def gang_begins(here: Here, source: Ref, total: Ref, last: int) -> None:
    """Begin a gang that needs a variable."""
    here.add(total, here.partitions[source.variable])
    here.then("gang", total, 0, last, 2)


def boom(here: Here, depth: int) -> None:
    """Raise, some puts on."""
    if not depth:
        raise Failure("boom")
    here.put(here.rng.randrange(here.size), "boom", depth - 1)


def endless(here: Here, count: int) -> None:
    """Never end."""
    here.put(here.rank + count % 2, "endless", count + 1)


def give(here: Here, source: Ref) -> None:
    """Give a partition to the notebook."""
    here.give(here.partitions[source.variable])


def lie(here: Here, same: int, noise: Callable[[], int]) -> None:
    """Give something that a replay does not give again, or (`same`) does."""
    here.give(same if same else noise())


BODIES: dict[str, Callable[..., None]] = {
    body.__name__: body
    for body in (
        make, ring, tree, shuffle, add, walk, fill, fill_back,
        copy, follow, gang, gang_begins, boom, endless, give, lie,
    )
}  # fmt: skip


# ---------------------------------------------------------------- the notebook

Asks = Generator[Callable[[int], Any], Any, Any]


class Notebook:
    """A person's side of the session; its methods are generators that yield questions.

    Parameters
    ----------
    tell : callable
        Gives the master an event that has no answer.
    view : mapping of int to (str, dict)
        The state and the results of each job, as the runtime saw them last.
    size : int
        The number of ranks.
    variables : int
        Its variables have numbers above this.

    Attributes
    ----------
    outcome : list
        What it has seen: fetched values, states of jobs, and at last ``end``.
    """

    def __init__(
        self,
        tell: Callable[[Any], None],
        view: Mapping[int, Any],
        size: int,
        variables: int = 0,
    ) -> None:
        self.tell, self.view, self.size = tell, view, size
        self.variables = variables
        self.totals: list[int] = []
        self.making: list[int] = []
        self.kept: list[int] = []
        self.outcome: list[Any] = []

    def play(self, ops: Iterable[tuple[Any, ...]]) -> Asks:
        """Do what `ops` say, then fetch every variable, drop it, and let the garbage be found."""
        yield from self.make(0)
        for name, *args in ops:
            yield from getattr(self, name)(*args)
        yield from self.wait()
        for variable in [*self.totals]:
            yield from self.fetch(variable)
        for variable in (*self.totals, *self.kept):
            self.tell(ev.Release(variable))
        self.outcome.append("end")
        for _ in range(3):  # what only garbage reaches goes one commit later
            yield from self.checkpoint()
        return self.outcome

    def submit(
        self,
        starts: Iterable[tuple[int, Work, tuple[int, ...]]],
        outputs: tuple[int, ...] = (),
        internal: bool = False,
        gang: bool = False,
    ) -> Asks:
        """Submit a job; return its number."""
        starts = tuple(starts)
        handles = frozenset(v for _, work, _ in starts for v in refs(work[1])) - {*outputs}
        label = starts[0][1][0]
        rest = outputs, handles, internal, gang
        return (yield lambda token: ev.Submit(token, label, starts, *rest))

    def everywhere(self, name: str, *args: Any, needs: tuple[int, ...] = ()) -> list[Any]:
        """Return the starts that call a body on every rank."""
        return [(rank, (name, args), needs) for rank in range(self.size)]

    def new(self) -> int:
        """Return a new variable's number."""
        self.variables += 1
        return self.variables

    def total(self, index: int) -> Ref:
        """Return a variable that holds sums."""
        return Ref(self.totals[index % len(self.totals)])

    def make(self, value: int) -> Asks:
        """Make a variable of sums."""
        variable = self.new()
        job = yield from self.submit(self.everywhere("make", Ref(variable), value), (variable,))
        self.making.append(job)
        self.totals.append(variable)

    def made(self) -> Asks:
        """Wait until every variable of sums is on every rank."""
        if self.making:
            jobs, self.making = tuple(self.making), []
            yield lambda token: ev.Wait(token, jobs)

    def ring(self, index: int, rank: int, last: int) -> Asks:
        """Pass a token around."""
        yield from self.made()
        yield from self.submit([(rank % self.size, ("ring", (self.total(index), 1, last)), ())])

    def tree(self, index: int, rank: int, depth: int) -> Asks:
        """Grow a tree."""
        yield from self.made()
        yield from self.submit([(rank % self.size, ("tree", (self.total(index), depth)), ())])

    def shuffle(self, index: int, count: int) -> Asks:
        """Send from every rank to every rank."""
        yield from self.made()
        yield from self.submit(self.everywhere("shuffle", self.total(index), count))

    def walk(self, index: int, amount: int, hops: int) -> Asks:
        """Carry amounts about."""
        yield from self.made()
        yield from self.submit(self.everywhere("walk", self.total(index), amount, hops))

    def gang(self, index: int, last: int, spill: int) -> Asks:
        """Let all ranks take steps together."""
        yield from self.made()
        work = self.everywhere("gang", self.total(index), 0, last, spill)
        yield from self.submit(work, gang=True)

    def gang_waits(self, index: int, hops: int, last: int) -> Asks:
        """Let a gang begin on each rank when a variable that is being filled is there."""
        yield from self.made()
        variable, total = self.new(), self.total(index)
        yield from self.submit(self.everywhere("fill", Ref(variable), hops), (variable,))
        needs = (variable,)
        work = self.everywhere("gang_begins", Ref(variable), total, last, needs=needs)
        yield from self.submit(work, gang=True)
        self.tell(ev.Release(variable))

    def cancel_gang(self, index: int, checkpoint: int) -> Asks:
        """Submit an endless gang, and cancel it."""
        variable = self.new()
        job = yield from self.submit(self.everywhere("make", Ref(variable), 0), (variable,))
        yield lambda token: ev.Wait(token, (job,))
        work = self.everywhere("gang", Ref(variable), 0, 10**9, 0)
        job = yield from self.submit(work, gang=True)
        if checkpoint:
            yield from self.checkpoint()
        self.tell(ev.CancelJob(job))
        yield lambda token: ev.Wait(token, (job,))
        self.outcome.append(self.view[job][0])
        self.tell(ev.Release(variable))

    def fill_and_read(self, index: int, hops: int) -> Asks:
        """Fill a new variable; read it without waiting; drop it at once."""
        yield from self.made()
        variable, total = self.new(), self.total(index)
        yield from self.submit(self.everywhere("fill", Ref(variable), hops), (variable,))
        work = self.everywhere("copy", Ref(variable), total, needs=(variable, total.variable))
        yield from self.submit(work, internal=bool(hops % 2))
        self.tell(ev.Release(variable))

    def keep_and_follow(self, index: int, value: int) -> Asks:
        """Let a partition alone carry a handle, and follow it after a while."""
        inner, outer = self.new(), self.new()
        yield from self.submit(self.everywhere("make", Ref(inner), value), (inner,))
        work = self.everywhere("make", Ref(outer), Ref(inner))
        yield from self.submit(work, (outer,))
        self.tell(ev.Release(inner))
        self.kept.append(outer)
        yield from self.wait()
        for _ in range(value % 3):
            yield from self.checkpoint()
        needs = (outer, self.total(index).variable)
        work = self.everywhere("follow", Ref(outer), self.total(index), needs=needs)
        yield from self.submit(work)

    def fetch(self, variable: int) -> Asks:
        """Fetch a variable's partitions."""
        work = self.everywhere("give", Ref(variable), needs=(variable,))
        job = yield from self.submit(work, internal=True)
        yield lambda token: ev.Wait(token, (job,))
        state, results = self.view[job]
        value = tuple(results[rank].body for rank in sorted(results))
        self.outcome.append((state, value))
        return value

    def loop(self, index: int, times: int) -> Asks:
        """Let what comes next depend on what was fetched."""
        for _ in range(times):
            yield from self.wait()
            value = yield from self.fetch(self.total(index).variable)
            yield from self.shuffle(index, sum(value) % 10)

    def fail(self, depth: int) -> Asks:
        """Submit a job that fails."""
        job = yield from self.submit([(depth % self.size, ("boom", (depth,)), ())])
        yield lambda token: ev.Wait(token, (job,))
        self.outcome.append(self.view[job][0])

    def poison(self, rank: int) -> Asks:
        """Submit a job that kills every engine on which it runs."""
        job = yield from self.submit([(rank % self.size, ("poison", ()), ())])
        yield lambda token: ev.Wait(token, (job,))
        self.outcome.append(self.view[job][0])

    def cancel(self, checkpoint: int) -> Asks:
        """Submit an endless job, and cancel it."""
        job = yield from self.submit([(0, ("endless", (0,)), ())])
        if checkpoint:
            yield from self.checkpoint()
        self.tell(ev.CancelJob(job))
        yield lambda token: ev.Wait(token, (job,))
        self.outcome.append(self.view[job][0])

    def wait(self) -> Asks:
        """Wait until nothing is left of any job."""
        yield lambda token: ev.Wait(token, None)

    def checkpoint(self) -> Asks:
        """Take a checkpoint, and wait for it; try again where a capture fails."""
        while True:
            try:
                yield ev.TakeCheckpoint
            except Failure:
                continue
            return

    def lies(self, same: int, noise: Callable[[], int]) -> Asks:
        """Fetch something that comes out different in a replay."""
        job = yield from self.submit([(0, ("lie", (same, noise)), ())])
        yield lambda token: ev.Wait(token, (job,))
        self.outcome.append(self.view[job][0])
