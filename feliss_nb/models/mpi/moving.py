"""The collectives that move data, as steps of messages.

An item is what one rank contributes: the buffers of a pickled object, or one array's memory. None
of these algorithms looks into one.

- barrier: dissemination, ceil(log2 p) rounds.
- broadcast: from the root directly to few ranks, a binomial tree to many. Long arrays: where all
  ranks share memory with the root, it writes them once and everyone reads; else they are scattered,
  then gathered by everyone around a ring (van de Geijn), so that the root sends them once and not
  log2 p times. The root alone decides which.
- gather, scatter: among many ranks a binomial tree for short items, whose messages hold whole
  subtrees; among few, and for items that are long or of unknown length, between the root and each
  rank directly.
- allgather: Bruck's, ceil(log2 p) rounds, for short items; pairwise exchange for long ones, which
  each rank copies once for all others.
- alltoall: pairwise exchange, p - 1 rounds, in round k with the ranks at distance k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from feliss_nb.models.mpi.schedule import Channel, Item, Steps

Data = np.ndarray[Any, Any]

# Measured by ``python -m feliss_nb.lab.mpi_thresholds`` with 2 and with 4 ranks on 2 cores.
#
#: Bytes of a long array that are sent together. 64 MB to one rank in stretches of 1, 2, 4, 8 and
#: 64 MB, the best of many: 7.9, 6.3, 5.9, 10.5, 10.1 ms.
STRETCH: Final = 4 << 20
#: Bytes from which an array is broadcast as a long one. 2 ranks, 128 KB: 200 us by a tree, 213 us;
#: 256 KB: 215, 157; 1 MB: 297, 228; 8 MB: 1050, 670. 4 ranks, 256 KB: 890, 440; 8 MB: 3060, 1900.
LONG_BROADCAST: Final = 256 * 1024
#: Up to so many ranks a root sends to each, and receives from each, directly: to send takes 15 us,
#: a hop 130. 4 ranks, 8 B to 32 KB: broadcast 510 to 880 us by a tree, 360 to 590 directly; gather
#: 540 to 690 us by a tree, 430 to 550 directly.
FEW_RANKS: Final = 8
#: Fewer ranks than this broadcast long arrays from the root alone: a ring has as many copies.
RING_RANKS: Final = 4
#: Bytes up to which an item of a gather or scatter among many ranks goes through a tree. Above, the
#: copies on the way cost more than the root's messages; 4 ranks: direct is quicker at every size.
SHORT_ITEM: Final = 4096
#: Bytes, of all ranks together, up to which an allgather is Bruck's: pairwise exchange has more
#: messages and fewer copies. 4 ranks, 1 MB: 1530 us, 1740; 2 MB: 1950, 2120; 4 MB: 2780, 2420.
SHORT_ALLGATHER: Final = 2 << 20


def barrier(channel: Channel) -> Steps:
    """Return when every rank has begun."""
    distance = 1
    while distance < channel.size:
        channel.send((channel.rank + distance) % channel.size)
        yield channel.receive((channel.rank - distance) % channel.size)
        distance *= 2


def broadcast(channel: Channel, item: Item | None, root: int) -> Steps:
    """Give every rank the root's item."""
    size = channel.size
    place = (channel.rank - root) % size
    if 2 < size <= FEW_RANKS:
        if place:
            (item,) = yield channel.receive(root)
            return item
        assert item is not None
        (sent,) = channel.freeze(item)
        for distance in range(1, size):
            channel.send((root + distance) % size, sent, frozen=True)
        return item
    bit = 1
    while bit < size:
        if place & bit:
            (item,) = yield channel.receive((place - bit + root) % size)
            break
        bit *= 2
    assert item is not None
    children = []
    bit //= 2
    while bit:
        if place + bit < size:
            children.append((place + bit + root) % size)
        bit //= 2
    several = len(children) > 1
    sent = channel.freeze(item)[0] if several else item
    for child in children:
        channel.send(child, sent, frozen=several)
    return item


