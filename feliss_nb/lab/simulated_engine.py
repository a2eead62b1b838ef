"""An engine of the simulator: a real worker machine, and a runtime that keeps its commands.

It is as unkind as a real one may be: a continuation sends half of what it sends while it runs and
half when it ends, one of an old epoch goes on to its end, a capture is taken some time after the
cut and told some time after it is taken, and a failed one may show late. A step of a gang ends
on no rank before it has begun on all of them.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from feliss_nb.core import commands as cmd
from feliss_nb.core import messages as m
from feliss_nb.core.ids import child_id
from feliss_nb.core.rank import Rank
from feliss_nb.core.seat import Link
from feliss_nb.core.worker import Worker
from feliss_nb.lab.simulated_programs import BODIES, Failure, Here, refs

if TYPE_CHECKING:
    from feliss_nb.lab.simulator import Simulation


@dataclass(slots=True)
class Shard:
    """A rank's snapshot, as it lies in a store."""

    image: m.RankImage
    partitions: dict[int, Any]
    channel: tuple[tuple[int, m.Continuation], ...] = ()
    damaged: bool = False  # its digest is another

    def handles(self) -> frozenset[int]:
        """Return the variables that it reaches."""
        works = [c.work[1] for c in self.image.pool] + [c.work[1] for _, c in self.channel]
        return frozenset(refs([self.partitions, works]))


@dataclass(slots=True)
class Runner:
    """What runs one rank in one epoch."""

    machine: Rank
    partitions: dict[int, Any] = field(default_factory=dict)
    busy: bool = False
    stopped: bool = False
    to_capture: cmd.Capture | None = None
    waits: Callable[[], None] | None = None  # ends a step that other ranks have not begun


def _step_after(continuation: m.Continuation) -> tuple[int, int]:
    gang, step = continuation.gang or (continuation.job, 0)
    return gang, step + 1


