"""Requests: what a non-blocking call gives, and how a program waits for it."""
# ruff: noqa: N802  mpi4py's names

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from feliss_nb.models.mpi import constants
from feliss_nb.models.mpi.endpoint import Arrival, Endpoint, Operation, Receive
from feliss_nb.models.mpi.failures import MPIError
from feliss_nb.models.mpi.missing import Checked
from feliss_nb.models.mpi.port import Wait
from feliss_nb.models.mpi.status import Status

#: The rank in the communicator of a message's source.
Locate = Callable[[Arrival], int]


class Request(Checked):
    """An operation that may still be under way; ``REQUEST_NULL`` once it was waited for.

    Parameters
    ----------
    endpoint : Endpoint, optional
    operation : Operation, optional
        None for one that was done at once (or never was).
    finish : callable, optional
        Given the operation's result and what it received, gives what the request yields.
    locate : callable, optional
        Gives the source of what was received.
    name : tuple
        Call, "to" or "from", rank, tag and communicator; or call and communicator.
    """

    def __init__(
        self,
        endpoint: Endpoint | None = None,
        operation: Operation | None = None,
        finish: Callable[[Any, Arrival | None], Any] | None = None,
        locate: Locate | None = None,
        name: tuple[Any, ...] = (),
    ) -> None:
        self._endpoint = endpoint
        self._operation = operation
        self._finish = finish
        self._locate = locate
        self._name = name
        self._void = endpoint is None
        if endpoint is not None and operation is not None:
            endpoint.pending.add(self)

    def __bool__(self) -> bool:
        return not self._void

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Request):
            return NotImplemented
        return self is other or (self._void and other._void)

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self) -> str | tuple[object, ...]:
        if self is REQUEST_NULL:
            return null_request, ()
        raise TypeError("an MPI request belongs to one step of a gang; wait for it in that step")

    def describe(self) -> str:
        """Say what it is, for an error."""
        if len(self._name) == 5:
            call, way, rank, tag, where = self._name
            return f"{call} {way} rank {rank}, tag {tag}, on {where}"
        return " on ".join(self._name)

    @property
    def _idle(self) -> bool:
        return self._void

    @property
    def _done(self) -> bool:
        return self._operation is None or self._operation.done

    def _waits(self) -> list[Wait]:
        return self._operation.waits() if self._operation is not None else []

    def _settle(self, status: Status | None) -> Any:
        """Take the result of what is done; the request is void then."""
        operation, endpoint = self._operation, self._endpoint
        self._retire()
        if endpoint is not None:
            endpoint.pending.discard(self)
        if operation is None:
            if status is not None:
                status.clear()
            return None
        arrival = operation.arrival()
        _describe(status, operation, arrival, self._locate)
        result = operation.result()
        return self._finish(result, arrival) if self._finish is not None else None

    def _retire(self) -> None:
        self._void = True
        self._operation = None

    def Wait(self, status: Status | None = None) -> bool:
        """Wait until it is done."""
        self.wait(status)
        return True

    def wait(self, status: Status | None = None) -> Any:
        """Wait until it is done, and give the object that it received."""
        if self._idle:
            if status is not None:
                status.clear()
            return None
        if not self._done:
            assert self._endpoint is not None
            self._endpoint.wait(lambda: self._done, self._waits)
        return self._settle(status)

    def Test(self, status: Status | None = None) -> bool:
        """Whether it is done."""
        return self.test(status)[0]

    def test(self, status: Status | None = None) -> tuple[bool, Any]:
        """Whether it is done, and the object that it received."""
        if self._idle:
            if status is not None:
                status.clear()
            return True, None
        _poll([self])
        return (True, self._settle(status)) if self._done else (False, None)

    def Get_status(self, status: Status | None = None) -> bool:
        """Whether it is done, and leave it as it is."""
        if self._idle:
            if status is not None:
                status.clear()
            return True
        _poll([self])
        if self._done and self._operation is not None:
            _describe(status, self._operation, self._operation.arrival(), self._locate)
        return self._done

    get_status = Get_status

    def Cancel(self) -> None:
        """Take a receive back if it has no message yet; to be waited for like any other."""
        if isinstance(self._operation, Receive) and self._endpoint is not None:
            self._endpoint.poll()
            self._endpoint.withdraw(self._operation)

    cancel = Cancel

    def Free(self) -> None:
        """Let go of it; a send or collective that is under way goes on."""
        if self._endpoint is not None and self._done:
            self._endpoint.pending.discard(self)
        self._void = True
        self._operation = None

    free = Free

    @classmethod
    def Waitall(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> bool:
        """Wait until all are done."""
        cls.waitall(requests, statuses)
        return True

    @classmethod
    def waitall(
        cls, requests: Sequence[Request], statuses: list[Status] | None = None
    ) -> list[Any]:
        """Wait until all are done, and give the objects that they received."""
        _wait(requests, lambda: all(request._done for request in requests))
        return _settle_all(requests, statuses)

    @classmethod
    def Testall(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> bool:
        """Whether all are done; otherwise none is touched."""
        return cls.testall(requests, statuses)[0]

    @classmethod
    def testall(
        cls, requests: Sequence[Request], statuses: list[Status] | None = None
    ) -> tuple[bool, list[Any] | None]:
        """Whether all are done, and then the objects that they received."""
        _poll(requests)
        if not all(request._idle or request._done for request in requests):
            return False, None
        return True, _settle_all(requests, statuses)

    @classmethod
    def Waitany(cls, requests: Sequence[Request], status: Status | None = None) -> int:
        """Wait until one is done, and give its index: ``UNDEFINED`` if none is active."""
        return cls.waitany(requests, status)[0]

    @classmethod
    def waitany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, Any]:
        """Wait until one is done, and give its index and the object that it received."""
        if _active(requests):
            _wait(requests, lambda: bool(_ended(requests)))
        index, _, result = cls._any(requests, status)
        return index, result

    @classmethod
    def Testany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, bool]:
        """Give the index of one that is done, and whether there is one."""
        return cls.testany(requests, status)[:2]

    @classmethod
    def testany(
        cls, requests: Sequence[Request], status: Status | None = None
    ) -> tuple[int, bool, Any]:
        """Give the index of one that is done, whether there is one, and what it received."""
        _poll(requests)
        return cls._any(requests, status)

    @staticmethod
    def _any(requests: Sequence[Request], status: Status | None) -> tuple[int, bool, Any]:
        ended = _ended(requests)
        if ended:
            return ended[0], True, requests[ended[0]]._settle(status)
        if status is not None:
            status.clear()
        return constants.UNDEFINED, not _active(requests), None

    @classmethod
    def Waitsome(
        cls, requests: Sequence[Request], statuses: list[Status] | None = None
    ) -> list[int] | None:
        """Wait until some are done, and give their indices: None if none is active."""
        return cls.waitsome(requests, statuses)[0]

    @classmethod
    def waitsome(
        cls, requests: Sequence[Request], statuses: list[Status] | None = None
    ) -> tuple[list[int] | None, list[Any] | None]:
        """Wait until some are done, and give their indices and the objects received."""
        if not _active(requests):
            return None, None
        _wait(requests, lambda: bool(_ended(requests)))
        return _some(requests, statuses)

    @classmethod
    def Testsome(
        cls, requests: Sequence[Request], statuses: list[Status] | None = None
    ) -> list[int] | None:
        """Give the indices of those that are done: None if none is active."""
        return cls.testsome(requests, statuses)[0]

    @classmethod
    def testsome(
        cls, requests: Sequence[Request], statuses: list[Status] | None = None
    ) -> tuple[list[int] | None, list[Any] | None]:
        """Give the indices of those that are done, and the objects received."""
        if not _active(requests):
            return None, None
        _poll(requests)
        return _some(requests, statuses)


