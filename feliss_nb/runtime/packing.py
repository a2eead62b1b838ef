"""Submissions as bytes: packed when they are made, so that later changes do not matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

from feliss_nb.runtime.blobs import Blobs
from feliss_nb.runtime.here import check_callable
from feliss_nb.runtime.naming import name_part
from feliss_nb.runtime.wire import Blob, Parcel
from feliss_nb.state.codec import fresh, pack
from feliss_nb.state.functions import is_users, pack_function

Start = tuple[int, Callable[..., Any], tuple[Any, ...]]
"""A rank, a function and its arguments."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The starts of a job: for the core, with the functions that they use.

    Parameters
    ----------
    starts : tuple of (int, Parcel, tuple of int)
        Rank, call, and the variables it waits for.
    handles : frozenset of int
        All variables that the job can reach.
    blobs : tuple of Blob
        The functions.
    nbytes : int
        The size of the arguments.
    """

    starts: tuple[tuple[int, Parcel, tuple[int, ...]], ...]
    handles: frozenset[int]
    blobs: tuple[Blob, ...]
    nbytes: int


def pack_starts(starts: Sequence[Start], known: Blobs) -> Packed:
    """Pack calls; the same function, and the same arguments for several ranks, only once.

    Raises
    ------
    UsageError
        If a function cannot be called.
    UnpicklableError
        If an argument, or what a function captured, cannot travel.
    """
    functions = _Functions(known)
    calls: dict[tuple[int, int], _Call] = {}
    begin = []
    for rank, function, args in starts:
        check_callable(function)
        key = id(function), id(args)
        if key not in calls:
            calls[key] = _pack_call(functions, function, args, rank)
        begin.append((rank, calls[key].parcel, tuple(sorted(calls[key].needs))))
    handles = frozenset[int]().union(*(call.reached for call in calls.values()))
    size = sum(call.parcel.nbytes for call in calls.values())
    return Packed(tuple(begin), handles, tuple(functions.blobs.values()), size)


class _Functions:
    """Names the functions of a submission by what they are: each is written once.

    Stands in for a namespace when arguments are packed, so that a function among them travels like
    the one that is called: once per engine, with its modules as they are on disk.
    """

    def __init__(self, known: Blobs) -> None:
        self._known = known
        self._home: dict[str, Any] = {}
        self._found: dict[int, tuple[object, Blob]] = {}
        self.blobs: dict[bytes, Blob] = {}

    def blob(self, function: Callable[..., Any]) -> Blob:
        """Return the blob of a callable."""
        if id(function) not in self._found:
            found = pack_function(function)
            # What the registry has already is not copied again.
            buffers = found.buffers if found.digest in self._known else fresh(found.buffers)
            names = found.modules, found.handles, found.targets
            blob = Blob(found.digest, found.data, tuple(buffers), *names)
            self._found[id(function)] = function, blob
            self.blobs[blob.digest] = blob
        return self._found[id(function)][1]

    def reference(self, obj: object) -> tuple[bytes, str | None] | None:
        """Name a user's function or class; what a library brings goes as it is."""
        if isinstance(obj, FunctionType | type) and is_users(obj):
            return self.blob(obj).digest, None
        return None

    def origin(self, name: str) -> bytes | None:
        """Return None: nothing has arrived here."""
        return None

    def home_globals(self) -> dict[str, Any]:
        """Return globals that no function has."""
        return self._home


@dataclass(frozen=True, slots=True)
class _Call:
    parcel: Parcel
    needs: frozenset[int]
    reached: frozenset[int]


def _pack_call(
    functions: _Functions, function: Callable[..., Any], args: tuple[Any, ...], rank: int
) -> _Call:
    root = functions.blob(function)
    packed = pack(args, functions, rename=partial(name_part, function, args, rank, None))
    digests = packed.digests | {root.digest}
    parcel = Parcel(
        (root.digest, None), packed.data, tuple(fresh(packed.buffers)), tuple(sorted(digests))
    )
    needs, reached = packed.handles, packed.targets
    for digest in digests:
        needs |= functions.blobs[digest].handles
        reached |= functions.blobs[digest].targets
    return _Call(parcel, needs, needs | reached)
