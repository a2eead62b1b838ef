"""What a receive tells of its message."""
# ruff: noqa: N802  mpi4py's names

from __future__ import annotations

from feliss_nb.models.mpi import constants
from feliss_nb.models.mpi.datatype import BYTE, Datatype
from feliss_nb.models.mpi.missing import Checked


class Status(Checked):
    """Source, tag and size of a message.

    Attributes
    ----------
    source, tag, error : int
    nbytes : int
        Bytes of data, as they travelled.
    cancelled : bool
    """

    def __init__(self, status: Status | None = None) -> None:
        self.source, self.tag = constants.ANY_SOURCE, constants.ANY_TAG
        self.error, self.nbytes, self.cancelled = constants.SUCCESS, 0, False
        if status is not None:
            self.fill(status.source, status.tag, status.nbytes)
            self.error, self.cancelled = status.error, status.cancelled

    def __repr__(self) -> str:
        return f"<MPI status: source {self.source}, tag {self.tag}, {self.nbytes} bytes>"

    def fill(self, source: int, tag: int, nbytes: int, cancelled: bool = False) -> None:
        """Describe a message."""
        self.source, self.tag, self.nbytes = source, tag, nbytes
        self.error, self.cancelled = constants.SUCCESS, cancelled

    def clear(self) -> None:
        """Describe no message."""
        self.fill(constants.ANY_SOURCE, constants.ANY_TAG, 0)

    @property
    def count(self) -> int:
        """Bytes of data."""
        return self.nbytes

    @count.setter
    def count(self, nbytes: int) -> None:
        self.nbytes = nbytes

    def Get_source(self) -> int:
        """Give the source, a rank of the communicator."""
        return self.source

    def Set_source(self, source: int) -> None:
        """Set the source."""
        self.source = source

    def Get_tag(self) -> int:
        """Give the tag."""
        return self.tag

    def Set_tag(self, tag: int) -> None:
        """Set the tag."""
        self.tag = tag

    def Get_error(self) -> int:
        """Give the error class, ``SUCCESS`` without one."""
        return self.error

    def Set_error(self, error: int) -> None:
        """Set the error class."""
        self.error = error

    def Get_count(self, datatype: Datatype = BYTE) -> int:
        """Count the items, ``UNDEFINED`` if they are not whole."""
        if not datatype.size:
            return 0 if not self.nbytes else constants.UNDEFINED
        count, rest = divmod(self.nbytes, datatype.size)
        return constants.UNDEFINED if rest else count

    def Get_elements(self, datatype: Datatype) -> int:
        """Count the elements of the basic type, ``UNDEFINED`` if they are not whole."""
        if datatype.base is None:
            return constants.UNDEFINED
        count, rest = divmod(self.nbytes, datatype.base.itemsize)
        return constants.UNDEFINED if rest else count

    def Set_elements(self, datatype: Datatype, count: int) -> None:
        """Set the size, in elements of the basic type."""
        assert datatype.base is not None
        self.nbytes = count * datatype.base.itemsize

    def Is_cancelled(self) -> bool:
        """Whether the receive was cancelled."""
        return self.cancelled

    def Set_cancelled(self, flag: bool) -> None:
        """Say whether the receive was cancelled."""
        self.cancelled = flag
