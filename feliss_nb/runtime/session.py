"""A session: the engines, the ranks on them, and what the notebook submits."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from numbers import Integral
from typing import Any, TextIO, TypeVar

from feliss_nb.core import messages as m
from feliss_nb.core.jobs import Job as CoreJob
from feliss_nb.core.master import Master
from feliss_nb.core.seat import Seat
from feliss_nb.core.variables import Variables
from feliss_nb.errors import (
    DependencyError,
    LossError,
    SessionClosed,
    SessionTaken,
    UsageError,
    WaitTimeout,
)
from feliss_nb.faults import Fault, FaultPlan
from feliss_nb.runtime import linking, wire
from feliss_nb.runtime.anatomy import Anatomy, anatomy_of
from feliss_nb.runtime.cluster import Engines, search_path
from feliss_nb.runtime.deadlocks import explain
from feliss_nb.runtime.driver import Driver
from feliss_nb.runtime.events import EventLog
from feliss_nb.runtime.failure import name_of
from feliss_nb.runtime.injecting import Injection
from feliss_nb.runtime.job import Job
from feliss_nb.runtime.keeping import Keeper, MasterRecord
from feliss_nb.runtime.observe import job_status, status_of
from feliss_nb.runtime.owner import start_time
from feliss_nb.runtime.pacing import Every, check_every
from feliss_nb.runtime.packing import Start, pack_starts
from feliss_nb.runtime.poisoned import SetAside
from feliss_nb.runtime.record import Found, Record
from feliss_nb.runtime.restoring import Origin, explain_loss, stand_up
from feliss_nb.runtime.settings import Settings
from feliss_nb.runtime.status import Checkpoint, JobStatus, Status
from feliss_nb.runtime.trace import Recorder
from feliss_nb.runtime.variable import Variable, give, give_result
from feliss_nb.runtime.waiting import check_seconds, display, wait_for
from feliss_nb.runtime.watching import Look, Watch
from feliss_nb.state.captures import method
from feliss_nb.state.snapshot import from_frames, restore
from feliss_nb.store import Store

_S = TypeVar("_S", bound="BaseSession")
MEET = 10.0  # seconds that a new master waits for engines to find it

_live: list[weakref.ref[BaseSession]] = []
_numbers = itertools.count(1)
_variables = itertools.count(1)  # of all sessions: so that a foreign handle is told from one's own


def live_sessions() -> list[BaseSession]:
    """Return the sessions that are up, in the order of their start."""
    found = [reference() for reference in _live]
    return [session for session in found if session is not None and session.state != "stopped"]


class BaseSession:
    """Ranks on engines, without the programming models.

    Parameters
    ----------
    cluster : Engines
        Where the engines come from.
    settings : Settings
        Checked.
    store : Store, optional
        Where checkpoints are kept besides memory: claimed, and this session's from now on.
    origin : Origin, optional
        The checkpoint to stand up from, on that store; it decides how many ranks there are.
    record : Record, optional
        Of a session that outlives this process: claimed, and this session's from now on.
    found : Found, optional
        What that record has of a session that outlived another process.

    Attributes
    ----------
    unnamed : list of Variable
        Behind `feliss_nb.resume`: the variables without a name that the process before held, in the
        order in which they were made. Who needs none of them clears the list.
    """

    def __init__(
        self,
        cluster: Engines,
        settings: Settings,
        store: Store | None = None,
        origin: Origin | None = None,
        record: Record | None = None,
        found: Found | None = None,
    ) -> None:
        self.name = settings.name or f"session-{next(_numbers)}"
        self.size = settings.workers if origin is None else origin.size
        self.seed = settings.seed if origin is None else origin.record.seed
        if found is not None:
            self.size, self.seed = found.seat.master.size, found.notes["about"]["seed"]
        self.copies = settings.copies
        self._capture = settings.capture
        self.events = EventLog()
        if found is not None and record is not None:
            self.events.go_on(record.directory, time.time() - found.notes["about"]["since"])
        self._cluster = cluster
        self._process = os.getpid()
        self._stopped = False
        self._ended = False
        self._stop_lock = threading.Lock()
        self._watches: list[Watch] = []
        self._mine: set[int] = set()  # every variable of this session
        self._handles: weakref.WeakValueDictionary[int, Variable] = weakref.WeakValueDictionary()
        self._names: dict[str, Variable] = {}
        self._jobs: weakref.WeakValueDictionary[int, Job] = weakref.WeakValueDictionary()
        self.unnamed: list[Variable] = []
        master = Master(settings.copies, settings.replace and cluster.own, settings.losses)
        master.capture = settings.capture
        seat = Seat(master) if found is None else found.seat
        try:
            keeper = None if store is None else Keeper(store, settings.keep, self.name, self.seed)
            self._driver = Driver(cluster, seat, self.events, self._install_code, record)
        except BaseException:  # Ctrl-C
            cluster.stop() if found is None else cluster.leave()
            raise
        self._driver.timeout = settings.continuation_timeout
        if keeper is not None:
            self._driver.keeper = keeper
            keeper.serve(self._driver)
        self._driver.on_print = self._print
        self._driver.on_trouble = self._trouble
        self._driver.explain_deadlock = self.explain_deadlock
        try:
            if found is None:
                self._start(settings.workers, settings.spares, settings.timeout, origin)
                if record is not None:
                    self._write_down(settings)
                self.checkpoint_every(settings.checkpoint_every, settings.mtbf)
            else:
                self._take_over(found, settings.timeout)
        except BaseException:
            self.stop() if found is None else self._leave()
            raise
        _live.append(weakref.ref(self, _live.remove))

    # ------------------------------------------------------------ start and stop

    @staticmethod
    def explain_deadlock(waits: Mapping[int, Sequence[Any]]) -> str:
        """Say which ranks of a gang wait for each other, by what each said that it waits for."""
        return explain(waits)

    def _install_code(self, engine: str) -> str:
        me = os.getpid()
        options = {
            "engine": engine,
            "directory": str(self._cluster.directory),
            "owner": me,
            "owner_started": start_time(me),
            "size": self.size,
            "seed": self.seed,
            "paths": search_path(),
            "folder": os.getcwd() if self._cluster.own else None,
            "own": self._cluster.own,
        }
        module = "__import__('feliss_nb.runtime.engine', fromlist=['install'])"
        return f"{module}.install(**{options!r})"

    def _start(self, workers: int, spares: int, timeout: float, origin: Origin | None) -> None:
        waiting_for = ["engines"]
        progress = display(self._job_statuses, lambda: waiting_for[0])
        deadline = time.monotonic() + timeout
        try:

            def on_wait(what: str) -> None:
                waiting_for[0] = what
                if progress is not None:
                    progress.tick()

            engines = self._cluster.start(workers + spares, timeout, on_wait)
            hellos = {engine: self._driver.expect(engine) for engine in engines}
            for engine, hello in hellos.items():
                self._driver.await_hello(engine, hello, deadline, on_wait)
            started = tuple(str(engine) for engine in engines)
            token: Future[Any] = Future()
            if origin is None:
                self._driver.post(m.Start(started, self.size))
            else:
                origin = stand_up(self, origin, started, workers)
            self._driver.post(m.WaitProtected(token))
            try:
                self._result(token, "the ranks")
            except LossError as error:
                raise error if origin is None else explain_loss(self, origin, error) from None
            # A loss while MPI makes a communicator would cost the session its use of MPI.
            self._driver.linking.settled.wait(timeout)
        finally:
            if progress is not None:
                progress.close()

    def _write_down(self, settings: Settings) -> None:
        """Let the session outlive this process from now on."""
        driver = self._driver
        about = {
            "seed": self.seed,
            "engines": settings.workers + settings.spares,
            "workers": settings.workers,
            "spares": settings.spares,
            "keep": settings.keep,
            "continuation_timeout": settings.continuation_timeout,
            "store": None if driver.keeper is None else driver.keeper.at.data,
            "directories": self._cluster.directories(),
            "since": driver.since,
        }
        done: Future[None] = Future()
        driver.run_soon(lambda: driver.note("about", about))
        for name, (number, records) in self._bound().items():
            key, value = ("name", name), (number, records)
            driver.run_soon(partial(driver.note, key, value))
        driver.run_soon(lambda: driver.write_down(done))
        self._result(done, "the session's record")
        self._keep_events()

    def _keep_events(self) -> None:
        record = self._driver.record
        assert record is not None
        self.events.keep(record.directory, record.term)

    def _bound(self) -> dict[str, tuple[int, bool]]:
        return {name: (found.variable, found.records) for name, found in self._names.items()}

    def _take_over(self, found: Found, timeout: float) -> None:
        """Go on with a session that outlived another process."""
        driver, master = self._driver, found.seat.master
        variables, about = master.ledger.variables, found.notes["about"]
        driver.since = about["since"]
        names = {
            key[1]: value
            for key, value in found.notes.items()
            if key[0] == "name" and value[0] in variables.held
        }
        if driver.keeper is not None:
            driver.keeper.names.update(names)
        self._keep_events()
        unnamed = {
            key[1]: records
            for key, records in found.notes.items()
            if key[0] == "unnamed" and key[1] in variables.held
        }
        self._adopt(variables, master.jobs, names, unnamed)
        held = frozenset([*unnamed, *(number for number, _ in names.values())])
        met: Future[None] = Future()
        ordered = about["engines"] - len(master.engines) - master.to_replace
        missing = ordered if master.replace else 0
        driver.run_soon(lambda: driver.take_over(found, held, missing, met))
        every, mtbf = found.notes.get("pace", (None, None))
        driver.run_soon(lambda: driver.pace.set(every, mtbf))
        # Who is stopped does not answer, and is fenced by and by; the others need not wait for it.
        with contextlib.suppress(WaitTimeout):
            self._result(met, "the engines", min(timeout, MEET))

    def stop(self) -> None:
        """End the session: its jobs, its engines, its files. Calling it again does nothing.

        Ctrl-C ends the waiting; the end itself goes on, and calling it again waits for it.
        """
        if self._ended or self._is_forked():
            return
        self._stopped = True
        done: Future[None] = Future()

        def end() -> None:
            try:
                self._end()
                done.set_result(None)
            except BaseException as error:  # noqa: BLE001 - whoever stops it hears of it
                done.set_exception(error)

        threading.Thread(target=end, name="feliss-stop").start()
        done.result()

    def _is_forked(self) -> bool:
        """Whether this process is a fork of the notebook's, whose session it is."""
        return os.getpid() != self._process

    def _end(self) -> None:
        self._stopped = True
        with self._stop_lock:
            if not (self._ended or self._is_forked()):
                record = self._driver.record
                if record is not None and self._is_taken():
                    self._let_go()
                    return
                self._driver.stop()
                self._cluster.stop()
                if self._driver.keeper is not None:
                    self._driver.keeper.join()
                self.events.close()
                if record is not None:
                    record.remove()
                self._names.clear()
                self._ended = True
                for watch in self._watches:
                    watch.end()

    def _leave(self) -> None:
        """Let the session go on without this process; one without a name ends with it."""
        if self._driver.record is None or not self._driver.record.is_open:
            self._end()
            return
        self._stopped = True
        with self._stop_lock:
            if not (self._ended or self._is_forked()):
                self._let_go()

    def _let_go(self) -> None:
        self._driver.leave()
        self.events.close()
        self._cluster.leave()
        if self._driver.keeper is not None:
            self._driver.keeper.end()
            self._driver.keeper.join(tidy=False)
        self._names.clear()
        self._ended = True
        for watch in self._watches:
            watch.end()

    def _is_taken(self) -> bool:
        """Whether another process goes on with the session."""
        try:
            self._check_taken()
        except SessionTaken:
            return True
        return False

    def _check_taken(self) -> None:
        if self._driver.is_taken:
            raise self._driver.master.error or AssertionError
        if self._driver.record is not None:
            self._driver.record.check()

    def __enter__(self: _S) -> _S:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def state(self) -> str:
        """What the master does: running, cutting, recording, recovering, failed or stopped."""
        return "stopped" if self._stopped else self._driver.master.state

    @property
    def epoch(self) -> int:
        """The incarnation of the ranks: one more after every completed recovery."""
        return self._driver.master.epoch

    @property
    def client(self) -> Any:
        """An ipyparallel client of the engines; ``%px`` works with it while jobs run."""
        self._check_open()
        return self._cluster.client()

    @property
    def over(self) -> bool:
        """Whether it was stopped, or lost so much that it cannot go on."""
        return self._stopped or self._driver.master.error is not None

    def _check_open(self) -> None:
        if self._stopped:
            raise SessionClosed(
                f"session {self.name!r} was stopped; start another with feliss_nb.start()"
            )
        self._check_taken()
        if self._driver.master.error is not None:
            raise self._driver.master.error

    # ------------------------------------------------------------ submitting

    def declare(self, records: bool = False, name: str | None = None) -> Variable:
        """Return a new variable without partitions: a job's continuations fill it.

        Parameters
        ----------
        records : bool
            Whether its partitions hold records (lists), else one value each.
        name : str, optional
            A name keeps it until the name is bound anew. It is bound when a job is submitted
            that fills the variable.
        """
        self._check_open()
        if name is not None and (not isinstance(name, str) or not name):
            raise UsageError(f"a variable's name is a text, not {name!r}")
        return self._bind(next(_variables), records, name)

    def _bind(self, number: int, records: bool, name: str | None = None) -> Variable:
        variable = Variable(self, number, records, name)
        self._mine.add(number)
        self._handles[number] = variable
        return variable

    def adopt(self, record: MasterRecord) -> None:
        """Hold what a checkpoint of another session has: its jobs, and its variables by name."""
        self._adopt(record.image.variables, record.image.jobs, record.names, {})

    def _adopt(
        self,
        known: Variables,
        jobs: Mapping[int, CoreJob],
        names: Mapping[str, tuple[int, bool]],
        unnamed: Mapping[int, bool],
    ) -> None:
        global _variables
        filling = {number for state in jobs.values() for number in state.outputs}
        numbers = {*known.held, *known.escaped, *known.dropped, *known.freed, *filling}
        self._mine |= numbers
        _variables = itertools.count(max([next(_variables), *(n + 1 for n in numbers)]))
        filled: dict[int, Job] = {}
        for state in jobs.values():
            job = Job(self, state.label, state.internal)
            job.id = state.id
            job.follow(state)
            self._jobs[job.id] = self._driver.jobs[job.id] = job
            filled |= dict.fromkeys(state.outputs, job)
        for name, (number, records) in names.items():
            variable = self._names[name] = self._bind(number, records, name)
            variable.job = filled.get(number)
        for number, records in unnamed.items():
            variable = self._bind(number, records)
            variable.job = filled.get(number)
            self.unnamed.append(variable)
        self._driver.tell_names({number: name for name, (number, _) in names.items()})

    def _arrived(self, number: int, records: bool) -> Variable:
        """Return the handle of a variable that came with a result."""
        known = self._handles.get(number)
        if known is not None:
            return known
        self._driver.post(m.Hold(number))
        return self._bind(number, records)

    def released(self, variable: int) -> None:
        """Note that the notebook has dropped a variable's handle. Any thread may call it."""
        if not self._stopped:
            self._driver.run_soon(lambda: self._driver.release(variable))

    def submit(
        self,
        starts: Sequence[Start],
        outputs: Sequence[Variable] = (),
        label: str = "job",
        internal: bool = False,
        gang: bool = False,
        timeout: float | None = None,
        quiet: bool = False,
    ) -> Job:
        """Submit a job: continuations for ranks, taken together or not at all.

        Parameters
        ----------
        starts : sequence of (int, callable, tuple)
            The rank, the function and its arguments, packed at once: what the caller changes later
            does not matter.
        outputs : sequence of Variable
            The variables that the job fills.
        label : str
            What to call it.
        gang : bool
            Whether the starts, one for each rank, may wait for each other: see `Here.gang`.
        timeout : float, optional
            Seconds that each of its continuations may run: see `put`.
        quiet : bool
            Keep what it prints, and do not print it here: see `run`.

        Returns
        -------
        Job
            At once.
        """
        self._check_open()
        check_seconds("timeout=", timeout, above=True)
        for rank, _, _ in starts:
            self.check_rank(rank)
        packed = pack_starts(starts, self._driver.blobs)
        if not packed.handles <= self._mine:
            raise UsageError(
                f"{label} carries a variable of another session: collect it there and scatter it "
                "here, or run both in one session"
            )
        job = Job(self, label, internal)
        if quiet:
            job.lines = []
        numbers = tuple(output.variable for output in outputs)
        token: Future[int] = Future()
        start = packed.starts
        event = m.Submit(token, label, start, numbers, packed.handles, internal, gang, timeout)

        named = {o.name: (o.variable, o.records) for o in outputs if o.name is not None}
        unnamed = {o.variable: o.records for o in outputs if o.name is None}

        def submit() -> None:
            self._driver.kept_bytes += packed.nbytes
            token.add_done_callback(self._register(job))
            self._driver.submit(event, packed.blobs, named, unnamed)

        for output in outputs:
            output.job = job
            if output.name is not None:
                self._driver.tell_names({output.variable: output.name})
        self._driver.run_soon(submit)
        # Behind it: what had the name before is released, and no checkpoint shall be without both.
        for output in outputs:
            if output.name is not None:
                self._names[output.name] = output
        job.id = self._result(token, f"the submission of {label}")
        self._jobs[job.id] = job
        return job

    def _register(self, job: Job) -> Callable[[Future[int]], None]:
        def register(token: Future[int]) -> None:
            if token.exception() is None:
                self._driver.jobs[token.result()] = job

        return register

    def put(
        self,
        function: Callable[..., Any],
        *args: Any,
        rank: int,
        timeout: float | None = None,
    ) -> Job:
        """Put a continuation into the pool of a rank.

        Parameters
        ----------
        function : callable
            What to run there; it can put more (see `here`).
        *args
            Its arguments, copied.
        rank : int
            Where.
        timeout : float, optional
            Seconds that the continuation, and each that it puts, may run. Past them its engine is
            killed and recovered like a lost one; that counts as a loss (see ``start(losses=)``).
            The time that a rank of `spmd` waits for messages does not count.

        Returns
        -------
        Job
            The continuation and all that it puts.
        """
        return self.submit([(rank, function, args)], label=name_of(function), timeout=timeout)

    def run(
        self, function: Callable[..., Any], *args: Any, rank: int = 0, quiet: bool = False
    ) -> Job:
        """Run a function once, on a rank; its job's ``result()`` is what it returned.

        Parameters
        ----------
        function : callable
            What to run there.
        *args
            Its arguments, copied.
        rank : int
            Where.
        quiet : bool
            Keep what it prints, as the job's ``lines``, and do not print it here.
        """
        label = name_of(function)
        return self.submit([(rank, give_result, (function, args))], label=label, quiet=quiet)

    def check_rank(self, rank: int) -> None:
        """Raise UsageError unless there is such a rank."""
        if isinstance(rank, bool) or not isinstance(rank, Integral) or not 0 <= rank < self.size:
            raise UsageError(f"there is no rank {rank!r}: ranks are 0 to {self.size - 1}")

    def cancel(self, job: Job) -> None:
        """Cancel a job."""
        self._check_open()
        self._driver.post(m.CancelJob(job.id))

    # ------------------------------------------------------------ waiting

    def wait(self, timeout: float | None = None) -> None:
        """Wait until no continuation is left anywhere.

        Raises
        ------
        FunctionError
            If a job failed and nobody was told yet.
        WaitTimeout
            When `timeout` seconds are over; the jobs go on.
        """
        jobs = list(self._jobs.values())
        self.wait_for_jobs(None, timeout, "all jobs")
        for job in jobs:
            # A fetch tells its own error, to who fetches.
            if job.state == "failed" and not job.reported and not job.internal:
                job.raise_error()

    def wait_for_jobs(self, jobs: tuple[int, ...] | None, timeout: float | None, what: str) -> None:
        """Wait until jobs have ended (None: all of them, down to the last continuation)."""
        self._check_open()
        check_seconds("timeout=", timeout)
        token = self._driver.ask(lambda token: m.Wait(token, jobs))
        self._result(token, what, timeout)

    def _result(self, token: Future[Any], what: str, timeout: float | None = None) -> Any:
        return wait_for(token, self._driver, what, self._job_statuses, timeout)

    def _job_statuses(self) -> list[JobStatus]:
        return [job_status(job) for job in self.jobs if job.state in ("held", "running")]

    # ------------------------------------------------------------ content of variables

    def fetch(self, variable: Variable, function: Callable[[Any], Any] | None) -> list[Any]:
        """Return each rank's partition of a variable, or what `function` makes of it there."""
        label = f"variable {variable.name or variable.variable!r}"
        args = (variable, function, label)
        starts: list[Start] = [(rank, give, args) for rank in range(self.size)]
        job = self.submit(starts, label=f"fetch of {label}", internal=True)
        self.wait_for_jobs((job.id,), None, label)
        error = job.error
        if isinstance(error, DependencyError) and variable.job is not None:
            variable.job.raise_error()
        if error is not None:
            raise error
        return [self._open(job.results[rank].body) for rank in range(self.size)]

    def _open(self, body: wire.Body) -> Any:
        return restore(from_frames(body.frames), self._arrived, renew_classes=False)

    def __getitem__(self, name: str) -> Variable:
        """Return the variable of a name."""
        try:
            return self._names[name]
        except (KeyError, TypeError):  # a list, say
            known = ", ".join(sorted(self._names)) or "there are none"
            raise UsageError(f"no variable has the name {name!r} (names: {known})") from None

    def __delitem__(self, name: str) -> None:
        """Drop a name; the variable goes when no handle is left."""
        found = self[name].name or name
        self._driver.run_soon(lambda: self._driver.forget_name(found))
        del self._names[found]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    @property
    def variables(self) -> dict[str, Variable]:
        """The named variables."""
        return dict(self._names)

    @property
    def jobs(self) -> list[Job]:
        """The jobs that the notebook holds or that run, in order."""
        known = {job.id: job for job in [*self._jobs.values(), *list(self._driver.jobs.values())]}
        return [known[number] for number in sorted(known) if not known[number].internal]

    # ------------------------------------------------------------ checkpoints and losses

    def checkpoint(self, timeout: float | None = None, durable: bool = False) -> Checkpoint:
        """Take a checkpoint now and wait until it is committed.

        Parameters
        ----------
        timeout : float, optional
            Seconds; the checkpoint goes on when they are over.
        durable : bool
            Wait until the session's store has it too, or a newer one.

        Raises
        ------
        UnpicklableError
            If something cannot be saved; the last checkpoint stays, the jobs go on.
        StoreError
            If the store failed; what it had before stays.
        WaitTimeout
            When `timeout` seconds are over.
        """
        self._check_open()
        check_seconds("timeout=", timeout)
        if not isinstance(durable, bool):
            raise UsageError(f"durable= takes True or False, not {durable!r}")
        keeper = self._driver.keeper
        if durable and keeper is None:
            raise UsageError("this session has no store: start one with start(store=DIRECTORY)")
        begun = time.perf_counter()
        token = self._driver.ask(m.TakeCheckpoint)
        data = self._result(token, "the checkpoint", timeout)
        number = data["checkpoint"]
        if durable and keeper is not None:
            there: Future[int] = Future()
            self._driver.run_soon(lambda: keeper.wait(number, there))
            left = None if timeout is None else max(timeout - (time.perf_counter() - begun), 0.0)
            self._result(there, f"the copy of checkpoint {number} to the store", left)
        seconds = time.perf_counter() - begun
        figures = data["bytes"], seconds, data["pause"], time.time(), data["written"], durable
        return Checkpoint(number, self.epoch, *figures, self.anatomy)

    def anatomy(self, checkpoint: int | None = None) -> Anatomy:
        """Return what a checkpoint is made of, and why each part of it is there.

        Each rank looks at its snapshot between two continuations, and needs memory for it once more
        meanwhile.

        Parameters
        ----------
        checkpoint : int, optional
            The last one, which alone is in memory. None: whichever is the last; one is taken where
            there is none.

        Raises
        ------
        UsageError
            If a later checkpoint has been committed.
        """
        self._check_open()
        return anatomy_of(self, checkpoint)

    def checkpoint_every(self, seconds: Every, mtbf: float | None = None) -> None:
        """Take a checkpoint after every `seconds` of running work.

        Parameters
        ----------
        seconds : float, "auto" or None
            None: only on request. "auto": by what a checkpoint costs and how often ranks are lost,
            as it is measured while the work runs; `status` shows what was chosen.
        mtbf : float, optional
            For "auto": the mean time between losses, in seconds. Default: what was seen so far.
        """
        check_every(seconds, mtbf)
        self._check_open()

        def change() -> None:
            self._driver.note("pace", (seconds, mtbf))
            self._driver.pace.set(seconds, mtbf)

        self._driver.run_soon(change)

    @property
    def capture(self) -> str:
        """How a rank becomes a snapshot; set it to another from the next checkpoint on.

        "full" copies everything while the rank waits. "forked" lets a child process write, and the
        rank goes on at once. "incremental" writes what has changed since the last committed
        checkpoint, and "incremental+forked" lets a child do so. With "+zstd" behind one of them
        what is written is compressed, with "+xor" as the difference from what was there before.
        """
        return self._capture

    @capture.setter
    def capture(self, name: str) -> None:
        self._check_open()
        self._capture = chosen = method(name).name
        self._driver.post(m.UseCapture(chosen))

    def kill(self, rank: int | None = None, wait: bool = False, engine: int | None = None) -> None:
        """Kill the engine that hosts a rank: a real SIGKILL.

        Parameters
        ----------
        rank : int
            The rank whose engine dies, with all ranks on it.
        wait : bool
            Return when every rank runs again and every snapshot has its copies again, as many
            as there are engines for.
        engine : int, optional
            Instead of a rank: an engine by its id, a spare for example.
        """
        self._check_open()
        if (rank is None) == (engine is None):
            raise UsageError("kill() takes a rank, or engine= and the id of an engine")
        if rank is not None:
            self.check_rank(rank)
        done: Future[None] = Future()
        self._driver.run_soon(lambda: self._driver.kill(rank, engine, done))
        self._result(done, "the kill")
        if wait:
            token = self._driver.ask(m.WaitProtected)
            self._result(token, "the recovery")
            self._driver.linking.settled.wait(linking.PATIENCE)

    def inject(self, plan: FaultPlan | Fault | None) -> Injection | None:
        """Let things go wrong: carry out a fault plan while the work goes on.

        Parameters
        ----------
        plan : FaultPlan or Fault or None
            None calls off what has not happened yet.

        Returns
        -------
        Injection or None
            At once. Each fault that happens is an event ``fault`` of the log.

        Raises
        ------
        UsageError
            If another plan is being carried out, or this one names a rank that there is not.
        """
        self._check_open()
        if isinstance(plan, Fault):
            plan = FaultPlan([plan])
        if plan is not None and not isinstance(plan, FaultPlan):
            raise UsageError(f"inject() takes a feliss_nb.FaultPlan, a Fault or None, not {plan!r}")
        done: Future[Injection | None] = Future()
        drawn = None if plan is None else plan.drawn(self.size)

        def begin() -> None:
            injector = self._driver.injector
            try:
                if drawn is None:
                    injector.end()
                    done.set_result(None)
                else:
                    done.set_result(injector.begin(drawn))
            except UsageError as error:
                done.set_exception(error)

        self._driver.run_soon(begin)
        found: Injection | None = self._result(done, "the fault plan")
        return found

    @property
    def set_aside(self) -> list[SetAside]:
        """What is not run any more, since several engines were lost while it ran."""
        found = self._driver.master.poison.set_aside
        return [self._open_aside(told) for told in list(found.values())]

    def _open_aside(self, told: m.SetAside) -> SetAside:
        function, args, why = None, (), ""
        if isinstance(told.call, str):
            why = told.call
        else:
            try:
                function, args = self._open(told.call)
            except Exception as error:  # noqa: BLE001 - the user's classes
                why = f"{type(error).__name__}: {error}"
        about = told.function, told.rank, told.job, told.losses, told.record
        return SetAside(*about, function, args, why)

    def watch(self, look: Look) -> Watch:
        """Call a function up to four times a second, on a thread of its own.

        Parameters
        ----------
        look : callable
            Gets the events since its last call (first: all) and the status; at the session's end
            None for it, and is not called again. It must not wait for the session.

        Returns
        -------
        Watch
            Its ``close()`` ends it; so does the end of the session.
        """
        self._check_open()
        watch = Watch(self.events, lambda: status_of(self, self._driver), look)
        self._watches = [each for each in self._watches if not each.is_over] + [watch]
        return watch

    def record_trace(self, path: str | os.PathLike[str]) -> Recorder:
        """Write what happens from the beginning on into a file, for the dashboard to show again.

        Parameters
        ----------
        path : path
            Lines of JSON; what was there before is gone.

        Returns
        -------
        Recorder
            Its ``close()`` ends the trace; so does the end of the session.
        """
        self._check_open()
        recorder = Recorder(path)
        recorder.follow(self.watch(recorder.look))
        return recorder

    def status(self) -> Status:
        """Return the state of engines, ranks, jobs and checkpoints."""
        if self._stopped or self._is_taken():
            self._check_open()
        return status_of(self, self._driver)

    # ------------------------------------------------------------ what ranks print

    def _print(self, printed: wire.Printed) -> None:
        for rank, number, stream, line in printed.lines:
            job = self._driver.jobs.get(number)
            if job is not None and job.lines is not None:
                job.lines.append((stream, line))
                continue
            out = sys.stderr if stream == "stderr" else sys.stdout
            _say(f"[rank {rank}] {line}", out)

    def _trouble(self, text: str) -> None:
        _say(f"feliss_nb: {text}", sys.stderr)

    def __repr__(self) -> str:
        return f"<session {self.name!r}: {self.size} ranks, {self.state}, epoch {self.epoch}>"

    def _repr_html_(self) -> str:
        return self.status()._repr_html_() if not self._stopped else repr(self)


def _say(text: str, out: TextIO | None) -> None:
    """Print on the master's thread, which must outlive a stream that fails.

    It may be closed, have no reader, or be an object of the user's that does as it likes.
    """
    with contextlib.suppress(Exception):
        print(text, file=out, flush=True)


@atexit.register
def _stop_all() -> None:
    for session in [reference() for reference in _live]:
        if session is not None:
            session._leave()  # here: no thread starts at the end of the interpreter


__all__ = ["BaseSession", "live_sessions"]
