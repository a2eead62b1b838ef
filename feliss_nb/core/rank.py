"""A rank: its pool, its counters, its cut.

Rules
-----
* Every continuation is in exactly one place: the pool, the blocked ones, running, or held back
  because its sender has cut and this rank has not (Lai and Yang, 1987: messages carry the number of
  their sender's cut, so channels need no order).
* A continuation starts when every variable that it needs is ready: has a partition on this rank.
* Of the gangs that have a step waiting here, only the oldest may start it: all ranks get gangs in
  the same order, so no two of them wait for each other. What is no gang's runs in between; a step
  that waits blocks none of it, and they take turns.
* A step that needs variables starts when every rank has them: a rank inside a step runs nothing
  else, and what fills the variables on another rank may come through it.
* Before a cut no step starts beyond the limits on which the ranks agree.
* A message from before its sender's cut that arrives behind this rank's cut belongs to the
  channel: it is recorded, and delivered as well.
* A job has ended when every rank was once without work of it and, for every pair of ranks, as many
  of its messages were received as were sent (Mattern, 1987, the vector method: with counters for
  each pair one asynchronous round is enough).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from feliss_nb.core import tables
from feliss_nb.core.ids import NOTEBOOK
from feliss_nb.core.messages import Continuation, Counts, RankImage
from feliss_nb.errors import InternalError


class Rank:
    """The protocol machine of one rank in one epoch.

    Parameters
    ----------
    rank : int
        Its number.
    epoch : int
        The incarnation that it belongs to.
    """

    def __init__(self, rank: int, epoch: int) -> None:
        self.rank = rank
        self.epoch = epoch
        self.state = "loading"
        self.cut = 0
        self.asked = 0  # the checkpoint whose cut waits for the running continuation
        self.pool: deque[Continuation] = deque()
        self.running: Continuation | None = None
        self.waits = False  # it starts nothing: see Rollback
        self.steps: dict[int, Continuation] = {}  # gang -> its step that waits here
        self.begun: dict[int, int] = {}  # gang -> the last step begun, until the job is forgotten
        self.released: dict[int, int] = {}  # gang -> the last step whose needs every rank has
        self.announced: dict[int, int] = {}  # gang -> the last step whose needs are here
        self.to_announce: tuple[int, int] | None = None  # of these, what the master has not heard
        self.limits: Counts | None = None  # before a cut: how far each gang may go
        self.round = 0  # the master's question that is not answered; 0: there is none
        self._step_was_last = False  # steps and other continuations take turns
        self.blocked: dict[int, list[Continuation]] = {}
        self.ready: set[int] = set()
        self.broken: set[int] = set()
        self.cancelled: set[int] = set()
        self.alive: dict[int, int] = {}  # job -> continuations in pool, blocked and running
        self.sent: dict[int, dict[int, int]] = {}  # job -> destination -> messages
        self.received: dict[int, dict[int, int]] = {}
        self.sent_total: dict[int, int] = {}
        self.received_total: dict[int, int] = {}
        self.dirty: set[int] = set()  # jobs whose counters the master has not seen
        self.held: list[tuple[int, int, Continuation]] = []
        # While recording: messages from before their sender's cut, and how many to expect.
        self.channel: list[tuple[int, Continuation]] = []
        self.before_cut: dict[int, int] = {}
        self.expected: Counts | None = None
        self.captured = False

    # ------------------------------------------------------------ continuations

    def put(self, continuation: Continuation) -> None:
        """Take a continuation that this rank put to itself."""
        job = continuation.job
        if job in self.cancelled:
            return
        self.alive[job] = self.alive.get(job, 0) + 1
        if continuation.gang is None:
            self.pool.append(continuation)
        elif job in self.steps:
            raise InternalError(f"rank {self.rank}: two steps of gang {job}")
        else:
            self.steps[job] = continuation

    def next(self) -> Continuation | None:
        """Take the next continuation that can start, or None."""
        if self.running is not None or self.state not in ("running", "recording") or self.waits:
            return None
        if self.steps and not self._step_was_last:
            self.running = self._next_step() or self._next_of_pool()
        else:
            self.running = self._next_of_pool() or (self._next_step() if self.steps else None)
        self._step_was_last = self.running is not None and self.running.gang is not None
        return self.running

    def _next_of_pool(self) -> Continuation | None:
        pool = self.pool
        while pool:
            continuation = pool.popleft()
            missing = self._awaited(continuation)
            if missing is None:
                return continuation
            self.blocked.setdefault(missing, []).append(continuation)
        return None

    def _next_step(self) -> Continuation | None:
        gang = min(self.steps)
        continuation = self.steps[gang]
        step = _step_of(continuation)
        if self.limits is not None and step > self.limits.get(gang, -1):
            return None
        if continuation.needs and self.released.get(gang, -1) < step:
            if self.announced.get(gang, -1) < step and self._awaited(continuation) is None:
                self.announced[gang] = step
                self.to_announce = gang, step
            return None
        del self.steps[gang]
        self.begun[gang] = step
        return continuation

    def _awaited(self, continuation: Continuation) -> int | None:
        """Return a variable for which `continuation` has to wait, if there is one."""
        for variable in continuation.needs:
            if variable not in self.ready and variable not in self.broken:
                return variable
        return None

    def missing(self, continuation: Continuation) -> int | None:
        """Return a variable that `continuation` needs and will never get, if there is one."""
        return next((v for v in continuation.needs if v not in self.ready), None)

    def finish(self) -> bool:
        """End the running continuation; return True when a cut waited for it."""
        continuation, self.running = self.running, None
        if continuation is None:
            raise InternalError(f"rank {self.rank}: nothing was running")
        self._left(continuation.job)
        return self.state == "cutting"

    def _left(self, job: int, count: int = 1) -> None:
        alive = self.alive[job] - count
        if alive:
            self.alive[job] = alive
        else:
            del self.alive[job]
            self.dirty.add(job)

    def send(self, job: int, destination: int) -> int:
        """Count a message of `job` to another rank; return the cut number that it carries."""
        counts = self.sent.setdefault(job, {})
        counts[destination] = counts.get(destination, 0) + 1
        self.sent_total[destination] = self.sent_total.get(destination, 0) + 1
        self.dirty.add(job)
        return self.cut

    def deliver(self, source: int, cut: int, continuation: Continuation) -> None:
        """Take a message; one from behind a cut that this rank has not made is held back."""
        if cut > self.cut:
            self.held.append((source, cut, continuation))
            return
        job = continuation.job
        if source != NOTEBOOK:
            self.received_total[source] = self.received_total.get(source, 0) + 1
            if self.state == "recording" and cut < self.cut:
                self.channel.append((source, continuation))
                self.before_cut[source] = self.before_cut.get(source, 0) + 1
        counts = self.received.setdefault(job, {})
        counts[source] = counts.get(source, 0) + 1
        self.dirty.add(job)
        self.put(continuation)

    def set_ready(self, variable: int) -> None:
        """A variable got its partition: what waited for it can start."""
        self.ready.add(variable)
        self.pool.extend(self.blocked.pop(variable, ()))

    # ------------------------------------------------------------ jobs and variables

    def cancel(self, job: int, outputs: Iterable[int]) -> None:
        """Drop what is left of a job; its empty outputs will never be filled."""
        self.cancelled.add(job)
        self.give_up(outputs)
        dropped = 0
        kept: deque[Continuation] = deque()
        for continuation in self.pool:
            if continuation.job == job:
                dropped += 1
            else:
                kept.append(continuation)
        self.pool = kept
        for variable, waiting in list(self.blocked.items()):
            left = [c for c in waiting if c.job != job]
            dropped += len(waiting) - len(left)
            if left:
                self.blocked[variable] = left
            else:
                del self.blocked[variable]
        if self.steps.pop(job, None) is not None:
            dropped += 1
        if dropped:
            self._left(job, dropped)
        if job in self.sent or job in self.received:
            self.dirty.add(job)

    def give_up(self, outputs: Iterable[int]) -> None:
        """Nobody fills these variables any more: what waits for one that is empty must fail."""
        for variable in outputs:
            if variable not in self.ready:
                self.broken.add(variable)
                self.pool.extend(self.blocked.pop(variable, ()))

    def forget(self, jobs: Iterable[int]) -> None:
        """Drop the counters of jobs that have ended everywhere."""
        jobs = tuple(jobs)
        for job in jobs:
            if job in self.alive:
                raise InternalError(f"rank {self.rank}: job {job} has ended and is alive here")
        for job in jobs:
            self.sent.pop(job, None)
            self.received.pop(job, None)
            self.dirty.discard(job)
            self.cancelled.discard(job)
            for steps in (self.begun, self.released, self.announced):
                steps.pop(job, None)

    def free(self, variables: Iterable[int]) -> None:
        """Drop variables that nothing can reach."""
        self.ready.difference_update(variables)
        self.broken.difference_update(variables)

    def report(self) -> dict[int, tuple[Counts, Counts]]:
        """Return the counters, not yet reported, of jobs without work here."""
        jobs = [job for job in self.dirty if job not in self.alive]
        self.dirty.difference_update(jobs)
        return {
            job: (dict(self.sent.get(job, ())), dict(self.received.get(job, ()))) for job in jobs
        }

    # ------------------------------------------------------------ the cut

    def prepare(self, round: int, limits: Counts) -> None:
        """Begin no step beyond `limits` before the cut; the master asks when those are begun."""
        self.round, self.limits = round, limits

    def take_begun(self) -> tuple[int, Counts] | None:
        """Return the master's question and the steps begun here, once the limits are reached.

        A gang that was called off, or that has ended on every rank, has no limit any more.
        """
        if not self.round:
            return None
        steps = {gang: step for gang, step in self.begun.items() if gang not in self.cancelled}
        for gang, limit in (self.limits or {}).items():
            due = self._has_step(gang) and gang not in self.cancelled
            if due and steps.get(gang, -1) < limit:
                return None
        asked, self.round = self.round, 0
        return asked, steps

    def _has_step(self, gang: int) -> bool:
        running = self.running
        if running is not None and running.gang is not None and running.job == gang:
            return True
        return gang in self.steps

    def ask_cut(self, checkpoint: int) -> bool:
        """Note that a cut is wanted; return True when it can be made at once."""
        self._step("cut asked")
        self.asked = checkpoint
        return self.running is None

    def make_cut(self) -> RankImage:
        """Cut here: return what the snapshot must hold of the core's state."""
        if self.running is not None:
            raise InternalError(f"rank {self.rank}: cut inside a continuation")
        self._step("cut")
        self.cut, self.limits = self.asked, None
        self.channel, self.before_cut = [], dict(self.received_total)
        self.expected, self.captured = None, False
        image = self.image()
        self._release_held()
        return image

    def image(self) -> RankImage:
        """Return a copy of the counters and the list of all continuations waiting here."""
        waiting = [c for blocked in self.blocked.values() for c in blocked]
        return RankImage(
            pool=[*self.pool, *waiting, *self.steps.values()],
            sent={job: dict(counts) for job, counts in self.sent.items()},
            received={job: dict(counts) for job, counts in self.received.items()},
            sent_total=dict(self.sent_total),
            received_total=dict(self.received_total),
            cancelled=set(self.cancelled),
            broken=set(self.broken),
        )

    def is_sealed(self) -> bool:
        """Tell whether the capture is taken and the channels are empty."""
        return (
            self.state == "recording"
            and self.captured
            and self.expected is not None
            and all(self.before_cut.get(s, 0) >= n for s, n in self.expected.items())
        )

    def seal(self) -> tuple[tuple[int, Continuation], ...]:
        """End the recording; return the messages that were under way at the cut."""
        self._step("sealed")
        channel, self.channel = tuple(self.channel), []
        return channel

    def abort(self, checkpoint: int) -> None:
        """Drop the checkpoint; its number is used up, so that later cuts compare right."""
        if self.state in ("cutting", "recording"):
            self._step("abort")
        self.channel, self.limits = [], None
        self.cut = max(self.cut, checkpoint)
        self._release_held()

    def _release_held(self) -> None:
        held, self.held = self.held, []
        for source, cut, continuation in held:
            self.deliver(source, cut, continuation)

    # ------------------------------------------------------------ recovery

    def load(
        self,
        image: RankImage,
        channel: Iterable[tuple[int, Continuation]],
        ready: Iterable[int],
        cut: int,
    ) -> None:
        """Stand up from a snapshot: its pool, and the messages that were under way."""
        self._step("loaded")
        self.cut = cut
        self.ready = set(ready)
        self.broken, self.cancelled = set(image.broken), set(image.cancelled)
        self.sent, self.received = image.sent, image.received
        self.sent_total, self.received_total = image.sent_total, image.received_total
        for continuation in image.pool:
            self.put(continuation)
        for source, continuation in channel:
            self.deliver(source, 0, continuation)
        self.dirty = {*self.sent, *self.received, *self.alive}

    def resume(self) -> None:
        """Run from now on."""
        self._step("resume")

    def retire(self) -> None:
        """Belong to an old epoch from now on."""
        if self.state != "retired":
            self._step("retire")

    def _step(self, event: str) -> None:
        self.state = tables.step(tables.RANK, self.state, event, f"rank {self.rank}")

    def check_invariants(self) -> None:
        """Raise InternalError where the counters and the continuations disagree."""
        alive: dict[int, int] = {}
        running = [self.running] if self.running is not None else []
        waiting = [c for blocked in self.blocked.values() for c in blocked]
        for continuation in [*self.pool, *waiting, *running, *self.steps.values()]:
            alive[continuation.job] = alive.get(continuation.job, 0) + 1
        if alive != self.alive:
            raise InternalError(f"rank {self.rank}: counted {self.alive}, found {alive}")
        if self.state != "recording" and self.channel:
            raise InternalError(f"rank {self.rank}: a channel outside a recording")
        if self.ready & self.blocked.keys():
            raise InternalError(f"rank {self.rank}: blocked on a ready variable")


def _step_of(continuation: Continuation) -> int:
    if continuation.gang is None:
        raise InternalError(f"a continuation of job {continuation.job} is no gang's")
    return continuation.gang[1]
