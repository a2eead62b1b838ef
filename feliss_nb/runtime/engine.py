"""A worker inside an ipyparallel engine.

Three kinds of threads beside the engine's own: *control* speaks with the master, *data* receives
from other engines, and one runner for each rank. One lock guards the machine; what it commands is
executed under the lock, and none of that waits. The engine's main thread stays ipyparallel's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import zmq

from feliss_nb.core import messages as m
from feliss_nb.core.rank import Rank
from feliss_nb.core.seat import Link
from feliss_nb.core.worker import Worker
from feliss_nb.errors import CorruptSnapshot, InternalError
from feliss_nb.runtime import terms, wire
from feliss_nb.runtime.blobs import large_buffers
from feliss_nb.runtime.board import Board, path_of
from feliss_nb.runtime.capturing import Captured
from feliss_nb.runtime.copier import NICE, Copier
from feliss_nb.runtime.doors import Doors
from feliss_nb.runtime.forking import process_stands_fork
from feliss_nb.runtime.misbehaving import misbehave
from feliss_nb.runtime.mpi_link import MpiLink, MpiWorld, find_place
from feliss_nb.runtime.output import Printer
from feliss_nb.runtime.owner import end_engine_with, follow, start_time
from feliss_nb.runtime.peers import LOST, Peers
from feliss_nb.runtime.runner import Runner
from feliss_nb.runtime.shard import join, reached_by, split
from feliss_nb.state.differences import apply
from feliss_nb.state.functions import refresh_modules
from feliss_nb.state.snapshot import capture, frames
from feliss_nb.store.memory import MemoryStore

TICK = 0.1  # seconds between looks at printed lines, progress, late reports, and for the master

# So many messages on their way to the master mean that it does not listen: reports wait, so that
# they do not pile up.
MOST_UNHEARD = 1000

IMPORT_PATIENCE = 30.0  # seconds that an import may take to end before it is interrupted

BLOB_TIMEOUT = 60.0  # seconds; the master has sent it before anybody could name it

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
        self._borrowed: dict[tuple[int, int], list[Any]] = {}  # shards in memory of others
        self.progress: dict[tuple[int, int], tuple[int, int]] = {}
        self.mapped: dict[tuple[int, int], int] = {}
        self.names: dict[int, str] = {}
        self.board = Board(path_of(directory, engine), size)
        self.mute = False  # a faulty network: the master hears nothing any more
        self.printer = Printer(self)
        self.copier = Copier(self)
        self._blobs: dict[bytes, wire.Blob] = {}
        self._blob_arrived = threading.Condition(self.lock)
        self._outbox: deque[list[Any]] = deque()
        self._link = Link()  # to the master
        self._term = 0  # of the master that this worker listens to
        self._is_heard = False  # it is there, and has welcomed this worker
        self.masters = 0  # that have: what was told to one only is told to the next
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
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
        self._inbox = self.peers.bind()
        self._control = threading.Thread(target=self._talk, name="feliss-control", daemon=True)
        self._data = threading.Thread(target=self._listen, name="feliss-data", daemon=True)
        self._control.start()
        self._data.start()

    # ------------------------------------------------------------ the control thread

    def _talk(self) -> None:
        poller = zmq.Poller()
        poller.register(self._wake, zmq.POLLIN)
        socket = self._meet_master(poller)
        next_tick = monotonic()
        try:
            while not self._closing:
                poller.modify(socket, zmq.POLLIN | (zmq.POLLOUT if self._outbox else 0))
                ready = dict(poller.poll(int(TICK * 1000)))
                if self._wake in ready:
                    os.eventfd_read(self._wake)
                if ready.get(socket, 0) & zmq.POLLIN:
                    self._take_all(socket)
                if monotonic() >= next_tick:
                    self._tick()
                    next_tick = monotonic() + TICK
                    if not self.directory.exists():  # the session was cleared away
                        self._end()
                    if terms.read(self.directory) > self._term:
                        poller.unregister(socket)
                        socket.close(0)
                        socket = self._meet_master(poller)
                self._send_all(socket)
        except BaseException as error:  # the master must hear of a bug of ours
            wire.send(socket, self._doors.seal(wire.encode(wire.Trouble(_text(error)))))
            raise
        finally:
            socket.close(0 if self._closing else 1000)

    def _end(self) -> None:
        if self._is_own:
            os._exit(0)
        threading.Thread(target=self.close, name="feliss-close", daemon=True).start()

    def _meet_master(self, poller: zmq.Poller) -> zmq.Socket[bytes]:
        """Turn to the master of now. It tells what it has heard, then it gets the rest."""
        self._term = terms.read(self.directory)
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.IDENTITY, self.engine.encode())
        socket.set_hwm(0)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing piles up for a master that is not there
        self._doors.connect(socket, terms.name(self._term))
        poller.register(socket, zmq.POLLIN)
        with self.lock:
            self._is_heard = False
            self._outbox.clear()
            me, heard = os.getpid(), self._link.heard
            about = self.engine, me, start_time(me), self._place
            is_told = self._world is not None and not self.link_is_open
            carries = (self._attempt, self.link is not None) if is_told else None
            hello = wire.Hello(*about, heard, carries)
            self._outbox.append(wire.encode(hello))
        return socket

    def _send_all(self, socket: zmq.Socket[bytes]) -> None:
        if self.mute:
            self._outbox.clear()
        while self._outbox:
            try:
                wire.send(socket, self._doors.seal(self._outbox[0]), zmq.NOBLOCK)
            except zmq.Again:
                self._is_heard = False  # what counts is kept
                return
            self._outbox.popleft()

    def _welcome(self, heard: int) -> None:
        for number, message in self._link.again(heard):
            self._post(number, message)
        self._is_heard = True
        self.masters += 1

    def _take_all(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            try:
                frames = self._doors.open(wire.receive(socket, zmq.NOBLOCK))
            except zmq.Again:
                return
            if frames is None:
                continue
            message = wire.decode(frames)
            with self.lock:
                self._take(message)

    def _take(self, message: Any) -> None:
        if isinstance(message, wire.Numbered):
            self._link.acknowledged(message.heard)
            if self._link.is_new(message.number):
                self._link.heard = message.number
                self._take_order(message.message)
        elif isinstance(message, wire.Welcome):
            sys.path.extend(path for path in message.paths if path not in sys.path)
            self._welcome(message.heard)
        elif isinstance(message, wire.Heard):
            self._link.acknowledged(message.heard)
        elif isinstance(message, wire.Blob):
            self._keep_blob(message)
        elif isinstance(message, wire.DropBlobs):
            for digest in message.digests:
                self._blobs.pop(digest, None)
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

    def _take_order(self, message: Any) -> None:
        if isinstance(message, m.Rollback):
            self.peers.forget_dead()
            self.captures.clear()
            self.copier.call_off()
            if self._world is not None:
                self._world.end_epoch()
            self._attempt = message.attempt
            self.link, self.link_is_open = None, self._world is not None
        self.execute(self.worker.handle(message))
        if isinstance(message, m.Resume) and self._borrowed:
            borrowed, self._borrowed = self._borrowed, {}
            threading.Thread(
                target=self._copy_borrowed, args=(borrowed,), name="feliss-own", daemon=True
            ).start()

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

    def _tick(self) -> None:
        """Send what may wait: printed lines, progress, reports of busy ranks."""
        with self.lock:
            self.peers.tidy()
            if self.has_master:
                self._tell_progress()
            self.report()
            running, self._to_stop = self._to_stop, []
            for runner, job, deadline in running:
                self._stop_user_code(runner, job, deadline)

    def _tell_progress(self) -> None:
        pools = {r.rank: sum(r.alive.values()) for r in self.worker.ranks.values()}
        progress, self.progress = self.progress, {}
        mapped, self.mapped = self.mapped, {}
        heard, unanswered = self._link.heard, tuple(self.peers.count())
        kept_out = self._doors.refused, self._doors.dropped
        about = self.worker.epoch, progress, mapped, pools, heard, unanswered
        self.to_master(wire.Progress(*about, kept_out))

    @property
    def has_master(self) -> bool:
        """Whether a master listens: what may wait, waits until one does."""
        return self._is_heard and len(self._link.kept) < MOST_UNHEARD

    def to_master(self, message: Any) -> None:
        """Send a message to the master, in order. What the core says arrives in any case."""
        with self.lock:
            if type(message).__module__ == m.__name__:
                number = self._link.keep(message)
                if self._is_heard:
                    self._post(number, message)
            elif self._is_heard:
                self._outbox.append(wire.encode(message))
        os.eventfd_write(self._wake, 1)

    def _post(self, number: int, message: Any) -> None:
        self._outbox.append(wire.encode(wire.Numbered(number, self._link.heard, message)))

    def report(self) -> None:
        """Report jobs that have nothing left here, after what they printed. The lock is held."""
        if not self.has_master:
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
        self.to_master(wire.Trouble(_text(error)))

    # ------------------------------------------------------------ the data thread

    def _listen(self) -> None:
        inbox = self._inbox
        try:
            while self._listen_once(inbox):
                pass
        except zmq.ContextTerminated:
            return
        except BaseException as error:  # the master must hear of a bug of ours
            self.trouble(error)
            raise
        finally:
            inbox.close(0)

    def _listen_once(self, inbox: zmq.Socket[bytes]) -> bool:
        """Take a message, and refer to its memory no more; False at the end."""
        message = self.peers.receive(inbox)
        if message is None:
            return False
        head, buffers = message
        if head[0] == "shard":
            self._take_shard(head, buffers)
            return True
        if head[0] == "difference":
            buffers = self._whole(head, buffers)
        with self.lock:
            self._from_peer(head, buffers)
        return True

    def _take_shard(self, head: tuple[Any, ...], frames: list[Any]) -> None:
        """Keep a snapshot, in memory of our own: it is kept for long, and may be sent again.

        A rank that waits for it stands up from where it lies now, and we copy it behind that.
        """
        key = head[1:]
        with self.lock:
            if self.worker.is_awaited(*key):
                self._borrowed[key] = frames
                self._from_peer(head, frames)
                return
        frames = self.fresh(frames, shared=True)
        with self.lock:
            self._from_peer(head, frames)

    def _copy_borrowed(self, borrowed: dict[tuple[int, int], list[Any]]) -> None:
        """Copy what lies in memory of others, beside the ranks: they run again first."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        for key, theirs in borrowed.items():
            mine = self.fresh(theirs, shared=True)
            with self.lock:
                self.store.replace(key, theirs, mine)

    def _whole(self, head: tuple[Any, ...], frames: list[Any]) -> list[Any]:
        """Return the shard that a difference makes of the one that is here; empty if none is."""
        _, _, rank, base, _ = head
        main, channel = split(frames)
        try:
            old = split(self.store.get((base, rank)))[0] if base else ()
            whole = apply(old, main, self.room)
        except (KeyError, CorruptSnapshot):
            return []
        return join(whole, self.fresh(channel, shared=True))

    def _from_peer(self, head: tuple[Any, ...], buffers: list[Any]) -> None:
        kind = head[0]
        if kind == "continuation":
            _, epoch, rank, source, cut, identity, job, needs, root, data, *rest = head
            digests, reaches = rest
            parcel = wire.Parcel(root, data, tuple(buffers), digests, reaches)
            continuation = m.Continuation(identity, job, needs, parcel)
            self.execute(self.worker.deliver(epoch, rank, source, cut, continuation))
        elif kind == "gang":
            _, epoch, rank, source, gang, step, inner, small = head
            if epoch == self.worker.epoch and rank in self.runners:
                self.runners[rank].mailbox.post(gang, step, (source, inner, small or buffers))
        elif kind == "shard":
            _, checkpoint, rank = head
            self.store.put((checkpoint, rank), buffers)
            self.execute(self.worker.stored(checkpoint, rank))
        elif kind == "difference":
            _, checkpoint, rank, _, source = head
            if buffers:
                self.store.put((checkpoint, rank), buffers)
                self.execute(self.worker.stored(checkpoint, rank))
            else:  # it is a new holder: then the whole shard
                self.peers.send(source, ("want", checkpoint, rank, self.engine))
        elif kind == "want":
            self.execute(self.worker.want(m.Want(*head[1:])))
        elif kind == LOST:
            self.to_master(m.LinkBroken(head[1]))
        elif kind == "absent":
            self.execute(self.worker.absent(m.Absent(*head[1:])))
        else:
            raise InternalError(f"a message of an unknown kind {kind!r}")

    # ------------------------------------------------------------ commands

    def execute(self, commands: list[Any]) -> None:
        """Do what the machine says. The lock is held."""
        for command in commands:
            _COMMANDS[type(command)](self, command)

    def _to_engine(self, command: m.ToEngine) -> None:
        message: m.Want | m.Absent = command.message
        kind = "want" if isinstance(message, m.Want) else "absent"
        self.peers.send(command.engine, (kind, message.checkpoint, message.rank, message.engine))

    def _run(self, command: m.Run) -> None:
        runner = self.runners.get(command.rank)
        if runner is not None:
            runner.bell.ring()

    def _capture(self, command: m.Capture) -> None:
        runner = self.runners[command.rank]
        runner.to_capture = command
        runner.bell.ring()

    def _seal(self, command: m.Seal) -> None:
        rank, checkpoint = command.rank, command.checkpoint
        captured = self.captures.pop((rank, checkpoint))
        channel = capture(command.channel, label="messages under way")
        channel_frames = frames(channel)
        shard = join(captured.frames, channel_frames)
        self.store.put((checkpoint, rank), shard, captured.filled)
        head: tuple[Any, ...] = "shard", checkpoint, rank
        sent = shard
        if captured.difference:
            head = "difference", checkpoint, rank, captured.base, self.engine
            sent = join(captured.difference, channel_frames)
        for holder in command.holders:
            self.peers.send(holder, head, sent)
        self.copier.sealed(checkpoint, rank, shard, captured.base, sent)
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

    def _discard(self, command: m.Discard) -> None:
        self.captures.pop((command.rank, command.checkpoint), None)
        self.copier.call_off(command.rank)
        runner = self.runners.get(command.rank)
        if runner is not None:
            runner.to_capture = None
            runner.capturing.discard()

    def _load(self, command: m.Load) -> None:
        key = command.checkpoint, command.rank
        load = None if command.checkpoint == 0 else lambda: self.store.get(key)
        self.runners[command.rank] = Runner(self, self.worker.ranks[command.rank], load)

    def _retire(self, command: m.Retire) -> None:
        runner = self.runners.pop(command.rank, None)
        if runner is not None:
            runner.retire()
            runner.capturing.discard()
            runner.bell.ring()
            self._stop_user_code(runner, None)

    def _stop_job(self, command: m.StopJob) -> None:
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

    def _job_over(self, command: m.JobOver) -> None:
        for runner in self.runners.values():
            runner.forget_job(command.job)

    def _drop(self, command: m.Drop) -> None:
        self.store.drop(command.older, command.exactly)

    def _delete(self, command: m.Delete) -> None:
        for runner in self.runners.values():
            for variable in command.variables:
                runner.state.partitions.pop(variable, None)

    def _send_shard(self, command: m.SendShard) -> None:
        try:
            shard = self.store.get((command.checkpoint, command.rank))
        except KeyError:
            self.execute(self.worker.lost(command))
            return
        self.peers.send(command.engine, ("shard", command.checkpoint, command.rank), shard)

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

    # ------------------------------------------------------------ functions and messages

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

    def _keep_blob(self, blob: wire.Blob) -> None:
        refresh_modules(blob.modules)
        if any(isinstance(buffer, wire.Known) for buffer in blob.buffers):
            shared = {
                mark: other.buffers[place]
                for other in self._blobs.values()
                for mark, place in large_buffers(other.buffers)
            }
            blob.buffers = tuple(
                shared[buffer.digest] if isinstance(buffer, wire.Known) else buffer
                for buffer in blob.buffers
            )
        self._blobs[blob.digest] = blob
        self._blob_arrived.notify_all()

    def blob(self, digest: bytes) -> wire.Blob:
        """Return a function's blob; if a peer was faster than the master, wait for it.

        Raises
        ------
        InternalError
            If it never came.
        """
        with self.lock:
            waited = 0.0
            while not self._blob_arrived.wait_for(lambda: digest in self._blobs, 1.0):
                waited += self._is_heard  # another master sends it
                if waited >= BLOB_TIMEOUT:
                    raise InternalError(f"engine {self.engine} has no function {digest.hex()}")
            return self._blobs[digest]

    def captured_handles(self, digest: bytes) -> frozenset[int]:
        """Return the variables that a function captured."""
        blob = self._blobs.get(digest)
        return frozenset() if blob is None else blob.handles

    def variable_name(self, variable: int) -> str:
        """Return what to call a variable in a message."""
        name = self.names.get(variable)
        return repr(name) if name else str(variable)

    def post(
        self,
        rank: Rank,
        identity: bytes,
        job: int,
        target: int,
        needs: tuple[int, ...],
        parcel: wire.Parcel,
    ) -> None:
        """Send a continuation from one rank to another, on this engine or not."""
        # A request to stop comes with the lock held. So it does not come between counting the
        # message and sending it, or between the frames of one: it is heard in rank.send or behind.
        with self.lock:
            if rank.state == "retired":
                return
            cut = rank.send(job, target)
            engine = self.worker.routes[target]
            if engine == self.engine:
                continuation = m.Continuation(identity, job, needs, parcel)
                here = self.worker.deliver(rank.epoch, target, rank.rank, cut, continuation)
                self.execute(here)
                return
            head = (
                "continuation",
                rank.epoch,
                target,
                rank.rank,
                cut,
                identity,
                job,
                needs,
                parcel.root,
                parcel.data,
                parcel.digests,
                parcel.reaches,
            )
            self.peers.send(engine, head, parcel.buffers)

    def post_to_gang(
        self,
        rank: Rank,
        target: int,
        gang: int,
        step: int,
        head: tuple[Any, ...],
        buffers: Sequence[Any],
    ) -> None:
        """Send a message of a gang; the buffers do not change any more."""
        with self.lock:  # see `post`
            if rank.state == "retired":
                return
            engine = self.worker.routes[target]
            if engine == self.engine:
                if target in self.runners:
                    self.runners[target].mailbox.post(gang, step, (rank.rank, head, buffers))
                return
            inline, frames = (buffers, ()) if _is_small(buffers) else ((), buffers)
            whole = ("gang", rank.epoch, target, rank.rank, gang, step, head, inline)
            self.peers.send(engine, whole, frames)

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
            self.execute([m.Retire(rank) for rank in list(self.runners)])
            for rank in self.worker.ranks.values():
                rank.retire()
            for runner in self.runners.values():
                runner.bell.ring()
        if self._world is not None:
            self._world.close()
        self.copier.close()
        os.eventfd_write(self._wake, 1)
        self._control.join(2.0)
        self.peers.close()
        self._data.join(2.0)
        self.printer.close()
        self._doors.close()
        if not (self._control.is_alive() or self._data.is_alive()):
            self._context.destroy(linger=0)  # under a thread that uses a socket it would abort


def _is_small(buffers: Sequence[Any]) -> bool:
    return all(type(buffer) is bytes for buffer in buffers)


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


_COMMANDS: dict[type, Any] = {
    m.ToMaster: lambda self, command: self.to_master(command.message),
    m.ToEngine: EngineWorker._to_engine,
    m.Run: EngineWorker._run,
    m.Capture: EngineWorker._capture,
    m.Seal: EngineWorker._seal,
    m.Discard: EngineWorker._discard,
    m.Load: EngineWorker._load,
    m.Retire: EngineWorker._retire,
    m.StopJob: EngineWorker._stop_job,
    m.JobOver: EngineWorker._job_over,
    m.Drop: EngineWorker._drop,
    m.Delete: EngineWorker._delete,
    m.SendShard: EngineWorker._send_shard,
}
