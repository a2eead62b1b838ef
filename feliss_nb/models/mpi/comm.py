"""Communicators: a set of ranks and a context of their own for what they say to each other."""
# ruff: noqa: N802  mpi4py's names

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any, Final

from feliss_nb.errors import UsageError
from feliss_nb.models.mpi import constants, core, moving, quiet
from feliss_nb.models.mpi.array_collectives import ArrayCollectives
from feliss_nb.models.mpi.constants import UNDEFINED
from feliss_nb.models.mpi.core import Core
from feliss_nb.models.mpi.failures import Aborted, MPIError
from feliss_nb.models.mpi.group import Group
from feliss_nb.models.mpi.nonblocking import NonblockingCollectives
from feliss_nb.models.mpi.object_collectives import ObjectCollectives
from feliss_nb.models.mpi.point import PointToPoint
from feliss_nb.models.mpi.request import Request
from feliss_nb.runtime import needs_of


class Comm(PointToPoint, ObjectCollectives, ArrayCollectives, NonblockingCollectives):
    """A communicator.

    Parameters
    ----------
    inner : Core, optional
        None for ``COMM_NULL``.
    """

    def __init__(self, inner: Core | None = None) -> None:
        self._inner = inner

    @property
    def _core(self) -> Core:  # type: ignore[override]
        if self._inner is None:
            raise MPIError(constants.ERR_COMM, "COMM_NULL")
        return self._inner

    def __reduce__(self) -> str | tuple[object, ...]:
        if self is COMM_NULL:
            return _null, ()
        raise TypeError(
            "a communicator belongs to one step of a gang; give the next step what it needs, "
            "and use the communicator that it is called with"
        )

    def __bool__(self) -> bool:
        return self._inner is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Comm):
            return NotImplemented
        if not self or not other:
            return bool(self) == bool(other)
        return self._core is other._core

    def __hash__(self) -> int:
        return hash(self._core.context) if self else 0

    def __repr__(self) -> str:
        if not self:
            return "<MPI communicator COMM_NULL>"
        return f"<MPI communicator {self._core.name}, rank {self.rank} of {self.size}>"

    def Get_rank(self) -> int:
        """Give this rank."""
        return self._core.rank

    def Get_size(self) -> int:
        """Count the ranks."""
        return self._core.size

    @property
    def rank(self) -> int:
        """This rank."""
        return self._core.rank

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self._core.size

    def Get_name(self) -> str:
        """Give the name, which errors and reports of deadlocks use."""
        return self._core.name

    def Set_name(self, name: str) -> None:
        """Give it another name."""
        self._core.rename(name)

    @property
    def name(self) -> str:
        """The name, which errors and reports of deadlocks use."""
        return self._core.name

    @name.setter
    def name(self, name: str) -> None:
        self._core.rename(name)

    def Get_group(self) -> Group:
        """Give the group of its ranks."""
        return self._core.group

    @property
    def group(self) -> Group:
        """The group of its ranks."""
        return self._core.group

    @property
    def reproducible(self) -> bool:
        """Whether reductions combine in an order that ranks and counts alone decide.

        So they do from the start: results are equal bit for bit between runs, losses and
        placements. False, on all ranks, lets MPI combine as it likes in ``Allreduce`` and
        ``Reduce``, where it carries the messages.
        """
        return self._core.reproducible

    @reproducible.setter
    def reproducible(self, wanted: bool) -> None:
        self._core.reproducible = wanted

    @property
    def is_inter(self) -> bool:
        """Whether it joins two groups: never."""
        return False

    @property
    def is_intra(self) -> bool:
        """Whether it has one group: always."""
        return True

    @property
    def is_topo(self) -> bool:
        """Whether its ranks have a topology."""
        return self.Get_topology() != UNDEFINED

    @property
    def topology(self) -> int:
        """``CART``, or ``UNDEFINED``."""
        return self.Get_topology()

    def Is_inter(self) -> bool:
        """Whether it joins two groups: never."""
        return False

    def Is_intra(self) -> bool:
        """Whether it has one group: always."""
        return True

    def Get_topology(self) -> int:
        """Give ``CART``, or ``UNDEFINED``."""
        return UNDEFINED

    @classmethod
    def Compare(cls, comm1: Comm, comm2: Comm) -> int:
        """Give ``IDENT``, ``CONGRUENT`` (context differs), ``SIMILAR`` (order too), ``UNEQUAL``."""
        if comm1 == comm2:
            return constants.IDENT
        same = comm1._core.group.Compare(comm2._core.group)
        return constants.CONGRUENT if same == constants.IDENT else same

    def Abort(self, errorcode: int = 0) -> None:
        """End the gang and its job."""
        raise Aborted(errorcode, f"rank {self.rank} of {self._core.name}")

    def Free(self) -> None:
        """Let go of it."""
        if self._inner is not None and self._inner.then is not None:
            raise MPIError(constants.ERR_COMM, "the gang's own communicator cannot be freed")
        self._inner = None

    free = Disconnect = Free

    def _ordinal(self, key: object = "") -> int:
        """Count the communicators made with ``key`` from this one: the same on every rank."""
        created = self._core.created
        created[key] = created.get(key, 0) + 1
        return created[key]

    def Dup(self, info: object = None) -> Any:
        """Give the same ranks another context."""
        inner = self._core
        made = inner.child(inner.group.members, f"{inner.name} (dup)", "new", self._ordinal())
        made.attributes.update(inner.attributes)
        inner.run(*_agreed("Dup"))
        return self._like(made)

    def _like(self, made: Core) -> Any:
        return Intracomm(made)

    def Dup_with_info(self, info: object) -> Any:
        """Give the same ranks another context."""
        return self.Dup()

    def Clone(self) -> Any:
        """Give the same ranks another context."""
        return self.Dup()

    def Idup(self, info: object = None) -> tuple[Any, Request]:
        """Begin to give the same ranks another context."""
        return self.Dup(), Request(self._core.endpoint)

    def Create(self, group: Group) -> Intracomm:
        """Make a communicator of a group; every rank of this one calls it."""
        inner = self._core
        ordinal = self._ordinal()
        inner.run(*_agreed("Create"))
        if inner.endpoint.rank not in group.members:
            return COMM_NULL
        return Intracomm(inner.child(group.members, f"{inner.name} (create)", "new", ordinal))

    def Split(self, color: int = 0, key: int = 0) -> Intracomm:
        """Make a communicator of each colour's ranks, in the order of their keys."""
        inner = self._core
        color, key = operator.index(color), operator.index(key)
        if color < 0 and color != UNDEFINED:
            raise MPIError(constants.ERR_ARG, f"color {color}")
        ordinal = self._ordinal()
        said = self.allgather((color, key))
        if color == UNDEFINED:
            return COMM_NULL
        ranks = sorted(
            (other_key, rank) for rank, (other, other_key) in enumerate(said) if other == color
        )
        members = [inner.group.members[rank] for _, rank in ranks]
        name = f"{inner.name} (split {ordinal}, color {color})"
        return Intracomm(inner.child(members, name, "split", ordinal, color))

    def Split_type(self, split_type: int, key: int = 0, info: object = None) -> Intracomm:
        """Make a communicator of the ranks that share something.

        ``COMM_TYPE_SHARED`` gives each rank alone: no memory is shared between ranks.
        """
        if split_type == UNDEFINED:
            return self.Split(UNDEFINED)
        if split_type != constants.COMM_TYPE_SHARED:
            raise MPIError(constants.ERR_ARG, f"split type {split_type}")
        return self.Split(self.rank, key)

    def Get_attr(self, keyval: int) -> Any:
        """Give an attribute, None if it is not set."""
        known = {constants.TAG_UB: constants.MAX_TAG, constants.WTIME_IS_GLOBAL: False}
        known[constants.UNIVERSE_SIZE] = self._core.endpoint.size
        return known.get(keyval, self._core.attributes.get(keyval))

    def Set_attr(self, keyval: int, attrval: Any) -> None:
        """Set an attribute."""
        self._core.attributes[keyval] = attrval

    def Delete_attr(self, keyval: int) -> None:
        """Delete an attribute."""
        if self._core.attributes.pop(keyval, None) is None:
            raise MPIError(constants.ERR_KEYVAL, f"{keyval}")

    def Set_errhandler(self, errhandler: object) -> None:
        """Nothing to do: errors raise."""

    def Attach_buffer(self, buf: object) -> None:
        """Nothing to do: sends are buffered as they are."""

    def Detach_buffer(self) -> None:
        """Nothing to do: sends are buffered as they are."""


