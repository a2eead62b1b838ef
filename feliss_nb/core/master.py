"""The master: checkpoints, losses, and the notebook's ledger between them.

Rules
-----
* Persist before send: what the notebook submits is in the log before it is injected.
* Nothing is a checkpoint until it is committed: every rank's snapshot is on its own engine and has
  its copies. The last committed one stays whole until then.
* A loss ends a checkpoint under way; so does calling a job off before every rank has cut, which
  would show in some snapshots only. It is begun anew for those who asked for it.
* Before it asks for a cut, every rank has begun the same step of each gang: a step that runs ends
  before the cut, on all ranks, and the next one starts behind it. Until they agree nothing is held
  back between ranks, so what a step waits for comes as it does without a checkpoint.
* The epoch rises when a recovery completes; a loss during a recovery extends it.
* No rank runs in a new epoch before all stand; lost engines are replaced behind that.
* Lost copies are made anew; where no copy is left to copy, another checkpoint is taken at once.
* What ran when an engine was lost may be the cause: see `poison`. A rank that ran something then
  starts again when its new host may be lost as well, with no snapshot lost for good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feliss_nb.core import commands as cmd
from feliss_nb.core import events as ev
from feliss_nb.core import messages as m
from feliss_nb.core import tables
from feliss_nb.core.checkpointing import Checkpoints
from feliss_nb.core.checkpoints import Committed, Pending
from feliss_nb.core.fleet import Fleet
from feliss_nb.core.image import MasterImage, adopt, take_image
from feliss_nb.core.jobs import Job, SubmissionLog
from feliss_nb.core.ledger import Ledger
from feliss_nb.core.placement import new_routes
from feliss_nb.core.poison import Poison
from feliss_nb.errors import InternalError, LossError, SessionClosed

Commands = list[Any]

_LIVE = (
    "running",
    "preparing",
    "cutting",
    "recording",
)  # ranks run: what the notebook does takes effect
_OVER = ("failed", "stopped")


class Master:
    """The coordinator's protocol machine.

    Parameters
    ----------
    copies : int
        How many other engines keep each rank's snapshot.
    replace : bool
        Whether a lost engine is replaced by a new spare.
    losses : int or None
        How many engines may be lost with the same continuation running before it is set aside.
    """

    def __init__(self, copies: int = 1, replace: bool = True, losses: int | None = 3) -> None:
        self.replace = replace
        self.state = "starting"
        self.size = 0
        self.epoch = -1  # of the last completed rollback; the start is epoch 0
        self.attempt = 0  # counts rollbacks, completed or not
        self.fleet = Fleet()
        self.ledger = Ledger(self.fleet)
        self.checkpoints = Checkpoints(self.fleet, self.ledger, copies)
        self.restored: set[int] = set()
        self.to_replace = 0  # lost engines
        self.protect_waits: list[Any] = []
        self.mended = 0  # the last checkpoint that another was taken for, since copies were lost
        self.poison = Poison(losses)
        self.ordered = 0  # replacements that have not come
        self.careful: set[int] = set()  # ranks that ran something when their engine was lost
        self.waiting: frozenset[int] = frozenset()  # those that start when another engine is here
        self.gone: dict[m.Engine, ev.EngineLost] = {}  # lost; some before we heard of their joining
        self.error: Exception | None = None

    @property
    def copies(self) -> int:
        """How many other engines keep each rank's snapshot."""
        return self.checkpoints.copies

    @property
    def capture(self) -> str:
        """How the next checkpoint is taken."""
        return self.checkpoints.capture

    @capture.setter
    def capture(self, name: str) -> None:
        self.checkpoints.capture = name

    @property
    def committed(self) -> Committed:
        """The checkpoint that a loss goes back to."""
        return self.checkpoints.committed

    @property
    def pending(self) -> Pending | None:
        """The checkpoint under way."""
        return self.checkpoints.pending

    @property
    def cut(self) -> int:
        """The number of the last checkpoint begun."""
        return self.checkpoints.cut

    @property
    def wanted(self) -> list[Any]:
        """The tokens of checkpoints that were asked for and have not begun."""
        return self.checkpoints.wanted

    @property
    def engines(self) -> list[m.Engine]:
        """The engines that live, in the order in which they joined."""
        return self.fleet.engines

    @property
    def routes(self) -> dict[int, m.Engine]:
        """The host of each rank."""
        return self.fleet.routes

    @property
    def jobs(self) -> dict[int, Job]:
        """The jobs whose end is not committed, or whose outcome the notebook has not seen."""
        return self.ledger.jobs

    @property
    def log(self) -> SubmissionLog:
        """What the notebook did since the last committed checkpoint."""
        return self.ledger.log

    @property
    def waits(self) -> list[ev.Wait]:
        """The waits that are not yet answered."""
        return self.ledger.waits

    @property
    def held(self) -> set[int]:
        """The variables that the notebook holds."""
        return self.ledger.variables.held

    # ------------------------------------------------------------ entry

    def handle(self, event: Any) -> Commands:
        """Take an event of the notebook or the runtime; return what to do."""
        return self._settled(_EVENTS[type(event)](self, event))

    def hear(self, engine: m.Engine, message: Any) -> Commands:
        """Take a message of a worker; one from a lost engine or a stale epoch is dropped."""
        if engine not in self.engines or self.state in _OVER:
            return []
        take = _FROM_RANKS.get(type(message))
        if take is None:
            return self._settled(_MESSAGES[type(message)](self, engine, message))
        if self.state not in _LIVE or message.epoch != self.epoch:
            return []
        return self._settled(take(self.ledger, message))

    def _settled(self, commands: Commands) -> Commands:
        """Add what the new state allows: lines of the log, checkpoints, answers."""
        ledger = self.ledger
        if self.state in _LIVE:
            commands += ledger.advance(self.cut)
        if ledger.diverged is not None and self.state not in _OVER:
            commands += self._fail(ledger.diverged)
        if ledger.cancelled:
            ledger.cancelled = False
            if self.state == "cutting":
                commands += self._abort_checkpoint()
        if self.waiting and self.state in _LIVE and self._is_backed():
            self.waiting = frozenset()
            commands += self.fleet.to_all(m.StartWaiting(self.epoch))
        if self.state == "running" and (self._must_mend() or self.wanted):
            self._step("checkpoint")
            commands += self.checkpoints.prepare()
        if self.state in _LIVE:
            # Not before: to start an engine takes the processors that a recovery needs.
            commands += [cmd.Replace()] * self.to_replace
            self.to_replace = 0
            commands += ledger.answer_waits()
            if self.protect_waits and self.is_protected():
                commands += [cmd.Answer(token) for token in self.protect_waits]
                self.protect_waits = []
        return commands

    def _must_mend(self) -> bool:
        """Tell, once, that only another checkpoint protects what runs: no copy is left to copy.

        Who waits for copies waits for that one, and hears what comes of it. Where engines could not
        keep copies, it is tried for who waits only: it may be no better then.
        """
        if not (self.checkpoints.is_bare() or (self.protect_waits and self.checkpoints.is_stuck())):
            return False
        self.wanted.extend(self.protect_waits)
        self.protect_waits = []
        is_told = self.mended == self.committed.id
        self.mended = self.committed.id
        return not is_told

    def _step(self, event: str) -> None:
        self.state = tables.step(tables.MASTER, self.state, event, "master")

    # ------------------------------------------------------------ the notebook

    def _submit(self, event: ev.Submit) -> Commands:
        if self.state in _OVER:
            return [self._refusal(event.token)]
        return self.ledger.submit(event)

    def _wait(self, event: ev.Wait) -> Commands:
        if self.state in _OVER:
            return [self._refusal(event.token)]
        self.ledger.waits.append(event)
        return []

    def _take_checkpoint(self, event: ev.TakeCheckpoint) -> Commands:
        if self.state in _OVER:
            return [self._refusal(event.token)]
        self.wanted.append(event.token)
        return []

    def _wait_protected(self, event: ev.WaitProtected) -> Commands:
        if self.state in _OVER:
            return [self._refusal(event.token)]
        self.protect_waits.append(event.token)
        return []

    def _unwait(self, event: ev.Unwait) -> Commands:
        ledger = self.ledger
        ledger.waits = [wait for wait in ledger.waits if wait.token != event.token]
        self.protect_waits = [t for t in self.protect_waits if t != event.token]
        self.checkpoints.unwant(event.token)
        return []

    def _cancel_job(self, event: ev.CancelJob) -> Commands:
        self.ledger.cancel(event.job)
        return []

    def _hold(self, event: ev.Hold) -> Commands:
        self.ledger.variables.hold(event.variable)
        return []

    def _release(self, event: ev.Release) -> Commands:
        self.ledger.variables.release(event.variable)
        return []

    def _compared(self, event: ev.Compared) -> Commands:
        return self.ledger.compared(event)

    def _use_capture(self, event: ev.UseCapture) -> Commands:
        self.capture = event.capture
        return []

    def _take_over(self, event: ev.TakeOver) -> Commands:
        if self.state in _OVER:
            return []
        self.protect_waits = []
        self.checkpoints.forget_who_asked()
        self.ledger.take_over(event.held)
        return []

    # ------------------------------------------------------------ checkpoints

    def _begun(self, engine: m.Engine, message: m.Begun) -> Commands:
        if self.state != "preparing" or message.epoch != self.epoch:
            return []
        commands = self.checkpoints.agree(message)
        if commands is not None:
            return commands
        self._step("agreed")
        return self.checkpoints.begin(self.epoch)

    def _cut_done(self, engine: m.Engine, message: m.CutDone) -> Commands:
        if not self.checkpoints.cut_done(message):
            return []
        self._step("all cut")
        return self.checkpoints.channels()

    def _saved(self, engine: m.Engine, message: m.Saved) -> Commands:
        self.checkpoints.saved(engine, message)
        return self._commit_if_whole()

    def _stored(self, engine: m.Engine, message: m.Stored) -> Commands:
        return [*self.checkpoints.stored(engine, message), *self._commit_if_whole()]

    def _absent(self, engine: m.Engine, message: m.Absent) -> Commands:
        if message.checkpoint != self.committed.id:
            return []
        self.committed.lose_copy(message.rank, engine)
        data = {"checkpoint": message.checkpoint, "rank": message.rank, "engine": engine}
        return [cmd.Log("copy-lost", data), *self._replicate_missing()]

    def _commit_if_whole(self) -> Commands:
        if self.state != "recording" or not self.checkpoints.is_whole():
            return []
        self._step("commit")
        commands = self.checkpoints.commit(self.epoch)
        self.poison.forget(self.ledger.jobs)
        return [*commands, *self._replicate_missing()]

    def _capture_failed(self, engine: m.Engine, message: m.CaptureFailed) -> Commands:
        pending = self.checkpoints.current(message.checkpoint)
        if pending is None:
            return []
        tokens, pending.tokens = pending.tokens, []
        data = {"checkpoint": message.checkpoint, "rank": message.rank, "error": message.error}
        return [
            *self._abort_checkpoint(),
            cmd.Log("checkpoint-failed", data),
            *(cmd.Answer(token, error=message.error) for token in tokens),
        ]

    def _capture_lost(self, engine: m.Engine, message: m.CaptureLost) -> Commands:
        if self.checkpoints.current(message.checkpoint) is None:
            return []
        data = {"checkpoint": message.checkpoint, "rank": message.rank, "why": message.why}
        return [*self._abort_checkpoint(), cmd.Log("capture-lost", data)]

    def _abort_checkpoint(self) -> Commands:
        """Drop the checkpoint under way; those who asked for it get the next one."""
        if self.pending is None:
            return []
        self._step("abort")
        return self.checkpoints.abort()

    def _replicate_missing(self) -> Commands:
        """Make anew the copies that a loss destroyed."""
        return self.checkpoints.replicate_missing() if self.state in _LIVE else []

    def is_protected(self) -> bool:
        """Whether every snapshot of the committed checkpoint has its copies."""
        return self.checkpoints.is_protected()

    # ------------------------------------------------------------ engines

    def _start(self, event: ev.Start) -> Commands:
        self._step("stand up")
        self.size = event.size
        routes = {rank: event.engines[rank] for rank in range(event.size)}
        return self._stand_up(event.engines, routes)

    def _start_from(self, event: ev.StartFrom) -> Commands:
        self._step("stand up")
        image = event.image
        self.size, self.epoch = image.size, image.epoch
        self.checkpoints.adopt(image.committed, event.shards, max(event.cut, image.cut))
        adopt(self.ledger, image, event.held)
        return self._stand_up(event.engines, event.shards)

    def _stand_up(self, engines: Sequence[m.Engine], routes: Mapping[int, m.Engine]) -> Commands:
        self.engines[:] = [*engines, *(e for e in self.engines if e not in engines)]
        self.fleet.routes = dict(sorted(routes.items()))
        joined = [cmd.Log("engine-joined", {"engine": engine}) for engine in self.engines]
        commands = [*joined, *self._roll_back()]
        for lost in [self.gone[engine] for engine in self.engines if engine in self.gone]:
            commands += self._lost(lost)
        return commands

    def _joined(self, event: ev.EngineJoined) -> Commands:
        if event.engine in (*self.engines, *self.gone) or self.state in _OVER:
            return []
        self.engines.append(event.engine)
        self.ordered = max(self.ordered - 1, 0)
        return [cmd.Log("engine-joined", {"engine": event.engine}), *self._replicate_missing()]

    def _not_replaced(self, event: ev.NotReplaced) -> Commands:
        self.ordered = max(self.ordered - 1, 0)
        return []

    def _is_backed(self) -> bool:
        """Whether the hosts of the waiting ranks may be lost too, or nothing can help that.

        A checkpoint under way may have been begun when there was one engine: it has no copies.
        """
        if len(self.engines) < 2:
            return not self.ordered
        hosts = {self.routes[rank] for rank in self.waiting}
        safe = self.copies == 0 or all(self.committed.survives(host) for host in hosts)
        return safe and self.pending is None

    def _suspect(self, event: ev.EngineSuspect) -> Commands:
        if event.engine not in self.engines or event.engine in self.fleet.suspects:
            return []
        self.fleet.suspects.add(event.engine)
        data = {"engine": event.engine, "why": event.why}
        return [cmd.Log("fencing", data), cmd.Fence(event.engine)]

    def _lost(self, event: ev.EngineLost) -> Commands:
        lost = event.engine
        self.gone[lost] = event  # in any state: what it said last may come behind this
        if self.state in _OVER or lost not in self.engines:
            return []
        ranks = self.fleet.remove(lost)
        self.committed.lose(lost)
        data = {"engine": lost, "ranks": ranks, "why": event.why}
        commands: Commands = [cmd.Log("engine-lost", data)]
        if self.replace:
            self.ordered += 1
            self.to_replace += 1
        commands += self._blame(event)
        commands += self._abort_checkpoint()
        if not ranks and self.state != "recovering":
            return commands + self._replicate_missing()
        if not self.engines:
            why = "; ".join(f"{engine}, {gone.why}" for engine, gone in self.gone.items())
            error = LossError(
                f"every engine of this session was lost (engine {why}); it cannot go on: start a "
                "new one, with more spares= if losses come close together"
            )
            return commands + self._fail(error)
        self._step("loss")
        return commands + self._roll_back()

    def _blame(self, lost: ev.EngineLost) -> Commands:
        """Count what ran there; what is poisoned by now is said once."""
        is_last = len(self.engines) < 2 and not self.ordered
        self.careful |= {one.rank for one in lost.running}
        return [
            cmd.Log("set-aside", {"rank": one.rank, "job": one.job, "id": one.id.hex()})
            for one in self.poison.lost(lost.running, is_last)
        ]

    def _set_aside(self, engine: m.Engine, message: m.SetAside) -> Commands:
        self.poison.set_aside[message.id] = message
        return []

    def _link_broken(self, engine: m.Engine, message: m.LinkBroken) -> Commands:
        why = f"messages that it sent to engine {engine} were lost on the way"
        return self._suspect(ev.EngineSuspect(message.engine, why))

    def _roll_back(self) -> Commands:
        """Stand every rank up from the committed checkpoint, under the next epoch."""
        committed, fleet = self.committed, self.fleet
        trusted = fleet.by_trust()
        fleet.routes = new_routes(fleet.routes, trusted, committed.shards)
        sources: dict[int, m.Engine | None] = {}
        for rank, host in fleet.routes.items():
            sources[rank] = committed.source(rank, host, trusted)
            if sources[rank] is None:
                return self._fail(
                    LossError(
                        f"rank {rank} and every copy of it were lost (copies={self.copies}); the "
                        "session cannot go on: start a new one, with more copies= if losses come "
                        "close together"
                    )
                )
        self.attempt += 1
        self.restored = set()
        self.waiting = frozenset(self.careful)
        rollback = m.Rollback(
            self.epoch + 1,
            self.attempt,
            committed.id,
            self.cut,
            dict(fleet.routes),
            sources,
            committed.garbage,
            dict(self.poison.poisoned),
            self.waiting,
        )
        moved = {rank: engine for rank, engine in sources.items() if engine != fleet.routes[rank]}
        data = {"epoch": self.epoch + 1, "checkpoint": committed.id, "routes": dict(fleet.routes)}
        return [cmd.Log("recovering", {**data, "read_from": moved}), *fleet.to_all(rollback)]

    def _restored(self, engine: m.Engine, message: m.Restored) -> Commands:
        if self.state != "recovering" or message.attempt != self.attempt:
            return []
        self.restored.add(message.rank)
        self.committed.add(message.rank, engine)
        if len(self.restored) < self.size:
            return []
        self._step("all restored")
        self.careful = set()
        self.epoch += 1
        kind = "recovered" if self.epoch else "started"
        return [
            *self.ledger.undo(self.committed),
            *self.fleet.to_all(m.Resume(self.epoch)),
            cmd.Log(kind, {"epoch": self.epoch, "checkpoint": self.committed.id}),
            *self._replicate_missing(),
        ]

    def _restore_failed(self, engine: m.Engine, message: m.RestoreFailed) -> Commands:
        if self.state != "recovering" or message.attempt != self.attempt:
            return []
        holders = self.committed.shards.get(message.rank, set())
        holders -= {message.source, engine}
        data = {"rank": message.rank, "source": message.source, "error": message.error}
        failed = cmd.Log("restore-failed", data)
        if not holders:
            text = (
                f"rank {message.rank} could not be loaded from any copy of checkpoint "
                f"{self.committed.id}: {message.error}"
            )
            return [failed, *self._fail(LossError(text))]
        self._step("loss")
        return [failed, *self._roll_back()]

    # ------------------------------------------------------------ the end

    def _fail(self, error: Exception) -> Commands:
        self._step("fail")
        self.error = error
        return [cmd.Log("failed", {"error": str(error)}), *self._refuse_all()]

    def _stop(self, event: ev.Stop) -> Commands:
        if self.state == "stopped":
            return []
        self._step("stop")
        return [*self._refuse_all(), cmd.Log("stopped")]

    def _refusal(self, token: Any) -> cmd.Answer:
        closed = SessionClosed("this session was stopped; start another with feliss_nb.start()")
        return cmd.Answer(token, error=self.error or closed)

    def _refuse_all(self) -> Commands:
        waits = [wait.token for wait in self.ledger.waits]
        tokens = [*waits, *self.protect_waits, *self.checkpoints.give_up()]
        self.ledger.waits, self.protect_waits = [], []
        return [self._refusal(token) for token in tokens]

    def image(self) -> MasterImage:
        """Return this master's share of the committed checkpoint, for another to go on from."""
        return take_image(self.ledger, self.committed, self.epoch, self.cut)

    def check_invariants(self) -> None:
        """Raise InternalError where something does not hold."""
        self.ledger.check_invariants()
        if (self.pending is not None) != (self.state in ("cutting", "recording")):
            raise InternalError(f"master: {self.state} with checkpoint {self.pending}")
        if self.state in _OVER and (self.waits or self.wanted or self.protect_waits):
            raise InternalError(f"master: {self.state}, and somebody waits")
        if self.state in (*_LIVE, "recovering") and len(self.routes) != self.size:
            raise InternalError(f"master: {self.size} ranks, routes {self.routes}")
        if self.state in _LIVE and not set(self.routes.values()) <= set(self.engines):
            raise InternalError(f"master: routes {self.routes} to lost engines")
        holders = {engine for shards in self.committed.shards.values() for engine in shards}
        if not holders <= set(self.engines):
            raise InternalError("master: copies counted on lost engines")


