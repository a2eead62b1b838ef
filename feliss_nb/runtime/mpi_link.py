"""The messages of gangs over MPI: a communicator for each epoch, made anew after each loss.

MPI carries bytes and nothing else. Matching, objects, datatypes, requests and deadlocks stay with
`models.mpi`, so that a program does the same whatever carries it.

Nothing here waits inside of MPI but the making of communicators, which has a thread of its own: a
rank looks whether something came, and sleeps in between. So it can be stopped at any moment, and a
rank that waits for long leaves its core to others.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from time import monotonic, sleep
from typing import Any

import numpy as np

from feliss_nb.runtime import wire
from feliss_nb.state.codec import allocate

# A message of a gang: the gang, its step, the source, and the head and the buffers as sent.
Mail = tuple[int, int, int, tuple[Any, ...], Sequence[Any]]

_HEAD, _BODY = 0, 1  # tags: a pickled head with its small buffers; a large buffer
_PIECE = 1 << 30  # bytes; a count of MPI's has 31 bits
_FIRST_TAG = 1  # of Create_group, for a session's engines; those of epochs come behind it
_TAGS = 30_000
_WITH_FT = "OMPI_MCA_mpi_ft_enable"  # mpiexec --with-ft ulfm sets it

# Seconds for which a rank that waits looks again at once. Measured with an LU factorization on 2
# cores: with 0.2 ms it took 1.18 times what plain MPI takes, which never sleeps; with 1 ms 1.11,
# with 4 ms 1.03. But where others want the cores, 1 ms made it 10 % slower than 0.2 ms.
SPIN = 5e-4
# Behind that it sleeps for this part of the time that it has waited, and never for long: so a
# message is late by that part at most (and by what a timer adds), and a long wait costs one look in
# LONGEST_NAP. 1/64 in place of 1/16 made that LU 3 to 6 % faster.
NAP = 1 / 64
LONGEST_NAP = 2e-3

# Seconds for MPI to hear of a loss that the session knows of: 45 ms as a rule.
HEARING = 10.0
NAP_OF_HEARING = 1e-3


def find_place() -> wire.Place | None:
    """Tell where this engine stands in the world of an mpiexec; None if none started it."""
    loaded = sys.modules.get("mpi4py.MPI")
    name = os.environ.get("PMIX_NAMESPACE") or os.environ.get("SLURM_STEP_ID", "")
    name += "/" + os.environ.get("SLURM_JOB_ID", "")
    if loaded is not None and loaded.Is_initialized() and not loaded.Is_finalized():
        world = loaded.COMM_WORLD
        place = wire.Place(name, world.rank, world.size, True, _hindrance(loaded))
        return place if world.size > 1 else None
    size = int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1"))
    if size < 2:
        return None
    trouble = "" if find_spec("mpi4py") is not None else "the engines' Python has no mpi4py"
    rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
    return wire.Place(name, rank, size, False, trouble or _hindrance(None))


def _hindrance(mpi: Any) -> str:
    """Say why this MPI cannot carry a gang that survives; empty if it can."""
    if os.environ.get(_WITH_FT, "").lower() not in ("1", "true", "yes", "on"):
        return "mpiexec was started without --with-ft ulfm"
    if mpi is not None and mpi.Query_thread() < mpi.THREAD_MULTIPLE:
        return "MPI was initialized without MPI_THREAD_MULTIPLE"
    return ""


class MpiLink:
    """Sends and receives for the one rank of an engine in one epoch.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        Of the epoch: its ranks are those of the gangs.

    Attributes
    ----------
    error : str
        Why nothing comes any more; a loss as a rule, which ends the epoch.
    reductions : int
        Reductions of MPI's own that this rank has begun.
    """

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._mpi, self._comm = MPI, comm
        self._lock = threading.Lock()  # a thread of the old epoch may still be in a call
        self._unsent: list[Any] = []  # requests, which hold on to their memory
        # Likewise; one never ends if another rank was stopped before it.
        self._combining: list[Any] = []
        # What came of each source whose large buffers are under way, in order.
        self._late: dict[int, deque[tuple[Mail, list[Any]]]] = {}
        self._status = MPI.Status()
        self.reductions = 0
        self.error = ""

    def send(
        self, destination: int, gang: int, step: int, head: tuple[Any, ...], buffers: Sequence[Any]
    ) -> None:
        """Send a message. Does not wait; the buffers must not change any more."""
        parts: list[Any] = []
        bodies = []
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            if view.nbytes < wire.SMALL:
                parts.append(bytes(view))
            else:
                parts.append(view.nbytes)
                bodies.append(np.frombuffer(view, np.uint8))
        data = pickle.dumps((gang, step, head, parts), 5)
        with self._lock:
            if self.error:
                return
            try:
                self._send(destination, data, _HEAD)
                for body in bodies:
                    for piece in _pieces(body):
                        self._send(destination, piece, _BODY)
            except self._mpi.Exception as error:
                self._fail(error)

    def _send(self, destination: int, data: Any, tag: int) -> None:
        request = self._comm.Isend([data, self._mpi.BYTE], destination, tag)
        if not request.Test():
            self._unsent.append(request)

    def take(self) -> list[Mail]:
        """Give the messages that have come."""
        with self._lock:
            found: list[Mail] = []
            if not self.error:
                try:
                    self._take(found)
                except self._mpi.Exception as error:
                    self._fail(error)
            return found

    def _take(self, found: list[Mail]) -> None:
        mpi, comm, status = self._mpi, self._comm, self._status
        if self._unsent:
            self._unsent = [request for request in self._unsent if not request.Test()]
        if self._combining:
            self._combining = [request for request in self._combining if not request.Test()]
        while True:
            message = comm.Improbe(mpi.ANY_SOURCE, _HEAD, status)
            if message is None:
                break
            source = status.Get_source()
            data = bytearray(status.Get_count(mpi.BYTE))
            message.Recv([data, mpi.BYTE])
            gang, step, head, parts = pickle.loads(data)
            requests = []
            for index, part in enumerate(parts):
                if type(part) is int:
                    memory = allocate(part)
                    parts[index] = memory.data
                    for piece in _pieces(memory):
                        requests.append(comm.Irecv([piece, mpi.BYTE], source, _BODY))
            mail = gang, step, source, head, parts
            if requests or source in self._late:
                self._late.setdefault(source, deque()).append((mail, requests))
            else:
                found.append(mail)
        if self._late:
            self._take_late(found)

    def _take_late(self, found: list[Mail]) -> None:
        for source, waiting in list(self._late.items()):
            while waiting:
                mail, requests = waiting[0]
                requests[:] = [request for request in requests if not request.Test()]
                if requests:
                    break
                found.append(mail)
                waiting.popleft()
            if not waiting:
                del self._late[source]

    def _fail(self, error: Exception) -> None:
        """A rank was lost, or another rank has noticed it: let all of them notice."""
        self.error = str(error)
        try:
            self._comm.Revoke()
        except self._mpi.Exception:
            return

    def has_ended(self, request: Any) -> bool:
        """Whether a reduction is done; never if the epoch is over."""
        with self._lock:
            return not self.error and all(each is not request for each in self._combining)

    def begin_reduce(self, value: np.ndarray[Any, Any], op: str, root: int | None) -> Any:
        """Begin to combine every rank's array, in place; None if the epoch is over."""
        mpi, comm = self._mpi, self._comm
        with self._lock:
            if self.error:
                return None
            self.reductions += 1
            how, here = getattr(mpi, op), (mpi.IN_PLACE, value)
            try:
                if root is None:
                    request = comm.Iallreduce(*here, op=how)
                elif root == comm.rank:
                    request = comm.Ireduce(*here, op=how, root=root)
                else:
                    request = comm.Ireduce(value, None, op=how, root=root)
            except mpi.Exception as error:
                self._fail(error)
                return None
            self._combining.append(request)
            return request

    @property
    def is_sent(self) -> bool:
        """Whether all that was sent has left this rank's memory."""
        return not self._unsent or bool(self.error)

    def revoke(self) -> None:
        """End the epoch: all that is under way is dropped, here and on the other ranks."""
        with self._lock:
            self.error = self.error or "the epoch is over"
            try:
                self._comm.Revoke()
            except self._mpi.Exception:
                return

    def is_buried(self) -> bool:
        """Whether MPI has let go of the memory of a link that was revoked."""
        with self._lock:
            requests = [*self._unsent, *self._combining]
            for waiting in self._late.values():
                requests += [request for _, some in waiting for request in some]
            for request in requests:
                try:
                    if not request.Test():
                        return False
                except self._mpi.Exception:  # revoked: it has ended
                    continue
            return True