class Intracomm(Comm):
    """A communicator of one group of ranks."""

    def Create_group(self, group: Group, tag: int = 0) -> Intracomm:
        """Make a communicator of a group; only its ranks call it."""
        inner = self._core
        if inner.endpoint.rank not in group.members:
            return COMM_NULL
        key = ("group", group.members, operator.index(tag))
        made = inner.child(group.members, f"{inner.name} (group)", *key, self._ordinal(key))
        made.run(*_agreed("Create_group"))
        return Intracomm(made)

    def Create_cart(self, dims: Iterable[int], periods: Any = None, reorder: bool = False) -> Any:
        """Lay the ranks out as a grid; the last dimension runs fastest."""
        from feliss_nb.models.mpi.cart import lay_out

        return lay_out(self, dims, periods)

    def then(self, step: Callable[..., Any], /, *args: Any) -> Any:
        """Make ``step(comm, *args)`` the gang's next continuation; every rank calls it last.

        A checkpoint can stand between this continuation and the next. What ``step`` returns stands
        for what this function returns.

        Raises
        ------
        UsageError
            This is not the gang's own communicator; or a message was not received, a request is
            open, and the error names them.
        """
        inner = self._core
        if inner.then is None:
            raise UsageError("then belongs to the gang's own communicator, MPI.COMM_WORLD")
        needs = quiet.check_quiet(inner, "comm.then", needs_of(args))
        return inner.then(step, args, needs)

    def check_quiet(self) -> None:
        """Raise, on every rank, if a message was not received or a request is open.

        Every rank of the gang calls it.
        """
        quiet.check_quiet(self._core)


class World(Intracomm):
    """``MPI.COMM_WORLD``: the communicator of the gang whose rank the calling thread runs."""

    def __init__(self, alone: bool) -> None:
        super().__init__()
        self._alone = alone

    @property
    def _core(self) -> Core:  # type: ignore[override]
        found = core.current()
        return core.own(found) if self._alone else found

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> tuple[object, ...]:
        return _world, (self._alone,)

    def __hash__(self) -> int:
        return hash(self._core.context)

    def __repr__(self) -> str:
        return "<MPI communicator COMM_SELF>" if self._alone else "<MPI communicator COMM_WORLD>"

    def Free(self) -> None:
        """Raise: it cannot be freed."""
        raise MPIError(constants.ERR_COMM, f"{self!r} cannot be freed")

    free = Disconnect = Free


COMM_NULL: Final = Intracomm()
COMM_WORLD: Final = World(alone=False)
COMM_SELF: Final = World(alone=True)


def _null() -> Intracomm:
    return COMM_NULL


def _world(alone: bool) -> World:
    return COMM_SELF if alone else COMM_WORLD


def _agreed(call: str) -> Any:
    """Give a barrier by another name: a call that every rank must make."""
    return moving.barrier, (call,)
