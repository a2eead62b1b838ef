"""Collectives of memory: what each call reads and writes, and which steps move it.

Each function checks a call's arguments and gives ``(plan, call)``: the steps, and what all ranks
must agree on, its size in bytes last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from feliss_nb.models.mpi import buffers, constants, moving
from feliss_nb.models.mpi.buffers import Section
from feliss_nb.models.mpi.constants import IN_PLACE
from feliss_nb.models.mpi.core import Core
from feliss_nb.models.mpi.failures import MPIError
from feliss_nb.models.mpi.schedule import Channel, Item, Plan, Steps

#: The steps of a collective, and what all ranks must agree on.
Planned = tuple[Plan, tuple[Any, ...]]


def item(section: Section) -> Item:
    """Give a section as what travels."""
    return (section.bytes(),)


def fill(section: Section, arrived: Item) -> None:
    """Write what travelled to a section.

    Raises
    ------
    MPIError
        Of class ``ERR_TRUNCATE``: it does not take so much.
    """
    (data,) = arrived
    size = memoryview(data).nbytes
    if size > section.nbytes:
        raise MPIError(
            constants.ERR_TRUNCATE, f"{size} bytes came, the buffer takes {section.nbytes}"
        )
    section.write(data)


def pieces(section: Section, count: int) -> list[Section]:
    """Divide a section into pieces whose sizes differ by one item at most."""
    each, more = divmod(section.count, count)
    made = []
    first = 0
    for index in range(count):
        size = each + (index < more)
        made.append(section.block(first, size))
        first += size
    return made


def barrier() -> Planned:
    """Plan ``Barrier``."""
    return moving.barrier, ("Barrier",)


def bcast(core: Core, buf: Any, root: int) -> Planned:
    """Plan ``Bcast``."""
    root = core.root(root)
    section = buffers.message(buf)
    call = ("Bcast", root, section.nbytes)
    if section.nbytes >= moving.LONG_BROADCAST and core.size > 1:
        parts = _bytes_of(section, core, root)

        def long(channel: Channel) -> Steps:
            def store(start: int, data: Any) -> None:
                parts[start : start + len(data)] = np.frombuffer(data, np.uint8)

            yield from moving.broadcast_long(channel, parts, store, root)
            if core.rank != root and not section.datatype.contiguous:
                section.write(parts)

        return long, call

    def plan(channel: Channel) -> Steps:
        mine = core.rank == root
        got = yield from moving.broadcast(channel, item(section) if mine else None, root)
        if not mine:
            fill(section, got)

    return plan, call


def _bytes_of(section: Section, core: Core, root: int) -> np.ndarray[Any, Any]:
    if core.rank == root or section.datatype.contiguous:
        return section.bytes()
    return np.empty(section.nbytes, np.uint8)


def gather(core: Core, sendbuf: Any, recvbuf: Any, root: int) -> Planned:
    """Plan ``Gather``."""
    root = core.root(root)
    targets = None
    if core.rank == root:
        targets = buffers.blocks_of(buffers.message(recvbuf, core.size), core.size)
    mine = _own(sendbuf, targets, root)
    return _gathered(core, mine, targets, root, ("Gather", root, mine.nbytes), sendbuf)


def gatherv(core: Core, sendbuf: Any, recvbuf: Any, root: int) -> Planned:
    """Plan ``Gatherv``."""
    root = core.root(root)
    targets = buffers.vector(recvbuf, core.size) if core.rank == root else None
    mine = _own(sendbuf, targets, root)
    return _gathered(core, mine, targets, root, ("Gatherv", root), sendbuf)


def _own(buf: Any, sections: Sequence[Section] | None, rank: int) -> Section:
    """Give what a rank contributes: with IN_PLACE, its section of what it receives."""
    if buf is not IN_PLACE:
        return buffers.message(buf)
    if sections is None:
        raise MPIError(constants.ERR_BUFFER, "IN_PLACE is for the root only")
    return sections[rank]


def _gathered(
    core: Core,
    mine: Section,
    targets: Sequence[Section] | None,
    root: int,
    call: tuple[Any, ...],
    sendbuf: Any,
) -> Planned:
    short = call[0] == "Gather" and mine.nbytes <= moving.SHORT_ITEM
    short = short and core.size > moving.FEW_RANKS
    steps = moving.gather_tree if short else moving.gather_direct

    def plan(channel: Channel) -> Steps:
        got = yield from steps(channel, item(mine), root)
        if targets is not None:
            _fill_all(targets, got, root if sendbuf is IN_PLACE else None)

    return plan, call


def _fill_all(targets: Sequence[Section], got: Sequence[Item], skip: int | None) -> None:
    for index, (target, arrived) in enumerate(zip(targets, got, strict=True)):
        if index != skip:
            fill(target, arrived)


def scatter(core: Core, sendbuf: Any, recvbuf: Any, root: int) -> Planned:
    """Plan ``Scatter``."""
    root = core.root(root)
    sources = None
    if core.rank == root:
        sources = buffers.blocks_of(buffers.message(sendbuf, core.size), core.size)
    target = None if recvbuf is IN_PLACE else buffers.message(recvbuf)
    size = sources[root].nbytes if sources is not None else target.nbytes if target else 0
    return _scattered(core, sources, target, root, ("Scatter", root, size))


def scatterv(core: Core, sendbuf: Any, recvbuf: Any, root: int) -> Planned:
    """Plan ``Scatterv``."""
    root = core.root(root)
    sources = buffers.vector(sendbuf, core.size) if core.rank == root else None
    target = None if recvbuf is IN_PLACE else buffers.message(recvbuf)
    return _scattered(core, sources, target, root, ("Scatterv", root))


def _scattered(
    core: Core,
    sources: Sequence[Section] | None,
    target: Section | None,
    root: int,
    call: tuple[Any, ...],
) -> Planned:
    if target is None and core.rank != root:
        raise MPIError(constants.ERR_BUFFER, "IN_PLACE is for the root only")
    short = call[0] == "Scatter" and call[2] <= moving.SHORT_ITEM
    short = short and core.size > moving.FEW_RANKS
    steps = moving.scatter_tree if short else moving.scatter_direct

    def plan(channel: Channel) -> Steps:
        items = None if sources is None else [item(source) for source in sources]
        got = yield from steps(channel, items, root)
        if target is not None:
            fill(target, got)

    return plan, call


def allgather(core: Core, sendbuf: Any, recvbuf: Any) -> Planned:
    """Plan ``Allgather``."""
    targets = buffers.blocks_of(buffers.message(recvbuf, core.size), core.size)
    mine = _own(sendbuf, targets, core.rank)
    call = ("Allgather", mine.nbytes)
    short = mine.nbytes * core.size <= moving.SHORT_ALLGATHER
    return _allgathered(core, mine, targets, short, call, sendbuf is IN_PLACE)


def allgatherv(core: Core, sendbuf: Any, recvbuf: Any) -> Planned:
    """Plan ``Allgatherv``."""
    targets = buffers.vector(recvbuf, core.size)
    mine = _own(sendbuf, targets, core.rank)
    total = sum(target.nbytes for target in targets)
    short = total <= moving.SHORT_ALLGATHER
    return _allgathered(core, mine, targets, short, ("Allgatherv", total), sendbuf is IN_PLACE)


def _allgathered(
    core: Core,
    mine: Section,
    targets: Sequence[Section],
    short: bool,
    call: tuple[Any, ...],
    in_place: bool,
) -> Planned:
    def plan(channel: Channel) -> Steps:
        if not in_place:
            fill(targets[core.rank], item(mine))
        if short:
            got = yield from moving.allgather(channel, item(mine))
            _fill_all(targets, got, core.rank)
        else:
            yield from moving.allgather_long(
                channel, item(mine), lambda i, piece: fill(targets[i], piece)
            )

    return plan, call


def alltoall(core: Core, sendbuf: Any, recvbuf: Any) -> Planned:
    """Plan ``Alltoall``."""
    targets = buffers.blocks_of(buffers.message(recvbuf, core.size), core.size)
    sources = None
    if sendbuf is not IN_PLACE:
        sources = buffers.blocks_of(buffers.message(sendbuf, core.size), core.size)
    size = (sources or targets)[0].nbytes
    return _exchanged(core, sources, targets, ("Alltoall", size))


def alltoallv(core: Core, sendbuf: Any, recvbuf: Any) -> Planned:
    """Plan ``Alltoallv``."""
    targets = buffers.vector(recvbuf, core.size)
    sources = None if sendbuf is IN_PLACE else buffers.vector(sendbuf, core.size)
    return _exchanged(core, sources, targets, ("Alltoallv",))


def alltoallw(core: Core, sendbuf: Any, recvbuf: Any) -> Planned:
    """Plan ``Alltoallw``."""
    targets = buffers.vector_of_types(recvbuf, core.size)
    sources = None if sendbuf is IN_PLACE else buffers.vector_of_types(sendbuf, core.size)
    return _exchanged(core, sources, targets, ("Alltoallw",))


def _exchanged(
    core: Core,
    sources: Sequence[Section] | None,
    targets: Sequence[Section],
    call: tuple[Any, ...],
) -> Planned:
    def plan(channel: Channel) -> Steps:
        data: Callable[[int], Any]
        if sources is None:
            data = buffers.apart(targets)
        else:
            data = [source.bytes() for source in sources].__getitem__
        got = yield from moving.alltoall(channel, lambda rank: (data(rank),))
        _fill_all(targets, got, None)

    return plan, call
