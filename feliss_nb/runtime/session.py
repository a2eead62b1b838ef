"""A session: the engines, the ranks on them, and what the notebook submits."""

from __future__ import annotations

import atexit
import itertools
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from numbers import Integral
from typing import Any, TypeVar

from feliss_nb.core import events as ev
from feliss_nb.core.jobs import Job as CoreJob
from feliss_nb.core.master import Master
from feliss_nb.core.seat import Seat
from feliss_nb.core.variables import Variables
from feliss_nb.errors import DependencyError, SessionClosed, UsageError
from feliss_nb.faults import Fault, FaultPlan
from feliss_nb.runtime import linking, printing, starting, wire
from feliss_nb.runtime.anatomy import Anatomy, anatomy_of
from feliss_nb.runtime.cluster import Engines
from feliss_nb.runtime.deadlocks import explain
from feliss_nb.runtime.driver import Driver
from feliss_nb.runtime.ending import Ending
from feliss_nb.runtime.events import EventLog
from feliss_nb.runtime.failure import name_of
from feliss_nb.runtime.holding import Holding
from feliss_nb.runtime.injecting import Injection
from feliss_nb.runtime.job import Job
from feliss_nb.runtime.keeping import Keeper, MasterRecord
from feliss_nb.runtime.observe import job_status, status_of
from feliss_nb.runtime.pacing import Every, check_every
from feliss_nb.runtime.packing import Start, pack_starts
from feliss_nb.runtime.poisoned import SetAside, opened
from feliss_nb.runtime.record import Record
from feliss_nb.runtime.replaying import Found
from feliss_nb.runtime.restoring import Origin
from feliss_nb.runtime.settings import Settings
from feliss_nb.runtime.status import Checkpoint, JobStatus, Status
from feliss_nb.runtime.trace import Recorder
from feliss_nb.runtime.variable import Variable, give, give_result
from feliss_nb.runtime.waiting import check_seconds, wait_for
from feliss_nb.runtime.watching import Look, Watch
from feliss_nb.state.captures import method
from feliss_nb.state.snapshot import from_frames, restore
from feliss_nb.store import Store

_S = TypeVar("_S", bound="BaseSession")

