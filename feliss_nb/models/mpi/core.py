"""What stands behind a communicator: its ranks, its context, its name; and the running gang's."""

from __future__ import annotations

import hashlib
import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any

from feliss_nb.errors import UsageError
from feliss_nb.models.mpi import constants
from feliss_nb.models.mpi.endpoint import Arrival, Endpoint
from feliss_nb.models.mpi.failures import MPIError
from feliss_nb.models.mpi.group import Group
from feliss_nb.models.mpi.port import Wait
from feliss_nb.models.mpi.request import Request
from feliss_nb.models.mpi.schedule import Channel, Plan, Schedule

#: ``then(step, args, needs)``: makes the rest of the program the next continuation of the gang;
#: ``needs`` are the variables whose handles some rank's arguments hold.
Then = Callable[[Callable[..., Any], tuple[Any, ...], frozenset[int]], Any]


def derive(*parts: object) -> int:
    """Give the context of a communicator from what all of its ranks know; even, 62 bits."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2 << 1


class Core:
    """A communicator, seen from one rank.

    Parameters
    ----------
    endpoint : Endpoint
    members : sequence of int
        Its ranks, as ranks of the gang.
    context : int
        Of its messages; the next number is that of its collectives.
    name : str
    then : callable, optional
        What ``then`` does: on the gang's own communicator.

    Attributes
    ----------
    ordinal : int
        Collective calls so far.
    attributes : dict
        What ``Set_attr`` set.
    reproducible : bool
        Combine in an order that ranks and counts alone decide.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        members: Sequence[int],
        context: int,
        name: str,
        then: Then | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.group = Group(members, endpoint.rank)
        self.rank = self.group.Get_rank()
        self.size = len(members)
        self.context, self.name, self.then = context, name, then
        self.ordinal = 0
        self.created: dict[object, int] = {}
        self.attributes: dict[int, Any] = {}
        self.reproducible = True
        self.counting: Core | None = None  # the same ranks, to end a step by
        endpoint.names[context] = endpoint.names[context + 1] = name

    def rename(self, name: str) -> None:
        """Give it another name."""
        self.name = self.endpoint.names[self.context] = self.endpoint.names[self.context + 1] = name

    def child(self, members: Sequence[int], name: str, *key: object) -> Core:
        """Make a communicator of some of its ranks."""
        return Core(self.endpoint, members, derive(self.context, *key), name)

    def peer(self, rank: int, what: str, *special: int) -> int:
        """Check a rank that a call names, and give it."""
        rank = operator.index(rank)
        if 0 <= rank < self.size or rank in special or rank == constants.PROC_NULL:
            return rank
        raise MPIError(constants.ERR_RANK, f"{what} {rank} in {self.name} of {self.size} ranks")

    def root(self, rank: int) -> int:
        """Check the root that a call names, and give it."""
        rank = operator.index(rank)
        if 0 <= rank < self.size:
            return rank
        raise MPIError(constants.ERR_ROOT, f"root {rank} in {self.name} of {self.size} ranks")

    def tag(self, tag: int, *special: int) -> int:
        """Check the tag that a call names, and give it."""
        tag = operator.index(tag)
        if 0 <= tag <= constants.MAX_TAG or tag in special:
            return tag
        raise MPIError(constants.ERR_TAG, f"tag {tag} on {self.name}")

    def member(self, rank: int) -> int:
        """Give the rank in the gang of a rank here."""
        return rank if rank == constants.ANY_SOURCE else self.group.members[rank]

    def locate(self, arrival: Arrival) -> int:
        """Give the rank here of a message's source."""
        return self.group.place(arrival.source)

    def describe(self, call: str, rank: int, tag: int | None) -> Wait:
        """Describe a wait for a rank's message."""
        if rank == constants.ANY_SOURCE:
            whom = tuple(m for m in self.group.members if m != self.endpoint.rank)
        else:
            whom = (self.group.members[rank],)
        return call, self.name, whom, None if tag == constants.ANY_TAG else tag

    def schedule(self, plan: Plan, call: tuple[Any, ...]) -> Schedule:
        """Begin a collective."""
        self.ordinal += 1
        channel = Channel(
            self.endpoint,
            self.group.members,
            self.rank,
            self.context + 1,
            self.ordinal,
            self.name,
            call,
        )
        return Schedule(channel, plan)

    def run(self, plan: Plan, call: tuple[Any, ...]) -> Any:
        """Carry out a collective."""
        schedule = self.schedule(plan, call)
        self.endpoint.finish(schedule)
        return schedule.result()

    def start(self, plan: Plan, call: tuple[Any, ...]) -> Request:
        """Begin a collective and give its request."""
        schedule = self.schedule(plan, call)
        return Request(self.endpoint, schedule, lambda result, _: result, name=(call[0], self.name))


_local = threading.local()


def current() -> Core:
    """Give the communicator of the gang that the calling thread runs a rank of.

    Raises
    ------
    UsageError
        It runs none.
    """
    core: Core | None = getattr(_local, "core", None)
    if core is None:
        raise UsageError(
            "MPI.COMM_WORLD is the communicator of a gang: use it inside a function that "
            "session.spmd runs, on the thread that runs it"
        )
    return core


def enter(core: Core | None) -> Core | None:
    """Make a communicator the calling thread's, and give the one before."""
    before: Core | None = getattr(_local, "core", None)
    _local.core = core
    return before


def own(core: Core) -> Core:
    """Give the communicator of this rank alone."""
    made: Core | None = core.endpoint.own
    if made is None:
        made = Core(core.endpoint, [core.endpoint.rank], derive("self"), "MPI_COMM_SELF")
        core.endpoint.own = made
    return made
