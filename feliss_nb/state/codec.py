"""Objects to bytes and back: one stream, and beside it the large buffers, not copied."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from feliss_nb.errors import UnpicklableError
from feliss_nb.state import arrival, explain, modules
from feliss_nb.state.handle import Handle
from feliss_nb.state.pickler import IN_BAND, Pickler, References

__all__ = ["Packed", "Tape", "allocate_each", "fresh", "pack", "total", "unpack"]

#: A cache line and the widest vector register: what numpy and BLAS like best.
ALIGNMENT = 64
_PLAIN = frozenset({int, float, bool, str, bytes, complex, type(None)})
#: Levels of nesting that are tried when Python's own limit (1000) is not enough. A chain of objects
#: takes three a link and, measured, under 280 bytes of stack a level: half of the usual 8 MiB.
DEEP = 15_000
# Threads that use more levels now; the last of them brings back the limit that the first found.
_deep = 0
_limits: list[int] = []
_NOTHING: frozenset[Any] = frozenset()
# More elements than this are not looked at one by one: C is quicker at writing than we at asking.
_FEW = 32


@dataclass(slots=True)
class Packed:
    """An object as bytes.

    Attributes
    ----------
    data : bytes
        The pickle stream.
    buffers : tuple of memoryview
        Flat contiguous views of live memory: copy them before their owner changes them.
    handles, targets : frozenset of int
        The variables that are read and written through what was packed.
    digests : frozenset of bytes
        The functions that the receiver must have loaded.
    modules : tuple of (str, str)
        Name and file of the user's modules that it imports.
    """

    data: bytes
    buffers: tuple[memoryview, ...] = ()
    handles: frozenset[int] = _NOTHING
    targets: frozenset[int] = _NOTHING
    digests: frozenset[bytes] = _NOTHING
    modules: tuple[tuple[str, str], ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of the stream and the buffers."""
        return len(self.data) + sum(b.nbytes for b in self.buffers)


class Tape:
    """A pickle stream in the pieces in which the pickler writes it.

    Parameters
    ----------
    hear : callable
        Told of each piece; it never changes again.
    begins_anew : callable
        Told that the pieces heard so far are not of the stream that is kept.
    """

    def __init__(self, hear: Callable[[bytes], object], begins_anew: Callable[[], object]) -> None:
        self.pieces: list[bytes] = []
        self._hear, self._begins_anew = hear, begins_anew

    def write(self, piece: Any) -> None:
        """Take the next bytes: often a frame of pickle's, of 64 KiB."""
        piece = bytes(piece)  # a bytearray of the user's comes as it is
        self.pieces.append(piece)
        self._hear(piece)

    def begin_anew(self) -> None:
        """Forget what was written."""
        self.pieces.clear()
        self._begins_anew()

    def __len__(self) -> int:
        return sum(map(len, self.pieces))


def pack(
    obj: object,
    namespace: References | None = None,
    label: str = "argument",
    rename: explain.Rename | None = None,
    in_band: int = IN_BAND,
    share: bool = False,
    tape: Tape | None = None,
) -> Packed:
    """Write an object to bytes.

    Parameters
    ----------
    obj : object
    namespace : Namespace, optional
        Functions that it holds are named, not written.
    label : str
        What to call ``obj`` in an error.
    rename : callable, optional
        ``rename(keys)`` gives a name to the object behind these keys, attributes and indices from
        the top, or None; in an error it stands for the longest path it knows.
    in_band : int
        Buffers of fewer bytes are copied into the stream.
    share : bool
        Write strided views of arrays as stretches of the memory that they are views of, gaps too,
        so that who copies overlapping buffers together keeps what is shared.
    tape : Tape, optional
        Where the stream is written, for who wants its pieces at once; `data` is left empty then.

    Returns
    -------
    Packed

    Raises
    ------
    UnpicklableError
        Something in it has no meaning outside this process; the error says where it stands.
    """
    quick = _pack_plain(obj) if tape is None else None
    if quick is not None:
        return quick
    try:
        try:
            return _write(obj, namespace, in_band, share, tape)
        except pickle.PicklingError as error:
            if not isinstance(error.__cause__, RecursionError):
                raise
            with _deeper():
                if tape is not None:
                    tape.begin_anew()
                return _write(obj, namespace, in_band, share, tape)
    except (MemoryError, UnpicklableError):  # of a function that is packed by itself: it is named
        raise
    except Exception as error:
        raise explain.explain(obj, label, error, namespace, rename) from error