_live: list[weakref.ref[BaseSession]] = []
_numbers = itertools.count(1)


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
        self._watches: list[Watch] = []
        self._jobs: weakref.WeakValueDictionary[int, Job] = weakref.WeakValueDictionary()
        self.unnamed: list[Variable] = []
        master = Master(settings.copies, settings.replace and cluster.own, settings.losses)
        master.capture = settings.capture
        seat = Seat(master) if found is None else found.seat
        try:
            keeper = None if store is None else Keeper(store, settings.keep, self.name, self.seed)
            code = partial(starting.install_code, cluster, self.size, self.seed)
            self._driver = Driver(cluster, seat, self.events, code, record)
        except BaseException:  # Ctrl-C
            cluster.stop() if found is None else cluster.leave()
            raise
        self._ending = Ending(self._driver, cluster, self.events, self._ended)
        self._holding = Holding(self, self._driver)
        self._driver.blame.timeout = settings.continuation_timeout
        if keeper is not None:
            self._driver.keeper = keeper
            keeper.serve(self._driver)
        # (It holds the session, which so lives as long as its master's thread.)
        self._driver.on_print = lambda printed: printing.show_lines(printed, self._driver.jobs)
        self._driver.on_trouble = printing.show_trouble
        self._driver.explain_deadlock = self.explain_deadlock
        try:
            if found is not None and record is not None:
                starting.go_on(self, settings, record, found)
            else:
                starting.start(self, settings, origin)
                if record is not None:
                    starting.write_down(self, settings, record)
                self.checkpoint_every(settings.checkpoint_every, settings.mtbf)
        except BaseException:
            self.stop() if found is None else self._leave()
            raise
        _live.append(weakref.ref(self, _live.remove))

    # ------------------------------------------------------------ start and stop

    @staticmethod
    def explain_deadlock(waits: Mapping[int, Sequence[Any]]) -> str:
        """Say which ranks of a gang wait for each other, by what each said that it waits for."""
        return explain(waits)

    def stop(self) -> None:
        """End the session: its jobs, its engines, its files. Calling it again does nothing.

        Ctrl-C ends the waiting; the end itself goes on, and calling it again waits for it. Where
        another process has taken the session over, it goes on there, and a warning says so.
        """
        self._ending.stop()

    def _leave(self) -> None:
        """Let the session go on without this process; one without a name ends with it."""
        self._ending.leave()

    def _ended(self) -> None:
        self._holding.names.clear()
        for watch in self._watches:
            watch.end()

    def __enter__(self: _S) -> _S:
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.stop()

    @property
    def state(self) -> str:
        """What the master does: running, cutting, recording, recovering, failed or stopped."""
        return "stopped" if self._ending.has_begun else self._driver.master.state

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
        return self._ending.has_begun or self._driver.master.error is not None

    def _check_open(self) -> None:
        if self._ending.has_begun:
            raise SessionClosed(
                f"session {self.name!r} was stopped; start another with feliss_nb.start()"
            )
        self._ending.check_taken()
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
        return self._holding.new(records, name)

    def adopt(self, record: MasterRecord) -> None:
        """Hold what a checkpoint of another session has: its jobs, and its variables by name."""
        self._adopt(record.image.variables, record.image.jobs, record.names, {})

    def _adopt(
        self,
        known: Variables,
        jobs: Mapping[int, CoreJob],
        names: Mapping[str, tuple[int, bool]],
        unnamed: Mapping[int, bool],
    ) -> list[Variable]:
        filled: dict[int, Job] = {}
        for state in jobs.values():
            job = Job(self, state.label, state.internal)
            job.id = state.id
            job.follow(state)
            self._jobs[job.id] = self._driver.jobs[job.id] = job
            filled |= dict.fromkeys(state.outputs, job)
        numbers = {*known.held, *known.escaped, *known.dropped, *known.freed, *filled}
        return self._holding.adopt(numbers, filled, names, unnamed)

    def released(self, variable: int) -> None:
        """Note that the notebook has dropped a variable's handle. Any thread may call it."""
        if not self._ending.has_begun:
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
        packed = pack_starts(starts, self._driver.telling.blobs)
        if not self._holding.has(packed.handles):
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
        event = ev.Submit(token, label, start, numbers, packed.handles, internal, gang, timeout)

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
        self._holding.bind(outputs)
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
        self._driver.post(ev.CancelJob(job.id))

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
        token = self._driver.ask(lambda token: ev.Wait(token, jobs))
        self._result(token, what, timeout)

    def _result(self, token: Future[Any], what: str, timeout: float | None = None) -> Any:
        return wait_for(token, self._driver, what, self._job_statuses, timeout)

    def _job_statuses(self) -> list[JobStatus]:
        return [job_status(job) for job in self.jobs if job.state in ("held", "running")]

    # ------------------------------------------------------------ content of variables

    def fetch(self, variable: Variable, function: Callable[[Any], Any] | None) -> list[Any]:
        """Return each rank's partition of a variable, or what `function` makes of it there."""
        label = f"variable {variable.name or variable.variable!r}"
        if variable.name is None and variable.job is not None:
            label += f" ({variable.job.label})"
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
        return restore(from_frames(body.frames), self._holding.arrived, renew_classes=False)

    def __getitem__(self, name: str) -> Variable:
        """Return the variable of a name."""
        return self._holding.find(name)

    def __delitem__(self, name: str) -> None:
        """Drop a name; the variable goes when no handle is left."""
        self._holding.drop(name)

    def __contains__(self, name: object) -> bool:
        return name in self._holding.names

    @property
    def variables(self) -> dict[str, Variable]:
        """The named variables."""
        return dict(self._holding.names)

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
        token = self._driver.ask(ev.TakeCheckpoint)
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

        done: Future[None] = Future()

        def change() -> None:
            self._driver.note("pace", (seconds, mtbf))
            self._driver.pace.set(seconds, mtbf)
            done.set_result(None)

        self._driver.run_soon(change)
        self._result(done, "the interval")

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
        self._driver.post(ev.UseCapture(chosen))

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
            token = self._driver.ask(ev.WaitProtected)
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

        self._driver.run_soon(lambda: self._driver.injector.order(drawn, done))
        found: Injection | None = self._result(done, "the fault plan")
        return found

    @property
    def set_aside(self) -> list[SetAside]:
        """What is not run any more, since several engines were lost while it ran."""
        found = self._driver.master.poison.set_aside
        return [opened(told, self._open) for told in list(found.values())]

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
        if self._ending.has_begun or self._ending.is_taken:
            self._check_open()
        return status_of(self, self._driver)

    def __repr__(self) -> str:
        return f"<session {self.name!r}: {self.size} ranks, {self.state}, epoch {self.epoch}>"

    def _repr_html_(self) -> str:
        return self.status()._repr_html_() if not self._ending.has_begun else repr(self)


@atexit.register
def _stop_all() -> None:
    for session in [reference() for reference in _live]:
        if session is not None:
            session._leave()  # here: no thread starts at the end of the interpreter


__all__ = ["BaseSession", "live_sessions"]
