"""What the master says to engines, and what each of them knows already. On the master's thread."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace
from typing import Any

from feliss_nb.core import commands as cmd
from feliss_nb.core import messages as m
from feliss_nb.core.jobs import Job
from feliss_nb.core.seat import Seat
from feliss_nb.runtime import wire
from feliss_nb.runtime.blobs import Blobs
from feliss_nb.runtime.cluster import search_path
from feliss_nb.runtime.exchange import Exchange


class Telling:
    """Sends the machine's messages, with the functions and names that go with them.

    Parameters
    ----------
    exchange : Exchange
        Where messages leave.
    seat : Seat
        The machine with its links.

    Attributes
    ----------
    met : set of str
        The engines that have said hello.
    blobs : Blobs
        The functions that the notebook submitted.
    """

    def __init__(self, exchange: Exchange, seat: Seat) -> None:
        self.met: set[str] = set()
        self.blobs = Blobs()
        self._exchange, self._seat, self._master = exchange, seat, seat.master
        self._told: dict[str, int] = {}  # how many of its messages each knows to be heard
        self._names: dict[int, str] = {}  # what the notebook calls its variables

    def welcome(self, engine: str, heard: int, store: wire.StoreAt | None) -> None:
        """Answer an engine's hello; what it has not heard is sent again."""
        link = self._seat.link(engine)
        self._exchange.send(engine, wire.Welcome(link.heard, tuple(search_path())))
        if self._names:
            self._exchange.send(engine, wire.Names(self._names))
        if store is not None:
            self._exchange.send(engine, store)
        self.met.add(engine)
        again = link.again(heard)
        if engine in self._master.routes.values():
            self._functions(engine, self.needed())
        for number, message in again:
            self._numbered(cmd.Send(engine, number, message))

    def forget(self, engine: str) -> None:
        """An engine was lost."""
        self.met.discard(engine)
        self.blobs.forget_engine(engine)

    def tell(self, command: cmd.Send) -> None:
        """Send the machine's message, behind what the engine needs for it."""
        message = command.message
        if isinstance(message, m.Inject):
            # Every worker gets it: the job may send continuations to any rank.
            for host in set(self._master.routes.values()) & self.met:
                self._functions(host, message.continuation.work.digests)
        elif isinstance(message, m.Rollback):
            engine = command.engine
            if engine in message.routes.values() and engine in self.met:
                self._functions(engine, self.needed())
        self._numbered(command)

    def _functions(self, engine: str, digests: Iterable[bytes]) -> None:
        """Send the functions of these that the engine lacks."""
        for blob in self.blobs.missing(engine, digests):
            self._exchange.send(engine, blob)

    def _numbered(self, command: cmd.Send) -> None:
        engine = command.engine
        if engine in self.met:  # else it is sent again when the engine says hello
            heard = self._told[engine] = self._seat.link(engine).heard
            message = wire.Numbered(command.number, heard, command.message)
            self._exchange.send(engine, message)

    def acknowledge(self) -> None:
        """Tell engines what was heard of them, where nothing else has told it."""
        for engine in self.met:
            heard = self._seat.link(engine).heard
            if heard > self._told.get(engine, 0):
                self._told[engine] = heard
                self._exchange.send(engine, wire.Heard(heard))

    def send(self, engine: str, message: Any) -> None:
        """Send what is no word of the machine's."""
        self._exchange.send(engine, message)

    def names(self, names: dict[int, str], engines: Iterable[str]) -> None:
        """Tell engines what variables are called."""
        self._names.update(names)
        for engine in engines:
            self._exchange.send(engine, wire.Names(names))

    def needed(self) -> set[bytes]:
        """Return the functions that jobs need which have not ended for good."""
        return functions_of(self._master.jobs.values(), self._master.committed.ended)

    def committed(self) -> None:
        """A checkpoint stands: what will not be told again goes."""
        self._drop_arguments()
        self._drop_functions()

    def _drop_arguments(self) -> None:
        """Leave out what will not be injected again; of that, the ranks' snapshots have the rest.

        Neither this process nor a record nor a store shall keep it as long as its job runs.
        """
        for job in self._master.jobs.values():
            done = job.position < self._master.committed.position
            if done and any(start.work.data for _, start in job.starts):
                job.starts = tuple(
                    (rank, replace(start, work=start.work.bare())) for rank, start in job.starts
                )

    def _drop_functions(self) -> None:
        """Keep no function that no job uses, here and there, beyond some of the last ones."""
        used = functions_of(self._master.jobs.values())
        for engine, digests in self.blobs.clean(used).items():
            self._exchange.send(engine, wire.DropBlobs(tuple(digests)))


def functions_of(jobs: Iterable[Job], ended: Container[int] = ()) -> set[bytes]:
    """Return the digests of the functions that jobs begin with, but for those that have ended."""
    return {
        digest
        for job in jobs
        if job.id not in ended
        for _, start in job.starts
        for digest in start.work.digests
    }
