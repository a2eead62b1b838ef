"""Messages from one rank to another: of objects (lower case) and of memory (upper case)."""
# ruff: noqa: N802  mpi4py's names

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from feliss_nb.models.mpi import buffers
from feliss_nb.models.mpi.constants import ANY_SOURCE, ANY_TAG, PROC_NULL
from feliss_nb.models.mpi.core import Core
from feliss_nb.models.mpi.endpoint import BUFFER, OBJECT, Arrival, Operation, Receive
from feliss_nb.models.mpi.message import Message
from feliss_nb.models.mpi.missing import Checked
from feliss_nb.models.mpi.objects import encode, sink, unpickled
from feliss_nb.models.mpi.port import Wait
from feliss_nb.models.mpi.request import Prequest, Request
from feliss_nb.models.mpi.status import Status


class PointToPoint(Checked):
    """Sends, receives and probes."""

    _core: Core

    def _transmit(
        self, call: str, kind: str, content: Callable[[], Any], dest: int, tag: int, ack: bool
    ) -> Operation | None:
        """Send what ``content`` gives; with ``ack``, give what ends with its receive."""
        core = self._core
        dest, tag = core.peer(dest, "destination"), core.tag(tag)
        items = content()
        if dest == PROC_NULL:
            return None
        wait = core.describe(call, dest, tag) if ack else None
        return core.endpoint.send(core.member(dest), core.context, tag, kind, items, wait=wait)

    def _post_send(
        self, call: str, kind: str, content: Callable[[], Any], dest: int, tag: int, ack: bool
    ) -> Request:
        operation = self._transmit(call, kind, content, dest, tag, ack)
        core = self._core
        return Request(core.endpoint, operation, name=(call, "to", dest, tag, core.name))

    def _synchronous(self, call: str, kind: str, content: Any, dest: int, tag: int) -> None:
        operation = self._transmit(call, kind, content, dest, tag, True)
        if operation is not None:
            self._core.endpoint.finish(operation)

    def _post_receive(
        self,
        call: str,
        source: int,
        tag: int,
        take: Callable[[Arrival], None] | None = None,
        finish: Callable[[Any, Arrival | None], Any] | None = None,
    ) -> Request:
        core = self._core
        source, tag = core.peer(source, "source", ANY_SOURCE), core.tag(tag, ANY_TAG)
        name = (call, "from", source, tag, core.name)
        if source == PROC_NULL:
            return Request(core.endpoint, _Nobody(), locate=lambda _: PROC_NULL, name=name)
        wait = partial(core.describe, call, source, tag)
        receive = Receive(core.context, core.member(source), tag, wait, take)
        core.endpoint.post(receive)
        return Request(core.endpoint, receive, finish, core.locate, name)

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object."""
        self._transmit("send", OBJECT, lambda: encode(obj), dest, tag, False)

    def ssend(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object; return when its receive has begun."""
        self._synchronous("ssend", OBJECT, lambda: encode(obj), dest, tag)

    def isend(self, obj: Any, dest: int, tag: int = 0) -> Request:
        """Begin to send an object, which may be changed at once."""
        return self._post_send("isend", OBJECT, lambda: encode(obj), dest, tag, False)

    def issend(self, obj: Any, dest: int, tag: int = 0) -> Request:
        """Begin to send an object; done when its receive has begun."""
        return self._post_send("issend", OBJECT, lambda: encode(obj), dest, tag, True)

    bsend = send
    ibsend = isend

    def recv(
        self,
        buf: Any = None,
        source: int = ANY_SOURCE,
        tag: int = ANY_TAG,
        status: Status | None = None,
    ) -> Any:
        """Receive an object; ``buf`` is not used."""
        return self._post_receive("recv", source, tag, None, unpickled).wait(status)

    def irecv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Request:
        """Begin to receive an object, which the request's ``wait`` gives."""
        return self._post_receive("irecv", source, tag, None, unpickled)

    def sendrecv(
        self,
        sendobj: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> Any:
        """Send an object and receive one."""
        request = self._post_receive("sendrecv", source, recvtag, None, unpickled)
        self.send(sendobj, dest, sendtag)
        return request.wait(status)

    def Send(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Send memory."""
        self._transmit("Send", BUFFER, lambda: [_data(buf)], dest, tag, False)

    def Ssend(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Send memory; return when its receive has begun."""
        self._synchronous("Ssend", BUFFER, lambda: [_data(buf)], dest, tag)

    def Isend(self, buf: Any, dest: int, tag: int = 0) -> Request:
        """Begin to send memory, which may be changed at once."""
        return self._post_send("Isend", BUFFER, lambda: [_data(buf)], dest, tag, False)

    def Issend(self, buf: Any, dest: int, tag: int = 0) -> Request:
        """Begin to send memory; done when its receive has begun."""
        return self._post_send("Issend", BUFFER, lambda: [_data(buf)], dest, tag, True)

    Bsend = Rsend = Send
    Ibsend = Irsend = Isend

    def Recv(
        self,
        buf: Any,
        source: int = ANY_SOURCE,
        tag: int = ANY_TAG,
        status: Status | None = None,
    ) -> None:
        """Receive to memory."""
        take = sink(buffers.message(buf))
        self._post_receive("Recv", source, tag, take).wait(status)

    def Irecv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Request:
        """Begin to receive to memory."""
        return self._post_receive("Irecv", source, tag, sink(buffers.message(buf)))

    def Sendrecv(
        self,
        sendbuf: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> None:
        """Send memory and receive to other memory."""
        self.Isendrecv(sendbuf, dest, sendtag, recvbuf, source, recvtag).wait(status)

    def Isendrecv(
        self,
        sendbuf: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
    ) -> Request:
        """Send memory and begin to receive to other memory."""
        self._core.peer(source, "source", ANY_SOURCE)
        self._core.tag(recvtag, ANY_TAG)
        target = buffers.message(recvbuf)
        self._transmit("Sendrecv", BUFFER, lambda: [_data(sendbuf)], dest, sendtag, False)
        return self._post_receive("Sendrecv", source, recvtag, sink(target))

    def Sendrecv_replace(
        self,
        buf: Any,
        dest: int,
        sendtag: int = 0,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> None:
        """Send memory and receive to the same."""
        self.Sendrecv(buf, dest, sendtag, buf, source, recvtag, status)

    def Isendrecv_replace(
        self,
        buf: Any,
        dest: int,
        sendtag: int = 0,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
    ) -> Request:
        """Send memory and begin to receive to the same."""
        return self.Isendrecv(buf, dest, sendtag, buf, source, recvtag)

    def Send_init(self, buf: Any, dest: int, tag: int = 0) -> Prequest:
        """Make a send that can be started again and again."""
        return Prequest(self._core.endpoint, lambda: self.Isend(buf, dest, tag), "Send_init")

    def Ssend_init(self, buf: Any, dest: int, tag: int = 0) -> Prequest:
        """Make a synchronous send that can be started again and again."""
        return Prequest(self._core.endpoint, lambda: self.Issend(buf, dest, tag), "Ssend_init")

    Bsend_init = Rsend_init = Send_init

    def Recv_init(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Prequest:
        """Make a receive that can be started again and again."""
        return Prequest(self._core.endpoint, lambda: self.Irecv(buf, source, tag), "Recv_init")

    def _probed(self, source: int, tag: int, take: bool) -> Arrival | None:
        core = self._core
        return core.endpoint.find(core.context, core.member(source), tag, take)

    def _wait_for(self, call: str, source: int, tag: int, take: bool) -> Arrival | None:
        """Wait for a message; None from nobody."""
        core = self._core
        source, tag = core.peer(source, "source", ANY_SOURCE), core.tag(tag, ANY_TAG)
        if source == PROC_NULL:
            return None
        core.endpoint.wait(
            lambda: self._probed(source, tag, False) is not None,
            lambda: [core.describe(call, source, tag)],
        )
        return self._probed(source, tag, take)

    def _look(self, source: int, tag: int, take: bool) -> Arrival | None:
        core = self._core
        source, tag = core.peer(source, "source", ANY_SOURCE), core.tag(tag, ANY_TAG)
        core.endpoint.poll()
        return self._probed(source, tag, take)

    def _tell(self, status: Status | None, arrival: Arrival | None) -> None:
        if status is None:
            return
        if arrival is None:
            status.fill(PROC_NULL, ANY_TAG, 0)
        else:
            status.fill(self._core.locate(arrival), arrival.tag, arrival.nbytes)

    def Probe(
        self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None
    ) -> bool:
        """Wait for a message and leave it where it is."""
        self._tell(status, self._wait_for("Probe", source, tag, False))
        return True

    probe = Probe

    def Iprobe(
        self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None
    ) -> bool:
        """Whether there is a message; it stays where it is."""
        arrival = None if source == PROC_NULL else self._look(source, tag, False)
        if arrival is not None or source == PROC_NULL:
            self._tell(status, arrival)
            return True
        return False

    iprobe = Iprobe

    def Mprobe(
        self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None
    ) -> Message:
        """Wait for a message and take it out, to be received by itself."""
        arrival = self._wait_for("Mprobe", source, tag, True)
        self._tell(status, arrival)
        return Message(self._core, arrival)

    mprobe = Mprobe

    def Improbe(
        self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None
    ) -> Message | None:
        """Take a message out, to be received by itself; None if there is none."""
        arrival = None if source == PROC_NULL else self._look(source, tag, True)
        if arrival is None and source != PROC_NULL:
            return None
        self._tell(status, arrival)
        return Message(self._core, arrival)

    improbe = Improbe


def _no_wait() -> Wait:
    return "", "", (), None


class _Nobody(Receive):
    """What comes from ``PROC_NULL``: nothing, at once."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(0, PROC_NULL, ANY_TAG, _no_wait)
        self._arrival = Arrival(PROC_NULL, 0, ANY_TAG, BUFFER, (), None, None, 0)
        self.done = True


def _data(spec: Any) -> np.ndarray[Any, Any]:
    return buffers.message(spec).bytes()