def broadcast_long(
    channel: Channel, data: Data, store: Callable[[int, Any], None], root: int
) -> Steps:
    """Broadcast the root's bytes; ``store(start, bytes)`` is told of all that arrive.

    Parameters
    ----------
    channel : Channel
    data : array of bytes
        The root's bytes; elsewhere as many, which are read once ``store`` has got them.
    store : callable
    root : int
    """
    size, rank = channel.size, channel.rank
    if rank == root and (size < RING_RANKS or channel.shares_memory()):
        # A stretch is written while the one before is read.
        for start in range(0, len(data), STRETCH):
            stretch = data[start : start + STRETCH], start.to_bytes(8, "little")
            frozen = channel.freeze(stretch)
            for distance in range(1, size):
                channel.send((root + distance) % size, *frozen, frozen=True)
        return
    each = -(-len(data) // size // 64) * 64 + 64
    pieces = [(data[index * each : (index + 1) * each],) for index in range(size)]
    if rank == root:
        for other in range(size):
            if other != root:
                channel.send(other, pieces[other])
    else:
        (first,) = yield channel.receive(root)
        left = len(data)
        while len(first) == 2:  # bytes and where they begin: the root sends all
            store(int.from_bytes(first[1], "little"), first[0])
            left -= len(first[0])
            if not left:
                return
            (first,) = yield channel.receive(root)
        store(rank * each, first[0])
    # the root has every piece, but the ring needs it to pass them on
    yield from ring(
        channel, pieces, lambda i, piece: store(i * each, piece[0]) if rank != root else None
    )


def ring(channel: Channel, pieces: Sequence[Item], store: Callable[[int, Item], None]) -> Steps:
    """Give every rank the piece of every other, which ``store`` is told of."""
    size, rank = channel.size, channel.rank
    passing = pieces[rank]
    for step in range(size - 1):
        channel.send((rank + 1) % size, passing)
        (passing,) = yield channel.receive((rank - 1) % size)
        store((rank - 1 - step) % size, passing)


def gather_tree(channel: Channel, item: Item, root: int) -> Steps:
    """Give the root the items of all ranks."""
    size = channel.size
    place = (channel.rank - root) % size
    items = [item]  # of the places from this one on
    bit = 1
    while bit < size:
        if place & bit:
            channel.send((place - bit + root) % size, *items)
            return None
        if place + bit < size:
            items += yield channel.receive((place + bit + root) % size)
        bit *= 2
    return [items[(rank - root) % size] for rank in range(size)]


def gather_direct(channel: Channel, item: Item, root: int) -> Steps:
    """Give the root the items of all ranks, each from its rank."""
    if channel.rank != root:
        channel.send(root, item)
        return None
    receives = [channel.receive(rank) if rank != root else None for rank in range(channel.size)]
    items: list[Item] = []
    for receive in receives:
        if receive is None:
            items.append(item)
        else:
            items += yield receive
    return items


def scatter_tree(channel: Channel, items: Sequence[Item] | None, root: int) -> Steps:
    """Give each rank its item of the root's."""
    size = channel.size
    place = (channel.rank - root) % size
    mine: list[Item] = []
    bit = 1
    while bit < size:
        if place & bit:
            mine = yield channel.receive((place - bit + root) % size)
            break
        bit *= 2
    if not place:
        assert items is not None
        mine = [items[(index + root) % size] for index in range(size)]
    bit //= 2
    while bit:
        if place + bit < size:
            channel.send((place + bit + root) % size, *mine[bit : 2 * bit])
            del mine[bit:]
        bit //= 2
    return mine[0]


def scatter_direct(channel: Channel, items: Sequence[Item] | None, root: int) -> Steps:
    """Give each rank its item of the root's, directly."""
    if channel.rank != root:
        (item,) = yield channel.receive(root)
        return item
    assert items is not None
    for rank, item in enumerate(items):
        if rank != root:
            channel.send(rank, item)
    return items[root]


def allgather(channel: Channel, item: Item) -> Steps:
    """Give every rank the items of all ranks, by Bruck's algorithm."""
    size, rank = channel.size, channel.rank
    items = [item]  # of the ranks from this one on, around
    while len(items) < size:
        have = len(items)
        wanted = min(have, size - have)
        channel.send((rank - have) % size, *items[:wanted])
        items += yield channel.receive((rank + have) % size)
    return [items[(other - rank) % size] for other in range(size)]


def allgather_long(channel: Channel, item: Item, store: Callable[[int, Item], None]) -> Steps:
    """Give every rank the items of all ranks; ``store`` is told of each that arrives."""
    size, rank = channel.size, channel.rank
    (mine,) = channel.freeze(item) if size > 1 else [item]
    for distance in range(1, size):
        channel.send((rank + distance) % size, mine, frozen=True)
        source = (rank - distance) % size
        (piece,) = yield channel.receive(source)
        store(source, piece)


def alltoall(channel: Channel, items: Callable[[int], Item]) -> Steps:
    """Give each rank its item of every rank's.

    Parameters
    ----------
    channel : Channel
    items : callable
        Gives the item for a rank.
    """
    size, rank = channel.size, channel.rank
    got: list[Any] = [None] * size
    got[rank] = items(rank)
    for distance in range(1, size):
        channel.send((rank + distance) % size, items((rank + distance) % size))
        source = (rank - distance) % size
        (got[source],) = yield channel.receive(source)
    return got
