"""A worker inside an ipyparallel engine.

Three kinds of threads beside the engine's own: `control` speaks with the master, `data` receives
from other engines, and one `runner` for each rank. One lock guards the machine; what it commands is
executed under the lock, and none of that waits. The engine's main thread stays ipyparallel's.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from time import monotonic
from typing import Any

import zmq

from feliss_nb.core import commands as cmd
from feliss_nb.core import messages as m
from feliss_nb.core.rank import Rank
from feliss_nb.core.worker import Worker
from feliss_nb.errors import InternalError, StoreError
from feliss_nb.runtime import wire
from feliss_nb.runtime.board import Board, path_of
from feliss_nb.runtime.capturing import Captured
from feliss_nb.runtime.control import Control, trouble
from feliss_nb.runtime.copier import Copier
from feliss_nb.runtime.data import Data
from feliss_nb.runtime.doors import Doors
from feliss_nb.runtime.failure import describe
from feliss_nb.runtime.forking import process_stands_fork
from feliss_nb.runtime.functions import Functions
from feliss_nb.runtime.misbehaving import misbehave
from feliss_nb.runtime.mpi_link import MpiLink, MpiWorld, find_place
from feliss_nb.runtime.output import Printer
from feliss_nb.runtime.owner import end_engine_with, follow, start_time
from feliss_nb.runtime.peers import Peers
from feliss_nb.runtime.runner import Runner
from feliss_nb.runtime.shard import join, reached_by
from feliss_nb.state.snapshot import capture, frames
from feliss_nb.store.memory import MemoryStore

IMPORT_PATIENCE = 30.0  # seconds that an import may take to end before it is interrupted

_workers: dict[str, EngineWorker] = {}


def install(
    engine: str,
    directory: str,
    owner: int,
    owner_started: float,
    size: int,
    seed: int,
    paths: list[str],
    folder: str | None,
    own: bool,
) -> None:
    """Start the worker of a session in this engine.

    Parameters
    ----------
    engine : str
        This engine's identity in the session.
    directory : str
        The session's private directory.
    owner, owner_started
        The session's process: when it ends, so does the worker.
    size, seed : int
        The number of ranks; the seed of their random numbers.
    paths : list of str
        The notebook's module search path.
    folder : str or None
        The notebook's working directory, to work in; None: stay.
    own : bool
        Whether the session started this engine, so that it ends with the session's process.
    """
    if directory in _workers:
        return  # it was asked for twice
    sys.path.extend(path for path in paths if path not in sys.path)
    if folder is not None:
        os.chdir(folder)
    worker = EngineWorker(engine, Path(directory), size, seed, own)
    _workers[directory] = worker
    if own:
        end_engine_with(owner, owner_started, [directory])
    else:

        def clear_up() -> None:
            worker.close()
            shutil.rmtree(directory, ignore_errors=True)

        follow(owner, owner_started, clear_up, lambda: worker.is_closed)


class EngineWorker:
    """The runtime of one engine.

    Parameters
    ----------
    engine : str
        Its identity.
    directory : Path
        Where the sockets of the session are.
    size, seed : int
        The number of ranks; the seed of their random numbers.
    own : bool
        Whether the session started this engine.
    """

    def __init__(self, engine: str, directory: Path, size: int, seed: int, own: bool) -> None:
        self.engine, self.directory, self._is_own = engine, directory, own
        self.size, self.seed = size, seed
        self.lock = threading.RLock()
        self.worker = Worker(engine)
        self.store = MemoryStore()
        self.runners: dict[int, Runner] = {}
        self.captures: dict[tuple[int, int], Captured] = {}
        self.progress: dict[tuple[int, int], tuple[int, int]] = {}
        self.mapped: dict[tuple[int, int], int] = {}
        self.names: dict[int, str] = {}
        self.board = Board(path_of(directory, engine), size)
        self.printer = Printer(self)
        self.copier = Copier(self)
        self._to_stop: list[tuple[Runner, int | None, float]] = []  # until they have
        self._closing = False
        self._context = zmq.Context()
        self._doors = Doors(self._context, directory)
        self.peers = Peers(self._context, self._doors, engine)
        self._place = find_place()
        self._world = MpiWorld(self._linked) if self._place and not self._place.trouble else None
        self._attempt = -1  # of the last rollback
        self.link: MpiLink | None = None  # carries the epoch's messages of gangs; else the peers
        self.link_is_open = False  # it is not decided yet which of them
        self.control = Control(self, self._context, self._doors)
        self.functions = Functions(self.lock, lambda: self.control.is_heard)
        self.data = Data(self, self.peers)
        self.control.start()
        self.data.start()

    # ------------------------------------------------------------ what the master says

    def hello(self, heard: int) -> wire.Hello:
        """Return what a master is told first. The lock is held."""
        me = os.getpid()
        about = self.engine, me, start_time(me), self._place
        is_told = self._world is not None and not self.link_is_open
        return wire.Hello(
            *about, heard, (self._attempt, self.link is not None) if is_told else None
        )

    def take(self, message: Any) -> None:
        """Take a message of the master's runtime. The lock is held."""
        if isinstance(message, wire.Blob):
            self.functions.keep(message)
        elif isinstance(message, wire.DropBlobs):
            self.functions.drop(message.digests)
        elif isinstance(message, wire.Names):
            self.names.update(message.names)
        elif isinstance(message, wire.Link):
            self._make_link(message)
        elif isinstance(message, wire.Carrier):
            self._use_link(message)
        elif isinstance(message, wire.StoreAt | wire.Keep | wire.Fetch):
            self.copier.take(message)
        elif isinstance(message, wire.Misbehave):
            misbehave(self, message)
        elif isinstance(message, wire.Quit):
            threading.Thread(target=self.close, name="feliss-close", daemon=True).start()
        else:
            raise InternalError(f"a message of an unknown kind {type(message).__name__}")

    def take_order(self, message: Any) -> None:
        """Take a message of the master itself. The lock is held."""
        if isinstance(message, m.Rollback):
            self.peers.forget_dead()
            self.captures.clear()
            self.copier.call_off()
            if self._world is not None:
                self._world.end_epoch()
            self._attempt = message.attempt
            self.link, self.link_is_open = None, self._world is not None
        self.execute(self.worker.handle(message))
        if isinstance(message, m.Resume):
            self.data.own_borrowed()

    def _make_link(self, order: wire.Link) -> None:
        if self._world is not None:
            self._world.order(order)

    def _linked(self, message: wire.Linked) -> None:
        with self.lock:
            self.to_master(message)

    def _use_link(self, decision: wire.Carrier) -> None:
        if self._world is not None and decision.attempt == self._attempt:
            self.link = self._world.decided(decision)
            self.link_is_open = False
            for runner in self.runners.values():
                runner.bell.ring()

    # ------------------------------------------------------------ what the master hears

    def to_master(self, message: Any) -> None:
        """Send a message to the master: see `Control.send`."""
        self.control.send(message)

    def tick(self) -> None:
        """Send what may wait: printed lines, progress, reports of busy ranks."""
        with self.lock:
            self.peers.tidy()
            if self.control.is_idle:
                self._tell_progress()
            self.report()
            running, self._to_stop = self._to_stop, []
            for runner, job, deadline in running:
                self._stop_user_code(runner, job, deadline)
        if not self.directory.exists():  # the session was cleared away
            if self._is_own:
                os._exit(0)
            threading.Thread(target=self.close, name="feliss-close", daemon=True).start()

    def _tell_progress(self) -> None:
        pools = {r.rank: sum(r.alive.values()) for r in self.worker.ranks.values()}
        progress, self.progress = self.progress, {}
        mapped, self.mapped = self.mapped, {}
        heard, unanswered = self.control.heard, tuple(self.peers.count())
        kept_out = self._doors.refused, self._doors.dropped
        about = self.worker.epoch, progress, mapped, pools, heard, unanswered
        self.to_master(wire.Progress(*about, kept_out))

    def report(self) -> None:
        """Report jobs that have nothing left here, after what they printed. The lock is held."""
        if not self.control.is_idle:
            return
        lines = self.printer.take(self._has_nothing_of)
        if lines:
            self.to_master(wire.Printed(tuple(lines)))
        if self.progress or self.mapped:  # whoever sees the end of a job sees all of its figures
            self._tell_progress()
        self.execute(self.worker.reports())

    def _has_nothing_of(self, rank: int, job: int) -> bool:
        found = self.worker.ranks.get(rank)
        return found is None or job not in found.alive

    def fail(self, rank: Rank, job: int, error: Any) -> None:
        """Tell the master that a continuation raised. The lock is held."""
        self.to_master(m.Failed(rank.epoch, rank.cut, rank.rank, job, error))

    def trouble(self, error: BaseException) -> None:
        """Tell the master of a bug of ours."""
        self.to_master(trouble(error))

    # ------------------------------------------------------------ commands

    def execute(self, commands: list[Any]) -> None:
        """Do what the machine says. The lock is held."""
        for command in commands:
            _COMMANDS[type(command)](self, command)

    def _to_engine(self, command: cmd.ToEngine) -> None:
        self.data.ask(command.engine, command.message)

    def _run(self, command: cmd.Run) -> None:
        runner = self.runners.get(command.rank)
        if runner is not None:
            runner.bell.ring()

    def _capture(self, command: cmd.Capture) -> None:
        runner = self.runners[command.rank]
        runner.to_capture = command
        runner.bell.ring()

    def _seal(self, command: cmd.Seal) -> None:
        rank, checkpoint = command.rank, command.checkpoint
        captured = self.captures.pop((rank, checkpoint))
        channel = capture(command.channel, label="messages under way")
        channel_frames = frames(channel)
        shard = join(captured.frames, channel_frames)
        self.store.put((checkpoint, rank), shard, captured.filled)
        sent, base = shard, captured.base
        if captured.difference:
            sent = join(captured.difference, channel_frames)
        for holder in command.holders:
            if captured.difference:
                self.data.send_difference(holder, checkpoint, rank, base, sent)
            else:
                self.data.send_shard(holder, checkpoint, rank, shard)
        self.copier.sealed(checkpoint, rank, shard, base, sent)
        saved = m.Saved(
            self.worker.epoch,
            checkpoint,
            rank,
            captured.nbytes + channel.nbytes,
            captured.pause,
            captured.reaches | reached_by(continuation for _, continuation in command.channel),
            captured.variables,
            captured.written + channel.nbytes,
        )
        self.execute(self.worker.kept(saved))

    def _discard(self, command: cmd.Discard) -> None:
        self.captures.pop((command.rank, command.checkpoint), None)
        self.copier.call_off(command.rank)
        runner = self.runners.get(command.rank)
        if runner is not None:
            runner.to_capture = None
            runner.capturing.discard()

    def _load(self, command: cmd.Load) -> None:
        key = command.checkpoint, command.rank
        load = None if command.checkpoint == 0 else lambda: self.store.get(key)
        self.runners[command.rank] = Runner(self, self.worker.ranks[command.rank], load)

    def _retire(self, command: cmd.Retire) -> None:
        runner = self.runners.pop(command.rank, None)
        if runner is not None:
            runner.retire()
            runner.capturing.discard()
            runner.bell.ring()
            self._stop_user_code(runner, None)

    def _stop_job(self, command: cmd.StopJob) -> None:
        runner = self.runners.get(command.rank)
        if runner is not None:
            self._stop_user_code(runner, command.job)

    def _stop_user_code(
        self, runner: Runner, job: int | None, deadline: float | None = None
    ) -> None:
        if deadline is None:
            deadline = monotonic() + IMPORT_PATIENCE
        if not runner.stop_user_code(job, monotonic() < deadline):
            self._to_stop.append((runner, job, deadline))

    def _job_over(self, command: cmd.JobOver) -> None:
        for runner in self.runners.values():
            runner.forget_job(command.job)

    def _drop(self, command: cmd.Drop) -> None:
        self.store.drop(command.older, command.exactly)

    def _delete(self, command: cmd.Delete) -> None:
        for runner in self.runners.values():
            for variable in command.variables:
                runner.state.partitions.pop(variable, None)

    def _send_shard(self, command: cmd.SendShard) -> None:
        try:
            shard = self.store.get((command.checkpoint, command.rank))
        except KeyError:
            self.execute(self.worker.lost(command))
            return
        self.data.send_shard(command.engine, command.checkpoint, command.rank, shard)

    def copy_failed(self, checkpoint: int, rank: int, error: BaseException) -> None:
        """Go on without a snapshot that cannot be kept here, and tell the master."""
        why = f"{type(error).__name__}: {error}"
        told = StoreError(f"engine {self.engine} cannot keep a snapshot in its memory ({why})")
        failure = describe(told, rank, "checkpoint", None)
        with self.lock:
            self.store.lose((checkpoint, rank))
            self.execute(self.worker.copy_failed(checkpoint, rank, failure))

    def may_fork(self, asking: Runner) -> bool:
        """Tell whether the engine stands a fork by a rank's thread now: see `forking`. Lock it."""
        others = [runner for runner in self.runners.values() if runner is not asking]
        return (
            self._place is None
            and not self._to_stop
            and not any(runner.in_user_code for runner in others)
            and not self.peers.has_writable()
            and process_stands_fork()
        )

    def hold_memory(self) -> None:
        """Leave in shared memory what lies there, though nobody refers to it any more."""
        self.peers.hold()

    def release_memory(self) -> None:
        """End a `hold_memory`."""
        self.peers.release()

    # ------------------------------------------------------------ for ranks

    def fresh(self, buffers: Iterable[Any], shared: bool = False) -> list[memoryview]:
        """Copy buffers to where a peer can read them: see `segments.Segments.fresh`."""
        return self.peers.segments.fresh(buffers, shared)

    def room(self, sizes: Iterable[int]) -> list[memoryview]:
        """Give memory for what is kept and sent: see `segments.Segments.room`."""
        return self.peers.segments.room(sizes, shared=True)

    def shares_memory(self, ranks: Iterable[int]) -> bool:
        """Tell whether the engines of these ranks read our segments where they lie."""
        with self.lock:
            engines = {self.worker.routes[rank] for rank in ranks} - {self.engine}
        return self.peers.share_memory(engines)

    def variable_name(self, variable: int) -> str:
        """Return what to call a variable in a message."""
        name = self.names.get(variable)
        return repr(name) if name else str(variable)

    def tell_of_wait(
        self,
        rank: Rank,
        step: tuple[int, int],
        waits: list[Any],
        sent: list[int],
        received: list[int],
    ) -> None:
        """Tell the master that a step has waited for a message for long."""
        with self.lock:
            if rank.state != "retired":
                waiting = wire.Waiting(
                    rank.epoch, rank.cut, rank.rank, step, waits, tuple(sent), tuple(received)
                )
                self.to_master(waiting)

    # ------------------------------------------------------------ the end

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing

    def close(self) -> None:
        """End the worker's threads; the engine goes on."""
        with self.lock:
            if self._closing:
                return
            self._closing = True
            _workers.pop(str(self.directory), None)
            self.execute([cmd.Retire(rank) for rank in list(self.runners)])
            for rank in self.worker.ranks.values():
                rank.retire()
            for runner in self.runners.values():
                runner.bell.ring()
        if self._world is not None:
            self._world.close()
        self.copier.close()
        self.control.close()
        self.peers.close()
        self.data.close()
        self.printer.close()
        self._doors.close()
        if not (self.control.is_alive or self.data.is_alive):
            self._context.destroy(linger=0)  # under a thread that uses a socket it would abort


_COMMANDS: dict[type, Any] = {
    cmd.ToMaster: lambda self, command: self.to_master(command.message),
    cmd.ToEngine: EngineWorker._to_engine,
    cmd.Run: EngineWorker._run,
    cmd.Capture: EngineWorker._capture,
    cmd.Seal: EngineWorker._seal,
    cmd.Discard: EngineWorker._discard,
    cmd.Load: EngineWorker._load,
    cmd.Retire: EngineWorker._retire,
    cmd.StopJob: EngineWorker._stop_job,
    cmd.JobOver: EngineWorker._job_over,
    cmd.Drop: EngineWorker._drop,
    cmd.Delete: EngineWorker._delete,
    cmd.SendShard: EngineWorker._send_shard,
}