class Prequest(Request):
    """A request that can be started again and again.

    Parameters
    ----------
    endpoint : Endpoint
    begin : callable
        Begins the operation anew and gives a request for it.
    """

    def __init__(self, endpoint: Endpoint, begin: Callable[[], Request], *name: str) -> None:
        super().__init__(endpoint, None, name=name)
        self._begin = begin
        self._inner: Request | None = None

    @property
    def _idle(self) -> bool:
        return self._inner is None

    @property
    def _done(self) -> bool:
        return self._inner is None or self._inner._done

    def _waits(self) -> list[Wait]:
        return self._inner._waits() if self._inner is not None else []

    def _settle(self, status: Status | None) -> Any:
        inner, self._inner = self._inner, None
        return inner._settle(status) if inner is not None else None

    def Start(self) -> None:
        """Begin the operation anew."""
        if self._inner is not None or self._void:
            raise MPIError(constants.ERR_REQUEST, "the request is active, or was freed")
        self._inner = self._begin()

    @classmethod
    def Startall(cls, requests: Sequence[Prequest]) -> None:
        """Begin the operations of all."""
        for request in requests:
            request.Start()

    def Cancel(self) -> None:
        """Take a receive back if it has no message yet."""
        if self._inner is not None:
            self._inner.Cancel()

    cancel = Cancel

    def Free(self) -> None:
        """Let go of it."""
        self._void = True
        if self._inner is not None:
            self._inner.Free()
            self._inner = None

    free = Free


REQUEST_NULL: Final = Request()


def null_request() -> Request:
    """Give ``REQUEST_NULL``: what is unpickled is the very one."""
    return REQUEST_NULL


def _describe(
    status: Status | None, operation: Operation, arrival: Arrival | None, locate: Locate | None
) -> None:
    if status is None:
        return
    status.clear()
    if arrival is not None and locate is not None:
        status.fill(locate(arrival), arrival.tag, arrival.nbytes)
    if isinstance(operation.error, MPIError):
        status.error = operation.error.code
    status.cancelled = isinstance(operation, Receive) and operation.cancelled


def _active(requests: Sequence[Request]) -> bool:
    return any(not request._idle for request in requests)


def _ended(requests: Sequence[Request]) -> list[int]:
    return [i for i, request in enumerate(requests) if not request._idle and request._done]


def _poll(requests: Sequence[Request]) -> None:
    for request in requests:
        if request._endpoint is not None:
            request._endpoint.poll()
            return


def _wait(requests: Sequence[Request], ready: Callable[[], bool]) -> None:
    for request in requests:
        if request._endpoint is not None:
            request._endpoint.wait(
                ready, lambda: [wait for request in requests for wait in request._waits()]
            )
            return


def _fit(statuses: list[Status] | None, wanted: int) -> list[Status] | list[None]:
    """Make a list of statuses long enough, as mpi4py does."""
    if statuses is None:
        return [None] * wanted
    statuses += [Status() for _ in range(wanted - len(statuses))]
    del statuses[wanted:]
    return statuses


def _settle_all(requests: Sequence[Request], statuses: list[Status] | None) -> list[Any]:
    given = _fit(statuses, len(requests))
    return [request.wait(status) for request, status in zip(requests, given, strict=True)]


def _some(
    requests: Sequence[Request], statuses: list[Status] | None
) -> tuple[list[int], list[Any]]:
    ended = _ended(requests)
    given = _fit(statuses, len(ended))
    results = [requests[i]._settle(status) for i, status in zip(ended, given, strict=True)]
    return ended, results
