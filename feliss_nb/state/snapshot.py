"""A rank's state as bytes: captured at a cut, stood up again elsewhere.

Two arrays that are views of the same memory are so again after a restore: a program that writes
through one and reads through the other goes on as before. Pickle alone would part them without a
word. So buffers that overlap become one segment, and each is a stretch of it; segments that are
small lie together in one buffer, the arena, which comes first.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import xxhash

from feliss_nb.errors import CorruptSnapshot
from feliss_nb.state import arrival, chunks, collector
from feliss_nb.state.chunks import marks
from feliss_nb.state.codec import Tape, allocate_each, pack
from feliss_nb.state.digest import DIGEST_SIZE, digest
from feliss_nb.state.explain import Rename

__all__ = [
    "Listener",
    "Snapshot",
    "capture",
    "frames",
    "from_frames",
    "keep",
    "look",
    "restore",
    "verify",
]

_MAGIC = b"FELISS02"
_CHECK = 8  # bytes of the header's own digest, after the magic
# malloc aligns to this. A segment begins at a multiple of it, so that what was aligned stays so.
_MALLOC = 16
_MAX_HEADER = 1 << 28
_STREAM = 1  # the place of the stream among the frames
#: Smaller segments lie in the arena: a frame for each costs more than its bytes.
SMALL = 4096

#: Gives writable memory of each of some sizes.
Room = Callable[[Iterable[int]], list[memoryview]]

_Stretches = tuple[tuple[int, int, int], ...]


class Listener(Protocol):
    """Hears of a snapshot's stream while it is made, in pieces that never change again.

    Not of the buffers: a copy of them takes a tenth of the time that the disk needs, and several
    times as long where each piece has to wait for the interpreter.
    """

    def hear(self, frame: int, piece: Any) -> None:
        """Take the next bytes of a frame."""

    def forget(self) -> None:
        """Forget all: it is made in another way."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """One rank's state.

    Attributes
    ----------
    data : bytes-like
        The pickle stream.
    buffers : list of bytes-like
        Memory of its own.
    handles, targets : frozenset of int
        The variables that are read and written through what was captured.
    digest : bytes
        Of all the rest: of a buffer it sees the marks of its chunks (see ``chunks``), so that who
        has these for another purpose need not read the memory twice.
    segments : tuple of int
        Bytes of each stretch of memory that was copied.
    stretches : tuple of (int, int, int)
        For each buffer of the stream: which segment, from which byte, how many bytes.
    """

    data: Any
    buffers: list[Any]
    handles: frozenset[int]
    targets: frozenset[int]
    digest: bytes
    segments: tuple[int, ...]
    stretches: _Stretches

    @property
    def nbytes(self) -> int:
        """Bytes of the stream and the buffers."""
        return memoryview(self.data).nbytes + sum(memoryview(b).nbytes for b in self.buffers)


def capture(
    obj: object, label: str = "rank", rename: Rename | None = None, room: Room | None = None
) -> Snapshot:
    """Write an object to bytes that nothing can change any more.

    Parameters
    ----------
    obj : object
        What the rank is, in one object: identity is kept within it.
    label : str
        What to call it in an error.
    rename : callable, optional
        ``rename(keys)`` names the object behind these keys, attributes and indices, or returns
        None: for ``("partitions", 3)`` it may say ``"variable 'ring'"``, and an error then speaks
        of ``variable 'ring'['visits'][0]``. Called only for an error.
    room : callable, optional
        Where to put what is large.

    Raises
    ------
    UnpicklableError
        Something in it has no meaning outside this process; the error says where it stands.
    """
    return keep(look(obj, label, rename), room or allocate_each)[0]


def look(
    obj: object,
    label: str = "rank",
    rename: Rename | None = None,
    listener: Listener | None = None,
) -> Snapshot:
    """What ``capture`` takes, but of live memory: valid until it changes, its digest still empty.

    Parameters
    ----------
    obj, label, rename
        As in ``capture``.
    listener : Listener, optional
        Hears of the stream; its pieces stand in the place of the data then, for ``keep``.
    """
    tape = None
    if listener is not None:
        tape = Tape(partial(listener.hear, _STREAM), listener.forget)
    packed = pack(obj, None, label, rename, in_band=0, share=True, tape=tape)
    buffers, segments, stretches = _gather(packed.buffers)
    names = packed.handles, packed.targets
    data: Any = packed.data if tape is None else tape
    return Snapshot(data, buffers, *names, b"", segments, stretches)


def keep(live: Snapshot, room: Room) -> tuple[Snapshot, list[bytes]]:
    """A snapshot of its own memory of what ``look`` saw, and the marks of its buffers."""
    arena = int(any(size < SMALL for size in live.segments))  # which is a copy already
    buffers = live.buffers[:arena] + room(memoryview(b).nbytes for b in live.buffers[arena:])
    found = [
        marks(target) if number < arena else chunks.copy(target, live.buffers[number])
        for number, target in enumerate(buffers)
    ]
    data = live.data
    if isinstance(data, Tape):
        pieces = data.pieces
        (data,) = room([len(data)])
        place = 0
        for piece in pieces:
            data[place : place + len(piece)] = piece
            place += len(piece)
    elif len(data) >= SMALL and room is not allocate_each:
        (data,) = room([len(data)])
        data[:] = live.data
    return signed(replace(live, data=data, buffers=buffers), found), found


def signed(snapshot: Snapshot, found: Sequence[bytes]) -> Snapshot:
    """The snapshot with its digest, from the marks of its buffers."""
    rest = repr(
        (
            sorted(snapshot.handles),
            sorted(snapshot.targets),
            [memoryview(buffer).nbytes for buffer in snapshot.buffers],
            snapshot.segments,
            snapshot.stretches,
        )
    ).encode()
    return replace(snapshot, digest=digest(snapshot.data, (rest, *found)))


def verify(snapshot: Snapshot) -> None:
    """Raise CorruptSnapshot unless the bytes are those that were captured."""
    _check(snapshot, [marks(buffer) for buffer in snapshot.buffers])


def _check(snapshot: Snapshot, found_marks: Sequence[bytes]) -> None:
    found = signed(snapshot, found_marks).digest
    if found != snapshot.digest:
        raise CorruptSnapshot(
            f"a snapshot of {snapshot.nbytes} bytes has digest {found.hex()} and was captured with "
            f"{snapshot.digest.hex()}; restore it from another copy"
        )


def restore(
    snapshot: Snapshot,
    make_handle: Callable[[int, bool], object] | None = None,
    renew_classes: bool = True,
) -> Any:
    """The object that was captured, in memory of its own: the snapshot can be restored again.

    Parameters
    ----------
    snapshot : Snapshot
    make_handle : callable, optional
        ``(variable, records) -> object``: what stands in the place of the handles.
    renew_classes : bool
        Whether a class that the snapshot brings is written over the one that this process has.

    Raises
    ------
    CorruptSnapshot
        The bytes are not those that were captured.
    """
    copies = allocate_each(memoryview(buffer).nbytes for buffer in snapshot.buffers)
    _check(snapshot, [chunks.copy(*pair) for pair in zip(copies, snapshot.buffers, strict=True)])
    segments = [
        memoryview(bytearray(copies[0][place : place + size])) if inside else copies[place]
        for (inside, place), size in zip(_parts(snapshot.segments), snapshot.segments, strict=True)
    ]
    buffers = [segments[which][start : start + n] for which, start, n in snapshot.stretches]
    with (
        collector.paused(memoryview(snapshot.data).nbytes),
        arrival.reading(arrival.Arrival(None, make_handle, renew_classes)),
    ):
        return pickle.loads(snapshot.data, buffers=buffers)


def _parts(sizes: Sequence[int]) -> Iterator[tuple[bool, int]]:
    """For each segment: whether it lies in the arena, and where (else: number of the buffer)."""
    arena = any(size < SMALL for size in sizes)
    place, number = 0, int(arena)
    for size in sizes:
        if size < SMALL:
            yield True, place
            place += -(-size // _MALLOC) * _MALLOC
        else:
            yield False, number
            number += 1


def _sizes(segments: Sequence[int]) -> list[int]:
    """Bytes of each buffer that holds segments of these sizes."""
    small = [-(-size // _MALLOC) * _MALLOC for size in segments if size < SMALL]
    return [sum(small)] * bool(small) + [size for size in segments if size >= SMALL]


def _gather(views: Sequence[memoryview]) -> tuple[list[Any], tuple[int, ...], _Stretches]:
    """All memory in ``views``, overlapping views together; segments; stretches.

    What is small is copied into the arena. What is large is seen where it lies, through the view
    that covers all others; it is copied where there is none.
    """
    groups = _overlapping(views)
    stretches = [(0, 0, 0)] * len(views)
    sizes = []
    for number, group in enumerate(groups):
        first = group[0][0] if len(group) == 1 else group[0][0] // _MALLOC * _MALLOC
        for start, less, index in group:
            stretches[index] = (number, start - first, -less)
        sizes.append(max(start - less for start, less, _ in group) - first)
    places = list(_parts(sizes))
    arena = memoryview(b"")
    buffers: list[Any] = []
    if any(inside for inside, _ in places):
        arena = memoryview(bytearray(_sizes(sizes)[0]))
        buffers.append(arena)
    for group, size, (inside, place) in zip(groups, sizes, places, strict=True):
        if not inside and views[group[0][2]].nbytes == size:
            buffers.append(views[group[0][2]])
            continue
        if inside:
            target = arena[place : place + size]
        else:
            (target,) = allocate_each([size])
            target[:_MALLOC] = bytes(_MALLOC)  # what lies before the first view is nobody's
            buffers.append(target)
        done = 0
        for _, less, index in group:
            begin = stretches[index][1]
            skip = max(done - begin, 0)
            if skip < -less:
                target[begin + skip : begin - less] = views[index][skip:]
                done = begin - less
    return buffers, tuple(sizes), tuple(stretches)


def _overlapping(views: Sequence[memoryview]) -> list[list[tuple[int, int, int]]]:
    """Views in groups that share memory, each as (address, minus size, index), by address."""
    spans = []
    for index, view in enumerate(views):
        start = np.frombuffer(view, np.uint8).__array_interface__["data"][0] if view.nbytes else 0
        spans.append((start, -view.nbytes, index))
    spans.sort()
    groups: list[list[tuple[int, int, int]]] = []
    end = 0
    for span in spans:
        start, less, _ = span
        if start >= end:
            groups.append([])
        groups[-1].append(span)
        end = max(end, start - less)
    # In the order of the stream, so that neighbours there are neighbours on disk.
    groups.sort(key=lambda group: min(index for _, _, index in group))
    return groups


def frames(snapshot: Snapshot) -> list[Any]:
    """A snapshot as frames to send or to write: a header, the data, the buffers."""
    header = json.dumps(
        {
            "digest": snapshot.digest.hex(),
            "data": memoryview(snapshot.data).nbytes,
            "buffers": [memoryview(b).nbytes for b in snapshot.buffers],
            "segments": snapshot.segments,
            "stretches": [part for stretch in snapshot.stretches for part in stretch],
            "handles": sorted(snapshot.handles),
            "targets": sorted(snapshot.targets),
        },
        separators=(",", ":"),
    ).encode()
    check = xxhash.xxh3_64_digest(header)
    return [_MAGIC + check + header, snapshot.data, *snapshot.buffers]


def from_frames(frames: Sequence[Any]) -> Snapshot:
    """The snapshot of ``frames``; nothing is unpickled, and nothing copied.

    Raises
    ------
    CorruptSnapshot
        They are not the frames of a snapshot. Their content is checked by ``restore``.
    """
    if len(frames) < 2:
        raise CorruptSnapshot(f"a snapshot has two frames or more, this one has {len(frames)}")
    head = _header(frames[0])
    sizes = _numbers(head, "buffers")
    found = [memoryview(frame).nbytes for frame in frames[1:]]
    if found != [head["data"], *sizes]:
        raise CorruptSnapshot("the frames of a snapshot have other sizes than its header says")
    segments = tuple(_numbers(head, "segments"))
    flat = _numbers(head, "stretches")
    stretches = tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=False))
    if (
        sizes != _sizes(segments)
        or len(flat) % 3
        or not all(w < len(segments) and s + n <= segments[w] for w, s, n in stretches)
    ):
        raise CorruptSnapshot("the header of a snapshot has stretches outside its buffers")
    try:
        mark = bytes.fromhex(head["digest"])
    except (TypeError, ValueError):
        mark = b""
    if len(mark) != DIGEST_SIZE:
        raise CorruptSnapshot("the header of a snapshot has no digest")
    return Snapshot(
        frames[1],
        list(frames[2:]),
        frozenset(_numbers(head, "handles", signed=True)),
        frozenset(_numbers(head, "targets", signed=True)),
        mark,
        segments,
        stretches,
    )


def _header(frame: Any) -> dict[str, Any]:
    if memoryview(frame).nbytes > _MAX_HEADER:
        raise CorruptSnapshot("the header of a snapshot is too long to be one")
    raw = bytes(frame)
    start = len(_MAGIC) + _CHECK
    if raw[: len(_MAGIC)] != _MAGIC:
        raise CorruptSnapshot("these bytes are not a snapshot, or one of another version")
    if xxhash.xxh3_64_digest(raw[start:]) != raw[len(_MAGIC) : start]:
        raise CorruptSnapshot("the header of a snapshot does not match its digest")
    try:
        head = json.loads(raw[start:])
    except (ValueError, RecursionError) as error:
        raise CorruptSnapshot("the header of a snapshot cannot be read") from error
    wanted = {"digest", "data", "buffers", "segments", "stretches", "handles", "targets"}
    if not isinstance(head, dict) or set(head) != wanted or type(head["data"]) is not int:
        raise CorruptSnapshot("the header of a snapshot lacks an entry")
    return head


def _numbers(head: dict[str, Any], name: str, signed: bool = False) -> list[int]:
    values = head[name]
    if not isinstance(values, list) or not all(
        type(v) is int and (signed or v >= 0) for v in values
    ):
        raise CorruptSnapshot(f"the header of a snapshot has no numbers under {name!r}")
    return values
