"""Datatypes: which bytes of a buffer belong to one item of a message."""
# ruff: noqa: N802  mpi4py's names

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from feliss_nb.models.mpi import constants
from feliss_nb.models.mpi.failures import MPIError
from feliss_nb.models.mpi.missing import Checked

#: A contiguous array of bytes.
Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


class Datatype(Checked):
    """One item: elements of a basic type at some distances from where the item begins.

    Parameters
    ----------
    base : numpy.dtype or None
        Of each element; None for ``DATATYPE_NULL``.
    offsets : array of int64, optional
        Where the elements lie, in bytes, in the order of the message. None: one after another.
    elements : int
        How many there are.
    lb, extent : int
        Where an item begins and how far the next one is, in bytes.
    name : str
        Of a predefined one: what it is pickled as.

    Attributes
    ----------
    size : int
        Bytes of data in one item.
    """

    def __init__(
        self,
        base: np.dtype[Any] | None,
        offsets: np.ndarray[Any, np.dtype[np.int64]] | None = None,
        elements: int = 1,
        lb: int = 0,
        extent: int | None = None,
        name: str = "",
    ) -> None:
        self.base = base
        self.elements = elements
        self.size = elements * base.itemsize if base is not None else 0
        self.offsets = offsets
        self.lb = lb
        self.extent = self.size if extent is None else extent
        self.name = name
        self.predefined = bool(name)
        self.contiguous = offsets is None and lb == 0 and self.extent == self.size

    def __reduce__(self) -> tuple[object, ...]:
        if self.predefined:
            return predefined, (self.name,)
        return Datatype, (self.base, self.offsets, self.elements, self.lb, self.extent)

    def __repr__(self) -> str:
        return f"<MPI datatype {self.name or self.base}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Datatype):
            return NotImplemented
        if self is other:
            return True
        return self._signature() == other._signature()

    def __hash__(self) -> int:
        return hash(self._signature()[:4])

    def _signature(self) -> tuple[object, ...]:
        where = None if self.offsets is None else self.offsets.tobytes()
        return str(self.base), self.elements, self.lb, self.extent, where

    def __bool__(self) -> bool:
        return self.base is not None

    @property
    def ub(self) -> int:
        """Where an item ends, gaps included."""
        return self.lb + self.extent

    @property
    def typechar(self) -> str:
        """Numpy's character for the basic type."""
        return self.base.char if self.base is not None else ""

    @property
    def typestr(self) -> str:
        """Numpy's name for the basic type, as in its array interface."""
        return self.base.str if self.base is not None else ""

    @property
    def is_predefined(self) -> bool:
        """Whether MPI defines it."""
        return self.predefined

    is_named = is_predefined

    def tocode(self) -> str:
        """Give numpy's character for the basic type."""
        return self.typechar

    @classmethod
    def fromcode(cls, code: str) -> Datatype:
        """Find the datatype of a numpy type character."""
        return from_dtype(np.dtype(code))

    @property
    def true_lb(self) -> int:
        """Where the data begin."""
        return self.Get_true_extent()[0]

    @property
    def true_extent(self) -> int:
        """Bytes from the first of the data to behind the last."""
        return self.Get_true_extent()[1]

    @property
    def true_ub(self) -> int:
        """Where the data end."""
        return sum(self.Get_true_extent())

    def Get_size(self) -> int:
        """Give the bytes of data in one item."""
        fields = self.base.fields if self.base is not None else None
        if fields:
            return self.elements * sum(field[0].itemsize for field in fields.values())
        return self.size

    def Get_extent(self) -> tuple[int, int]:
        """Give the lower bound and the extent."""
        return self.lb, self.extent

    def Get_true_extent(self) -> tuple[int, int]:
        """Give the lowest byte of data and the distance to behind the highest."""
        if not self.elements or self.base is None:
            return 0, 0
        where = self.positions()
        low = int(where.min())
        return low, int(where.max()) + self.base.itemsize - low

    def Get_name(self) -> str:
        """Give the name."""
        return f"MPI_{self.name}" if self.predefined else self.name

    def Set_name(self, name: str) -> None:
        """Give it a name."""
        if not self.predefined:
            self.name = name

    def Commit(self) -> Datatype:
        """Nothing to do; for the sake of programs that have to."""
        return self

    def Free(self) -> None:
        """Nothing to do; predefined ones cannot be freed."""
        if self.predefined:
            raise MPIError(constants.ERR_TYPE, f"{self.name} is predefined")

    def Dup(self) -> Datatype:
        """Give an equal datatype."""
        return Datatype(self.base, self.offsets, self.elements, self.lb, self.extent)

    Create_dup = Dup

    def positions(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Give the distance of each element from where the item begins, in bytes."""
        if self.offsets is not None:
            return self.offsets
        assert self.base is not None
        return np.arange(self.elements, dtype=np.int64) * self.base.itemsize

    def _placed(self, where: Any, lengths: Sequence[int] | None = None) -> Datatype:
        """Items of this type at distances in bytes, ``lengths`` of them at each."""
        if self.base is None:
            raise MPIError(constants.ERR_TYPE, "DATATYPE_NULL")
        starts = np.asarray(where, np.int64).reshape(-1)
        if lengths is not None:
            if len(lengths) != len(starts) or any(length < 0 for length in lengths):
                raise MPIError(constants.ERR_ARG, "one length of a block for each displacement")
            starts = np.concatenate(
                [np.zeros(0, np.int64)]
                + [
                    start + np.arange(length, dtype=np.int64) * self.extent
                    for start, length in zip(starts, lengths, strict=True)
                ]
            )
        if not len(starts):
            return Datatype(self.base, starts, 0, 0, 0)
        offsets = (starts[:, None] + self.positions()[None, :]).reshape(-1)
        low, high = int(starts.min()) + self.lb, int(starts.max()) + self.ub
        whole = np.arange(len(offsets), dtype=np.int64) * self.base.itemsize
        if low == 0 and np.array_equal(offsets, whole):
            return Datatype(self.base, None, len(offsets), 0, high)
        return Datatype(self.base, offsets, len(offsets), low, high - low)

    def Create_contiguous(self, count: int) -> Datatype:
        """``count`` items, one after another."""
        _count(count)
        return self._placed(np.arange(count) * self.extent)

    def Create_vector(self, count: int, blocklength: int, stride: int) -> Datatype:
        """Blocks of items whose starts are ``stride`` items apart."""
        return self.Create_hvector(count, blocklength, stride * self.extent)

    def Create_hvector(self, count: int, blocklength: int, stride: int) -> Datatype:
        """Blocks of items whose starts are ``stride`` bytes apart."""
        _count(count, blocklength)
        return self._placed(np.arange(count) * stride, [blocklength] * count)

    def Create_indexed(self, blocklengths: Sequence[int], displacements: Sequence[int]) -> Datatype:
        """Blocks of items at displacements, in items."""
        where = [displacement * self.extent for displacement in displacements]
        return self._placed(where, blocklengths)

    def Create_hindexed(
        self, blocklengths: Sequence[int], displacements: Sequence[int]
    ) -> Datatype:
        """Blocks of items at displacements, in bytes."""
        return self._placed(displacements, blocklengths)

    def Create_indexed_block(self, blocklength: int, displacements: Sequence[int]) -> Datatype:
        """Blocks of one length at displacements, in items."""
        return self.Create_indexed([blocklength] * len(displacements), displacements)

    def Create_hindexed_block(self, blocklength: int, displacements: Sequence[int]) -> Datatype:
        """Blocks of one length at displacements, in bytes."""
        return self._placed(displacements, [blocklength] * len(displacements))

    def Create_subarray(
        self,
        sizes: Sequence[int],
        subsizes: Sequence[int],
        starts: Sequence[int],
        order: int = constants.ORDER_C,
    ) -> Datatype:
        """Take a box out of an array of ``sizes`` items."""
        boxes = list(zip(sizes, subsizes, starts, strict=True))
        if any(start < 0 or part < 1 or start + part > size for size, part, start in boxes):
            raise MPIError(constants.ERR_ARG, f"a box of {subsizes} at {starts} in {sizes}")
        if order == constants.ORDER_F:
            boxes.reverse()
        where = np.zeros(1, np.int64)
        for size, part, start in boxes:
            where = (where[:, None] * size + np.arange(start, start + part)[None, :]).reshape(-1)
        made = self._placed(where * self.extent)
        return made.Create_resized(0, math.prod(sizes) * self.extent)

    def Create_resized(self, lb: int, extent: int) -> Datatype:
        """Give the same data with other bounds."""
        return Datatype(self.base, self.offsets, self.elements, lb, extent)

    @classmethod
    def Create_struct(
        cls,
        blocklengths: Sequence[int],
        displacements: Sequence[int],
        datatypes: Sequence[Datatype],
    ) -> Datatype:
        """Blocks of different types at displacements, in bytes."""
        bases = {datatype.base for datatype in datatypes}
        parts = [
            datatype._placed([displacement], [length])
            for length, displacement, datatype in zip(
                blocklengths, displacements, datatypes, strict=True
            )
        ]
        base = bases.pop() if len(bases) == 1 else None
        if base is None:  # of different types: bytes
            base = np.dtype(np.uint8)
            spread = [
                (part.positions()[:, None] + np.arange(part.base.itemsize)[None, :]).reshape(-1)
                for part in parts
                if part.base is not None
            ]
        else:
            spread = [part.positions() for part in parts]
        offsets = np.concatenate([np.zeros(0, np.int64), *spread])
        low = min((part.lb for part in parts), default=0)
        high = max((part.ub for part in parts), default=0)
        return Datatype(base, offsets, len(offsets), low, high - low)

    def index(self, count: int, itemsize: int) -> np.ndarray[Any, np.dtype[np.int64]] | None:
        """Number the elements of ``count`` items in units of ``itemsize`` bytes, if they fit."""
        where = (
            np.arange(count, dtype=np.int64)[:, None] * self.extent + self.positions()[None, :]
        ).reshape(-1)
        if itemsize == 1:
            assert self.base is not None
            return (where[:, None] + np.arange(self.base.itemsize)[None, :]).reshape(-1)
        return where // itemsize if not (where % itemsize).any() else None

    def span(self, count: int) -> int:
        """Count the bytes from the start of the first item to behind the data of the last one."""
        if not count or not self.elements:
            return 0
        if self.contiguous:
            return count * self.size
        low, length = self.Get_true_extent()
        return (count - 1) * max(self.extent, 0) + low + length


def _count(*counts: int) -> None:
    if any(count < 0 for count in counts):
        raise MPIError(constants.ERR_COUNT, f"{counts}")


def _pair(value: str, where: str = "i4") -> np.dtype[Any]:
    return np.dtype([("value", value), ("index", where)], align=True)


def _table() -> dict[str, Datatype]:
    same = {
        "BYTE PACKED UNSIGNED_CHAR UINT8_T": "B",
        "CHAR CHARACTER": "c",
        "SIGNED_CHAR INT8_T SINT8_T INTEGER1": "b",
        "SHORT SIGNED_SHORT INT16_T SINT16_T INTEGER2": "h",
        "UNSIGNED_SHORT UINT16_T": "H",
        "INT SIGNED_INT INT32_T SINT32_T INTEGER INTEGER4 F_INT LOGICAL F_BOOL": "i",
        "UNSIGNED UNSIGNED_INT UINT32_T": "I",
        "LONG SIGNED_LONG INT64_T SINT64_T INTEGER8 AINT COUNT OFFSET": "l",
        "UNSIGNED_LONG UINT64_T": "L",
        "LONG_LONG SIGNED_LONG_LONG": "q",
        "UNSIGNED_LONG_LONG": "Q",
        "FLOAT REAL REAL4 F_FLOAT FLOAT32_T": "f",
        "DOUBLE DOUBLE_PRECISION REAL8 F_DOUBLE FLOAT64_T": "d",
        "FLOAT16_T": "e",
        "LONG_DOUBLE REAL16": "g",
        "BOOL C_BOOL CXX_BOOL": "?",
        "COMPLEX C_COMPLEX C_FLOAT_COMPLEX CXX_FLOAT_COMPLEX F_COMPLEX": "F",
        "F_FLOAT_COMPLEX COMPLEX8": "F",
        "DOUBLE_COMPLEX C_DOUBLE_COMPLEX CXX_DOUBLE_COMPLEX F_DOUBLE_COMPLEX COMPLEX16": "D",
        "C_LONG_DOUBLE_COMPLEX CXX_LONG_DOUBLE_COMPLEX COMPLEX32": "G",
        "WCHAR": "U1",
    }
    table = {
        name: Datatype(np.dtype(code), name=name)
        for names, code in same.items()
        for name in names.split()
    }
    pairs = {
        "FLOAT_INT": _pair("f4"),
        "DOUBLE_INT": _pair("f8"),
        "LONG_INT": _pair("i8"),
        "INT_INT": _pair("i4"),
        "TWOINT": _pair("i4"),
        "SHORT_INT": _pair("i2"),
        "LONG_DOUBLE_INT": _pair("g"),
    }
    table |= {name: Datatype(dtype, name=name) for name, dtype in pairs.items()}
    table["DATATYPE_NULL"] = Datatype(None, elements=0, name="DATATYPE_NULL")
    return table


#: Every predefined datatype by its name.
PREDEFINED: Final = _table()
_BY_DTYPE: Final = {datatype.base: datatype for datatype in reversed(PREDEFINED.values())}
BYTE: Final = PREDEFINED["BYTE"]


def predefined(name: str) -> Datatype:
    """Give the datatype of this name: what is unpickled is the very one."""
    return PREDEFINED[name]


def from_dtype(dtype: np.dtype[Any]) -> Datatype:
    """Find the datatype of an array's elements.

    Raises
    ------
    KeyError
        No predefined datatype is like it; the error says what to do.
    """
    found = _BY_DTYPE.get(dtype)
    if found is None:
        raise KeyError(
            f"cannot map {dtype!r} to an MPI datatype; "
            "name one beside the array, [data, MPI.BYTE] for one"
        )
    return found


def get_address(location: Any) -> int:
    """Give the address of a buffer's first byte."""
    return int(np.asarray(memoryview(location)).ctypes.data)


#: ``MPI.Get_address``.
Get_address: Callable[[Any], int] = get_address
