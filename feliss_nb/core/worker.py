"""The machine of an engine: the ranks that it hosts and the snapshots that it keeps.

Rules
-----
* The master's words come in order; a rollback retires every rank at once and waits for nobody.
* Messages of another epoch are dropped.
* What the master said behind a cut takes effect behind it: while the capture of a rank here is not
  taken, the words that would show in it are put off.
* An ack never outruns its snapshot: the runtime reports ``stored`` when the bytes are in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from feliss_nb.core import commands as cmd
from feliss_nb.core import messages as m
from feliss_nb.core.ids import NOTEBOOK
from feliss_nb.core.rank import Rank

Commands = list[Any]


class Worker:
    """The protocol machine of one engine; without ranks it is a spare.

    Parameters
    ----------
    engine : str
        Its identity.
    """

    def __init__(self, engine: m.Engine) -> None:
        self.engine = engine
        self.epoch = -1
        self.attempt = 0
        self.checkpoint = 0
        self.start_cut = 0
        self.routes: Mapping[int, m.Engine] = {}
        self.sources: Mapping[int, m.Engine | None] = {}
        self.garbage: frozenset[int] = frozenset()
        self.poisoned: Mapping[bytes, int] = {}  # what must not run, by id: engines lost with it
        self.ranks: dict[int, Rank] = {}
        self.holders: dict[int, tuple[m.Engine, ...]] = {}
        self.capture = "full"  # of the checkpoint under way
        self.shards: set[tuple[int, int]] = set()  # (checkpoint, rank) in this engine's store
        self.awaited: set[int] = set()  # ranks whose snapshot is on its way here
        self.asked: dict[int, int] = {}  # rank -> how often its source was asked for it
        self.deferred: list[Any] = []  # words of the master that wait for the captures

    def handle(self, message: Any) -> Commands:
        """Take a message of the master; return what to do."""
        if isinstance(message, _BEHIND_CUT) and self._is_cutting():
            self.deferred.append(message)
            return []
        commands: Commands = _FROM_MASTER[type(message)](self, message)
        return commands

    def _is_cutting(self) -> bool:
        return any(
            rank.state == "cutting" or (rank.state == "recording" and not rank.captured)
            for rank in self.ranks.values()
        )

    def _catch_up(self) -> Commands:
        """Do what was put off, once every rank here is captured."""
        if not self.deferred or self._is_cutting():
            return []
        deferred, self.deferred = self.deferred, []
        return [command for message in deferred for command in self.handle(message)]

    # ------------------------------------------------------------ the master's words

    def _rollback(self, message: m.Rollback) -> Commands:
        commands: Commands = [cmd.Retire(rank) for rank in self.ranks]
        for old in self.ranks.values():
            old.retire()
        self.epoch, self.attempt = message.epoch, message.attempt
        self.checkpoint, self.start_cut = message.checkpoint, message.cut
        self.routes, self.sources = message.routes, message.sources  # never changed
        self.garbage, self.poisoned = message.garbage, message.poisoned
        mine = [rank for rank, engine in self.routes.items() if engine == self.engine]
        self.ranks = {rank: Rank(rank, self.epoch) for rank in mine}
        for rank in message.waiting & self.ranks.keys():
            self.ranks[rank].waits = True
        self.awaited, self.asked, self.deferred = set(), {}, []
        for rank in mine:
            source = self.sources.get(rank)
            if self.checkpoint == 0 or (self.checkpoint, rank) in self.shards:
                commands.append(cmd.Load(rank, self.checkpoint))
            elif source is None or source == self.engine:
                commands += self.load_failed(rank, "the snapshot is not here")
            else:
                commands += self._ask(rank, source)
        return commands

    def _ask(self, rank: int, source: m.Engine) -> Commands:
        self.awaited.add(rank)
        self.asked[rank] = self.asked.get(rank, 0) + 1
        return [cmd.ToEngine(source, m.Want(self.checkpoint, rank, self.engine))]

    def _resume(self, message: m.Resume) -> Commands:
        commands: Commands = []
        for rank in self.ranks.values():
            rank.resume()
            commands.append(cmd.Run(rank.rank))
        return commands

    def _start_waiting(self, message: m.StartWaiting) -> Commands:
        if message.epoch != self.epoch:
            return []
        for rank in self.ranks.values():
            rank.waits = False
        return [cmd.Run(rank) for rank in self.ranks]

    def _prepare(self, message: m.Prepare) -> Commands:
        commands: Commands = []
        for rank in self.ranks.values():
            rank.prepare(message.round, message.limits)
            commands += [*self._tell_begun(rank), cmd.Run(rank.rank)]
        return commands

    def _start_step(self, message: m.StartStep) -> Commands:
        for rank in self.ranks.values():
            rank.released[message.gang] = message.step
        return [cmd.Run(rank) for rank in self.ranks]

    def _tell_begun(self, rank: Rank) -> Commands:
        begun = rank.take_begun()
        return (
            []
            if begun is None
            else [cmd.ToMaster(m.Begun(self.epoch, begun[0], rank.rank, begun[1]))]
        )

    def _cut(self, message: m.Cut) -> Commands:
        idle = [rank for rank in self.ranks.values() if rank.ask_cut(message.checkpoint)]
        self.holders, self.capture = dict(message.holders), message.capture
        return [command for rank in idle for command in self.cut_now(rank)]

    def _channels(self, message: m.Channels) -> Commands:
        commands: Commands = []
        for rank in self.ranks.values():
            if rank.state == "recording" and rank.cut == message.checkpoint:
                rank.expected = message.expected.get(rank.rank, {})
                commands += self.try_seal(rank)
        return commands

    def _commit(self, message: m.Commit) -> Commands:
        self.checkpoint = message.checkpoint
        self.shards = {shard for shard in self.shards if shard[0] >= message.checkpoint}
        return [cmd.Drop(older=message.checkpoint), *self._free(m.Free(message.garbage))]

    def _abort(self, message: m.Abort) -> Commands:
        commands: Commands = []
        for rank in self.ranks.values():
            rank.abort(message.checkpoint)
            commands += [cmd.Discard(rank.rank, message.checkpoint), cmd.Run(rank.rank)]
        self.shards = {shard for shard in self.shards if shard[0] != message.checkpoint}
        return [*commands, cmd.Drop(exactly=message.checkpoint), *self._catch_up()]

    def _inject(self, message: m.Inject) -> Commands:
        self.ranks[message.rank].deliver(NOTEBOOK, message.cut, message.continuation)
        return [cmd.Run(message.rank)]

    def _forget(self, message: m.Forget) -> Commands:
        for rank in self.ranks.values():
            rank.give_up(message.outputs)
            rank.forget(message.jobs)
        return [
            *(word for rank in self.ranks.values() for word in self._tell_begun(rank)),
            *(cmd.JobOver(job) for job in message.jobs),
            *(cmd.Run(rank) for rank in self.ranks),
        ]

    def _cancel(self, message: m.Cancel) -> Commands:
        commands: Commands = []
        for rank in self.ranks.values():
            rank.cancel(message.job, message.outputs)
            commands += [cmd.StopJob(rank.rank, message.job), cmd.Run(rank.rank)]
            commands += self._tell_begun(rank)
        return commands

    def _free(self, message: m.Free) -> Commands:
        if not message.variables:
            return []
        for rank in self.ranks.values():
            rank.free(message.variables)
        return [cmd.Delete(message.variables)]

    def _replicate(self, message: m.Replicate) -> Commands:
        if (message.checkpoint, message.rank) not in self.shards:
            return []  # dropped since: a newer checkpoint stands
        return [cmd.SendShard(message.target, message.checkpoint, message.rank)]

    # ------------------------------------------------------------ peers

    def deliver(
        self, epoch: int, rank: int, source: int, cut: int, continuation: m.Continuation
    ) -> Commands:
        """Take a continuation from another rank; one of another epoch is dropped."""
        target = self.ranks.get(rank)
        if epoch != self.epoch or target is None:
            return []
        target.deliver(source, cut, continuation)
        return [cmd.Run(rank), *self.try_seal(target)]

    def want(self, message: m.Want) -> Commands:
        """Another engine asks for a snapshot."""
        if (message.checkpoint, message.rank) not in self.shards:
            absent = m.Absent(message.checkpoint, message.rank, self.engine)
            return [cmd.ToEngine(message.engine, absent)]
        return [cmd.SendShard(message.engine, message.checkpoint, message.rank)]

    def absent(self, message: m.Absent) -> Commands:
        """A snapshot that was asked for does not come: the master may know another holder."""
        rank = message.rank
        if message.checkpoint != self.checkpoint or rank not in self.awaited:
            return []
        if self.sources.get(rank) != message.engine:
            return []  # it was asked before the last rollback
        self.awaited.discard(rank)
        error = f"engine {message.engine} does not have the snapshot"
        return self._cannot_load(rank, message.engine, error)

    # ------------------------------------------------------------ the runtime's words

    def finished(self, rank: Rank) -> Commands:
        """The rank's continuation has ended."""
        return self.cut_now(rank) if rank.finish() else self._tell_begun(rank)

    def next(self, rank: Rank) -> tuple[m.Continuation | None, Commands]:
        """Take the rank's next continuation that can start, or None; and what to do first."""
        continuation = rank.next()
        if rank.to_announce is None:
            return continuation, []
        (gang, step), rank.to_announce = rank.to_announce, None
        return continuation, [cmd.ToMaster(m.StepReady(self.epoch, rank.rank, gang, step))]

    def cut_now(self, rank: Rank) -> Commands:
        """Cut a rank between two continuations."""
        checkpoint = rank.asked
        image = rank.make_cut()
        done = m.CutDone(self.epoch, checkpoint, rank.rank, dict(rank.sent_total))
        return [cmd.Capture(rank.rank, checkpoint, image, self.capture), cmd.ToMaster(done)]

    def captured(self, rank: Rank, checkpoint: int) -> Commands:
        """The capture of `checkpoint` is taken."""
        if rank.state != "recording" or rank.cut != checkpoint:
            return []
        rank.captured = True
        return [*self.try_seal(rank), *self._catch_up()]

    def capture_failed(self, rank: Rank, checkpoint: int, error: Any) -> Commands:
        """The rank's state could not be written; this may show after the sealing only."""
        if rank.state == "retired" or rank.cut != checkpoint:
            return []
        failed = m.CaptureFailed(self.epoch, checkpoint, rank.rank, error)
        return [cmd.ToMaster(failed)]

    def capture_lost(self, rank: Rank, checkpoint: int, why: str) -> Commands:
        """What was captured did not arrive, and the rank has gone on."""
        if rank.state != "recording" or rank.cut != checkpoint:
            return []
        return [cmd.ToMaster(m.CaptureLost(self.epoch, checkpoint, rank.rank, why))]

    def try_seal(self, rank: Rank) -> Commands:
        """End the recording if nothing more can arrive."""
        if not rank.is_sealed():
            return []
        channel = rank.seal()
        return [cmd.Seal(rank.rank, rank.cut, channel, self.holders.get(rank.rank, ()))]

    def kept(self, saved: m.Saved) -> Commands:
        """The rank's own snapshot is in the store."""
        self.shards.add((saved.checkpoint, saved.rank))
        return [cmd.ToMaster(saved)]

    def is_awaited(self, checkpoint: int, rank: int) -> bool:
        """Whether a rank is to stand up from a snapshot that is on its way here."""
        return checkpoint == self.checkpoint and rank in self.awaited

    def stored(self, checkpoint: int, rank: int) -> Commands:
        """A copy came in and is in the store."""
        if checkpoint < self.checkpoint:
            return [cmd.Drop(older=self.checkpoint)]  # it came too late
        self.shards.add((checkpoint, rank))
        commands: Commands = [cmd.ToMaster(m.Stored(checkpoint, rank))]
        if checkpoint == self.checkpoint and rank in self.awaited:
            self.awaited.discard(rank)
            commands.append(cmd.Load(rank, checkpoint))
        return commands

    def lost(self, command: cmd.SendShard) -> Commands:
        """The snapshot to send is not in the store any more."""
        self.shards.discard((command.checkpoint, command.rank))
        absent = m.Absent(command.checkpoint, command.rank, self.engine)
        return [cmd.ToMaster(absent), cmd.ToEngine(command.engine, absent)]

    def copy_failed(self, checkpoint: int, rank: int, error: Any) -> Commands:
        """A snapshot that was put together or copied here cannot be kept.

        It belongs to the checkpoint under way, which then fails, or to the last one, of which then
        a copy is lost. Only the master knows which: it takes the word that fits.
        """
        self.shards.discard((checkpoint, rank))
        return [
            cmd.ToMaster(m.CaptureFailed(self.epoch, checkpoint, rank, error)),
            cmd.ToMaster(m.Absent(checkpoint, rank, self.engine)),
        ]

    def loaded(
        self,
        rank: Rank,
        image: m.RankImage,
        channel: tuple[tuple[int, m.Continuation], ...],
        ready: frozenset[int],
    ) -> Commands:
        """A rank's snapshot was read; one of an old epoch is dropped."""
        if rank.state != "loading":
            return []
        rank.load(image, channel, ready, self.start_cut)
        rank.free(self.garbage)
        restored = m.Restored(self.epoch, self.attempt, rank.rank)
        return [cmd.Delete(self.garbage), cmd.ToMaster(restored)]

    def load_failed(self, rank: int, error: Any) -> Commands:
        """A rank's snapshot could not be read.

        One that came from elsewhere may have been damaged here: it is asked for once more.
        """
        source = self.sources.get(rank)
        if rank not in self.asked or source is None:
            return self._cannot_load(rank, self.engine, error)
        if self.asked[rank] == 1:
            self.shards.discard((self.checkpoint, rank))
            return self._ask(rank, source)
        return self._cannot_load(rank, source, error)

    def _cannot_load(self, rank: int, source: m.Engine, error: Any) -> Commands:
        self.shards.discard((self.checkpoint, rank))
        failed = m.RestoreFailed(self.epoch, self.attempt, rank, source, error)
        return [cmd.ToMaster(failed)]

    def reports(self) -> Commands:
        """Tell the master the counters of jobs that have nothing left here."""
        commands: Commands = []
        for rank in self.ranks.values():
            if rank.state in ("loading", "restored", "retired"):
                continue
            jobs = rank.report()
            if jobs:
                commands.append(cmd.ToMaster(m.Report(self.epoch, rank.rank, jobs)))
        return commands

    def check_invariants(self) -> None:
        """Raise InternalError where something does not hold."""
        for rank in self.ranks.values():
            rank.check_invariants()


_BEHIND_CUT = (m.Forget, m.Free)  # an Inject carries the cut's number; see Rank.deliver

_FROM_MASTER: dict[type, Any] = {
    m.Rollback: Worker._rollback,
    m.Resume: Worker._resume,
    m.StartWaiting: Worker._start_waiting,
    m.StartStep: Worker._start_step,
    m.Prepare: Worker._prepare,
    m.Cut: Worker._cut,
    m.Channels: Worker._channels,
    m.Commit: Worker._commit,
    m.Abort: Worker._abort,
    m.Inject: Worker._inject,
    m.Forget: Worker._forget,
    m.Cancel: Worker._cancel,
    m.Free: Worker._free,
    m.Replicate: Worker._replicate,
}
