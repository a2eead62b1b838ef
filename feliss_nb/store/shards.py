"""A shard as bytes: how many frames, the size of each, and the frames one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import xxhash

from feliss_nb.errors import CorruptSnapshot
from feliss_nb.state.codec import allocate
from feliss_nb.store.manifest import Record

MAGIC = b"FELISSS1"
_WORD = 8
#: Written and read in pieces of this size, so that what was digested is still in the cache.
PIECE = 1 << 20
#: Buffers in one call; Linux takes 1024.
MANY = 512

ReadInto = Callable[[list[memoryview]], None]
"""Fill these buffers with the next bytes, or raise EOFError."""


def flat(buffer: Any) -> memoryview:
    """A buffer as a flat view of bytes."""
    view = memoryview(buffer)
    if not view.nbytes:
        return memoryview(b"")
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def size(views: Sequence[memoryview]) -> int:
    """Bytes in some flat views."""
    return sum(view.nbytes for view in views)


def parts(frames: Sequence[Any]) -> list[memoryview]:
    """The bytes of a shard, in order; the frames are not copied."""
    views = [flat(frame) for frame in frames]
    numbers = [len(views), *(view.nbytes for view in views)]
    head = MAGIC + b"".join(number.to_bytes(_WORD, "little") for number in numbers)
    return [memoryview(head), *(view for view in views if view.nbytes)]


def pieces(views: Sequence[memoryview]) -> Iterator[list[memoryview]]:
    """The same bytes in groups: each of them small, and few calls in all."""
    group: list[memoryview] = []
    room = PIECE
    for view in views:
        start = 0
        while start < view.nbytes:
            part = view[start : start + room]
            group.append(part)
            start += part.nbytes
            room -= part.nbytes
            if not room or len(group) == MANY:
                yield group
                group, room = [], PIECE
    if group:
        yield group


def seal(rank: int, frames: Sequence[Any]) -> Record:
    """The record of a shard that is not written."""
    state = xxhash.xxh3_128()
    views = parts(frames)
    for view in views:
        state.update(view)
    return Record(rank, size(views), state.hexdigest())


def read(record: Record, fill: ReadInto, name: str) -> list[memoryview]:
    """The frames of a shard, in memory of their own, aligned; their digest is checked.

    Parameters
    ----------
    record : Record
        What it must be. Nothing is allocated for sizes that do not agree with it.
    fill : callable
        Reads on from where it ended.
    name : str
        What an error calls it.

    Raises
    ------
    CorruptSnapshot
        The bytes are not those that were put.
    """
    state = xxhash.xxh3_128()

    def take(views: list[memoryview]) -> None:
        for group in pieces(views):
            try:
                fill(group)
            except EOFError:
                raise CorruptSnapshot(
                    f"{name} is damaged: it is shorter than the {record.nbytes} bytes of rank "
                    f"{record.rank}'s snapshot"
                ) from None
            for part in group:
                state.update(part)

    start = memoryview(bytearray(len(MAGIC) + _WORD))
    take([start])
    count = int.from_bytes(start[len(MAGIC) :], "little")
    if start[: len(MAGIC)] != MAGIC or start.nbytes + count * _WORD > record.nbytes:
        raise CorruptSnapshot(f"{name} is damaged: it does not begin as a shard does")
    table = np.zeros(count, "<u8")
    if count:
        take([flat(table.data)])
    sizes = [int(number) for number in table]
    if start.nbytes + count * _WORD + sum(sizes) != record.nbytes:
        raise CorruptSnapshot(f"{name} is damaged: its frames have other sizes than its manifest")
    frames = [flat(allocate(number).data) for number in sizes]
    take([frame for frame in frames if frame.nbytes])
    if state.hexdigest() != record.digest:
        raise CorruptSnapshot(
            f"{name} is damaged: the snapshot of rank {record.rank} has digest "
            f"{state.hexdigest()} and was written with {record.digest}"
        )
    return frames


def solid(view: memoryview, block: int) -> list[tuple[int, int]]:
    """The stretches of a buffer that are not whole blocks of zeros.

    One word of each block is looked at first: a state with few zeros costs next to nothing.

    Parameters
    ----------
    view : memoryview
        Flat.
    block : int
        In bytes, a multiple of 8, counted from the buffer's start. What is left over at the end
        counts as no zeros.

    Returns
    -------
    list of (int, int)
        Start and stop, in bytes; in order, none empty, no two that touch.
    """
    count = view.nbytes // block
    words = np.frombuffer(view[: count * block], np.uint64).reshape(count, block // 8)
    maybe = np.flatnonzero(words[:, 0] == 0)
    if maybe.size:
        maybe = maybe[words[maybe].max(axis=1) == 0]
    if not maybe.size:
        return [(0, view.nbytes)] if view.nbytes else []
    # Zero blocks next to each other are one hole; between the holes stand the stretches.
    cuts = np.flatnonzero(np.diff(maybe) > 1)
    holes = zip(maybe[np.r_[0, cuts + 1]], maybe[np.r_[cuts, maybe.size - 1]] + 1, strict=True)
    found, start = [], 0
    for first, stop in holes:
        if first * block > start:
            found.append((start, int(first) * block))
        start = int(stop) * block
    if start < view.nbytes:
        found.append((start, view.nbytes))
    return found
