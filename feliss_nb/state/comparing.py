"""What has changed in a rank since an earlier snapshot, found by the marks of its chunks.

Nothing but the marks of the earlier snapshot is needed, and of the new one only what has changed is
copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from feliss_nb.state.chunks import CHUNK, content_ends, fixed_ends, mark
from feliss_nb.state.codec import allocate_each
from feliss_nb.state.digest import DIGEST_SIZE
from feliss_nb.state.snapshot import Room, Snapshot, frames, signed

__all__ = ["COPY", "NEW", "XOR", "Difference", "Index", "Run", "compare", "index_of"]

#: Some bytes: what they are, the frame and the first byte of a stretch of the base, how many.
Run = tuple[int, int, int, int]
#: As in the base; the next bytes of the payload; these xor the base's.
COPY, NEW, XOR = 0, 1, 2


@dataclass(slots=True)
class Index:
    """What a rank remembers of a snapshot to find what has not changed since.

    Attributes
    ----------
    digest : bytes
        Of the snapshot.
    ends : list of int
        Where the chunks of the stream end.
    sizes : list of int
        Bytes of the stream and of each buffer.
    marks : list of bytes
        For each of these, the marks of its chunks.
    links : int
        How many differences lie between it and a whole snapshot.
    """

    digest: bytes
    ends: list[int]
    sizes: list[int]
    marks: list[bytes]
    links: int = 0

    def has(self, number: int, size: int, marks: bytes) -> bool:
        """Whether a frame (0: the stream) is the same."""
        return number < len(self.sizes) and (self.sizes[number], self.marks[number]) == (
            size,
            marks,
        )

    def places(self) -> dict[bytes, tuple[int, int]]:
        """For each mark, the number of a frame with such a chunk, and where that begins."""
        found: dict[bytes, tuple[int, int]] = {}
        for number, (size, marks) in enumerate(zip(self.sizes, self.marks, strict=True), 1):
            ends = self.ends if number == 1 else fixed_ends(size)
            for chunk, start in enumerate([0, *ends[:-1]] if ends else []):
                place = chunk * DIGEST_SIZE
                found.setdefault(marks[place : place + DIGEST_SIZE], (number, start))
        return found


@dataclass(slots=True)
class Difference:
    """A difference in memory of its own, not encoded yet.

    Attributes
    ----------
    base : bytes
        The digest of the earlier snapshot; empty if there is none.
    header : bytes
        The first frame of the new snapshot.
    sizes : list of int
        Of its other frames.
    runs : list of list of Run
        For each of them.
    payload : memoryview
    """

    base: bytes
    header: bytes
    sizes: list[int]
    runs: list[list[Run]]
    payload: memoryview


@dataclass(slots=True)
class _Plan:
    """The runs of one frame while they are found; of the new ones, where they begin in it."""

    runs: list[Run] = field(default_factory=list)
    new: list[tuple[int, int]] = field(default_factory=list)
    marks: list[bytes] = field(default_factory=list)

    def add(self, place: tuple[int, int] | None, start: int, end: int) -> None:
        """Take the next chunk: it is at a place of the base, or new."""
        size = end - start
        last = self.runs[-1] if self.runs else None
        if place is None:
            if last is not None and last[0] == NEW:
                self.runs[-1] = NEW, 0, 0, last[3] + size
                self.new[-1] = self.new[-1][0], end
            else:
                self.runs.append((NEW, 0, 0, size))
                self.new.append((start, end))
        elif last is not None and last[:2] == (COPY, place[0]) and last[2] + last[3] == place[1]:
            self.runs[-1] = (*last[:3], last[3] + size)
        else:
            self.runs.append((COPY, *place, size))


def compare(
    live: Snapshot, known: Index | None, room: Room = allocate_each, most: float = 1.0
) -> tuple[Difference, Snapshot, Index] | None:
    """What has changed since a snapshot, in memory of its own.

    Parameters
    ----------
    live : Snapshot
        What ``snapshot.look`` saw, or a kept snapshot.
    known : Index, optional
        Of the earlier snapshot; without one everything is new.
    room : callable
        Where to put what has changed.
    most : float
        The part of all bytes that may be new.

    Returns
    -------
    tuple or None
        The difference, the new snapshot's (its buffers still live, its digest right) and its index.
        None if more than ``most`` is new: nothing was copied then.
    """
    places: dict[bytes, tuple[int, int]] | None = None
    views = [memoryview(frame).cast("B") for frame in (live.data, *live.buffers)]
    stream_ends = content_ends(live.data)
    plans = []
    for number, view in enumerate(views):
        plan = _Plan()
        plans.append(plan)
        ends = fixed_ends(len(view)) if number else stream_ends
        starts = [0, *ends[:-1]]
        plan.marks = [mark(view[start:end]) for start, end in zip(starts, ends, strict=False)]
        if not len(view):
            continue
        if known is not None and known.has(number, len(view), b"".join(plan.marks)):
            plan.runs.append((COPY, number + 1, 0, len(view)))  # nothing has changed: most often
            continue
        if places is None:
            places = known.places() if known is not None else {}
        for found, start, end in zip(plan.marks, starts, ends, strict=True):
            plan.add(places.get(found), start, end)
    new = sum(end - start for plan in plans for start, end in plan.new)
    if new > most * sum(map(len, views)):
        return None
    (payload,) = room([new])
    done = 0
    for number, (view, plan) in enumerate(zip(views, plans, strict=True)):
        for start, end in plan.new:
            piece = payload[done : done + end - start]
            if len(piece):
                np.frombuffer(piece, np.uint8)[:] = np.frombuffer(view[start:end], np.uint8)
            done += end - start
            if number:
                # Memory that somebody changes meanwhile: what counts is what was copied.
                for place in range(0, len(piece), CHUNK):
                    plan.marks[(start + place) // CHUNK] = mark(piece[place : place + CHUNK])
    marks = [b"".join(plan.marks) for plan in plans]
    sealed = signed(live, marks[1:])
    sizes = [len(view) for view in views]
    index = Index(sealed.digest, stream_ends, sizes, marks)
    header = frames(sealed)[0]
    base = known.digest if known is not None else b""
    return Difference(base, header, sizes, [plan.runs for plan in plans], payload), sealed, index


def index_of(kept: Snapshot, marks: Sequence[bytes]) -> Index:
    """The index of a whole snapshot, from the marks of its buffers."""
    ends = content_ends(kept.data)
    view = memoryview(kept.data)
    stream = b"".join([mark(view[a:b]) for a, b in zip([0, *ends], ends, strict=False)])
    sizes = [memoryview(frame).nbytes for frame in (kept.data, *kept.buffers)]
    return Index(kept.digest, ends, sizes, [stream, *marks])
