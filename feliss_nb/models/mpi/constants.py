"""The integers of MPI, with the values that Open MPI gives them."""

from __future__ import annotations

from typing import Final, final

ANY_SOURCE: Final = -1
ANY_TAG: Final = -1
PROC_NULL: Final = -2
ROOT: Final = -4
UNDEFINED: Final = -32766
#: Largest tag of a message.
MAX_TAG: Final = 2**31 - 1

IDENT: Final = 0
CONGRUENT: Final = 1
SIMILAR: Final = 2
UNEQUAL: Final = 3

CART: Final = 1
GRAPH: Final = 2
DIST_GRAPH: Final = 3
COMM_TYPE_SHARED: Final = 0

ORDER_C: Final = 0
ORDER_F: Final = 1
ORDER_FORTRAN: Final = 1

THREAD_SINGLE: Final = 0
THREAD_FUNNELED: Final = 1
THREAD_SERIALIZED: Final = 2
THREAD_MULTIPLE: Final = 3

#: Keys of predefined attributes.
TAG_UB: Final = 0
HOST: Final = 1
IO: Final = 2
WTIME_IS_GLOBAL: Final = 3
APPNUM: Final = 4
LASTUSEDCODE: Final = 5
UNIVERSE_SIZE: Final = 6
KEYVAL_INVALID: Final = -1

BSEND_OVERHEAD: Final = 128
MAX_PROCESSOR_NAME: Final = 256
MAX_ERROR_STRING: Final = 256
MAX_OBJECT_NAME: Final = 64
MAX_LIBRARY_VERSION_STRING: Final = 256
VERSION: Final = 3
SUBVERSION: Final = 1

SUCCESS: Final = 0
ERR_BUFFER: Final = 1
ERR_COUNT: Final = 2
ERR_TYPE: Final = 3
ERR_TAG: Final = 4
ERR_COMM: Final = 5
ERR_RANK: Final = 6
ERR_REQUEST: Final = 7
ERR_ROOT: Final = 8
ERR_GROUP: Final = 9
ERR_OP: Final = 10
ERR_TOPOLOGY: Final = 11
ERR_DIMS: Final = 12
ERR_ARG: Final = 13
ERR_UNKNOWN: Final = 14
ERR_TRUNCATE: Final = 15
ERR_OTHER: Final = 16
ERR_INTERN: Final = 17
ERR_IN_STATUS: Final = 18
ERR_PENDING: Final = 19
ERR_KEYVAL: Final = 36
ERR_NO_MEM: Final = 39
ERR_UNSUPPORTED_OPERATION: Final = 52
ERR_PROC_ABORTED: Final = 74
ERR_PROC_FAILED: Final = 75
ERR_PROC_FAILED_PENDING: Final = 76
ERR_REVOKED: Final = 77
ERR_LASTCODE: Final = 92


@final
class Named(int):
    """An integer constant with a meaning of its own, known by its name in every process."""

    def __new__(cls, name: str, value: int) -> Named:
        made = super().__new__(cls, value)
        made.__dict__["name"] = name
        return made

    def __repr__(self) -> str:
        return str(self.__dict__["name"])

    def __bool__(self) -> bool:
        return bool(int(self))

    def __reduce__(self) -> tuple[object, ...]:
        return named, (self.__dict__["name"],)


IN_PLACE: Final = Named("IN_PLACE", 1)
BOTTOM: Final = Named("BOTTOM", 0)


def named(name: str) -> Named:
    """Give the constant of this name: what is unpickled is the very one."""
    return {"IN_PLACE": IN_PLACE, "BOTTOM": BOTTOM}[name]
