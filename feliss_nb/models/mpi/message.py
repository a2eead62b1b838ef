"""A message that was probed and taken out of its queue."""
# ruff: noqa: N802  mpi4py's names

from __future__ import annotations

from typing import Any, Final

from feliss_nb.models.mpi import buffers, constants
from feliss_nb.models.mpi.core import Core
from feliss_nb.models.mpi.endpoint import Arrival, Receive
from feliss_nb.models.mpi.failures import MPIError
from feliss_nb.models.mpi.missing import Checked
from feliss_nb.models.mpi.objects import sink, unpickled
from feliss_nb.models.mpi.port import Wait
from feliss_nb.models.mpi.request import Request
from feliss_nb.models.mpi.status import Status


class Message(Checked):
    """A message that only this object's receives can get.

    Parameters
    ----------
    core : Core, optional
        The communicator it came on; None for ``MESSAGE_NULL``.
    arrival : Arrival, optional
        None for a message from nobody.
    """

    def __init__(self, core: Core | None = None, arrival: Arrival | None = None) -> None:
        self._core, self._arrival = core, arrival
        if core is not None and arrival is not None:
            core.endpoint.pending.add(self)

    def describe(self) -> str:
        """Say what it is, for an error."""
        return "a probed message that was not received"

    def __bool__(self) -> bool:
        return self._core is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self is other or not (self or other)

    def __hash__(self) -> int:
        return id(self)

    def _begin(self, receive: Receive, finish: Any = None) -> Request:
        core, arrival = self._core, self._arrival
        if core is None:
            raise MPIError(constants.ERR_REQUEST, "the message was received already")
        self._core = self._arrival = None
        core.endpoint.pending.discard(self)
        if arrival is None:
            return Request(core.endpoint)
        receive.complete(arrival)
        core.endpoint.acknowledge(arrival)
        return Request(core.endpoint, receive, finish, core.locate, ("a probed message",))

    def Recv(self, buf: Any, status: Status | None = None) -> None:
        """Receive to memory."""
        self.Irecv(buf).wait(status)

    def Irecv(self, buf: Any) -> Request:
        """Receive to memory, by a request."""
        return self._begin(_receive(sink(buffers.message(buf))))

    def recv(self, status: Status | None = None) -> Any:
        """Receive an object."""
        return self.irecv().wait(status)

    def irecv(self) -> Request:
        """Receive an object, by a request."""
        return self._begin(_receive(), unpickled)

    @classmethod
    def Probe(cls, comm: Any, *args: Any, **options: Any) -> Message:
        """Wait for a message of a communicator and take it out."""
        made: Message = comm.Mprobe(*args, **options)
        return made

    @classmethod
    def Iprobe(cls, comm: Any, *args: Any, **options: Any) -> Message | None:
        """Take a message of a communicator out, if there is one."""
        made: Message | None = comm.Improbe(*args, **options)
        return made

    probe = Probe
    iprobe = Iprobe


def _no_wait() -> Wait:
    return "", "", (), None


def _receive(take: Any = None) -> Receive:
    return Receive(0, constants.ANY_SOURCE, constants.ANY_TAG, _no_wait, take)


MESSAGE_NULL: Final = Message()
MESSAGE_NO_PROC: Final = Message()
