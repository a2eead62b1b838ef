"""The thread that runs a rank's continuations.

Each rank has a thread of its own, so that ranks which share an engine can wait for each other. The
engine's lock guards the machines; user code runs without it. A rank that is retired leaves its
thread behind: it is asked to stop, nobody waits for it, and what it does has no effect.
"""

from __future__ import annotations

import ctypes
import pickle
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from feliss_nb.core import commands as cmd
from feliss_nb.core import messages as m
from feliss_nb.core.rank import Rank
from feliss_nb.errors import DependencyError, UsageError
from feliss_nb.runtime import mappings, segments, shared
from feliss_nb.runtime.bell import Bell
from feliss_nb.runtime.capturing import Capturing
from feliss_nb.runtime.failure import Failure, describe, name_of
from feliss_nb.runtime.here import Call, Here, Poisoned, StopContinuation, enter
from feliss_nb.runtime.mailbox import Mailbox
from feliss_nb.runtime.naming import name_in_call, name_part
from feliss_nb.runtime.poisoned import poison_error, short_call, users_call
from feliss_nb.runtime.shard import reached_by, split, without_work
from feliss_nb.runtime.wire import Body, Parcel
from feliss_nb.state.codec import fresh, pack, unpack
from feliss_nb.state.digest import DIGEST_SIZE
from feliss_nb.state.functions import Namespace, name_in_module
from feliss_nb.state.rebuild import by_name
from feliss_nb.state.snapshot import capture, frames, from_frames, restore

if TYPE_CHECKING:
    from feliss_nb.runtime.engine import EngineWorker

# A token that passes through a rank leaves it idle thousands of times a second, and a report takes
# longer than a hop. So a rank reports idle jobs when it has had nothing to do for QUIET seconds,
# and where it always has, every REPORT_EVERY.
QUIET = 0.005
REPORT_EVERY = 0.1

# Seconds between requests to stop: user code may lose one (an exception in a __del__ goes nowhere,
# `except BaseException` ends it), and needs some time for what it clears up.
STOP_AGAIN = 1.0

# What no request to stop may end halfway, by the names of the files.
_IMPORTING = ("<frozen importlib",)
_SHARING = (shared.__file__, segments.__file__, mappings.__file__)


@dataclass(slots=True)
class RankState:
    """What a rank holds besides its pool: all of it is in its snapshot.

    Parameters
    ----------
    partitions : dict of int to object
        The rank's share of each variable.
    namespaces : dict of int to Namespace
        For each job, the functions that arrived here.
    parked : dict of (int, bytes) to Call
        Continuations that wait for the reply of a call, by job and ticket.
    """

    partitions: dict[int, Any] = field(default_factory=dict)
    namespaces: dict[int, Namespace] = field(default_factory=dict)
    parked: dict[tuple[int, bytes], Call] = field(default_factory=dict)


