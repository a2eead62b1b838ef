"""Captures: the ways in which a rank becomes a snapshot, by name.

``full``
    Everything is copied.
``incremental``
    What has changed since the last committed snapshot, found by hashing; whole again from time to
    time, and where more than half has changed.
``forked``, ``incremental+forked``
    The same by a child process, while the rank goes on: see ``forked``.
``+zstd``, ``+xor``
    Behind each of these: what is written is compressed; with ``+xor`` what has changed in a buffer
    is first replaced by its xor with what was there before.
"""

from __future__ import annotations

import difflib
import itertools
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from feliss_nb.errors import UsageError
from feliss_nb.state.codec import allocate_each, total
from feliss_nb.state.comparing import Difference, Index, compare, index_of
from feliss_nb.state.differences import Compression, encode
from feliss_nb.state.explain import Rename
from feliss_nb.state.snapshot import Listener, Room, Snapshot, frames, keep, look

__all__ = ["FULL", "Chain", "Draft", "Method", "Taken", "draft", "method", "names"]

#: Differences in a row before a whole snapshot: so many are applied to restore from a store that
#: keeps them as they come, and an error that nobody noticed lives no longer.
LINKS = 16
#: More than this part of all bytes new, and a whole snapshot is as cheap.
WORTH = 0.5


@dataclass(frozen=True, slots=True)
class Method:
    """A capture.

    Attributes
    ----------
    name : str
    incremental : bool
        Only what has changed is written.
    forked : bool
        A child process writes.
    compression : {"", "zstd", "xor"}
    """

    name: str
    incremental: bool = False
    forked: bool = False
    compression: Compression = ""

    @property
    def needs_base(self) -> bool:
        """Whether it looks at the snapshot before."""
        return self.incremental or self.compression == "xor"

    @property
    def is_plain(self) -> bool:
        """Whether everything is written as it is, by the rank itself."""
        return not (self.incremental or self.forked or self.compression)

    def unforked(self) -> Method:
        """The same without a child."""
        return Method(self.name, self.incremental, False, self.compression)


FULL = Method("full")


def _all() -> dict[str, Method]:
    found: dict[str, Method] = {}
    ways: tuple[Compression, ...] = "", "zstd", "xor"
    for compression, incremental, forked in itertools.product(ways, (False, True), (False, True)):
        parts = [word for word, on in (("incremental", incremental), ("forked", forked)) if on]
        name = "+".join([*(parts or ["full"]), *([compression] if compression else [])])
        found[name] = Method(name, incremental, forked, compression)
    return found


_METHODS = _all()


def names() -> tuple[str, ...]:
    """The names of all captures."""
    return tuple(_METHODS)


def method(name: object) -> Method:
    """The capture of a name.

    Raises
    ------
    UsageError
        There is none; the error lists the names.
    """
    found = _METHODS.get(name) if isinstance(name, str) else None
    if found is None:
        near = difflib.get_close_matches(str(name), _METHODS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        known = ", ".join(_METHODS)
        raise UsageError(f"there is no capture {name!r}{hint}; there are: {known}")
    return found


@dataclass(slots=True)
class Taken:
    """A capture as frames.

    Attributes
    ----------
    frames : list of bytes-like
        Of a whole snapshot, or of a difference.
    is_difference : bool
        Which of them.
    needs_base : bool
        Whether the difference is one from an earlier snapshot.
    nbytes : int
        Bytes of the whole snapshot.
    reaches : frozenset of int
        The variables that are read or written through it.
    index : Index or None
        What to remember for the next one.
    """

    frames: list[Any]
    is_difference: bool
    needs_base: bool
    nbytes: int
    reaches: frozenset[int]
    index: Index | None

    @property
    def written(self) -> int:
        """Bytes of the frames."""
        return total(self.frames)

    def parts(self) -> list[Any]:
        """It as buffers, for a child to write."""
        return [pickle.dumps(replace(self, frames=[]), 5), *self.frames]

    @classmethod
    def of_parts(cls, parts: Sequence[Any]) -> Taken:
        """What a child has written."""
        bare: Taken = pickle.loads(parts[0])
        return replace(bare, frames=[bytes(parts[1]), *parts[2:]])


@dataclass(slots=True)
class Draft:
    """A capture whose bytes nothing can change any more; what is left to do needs no rank."""

    snapshot: Snapshot
    difference: Difference | None
    index: Index | None
    compression: Compression

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left to do."""
        return self.difference is None

    def finish(self, base: Sequence[Any] = ()) -> Taken:
        """Compress it. ``base``: the frames of the earlier snapshot, for what looks at them."""
        about = self.snapshot.nbytes, self.snapshot.handles | self.snapshot.targets, self.index
        if self.difference is None:
            return Taken(frames(self.snapshot), False, False, *about)
        needs_base = bool(self.difference.base) or (self.compression == "xor" and bool(base))
        return Taken(encode(self.difference, self.compression, base), True, needs_base, *about)


def draft(
    obj: object,
    how: Method = FULL,
    known: Index | None = None,
    label: str = "rank",
    rename: Rename | None = None,
    room: Room = allocate_each,
    listener: Listener | None = None,
) -> Draft:
    """Capture an object, so far that it may change again.

    Parameters
    ----------
    obj, label, rename, room
        As in ``snapshot.capture``.
    how : Method
        Whether it forks is the caller's business.
    known : Index, optional
        Of the last committed snapshot, for a method that needs a base.
    listener : Listener, optional
        Hears of the stream while it is made; for a method that is `plain`.

    Raises
    ------
    UnpicklableError
        Something in it has no meaning outside this process; the error says where it stands.
    """
    live = look(obj, label, rename, listener)
    named = known if how.incremental else None
    if named is not None or how.compression:
        found = compare(live, named, room, 1.0 if how.compression else WORTH)
        if found is not None:
            difference, sealed, index = found
            index.links = known.links + 1 if known is not None else 0
            return Draft(sealed, difference, index if how.needs_base else None, how.compression)
    kept, marks = keep(live, room)
    return Draft(kept, None, index_of(kept, marks) if how.needs_base else None, "")


class Chain:
    """What a rank remembers of its snapshots: the index of each that may be committed.

    Parameters
    ----------
    limit : int
        How many differences may follow each other.
    """

    def __init__(self, limit: int = LINKS) -> None:
        self._limit = limit
        self._known: dict[int, Index] = {}

    def known(self, committed: int) -> Index | None:
        """The index of a committed checkpoint, while a difference from it may be taken."""
        self._known = {number: i for number, i in self._known.items() if number == committed}
        found = self._known.get(committed)
        return found if found is not None and found.links < self._limit else None

    def add(self, checkpoint: int, index: Index | None) -> None:
        """Remember the snapshot of a checkpoint that is not committed yet."""
        if index is not None:
            self._known[checkpoint] = index

    def clear(self) -> None:
        """Forget all: the next one is whole."""
        self._known.clear()
