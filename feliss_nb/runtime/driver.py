"""The master inside the notebook's process: one thread that owns the machine and the sockets.

The notebook's threads put events into a queue and wait for futures, so that Ctrl-C interrupts a
wait and never the machine.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

import zmq

from feliss_nb.core import messages as m
from feliss_nb.core.master import Master
from feliss_nb.errors import DeadlockError, FelissError, InternalError, UsageError
from feliss_nb.runtime import wire
from feliss_nb.runtime.blobs import Blobs
from feliss_nb.runtime.cluster import Engines
from feliss_nb.runtime.deadlocks import Deadlocks, Explain, explain
from feliss_nb.runtime.events import EventLog
from feliss_nb.runtime.failure import Failure, describe
from feliss_nb.runtime.job import Job
from feliss_nb.runtime.keeping import Keeper
from feliss_nb.runtime.linking import Linking
from feliss_nb.runtime.owner import Process
from feliss_nb.runtime.pacing import Pace
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
    alive: bool = True
    heard: float = 0.0  # when it has last said something, by time.monotonic


class Driver:
    """Runs the master.

    Parameters
    ----------
    cluster : Engines
        The engines.
    master : Master
        The machine.
    events : EventLog
        Where events and figures go.
    install : callable
        Gives the code that starts the worker on an engine.
    """

    def __init__(
        self, cluster: Engines, master: Master, events: EventLog, install: Callable[[str], str]
    ) -> None:
        self.cluster, self.master, self.events = cluster, master, events
        self.engines: dict[str, EngineInfo] = {}
        self.jobs: dict[int, Job] = {}
        self.pools: dict[int, int] = {}
        self._busy: set[int] = set()  # ranks whose pools were not empty when they last told
        self.blobs = Blobs()
        self.pace = Pace()
        self.keeper: Keeper | None = None
        self.kept_bytes = 0
        self.on_print: Callable[[wire.Printed], None] = lambda printed: None
        self.on_trouble: Callable[[str], None] = lambda text: None
        self.explain_deadlock: Explain = explain
        self._deadlocks: Deadlocks | None = None
        self._rollback: m.Rollback | None = None  # that the engines are being told of
        self.linking = Linking(self._send, lambda carrier: events.add("carrier", carrier=carrier))
        self._install = install
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(f"ipc://{cluster.directory}/master")
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wake, zmq.POLLIN)
        self._expected: dict[str, Future[None]] = {}
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
        self._execute(self.master.handle(event))

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
            info.process.kill()
            info.process.ended(5.0)
            self._lost(name, "it was killed by request")
            done.set_result(None)

    def stop(self) -> None:
        """End the master's thread; workers of engines that go on are told to quit."""
        if self._thread.is_alive():
            self.run_soon(self._say_quit)
            self._thread.join(10.0)

    # ------------------------------------------------------------ the thread

    def _main(self) -> None:
        try:
            while not self._stopping:
                patience = LOOK if self.linking.settled.is_set() else LOOK_CLOSELY
                ready = dict(self._poller.poll(int(patience * 1000)))
                if self._wake in ready:
                    os.eventfd_read(self._wake)
                self._run_inbox()
                if self._socket in ready:
                    self._take_all()
                for engine, info in list(self.engines.items()):
                    if info.alive and info.process.fd in ready:
                        self._lost(engine, "its process ended")
                self.linking.look()
                self._look()
        except BaseException as error:  # a bug of ours: whoever waits must hear of it
            self._broken(error)
            raise
        finally:
            self._socket.close(200)
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
                identity, *frames = wire.receive(self._socket, zmq.NOBLOCK)
            except zmq.Again:
                return
            engine = bytes(identity).decode()
            self._take(engine, wire.decode(frames))
            if engine in self.engines:
                self.engines[engine].heard = time.monotonic()

    def _take(self, engine: str, message: Any) -> None:
        if isinstance(message, wire.Hello):
            self._hello(engine, message)
        elif isinstance(message, wire.Printed):
            self.on_print(message)
        elif isinstance(message, wire.Progress):
            self._progress(message)
        elif isinstance(message, wire.Waiting):
            self._waiting(engine, message)
        elif isinstance(message, wire.Kept | wire.Fetched):
            if self.keeper is not None:
                self.keeper.hear(engine, message)
        elif isinstance(message, wire.Linked):
            self.linking.hear(engine, message)
        elif isinstance(message, wire.Trouble):
            self.events.add("trouble", engine=engine, text=message.text)
            self.on_trouble(message.text)
            # Without that thread it may neither answer nor run: better without the engine.
            suspect = m.EngineSuspect(engine, "its worker failed")
            self._execute(self.master.handle(suspect))
        else:
            if isinstance(message, m.Saved | m.Restored | m.CutDone):
                kind = {m.Saved: "saved", m.Restored: "loaded", m.CutDone: "cut"}[type(message)]
                self.events.add(kind, engine=engine, rank=message.rank, epoch=message.epoch)
            elif isinstance(message, m.Output):
                self.kept_bytes += total(message.body.frames)
            elif isinstance(message, m.Failed):
                summary = message.error.summary
                self.events.add("raised", rank=message.rank, job=message.job, error=summary)
            self._execute(self.master.hear(engine, message))

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
        self._take(engine, failed)

    def _hello(self, engine: str, message: wire.Hello) -> None:
        try:
            process = Process(message.pid, message.started)
        except ProcessLookupError:
            return
        self.engines[engine] = EngineInfo(int(engine), message.pid, process)
        self._poller.register(process.fd, zmq.POLLIN)
        self.linking.joined(engine, message.place)
        if self._names:
            self._send(engine, wire.Names(self._names))
        if self.keeper is not None:
            self._send(engine, self.keeper.at)
        expected = self._expected.pop(engine, None)
        if self.master.state != "starting":
            self._execute(self.master.handle(m.EngineJoined(engine)))
        if expected is not None:
            expected.set_result(None)

    def _progress(self, message: wire.Progress) -> None:
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
        self.blobs.forget_engine(engine)
        self.linking.lost(engine)
        if engine in self.master.routes.values():
            self.pace.lost()
        self._execute(self.master.handle(m.EngineLost(engine, why)))
        if self.keeper is not None:
            self.keeper.lost(engine)

    def _look(self) -> None:
        """Look at the hub's list of engines, and at the clock of checkpoints."""
        now = time.monotonic()
        passed = now - self._looked
        if passed < LOOK:
            return
        self._looked = now
        if self.master.state in ("starting", "stopped"):
            return
        known = self.cluster.ids()
        for engine, info in list(self.engines.items()):
            if info.alive and info.id not in known and not info.process.ended():
                suspect = m.EngineSuspect(engine, "the hub misses its beats")
                self._execute(self.master.handle(suspect))
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
            self._execute(self.master.handle(m.TakeCheckpoint(token)))

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

    def _to_engine(self, command: m.ToEngine) -> None:
        engine, message = command.engine, command.message
        if isinstance(message, m.Inject):
            # Every worker gets it: the job may send continuations to any rank.
            digests = message.continuation.work.digests
            for host in set(self.master.routes.values()):
                for blob in self.blobs.missing(host, digests):
                    self._send(host, blob)
        elif isinstance(message, m.Rollback):
            self._rollback = message
            if engine in message.routes.values():
                digests = [
                    digest
                    for job in self.master.jobs.values()
                    if job.id not in self.master.committed.ended
                    for _, start in job.starts
                    for digest in start.work.digests
                ]
                for blob in self.blobs.missing(engine, digests):
                    self._send(engine, blob)
        elif isinstance(message, m.Cut):
            self.pace.begun()
        self._send(engine, message)

    def _send(self, engine: str, message: Any) -> None:
        frames = wire.encode(message)
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

    def _replace(self, command: m.Replace) -> None:
        threading.Thread(target=self._add_engine, name="feliss-replace", daemon=True).start()

    def _add_engine(self) -> None:
        try:
            engine = self.cluster.add()
            if engine is not None and not self._stopping:
                hello = self.expect(engine)
                deadline = time.monotonic() + HELLO_PATIENCE
                self.await_hello(engine, hello, deadline, lambda what: None)
        except Exception as error:  # noqa: BLE001 - a session without a spare goes on
            if not self._stopping:
                self.events.add("no-replacement", error=str(error))

    def _compare(self, command: m.Compare) -> None:
        try:
            # Continuations without an order between them may fill a dictionary in another one.
            old = canonical_digest(restore(from_frames(command.old.frames)), ordered=False)
            new = canonical_digest(restore(from_frames(command.new.frames)), ordered=False)
            same = old == new
        except Exception:  # noqa: BLE001 - the user's classes: other bytes, and not shown to be equal
            same = False
        self._execute(self.master.handle(m.Compared(command.job, command.rank, same)))

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
        self._execute(self.master.handle(m.Stop()))
        if not self.cluster.own:
            for engine, info in self.engines.items():
                if info.alive:
                    self._send(engine, wire.Quit())
        # The cluster ends its engines itself, with their nannies, whose parents they are.
        for info in self.engines.values():
            info.process.close()
        self._stopping = True

    def _broken(self, error: BaseException) -> None:
        text = f"the session's master failed ({type(error).__name__}: {error})"
        problem = error if isinstance(error, FelissError) else InternalError(text)
        self.master.error = InternalError(text)
        self.events.add("trouble", engine="", text=text)
        if self.keeper is not None:
            self.keeper.end(problem)
        tokens = [wait.token for wait in self.master.waits]
        tokens += [*self.master.protect_waits, *self.master.wanted]
        for token in tokens:
            if not token.done():
                token.set_exception(problem)


_COMMANDS: dict[type, Any] = {
    m.ToEngine: Driver._to_engine,
    m.Fence: Driver._fence,
    m.Replace: Driver._replace,
    m.Compare: Driver._compare,
    m.Answer: Driver._answer,
    m.JobChanged: Driver._job_changed,
    m.Log: Driver._log,
}