_EVENTS: dict[type, Any] = {
    ev.Start: Master._start,
    ev.StartFrom: Master._start_from,
    ev.Submit: Master._submit,
    ev.Wait: Master._wait,
    ev.Unwait: Master._unwait,
    ev.CancelJob: Master._cancel_job,
    ev.Hold: Master._hold,
    ev.Release: Master._release,
    ev.TakeCheckpoint: Master._take_checkpoint,
    ev.WaitProtected: Master._wait_protected,
    ev.EngineJoined: Master._joined,
    ev.EngineSuspect: Master._suspect,
    ev.EngineLost: Master._lost,
    ev.NotReplaced: Master._not_replaced,
    ev.Compared: Master._compared,
    ev.UseCapture: Master._use_capture,
    ev.TakeOver: Master._take_over,
    ev.Stop: Master._stop,
}

_MESSAGES: dict[type, Any] = {
    m.Restored: Master._restored,
    m.RestoreFailed: Master._restore_failed,
    m.Begun: Master._begun,
    m.CutDone: Master._cut_done,
    m.Saved: Master._saved,
    m.Stored: Master._stored,
    m.Absent: Master._absent,
    m.CaptureFailed: Master._capture_failed,
    m.CaptureLost: Master._capture_lost,
    m.SetAside: Master._set_aside,
    m.LinkBroken: Master._link_broken,
}

_FROM_RANKS: dict[type, Any] = {  # they count in the epoch that they were sent in only
    m.Report: Ledger.report,
    m.StepReady: Ledger.step_ready,
    m.Output: Ledger.output,
    m.Failed: Ledger.failed,
}
