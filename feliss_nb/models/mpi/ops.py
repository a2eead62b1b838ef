"""Reduction operations: on objects two at a time, on arrays element by element."""
# ruff: noqa: N802  mpi4py's names

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from feliss_nb.models.mpi import buffers, constants
from feliss_nb.models.mpi.datatype import Datatype
from feliss_nb.models.mpi.failures import MPIError
from feliss_nb.models.mpi.missing import Checked

Array = np.ndarray[Any, Any]
#: ``elementwise(lower, higher, out)`` writes ``lower op higher``; ``out`` may be either of them.
Elementwise = Callable[[Array, Array, Array], object]


class Op(Checked):
    """An associative operation.

    Parameters
    ----------
    function : callable
        On two objects: of the lower and of the higher ranks.
    elementwise : callable, optional
        On arrays. None: ``function`` is a user's, called with memory, memory and the datatype.
    commute : bool
        Whether the user says that it commutes; the order of combination never relies on it.
    name : str
        Of a predefined one: what it is pickled as.
    """

    def __init__(
        self,
        function: Callable[..., Any] | None = None,
        elementwise: Elementwise | None = None,
        commute: bool = True,
        name: str = "",
    ) -> None:
        self.function, self.elementwise = function, elementwise
        self.commute, self.name = commute, name

    def __reduce__(self) -> tuple[object, ...]:
        if self.name:
            return predefined, (self.name,)
        return Op, (self.function, None, self.commute)

    def __repr__(self) -> str:
        return f"<MPI operation {self.name or self.function}>"

    def __bool__(self) -> bool:
        return self.function is not None

    def __call__(self, lower: Any, higher: Any) -> Any:
        """Combine two objects, that of the lower ranks first."""
        if self.function is None:
            raise MPIError(constants.ERR_OP, "OP_NULL")
        if self.name:
            return self.function(lower, higher)
        return self.function(lower, higher, None)

    @classmethod
    def Create(cls, function: Callable[..., Any], commute: bool = False) -> Op:
        """Make an operation of ``function(inbuf, inoutbuf, datatype)``.

        With arrays it is called with two memories, writes ``inbuf op inoutbuf`` to the second and
        returns nothing; with objects it is called with both and None, and returns the result.
        """
        return cls(function, None, commute)

    def Free(self) -> None:
        """Nothing to do; predefined ones cannot be freed."""
        if self.name:
            raise MPIError(constants.ERR_OP, f"{self.name} is predefined")

    def Is_commutative(self) -> bool:
        """Whether it commutes, as its maker said."""
        return self.commute

    @property
    def is_commutative(self) -> bool:
        """Whether it commutes, as its maker said."""
        return self.commute

    @property
    def is_predefined(self) -> bool:
        """Whether MPI defines it."""
        return bool(self.name)

    def Reduce_local(self, inbuf: Any, inoutbuf: Any) -> None:
        """Write ``inbuf op inoutbuf`` to the second buffer."""
        lower, higher = buffers.message(inbuf), buffers.message(inoutbuf)
        if lower.nbytes != higher.nbytes:
            raise MPIError(constants.ERR_COUNT, "buffers of different sizes")
        result = higher.typed().copy()
        self.combine(lower.typed(), result, result, higher.datatype)
        higher.write(result.view(np.uint8))

    def check(self, datatype: Datatype) -> None:
        """Raise at once where this operation has no meaning for a datatype."""
        base = datatype.base
        if self.function is None or self.name == "NO_OP":
            raise MPIError(constants.ERR_OP, self.name or "OP_NULL")
        if self.elementwise is None or base is None:
            return
        pair = base.names is not None
        allowed = (self.name in _ON_PAIRS) if pair else (base.kind in _KINDS[self.name])
        if not allowed:
            raise MPIError(constants.ERR_OP, f"{self.name} is not defined for {base}")

    def combine(self, lower: Array, higher: Array, out: Array, datatype: Datatype) -> None:
        """Write ``lower op higher`` to ``out``, which may be either of them."""
        if self.elementwise is not None:
            self.elementwise(lower, higher, out)
            return
        assert self.function is not None
        result = higher.copy()
        self.function(_bytes(lower).data, _bytes(result).data, datatype)
        out[...] = result


def _bytes(array: Array) -> Array:
    return array.view(np.uint8) if array.nbytes else np.empty(0, np.uint8)


def _logical(ufunc: np.ufunc) -> Elementwise:
    def apply(lower: Array, higher: Array, out: Array) -> None:
        out[...] = ufunc(lower, higher)

    return apply


def _located(better: np.ufunc) -> Elementwise:
    def apply(lower: Array, higher: Array, out: Array) -> None:
        tie = lower["value"] == higher["value"]
        wins = better(lower["value"], higher["value"])
        wins |= tie & (lower["index"] <= higher["index"])
        out[...] = np.where(wins, lower, higher)

    return apply


def _locate(better: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    def apply(lower: Any, higher: Any) -> Any:
        if better(lower[0], higher[0]):
            return lower
        if better(higher[0], lower[0]):
            return higher
        return lower if lower[1] <= higher[1] else higher

    return apply


def _copy_from(which: int) -> Elementwise:
    def apply(lower: Array, higher: Array, out: Array) -> None:
        out[...] = (lower, higher)[which]

    return apply


def _plain(ufunc: np.ufunc) -> Elementwise:
    def apply(lower: Array, higher: Array, out: Array) -> None:
        ufunc(lower, higher, out=out)

    return apply


_NUMBERS: Final = "iufc?"
_INTEGERS: Final = "iu?"
_KINDS: Final = {
    "MAX": "iuf?",
    "MIN": "iuf?",
    "SUM": _NUMBERS,
    "PROD": _NUMBERS,
    "LAND": "iuf?",
    "LOR": "iuf?",
    "LXOR": "iuf?",
    "BAND": _INTEGERS,
    "BOR": _INTEGERS,
    "BXOR": _INTEGERS,
    "REPLACE": _NUMBERS + "SUV",
    "MAXLOC": "",
    "MINLOC": "",
}
_ON_PAIRS: Final = frozenset({"MAXLOC", "MINLOC", "REPLACE"})

#: Every predefined operation by its name.
PREDEFINED: Final = {
    op.name: op
    for op in [
        Op(lambda x, y: y if y > x else x, _plain(np.maximum), name="MAX"),
        Op(lambda x, y: y if y < x else x, _plain(np.minimum), name="MIN"),
        Op(operator.add, _plain(np.add), name="SUM"),
        Op(operator.mul, _plain(np.multiply), name="PROD"),
        Op(lambda x, y: bool(x) & bool(y), _logical(np.logical_and), name="LAND"),
        Op(lambda x, y: bool(x) | bool(y), _logical(np.logical_or), name="LOR"),
        Op(lambda x, y: bool(x) ^ bool(y), _logical(np.logical_xor), name="LXOR"),
        Op(operator.and_, _plain(np.bitwise_and), name="BAND"),
        Op(operator.or_, _plain(np.bitwise_or), name="BOR"),
        Op(operator.xor, _plain(np.bitwise_xor), name="BXOR"),
        Op(_locate(operator.gt), _located(np.greater), name="MAXLOC"),
        Op(_locate(operator.lt), _located(np.less), name="MINLOC"),
        Op(lambda x, y: x, _copy_from(0), name="REPLACE"),
        Op(lambda x, y: y, _copy_from(1), name="NO_OP"),
        Op(None, name="OP_NULL"),
    ]
}
SUM: Final = PREDEFINED["SUM"]


def predefined(name: str) -> Op:
    """Give the operation of this name: what is unpickled is the very one."""
    return PREDEFINED[name]
