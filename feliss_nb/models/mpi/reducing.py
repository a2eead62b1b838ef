"""The collectives that combine data: in an order that ranks and counts alone decide.

The operation is taken as associative, never as commutative: what comes from lower ranks stands on
the left. Each expression below is a function of the number of ranks (and, by the choice between
short and long, of the counts), so that the bits are the same whatever the timing; and every rank
that gets a result gets the same one.

- reduce: a binomial tree in rank order whose root is rank 0, which sends the result on to the root.
- allreduce, short: recursive doubling; with p not a power of two, the first ranks are joined in
  neighbouring pairs before, and told the result after.
- allreduce, reduce, reduce_scatter, long: each rank gets its block from every rank and folds them
  in rank order (pairwise exchange), ((x0 op x1) op x2) ...; then the blocks go around a ring, or to
  the root.
- scan, exscan: recursive doubling over prefixes.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from feliss_nb.models.mpi.schedule import Channel, Item, Steps

#: Bytes from which arrays are reduced by blocks. Measured by ``python -m
#: feliss_nb.lab.mpi_thresholds``: 2 ranks, 1 MB: 525 us by doubling, 641 by blocks; 2 MB: 850, 820;
#: 8 MB: 3810, 3250. 4 ranks, 1 MB: 3780, 7110; 2 MB: 7560, 6040; 8 MB: 17100, 9500.
LONG_REDUCTION: Final = 2 << 20


class Combiner(Protocol):
    """How values are combined, and how they travel."""

    def encode(self, value: Any) -> Item:
        """Give a value as an item."""

    def decode(self, item: Item) -> Any:
        """Give an item as a value of its own, which ``combine`` may overwrite."""

    def combine(self, lower: Any, higher: Any) -> Any:
        """Combine two values; either may be overwritten."""

    def copy(self, value: Any) -> Any:
        """Give a value that is not overwritten together with this one."""


def to_first(channel: Channel, how: Combiner, value: Any) -> Steps:
    """Combine the values of all ranks at rank 0."""
    bit = 1
    while bit < channel.size:
        if channel.rank & bit:
            channel.send(channel.rank - bit, how.encode(value))
            return None
        if channel.rank + bit < channel.size:
            (item,) = yield channel.receive(channel.rank + bit)
            value = how.combine(value, how.decode(item))
        bit *= 2
    return value


def reduce(channel: Channel, how: Combiner, value: Any, root: int) -> Steps:
    """Combine the values of all ranks at the root."""
    value = yield from to_first(channel, how, value)
    if root == 0:
        return value
    if channel.rank == 0:
        channel.send(root, how.encode(value))
        return None
    if channel.rank == root:
        (item,) = yield channel.receive(0)
        return how.decode(item)
    return None


def allreduce(channel: Channel, how: Combiner, value: Any) -> Steps:
    """Combine the values of all ranks, for all ranks."""
    size, rank = channel.size, channel.rank
    whole = 1 << (size.bit_length() - 1)  # the largest power of two
    pairs = size - whole
    if rank < 2 * pairs:
        if rank % 2:
            channel.send(rank - 1, how.encode(value))
            (item,) = yield channel.receive(rank - 1)
            return how.decode(item)
        (item,) = yield channel.receive(rank + 1)
        value = how.combine(value, how.decode(item))
    place = rank // 2 if rank < 2 * pairs else rank - pairs
    bit = 1
    while bit < whole:
        other = place ^ bit
        partner = 2 * other if other < pairs else other + pairs
        channel.send(partner, how.encode(value))
        (item,) = yield channel.receive(partner)
        theirs = how.decode(item)
        value = how.combine(theirs, value) if other < place else how.combine(value, theirs)
        bit *= 2
    if rank < 2 * pairs:
        channel.send(rank + 1, how.encode(value))
    return value


def scan(channel: Channel, how: Combiner, value: Any, inclusive: bool) -> Steps:
    """Combine the values of all ranks up to this one; None for the first if exclusive."""
    size, rank = channel.size, channel.rank
    before: Any = None  # of the ranks below this one
    empty = True
    around = how.copy(value) if inclusive else value  # of the block of ranks of this round
    bit = 1
    while bit < size:
        partner = rank ^ bit
        if partner < size:
            channel.send(partner, how.encode(around))
            (item,) = yield channel.receive(partner)
            theirs = how.decode(item)
            if partner < rank:
                before = theirs if empty else how.combine(how.copy(theirs), before)
                around = how.combine(how.copy(theirs) if empty else theirs, around)
                empty = False
            else:
                around = how.combine(around, theirs)
        bit *= 2
    if inclusive:
        return value if empty else how.combine(before, value)
    return before
