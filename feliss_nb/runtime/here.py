"""What a continuation sees of the rank on which it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from feliss_nb.core.ids import child_id, record_id
from feliss_nb.core.messages import Continuation
from feliss_nb.errors import NotReadyError, UsageError
from feliss_nb.runtime.board import RECORD, Board
from feliss_nb.runtime.gang_port import GangPort, MpiPort
from feliss_nb.runtime.wire import Phase
from feliss_nb.state.handle import Handle, Target

if TYPE_CHECKING:
    from feliss_nb.runtime.runner import Runner

# How long a model's continuation goes on before it puts the rest: long against the cost of a
# continuation (20 us), short against the half second in which a checkpoint shall commit.
SLICE = 0.05

Objects = tuple[Callable[[object], list[Any]], Callable[[Any], Any]]
"""How a job's objects become buffers, and buffers objects."""

_current = threading.local()


class StopContinuation(BaseException):
    """Raised inside user code whose job was cancelled or whose epoch is over."""


class Poisoned(BaseException):
    """Raised where a record is reached whose continuation is set aside: see `core.poison`."""

    def __init__(self, identity: bytes, value: Any) -> None:
        super().__init__(identity, value)
        self.identity, self.value = identity, value


class Call:
    """A function and its arguments: what `then=` of :meth:`Here.call` takes."""

    __slots__ = ("args", "function")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.function, self.args = function, args

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", repr(self.function))
        return f"continuation({name}, {len(self.args)} arguments)"


def continuation(function: Callable[..., Any], *args: Any) -> Call:
    """Return a continuation: a function and its first arguments, to run later.

    Raises
    ------
    UsageError
        If `function` cannot be called.
    """
    check_callable(function)
    return Call(function, args)


def check_callable(function: object) -> None:
    """Raise UsageError unless `function` can be called."""
    if not callable(function):
        raise UsageError(f"{function!r} is no function: give a function and then its arguments")


def here() -> Here:
    """Return the rank on which the running continuation runs.

    Raises
    ------
    UsageError
        Outside a continuation.
    """
    found: Here | None = getattr(_current, "here", None)
    if found is None:
        raise UsageError(
            "here() has a meaning only inside a continuation, that is in a function that a "
            "session runs (session.put, map, apply, ...)"
        )
    return found


def enter(found: Here) -> None:
    """Let `here()` give `found` on this thread."""
    _current.here = found


