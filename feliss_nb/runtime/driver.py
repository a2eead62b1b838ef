"""The master inside the notebook's process: one thread that owns the machine and the sockets.

The notebook's threads put events into a queue and wait for futures, so that Ctrl-C interrupts a
wait and never the machine.
"""

from __future__ import annotations

import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import zmq

from feliss_nb.core import messages as m
from feliss_nb.core.seat import Seat
from feliss_nb.errors import (
    DeadlockError,
    FelissError,
    InternalError,
    SessionTaken,
    StoreError,
    UsageError,
)
from feliss_nb.runtime import terms, wire
from feliss_nb.runtime.blobs import Blobs
from feliss_nb.runtime.board import BoardView, path_of
from feliss_nb.runtime.cluster import Engines, search_path
from feliss_nb.runtime.deadlocks import Deadlocks, Explain, explain
from feliss_nb.runtime.doors import Doors
from feliss_nb.runtime.events import EventLog
from feliss_nb.runtime.failure import Failure, describe
from feliss_nb.runtime.injecting import Injector
from feliss_nb.runtime.job import Job
from feliss_nb.runtime.keeping import Keeper
from feliss_nb.runtime.linking import Linking
from feliss_nb.runtime.links import Links
from feliss_nb.runtime.owner import Process
from feliss_nb.runtime.pacing import Pace
from feliss_nb.runtime.record import Found, Record
from feliss_nb.state.canonical import canonical_digest
from feliss_nb.state.snapshot import from_frames, restore
from feliss_nb.store.memory import total

# What is kept in this process for a replay (arguments submitted, results fetched) goes with the
# next commit; past this, a checkpoint is taken though nothing runs.
KEPT_BYTES = 256 << 20

LOOK = 0.1  # seconds between looks at the hub's list of engines and the clock of checkpoints
INSTALL_AGAIN = 5.0  # seconds until a worker that does not answer is asked for again, then twice
HELLO_PATIENCE = 120.0  # for the worker of a replacement
LOOK_CLOSELY = 0.01  # while ranks may wait for the decision what carries their messages


@dataclass(slots=True)
class EngineInfo:
    """What the driver knows of an engine."""

    id: int
    pid: int
    process: Process
    started: float
    alive: bool = True
    board: BoardView | None = None
    heard: float = 0.0  # when it has last said something, by time.monotonic


