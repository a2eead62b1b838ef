"""What a rank's snapshot is made of, and its frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from feliss_nb.core import messages as m
from feliss_nb.runtime.wire import Parcel


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


def split(shard: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return the two parts of a shard's frames."""
    count = int(bytes(shard[0]))
    return list(shard[1 : 1 + count]), list(shard[1 + count :])
