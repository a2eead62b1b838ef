"""What goes wrong in MPI's words: a class, a name and a text."""

from __future__ import annotations

from typing import Final

from feliss_nb.errors import FelissError
from feliss_nb.models.mpi import constants

#: What Open MPI says of each class of errors.
TEXTS: Final = {
    constants.SUCCESS: "no errors",
    constants.ERR_BUFFER: "invalid buffer pointer",
    constants.ERR_COUNT: "invalid count argument",
    constants.ERR_TYPE: "invalid datatype",
    constants.ERR_TAG: "invalid tag",
    constants.ERR_COMM: "invalid communicator",
    constants.ERR_RANK: "invalid rank",
    constants.ERR_REQUEST: "invalid request",
    constants.ERR_ROOT: "invalid root",
    constants.ERR_GROUP: "invalid group",
    constants.ERR_OP: "invalid reduce operation",
    constants.ERR_TOPOLOGY: "invalid communicator topology",
    constants.ERR_DIMS: "invalid topology dimension",
    constants.ERR_ARG: "invalid argument of some other kind",
    constants.ERR_UNKNOWN: "unknown error",
    constants.ERR_TRUNCATE: "message truncated",
    constants.ERR_OTHER: "known error not in list",
    constants.ERR_INTERN: "internal error",
    constants.ERR_IN_STATUS: "error code in status",
    constants.ERR_PENDING: "pending request",
    constants.ERR_KEYVAL: "invalid key value",
    constants.ERR_UNSUPPORTED_OPERATION: "operation not supported",
}
_NAMES: Final = {
    value: f"MPI_{name}"
    for name, value in vars(constants).items()
    if name == "SUCCESS" or (name.startswith("ERR_") and name != "ERR_LASTCODE")
}


class MPIError(FelissError, RuntimeError):
    """``MPI.Exception``: a class of errors, and what in particular went wrong.

    Parameters
    ----------
    code : int
        One of ``MPI.ERR_*``.
    detail : str
        Who, where and what.

    Attributes
    ----------
    code : int
    detail : str
    """

    def __init__(self, code: int = constants.SUCCESS, detail: str = "") -> None:
        self.code, self.detail = code, detail
        super().__init__(error_string(code) + (f" ({detail})" if detail else ""))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.code, self.detail)

    def __repr__(self) -> str:
        return f"MPI.Exception({self.code})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, MPIError):
            return self.code == other.code
        return self.code == other if isinstance(other, int) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.code)

    def __int__(self) -> int:
        return self.code

    def __bool__(self) -> bool:
        return self.code != constants.SUCCESS

    @property
    def error_code(self) -> int:
        """The code; equal to its class, as there are no others."""
        return self.code

    @property
    def error_class(self) -> int:
        """One of ``MPI.ERR_*``."""
        return self.code

    @property
    def error_string(self) -> str:
        """What MPI says of this class."""
        return error_string(self.code)

    def Get_error_code(self) -> int:  # noqa: N802  mpi4py's name
        """Give the code."""
        return self.code

    def Get_error_class(self) -> int:  # noqa: N802  mpi4py's name
        """Give the class: one of ``MPI.ERR_*``."""
        return self.code

    def Get_error_string(self) -> str:  # noqa: N802  mpi4py's name
        """Give what MPI says of this class."""
        return error_string(self.code)


class Aborted(MPIError):
    """``Abort`` was called: the gang ends, and so does its job.

    Attributes
    ----------
    errorcode : int
        What ``Abort`` was given.
    """

    def __init__(self, errorcode: int = 0, where: str = "") -> None:
        self.errorcode, self.where = errorcode, where
        super().__init__(
            constants.ERR_PROC_ABORTED, f"{where or 'a rank'} called Abort({errorcode})"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.errorcode, self.where)


class MissingError(NotImplementedError, AttributeError):
    """mpi4py has this name; this communicator does not."""


def error_string(code: int) -> str:
    """Give the name and the text of a class of errors.

    Raises
    ------
    MPIError
        Of class ``ERR_ARG``: there is no such class.
    """
    if code not in _NAMES:
        raise MPIError(constants.ERR_ARG, f"no error class {code}")
    return f"{_NAMES[code]}: {TEXTS.get(code, _NAMES[code][4:].lower().replace('_', ' '))}"
