"""The messages of one rank in one step of a gang.

They are no continuations and stand in no snapshot: a step ends when every message was received, so
none is under way at a cut, and a rollback drops them with their epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from feliss_nb.errors import InternalError
from feliss_nb.runtime import wire
from feliss_nb.state.codec import fresh

if TYPE_CHECKING:
    from feliss_nb.runtime.mailbox import Letter
    from feliss_nb.runtime.mpi_link import MpiLink
    from feliss_nb.runtime.runner import Runner

# Seconds that a rank waits for a message before it says so: long against what a step does between
# two messages as a rule, short for a person who waits for the report of a deadlock.
PATIENCE = 1.0

# Messages with fewer bytes travel in one frame with their head, copied as they are: a frame of its
# own, or a segment, costs about as much as 64 KB take. From there on `shared.LIMITS` says how.
INLINE = 64 * 1024

# Seconds from a failure of MPI until it is a failure of the step. A lost rank ends the epoch in a
# fraction of this.
BROKEN_PATIENCE = 30.0

NO_STEP = (-1, -1)  # no message belongs to it


class GangPort:
    """Sends and receives for one rank; used by its thread alone.

    Parameters
    ----------
    runner : Runner
        Of the rank; it runs the step.
    gang, step : int
        Whose messages.
    """

    def __init__(self, runner: Runner, gang: int, step: int) -> None:
        self._runner, self._step = runner, (gang, step)
        runner.mailbox.expect(gang)
        self.rank, self.size = runner.rank.rank, runner.engine.size
        self.deliver: Callable[[int, tuple[Any, ...], Sequence[Any]], None] = _nowhere
        self._sent = [0] * self.size
        self._received = [0] * self.size

    def send(
        self,
        destination: int,
        head: tuple[Any, ...],
        buffers: Sequence[Any],
        frozen: bool = False,
    ) -> None:
        """Send a message; the buffers are copied before this returns, or come from `freeze`."""
        self._post(destination, head, buffers if frozen else self._copy(buffers, shared=False))
        self._sent[destination] += 1

    def _post(self, destination: int, head: tuple[Any, ...], copies: Sequence[Any]) -> None:
        self._runner.engine.data.post_to_gang(
            self._runner.rank, destination, *self._step, head, copies
        )

    def freeze(self, buffers: Sequence[Any]) -> Sequence[Any]:
        """Copy buffers, to send them to several ranks without a copy for each."""
        return self._copy(buffers, shared=True)

    def _copy(self, buffers: Sequence[Any], shared: bool) -> Sequence[Any]:
        if sum(memoryview(buffer).nbytes for buffer in buffers) < INLINE:
            return [bytes(buffer) for buffer in buffers]
        return self._runner.engine.fresh(buffers, shared)

    def shares_memory(self, ranks: Sequence[int]) -> bool:
        """Whether these ranks read large buffers where this engine has them."""
        return self._runner.engine.shares_memory(ranks)

    def poll(self) -> None:
        """Deliver what has come."""
        self._take(0.0)

    def _receive(self, patience: float) -> list[Letter]:
        return self._runner.mailbox.take(self._step, patience)

    def _take(self, patience: float) -> bool:
        letters = self._receive(patience)
        for letter in letters:
            self._received[letter[0]] += 1
            self.deliver(*letter)
        return bool(letters)

    def wait(self, arrived: Callable[[], bool], what: Callable[[], list[Any]]) -> None:
        """Deliver messages until ``arrived()``; tell each master of a long wait, once."""
        told = -1
        while not arrived():
            if self._take(PATIENCE):
                told = -1
            elif told != self._runner.engine.control.masters:
                told = self._runner.engine.control.masters
                self._runner.engine.tell_of_wait(
                    self._runner.rank, self._step, what(), self._sent, self._received
                )

    def flush(self) -> None:
        """Return when nothing of the step is under way from here."""

    def clock(self) -> float:
        """Return seconds since some moment."""
        return perf_counter()


class MpiPort(GangPort):
    """The same over MPI.

    Parameters
    ----------
    runner : Runner
        Of the rank; it runs the step.
    gang, step : int
        Whose messages.
    link : MpiLink
        Of the epoch.
    """

    def __init__(self, runner: Runner, gang: int, step: int, link: MpiLink) -> None:
        super().__init__(runner, gang, step)
        self._link = link
        self._broken: float | None = None  # since when
        self.native = Native(self, link)

    def _post(self, destination: int, head: tuple[Any, ...], copies: Sequence[Any]) -> None:
        self._runner.mailbox.send_by(self._link, destination, self._step, head, copies)

    def _copy(self, buffers: Sequence[Any], shared: bool) -> Sequence[Any]:
        """Copy into memory of this process alone: MPI has its own ways to share."""
        return [
            bytes(buffer) if memoryview(buffer).nbytes < wire.SMALL else fresh((buffer,))[0]
            for buffer in buffers
        ]

    def shares_memory(self, ranks: Sequence[int]) -> bool:
        """Whether these ranks read large buffers where this engine has them: not over MPI."""
        return False

    def _receive(self, patience: float) -> list[Letter]:
        if self._link.error:
            self._wait_for_the_end()
        return self._runner.mailbox.take_from(self._link, self._step, patience)

    def _wait_for_the_end(self) -> None:
        """MPI has failed: as a rule since a rank was lost, and then another epoch begins."""
        now = perf_counter()
        if self._broken is None:
            self._broken = now
        elif now - self._broken > BROKEN_PATIENCE:
            raise InternalError(f"MPI failed and no engine was lost: {self._link.error}")

    def flush(self) -> None:
        """Return when all that was sent has left: MPI moves it in calls of this rank only."""
        if not self._link.is_sent:
            self._runner.mailbox.take_from(self._link, NO_STEP, None, lambda: self._link.is_sent)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait for MPI's own work; messages that come meanwhile stay for later."""
        while not ready():
            if self._link.error:
                self._wait_for_the_end()
            self._runner.mailbox.take_from(self._link, NO_STEP, PATIENCE, ready)


class Native:
    """The reductions of MPI's own, in one step.

    Parameters
    ----------
    port : MpiPort
    link : MpiLink

    Attributes
    ----------
    in_step : bool or None
        Whether this step uses them, once the ranks have agreed.
    """

    def __init__(self, port: MpiPort, link: MpiLink) -> None:
        self._port, self._link = port, link
        self.in_step: bool | None = None

    @property
    def begun(self) -> int:
        """How many this rank has begun in the epoch."""
        return self._link.reductions

    def reduce(self, value: Any, op: str, root: int | None) -> None:
        """Combine every rank's array, in place, for the root or for all."""
        request = self._link.begin_reduce(value, op, root)
        self._port.wait_until(lambda: self._link.has_ended(request))


def _nowhere(source: int, head: tuple[Any, ...], buffers: Sequence[Any]) -> None:
    raise RuntimeError("a message came before anybody could take it")