class Runner:
    """Runs one rank in one epoch.

    Parameters
    ----------
    engine : EngineWorker
        The engine's worker.
    rank : Rank
        The rank's machine.
    load : Callable or None
        Gives the frames of the snapshot to stand up from; None: start empty.
    """

    def __init__(
        self, engine: EngineWorker, rank: Rank, load: Callable[[], list[Any]] | None
    ) -> None:
        self.engine = engine
        self.rank = rank
        self.state = RankState()
        self.bell = Bell()
        self.here: Here | None = None
        self.slot = engine.board.slot(rank.rank)
        self.slot.end()
        self.poisoned = engine.worker.poisoned
        self.phases: dict[int, str] = {}  # job -> the last one that the master was told of
        self.to_capture: cmd.Capture | None = None
        self.in_user_code = False
        self.asked_to_stop = False
        self._ask_again = 0.0  # when
        self.mailbox = Mailbox(self)
        self.capturing = Capturing(self)
        self.last_report = 0.0
        self._reported: set[int] = set()  # jobs that were reported once
        self._load = load
        self.thread = threading.Thread(
            target=self._main, name=f"feliss-rank-{rank.rank}", daemon=True
        )
        self.thread.start()

    # ------------------------------------------------------------ the thread

    def _main(self) -> None:
        try:
            if not self._stand_up():
                return
            self.here = Here(self, self.engine.size, self.engine.seed)
            enter(self.here)
            while self.rank.state != "retired":
                try:
                    self._loop(self.here)
                except StopContinuation:  # it arrived between two turns of the loop
                    continue
        except StopContinuation:
            return
        except BaseException as error:  # a bug of ours must be seen, not end a thread in silence
            self.engine.trouble(error)
            raise
        finally:
            self._leave()

    def _leave(self) -> None:
        """Let nobody ask the thread to stop any more.

        Its number may be another thread's next: one of pyzmq's was ended like that, and with it all
        large messages of the engine.
        """
        while True:
            try:
                with self.engine.lock:
                    self.in_user_code = False
                    self._no_stop()
                return
            except StopContinuation:  # it was on its way
                continue

    def _loop(self, here: Here) -> None:
        lock = self.engine.lock
        rank = self.rank
        failure: Failure | None = None
        is_quiet = False
        while True:
            # StopContinuation can arrive anywhere as long as asked_to_stop is set: the machine is
            # touched only behind the check that it is not, with the lock held.
            try:
                with lock:
                    self.in_user_code = False
                    if self.asked_to_stop:
                        self._no_stop()
                    if rank.running is not None:
                        self._finish(failure)
                    failure = None
                    current = self._next()
                    if current is None and rank.state == "retired":
                        return
                    patience = None if current is not None else self._patience(is_quiet)
                if current is None:
                    is_quiet = not self.bell.wait(patience)
                elif isinstance(current, cmd.Capture):
                    self._capture(current)
                else:
                    failure = self._execute(current, here)
            except StopContinuation:
                self.asked_to_stop = False

    def _no_stop(self) -> None:
        """Take back the request to stop, if user code ended before it arrived."""
        _raise_in(self.thread, None)
        self.asked_to_stop = False

    def _finish(self, failure: Failure | None) -> None:
        rank = self.rank
        if rank.state == "retired" or rank.running is None:
            return
        self.slot.end()
        if failure is not None:
            self.engine.fail(rank, rank.running.job, failure)
        commands = self.engine.worker.finished(rank)
        if commands:
            self.engine.execute(commands)
        if rank.dirty:
            self._report()

    def _next(self) -> m.Continuation | cmd.Capture | None:
        """Return something to do, if there is something. The lock is held."""
        if self.to_capture is not None:
            wanted, self.to_capture = self.to_capture, None
            return wanted
        continuation, commands = self.engine.worker.next(self.rank)
        self.engine.execute(commands)
        self.in_user_code = continuation is not None
        if continuation is not None:
            self.slot.begin(continuation.id, continuation.job)
        return continuation

    def _patience(self, is_quiet: bool) -> float | None:
        """Return how long an idle rank waits before it looks again at what it has to report."""
        if self.rank.dirty and not self._report(0.0 if is_quiet else REPORT_EVERY):
            return QUIET
        return None

    def _report(self, least: float = REPORT_EVERY) -> bool:
        """Report jobs that have nothing left here, unless the last report is younger than that.

        The first report of a job goes at once: short jobs in a loop shall not wait for each other.
        """
        now = perf_counter()
        news = self.rank.dirty - self._reported
        if now - self.last_report < least and not news:
            return False
        self.last_report = now
        self._reported |= news - self.rank.alive.keys()
        self.engine.report()
        return True

    def _execute(self, continuation: m.Continuation, here: Here) -> Failure | None:
        function: Any = None
        here.begin(continuation)
        try:
            if continuation.needs:
                self._check_needs(continuation)
            work = continuation.work
            if type(work) is Parcel:
                function, args = self._open(continuation.job, work)
            else:
                function, args = work
            if self.poisoned and continuation.id in self.poisoned:
                return self._set_aside(continuation, function, args)
            function(*args)
            if here.port is not None:
                here.port.flush()
        except StopContinuation:
            raise
        except Poisoned as record:
            called = here.function or function
            return self._set_aside(continuation, called, (record.value,), record.identity)
        except BaseException as error:  # noqa: BLE001 - what user code raises ends its job only
            return self._describe(error, function if here.function is None else here.function)
        return None

    def _set_aside(
        self,
        continuation: m.Continuation,
        function: Any,
        args: tuple[Any, ...],
        record: bytes | None = None,
    ) -> Failure:
        """Tell the notebook of what does not run any more; return what its job ends with."""
        identity = continuation.id if record is None else record
        losses = self.poisoned[identity]
        label = None if record is None or self.here is None else self.here.label
        function, args = users_call(function, args)
        name, rank = name_of(function), self.rank.rank
        try:
            snapshot = capture((function, args), label=f"the call of {name}")
            call: Body | str = Body(tuple(frames(snapshot)))
        except StopContinuation:
            raise
        except Exception as error:  # noqa: BLE001 - the user's objects
            call = f"{type(error).__name__}: {error}"
        told = m.SetAside(identity, continuation.job, rank, losses, name, label, call)
        with self.engine.lock:
            if self.rank.state != "retired":
                self.engine.to_master(told)
        poisoned = poison_error(name, short_call(args), rank, label, losses)
        return Failure(rank, name, str(poisoned), (), label, pickle.dumps(poisoned))

    def _describe(self, error: BaseException, function: Any) -> Failure:
        try:
            label = None if self.here is None else self.here.label
            name = "reading a continuation" if function is None else name_of(function)
            return describe(error, self.rank.rank, name, label)
        except StopContinuation:
            raise
        except BaseException:  # noqa: BLE001 - names and texts are the user's code too
            text = "an exception that cannot be shown"
            return Failure(self.rank.rank, "a function", text, (), None, b"")

    def stop_user_code(self, job: int | None, spare_imports: bool = True) -> bool:
        """Raise StopContinuation in the running continuation (of `job`). The lock is held.

        Returns
        -------
        bool
            False if it still runs: ask again. While it imports a module it is left alone: a part of
            a module would stay behind, and fail whoever waits for the rest. So it is while it
            takes or gives back shared memory: a lease, or a lock, would stay behind.
        """
        running = self.rank.running
        if not self.in_user_code or running is None or not self.thread.is_alive():
            return True
        if job is not None and running.job != job:
            return True
        if _is_in(self.thread, _SHARING) or (spare_imports and _is_in(self.thread, _IMPORTING)):
            return False
        now = perf_counter()
        if self.asked_to_stop and now < self._ask_again:
            return False
        self.asked_to_stop, self._ask_again = True, now + STOP_AGAIN
        if self.mailbox.waits:  # it looks when it wakes up
            self.bell.ring()
        else:
            _raise_in(self.thread, StopContinuation)
        return False

    def retire(self) -> None:
        """Leave the board to the rank of the next epoch. The lock is held."""
        self.slot = self.engine.board.nowhere()
        if self.here is not None:
            self.here.retire()

    def check_stop(self) -> None:
        """Raise StopContinuation if the rank's epoch or the job is over. The lock is held."""
        if self.asked_to_stop or self.rank.state == "retired":
            _raise_in(self.thread, None)  # it may be on its way as well; once is enough
            raise StopContinuation

    def _check_needs(self, continuation: m.Continuation) -> None:
        missing = self.rank.missing(continuation)
        if missing is not None:
            raise DependencyError(
                f"variable {missing} has no partition on rank {self.rank.rank} and will get none: "
                "the job that should fill it failed, was cancelled, or ended without setting it"
            )

    # ------------------------------------------------------------ functions and arguments

    def forget_job(self, job: int) -> None:
        """A job has ended: its functions and what waited for replies go. The lock is held."""
        self.state.namespaces.pop(job, None)
        self._reported.discard(job)
        self.phases.pop(job, None)
        for key in [key for key in self.state.parked if key[0] == job]:
            del self.state.parked[key]
        self.mailbox.forget(job)

    def namespace(self, job: int) -> Namespace:
        """Return the functions of a job on this rank."""
        found = self.state.namespaces.get(job)
        if found is None:
            found = self.state.namespaces[job] = Namespace()
        return found

    def _open(self, job: int, parcel: Parcel) -> tuple[Any, Any]:
        space = self.namespace(job)
        self._load_functions(space, parcel.digests)
        value: Any = unpack(parcel.data, fresh(parcel.buffers), space)
        if parcel.root is None:
            function, args = value
            return function, args
        home, name = parcel.root
        if isinstance(home, str):
            return by_name(home, str(name)), value
        return space.resolve(home, name), value

    def objects(self, job: int) -> tuple[Callable[[object], list[Any]], Callable[[Any], Any]]:
        """Return how objects of a job are written to buffers and read: functions by name."""
        space = self.namespace(job)

        def encode(obj: object) -> list[Any]:
            packed = pack(obj, space, "message")
            names = b"".join(packed.digests)
            size = len(packed.digests).to_bytes(4, "little")
            return [b"".join((size, names, packed.data)), *packed.buffers]

        def decode(buffers: Any) -> Any:
            first, *rest = buffers
            first = memoryview(first)
            count = int.from_bytes(first[:4], "little")
            end = 4 + count * DIGEST_SIZE
            self._load_functions(
                space, [bytes(first[i : i + DIGEST_SIZE]) for i in range(4, end, DIGEST_SIZE)]
            )
            return unpack(first[end:], rest, space)

        return encode, decode

    def _load_functions(self, space: Namespace, digests: Iterable[bytes]) -> None:
        for digest in digests:
            if not space.has(digest):
                blob = self.engine.functions.get(digest)
                space.load(digest, blob.data, blob.buffers)

    def put_here(self, continuation: m.Continuation) -> None:
        """Take a continuation that this rank's continuation put to its own rank."""
        with self.engine.lock:
            if self.rank.state == "retired":
                raise StopContinuation
            self.rank.put(continuation)

    def put_there(
        self, identity: bytes, job: int, rank: int, function: Any, args: tuple[Any, ...]
    ) -> None:
        """Send a continuation to another rank: a copy, also when it is on this engine."""
        space = self.namespace(job)
        # To write a module's function as an argument costs more than the rest of the hop.
        known = space.reference(function)
        root = known or name_in_module(function)
        running = None if self.here is None else self.here.function
        if root is None:
            rename = partial(name_in_call, function, args, rank, running)
            packed = pack((function, args), space, rename=rename)
        else:
            rename = partial(name_part, function, args, rank, running)
            packed = pack(args, space, rename=rename)
        digests = packed.digests
        needs = packed.handles
        if known is not None:
            digests = digests | {known[0]}
            needs = needs | self.engine.functions.handles(known[0])
        reaches = needs | packed.targets
        # Nobody writes to them: who takes the continuation up copies them.
        buffers = packed.buffers and tuple(self.engine.fresh(packed.buffers, shared=True))
        parcel = Parcel(root, packed.data, buffers, tuple(digests), reaches)
        self.engine.data.post(self.rank, identity, job, rank, tuple(needs), parcel)

    def set_partition(self, variable: int, value: Any) -> None:
        """Set this rank's share of a variable."""
        partitions = self.state.partitions
        if variable in partitions:
            partitions[variable] = value
            return
        with self.engine.lock:
            if self.rank.state == "retired":
                raise StopContinuation
            partitions[variable] = value
            self.rank.set_ready(variable)

    def give(self, value: Any, label: str) -> None:
        """Send a value to the notebook as this job's output of this rank."""
        if self.here is None or self.rank.running is None:
            raise UsageError("give() outside a continuation")
        snapshot = capture(value, label=label)
        output = m.Output(
            self.rank.epoch,
            self.rank.cut,
            self.rank.rank,
            self.rank.running.job,
            snapshot.digest,
            Body(tuple(frames(snapshot))),
            snapshot.handles,
        )
        with self.engine.lock:
            if self.rank.state != "retired":
                self.engine.to_master(output)

    # ------------------------------------------------------------ snapshots

    def _capture(self, wanted: cmd.Capture) -> None:
        """Write the pool as it was at the cut, and everything else as it still is."""
        image, works = without_work(wanted.image)
        state = self.state
        with self.engine.lock:  # the control thread drops what is over meanwhile
            partitions = dict(state.partitions)
            content = {
                "image": image,
                "pool": works,
                "partitions": partitions,
                "namespaces": dict(state.namespaces),
                "parked": dict(state.parked),
            }
        variables, reaches = frozenset(partitions), reached_by(wanted.image.pool)
        self.capturing.take(wanted, content, self._rename(wanted.image), variables, reaches)

    def _rename(self, image: m.RankImage) -> Callable[[tuple[Any, ...]], str | None]:
        parked, rank = self.state.parked, self.rank.rank

        def rename(keys: tuple[Any, ...]) -> str | None:
            if len(keys) < 2:
                return None
            kind, which, *rest = keys
            if kind == "partitions" and not rest:
                return f"variable {self.engine.variable_name(which)}"
            if kind == "pool" and type(work := image.pool[which].work) is tuple:
                function, args = work
                return name_in_call(function, args, rank, None, tuple(rest))
            if kind == "parked" and rest[:1] == ["args"]:
                waits = parked[which]
                return name_part(waits.function, waits.args, rank, None, tuple(rest[1:]))
            if kind == "namespaces" and rest[:1] == ["names"] and len(rest) == 2:
                return f"global variable {rest[1]!r}"
            if kind == "namespaces" and rest == ["anchor"]:
                return f"a function of job {which}"
            return None

        return rename

    def _stand_up(self) -> bool:
        """Load the snapshot; tell whether the rank still belongs to this epoch."""
        image, channel = m.RankImage(), ()
        try:
            if self._load is not None:
                image, channel = self._read(self._load())
        except StopContinuation:
            raise
        except BaseException as error:  # noqa: BLE001 - damaged, or of code that is not here
            with self.engine.lock:
                if self.rank.state == "loading":
                    text = f"{type(error).__name__}: {error}"
                    commands = self.engine.worker.load_failed(self.rank.rank, text)
                    self.engine.execute(commands)
            return False
        with self.engine.lock:
            ready = frozenset(self.state.partitions)
            commands = self.engine.worker.loaded(self.rank, image, channel, ready)
            self.engine.execute(commands)
            return self.rank.state != "retired"

    def _read(self, shard: list[Any]) -> tuple[m.RankImage, Any]:
        main, channel = split(shard)
        content: Any = restore(from_frames(main))
        self.state = RankState(content["partitions"], content["namespaces"], content["parked"])
        image: m.RankImage = content["image"]
        plain: Any = image.pool
        image.pool = [
            m.Continuation(i, job, needs, work, gang)
            for (i, job, needs, gang), work in zip(plain, content["pool"], strict=True)
        ]
        return image, restore(from_frames(channel))


def _raise_in(thread: threading.Thread, kind: type[BaseException] | None) -> None:
    """Raise `kind` in `thread` at its next bytecode; None takes a pending one back."""
    exception = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), exception)


def _is_in(thread: threading.Thread, files: tuple[str, ...]) -> bool:
    """Tell whether a function of a file whose name begins so is under way in `thread`."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_filename.startswith(files):
            return True
        frame = frame.f_back
    return False