def needs_of(args: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the variables whose handles stand in `args` or one container below."""
    found: list[int] = []
    for arg in args:
        if isinstance(arg, Handle):
            found.append(arg.variable)
        elif type(arg) in (tuple, list):
            found += [x.variable for x in arg if isinstance(x, Handle)]
        elif type(arg) is dict:
            found += [x.variable for x in arg.values() if isinstance(x, Handle)]
        elif type(arg) is Call:
            found += needs_of(arg.args)
    return tuple(dict.fromkeys(found)) if found else ()


class Here:
    """The rank of the running continuation: its number, its variables, its pool.

    Attributes
    ----------
    rank, size : int
        This rank, and how many there are.
    """

    def __init__(self, runner: Runner, size: int, seed: int) -> None:
        self._runner = runner
        self._rank = runner.rank
        self._partitions = runner.state.partitions
        self._seed = seed
        self.rank = runner.rank.rank
        self.size = size
        self._id = b""  # the identity that puts and random numbers derive from; empty: of _index
        self._index = 0
        self._ordinal = 0
        self._job = -1
        self._deadline = 0.0
        self._rng: np.random.Generator | None = None
        self._label: Callable[[], str] | str | None = None
        self.function: Callable[..., Any] | None = None  # that a model's continuation stands for
        self.port: GangPort | None = None  # of the step of a gang that runs
        self._noted = runner.slot.words  # for the session's process, should this engine be lost
        self._poisoned = runner.poisoned

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.size}>"

    # ------------------------------------------------------------ for the runner

    def retire(self) -> None:
        """Note nothing any more: another epoch's rank does."""
        self._noted = Board.nowhere().words

    def begin(self, continuation: Continuation) -> None:
        """Take the identity of the continuation that starts."""
        self._id = continuation.id
        self._ordinal = 0
        self.port = None
        self._job = continuation.job
        self._deadline = 0.0
        self._rng = None
        self._label = None
        self.function = None

    @property
    def _base(self) -> bytes:
        if not self._id:  # made late: most records neither put nor draw
            self._id = record_id(self._job, self.rank, self._index)
        return self._id

    @property
    def label(self) -> str | None:
        """The record at hand, where a model has named it."""
        label = self._label
        return label() if callable(label) else label

    # ------------------------------------------------------------ for users

    def put(self, function: Callable[..., Any], *args: Any, rank: int | None = None) -> None:
        """Put a continuation into the pool of a rank (default: this one).

        Parameters
        ----------
        function : callable
            What to run; its return value is dropped.
        *args
            Its arguments. They go to another rank as a copy, to this one as they are.
        rank : int, optional
            The rank to run it.

        Raises
        ------
        UsageError
            If there is no such rank, or `function` cannot be called.
        UnpicklableError
            If an argument cannot travel.
        """
        if not callable(function):
            check_callable(function)
        ordinal = self._ordinal
        self._ordinal = ordinal + 1
        if rank is None or rank == self.rank:
            needs = needs_of(args) if args else ()
            new = Continuation(child_id(self._base, ordinal), self._job, needs, (function, args))
            self._runner.put_here(new)
        else:
            self._check_rank(rank)
            self._runner.put_there(child_id(self._base, ordinal), self._job, rank, function, args)

    def call(
        self, function: Callable[..., Any], *args: Any, rank: int, then: Call | Callable[..., Any]
    ) -> None:
        """Run a function on a rank; its reply becomes the last argument of a continuation here.

        Returns at once. `then` stays on this rank, in its pool.

        Parameters
        ----------
        function : callable
            What to run there.
        *args
            Its arguments, copied.
        rank : int
            Where.
        then : continuation or callable
            What to run here with the reply.
        """
        if not isinstance(then, Call):
            then = continuation(then)
        self._check_rank(rank)
        ticket = child_id(self._base, self._ordinal)
        self._runner.state.parked[self._job, ticket] = then
        self.put(_serve, function, args, self.rank, ticket, rank=rank)

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers that depend on the session's seed and this continuation's identity."""
        if self._rng is None:
            words = np.frombuffer(self._base, dtype=np.uint32)
            self._rng = np.random.default_rng([self._seed, *(int(word) for word in words)])
        return self._rng

    def __getitem__(self, variable: Handle | Target) -> Any:
        """Return this rank's partition of a variable: the object itself, not a copy."""
        try:
            return self._partitions[variable.variable]
        except KeyError:
            raise NotReadyError(
                f"{variable!r} has no partition on rank {self.rank} yet: give its handle as an "
                "argument to the continuation that reads it, which then waits for it"
            ) from None
        except AttributeError:
            raise UsageError(f"here[...] takes a variable, not {variable!r}") from None

    def __setitem__(self, variable: Handle | Target, value: Any) -> None:
        """Set this rank's partition of a variable; what waits for it can start."""
        if not isinstance(variable, Handle | Target):
            raise UsageError(f"here[...] takes a variable, not {variable!r}")
        self._runner.set_partition(variable.variable, value)

    def _check_rank(self, rank: int) -> None:
        if not isinstance(rank, int | np.integer) or not 0 <= rank < self.size:
            raise UsageError(f"there is no rank {rank!r}: ranks are 0 to {self.size - 1}")

    # ------------------------------------------------------------ for models

    def stands_for(self, function: Callable[..., Any]) -> None:
        """Name the user's function in what is said of an error of this continuation."""
        self.function = function

    def gang(self) -> tuple[GangPort, Objects]:
        """Return what carries the messages of the running step of a gang, and writes objects."""
        running = self._rank.running
        if running is None or running.gang is None:
            raise UsageError("this continuation is no step of a gang")
        link = self._runner.mailbox.link()
        if link is None:
            self.port = GangPort(self._runner, *running.gang)
        else:
            self.port = MpiPort(self._runner, *running.gang, link)
        return self.port, self._runner.objects(self._job)

    def then(self, function: Callable[..., Any], *args: Any, needs: Iterable[int] = ()) -> None:
        """Make this rank's part of the gang's next step; every rank does, last of all.

        Parameters
        ----------
        function : callable
            What to run.
        *args
            Its arguments, as they are.
        needs : iterable of int
            The variables for which the step waits: the same on every rank.
        """
        running = self._rank.running
        if running is None or running.gang is None:
            raise UsageError("this continuation is no step of a gang")
        gang, step = running.gang
        ordinal, self._ordinal = self._ordinal, self._ordinal + 1
        identity = child_id(self._base, ordinal)
        work = function, args
        self._runner.put_here(
            Continuation(identity, self._job, tuple(needs), work, (gang, step + 1))
        )

    @property
    def due(self) -> bool:
        """Whether to put the rest and return: the slice is used up, or a cut waits."""
        if self._deadline == 0.0:
            self._deadline = perf_counter() + SLICE
            return False
        return perf_counter() > self._deadline or self._rank.state in ("cutting", "retired")

    def at(
        self,
        index: int,
        label: Callable[[], str] | str | None = None,
        value: Any = None,
    ) -> None:
        """Take the identity of record `index` of this rank and job; `value` is the record.

        Puts and random numbers of the user's function then depend on the record, not on how the
        work was cut into continuations.
        """
        self._id, self._index = b"", index
        self._ordinal = 0
        self._rng = None
        self._label = label
        self._noted[RECORD] = index
        if self._poisoned and self._base in self._poisoned:
            raise Poisoned(self._base, value)

    def phase(self, name: str) -> None:
        """Tell, once, that this rank has come to a phase of the job."""
        phases, engine = self._runner.phases, self._runner.engine
        if phases.get(self._job) != name:
            with engine.lock:
                phases[self._job] = name
                if self._rank.state != "retired":
                    told = Phase(self._rank.epoch, self.rank, self._job, name)
                    engine.to_master(told)

    def progress(self, done: int, total: int) -> None:
        """Tell how much of this rank's share of the job is done, in the model's units."""
        engine = self._runner.engine
        with engine.lock:
            if self._rank.state != "retired":
                engine.progress[self.rank, self._job] = (done, total)

    def mapped(self, count: int) -> None:
        """Count records that a map has gone through, for the event log."""
        engine = self._runner.engine
        key = self.rank, self._job
        with engine.lock:
            if self._rank.state != "retired":
                engine.mapped[key] = engine.mapped.get(key, 0) + count


def _serve(function: Callable[..., Any], args: tuple[Any, ...], rank: int, ticket: bytes) -> None:
    at = here()
    at.function = function
    at.put(_reply, ticket, function(*args), rank=rank)


def _reply(ticket: bytes, value: Any) -> None:
    at = here()
    then = at._runner.state.parked.pop((at._job, ticket))
    at.put(then.function, *then.args, value)