class SimulatedEngine:
    """One engine.

    Parameters
    ----------
    name : str
        Its identity.
    simulation : Simulation
        Where it lives: gives time, network and random numbers.
    """

    def __init__(self, name: str, simulation: Simulation) -> None:
        self.name, self.simulation = name, simulation
        self.alive = True
        self.still_until = 0.0  # nothing happens here before
        self.slow_until, self.factor = 0.0, 1.0
        self.worker = Worker(name)
        self.link = Link()  # to the master
        self.runners: dict[int, Runner] = {}
        self.captures: dict[tuple[int, int], Shard] = {}
        self.store: dict[tuple[int, int], Shard] = {}
        self.reporting = False

    def later(self, action: Any, *args: Any, longest: float = 1.0) -> None:
        """Do something here after a while, if this engine then lives."""
        simulation = self.simulation

        def act() -> None:
            if self.alive and simulation.now < self.still_until:
                simulation.clock.after(self.still_until - simulation.now, act)
            elif self.alive:
                action(*args)

        delay = simulation.rng.random() * longest
        simulation.clock.after(
            delay * self.factor if simulation.now < self.slow_until else delay, act
        )

    def running(self) -> tuple[m.Running, ...]:
        """Return what runs here."""
        found = [(rank, runner.machine.running) for rank, runner in self.runners.items()]
        return tuple(m.Running(rank, c.job, c.id) for rank, c in found if c is not None)

    def hear(self, message: Any) -> None:
        """Take the master's word."""
        self.execute(self.worker.handle(message))

    def execute(self, commands: list[Any]) -> None:
        """Do what the machine says."""
        for command in commands:
            _COMMANDS[type(command)](self, command)

    def _to_master(self, command: cmd.ToMaster) -> None:
        self.simulation.control.hear(self.name, command.message)

    # ------------------------------------------------------------ continuations

    def _run(self, command: cmd.Run) -> None:
        if command.rank in self.runners:
            self._kick(self.runners[command.rank])

    def _kick(self, runner: Runner) -> None:
        rank = runner.machine
        if runner.busy or rank.state == "retired":
            return
        if runner.to_capture is not None:
            runner.busy = True
            self.later(self._capture_now, runner, longest=0.3)
            return
        continuation, commands = self.worker.next(rank)
        self.execute(commands)
        if continuation is not None:
            self._start(runner, continuation)
        elif rank.dirty and not self.reporting:
            self.reporting = True
            self.later(self._report)

    def _report(self) -> None:
        self.reporting = False
        self.execute(self.worker.reports())

    def _start(self, runner: Runner, continuation: m.Continuation) -> None:
        runner.busy, runner.stopped = True, False
        rank, (name, args) = runner.machine, continuation.work
        self.simulation.moment("mapping", rank.rank)
        here = Here(
            rank.rank,
            self.simulation.size,
            random.Random(continuation.id),
            runner.partitions,
        )
        failure: str | None = None
        try:
            if continuation.id in self.worker.poisoned:
                raise Failure("set aside")
            missing = rank.missing(continuation)
            if missing is not None:
                raise Failure(f"variable {missing} will never be there")
            if name == "poison":
                self.simulation.kill(self.name, known=False)
                return
            BODIES[name](here, *args)
        except Failure as error:
            failure = str(error)
        whole = [what for what in here.done if what[0] != "then"]
        at = self.simulation.rng.randint(0, len(whole))
        self._perform(runner, continuation, here.done[:at], 0)
        rest = here.done[at:]

        def end() -> None:
            runner.waits = None
            self.later(self._end, runner, continuation, rest, at, failure, longest=2.0)

        if continuation.gang is None:
            end()
        else:
            runner.waits = end
            self.simulation.begun(rank.epoch, continuation.gang, runner)

    def _perform(
        self, runner: Runner, continuation: m.Continuation, done: list[Any], first: int
    ) -> None:
        rank, job = runner.machine, continuation.job
        for ordinal, (kind, *what) in enumerate(done, first):
            if kind == "put":
                to, work, needs = what
                child = m.Continuation(child_id(continuation.id, ordinal), job, needs, work)
                if to == rank.rank:
                    rank.put(child)
                else:
                    self._send(rank, to, child)
            elif kind == "then":
                work, needs = what
                identity, step = child_id(continuation.id, ordinal), _step_after(continuation)
                rank.put(m.Continuation(identity, job, needs, work, step))
            elif kind == "set":
                variable, value = what
                runner.partitions[variable] = value
                rank.set_ready(variable)
            else:
                # now and then another digest for an equal value: then the values are compared
                noise = self.simulation.rng.randint(0, 1)
                digest = f"{what[0]}/{noise}".encode()
                handles = frozenset(refs(what[0]))
                value = copy.deepcopy(what[0])
                output = m.Output(rank.epoch, rank.cut, rank.rank, job, digest, value, handles)
                self.simulation.control.hear(self.name, output)

    def _send(self, rank: Rank, to: int, continuation: m.Continuation) -> None:
        cut = rank.send(continuation.job, to)
        parcel = (rank.epoch, to, rank.rank, cut, continuation)
        engine = self.worker.routes[to]
        if engine == self.name:
            self.execute(self.worker.deliver(*parcel))
        else:
            self.simulation.moment("shuffling", rank.rank)
            self.simulation.to_peer(self.name, engine, "continuation", parcel)

    def _end(
        self,
        runner: Runner,
        continuation: m.Continuation,
        rest: list[Any],
        first: int,
        failure: str | None,
    ) -> None:
        rank = runner.machine
        if not runner.stopped or self.simulation.rng.random() < 0.5:
            self._perform(runner, continuation, rest, first)
            if failure is not None:
                error = m.Failed(rank.epoch, rank.cut, rank.rank, continuation.job, failure)
                self.simulation.control.hear(self.name, error)
        runner.busy = False
        if rank.state != "retired":
            self.execute(self.worker.finished(rank))
            self._kick(runner)

    def _stop_job(self, command: cmd.StopJob) -> None:
        runner = self.runners.get(command.rank)
        running = runner.machine.running if runner is not None else None
        if runner is not None and running is not None and running.job == command.job:
            runner.stopped = True
            if runner.waits is not None:
                runner.waits()

    def _retire(self, command: cmd.Retire) -> None:
        runner = self.runners.pop(command.rank, None)
        if runner is not None:
            runner.stopped = True

    def peer(self, kind: str, what: tuple[Any, ...]) -> None:
        """Take what another engine sent."""
        if kind == "continuation":
            self.simulation.moment("reducing", what[1])
            self.execute(self.worker.deliver(*what))
        elif kind == "want":
            self.execute(self.worker.want(*what))
        elif kind == "absent":
            self.execute(self.worker.absent(*what))
        else:
            checkpoint, rank, shard = what
            awaited = self.worker.is_awaited(checkpoint, rank)
            if not awaited and self.simulation.fails("copy", self.name):
                self._lose((checkpoint, rank))
                return
            self.store[checkpoint, rank] = shard
            self.execute(self.worker.stored(checkpoint, rank))

    # ------------------------------------------------------------ snapshots

    def _capture(self, command: cmd.Capture) -> None:
        runner = self.runners[command.rank]
        runner.to_capture = command
        self.simulation.moment("capturing", command.rank)
        self._kick(runner)

    def _capture_now(self, runner: Runner) -> None:
        command, runner.to_capture, runner.busy = runner.to_capture, None, False
        rank = runner.machine
        if command is not None and rank.state != "retired":
            if self.simulation.fails("capture", self.name):
                error = Failure("a lock cannot be saved")
                self.execute(self.worker.capture_failed(rank, command.checkpoint, error))
            else:
                shard = Shard(command.image, copy.deepcopy(runner.partitions))
                self.captures[command.checkpoint, rank.rank] = shard
                self.later(self._captured, rank, command.checkpoint)
        self._kick(runner)

    def _captured(self, rank: Rank, checkpoint: int) -> None:
        self.execute(self.worker.captured(rank, checkpoint))

    def _discard(self, command: cmd.Discard) -> None:
        self.captures.pop((command.checkpoint, command.rank), None)
        if command.rank in self.runners:
            self.runners[command.rank].to_capture = None

    def _seal(self, command: cmd.Seal) -> None:
        key = command.checkpoint, command.rank
        shard = self.captures.pop(key)
        shard.channel = command.channel
        machine = self.runners[command.rank].machine
        self.simulation.moment("encoding", command.rank)
        self.later(self._keep, machine, key, shard, command.holders)

    def _keep(
        self, rank: Rank, key: tuple[int, int], shard: Shard, holders: tuple[str, ...]
    ) -> None:
        if self.simulation.fails("keep", self.name):
            error = Failure("no memory is left")
            self.execute(self.worker.capture_failed(rank, key[0], error))
            return
        self.store[key] = shard
        for holder in holders:
            self.simulation.to_peer(self.name, holder, "shard", (*key, shard))
        variables = frozenset(shard.partitions)
        saved = m.Saved(rank.epoch, *key, 1, 0.0, shard.handles(), variables)
        self.execute(self.worker.kept(saved))
        if self.simulation.fails("fill", self.name):
            self.later(self._lose, key)

    def _lose(self, key: tuple[int, int]) -> None:
        self.store.pop(key, None)
        self.execute(self.worker.copy_failed(*key, Failure("no memory is left")))

    def _load(self, command: cmd.Load) -> None:
        runner = self.runners[command.rank] = Runner(self.worker.ranks[command.rank], busy=True)
        self.later(self._load_now, runner, command.checkpoint)

    def _load_now(self, runner: Runner, checkpoint: int) -> None:
        rank = runner.machine
        if rank.state == "retired":
            return
        if checkpoint and self.simulation.fails("load", self.name):
            self.execute(self.worker.load_failed(rank.rank, "the digest is another"))
            return
        if checkpoint and (checkpoint, rank.rank) not in self.store:
            self.execute(self.worker.load_failed(rank.rank, "the snapshot is not here"))
            return
        if checkpoint and self.store[checkpoint, rank.rank].damaged:
            self.execute(self.worker.load_failed(rank.rank, "the digest is another"))
            return
        shard = Shard(m.RankImage(), {})
        if checkpoint:
            shard = copy.deepcopy(self.store[checkpoint, rank.rank])
        runner.partitions, runner.busy = shard.partitions, False
        ready = frozenset(shard.partitions)
        self.execute(self.worker.loaded(rank, shard.image, shard.channel, ready))

    def _drop(self, command: cmd.Drop) -> None:
        for key in list(self.store):
            if key[0] < command.older or key[0] == command.exactly:
                del self.store[key]

    def _delete(self, command: cmd.Delete) -> None:
        for runner in self.runners.values():
            for variable in command.variables:
                runner.partitions.pop(variable, None)

    def _send_shard(self, command: cmd.SendShard) -> None:
        key = command.checkpoint, command.rank
        if self.simulation.fails("send", self.name):
            self.store.pop(key, None)
        if key not in self.store:
            self.execute(self.worker.lost(command))
            return
        self.simulation.to_peer(self.name, command.engine, "shard", (*key, self.store[key]))

    def _to_engine(self, command: cmd.ToEngine) -> None:
        kind = "want" if isinstance(command.message, m.Want) else "absent"
        self.simulation.to_peer(self.name, command.engine, kind, (command.message,))

    def _job_over(self, command: cmd.JobOver) -> None:
        """Nothing is kept for a job."""


_COMMANDS: dict[type, Any] = {
    cmd.ToMaster: SimulatedEngine._to_master,
    cmd.ToEngine: SimulatedEngine._to_engine,
    cmd.Run: SimulatedEngine._run,
    cmd.StopJob: SimulatedEngine._stop_job,
    cmd.Retire: SimulatedEngine._retire,
    cmd.Capture: SimulatedEngine._capture,
    cmd.Discard: SimulatedEngine._discard,
    cmd.Seal: SimulatedEngine._seal,
    cmd.Load: SimulatedEngine._load,
    cmd.Drop: SimulatedEngine._drop,
    cmd.Delete: SimulatedEngine._delete,
    cmd.SendShard: SimulatedEngine._send_shard,
    cmd.JobOver: SimulatedEngine._job_over,
}
