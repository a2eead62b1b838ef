"""A collective as a generator: it sends, yields the receives it waits for, and returns its result.

One form serves the blocking call (driven to its end at once) and the non-blocking one (moved on
within any wait or test of its rank).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from feliss_nb.models.mpi import constants
from feliss_nb.models.mpi.endpoint import COLLECTIVE, Arrival, Endpoint, Operation, Receive
from feliss_nb.models.mpi.failures import MPIError
from feliss_nb.models.mpi.port import Wait

#: What one rank contributes: buffers that travel together.
Item = Sequence[Any]
#: Yields a receive, is sent its items.
Steps = Generator[Receive, list[Item], Any]
#: Makes the steps for a channel.
Plan = Callable[["Channel"], Steps]


class Channel:
    """One collective call on one communicator, seen from one rank.

    Parameters
    ----------
    endpoint : Endpoint
    members : sequence of int
        Ranks of the communicator in the gang.
    rank : int
        In the communicator.
    context, ordinal : int
        Of the communicator's collectives, and of this call among them.
    name : str
        The communicator's.
    call : tuple
        What all ranks must agree on: the call's name, its root, its size ...

    Attributes
    ----------
    size : int
        Number of ranks.
    """

    __slots__ = (
        "call",
        "context",
        "endpoint",
        "members",
        "name",
        "ordinal",
        "rank",
        "size",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        members: Sequence[int],
        rank: int,
        context: int,
        ordinal: int,
        name: str,
        call: tuple[Any, ...],
    ) -> None:
        self.endpoint, self.members, self.rank = endpoint, members, rank
        self.context, self.ordinal = context, ordinal
        self.name, self.call = name, call
        self.size = len(members)

    def send(self, destination: int, *items: Item, frozen: bool = False) -> None:
        """Send items to a rank; with ``frozen`` they are from ``freeze``."""
        buffers = [buffer for item in items for buffer in item]
        lengths = [len(item) for item in items]
        self.endpoint.send(
            self.members[destination],
            self.context,
            self.ordinal,
            COLLECTIVE,
            buffers,
            (lengths, self.call),
            frozen=frozen,
        )

    def freeze(self, *items: Item) -> list[Item]:
        """Copy items, to send them to several ranks without a copy for each."""
        buffers = self.endpoint.port.freeze([buffer for item in items for buffer in item])
        return _divide(buffers, [len(item) for item in items])

    def shares_memory(self) -> bool:
        """Whether all ranks read what is frozen where it lies."""
        return self.endpoint.port.shares_memory(self.members)

    def receive(self, source: int) -> Receive:
        """Post the receive of a rank's next message."""
        member = self.members[source]

        def wait() -> Wait:
            return self.call[0], self.name, (member,), None

        return self.endpoint.post(Receive(self.context, member, self.ordinal, wait))


class Schedule(Operation):
    """A collective that is under way."""

    __slots__ = ("_steps", "_waiting", "channel", "value")

    def __init__(self, channel: Channel, plan: Plan) -> None:
        super().__init__()
        self.channel = channel
        self.value: Any = None
        self._waiting: Receive | None = None
        endpoint = channel.endpoint
        endpoint.active[channel.context, channel.ordinal] = self
        for early in endpoint.early(channel.context, channel.ordinal):
            self.check(early)
        self._steps = plan(channel)
        self._resume(None)

    def check(self, arrival: Arrival) -> None:
        """Fail where another rank called something else."""
        theirs, ours = tuple(arrival.note[1]), self.channel.call
        if theirs == ours or self.done:
            return
        size = theirs[:-1] == ours[:-1]
        source = self.channel.members.index(arrival.source)
        self._end(
            MPIError(
                constants.ERR_TRUNCATE if size else constants.ERR_OTHER,
                f"on {self.channel.name}, rank {source} called {_named(theirs)} "
                f"where rank {self.channel.rank} called {_named(ours)}",
            )
        )

    def advance(self) -> None:
        """Go on as far as the messages allow."""
        waiting = self._waiting
        if not self.done and waiting is not None and waiting.done:
            self._resume(_items(waiting))

    def _resume(self, items: list[Item] | None) -> None:
        try:
            while not self.done:
                receive = self._steps.send(items) if items is not None else next(self._steps)
                self._waiting = receive
                if not receive.done:
                    return
                items = _items(receive)
        except StopIteration as end:
            self.value = end.value
            self._end(None)
        except Exception as error:  # noqa: BLE001  whoever waits for it is told
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self.error, self.done = error, True
        channel = self.channel
        channel.endpoint.active.pop((channel.context, channel.ordinal), None)
        if self._waiting is not None:
            channel.endpoint.withdraw(self._waiting)
            self._waiting = None

    def result(self) -> Any:
        """Give what it yields, or raise its error."""
        if self.error is not None:
            raise self.error
        return self.value

    def waits(self) -> list[Wait]:
        """Tell what it waits for."""
        return [] if self.done or self._waiting is None else self._waiting.waits()


def _items(receive: Receive) -> list[Item]:
    arrival = receive.arrival()
    assert arrival is not None
    return _divide(arrival.buffers, arrival.note[0])


def _divide(buffers: Sequence[Any], lengths: Sequence[int]) -> list[Item]:
    items: list[Item] = []
    start = 0
    for length in lengths:
        items.append(buffers[start : start + length])
        start += length
    return items


def _named(call: tuple[Any, ...]) -> str:
    details = ", ".join(str(detail) for detail in call[1:] if detail is not None)
    return f"{call[0]}({details})"
