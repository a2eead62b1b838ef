"""``MPI``: the names of ``mpi4py.MPI``, for ``from feliss_nb import MPI``.

What mpi4py has and this module has not is in ``missing.NOT_IMPLEMENTED``, and raises
``NotImplementedError`` with its name.
"""
# ruff: noqa: N802  mpi4py's names

from __future__ import annotations

import platform
from typing import Any

from feliss_nb.errors import UsageError
from feliss_nb.models.mpi import core as _core
from feliss_nb.models.mpi import datatype as _datatype
from feliss_nb.models.mpi import failures as _failures
from feliss_nb.models.mpi import missing as _missing
from feliss_nb.models.mpi import ops as _ops
from feliss_nb.models.mpi.cart import Cartcomm, Topocomm, compute_dims
from feliss_nb.models.mpi.comm import COMM_NULL, COMM_SELF, COMM_WORLD, Comm, Intracomm
from feliss_nb.models.mpi.constants import *  # noqa: F403  every constant is one of mpi4py's
from feliss_nb.models.mpi.constants import (
    MAX_LIBRARY_VERSION_STRING,
    SUBVERSION,
    THREAD_SINGLE,
    VERSION,
)
from feliss_nb.models.mpi.datatype import Datatype, Get_address
from feliss_nb.models.mpi.failures import MPIError as Exception
from feliss_nb.models.mpi.group import GROUP_EMPTY, GROUP_NULL, Group
from feliss_nb.models.mpi.message import MESSAGE_NO_PROC, MESSAGE_NULL, Message
from feliss_nb.models.mpi.ops import Op
from feliss_nb.models.mpi.request import REQUEST_NULL, Prequest, Request
from feliss_nb.models.mpi.status import Status

__all__ = [
    "COMM_NULL",
    "COMM_SELF",
    "COMM_WORLD",
    "GROUP_EMPTY",
    "GROUP_NULL",
    "MESSAGE_NO_PROC",
    "MESSAGE_NULL",
    "REQUEST_NULL",
    "Cartcomm",
    "Comm",
    "Compute_dims",
    "Datatype",
    "Exception",
    "Get_address",
    "Group",
    "Intracomm",
    "Message",
    "Op",
    "Prequest",
    "Request",
    "Status",
    "Topocomm",
]

globals().update(_datatype.PREDEFINED)
globals().update(_ops.PREDEFINED)

Compute_dims = compute_dims
#: Errors raise, whatever the handler; the names are here for programs that set one.
ERRORS_RETURN = ERRORS_ARE_FATAL = ERRORS_ABORT = None
INFO_NULL = INFO_ENV = None
memory = buffer = memoryview


def Wtime() -> float:
    """Give seconds since some moment: inside a gang only."""
    return _core.current().endpoint.port.clock()


def Wtick() -> float:
    """Give the resolution of ``Wtime`` in seconds."""
    return 1e-9


def Get_processor_name() -> str:
    """Give the name of the machine."""
    return platform.node()


def Get_version() -> tuple[int, int]:
    """Give the version of the standard."""
    return VERSION, SUBVERSION


def Get_library_version() -> str:
    """Say which library this is."""
    return "feliss_nb"[:MAX_LIBRARY_VERSION_STRING]


def Get_error_class(errorcode: int) -> int:
    """Give the class of an error code."""
    return errorcode


def Get_error_string(errorcode: int) -> str:
    """Give the text of an error code."""
    return _failures.error_string(errorcode)


def Init() -> None:
    """Nothing to do: a gang is ready from its start."""


def Init_thread(required: int = THREAD_SINGLE) -> int:
    """Nothing to do: a rank's thread alone uses its communicators."""
    return THREAD_SINGLE


def Query_thread() -> int:
    """Give ``THREAD_SINGLE``: a rank's thread alone uses its communicators."""
    return THREAD_SINGLE


def Is_thread_main() -> bool:
    """Whether the calling thread is a rank's."""
    return Is_initialized()


def Is_initialized() -> bool:
    """Whether the calling thread runs a rank of a gang."""
    try:
        _core.current()
    except UsageError:
        return False
    return True


def Is_finalized() -> bool:
    """Whether the gang is over: never, inside it."""
    return False


def Finalize() -> None:
    """Nothing to do: the gang ends with its last step."""


def Attach_buffer(buf: object) -> None:
    """Nothing to do: sends are buffered as they are."""


def Detach_buffer() -> None:
    """Nothing to do: sends are buffered as they are."""


def Alloc_mem(size: int, info: object = None) -> memoryview:
    """Give memory."""
    return memoryview(bytearray(size))


def Free_mem(mem: object) -> None:
    """Nothing to do: memory goes when nobody refers to it."""


def Pcontrol(level: int) -> None:
    """Nothing to do: there is no profiler."""


def get_vendor() -> tuple[str, tuple[int, int, int]]:
    """Give the library's name and version."""
    return "feliss_nb", (0, 1, 0)


def __getattr__(name: str) -> Any:
    return _missing.module_attribute(name)
