"""The messages of one rank in one step of a gang: matching, waiting, and what is under way.

The rules. A message goes to the first posted receive that it matches, in the order of posting; a
receive takes the first message that it matches, in the order of arrival, which for one source and
context is the order of sending. Contexts (one for the messages and one for the collectives of each
communicator) never mix. All of it happens on the rank's own thread, so nothing is locked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from feliss_nb.models.mpi import constants
from feliss_nb.models.mpi.port import Port, Wait
from feliss_nb.state import codec

#: What a message carries.
OBJECT: Final = "o"
BUFFER: Final = "b"
COLLECTIVE: Final = "c"
_ACK: Final = "a"
#: The call that counts messages, whose own are not counted.
COUNTING: Final = "then"


@dataclass(slots=True, eq=False)
class Arrival:
    """A message that arrived.

    Attributes
    ----------
    source : int
        In the gang.
    tag : int
        In the context of a collective: its ordinal.
    buffers : sequence of buffers
        The receiver's own.
    ack : int or None
        What the sender of a synchronous message waits for.
    note : object
        Of a collective: the number of buffers of each item, and what was called.
    nbytes : int
        Bytes of data.
    """

    source: int
    context: int
    tag: int
    kind: str
    buffers: Sequence[Any]
    ack: int | None
    note: Any
    nbytes: int


class Operation:
    """Something that is under way on a rank.

    Attributes
    ----------
    done : bool
    error : BaseException or None
        Why it failed, when it is done.
    """

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = False
        self.error: BaseException | None = None

    def result(self) -> Any:
        """Give what it yields, or raise its error; it is done."""
        if self.error is not None:
            raise self.error

    def waits(self) -> list[Wait]:
        """Tell what it waits for."""
        return []

    def arrival(self) -> Arrival | None:
        """Give the message that it received, if it received one."""
        return None


class Receive(Operation):
    """A receive of a message.

    Parameters
    ----------
    source, tag : int
        The source in the gang; both may be any.
    sink : callable, optional
        Given the arrival at the moment it matches: takes the data out of it.
    wait : callable
        Gives what it waits for.
    """

    __slots__ = ("_arrival", "_sink", "_wait", "cancelled", "context", "source", "tag")

    def __init__(
        self,
        context: int,
        source: int,
        tag: int,
        wait: Callable[[], Wait],
        sink: Callable[[Arrival], None] | None = None,
    ) -> None:
        super().__init__()
        self.context, self.source, self.tag = context, source, tag
        self._wait, self._sink = wait, sink
        self._arrival: Arrival | None = None
        self.cancelled = False

    def takes(self, arrival: Arrival) -> bool:
        """Whether it matches."""
        return _match(self.source, self.tag, arrival)

    def complete(self, arrival: Arrival) -> None:
        """Take the message."""
        self._arrival = arrival
        if self._sink is not None:
            try:
                self._sink(arrival)
            except Exception as error:  # noqa: BLE001  whoever waits for it is told
                self.error = error
            arrival.buffers = ()
        self.done = True

    def arrival(self) -> Arrival | None:
        """Give the message."""
        return self._arrival

    def waits(self) -> list[Wait]:
        """Tell what it waits for."""
        return [] if self.done else [self._wait()]


def _uncounted(kind: str, note: Any) -> bool:
    return kind == COLLECTIVE and note[1][0] == COUNTING


def _match(source: int, tag: int, arrival: Arrival) -> bool:
    if tag not in (constants.ANY_TAG, arrival.tag):
        return False
    return source in (constants.ANY_SOURCE, arrival.source)


class Synchronous(Operation):
    """A send that is done when its receive has begun."""

    __slots__ = ("_wait",)

    def __init__(self, wait: Wait) -> None:
        super().__init__()
        self._wait = wait

    def waits(self) -> list[Wait]:
        """Tell what it waits for."""
        return [] if self.done else [self._wait]


@dataclass(slots=True)
class Queues:
    """One context's messages that nobody took yet, and receives that have none yet."""

    unexpected: list[Arrival] = field(default_factory=list)
    posted: list[Receive] = field(default_factory=list)


