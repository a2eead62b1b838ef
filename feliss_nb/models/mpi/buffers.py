"""What a message is made of: the forms in which mpi4py lets a program name memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from feliss_nb.models.mpi import constants
from feliss_nb.models.mpi.datatype import BYTE, Bytes, Datatype, from_dtype
from feliss_nb.models.mpi.failures import MPIError

_EMPTY: Bytes = np.empty(0, np.uint8)


class Section:
    """``count`` items of a datatype in some memory, from ``offset`` bytes on.

    Attributes
    ----------
    nbytes : int
        Bytes of data, without gaps.
    """

    __slots__ = ("count", "datatype", "nbytes", "offset", "raw")

    def __init__(self, raw: Bytes, offset: int, count: int, datatype: Datatype) -> None:
        self.raw, self.offset, self.count, self.datatype = raw, offset, count, datatype
        self.nbytes = count * datatype.size
        if count < 0:
            raise MPIError(constants.ERR_COUNT, f"{count}")
        if offset < 0 or (count and offset + datatype.span(count) > raw.nbytes):
            raise ValueError(
                f"the message needs {datatype.span(count)} bytes from byte {offset} on, "
                f"the buffer has {raw.nbytes}"
            )

    def bytes(self) -> Bytes:
        """Give the data without gaps: the memory itself where it has none, a copy otherwise."""
        if self.datatype.contiguous:
            return self.raw[self.offset : self.offset + self.nbytes]
        units, index = self._units(self.raw)
        return units[index].view(np.uint8).reshape(-1)

    def typed(self) -> np.ndarray[Any, Any]:
        """Give the data as elements of the basic type."""
        assert self.datatype.base is not None
        return view(self.bytes(), self.datatype.base)

    def write(self, data: Any) -> None:
        """Put data there, as many bytes as there are; fewer than ``nbytes`` are a part."""
        if not self.raw.flags.writeable:
            raise BufferError("the buffer is read-only; a receive needs one to write to")
        source = np.frombuffer(data, np.uint8) if len(data) else _EMPTY
        if self.datatype.contiguous:
            self.raw[self.offset : self.offset + source.nbytes] = source
            return
        units, index = self._units(self.raw)
        if source.nbytes == self.nbytes:
            units[index] = view(source, units.dtype)
            return
        whole = self.bytes()
        whole[: source.nbytes] = source
        units[index] = view(whole, units.dtype)

    def block(self, first: int, count: int) -> Section:
        """Give ``count`` of its items from the ``first`` on."""
        return Section(self.raw, self.offset + first * self.datatype.extent, count, self.datatype)

    def _units(self, raw: Bytes) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Give the memory as an array and which of its elements the data are, in order."""
        base = self.datatype.base
        assert base is not None
        tail = raw[self.offset :]
        index = self.datatype.index(self.count, base.itemsize)
        if index is not None and tail.ctypes.data % base.alignment == 0 and base.names is None:
            return tail[: tail.nbytes // base.itemsize * base.itemsize].view(base), index
        index = self.datatype.index(self.count, 1)
        assert index is not None
        return tail, index


def view(data: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Give bytes as an array of elements, copied only if they are not aligned."""
    if not len(data):
        return np.empty(0, dtype)
    array = np.frombuffer(data, np.uint8)
    if array.ctypes.data % dtype.alignment:
        array = array.copy()
    return array.view(dtype)


def _memory(data: Any) -> tuple[Bytes, Datatype | None]:
    """Give the bytes of an object's memory, and the datatype of its elements, if it says."""
    if data is None or data is constants.BOTTOM:
        return _EMPTY, BYTE
    if not isinstance(data, np.ndarray):
        flat = memoryview(data)
        dtype = _dtype(flat)
        if not flat.c_contiguous:
            raise BufferError("the buffer is not contiguous")
        if not flat.nbytes:
            return _EMPTY, dtype and from_dtype(dtype)
        return np.frombuffer(flat.cast("B"), np.uint8), dtype and from_dtype(dtype)
    if data.flags.c_contiguous:
        flat_array = data.reshape(-1)
    elif data.flags.f_contiguous:
        flat_array = data.T.reshape(-1)
    else:
        raise BufferError("the array is not contiguous; send a copy, or describe its layout")
    known: Datatype | None
    try:
        known = from_dtype(data.dtype)
    except KeyError:
        known = None
    return (flat_array.view(np.uint8) if data.nbytes else _EMPTY), known


def _dtype(flat: memoryview) -> np.dtype[Any] | None:
    try:
        return np.dtype(flat.format) if flat.format != "B" else BYTE.base
    except TypeError:
        return None


def _datatype(given: Any, found: Datatype | None, data: Any) -> Datatype:
    if given is None:
        if found is None:
            return from_dtype(getattr(data, "dtype", np.dtype(object)))
        return found
    made = Datatype.fromcode(given) if isinstance(given, str) else given
    if not isinstance(made, Datatype):
        raise TypeError(f"expecting an MPI datatype, not {type(given).__name__}")
    if not made:
        raise MPIError(constants.ERR_TYPE, "DATATYPE_NULL")
    return made


def _split(spec: Any, most: int = 4) -> tuple[Any, Any, Any, Any]:
    """Give buffer, counts, displacements and datatype of any form of a message."""
    if not isinstance(spec, list | tuple):
        return spec, None, None, None
    if not 2 <= len(spec) <= most:
        raise ValueError(f"message: expecting 2 to {most} items, not {len(spec)}")
    if len(spec) == 2:
        data, second = spec
        if isinstance(second, Datatype | str):
            return data, None, None, second
        return data, *_pair(second), None
    if len(spec) == 3:
        data, second, datatype = spec
        return data, *_pair(second), datatype
    data, counts, displacements, datatype = spec
    return data, counts, displacements, datatype


def _pair(second: Any) -> tuple[Any, Any]:
    if isinstance(second, tuple) and len(second) == 2:
        return second
    return second, None


def message(spec: Any, blocks: int = 1) -> Section:
    """Read a message: ``data``, ``[data, count]``, ``[data, type]``, ``[data, count, type]`` ...

    Parameters
    ----------
    spec : buffer or sequence
        The count may be ``(count, displacement)``; a datatype may be numpy's character.
    blocks : int
        Into how many equal blocks a count that is not given is divided; the count is one block's.

    Returns
    -------
    Section
        All ``blocks`` of it.
    """
    data, count, displacement, given = _split(spec)
    raw, found = _memory(data)
    datatype = _datatype(given, found, data)
    offset = (displacement or 0) * datatype.extent
    if isinstance(count, Sequence | np.ndarray):
        raise TypeError("message: expecting one count")
    if count is not None:
        return Section(raw, offset, int(count) * blocks, datatype)
    return Section(raw, offset, _items(raw.nbytes - offset, datatype, blocks), datatype)


def _items(room: int, datatype: Datatype, blocks: int = 1) -> int:
    """Count the items that fill ``room`` bytes."""
    if room <= 0 or not datatype.extent:
        return 0
    count, rest = divmod(room, datatype.extent)
    if rest and datatype.span(count + 1) <= room:  # the last one has no gap behind it
        count, rest = count + 1, 0
    if rest:
        raise ValueError(
            f"message: {room} bytes are not a whole number of items of {datatype.extent} bytes"
        )
    if count % blocks:
        raise ValueError(f"message: {count} items are not {blocks} equal blocks")
    return count


def blocks_of(whole: Section, blocks: int) -> list[Section]:
    """Divide a message into equal blocks."""
    each = whole.count // blocks
    return [whole.block(index * each, each) for index in range(blocks)]


def vector(spec: Any, blocks: int) -> list[Section]:
    """Read a message of one block for each rank: ``[data, counts, displacements, type]`` ...

    Parameters
    ----------
    spec : buffer or sequence
        Counts that are not given divide the memory equally; displacements that are not given put
        the blocks one behind the other. Both count items.
    blocks : int
        How many ranks there are.
    """
    data, counts, displacements, given = _split(spec)
    raw, found = _memory(data)
    datatype = _datatype(given, found, data)
    if counts is None:
        counts = _items(raw.nbytes, datatype, blocks) // blocks
    counts = _each(counts, blocks, "counts")
    if displacements is None:
        displacements = [sum(counts[:index]) for index in range(blocks)]
    elif isinstance(displacements, int):
        displacements = [index * displacements for index in range(blocks)]
    where = _each(displacements, blocks, "displacements")
    return [
        Section(raw, start * datatype.extent if count else 0, count, datatype)
        for count, start in zip(counts, where, strict=True)
    ]


def vector_of_types(spec: Any, blocks: int) -> list[Section]:
    """Read a message of one block for each rank, each of a type of its own, for ``Alltoallw``.

    ``[data, counts, displacements, types]``, ``(data, (counts, displacements), types)`` or
    ``(data, types)``; displacements count bytes.
    """
    if not isinstance(spec, list | tuple) or not 2 <= len(spec) <= 4:
        raise ValueError("message: expecting data, counts, displacements and types")
    data, types = spec[0], spec[-1]
    counts, where = (spec[1], spec[2]) if len(spec) == 4 else (None, None)
    if len(spec) == 3:
        counts, where = _pair(spec[1])
    raw, _ = _memory(data)
    counts = [1] * blocks if counts is None else _each(counts, blocks, "counts")
    where = [0] * blocks if where is None else _each(where, blocks, "displacements")
    if len(types) != blocks:
        raise ValueError(f"message: expecting {blocks} types, not {len(types)}")
    return [
        Section(raw, start if count else 0, count, _datatype(kind, None, data))
        for count, start, kind in zip(counts, where, types, strict=True)
    ]


def _each(given: Any, blocks: int, what: str) -> list[int]:
    """Give one integer for each rank."""
    if isinstance(given, int | np.integer):
        return [int(given)] * blocks
    values = [int(value) for value in given]
    if len(values) != blocks:
        raise ValueError(f"message: expecting {blocks} {what}, not {len(values)}")
    return values


def apart(sections: Sequence[Section]) -> Callable[[int], Bytes]:
    """Copy what some sections hold, to be read while they are written to."""
    copies = [section.bytes().copy() for section in sections]
    return copies.__getitem__
