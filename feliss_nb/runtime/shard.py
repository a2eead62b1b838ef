"""What a rank's snapshot is made of, and its frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from feliss_nb.core import messages as m
from feliss_nb.runtime.wire import Parcel
from feliss_nb.state.differences import assemble, is_difference
from feliss_nb.state.snapshot import Room

#: The place of the main part in a shard.
MAIN = 1


def reached_by(continuations: Iterable[m.Continuation]) -> frozenset[int]:
    """Return the variables that packed continuations wait for, read and write."""
    found: set[int] = set()
    for continuation in continuations:
        found.update(continuation.needs)
        if type(continuation.work) is Parcel:
            found |= continuation.work.reaches
    return frozenset(found)


def without_work(image: m.RankImage) -> tuple[m.RankImage, list[Any]]:
    """Return the image with plain identities for continuations, and their work apart."""
    plain: Any = [(c.id, c.job, c.needs, c.gang) for c in image.pool]
    works = [c.work for c in image.pool]
    bare = m.RankImage(
        plain,
        image.sent,
        image.received,
        image.sent_total,
        image.received_total,
        image.cancelled,
        image.broken,
    )
    return bare, works


def join(main: Sequence[Any], channel: Sequence[Any]) -> list[Any]:
    """Return the frames of a shard: how many belong to the main part, and both parts.

    The main part is a snapshot, on the way to other engines also the difference that makes it.
    """
    return [b"%d" % len(main), *main, *channel]


def whole(chain: Sequence[list[Any]], room: Room) -> list[Any]:
    """Return the shard that the last of a chain is: a whole one, and what has changed since.

    Raises
    ------
    CorruptSnapshot
        Something in it is damaged, or of another chain.
    """
    mains, channels = zip(*map(split, chain), strict=True)
    if len(chain) == 1 and not is_difference(mains[0]):
        return chain[0]  # its digest is looked at when it is loaded
    return join(assemble(mains, room), channels[-1])


def split(shard: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return the two parts of a shard's frames."""
    count = int(bytes(shard[0]))
    return list(shard[MAIN : MAIN + count]), list(shard[MAIN + count :])