def _write(
    obj: object, namespace: References | None, in_band: int, share: bool, tape: Tape | None
) -> Packed:
    file = io.BytesIO()
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < in_band:
            return True
        buffers.append(view)
        return False

    pickler = Pickler(file if tape is None else tape, keep, namespace, share)
    pickler.dump(obj)
    return Packed(
        file.getvalue(),
        tuple(buffers),
        frozenset(pickler.handles),
        frozenset(pickler.targets),
        frozenset(pickler.digests),
        modules.files(pickler.modules) if pickler.modules else (),
    )


@contextmanager
def _deeper() -> Iterator[None]:
    """More levels for the C pickler, which counts them against the limit for Python calls."""
    global _deep
    if not _deep:
        _limits.append(sys.getrecursionlimit())
        sys.setrecursionlimit(max(_limits[0], DEEP))
    _deep += 1
    try:
        yield
    finally:
        _deep -= 1
        if not _deep:
            sys.setrecursionlimit(_limits.pop())


def _pack_plain(obj: object) -> Packed | None:
    """What a tuple of a few scalars and handles is packed to; None for all else."""
    handles: list[int] | None = None
    if type(obj) is tuple and len(obj) <= _FEW:
        for item in obj:
            if type(item) in _PLAIN:
                continue
            if not isinstance(item, Handle):
                return None
            if handles is None:
                handles = []
            handles.append(item.variable)
    elif type(obj) not in _PLAIN:
        return None
    data = pickle.dumps(obj, 5)
    return Packed(data, handles=frozenset(handles)) if handles else Packed(data)


def unpack(
    data: Any,
    buffers: Iterable[Any] = (),
    namespace: arrival.Home | None = None,
    make_handle: Callable[[int, bool], object] | None = None,
) -> Any:
    """The object that ``pack`` wrote.

    Parameters
    ----------
    data : bytes-like
    buffers : iterable of bytes-like
        In their order. Arrays live in this very memory: see ``fresh``; where it is read-only, so
        are they.
    namespace : Namespace, optional
        Has the functions that are named only, and the globals of those that are not.
    make_handle : callable, optional
        ``make_handle(variable, records)`` makes what stands in place of each handle.
    """
    # Not `with reading()`: a generator's frame costs more than a small message.
    token = arrival.enter(arrival.Arrival(namespace, make_handle))
    try:
        return pickle.loads(data, buffers=buffers)
    finally:
        arrival.leave(token)


def fresh(buffers: Iterable[Any]) -> list[memoryview]:
    """Copies of buffers in memory of their own, writable and aligned to 64 bytes.

    Parameters
    ----------
    buffers : iterable of bytes-like
        Contiguous.

    Returns
    -------
    list of memoryview
        Flat views of bytes.
    """
    return [_copy(memoryview(buffer).cast("B")) for buffer in buffers]


def _copy(source: memoryview) -> memoryview:
    size = source.nbytes
    if not size:
        return memoryview(bytearray())
    target = allocate(size)
    target[:] = np.frombuffer(source, np.uint8)
    return target.data


def allocate(size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Memory of ``size`` bytes, aligned, its content undefined."""
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size]


def allocate_each(sizes: Iterable[int]) -> list[memoryview]:
    """Memory of each of these sizes, aligned, its content undefined."""
    return [allocate(size).data for size in sizes]


def total(buffers: Iterable[Any]) -> int:
    """Bytes in some buffers."""
    return sum(memoryview(b).nbytes for b in buffers)