class Driver:
    """Runs the master.

    Parameters
    ----------
    cluster : Engines
        The engines.
    seat : Seat
        The machine with its links.
    events : EventLog
        Where events and figures go.
    install : callable
        Gives the code that starts the worker on an engine.
    record : Record, optional
        What a named session writes down, so that another process can go on with it.
    """

    def __init__(
        self,
        cluster: Engines,
        seat: Seat,
        events: EventLog,
        install: Callable[[str], str],
        record: Record | None = None,
    ) -> None:
        self.cluster, self.seat, self.events = cluster, seat, events
        self.master = seat.master
        self.record = record
        self.since = time.time()  # of the session's start
        self.engines: dict[str, EngineInfo] = {}
        self.jobs: dict[int, Job] = {}
        self.pools: dict[int, int] = {}
        self._busy: set[int] = set()  # ranks whose pools were not empty when they last told
        self.blobs = Blobs()
        self.pace = Pace()
        self.keeper: Keeper | None = None
        self.timeout: float | None = None  # of continuations whose job has none of its own
        self._overdue: dict[str, tuple[m.Running, ...]] = {}  # engine -> what ran for too long
        self.links = Links()
        self.injector = Injector(self)
        self._known: set[str] = set()  # engines whose loss has a cause outside the work
        self.kept_bytes = 0
        self.on_print: Callable[[wire.Printed], None] = lambda printed: None
        self.on_trouble: Callable[[str], None] = lambda text: None
        self.explain_deadlock: Explain = explain
        self._deadlocks: Deadlocks | None = None
        self._met: set[str] = set()  # the engines that have said hello
        self._meeting: Future[None] | None = None  # all that live have, behind another master
        self._told: dict[str, int] = {}  # how many of its messages each knows to be heard
        self._rollback: m.Rollback | None = None  # that the engines are being told of
        self.linking = Linking(self._send, lambda carrier: events.add("carrier", carrier=carrier))
        self._install = install
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.LINGER, 0)
        term = terms.FIRST if record is None else record.term
        self.doors = Doors(self._context, cluster.directory)
        self.doors.bind(self._socket, terms.name(term))
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wake, zmq.POLLIN)
        self._expected: dict[str, Future[None]] = {}
        self._kept_out: dict[str, tuple[int, int]] = {}  # by engine: see `Doors`
        self._strangers: tuple[int, ...] = (0, 0)
        self._names: dict[int, str] = {}  # what the notebook calls its variables
        self._pending_installs: list[Any] = []
        self._looked = time.monotonic()
        self._last_trouble = ""
        self._stopping = False
        self._thread = threading.Thread(target=self._main, name="feliss-master", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ for the notebook's threads

    def post(self, event: Any) -> None:
        """Give the master an event."""
        self.run_soon(lambda: self.handle(event))

    def handle(self, event: Any) -> None:
        """Give the master an event at once. On the master's thread."""
        if self.record is not None:
            self.record.event(event)
        self._execute(self.seat.handle(event))

    def submit(
        self,
        event: m.Submit,
        blobs: Iterable[wire.Blob],
        names: dict[str, tuple[int, bool]],
        unnamed: dict[int, bool],
    ) -> None:
        """Give the master a job with its functions and what it fills. On the master's thread.

        `names` and `unnamed` say which variables hold records.
        """
        if self.record is not None:
            new = [blob for blob in blobs if blob.digest not in self.blobs]
            notes: dict[Any, Any] = {("name", name): found for name, found in names.items()}
            notes |= {("unnamed", number): records for number, records in unnamed.items()}
            try:
                self.record.submission(event, new, notes)
            except StoreError as error:
                event.token.set_exception(error)
                return
        for blob in blobs:
            self.blobs.add(blob)
        if self.keeper is not None:
            self.keeper.names.update(names)
        self._execute(self.seat.handle(event))

    def release(self, variable: int) -> None:
        """The notebook has dropped a variable's handle. On the master's thread."""
        self.handle(m.Release(variable))
        self.note(("unnamed", variable), None)

    def forget_name(self, name: str) -> None:
        """The notebook has dropped a name. On the master's thread."""
        self.note(("name", name), None)
        if self.keeper is not None:
            self.keeper.forget_name(name)

    def ask(self, make: Callable[[Future[Any]], Any]) -> Future[Any]:
        """Give the master the event that `make` makes of a token; its answer is the result."""
        token: Future[Any] = Future()
        self.post(make(token))
        return token

    def run_soon(self, action: Callable[[], None]) -> None:
        """Run an action on the master's thread."""
        self._inbox.put(action)
        os.eventfd_write(self._wake, 1)

    def expect(self, engine: int) -> Future[None]:
        """Install the worker on an engine; the future is done when it says hello."""
        done: Future[None] = Future()

        def install() -> None:
            self._expected[str(engine)] = done

        self.run_soon(install)
        self._send_install(engine)
        return done

    def _send_install(self, engine: int) -> None:
        self._pending_installs.append(self.cluster.execute(engine, self._install(str(engine))))

    def await_hello(
        self, engine: int, hello: Future[None], deadline: float, on_wait: Callable[[str], None]
    ) -> None:
        """Wait until the worker on an engine has said hello.

        It is asked for again at times: what is sent to an engine that has just been registered may
        be lost, where its connection to the controller is not there yet.

        Raises
        ------
        FelissError
            If the deadline (of ``time.monotonic``) is over, or the worker cannot be started.
        """
        patience = INSTALL_AGAIN
        again = time.monotonic() + patience
        while True:
            try:
                hello.result(0.05)
                return
            except FutureTimeout:
                on_wait("the workers on the engines")
            self.install_errors()
            now = time.monotonic()
            if now > deadline or self._stopping:
                raise FelissError(
                    f"the worker on engine {engine} did not come up in time: give start() a longer "
                    "timeout= on a slow machine"
                ) from None
            if now > again:
                patience *= 2
                again = now + patience
                self._send_install(engine)

    def install_errors(self) -> None:
        """Raise the error of an engine on which the worker could not be started."""
        for result in list(self._pending_installs):
            if result.ready():
                self._pending_installs.remove(result)
                result.get(timeout=1)

    def is_alive(self) -> bool:
        """Whether the master's thread runs."""
        return self._thread.is_alive()

    def kill(self, rank: int | None, engine: int | None, done: Future[None]) -> None:
        """Kill an engine and note its loss. On the master's thread."""
        if self.record is not None:
            self.record.check()
        name = self.master.routes[rank] if rank is not None else str(engine)
        info = self.engines.get(name)
        if info is None:
            known = ", ".join(e for e, i in self.engines.items() if i.alive)
            done.set_exception(UsageError(f"there is no engine {engine} (alive: {known})"))
        elif not info.alive:
            done.set_exception(UsageError(f"engine {name} is dead already"))
        elif self.master.error is not None:
            done.set_exception(self.master.error)
        else:
            self.events.add("kill", engine=name, rank=rank)
            self.harmed(name)
            info.process.kill()
            info.process.ended(5.0)
            self._lost(name, "it was killed by request")
            done.set_result(None)

    def stop(self) -> None:
        """End the master's thread; workers of engines that go on are told to quit."""
        if self._thread.is_alive():
            self.run_soon(self._say_quit)
            self._thread.join(10.0)

    def leave(self) -> None:
        """End the master's thread, and nothing else: another process may go on."""

        def leave() -> None:
            self.on_trouble = lambda text: None
            self._stopping = True

        if self._thread.is_alive():
            self.run_soon(leave)
            self._thread.join(10.0)
        if self.record is not None:
            self.record.close()

    @property
    def is_taken(self) -> bool:
        """Whether another process has the master's place."""
        return isinstance(self.master.error, SessionTaken)

    # ------------------------------------------------------------ the thread

    def _main(self) -> None:
        try:
            while not self._stopping:
                patience = LOOK if self.linking.settled.is_set() else LOOK_CLOSELY
                patience = min(patience, self.injector.patience)
                ready = dict(self._poller.poll(math.ceil(patience * 1000)))
                if self._wake in ready:
                    os.eventfd_read(self._wake)
                self._run_inbox()
                if self._socket in ready:
                    self._take_all()
                for engine, info in list(self.engines.items()):
                    if info.alive and info.process.fd in ready:
                        self._lost(engine, "its process ended")
                self.linking.look()
                self.injector.look()
                self._look()
        except SessionTaken as error:
            self._broken(error)
        except BaseException as error:  # a bug of ours: whoever waits must hear of it
            self._broken(error)
            raise
        finally:
            self._socket.close(200)
            self.doors.close()
            self._context.term()

    def _run_inbox(self) -> None:
        while True:
            try:
                action = self._inbox.get_nowait()
            except queue.Empty:
                return
            action()

    def _take_all(self) -> None:
        while True:
            try:
                identity, *sealed = wire.receive(self._socket, zmq.NOBLOCK)
            except zmq.Again:
                return
            frames = self.doors.open(sealed) if sealed else None
            if frames is None:
                continue
            engine, message = bytes(identity).decode(), wire.decode(frames)
            now = time.monotonic()
            self.links.heard(engine, now)
            if isinstance(message, wire.Numbered):
                self._take_numbered(engine, message, frames)
            else:
                self._take(engine, message)
            if engine in self.engines:
                self.engines[engine].heard = now

    def _take(self, engine: str, message: Any) -> None:
        if isinstance(message, wire.Hello):
            self._hello(engine, message)
        elif isinstance(message, wire.Printed):
            self.on_print(message)
        elif isinstance(message, wire.Progress):
            self._progress(engine, message)
            deaf = self.links.beat(engine, message.unanswered)
            if deaf is not None:
                why = f"it lives, and what engine {engine} sends to it does not arrive"
                self.handle(m.EngineSuspect(deaf, why))
        elif isinstance(message, wire.Waiting):
            self._waiting(engine, message)
        elif isinstance(message, wire.Kept | wire.Fetched):
            if self.keeper is not None:
                self.keeper.hear(engine, message)
        elif isinstance(message, wire.Phase):
            if message.epoch == self.master.epoch:
                rank, job = message.rank, message.job
                self.events.add("phase", rank=rank, job=job, phase=message.phase)
        elif isinstance(message, wire.Linked):
            self.linking.hear(engine, message)
        elif isinstance(message, wire.Trouble):
            self.events.add("trouble", engine=engine, text=message.text)
            self.on_trouble(message.text)
            # Without that thread it may neither answer nor run: better without the engine.
            self.handle(m.EngineSuspect(engine, "its worker failed"))
        else:
            raise InternalError(f"a message of an unknown kind {type(message).__name__}")

    def _take_numbered(self, engine: str, numbered: wire.Numbered, frames: list[Any]) -> None:
        self.seat.acknowledged(engine, numbered.heard)
        if self.seat.is_new(engine, numbered.number):
            if self.record is not None:
                self.record.message(engine, frames)
            self._hear(engine, numbered.message, numbered.number)

    def _hear(self, engine: str, message: Any, number: int = 0) -> None:
        if isinstance(message, m.Saved | m.Restored | m.CutDone):
            kind = {m.Saved: "saved", m.Restored: "loaded", m.CutDone: "cut"}[type(message)]
            self.events.add(kind, engine=engine, rank=message.rank, epoch=message.epoch)
        elif isinstance(message, m.Output):
            self.kept_bytes += total(message.body.frames)
        elif isinstance(message, m.Failed):
            summary = message.error.summary
            self.events.add("raised", rank=message.rank, job=message.job, error=summary)
        self._execute(self.seat.hear(engine, message, number))

    def _waiting(self, engine: str, message: wire.Waiting) -> None:
        if message.epoch != self.master.epoch:
            return
        if self._deadlocks is None:
            self._deadlocks = Deadlocks(self.master.size)
        waits = self._deadlocks.hear(message)
        if waits is None:
            return
        error = DeadlockError(self.explain_deadlock(waits))
        job = self.master.jobs.get(message.step[0])
        failure = describe(error, message.rank, job.label if job is not None else "spmd", None)
        failed = m.Failed(message.epoch, message.cut, message.rank, message.step[0], failure)
        if self.record is not None:
            self.record.said(engine, failed)
        self._hear(engine, failed)

    def _hello(self, engine: str, message: wire.Hello) -> None:
        try:
            process = Process(message.pid, message.started)
        except ProcessLookupError:
            return
        try:
            board = BoardView(path_of(self.cluster.directory, engine))
        except OSError:  # it has ended meanwhile, and was found lost
            board = None
        known = self.engines.get(engine)
        if known is not None:  # it has found this master
            process.close()
            if not known.alive:
                return
            known.board = known.board or board
        else:
            self._know(engine, message.pid, message.started, process)
            self.engines[engine].board = board
        self.linking.joined(engine, message.place, message.carries)
        link = self.seat.link(engine)
        self._send(engine, wire.Welcome(link.heard, tuple(search_path())))
        if self._names:
            self._send(engine, wire.Names(self._names))
        if self.keeper is not None:
            self._send(engine, self.keeper.at)
        self._met.add(engine)
        again = link.again(message.heard)
        if engine in self.master.routes.values():
            self._send_functions(engine)
        for number, lost in again:
            self._send_numbered(m.Send(engine, number, lost))
        expected = self._expected.pop(engine, None)
        if self.master.state != "starting":
            self.handle(m.EngineJoined(engine))
        if expected is not None:
            expected.set_result(None)

    def _know(self, engine: str, pid: int, started: float, process: Process) -> None:
        self.engines[engine] = EngineInfo(int(engine), pid, process, started)
        self.links.heard(engine, time.monotonic())
        self._poller.register(process.fd, zmq.POLLIN)
        self.note(("engine", engine), (pid, started))

    def note(self, key: Any, value: Any) -> None:
        """Write down what another process needs besides the seat. On the master's thread."""
        if self.record is not None:
            self.record.note(key, value)

    def _progress(self, engine: str, message: wire.Progress) -> None:
        self.seat.acknowledged(engine, message.heard)
        self._kept_out[engine] = message.kept_out
        if message.epoch != self.master.epoch:
            return
        self.pools.update(message.pools)
        for rank, pool in message.pools.items():
            if (rank in self._busy) != (pool > 0):
                self._busy ^= {rank}
                self.events.add("busy" if pool else "idle", rank=rank, epoch=message.epoch)
        for (rank, job), figures in message.progress.items():
            if job in self.jobs:
                self.jobs[job].set_progress(rank, *figures)
        for (rank, job), records in message.mapped.items():
            self.events.add("mapped", rank=rank, job=job, records=records, epoch=message.epoch)

    def _lost(self, engine: str, why: str) -> None:
        info = self.engines[engine]
        if not info.alive:
            return
        info.alive = False
        self._poller.unregister(info.process.fd)
        info.process.close()
        running = self._ran(engine, info)
        self._remove_files(engine)
        self.blobs.forget_engine(engine)
        self.links.forget(engine)
        self.linking.lost(engine)
        if engine in self.master.routes.values():
            self.pace.lost()
        self._met.discard(engine)
        self.handle(m.EngineLost(engine, why, running))
        self.note(("engine", engine), None)
        if self.keeper is not None:
            self.keeper.lost(engine)

    def _remove_files(self, engine: str) -> None:
        """Remove what a dead machine would have taken with it."""
        (self.cluster.directory / f"data-{engine}").unlink(missing_ok=True)
        path_of(self.cluster.directory, engine).unlink(missing_ok=True)

    def harmed(self, engine: str) -> None:
        """Note that an engine is harmed by us: its work is not to blame if it is lost."""
        self._known.add(engine)

    def _ran(self, engine: str, info: EngineInfo) -> tuple[m.Running, ...]:
        """Return what may have cost the engine its life."""
        overdue = self._overdue.pop(engine, None)
        board, info.board = info.board, None
        if board is not None:
            board.close()
        if engine in self._known:
            return ()
        return self._left_running(engine) if overdue is None else overdue

    def _left_running(self, engine: str) -> tuple[m.Running, ...]:
        """Return what ran on an engine when it ended, whether a master was there or not."""
        try:
            board = BoardView(path_of(self.cluster.directory, engine))
        except OSError:
            return ()
        running = tuple(one for one, _ in board.running())
        board.close()
        return running

    def _look_at_timeouts(self) -> None:
        """Fence the engine on which something has run for too long, one at a time.

        What waits for it elsewhere is late as well.
        """
        if self._overdue or self.master.state in ("recovering", "failed"):
            return
        worst: tuple[float, str, m.Running, float] | None = None
        for engine, info in self.engines.items():
            if not info.alive or info.board is None:
                continue
            for one, seconds in info.board.running():
                job = self.master.jobs.get(one.job)
                timeout = None if job is None else job.timeout
                if timeout is None:
                    timeout = self.timeout
                if timeout is None or seconds <= timeout or job is None or job.internal:
                    continue
                if self.master.routes.get(one.rank) == engine and (
                    worst is None or seconds - timeout > worst[0]
                ):
                    worst = seconds - timeout, engine, one, timeout
        if worst is not None:
            _, engine, one, timeout = worst
            label = self.master.jobs[one.job].label
            why = f"rank {one.rank} was in one continuation of {label} for more than {timeout:g} s"
            self._overdue[engine] = (one,)
            self.handle(m.EngineSuspect(engine, why))

    def _look(self) -> None:
        """Look at the hub's list of engines, and at the clock of checkpoints."""
        now = time.monotonic()
        passed = now - self._looked
        if passed < LOOK:
            return
        self._looked = now
        for engine in self._met:
            heard = self.seat.link(engine).heard
            if heard > self._told.get(engine, 0):
                self._told[engine] = heard
                self._send(engine, wire.Heard(heard))
        self._have_met()
        self._look_for_strangers()
        if self.record is not None:
            self._look_after(self.record)
        if self.master.state in ("starting", "stopped"):
            return
        known = self.cluster.ids()
        for engine, info in list(self.engines.items()):
            missed = self.cluster.has_hub and info.id not in known
            if info.alive and missed and not info.process.ended():
                self.handle(m.EngineSuspect(engine, "the hub misses its beats"))
            elif info.alive and self.links.is_silent(engine, info.pid, info.board, now):
                why = "it says nothing, and neither runs anything nor uses the processor"
                self.handle(m.EngineSuspect(engine, why))
        self._look_at_timeouts()
        if self.master.state == "recovering":
            self.pace.recovering(passed)
        if self.master.state != "running":
            return
        if any(not job.quiet for job in self.master.jobs.values()):
            self.pace.ran(passed)
        if self.pace.every is None:
            return
        if self.pace.is_due() or self.kept_bytes > KEPT_BYTES:
            self.kept_bytes = 0
            token: Future[Any] = Future()
            token.add_done_callback(self._periodic_done)
            self.handle(m.TakeCheckpoint(token))

    def _look_for_strangers(self) -> None:
        """Note who was kept out here and at the engines."""
        self._kept_out[""] = (self.doors.refused, self.doors.dropped)
        found = tuple(map(sum, zip(*self._kept_out.values(), strict=True)))
        if found != self._strangers:
            self._strangers = found
            self.events.add("kept-out", refused=found[0], dropped=found[1])

    def _look_after(self, record: Record) -> None:
        record.check()
        if not record.is_open:
            return
        if record.is_long:
            was_whole = record.trouble is None
            self.renew(record)
            if record.trouble is not None and was_whole:
                self.on_trouble(
                    f"the session's record cannot be written ({record.trouble}): while that lasts, "
                    "no submission is taken, and the session may not outlive this process"
                )
        record.show(self.show())

    def show(self) -> dict[str, Any]:
        """Return what is told of the session to those who look from outside."""
        master = self.master
        return {
            "state": master.state,
            "epoch": master.epoch,
            "ranks": dict(sorted(master.routes.items())),
            "engines": {e: (i.pid, i.started) for e, i in self.engines.items() if i.alive},
            "directories": self.cluster.directories(),
            "jobs": [job.label for job in master.ledger.busy.values() if not job.internal],
            "since": self.since,
        }

    def write_down(self, done: Future[None]) -> None:
        """Begin the record: from now on the session outlives its process."""
        record = self.record
        assert record is not None
        self.renew(record)
        if record.trouble is not None:
            done.set_exception(StoreError(f"cannot write to {record.directory}: {record.trouble}"))
            return
        record.show(self.show())
        terms.write(self.cluster.directory, record.term)
        terms.let_outlive(self.cluster.directory)
        done.set_result(None)

    def take_over(
        self, found: Found, held: frozenset[int], missing: int, done: Future[None]
    ) -> None:
        """Go on where another master ended. On the master's thread.

        Parameters
        ----------
        found : Found
            What its record comes to.
        held : frozenset of int
            The variables that have names, and those that the process before held without.
        missing : int
            How many engines it wanted besides those that it knew.
        done : Future
            Done when the engines that live have found this master.
        """
        assert self.record is not None
        self._meeting = done
        self.linking.take_over(self.master.attempt)
        for engine in [key[1] for key in found.notes if key[0] == "engine"]:
            pid, started = found.notes["engine", engine]
            try:
                self._know(engine, pid, started, Process(pid, started))
            except ProcessLookupError:
                pass
        for blob in found.blobs.values():
            self.blobs.add(blob)
        self.renew(self.record)
        terms.write(self.cluster.directory, self.record.term)
        self.events.add("resumed", term=self.record.term)
        self.handle(m.TakeOver(held))
        for engine in list(self.master.engines):
            if engine not in self.engines:
                why = "it ended while the session had no master"
                self.handle(m.EngineLost(engine, why, self._left_running(engine)))
                self._remove_files(engine)
        for engine in self.master.fleet.suspects:
            self._fence(m.Fence(engine))
        for compare in found.compares.values():
            self._compare(compare)
        # What was being started may have come up since.
        idle = self.cluster.ids() - {int(engine) for engine in self._ever(found)}
        for engine in sorted(idle)[: max(missing, 0)]:
            missing -= 1
            self._replace(m.Replace(), engine)
        for _ in range(missing):
            self._replace(m.Replace())
        self._have_met()

    def _ever(self, found: Found) -> set[str]:
        """Return the engines that the session ever had."""
        return {*self.engines, *self.master.gone, *found.seat.links}

    def _have_met(self) -> None:
        """Look whether all engines that live have found this master."""
        done = self._meeting
        if done is not None and self._met >= {e for e, i in self.engines.items() if i.alive}:
            self._meeting = None
            self.linking.met()
            done.set_result(None)

    def renew(self, record: Record) -> None:
        """Begin the record anew, with an image of what is."""
        digests = set(self._digests())
        record.renew(self.seat, {digest: self.blobs.get(digest) for digest in digests})

    def _periodic_done(self, token: Future[Any]) -> None:
        error = token.exception()
        if error is not None and str(error) != self._last_trouble and not self._stopping:
            self._last_trouble = str(error)  # the same thing is said once
            self.on_trouble(f"no checkpoint was taken, the last one stays: {error}")

    # ------------------------------------------------------------ commands

    def _execute(self, commands: list[Any]) -> None:
        for command in commands:
            _COMMANDS[type(command)](self, command)
        if self._rollback is not None:
            rollback, self._rollback = self._rollback, None
            self.linking.begin(rollback.attempt, rollback.routes)

    def _to_engine(self, command: m.Send) -> None:
        engine, message = command.engine, command.message
        if isinstance(message, m.Inject):
            # Every worker gets it: the job may send continuations to any rank.
            digests = message.continuation.work.digests
            for host in set(self.master.routes.values()) & self._met:
                for blob in self.blobs.missing(host, digests):
                    self._send(host, blob)
        elif isinstance(message, m.Rollback):
            self._rollback = message
            if engine in message.routes.values() and engine in self._met:
                self._send_functions(engine)
        elif isinstance(message, m.Cut):
            self.pace.begun()
        self._send_numbered(command)

    def _send_functions(self, engine: str) -> None:
        """Send what the jobs use and the engine lacks."""
        for blob in self.blobs.missing(engine, self._digests()):
            self._send(engine, blob)

    def _digests(self) -> list[bytes]:
        """Return the functions that jobs need which have not ended for good."""
        return [
            digest
            for job in self.master.jobs.values()
            if job.id not in self.master.committed.ended
            for _, start in job.starts
            for digest in start.work.digests
        ]

    def _send_numbered(self, command: m.Send) -> None:
        engine = command.engine
        if engine in self._met:  # else it is sent again when the engine says hello
            heard = self._told[engine] = self.seat.link(engine).heard
            self._send(engine, wire.Numbered(command.number, heard, command.message))

    def _send(self, engine: str, message: Any) -> None:
        frames = self.doors.seal(wire.encode(message))
        self._socket.send_multipart([engine.encode(), *frames], copy=False)

    def tell_names(self, names: dict[int, str]) -> None:
        """Tell the engines what variables are called."""

        def tell() -> None:
            self._names.update(names)
            for engine, info in self.engines.items():
                if info.alive:
                    self._send(engine, wire.Names(names))

        self.run_soon(tell)

    def _fence(self, command: m.Fence) -> None:
        info = self.engines[command.engine]
        info.process.kill()  # its end makes the descriptor readable: then it is lost

    def _replace(self, command: m.Replace, engine: int | None = None) -> None:
        work = partial(self._add_engine, engine)
        threading.Thread(target=work, name="feliss-replace", daemon=True).start()

    def _add_engine(self, engine: int | None) -> None:
        came = False
        try:
            if engine is None:
                engine = self.cluster.add()
            if engine is not None and not self._stopping:
                hello = self.expect(engine)
                deadline = time.monotonic() + HELLO_PATIENCE
                self.await_hello(engine, hello, deadline, lambda what: None)
                came = True
        except Exception as error:  # noqa: BLE001 - a session without a spare goes on
            if not self._stopping:
                self.events.add("no-replacement", error=str(error))
        finally:
            if not came and not self._stopping:
                self.post(m.NotReplaced())

    def _compare(self, command: m.Compare) -> None:
        try:
            # Continuations without an order between them may fill a dictionary in another one.
            old = canonical_digest(restore(from_frames(command.old.frames)), ordered=False)
            new = canonical_digest(restore(from_frames(command.new.frames)), ordered=False)
            same = old == new
        except Exception:  # noqa: BLE001 - the user's classes: other bytes, and not shown to be equal
            same = False
        self.post(m.Compared(command.job, command.rank, same))

    def _answer(self, command: m.Answer) -> None:
        token: Future[Any] = command.token
        if token.done():
            return
        # A comparison may have found meanwhile that the replay diverged: then no wait ends well.
        error = command.error or self.master.error
        if error is None:
            token.set_result(command.value)
        elif isinstance(error, Failure):
            token.set_exception(error.error())
        else:
            token.set_exception(error)

    def _job_changed(self, command: m.JobChanged) -> None:
        job = self.jobs.get(command.job)
        state = self.master.jobs.get(command.job)
        if job is not None and state is not None:
            job.follow(state)

    def _log(self, command: m.Log) -> None:
        if command.kind == "committed":
            self._drop_arguments()
            self._clean_blobs()
            self.kept_bytes = 0
            self.pace.committed(command.data["pause"])
        elif command.kind == "recovered":
            self._busy.clear()  # ranks stand up idle, and tell what they have to do
        self.events.add(command.kind, **command.data)
        if self.keeper is not None:
            if command.kind == "committed":
                self.keeper.committed()
            elif command.kind in ("failed", "stopped"):
                self.keeper.end(self.master.error)

    def _drop_arguments(self) -> None:
        """Leave out what will not be injected again; of that, the ranks' snapshots have the rest.

        Neither this process nor a record nor a store shall keep it as long as its job runs.
        """
        for job in self.master.jobs.values():
            done = job.position < self.master.committed.position
            if done and any(start.work.data for _, start in job.starts):
                job.starts = tuple(
                    (rank, replace(start, work=start.work.bare())) for rank, start in job.starts
                )

    def _clean_blobs(self) -> None:
        used = {
            digest
            for job in self.master.jobs.values()
            for _, start in job.starts
            for digest in start.work.digests
        }
        for engine, digests in self.blobs.clean(used).items():
            self._send(engine, wire.DropBlobs(tuple(digests)))
        # What has ended and nobody holds is of interest to nobody.
        self.jobs = {n: job for n, job in self.jobs.items() if n in self.master.jobs}

    # ------------------------------------------------------------ the end

    def _say_quit(self) -> None:
        self.on_trouble = lambda text: None  # what the end cuts short is no trouble
        self.injector.end()
        self._execute(self.seat.handle(m.Stop()))  # not recorded: it is the end of the record
        if not self.cluster.own:
            for engine, info in self.engines.items():
                if info.alive:
                    self._send(engine, wire.Quit())
        # The cluster ends its engines itself, with their nannies, whose parents they are.
        for info in self.engines.values():
            info.process.close()
            if info.board is not None:
                info.board.close()
                info.board = None
        self._stopping = True

    def _broken(self, error: BaseException) -> None:
        text = f"the session's master failed ({type(error).__name__}: {error})"
        problem = error if isinstance(error, FelissError) else InternalError(text)
        self.master.error = problem if isinstance(problem, SessionTaken) else InternalError(text)
        self.events.add("trouble", engine="", text=text)
        if self.keeper is not None:
            self.keeper.end(problem)
        tokens = [wait.token for wait in self.master.waits]
        tokens += [*self.master.protect_waits, *self.master.wanted]
        for token in tokens:
            if not token.done():
                token.set_exception(problem)


_COMMANDS: dict[type, Any] = {
    m.Send: Driver._to_engine,
    m.Fence: Driver._fence,
    m.Replace: Driver._replace,
    m.Compare: Driver._compare,
    m.Answer: Driver._answer,
    m.JobChanged: Driver._job_changed,
    m.Log: Driver._log,
}
