"""The master inside the notebook's process: one thread that owns the machine and the sockets.

The notebook's threads put events into a queue and wait for futures, so that Ctrl-C interrupts a
wait and never the machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from feliss_nb.core import commands as cmd
from feliss_nb.core import events as ev
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
from feliss_nb.runtime import outliving, terms, wire
from feliss_nb.runtime.blame import Blame
from feliss_nb.runtime.board import remove_files
from feliss_nb.runtime.cluster import Engines
from feliss_nb.runtime.deadlocks import Deadlocks, Explain, explain
from feliss_nb.runtime.events import EventLog
from feliss_nb.runtime.exchange import Exchange
from feliss_nb.runtime.failure import Failure, describe
from feliss_nb.runtime.injecting import Injector
from feliss_nb.runtime.installing import Installer
from feliss_nb.runtime.job import Job
from feliss_nb.runtime.keeping import Keeper
from feliss_nb.runtime.linking import Linking
from feliss_nb.runtime.liveness import Liveness
from feliss_nb.runtime.pacing import Pace
from feliss_nb.runtime.progress import Progress
from feliss_nb.runtime.record import Record
from feliss_nb.runtime.telling import Telling
from feliss_nb.state.canonical import canonical_digest
from feliss_nb.state.snapshot import from_frames, restore
from feliss_nb.store.memory import total

# What is kept in this process for a replay (arguments submitted, results fetched) goes with the
# next commit; past this, a checkpoint is taken though nothing runs.
KEPT_BYTES = 256 << 20

LOOK = 0.1  # seconds between looks at the hub's list of engines and the clock of checkpoints
LOOK_CLOSELY = 0.01  # while ranks may wait for the decision what carries their messages


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
        self.jobs: dict[int, Job] = {}
        self.progress = Progress(events)
        self.pace = Pace()
        self.keeper: Keeper | None = None
        self.blame = Blame(cluster.directory)
        self.injector = Injector(self)
        self.kept_bytes = 0
        self.on_print: Callable[[wire.Printed], None] = lambda printed: None
        self.on_trouble: Callable[[str], None] = lambda text: None
        self.explain_deadlock: Explain = explain
        self._deadlocks: Deadlocks | None = None
        self.meeting: Future[None] | None = None  # all that live have, behind another master
        self._rollback: m.Rollback | None = None  # that the engines are being told of
        self.installer = Installer(cluster, install)
        self._exchange = Exchange(cluster.directory, terms.FIRST if record is None else record.term)
        self.liveness = Liveness(cluster, self._exchange)
        self.telling = Telling(self._exchange, seat)
        self.linking = Linking(
            self._exchange.send, lambda carrier: events.add("carrier", carrier=carrier)
        )
        self._kept_out: dict[str, tuple[int, int]] = {}  # by engine: see `Exchange.kept_out`
        self._strangers: tuple[int, ...] = (0, 0)
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
        self.execute(self.seat.handle(event))

    def submit(
        self,
        event: ev.Submit,
        blobs: Iterable[wire.Blob],
        names: dict[str, tuple[int, bool]],
        unnamed: dict[int, bool],
    ) -> None:
        """Give the master a job with its functions and what it fills. On the master's thread.

        `names` and `unnamed` say which variables hold records.
        """
        if self.record is not None:
            new = [blob for blob in blobs if blob.digest not in self.telling.blobs]
            notes: dict[Any, Any] = {("name", name): found for name, found in names.items()}
            notes |= {("unnamed", number): records for number, records in unnamed.items()}
            try:
                self.record.submission(event, new, notes)
            except StoreError as error:
                event.token.set_exception(error)
                return
        for blob in blobs:
            self.telling.blobs.add(blob)
        if self.keeper is not None:
            self.keeper.names.update(names)
        self.execute(self.seat.handle(event))

    def release(self, variable: int) -> None:
        """The notebook has dropped a variable's handle. On the master's thread."""
        self.handle(ev.Release(variable))
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
        self._exchange.run_soon(action)

    def is_alive(self) -> bool:
        """Whether the master's thread runs."""
        return self._thread.is_alive()

    def kill(self, rank: int | None, engine: int | None, done: Future[None]) -> None:
        """Kill an engine and note its loss. On the master's thread."""
        if self.record is not None:
            self.record.check()
        name = self.master.routes[rank] if rank is not None else str(engine)
        info = self.liveness.engines.get(name)
        if info is None:
            known = ", ".join(self.liveness.living)
            done.set_exception(UsageError(f"there is no engine {engine} (alive: {known})"))
        elif not info.alive:
            done.set_exception(UsageError(f"engine {name} is dead already"))
        elif self.master.error is not None:
            done.set_exception(self.master.error)
        else:
            self.events.add("kill", engine=name, rank=rank)
            self.blame.harmed(name)
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
            self._stop_soon()

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
                ready = self._exchange.wait(patience)
                self._exchange.run_inbox()
                for engine, message, frames in self._exchange.received():
                    self._take(engine, message, frames)
                for engine in self.liveness.ended(ready):
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
            self._exchange.close()

    def _take(self, engine: str, message: Any, frames: list[Any]) -> None:
        self.liveness.heard(engine)
        if isinstance(message, wire.Numbered):
            self._take_numbered(engine, message, frames)
        else:
            self._take_plain(engine, message)

    def _take_plain(self, engine: str, message: Any) -> None:
        if isinstance(message, wire.Hello):
            self._hello(engine, message)
        elif isinstance(message, wire.Printed):
            self.on_print(message)
        elif isinstance(message, wire.Progress):
            self._progress(engine, message)
            deaf = self.liveness.beat(engine, message.unanswered)
            if deaf is not None:
                self.handle(ev.EngineSuspect(*deaf))
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
            self.handle(ev.EngineSuspect(engine, "its worker failed"))
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
        self.execute(self.seat.hear(engine, message, number))

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
        is_new = engine not in self.liveness.engines
        if not self.liveness.met(engine, message):
            return
        if is_new:
            self.note(("engine", engine), (message.pid, message.started))
        self.linking.joined(engine, message.place, message.carries)
        self.telling.welcome(engine, message.heard, None if self.keeper is None else self.keeper.at)
        if self.master.state != "starting":
            self.handle(ev.EngineJoined(engine))
        self.installer.said_hello(engine)

    def note(self, key: Any, value: Any) -> None:
        """Write down what another process needs besides the seat. On the master's thread."""
        if self.record is not None:
            self.record.note(key, value)

    def _progress(self, engine: str, message: wire.Progress) -> None:
        self.seat.acknowledged(engine, message.heard)
        self._kept_out[engine] = message.kept_out
        if message.epoch != self.master.epoch:
            return
        self.progress.take(message, self.jobs)

    def _lost(self, engine: str, why: str) -> None:
        info = self.liveness.lost(engine)
        if info is None:
            return
        running = self.blame.ran(engine, info)
        remove_files(self.cluster.directory, engine)
        self.telling.forget(engine)
        self.linking.lost(engine)
        if engine in self.master.routes.values():
            self.pace.lost()
        self.handle(ev.EngineLost(engine, why, running))
        self.note(("engine", engine), None)
        if self.keeper is not None:
            self.keeper.lost(engine)

    def _look(self) -> None:
        """Look at the hub's list of engines, and at the clock of checkpoints."""
        now = time.monotonic()
        passed = now - self._looked
        if passed < LOOK:
            return
        self._looked = now
        self.telling.acknowledge()
        self.look_who_met()
        self._look_for_strangers()
        if self.record is not None:
            outliving.look_after(self, self.record)
        if self.master.state in ("starting", "stopped"):
            return
        for engine, why in self.liveness.suspects():
            self.handle(ev.EngineSuspect(engine, why))
        overdue = self.blame.find_overdue(self.liveness.engines, self.master)
        if overdue is not None:
            self.handle(ev.EngineSuspect(*overdue))
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
            self.handle(ev.TakeCheckpoint(token))

    def _look_for_strangers(self) -> None:
        """Note who was kept out here and at the engines."""
        self._kept_out[""] = self._exchange.kept_out
        found = tuple(map(sum, zip(*self._kept_out.values(), strict=True)))
        if found != self._strangers:
            self._strangers = found
            self.events.add("kept-out", refused=found[0], dropped=found[1])

    def look_who_met(self) -> None:
        """Look whether all engines that live have found this master. On the master's thread."""
        done = self.meeting
        if done is not None and self.telling.met.issuperset(self.liveness.living):
            self.meeting = None
            self.linking.met()
            done.set_result(None)

    def _periodic_done(self, token: Future[Any]) -> None:
        error = token.exception()
        if error is not None and str(error) != self._last_trouble and not self._stopping:
            self._last_trouble = str(error)  # the same thing is said once
            self.on_trouble(f"no checkpoint was taken, the last one stays: {error}")

    # ------------------------------------------------------------ commands

    def execute(self, commands: list[Any]) -> None:
        """Carry out the machine's commands. On the master's thread."""
        for command in commands:
            _COMMANDS[type(command)](self, command)
        if self._rollback is not None:
            rollback, self._rollback = self._rollback, None
            self.linking.begin(rollback.attempt, rollback.routes)

    def _to_engine(self, command: cmd.Send) -> None:
        if isinstance(command.message, m.Rollback):
            self._rollback = command.message
        elif isinstance(command.message, m.Cut):
            self.pace.begun()
        self.telling.tell(command)

    def tell_names(self, names: dict[int, str]) -> None:
        """Tell the engines what variables are called."""
        self.run_soon(lambda: self.telling.names(names, self.liveness.living))

    def _fence(self, command: cmd.Fence) -> None:
        info = self.liveness.engines[command.engine]
        info.process.kill()  # its end makes the descriptor readable: then it is lost

    def _replace(self, command: cmd.Replace) -> None:
        self.add_engine()

    def add_engine(self, engine: int | None = None) -> None:
        """Bring a worker to one more engine (None: a new one); the master hears if none came."""

        def failed(error: str | None) -> None:
            if error is not None:
                self.events.add("no-replacement", error=error)
            self.post(ev.NotReplaced())

        self.installer.add(engine, failed)

    def _compare(self, command: cmd.Compare) -> None:
        try:
            # Continuations without an order between them may fill a dictionary in another one.
            old = canonical_digest(restore(from_frames(command.old.frames)), ordered=False)
            new = canonical_digest(restore(from_frames(command.new.frames)), ordered=False)
            same = old == new
        except Exception:  # noqa: BLE001 - the user's classes: other bytes, and not shown to be equal
            same = False
        self.post(ev.Compared(command.job, command.rank, same))

    def _answer(self, command: cmd.Answer) -> None:
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

    def _job_changed(self, command: cmd.JobChanged) -> None:
        job = self.jobs.get(command.job)
        state = self.master.jobs.get(command.job)
        if job is not None and state is not None:
            job.follow(state)

    def _log(self, command: cmd.Log) -> None:
        if command.kind == "committed":
            self.telling.committed()
            # What has ended and nobody holds is of interest to nobody.
            self.jobs = {n: job for n, job in self.jobs.items() if n in self.master.jobs}
            self.kept_bytes = 0
            self.pace.committed(command.data["pause"])
        elif command.kind == "recovered":
            self.progress.stand_up()
        self.events.add(command.kind, **command.data)
        if self.keeper is not None:
            if command.kind == "committed":
                self.keeper.committed()
            elif command.kind in ("failed", "stopped"):
                self.keeper.end(self.master.error)

    # ------------------------------------------------------------ the end

    def _say_quit(self) -> None:
        self.on_trouble = lambda text: None  # what the end cuts short is no trouble
        self.injector.end()
        self.execute(self.seat.handle(ev.Stop()))  # not recorded: it is the end of the record
        if not self.cluster.own:
            for engine in self.liveness.living:
                self._exchange.send(engine, wire.Quit())
        # The cluster ends its engines itself, with their nannies, whose parents they are.
        self.liveness.close()
        self._stop_soon()

    def _stop_soon(self) -> None:
        self._stopping = True
        self.installer.close()

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
    cmd.Send: Driver._to_engine,
    cmd.Fence: Driver._fence,
    cmd.Replace: Driver._replace,
    cmd.Compare: Driver._compare,
    cmd.Answer: Driver._answer,
    cmd.JobChanged: Driver._job_changed,
    cmd.Log: Driver._log,
}
