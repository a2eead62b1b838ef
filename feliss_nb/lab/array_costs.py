"""What checkpoints of arrays cost, next to what the machine needs for as many bytes.

Everything that a figure is compared with is measured beside it, in turns: the copy and the fork in
the rank's own process, the plain write in the same directory.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

import feliss_nb as feliss
from feliss_nb.lab import losses
from feliss_nb.lab.costs import PATIENCE, checkpoint
from feliss_nb.lab.states import make

#: How many arrays a rank has where it does not matter how many.
ARRAYS = 8
_PIECE = 1 << 26  # bytes in one plain write
_LOOK = 0.05  # seconds between looks at the memory of all engines


# ---------------------------------------------------------------- memory, copies and forks


@dataclass(slots=True)
class InMemory:
    """Checkpoints into the memory of the rank's engine. Times in seconds.

    Attributes
    ----------
    nbytes : int
        Of the rank's arrays.
    first : float
        Pause of the first full checkpoint, whose memory nobody has touched before.
    full, forked : list of float
        Pauses of those behind it.
    copy : list of float
        Of a plain copy of all arrays in the rank's process, into memory that was touched before.
    fork : list of float
        Of ``os.fork`` there and nothing else.
    """

    nbytes: int
    first: float
    full: list[float] = field(default_factory=list)
    forked: list[float] = field(default_factory=list)
    copy: list[float] = field(default_factory=list)
    fork: list[float] = field(default_factory=list)


def in_memory(megabytes: float, repeats: int) -> InMemory:
    """Measure pauses, next to a copy and a fork of the same process."""
    with feliss.start(workers=1, spares=0, copies=0, checkpoint_every=None) as session:
        held = session.variable(functools.partial(_arrays, megabytes, ARRAYS), name="state")
        session.wait()
        found = InMemory(_nbytes(megabytes, ARRAYS), session.checkpoint(PATIENCE).pause)
        session.checkpoint(PATIENCE)  # two are there in turns: the next ones use their memory
        for count in range(repeats):
            session.put(_change_first, held, count, rank=0).wait()
            found.full.append(session.checkpoint(PATIENCE).pause)
        [found.copy] = session.variable(functools.partial(_copies, held, repeats)).partitions()
        session.capture = "forked"
        session.checkpoint(PATIENCE)
        for count in range(repeats):
            session.put(_change_first, held, count, rank=0).wait()
            found.forked.append(session.checkpoint(PATIENCE).pause)
            found.fork += session.variable(_raw_fork).partitions()
    return found


@dataclass(slots=True)
class ForkedObjects:
    """Forked checkpoints of an engine full of small objects.

    Attributes
    ----------
    resident : list of int
        Bytes of the engine's process that are in memory, at each of them.
    forked, fork : list of float
        Seconds of their pauses, and of ``os.fork`` there and nothing else.
    """

    resident: list[int] = field(default_factory=list)
    forked: list[float] = field(default_factory=list)
    fork: list[float] = field(default_factory=list)


def forked_objects(megabytes: float, repeats: int) -> ForkedObjects:
    """Measure pauses of an engine that a map of whole numbers fills up to so much memory."""
    found = ForkedObjects()
    with feliss.start(
        workers=1, spares=0, copies=0, checkpoint_every=None, capture="forked"
    ) as session:
        held = session.variable(functools.partial(_fill, megabytes * 1e6), name="state")
        session.wait()
        for _ in range(2):  # memory of two snapshots, in turns
            session.checkpoint(PATIENCE)
        for _ in range(repeats):
            session.put(_add_one, held, rank=0).wait()
            found.resident += session.variable(_resident).partitions()
            found.forked.append(session.checkpoint(PATIENCE).pause)
            found.fork += session.variable(_raw_fork).partitions()
    return found


# ---------------------------------------------------------------- the disk


@dataclass(slots=True)
class OnDisk:
    """Checkpoints of one array to a file store. Seconds until they are safe.

    Attributes
    ----------
    nbytes : int
        Of the array.
    full, incremental, plain : list of float
        Whole ones; those behind a change of a contiguous hundredth; and as many bytes written to a
        file there and synced.
    full_bytes, incremental_bytes : list of int
        What they took on the disk.
    """

    nbytes: int
    full: list[float] = field(default_factory=list)
    incremental: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    full_bytes: list[int] = field(default_factory=list)
    incremental_bytes: list[int] = field(default_factory=list)


def on_disk(megabytes: float, repeats: int, folder: str | None = None) -> OnDisk:
    """Measure checkpoints to a directory, next to plain writes to the same."""
    found = OnDisk(_nbytes(megabytes, 1))
    with tempfile.TemporaryDirectory(prefix="feliss-", dir=folder) as name:
        place = Path(name) / "store"
        with feliss.start(
            workers=1, spares=0, copies=0, checkpoint_every=None, store=place, keep=1
        ) as session:
            held = session.variable(functools.partial(_arrays, megabytes, 1), name="state")
            session.wait()

            def take(count: int, seconds: list[float], nbytes: list[int]) -> None:
                session.put(_change_first, held, count, rank=0).wait()
                one = checkpoint(session, place)
                seconds.append(one.seconds)
                nbytes.append(one.nbytes)

            checkpoint(session, place)
            for count in range(repeats):
                take(count, found.full, found.full_bytes)
                found.plain.append(_write_plainly(Path(name) / "plain", found.nbytes))
            session.capture = "incremental"
            checkpoint(session, place)
            for count in range(repeats):
                take(count, found.incremental, found.incremental_bytes)
    return found


def _write_plainly(path: Path, nbytes: int) -> float:
    piece = memoryview(np.random.default_rng(0).bytes(min(_PIECE, nbytes)))
    begun = time.perf_counter()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        left = nbytes
        while left:
            left -= os.write(fd, piece[: min(left, piece.nbytes)])
        os.fsync(fd)
        seconds = time.perf_counter() - begun
    finally:
        os.close(fd)
        path.unlink()
    return seconds


# ---------------------------------------------------------------- restore, from a peer's memory


@dataclass(slots=True)
class Restores:
    """Recoveries of a rank whose state comes from another engine's memory. Seconds.

    Attributes
    ----------
    load : list of float
        From the loss until the last rank stood up.
    plain : list of float
        ``pickle.loads`` of the state, where that was asked for.
    """

    load: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)


def restores(state: str, megabytes: float, repeats: int, next_to_pickle: bool) -> Restores:
    """Kill the worker that has the state; a spare that has nothing takes its place, each time."""
    found = Restores()
    with feliss.start(workers=2, spares=1, copies=1, checkpoint_every=None) as session:
        held = session.variable(functools.partial(_on_first, state, megabytes), name="state")
        session.wait()
        session.checkpoint(PATIENCE)
        _wait_until_whole(session, 3)
        for epoch in range(1, repeats + 1):
            kill = losses.kill_unseen(session, 0)
            found.load.append(losses.recovery(session, kill, epoch).load)
            [event] = [e for e in session.events.of_kind("recovering") if e.epoch == epoch]
            assert event.read_from, "the state came from the spare's own memory"
            _wait_until_whole(session, 3 + epoch)
        if next_to_pickle:
            again = functools.partial(_unpickle, held, repeats)
            found.plain = session.variable(again).partitions()[0]
    return found


def _wait_until_whole(session: feliss.Session, engines: int) -> None:
    session.events.wait_for("engine-joined", engines, losses.PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while not session.status().protected and time.monotonic() < deadline:
        time.sleep(_LOOK)


# ---------------------------------------------------------------- memory


@dataclass(slots=True)
class Memory:
    """Memory of all engines of a session, in bytes; what they share counts once.

    Attributes
    ----------
    live : int
        Before the first checkpoint.
    captured, copies : int
        Committed snapshots of the ranks' own, and the copies of them on other engines.
    after, peak : int
        All of it, behind a checkpoint; and the most while one was taken.
    """

    live: int
    captured: int
    copies: int
    after: int
    peak: int


def memory(megabytes: float, capture: str) -> Memory:
    """Look at the memory of a session with one copy of each snapshot, while one is taken."""
    with feliss.start(
        workers=2, spares=0, copies=1, checkpoint_every=None, capture=capture
    ) as session:
        held = session.variable(functools.partial(_on_first, "arrays", megabytes), name="state")
        session.wait()
        live = _memory(session)
        session.checkpoint(PATIENCE)
        session.put(_change_all, held, rank=0).wait()
        with _peak(session) as seen:
            session.checkpoint(PATIENCE)
        after = _memory(session)
        status = session.status()
        return Memory(live, status.memory_own, status.memory_copies, after, max(*seen, after))


@contextlib.contextmanager
def _peak(session: feliss.Session) -> Iterator[list[int]]:
    seen = [_memory(session)]
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK):
            seen.append(_memory(session))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def _memory(session: feliss.Session) -> int:
    """Give the memory of all living engines and of their forked children."""
    total = 0
    for engine in session.status().engines:
        if engine.role == "dead":
            continue
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(engine.pid)
            total += sum(_share(each.pid) for each in [process, *process.children()])
    return total


def _share(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    except (OSError, UnicodeDecodeError):  # it has ended
        return 0
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), "Pss: 0")
    return int(line.split()[1]) * 1024


# ---------------------------------------------------------------- on the ranks


def _nbytes(megabytes: float, count: int) -> int:
    return max(int(megabytes * 1e6 / 8 / count), 100) * 8 * count


def _arrays(megabytes: float, count: int, rank: int, ranks: int) -> list[np.ndarray]:
    random = np.random.default_rng(rank)
    return [random.standard_normal(_nbytes(megabytes, count) // 8 // count) for _ in range(count)]


def _on_first(state: str, megabytes: float, rank: int, ranks: int) -> Any:
    if rank:
        return None
    return _arrays(megabytes, ARRAYS, 0, 1) if state == "arrays" else make(state, megabytes)


def _change_first(held: Any, count: int) -> None:
    """Change a hundredth of all, in one place."""
    first = feliss.here()[held][0]
    whole = sum(array.size for array in feliss.here()[held])
    first[: max(whole // 100, 1)] += count + 1


def _change_all(held: Any) -> None:
    for array in feliss.here()[held] or ():
        array += 1.0


def _resident(rank: int = 0, ranks: int = 1) -> int:
    return psutil.Process().memory_info().rss


def _fill(wanted: float, rank: int, ranks: int) -> dict[int, int]:
    found: dict[int, int] = {}
    while _resident() < wanted:
        found.update((i, 7 * i) for i in range(len(found), len(found) + 20_000))
    return found


def _add_one(held: Any) -> None:
    feliss.here()[held][-1] = 0


def _copies(held: Any, repeats: int, rank: int, ranks: int) -> list[float]:
    arrays = feliss.here()[held]
    room = [np.full_like(array, 1.0) for array in arrays]

    def copy() -> None:
        for target, array in zip(room, arrays, strict=True):
            np.copyto(target, array)

    return [_timed(copy) for _ in range(repeats)]


def _raw_fork(rank: int, ranks: int) -> float:
    begun = time.perf_counter()
    child = os.fork()
    if not child:
        os._exit(0)
    seconds = time.perf_counter() - begun
    os.waitpid(child, 0)
    return seconds


def _unpickle(held: Any, repeats: int, rank: int, ranks: int) -> list[float]:
    if rank:
        return []
    data = pickle.dumps(feliss.here()[held], 5)
    return [_timed(lambda: pickle.loads(data)) for _ in range(repeats)]


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    done = work()
    seconds = time.perf_counter() - begun
    del done
    return seconds


def ratio(one: list[float] | list[int], other: list[float] | list[int]) -> float:
    """Give the ratio of two medians."""
    return median(one) / median(other)
