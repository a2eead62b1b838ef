"""The notebook's ledger: what it submitted, what came of it, and how far it has been told.

Rules
-----
* The notebook is outside the cut. What it did since the committed cut is a log, replayed in order
  after a rollback; a line is held until the waits before it are satisfied again.
* A wait is answered when no line of the log is held; it becomes a line itself.
* What was delivered is not delivered again; the replay must come to the same.
* A job leaves the ledger when a cut behind its end is committed and the notebook has its outcome.
"""

from __future__ import annotations

from typing import Any

from feliss_nb.core import commands as cmd
from feliss_nb.core import events as ev
from feliss_nb.core import messages as m
from feliss_nb.core.checkpoints import Committed, Pending
from feliss_nb.core.fleet import Fleet
from feliss_nb.core.ids import submission_id
from feliss_nb.core.jobs import Entry, Job, Result, SubmissionLog
from feliss_nb.core.variables import Variables
from feliss_nb.errors import InternalError, ReplayDiverged

Commands = list[Any]

# Told of a fetch whose notebook has gone: nobody compares what a replay gives.
_CALLED_OFF = "cancelled"


class Ledger:
    """Jobs, log, waits and variables, as the master keeps them.

    Parameters
    ----------
    fleet : Fleet
        To whom commands go.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.log = SubmissionLog()
        self.jobs: dict[int, Job] = {}
        self.busy: dict[int, Job] = {}  # the jobs that are not quiet
        self.submitted = 0
        self.waits: list[ev.Wait] = []
        self.variables = Variables()
        self.ready: dict[tuple[int, int], set[int]] = {}  # step of a gang -> ranks with its needs
        self.cancelled = False  # a Cancel has gone out since the master looked
        self.comparing: set[tuple[int, int]] = set()  # jobs and ranks: values looked at now
        self.diverged: ReplayDiverged | None = None

    # ------------------------------------------------------------ the notebook

    def submit(self, event: ev.Submit) -> Commands:
        """Add a job to the log; it is injected when the log comes to it."""
        number = self.submitted
        self.submitted += 1
        gang = (number, 0) if event.gang else None
        starts = tuple(
            (rank, m.Continuation(submission_id(number, i), number, needs, work, gang))
            for i, (rank, work, needs) in enumerate(event.starts)
        )
        job = Job(
            number,
            self.log.end,
            event.label,
            starts,
            event.outputs,
            event.handles,
            event.internal,
            event.timeout,
        )
        self.jobs[number] = self.busy[number] = job
        self.variables.carry(job)
        self.log.append(Entry("submit", job=number))
        data = {"job": number, "label": event.label, "internal": event.internal}
        return [cmd.Log("job-submitted", data), cmd.Answer(event.token, number)]

    def cancel(self, number: int) -> None:
        """Note that the notebook cancels a job."""
        job = self.jobs.get(number)
        if job is None or job.ended or job.cancelled_at is not None:
            return
        job.cancelled_at = self.log.end
        self.log.append(Entry("cancel", job=number))

    def take_over(self, held: frozenset[int]) -> None:
        """Another notebook goes on, which holds these variables: fetches and waits are nobody's."""
        self.waits = []
        self.comparing.clear()  # for the one before, who may not say any more how it ended
        for variable in self.variables.held - held:
            self.variables.release(variable)
        for job in self.jobs.values():
            if job.internal and not job.delivered:
                job.delivered, job.expected = True, (_CALLED_OFF, {})
                self.cancel(job.id)  # where it runs

    # ------------------------------------------------------------ the log

    def advance(self, cut: int) -> Commands:
        """Let the lines of the log take effect, in order, as far as their waits allow."""
        commands: Commands = []
        while (entry := self.log.current()) is not None:
            if entry.kind == "submit":
                commands += self._inject(self.jobs[entry.job], cut)
            elif entry.kind == "await":
                if not self._is_over(entry):
                    break
            elif entry.kind == "cancel":
                commands += self._cancel(entry)
            self.log.cursor += 1
        if self.variables.dropped:
            free = self.variables.collect(self.busy.values())
            commands += self.fleet.to_all(m.Free(free)) if free else []
        return commands

    def _is_over(self, entry: Entry) -> bool:
        if entry.jobs is None:
            return all(number >= entry.submitted for number in self.busy)
        return all(self.jobs[j].ended for j in entry.jobs if j in self.jobs)

    def _inject(self, job: Job, cut: int) -> Commands:
        job.state = "running"
        job.count_starts()
        return [
            cmd.JobChanged(job.id),
            *(self.fleet.to_rank(rank, m.Inject(rank, cut, start)) for rank, start in job.starts),
        ]

    def _cancel(self, entry: Entry) -> Commands:
        job = self.jobs.get(entry.job)
        if job is None:
            return []
        told = job.expected is not None and job.expected[0] == "cancelled"
        if job.ended and not told:
            entry.kind, job.cancelled_at = "void", None
            return []
        job.state, job.cancelled_at = "cancelled", self.log.cursor
        return [
            cmd.Log("job-cancelled", {"job": job.id, "label": job.label}),
            cmd.JobChanged(job.id),
            *([] if job.quiet else self._call_off(job)),
        ]

    def _call_off(self, job: Job) -> Commands:
        self.cancelled = True
        return self.fleet.to_all(m.Cancel(job.id, job.outputs))

    # ------------------------------------------------------------ the ranks

    def report(self, message: m.Report) -> Commands:
        """Take a rank's counters of jobs that have nothing left there."""
        over = []
        for number, (sent, received) in message.jobs.items():
            job = self.busy.get(number)
            if job is not None and job.report(message.rank, sent, received):
                over.append(job)
        if not over:
            return []
        commands: Commands = []
        for job in over:
            del self.busy[job.id]
            self.ready = {step: ranks for step, ranks in self.ready.items() if step[0] != job.id}
            if job.state == "running":
                job.state = "done"
                commands.append(cmd.Log("job-done", {"job": job.id, "label": job.label}))
            commands += [cmd.JobChanged(job.id), *self._check_replay(job)]
        outputs = tuple(v for job in over for v in job.outputs)
        return commands + self.fleet.to_all(m.Forget(tuple(job.id for job in over), outputs))

    def step_ready(self, message: m.StepReady) -> Commands:
        """Take a rank's word that it has what a step of a gang needs."""
        step = message.gang, message.step
        if message.gang not in self.busy:
            return []
        ranks = self.ready.setdefault(step, set())
        ranks.add(message.rank)
        if len(ranks) < len(self.fleet.routes):
            return []
        del self.ready[step]
        return self.fleet.to_all(m.StartStep(*step))

    def output(self, message: m.Output) -> Commands:
        """Take a value for the notebook."""
        job = self.jobs.get(message.job)
        if job is not None:
            job.results[message.rank] = Result(
                message.cut, message.digest, message.body, message.handles
            )
        return []

    def failed(self, message: m.Failed) -> Commands:
        """Take the error of a continuation: it ends the job."""
        job = self.jobs.get(message.job)
        if job is None or job.state != "running":
            return []
        job.state, job.error = "failed", (message.cut, message.error)
        data = {"job": job.id, "label": job.label, "rank": message.rank}
        return [
            cmd.Log("job-failed", data),
            cmd.JobChanged(job.id),
            *self._call_off(job),
            *self._check_replay(job),
        ]

    # ------------------------------------------------------------ waits and replay

    def answer_waits(self) -> Commands:
        """Answer the waits that are satisfied; from then on they are lines of the log."""
        commands: Commands = []
        if not self.waits or self.log.current() is not None or self.comparing:
            return commands  # in a replay the notebook is further than the ranks
        for wait in list(self.waits):
            entry = Entry("await", jobs=wait.jobs, submitted=self.submitted)
            if not self._is_over(entry):
                continue
            self.waits.remove(wait)
            self.log.append(entry)
            self.log.cursor += 1
            told = self.jobs if wait.jobs is None else wait.jobs
            for number in told:
                if number in self.jobs:
                    self.jobs[number].delivered = True
            commands.append(cmd.Answer(wait.token))
        return commands

    def _check_replay(self, job: Job) -> Commands:
        """Compare an outcome that was delivered before a rollback with the new one."""
        if job.expected is None:
            return []
        state, results = job.expected
        if state == "cancelled":
            return []  # a cancel races with the job as it does without a fault
        if state != job.state:
            why = (
                "" if job.error is None else f" ({getattr(job.error[1], 'summary', job.error[1])})"
            )
            self._diverge(job, f"it was {state} before and is {job.state} now{why}")
            return []
        if state != "done":
            return []
        commands: Commands = []
        for rank, old in results.items():
            new = job.results.get(rank)
            if new is None:
                self._diverge(job, f"rank {rank} gave a value before and none now")
            elif new.digest != old.digest:
                self.comparing.add((job.id, rank))
                commands.append(cmd.Compare(job.id, rank, old.body, new.body))
        job.expected = None
        return commands

    def compared(self, event: ev.Compared) -> Commands:
        """Take the runtime's word on a value whose digest is another."""
        job = self.jobs.get(event.job)
        self.comparing.discard((event.job, event.rank))
        if job is not None and not event.same:
            self._diverge(job, f"the value of rank {event.rank} is another")
        return []

    def _diverge(self, job: Job, how: str) -> None:
        self.diverged = ReplayDiverged(
            f"replay diverged: the outcome of job {job.id} ({job.label}) was delivered, and "
            f"the replay after the loss gives another: {how}. The notebook has acted on a "
            "result that no longer holds; start a new session. Keep out of results what a "
            "continuation draws from clocks, unseeded random numbers or the outside, and what "
            "depends on which of two continuations without an order between them ran first; or "
            "take a checkpoint before you look at them"
        )

    # ------------------------------------------------------------ checkpoints

    def ended(self) -> frozenset[int]:
        """Return the jobs of which nothing is left."""
        return frozenset(self.jobs.keys() - self.busy.keys())

    def commit(self, pending: Pending) -> frozenset[int]:
        """Drop what the cut of `pending` holds; return the variables that nothing reaches."""
        garbage = self.variables.garbage(pending, self.jobs.values())
        self.variables.commit(pending, garbage)
        self.log.prune(pending.position)
        for number in pending.ended:
            job = self.jobs.get(number)
            if job is not None and job.delivered:
                del self.jobs[number]
            elif job is not None:
                job.starts = ()  # it will not be injected again
        return garbage

    def undo(self, committed: Committed) -> Commands:
        """Go back to the committed cut; the log since is replayed.

        A job called off before the cut is so in every snapshot: see the rule on checkpoints in
        `master`.
        """
        commands: Commands = []
        self.log.cursor = committed.position
        self.variables.undo()
        self.ready.clear()
        for job in self.jobs.values():
            if job.id in committed.ended:
                continue
            before = job.state
            job.undo(committed.id, committed.position)
            self.busy[job.id] = job
            if before != "held":
                commands.append(cmd.JobChanged(job.id))
        return commands

    def check_invariants(self) -> None:
        """Raise InternalError where jobs and log disagree."""
        busy = {number for number, job in self.jobs.items() if not job.quiet}
        if busy != self.busy.keys():
            raise InternalError(f"ledger: busy {set(self.busy)}, not quiet {busy}")
        if not self.log.first <= self.log.cursor <= self.log.end:
            raise InternalError("ledger: the cursor is outside the log")
        if self.variables.dropped & (self.variables.held | self.variables.escaped):
            raise InternalError("ledger: a dropped variable is held")
        for job in self.jobs.values():
            if job.quiet and job.balance:
                raise InternalError(f"ledger: job {job.id} is quiet with {job.balance}")
