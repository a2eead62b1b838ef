"""How the runner of a rank takes its captures, and what is done of them while the rank goes on.

A capture ends the rank's pause as soon as nothing that the rank does can change it: a whole one
when its memory is copied, an incremental one when what has changed is, a forked one when the fork
is made. The rest, waiting for the child, compressing, putting the whole snapshot together for this
engine's store, is done by a thread of its own. What goes wrong there comes too late for another
attempt at the same cut, since the rank has gone on: the checkpoint is begun anew, with a full
capture of this rank.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from feliss_nb.core import commands as cmd
from feliss_nb.errors import UnpicklableError
from feliss_nb.runtime import huge_pages
from feliss_nb.runtime.failure import describe
from feliss_nb.runtime.here import StopContinuation
from feliss_nb.runtime.shard import split
from feliss_nb.state.captures import FULL, Chain, Method, Taken, draft, method
from feliss_nb.state.comparing import Index
from feliss_nb.state.differences import prepare
from feliss_nb.state.explain import Rename
from feliss_nb.state.forked import Child, fork

if TYPE_CHECKING:
    from feliss_nb.runtime.runner import Runner

#: Seconds until a forked child is given up. One that works takes as long as its rank would, some
#: times over: what gets here waits for a lock that nobody in it will release.
PATIENCE = 120.0

#: Seconds of a pause behind a fork: after a longer one it is worth while to make the next shorter.
LONG = 0.005


@dataclass(slots=True)
class Captured:
    """A rank's capture, ready to be sealed.

    Parameters
    ----------
    frames : list of buffers
        Of the whole snapshot.
    difference : list of buffers
        What makes it of its base at other engines; empty: the whole goes to them.
    base : int
        The checkpoint of the base; 0: the difference needs none.
    nbytes, written : int
        Bytes of the whole, and of what was written.
    pause : float
        Seconds in which the rank ran no continuation.
    variables, reaches : frozenset of int
        The variables that have a partition in it, and those that it reaches.
    filled : Future or None
        Ends when the frames have their content; None: they have it.
    """

    frames: list[Any]
    difference: list[Any]
    base: int
    nbytes: int
    written: int
    pause: float
    variables: frozenset[int]
    reaches: frozenset[int]
    filled: Future[None] | None


@dataclass(slots=True)
class _Task:
    """A capture under way."""

    checkpoint: int
    variables: frozenset[int]
    reaches: frozenset[int]
    base: int
    base_frames: Sequence[Any]
    pause: float = 0.0
    child: Child | None = None
    is_dropped: bool = False


class Capturing:
    """Takes the captures of one rank in one epoch.

    Parameters
    ----------
    runner : Runner
        The rank's.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._engine, self._rank = runner.engine, runner.rank
        self._chain = Chain()
        self._is_spoilt = False  # the last one was lost: the next is taken by the surest way
        self._task: _Task | None = None

    def take(
        self,
        wanted: cmd.Capture,
        content: object,
        rename: Rename,
        variables: frozenset[int],
        reaches: frozenset[int],
    ) -> None:
        """Capture the rank's content. On the runner's thread."""
        begun = perf_counter()
        how = FULL if self._is_spoilt else method(wanted.capture)
        self._is_spoilt = False
        base, base_frames, known = self._find_base(how)
        task = _Task(wanted.checkpoint, variables, reaches, base, base_frames)
        listener = None
        with self._engine.lock:
            if self._rank.state != "recording" or self._rank.cut != wanted.checkpoint:
                return  # called off since it was asked for
            self._task = task
            if how.is_plain:
                listener = self._engine.copier.follow(wanted.checkpoint, self._rank.rank)

        def work() -> Taken:
            return draft(content, how, known, "rank", rename).finish(base_frames)

        try:
            if how.forked and self._fork(task, work):
                task.pause = perf_counter() - begun
                self._go_on(task, None)
                return
            room = self._engine.room
            drafted = draft(content, how, known, "rank", rename, room, listener)
        except StopContinuation:
            raise
        except BaseException as error:  # noqa: BLE001 - the job goes on with its last checkpoint
            self._fail(task, error)
            return
        task.pause = perf_counter() - begun
        if drafted.is_whole:
            self._deliver(task, drafted.finish())
        else:
            self._go_on(task, lambda: drafted.finish(base_frames))

    def _find_base(self, how: Method) -> tuple[int, Sequence[Any], Index | None]:
        """Return the committed checkpoint, its frames and its index, where there are these."""
        if not how.needs_base:
            self._chain.clear()
            return 0, (), None
        number = self._engine.worker.checkpoint
        known = self._chain.known(number)
        if known is not None:
            try:
                return number, split(self._engine.store.get((number, self._rank.rank)))[0], known
            except KeyError:
                self._chain.clear()
        return 0, (), None

    # ------------------------------------------------------------ in a child

    def _fork(self, task: _Task, work: Callable[[], Taken]) -> bool:
        """Fork, if this engine stands a fork now."""
        engine = self._engine
        # With the lock no other rank here begins to run, and nothing is put into a segment.
        with engine.lock:
            if task.is_dropped or not engine.may_fork(self._runner):
                return False
            engine.hold_memory()  # until the child has ended
            try:
                task.child = fork(lambda: work().parts())
            except BaseException as error:
                engine.release_memory()
                if isinstance(error, OSError):  # no room for another process, no descriptor
                    return False
                raise
        return True

    def _from_child(self, task: _Task) -> Taken:
        assert task.child is not None
        try:
            parts = task.child.result(PATIENCE)
        finally:
            self._engine.release_memory()
        taken = Taken.of_parts(parts)
        if not taken.is_difference:  # it is kept and sent: where peers can read it
            large = self._engine.fresh(taken.frames[1:], shared=True)
            taken.frames = [taken.frames[0], *large]
        return taken

    # ------------------------------------------------------------ what is left

    def _go_on(self, task: _Task, finish: Callable[[], Taken] | None) -> None:
        name = f"feliss-capture-{self._rank.rank}"
        threading.Thread(target=self._finish, args=(task, finish), name=name, daemon=True).start()

    def _finish(self, task: _Task, finish: Callable[[], Taken] | None) -> None:
        try:
            self._deliver(task, self._from_child(task) if finish is None else finish())
        except UnpicklableError as error:
            self._fail(task, error)
        except BaseException as error:  # noqa: BLE001 - begun anew: what it was shows there
            self._lose(task, error)
        if task.child is not None and task.pause > LONG:
            huge_pages.gather(lambda: self._engine.is_closed)

    def _deliver(self, task: _Task, taken: Taken) -> None:
        base = task.base if taken.needs_base else 0
        difference = taken.frames if taken.is_difference else []
        whole = taken.frames
        filled: Future[None] | None = None
        if taken.is_difference:
            old = task.base_frames if taken.needs_base else ()
            whole, fill = prepare(old, taken.frames, self._engine.room)
            filled = Future()
        reaches = taken.reaches | task.reaches
        captured = Captured(
            whole,
            difference,
            base,
            taken.nbytes,
            taken.written,
            task.pause,
            task.variables,
            reaches,
            filled,
        )
        with self._engine.lock:
            if task.is_dropped:
                return
            self._chain.add(task.checkpoint, taken.index)
            self._task = None
            self._engine.captures[self._rank.rank, task.checkpoint] = captured
            self._engine.execute(self._engine.worker.captured(self._rank, task.checkpoint))
        if filled is None:
            return
        # The difference and its base are all that the checkpoint needs to be safe: it does not wait
        # for the whole, which takes as long as copying all of the state.
        try:
            fill()
        except BaseException as error:  # noqa: BLE001 - whoever wants it hears that it is not here
            filled.set_exception(error)
        else:
            filled.set_result(None)

    def _fail(self, task: _Task, error: BaseException) -> None:
        failure = describe(error, self._rank.rank, "checkpoint", None)
        with self._engine.lock:
            if task.is_dropped:
                return
            self._task = None
            worker = self._engine.worker
            self._engine.execute(worker.capture_failed(self._rank, task.checkpoint, failure))

    def _lose(self, task: _Task, error: BaseException) -> None:
        with self._engine.lock:
            if task.is_dropped:
                return
            self._task, self._is_spoilt = None, True
            self._chain.clear()
            why = f"{type(error).__name__}: {error}"
            worker = self._engine.worker
            self._engine.execute(worker.capture_lost(self._rank, task.checkpoint, why))

    def discard(self) -> None:
        """Drop the capture under way, if there is one; its child is killed. The lock is held."""
        task, self._task = self._task, None
        if task is not None:
            task.is_dropped = True
            if task.child is not None:
                task.child.kill()