class Endpoint:
    """The messages of one rank in one step of a gang.

    Parameters
    ----------
    port : Port
        Its ``deliver`` is set.

    Attributes
    ----------
    sent : list of int
        Messages sent to each rank of the gang, acknowledgements and the counting itself aside.
    received : int
        Such messages that arrived.
    active : dict
        Collectives that are under way, by context and ordinal.
    """

    def __init__(self, port: Port) -> None:
        self.port = port
        self.rank, self.size = port.rank, port.size
        self.sent = [0] * port.size
        self.received = 0
        self.active: dict[tuple[int, int], Any] = {}
        self.names: dict[int, str] = {}
        self.pending: set[Any] = set()
        self._queues: dict[int, Queues] = {}
        self._unacknowledged: dict[int, Synchronous] = {}
        self._acks = 0
        self.own: Any = None  # the communicator of this rank alone, once it is asked for
        port.deliver = self._deliver

    def send(
        self,
        destination: int,
        context: int,
        tag: int,
        kind: str,
        buffers: Sequence[Any],
        note: Any = None,
        wait: Wait | None = None,
        frozen: bool = False,
    ) -> Operation | None:
        """Send a message; with ``wait``, give the operation that ends when it is received.

        With ``frozen`` the buffers are from ``port.freeze``.
        """
        ack = None
        operation = None
        if wait is not None:
            self._acks += 1
            ack = self._acks
            operation = self._unacknowledged[ack] = Synchronous(wait)
        if not _uncounted(kind, note):
            self.sent[destination] += 1
        head = (kind, context, tag, ack, note)
        if destination == self.rank:
            self._deliver(destination, head, codec.fresh(buffers))
        else:
            self.port.send(destination, head, buffers, frozen)
        return operation

    def _queues_of(self, context: int) -> Queues:
        queues = self._queues.get(context)
        if queues is None:
            queues = self._queues[context] = Queues()
        return queues

    def _deliver(self, source: int, head: tuple[Any, ...], buffers: Sequence[Any]) -> None:
        kind, context, tag, ack, note = head
        if kind == _ACK:
            self._unacknowledged.pop(ack).done = True
            return
        if not _uncounted(kind, note):
            self.received += 1
        arrival = Arrival(source, context, tag, kind, buffers, ack, note, codec.total(buffers))
        if kind == COLLECTIVE and (context, tag) in self.active:
            self.active[context, tag].check(arrival)
        queues = self._queues_of(context)
        for index, receive in enumerate(queues.posted):
            if receive.takes(arrival):
                del queues.posted[index]
                self._hand(receive, arrival)
                return
        queues.unexpected.append(arrival)

    def _hand(self, receive: Receive, arrival: Arrival) -> None:
        receive.complete(arrival)
        self.acknowledge(arrival)

    def acknowledge(self, arrival: Arrival) -> None:
        """Tell the sender of a synchronous message that it is received."""
        if arrival.ack is None:
            return
        head = (_ACK, arrival.context, 0, arrival.ack, None)
        arrival.ack = None
        if arrival.source == self.rank:
            self._deliver(self.rank, head, ())
        else:
            self.port.send(arrival.source, head, ())

    def post(self, receive: Receive) -> Receive:
        """Give a receive its message, now or when it comes."""
        queues = self._queues_of(receive.context)
        for index, arrival in enumerate(queues.unexpected):
            if receive.takes(arrival):
                del queues.unexpected[index]
                self._hand(receive, arrival)
                return receive
        queues.posted.append(receive)
        return receive

    def withdraw(self, receive: Receive) -> bool:
        """Take a posted receive back, if no message matched it yet."""
        if receive.done:
            return False
        self._queues_of(receive.context).posted.remove(receive)
        receive.cancelled = receive.done = True
        return True

    def find(self, context: int, source: int, tag: int, take: bool = False) -> Arrival | None:
        """Give the message that a receive would get, and take it out of the queue if asked."""
        unexpected = self._queues_of(context).unexpected
        for index, arrival in enumerate(unexpected):
            if _match(source, tag, arrival):
                if take:
                    del unexpected[index]
                return arrival
        return None

    def early(self, context: int, tag: int) -> list[Arrival]:
        """Give the messages that nobody took yet."""
        return [a for a in self._queues_of(context).unexpected if a.tag == tag]

    def progress(self) -> None:
        """Move on every collective that can."""
        for schedule in list(self.active.values()):
            schedule.advance()

    def poll(self) -> None:
        """Take in what has arrived, without waiting."""
        self.port.poll()
        self.progress()

    def wait(self, ready: Callable[[], bool], what: Callable[[], list[Wait]]) -> None:
        """Wait until ``ready()``; meanwhile every collective of this rank moves on."""
        self.progress()
        if ready():
            return

        def arrived() -> bool:
            self.progress()
            return ready()

        self.port.wait(arrived, what)

    def finish(self, operation: Operation) -> None:
        """Wait for one operation."""
        if not operation.done:
            self.wait(lambda: operation.done, operation.waits)

    def complaints(self) -> Iterator[str]:
        """Describe what would be lost if the step ended now."""
        for context, queues in self._queues.items():
            name = self.names.get(context, "a communicator that rank has not")
            for arrival in queues.unexpected:
                if _uncounted(arrival.kind, arrival.note):
                    continue
                call = f" of {arrival.note[1][0]}" if arrival.kind == COLLECTIVE else ""
                tag = "" if call else f", tag {arrival.tag}"
                yield (
                    f"rank {self.rank} has an unmatched message{call} from rank {arrival.source} "
                    f"of the gang on {name}{tag}, {arrival.nbytes} bytes"
                )
        for request in self.pending:
            yield f"rank {self.rank} has an open request: {request.describe()}"
