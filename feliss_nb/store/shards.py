"""A shard as bytes: the frames one after the other, then which they are, and how many.

The table stands at the end, so that a shard can be written while its frames are made, in the order
in which they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import xxhash

from feliss_nb.errors import CorruptSnapshot
from feliss_nb.state.codec import allocate
from feliss_nb.store.manifest import Record

MAGIC = b"FELISSS2"
_WORD = 8
_ROW = 2 * _WORD  # the number of a frame and its size
#: Written and read in pieces of this size, so that what was digested is still in the cache.
PIECE = 1 << 20
#: Buffers in one call; Linux takes 1024.
MANY = 512

ReadInto = Callable[[list[memoryview], int], None]
"""Fill these buffers with the bytes from a place on, or raise EOFError."""
Frames = Sequence[Any] | Iterator[tuple[int, Any]]
"""Frames; or pieces of them as they are made: the number of the frame, and some bytes of it.

The pieces of a frame follow each other; the frames come in any order, each once.
"""


def flat(buffer: Any) -> memoryview:
    """A buffer as a flat view of bytes."""
    view = memoryview(buffer)
    if not view.nbytes:
        return memoryview(b"")
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def size(views: Sequence[memoryview]) -> int:
    """Bytes in some flat views."""
    return sum(view.nbytes for view in views)


def parts(frames: Frames) -> Iterator[memoryview]:
    """The bytes of a shard, in order; the frames are not copied."""
    yield memoryview(MAGIC)
    rows: list[list[int]] = []
    for number, piece in frames if isinstance(frames, Iterator) else enumerate(frames):
        view = flat(piece)
        if rows and rows[-1][0] == number:
            rows[-1][1] += view.nbytes
        else:
            rows.append([number, view.nbytes])
        if view.nbytes:
            yield view
    yield memoryview(
        b"".join(n.to_bytes(_WORD, "little") for row in [*rows, [len(rows)]] for n in row)
    )


def gathered(frames: Frames) -> Sequence[Any]:
    """The frames as a sequence, once all of them are made."""
    if not isinstance(frames, Iterator):
        return frames
    found: dict[int, list[Any]] = {}
    for number, piece in frames:
        found.setdefault(number, []).append(piece)
    return [
        found[number][0] if len(found[number]) == 1 else b"".join(found[number])
        for number in sorted(found)
    ]


def pieces(views: Iterable[memoryview], most: int = PIECE) -> Iterator[list[memoryview]]:
    """The same bytes in groups: each of them small, and few calls in all."""
    group: list[memoryview] = []
    room = most
    for view in views:
        start = 0
        while start < view.nbytes:
            part = view[start : start + room]
            group.append(part)
            start += part.nbytes
            room -= part.nbytes
            if not room or len(group) == MANY:
                yield group
                group, room = [], most
    if group:
        yield group


def seal(rank: int, frames: Sequence[Any]) -> Record:
    """The record of a shard that is not written."""
    state = xxhash.xxh3_128()
    nbytes = 0
    for view in parts(frames):
        state.update(view)
        nbytes += view.nbytes
    return Record(rank, nbytes, state.hexdigest())


def read(record: Record, fill: ReadInto, name: str) -> list[memoryview]:
    """The frames of a shard, in memory of their own, aligned; their digest is checked.

    Parameters
    ----------
    record : Record
        What it must be. Nothing is allocated for sizes that do not agree with it.
    fill : callable
        Reads from a place on.
    name : str
        What an error calls it.

    Raises
    ------
    CorruptSnapshot
        The bytes are not those that were put.
    """
    state = xxhash.xxh3_128()

    def take(views: list[memoryview], place: int) -> None:
        for group in pieces(views):
            try:
                fill(group, place)
            except EOFError:
                raise CorruptSnapshot(
                    f"{name} is damaged: it is shorter than the {record.nbytes} bytes of rank "
                    f"{record.rank}'s snapshot"
                ) from None
            place += size(group)
            for part in group:
                state.update(part)

    def check(sound: bool, what: str) -> None:
        if not sound:
            raise CorruptSnapshot(f"{name} is damaged: {what}")

    start, end = len(MAGIC), record.nbytes - _WORD
    check(start <= end, "it is too short for a shard")
    head, last = memoryview(bytearray(start)), memoryview(bytearray(_WORD))
    take([last], end)
    count = int.from_bytes(last, "little")
    check(count <= (end - start) // _ROW, "it does not end as a shard does")
    table = np.zeros((count, 2), "<u8")
    if count:
        take([flat(table.data)], end - count * _ROW)
    state.reset()  # it goes over the bytes in their order
    take([head], 0)
    check(head == MAGIC, "it does not begin as a shard does")
    rows = [(int(number), int(size)) for number, size in table]
    check(
        start + sum(size for _, size in rows) == end - count * _ROW
        and sorted(number for number, _ in rows) == list(range(count)),
        "its frames have other sizes than its manifest",
    )
    frames = {number: flat(allocate(size).data) for number, size in rows}
    take([frames[number] for number, size in rows if size], start)
    if count:
        state.update(flat(table.data))
    state.update(last)
    if state.hexdigest() != record.digest:
        raise CorruptSnapshot(
            f"{name} is damaged: the snapshot of rank {record.rank} has digest "
            f"{state.hexdigest()} and was written with {record.digest}"
        )
    return [frames[number] for number in range(count)]


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
