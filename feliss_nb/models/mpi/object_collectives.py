"""Collectives of objects (lower case): pickled once, passed on as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from feliss_nb.models.mpi import constants, moving, ops, reducing
from feliss_nb.models.mpi.core import Core
from feliss_nb.models.mpi.failures import MPIError
from feliss_nb.models.mpi.missing import Checked
from feliss_nb.models.mpi.objects import copied, decode, encode
from feliss_nb.models.mpi.schedule import Channel, Item, Steps

#: More ranks than this gather and scatter objects through a tree.
TREE_RANKS = 16


class Objects:
    """How objects are combined by an operation: see ``reducing.Combiner``."""

    def __init__(self, op: Callable[[Any, Any], Any]) -> None:
        self.op = op

    def encode(self, value: Any) -> Item:
        """Give an object as an item."""
        return encode(value)

    def decode(self, item: Item) -> Any:
        """Give an item as an object."""
        return decode(item)

    def combine(self, lower: Any, higher: Any) -> Any:
        """Combine two objects."""
        return self.op(lower, higher)

    def copy(self, value: Any) -> Any:
        """Give the object itself: operations make new ones."""
        return value


class ObjectCollectives(Checked):
    """Collectives of objects."""

    _core: Core

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        self._core.run(moving.barrier, ("barrier",))

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Give every rank the root's object."""
        core = self._core
        root = core.root(root)
        mine = root == core.rank
        item = encode(obj) if mine and core.size > 1 else [] if mine else None
        got = core.run(lambda c: moving.broadcast(c, item, root), ("bcast", root))
        return obj if mine else decode(got)

    def scatter(self, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
        """Give each rank its one of the root's objects."""
        core = self._core
        items = None
        root = core.root(root)
        if root == core.rank:
            items = self._each(sendobj)
        steps = moving.scatter_tree if core.size > TREE_RANKS else moving.scatter_direct
        got = core.run(lambda c: steps(c, items, root), ("scatter", root))
        return copied(list(sendobj or ())[root]) if items is not None else decode(got)

    def _each(self, objects: Any) -> list[Item]:
        values = list(objects) if objects is not None else []
        if len(values) != self._core.size:
            raise ValueError(f"expecting {self._core.size} items, got {len(values)}")
        return [encode(value) if i != self._core.rank else [] for i, value in enumerate(values)]

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        """Give the root a list of every rank's object."""
        core = self._core
        root = core.root(root)
        mine = root == core.rank
        item = [] if mine else encode(sendobj)
        steps = moving.gather_tree if core.size > TREE_RANKS else moving.gather_direct
        got = core.run(lambda c: steps(c, item, root), ("gather", root))
        return self._decoded(got, sendobj) if mine else None

    def allgather(self, sendobj: Any) -> list[Any]:
        """Give every rank a list of every rank's object."""
        item = encode(sendobj)
        got = self._core.run(lambda c: moving.allgather(c, item), ("allgather",))
        return self._decoded(got, sendobj)

    def _decoded(self, items: Sequence[Item], own: Any) -> list[Any]:
        rank = self._core.rank
        return [copied(own) if i == rank else decode(item) for i, item in enumerate(items)]

    def alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """Give each rank its one of every rank's objects."""
        items = self._each(sendobj)
        got = self._core.run(lambda c: moving.alltoall(c, items.__getitem__), ("alltoall",))
        return self._decoded(got, list(sendobj)[self._core.rank])

    def _reduced(self, call: str, steps: Callable[..., Steps], op: Any, *details: Any) -> Any:
        if not callable(op) or (isinstance(op, ops.Op) and not op):
            raise MPIError(constants.ERR_OP, f"{op!r}")
        how = Objects(op)

        def plan(channel: Channel) -> Steps:
            return steps(channel, how, *details)

        name = op.name if isinstance(op, ops.Op) else ""
        root = details[1] if call == "reduce" else None
        return self._core.run(plan, (call, root, name))

    def reduce(self, sendobj: Any, op: Any = ops.SUM, root: int = 0) -> Any:
        """Combine every rank's object, lower ranks on the left, for the root."""
        root = self._core.root(root)
        return self._reduced("reduce", reducing.reduce, op, sendobj, root)

    def allreduce(self, sendobj: Any, op: Any = ops.SUM) -> Any:
        """Combine every rank's object, lower ranks on the left, for all."""
        return self._reduced("allreduce", reducing.allreduce, op, sendobj)

    def scan(self, sendobj: Any, op: Any = ops.SUM) -> Any:
        """Combine the objects of all ranks up to this one."""
        return self._reduced("scan", reducing.scan, op, sendobj, True)

    def exscan(self, sendobj: Any, op: Any = ops.SUM) -> Any:
        """Combine the objects of all ranks below this one; None for rank 0."""
        return self._reduced("exscan", reducing.scan, op, sendobj, False)