def _pieces(memory: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    if memory.nbytes <= _PIECE:
        return [memory]
    return [memory[start : start + _PIECE] for start in range(0, memory.nbytes, _PIECE)]


class MpiWorld:
    """The engines of a session that one mpiexec started, seen from one of them.

    They make communicators together, so each of them goes through the same orders of the session's
    process, one by one, on a thread for that: the calls wait for the others.

    Parameters
    ----------
    tell : callable
        Given a `wire.Linked` for each order.
    """

    def __init__(self, tell: Callable[[wire.Linked], None]) -> None:
        self._tell = tell
        self._orders: queue.SimpleQueue[wire.Link | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._base: Any = None  # of the session's engines here that live
        self._members: tuple[int, ...] = ()  # of the base; ranks in the world
        self._order: wire.Link | None = None  # that is carried out
        self._links: dict[int, MpiLink] = {}  # by attempt, until their epoch ends
        self._buried: list[MpiLink] = []
        self._thread = threading.Thread(target=self._main, name="feliss-mpi", daemon=True)
        self._thread.start()

    def order(self, link: wire.Link) -> None:
        """Make the communicator of an epoch. Does not wait."""
        self._orders.put(link)

    def decided(self, decision: wire.Carrier) -> MpiLink | None:
        """Give what carries the messages of an epoch, if MPI does."""
        with self._lock:
            if decision.mpi:
                return self._links.get(decision.attempt)
            if self._order is not None and self._base is not None:
                # Somebody did not come: end the call of the others, or it looks for ever.
                self._base.Revoke()
        self.end_epoch()
        return None

    def end_epoch(self) -> None:
        """Drop all that is under way, here and on the other ranks."""
        with self._lock:
            old, self._links = list(self._links.values()), {}
            self._buried += old
        for link in old:
            link.revoke()

    def close(self) -> None:
        """End the thread, once it has nothing to do."""
        self.end_epoch()
        self._orders.put(None)

    def _main(self) -> None:
        while (order := self._orders.get()) is not None:
            with self._lock:
                self._order = order
            error = self._carry_out(order)
            with self._lock:
                self._order = None
            self._tell(wire.Linked(order.attempt, error))

    def _carry_out(self, order: wire.Link) -> str:
        """Return what went wrong."""
        try:
            from mpi4py import MPI

            if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
                return "MPI was initialized without MPI_THREAD_MULTIPLE"
            with self._lock:
                self._buried = [link for link in self._buried if not link.is_buried()]
            self._join(MPI, order)
            self._make_link(MPI, order)
        except Exception as error:  # noqa: BLE001 - MPI reports a loss by several classes of errors
            return f"{type(error).__name__}: {error}"
        return ""

    def _join(self, mpi: Any, order: wire.Link) -> None:
        """Make the communicator of the engines that live."""
        if self._base is None:
            world = mpi.COMM_WORLD
            base = world.Create_group(world.group.Incl(list(order.members)), order.session)
        elif self._members != order.members:
            self._hear_of_losses(mpi, len(self._members) - len(order.members))
            base = self._base.Shrink()
        else:
            return
        base.Set_errhandler(mpi.ERRORS_RETURN)
        with self._lock:
            self._base, self._members = base, order.members

    def _hear_of_losses(self, mpi: Any, count: int) -> None:
        """Wait until MPI knows of the losses: Open MPI must not hear of one inside the calls below.

        See `linking.QUIET`.
        """
        deadline = monotonic() + HEARING
        while self._base.Get_failed().size < count:
            if monotonic() > deadline:
                raise TimeoutError("MPI does not notice that an engine was lost")
            mpi.COMM_SELF.Iprobe()  # it looks for news in calls only
            sleep(NAP_OF_HEARING)

    def _make_link(self, mpi: Any, order: wire.Link) -> None:
        base = self._base
        places = mpi.Group.Translate_ranks(mpi.COMM_WORLD.group, list(order.group), base.group)
        if mpi.UNDEFINED in places:
            raise RuntimeError("an engine was lost in between")
        if base.rank not in places:
            return  # a spare
        tag = _FIRST_TAG + order.attempt % _TAGS
        comm = base.Create_group(base.group.Incl(places), tag)
        comm.Set_errhandler(mpi.ERRORS_RETURN)
        with self._lock:
            self._links[order.attempt] = MpiLink(comm)
