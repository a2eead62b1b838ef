"""Collectives that combine memory: see ``array_plans`` for the form, ``reducing`` for the order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from feliss_nb.models.mpi import buffers, constants, moving, reducing
from feliss_nb.models.mpi.array_plans import Planned, fill, pieces
from feliss_nb.models.mpi.buffers import Section
from feliss_nb.models.mpi.constants import IN_PLACE
from feliss_nb.models.mpi.core import Core
from feliss_nb.models.mpi.datatype import Datatype
from feliss_nb.models.mpi.failures import MPIError
from feliss_nb.models.mpi.ops import Op
from feliss_nb.models.mpi.schedule import Channel, Item, Steps

Array = np.ndarray[Any, Any]


class Arrays:
    """How arrays are combined by an operation: see ``reducing.Combiner``."""

    def __init__(self, op: Op, datatype: Datatype) -> None:
        op.check(datatype)
        self.op, self.datatype = op, datatype
        assert datatype.base is not None
        self.base = datatype.base

    def encode(self, value: Array) -> Item:
        """Give an array as an item."""
        return (value.view(np.uint8) if value.nbytes else np.empty(0, np.uint8),)

    def decode(self, item: Item) -> Array:
        """Give an item as an array, where it lies if that is aligned."""
        return buffers.view(item[0], self.base)

    def combine(self, lower: Array, higher: Array, into: Array | None = None) -> Array:
        """Combine two arrays of one size, into a given one or one of them, where writable."""
        if lower.size != higher.size:
            raise MPIError(constants.ERR_TRUNCATE, f"{lower.size} and {higher.size} elements")
        if into is None:
            into = lower if lower.flags.writeable else higher
        out = into if into.flags.writeable else np.empty_like(lower)
        self.op.combine(lower, higher, out, self.datatype)
        return out

    def copy(self, value: Array) -> Array:
        """Copy an array."""
        return value.copy()


def ends(core: Core, sendbuf: Any, recvbuf: Any, receives: bool) -> tuple[Section, Section | None]:
    """Give what is read and what is written; with IN_PLACE they are one."""
    target = buffers.message(recvbuf) if receives else None
    if sendbuf is IN_PLACE:
        if target is None:
            raise MPIError(constants.ERR_BUFFER, "IN_PLACE is for the root only")
        return target, target
    source = buffers.message(sendbuf)
    if target is not None and target.nbytes < source.nbytes:
        raise MPIError(
            constants.ERR_TRUNCATE,
            f"rank {core.rank} reduces {source.nbytes} bytes to a buffer of {target.nbytes}",
        )
    return source, target


def store(target: Section | None, value: Array | None) -> None:
    """Write a value where it is wanted."""
    if target is not None and value is not None:
        target.write(value.view(np.uint8) if value.nbytes else b"")


def reduce(core: Core, sendbuf: Any, recvbuf: Any, op: Op, root: int) -> Planned:
    """Plan ``Reduce``."""
    root = core.root(root)
    source, target = ends(core, sendbuf, recvbuf, core.rank == root)
    how = Arrays(op, source.datatype)
    call = ("Reduce", root, op.name, source.nbytes)

    def short(channel: Channel) -> Steps:
        value = source.typed().copy()
        store(target, (yield from reducing.reduce(channel, how, value, root)))

    def long(channel: Channel) -> Steps:
        blocks = [block.typed() for block in pieces(source, core.size)]
        mine = yield from fold_block(channel, how, blocks.__getitem__)
        got = yield from moving.gather_direct(channel, how.encode(mine), root)
        if target is not None:
            for part, data in zip(pieces(target, core.size), got, strict=True):
                fill(part, data)

    return (long if _long(core, source) else short), call


def allreduce(core: Core, sendbuf: Any, recvbuf: Any, op: Op) -> Planned:
    """Plan ``Allreduce``."""
    source, target = ends(core, sendbuf, recvbuf, True)
    assert target is not None
    how = Arrays(op, source.datatype)
    call = ("Allreduce", op.name, source.nbytes)

    def short(channel: Channel) -> Steps:
        value = source.typed().copy()
        store(target, (yield from reducing.allreduce(channel, how, value)))

    def long(channel: Channel) -> Steps:
        whole = Section(target.raw, target.offset, source.count, target.datatype)
        parts = pieces(whole, core.size)
        blocks = [block.typed() for block in pieces(source, core.size)]
        out = _memory(parts[core.rank])
        mine = yield from fold_block(channel, how, blocks.__getitem__, out)
        if mine is not out:
            fill(parts[core.rank], how.encode(mine))
        yield from moving.allgather_long(
            channel, how.encode(mine), lambda i, piece: fill(parts[i], piece)
        )

    same = source.datatype == target.datatype
    return (long if _long(core, source) and same else short), call


def _long(core: Core, source: Section) -> bool:
    return source.nbytes >= reducing.LONG_REDUCTION and core.size > 1


def _memory(section: Section) -> Array | None:
    """Give a section's memory to write a result to, where that is possible without a copy."""
    if not section.datatype.contiguous or not section.raw.flags.writeable or not section.nbytes:
        return None
    array = section.typed()
    return array if array.ctypes.data == section.bytes().ctypes.data else None


def fold_block(
    channel: Channel, how: Arrays, block: Callable[[int], Array], out: Array | None = None
) -> Steps:
    """Combine block ``rank`` of every rank, in rank order; ``block(i)`` gives this rank's.

    What arrived is combined where it lies, and the last time into ``out`` if it is given: then
    that is returned.
    """
    size, rank = channel.size, channel.rank
    for distance in range(1, size):
        other = (rank + distance) % size
        channel.send(other, how.encode(block(other)))
    mine = total = block(rank)
    for source in range(size):
        theirs = mine
        if source != rank:
            (item,) = yield channel.receive(source)
            theirs = how.decode(item)
        if source == 0:
            total = theirs
            continue
        into = theirs if total is mine else total  # never into the caller's own
        if source == size - 1 and out is not None:
            into = out
        total = how.combine(total, theirs, into)
    return total


def reduce_scatter(core: Core, sendbuf: Any, recvbuf: Any, counts: Any, op: Op) -> Planned:
    """Plan ``Reduce_scatter``; counts that are not given are told by the ranks' buffers."""
    target = buffers.message(recvbuf)
    source = target if sendbuf is IN_PLACE else buffers.message(sendbuf)
    if counts is None:
        if source.count % core.size:
            raise ValueError(f"{source.count} items are not {core.size} equal blocks")
        counts = [source.count // core.size] * core.size
    counts = [int(count) for count in counts]
    if len(counts) != core.size or min(counts) < 0:
        raise MPIError(constants.ERR_COUNT, f"{len(counts)} counts for {core.size} ranks")
    if sum(counts) > source.count:
        raise MPIError(constants.ERR_COUNT, f"{sum(counts)} items of {source.count}")
    return _reduce_scattered(core, source, target, counts, op, "Reduce_scatter")


def reduce_scatter_block(core: Core, sendbuf: Any, recvbuf: Any, op: Op) -> Planned:
    """Plan ``Reduce_scatter_block``."""
    if sendbuf is IN_PLACE:
        source = target = buffers.message(recvbuf, core.size)
        each = source.count // core.size
    else:
        source, target = buffers.message(sendbuf, core.size), buffers.message(recvbuf)
        each = source.count // core.size
    return _reduce_scattered(core, source, target, [each] * core.size, op, "Reduce_scatter_block")


def _reduce_scattered(
    core: Core, source: Section, target: Section, counts: Sequence[int], op: Op, call: str
) -> Planned:
    how = Arrays(op, source.datatype)
    starts = [sum(counts[:index]) for index in range(core.size)]
    blocks = [source.block(start, count) for start, count in zip(starts, counts, strict=True)]
    if blocks[core.rank].nbytes > target.nbytes:
        raise MPIError(
            constants.ERR_TRUNCATE,
            f"rank {core.rank} gets {blocks[core.rank].nbytes} bytes to a buffer of "
            f"{target.nbytes}",
        )
    whole = source.block(0, sum(counts))
    same = source.datatype == target.datatype and source.raw is not target.raw

    def short(channel: Channel) -> Steps:
        total = yield from reducing.allreduce(channel, how, whole.typed().copy())
        elements = source.datatype.elements
        first = starts[core.rank] * elements
        store(target, total[first : first + counts[core.rank] * elements])

    def long(channel: Channel) -> Steps:
        data = [block.typed() for block in blocks]
        out = _memory(target.block(0, counts[core.rank])) if same else None
        mine = yield from fold_block(channel, how, data.__getitem__, out)
        if mine is not out:
            store(target, mine)

    steps = long if whole.nbytes >= reducing.LONG_REDUCTION else short
    return steps, (call, op.name, whole.nbytes)


def scan(core: Core, sendbuf: Any, recvbuf: Any, op: Op, inclusive: bool) -> Planned:
    """Plan ``Scan`` and ``Exscan``."""
    source, target = ends(core, sendbuf, recvbuf, True)
    how = Arrays(op, source.datatype)

    def plan(channel: Channel) -> Steps:
        value = source.typed().copy()
        store(target, (yield from reducing.scan(channel, how, value, inclusive)))

    return plan, ("Scan" if inclusive else "Exscan", op.name, source.nbytes)
