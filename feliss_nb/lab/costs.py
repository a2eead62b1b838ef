"""What checkpoints cost, next to dumps of the whole memory: bytes, time, pause, restore.

A checkpoint is one of a session: the engine makes the snapshot, its copier writes it to a store in
a directory, synced, and the manifest is there. A dump is one of a process that holds the same state
and nothing else of a session, in the same directory and as safe. (An engine that stands still for
as long as a dump takes would be taken for lost.)

On a slow store both sides write through a channel of so many bytes a second. A tool writes its file
itself, so it is given what flatters it most: the time that its bytes, zeros left out, take through
the channel, and nothing besides.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import feliss_nb as feliss
from feliss_nb.errors import FelissError, UsageError
from feliss_nb.lab import dumps
from feliss_nb.lab.states import STATES, make
from feliss_nb.runtime.shard import split, whole
from feliss_nb.runtime.table import Table, human_bytes, human_seconds
from feliss_nb.state import captures
from feliss_nb.state.codec import allocate_each
from feliss_nb.state.snapshot import from_frames, restore
from feliss_nb.store import FileStore, SlowStore
from feliss_nb.store.base import folder as folder_name

if TYPE_CHECKING:
    import pandas

    from feliss_nb.runtime.treemap import Picture

PATIENCE = 600.0
#: Checkpoints and dumps of a kind that no figure has: see `measure`.
UNCOUNTED = 2


@dataclass(frozen=True, slots=True)
class Cost:
    """One checkpoint, or one dump.

    Attributes
    ----------
    state : str
        The kind of state.
    megabytes : float
        About how much memory it takes.
    how : str
        The name of the capture, or of the dumper.
    dump : bool
        Whether it is one.
    seconds : float
        From the request until it is safe on the disk.
    pause : float
        Seconds in which the rank ran nothing, or the process stood still.
    bytes : int
        On the disk.
    written : int
        What the capture wrote, and sent to each copy: less than all, if it was an incremental or a
        compressed one.
    commit : float
        Seconds from the request until it was committed in memory; of a dump, as ``seconds``.
    restore : float or None
        Seconds to read it from the disk and to stand the state up again, once for each capture;
        None of a dump, and of a checkpoint that was not tried.
    """

    state: str
    megabytes: float
    how: str
    dump: bool
    seconds: float
    pause: float
    bytes: int
    written: int
    commit: float
    restore: float | None = None


def measure(
    states: Sequence[str] = tuple(STATES),
    megabytes: float | Sequence[float] = (50.0, 200.0),
    how: Sequence[str] = ("full", "forked", "incremental"),
    dumpers: Sequence[str] = ("memory", "gcore"),
    repeats: int = 3,
    folder: str | None = None,
    on_step: Callable[[str], None] = lambda text: None,
    bytes_per_second: float = math.inf,
) -> Comparison:
    """Measure every capture and every dumper on every state.

    Parameters
    ----------
    states : sequence of str
        Names in ``STATES``.
    megabytes : float or sequence of float
        How large each is made, about.
    how : sequence of str
        Captures. One in a hundred entries changes from one checkpoint to the next.
    dumpers : sequence of str
        Names in ``dumps.DUMPERS``; those that this machine lacks are left out.
    repeats : int
        Checkpoints and dumps of each kind, behind two that are not counted: two snapshots are in
        memory in turns, and that memory is new then.
    folder : str, optional
        Where to write; a temporary directory in it is used, and removed.
    on_step : callable
        Told what is measured.
    bytes_per_second : float
        Of a slow store.

    Raises
    ------
    UsageError
        If there is no such state, capture or dumper.
    """
    _check("state", states, STATES)
    _check("dumper", dumpers, dumps.DUMPERS)
    for name in how:
        captures.method(name)
    if not isinstance(repeats, int) or repeats < 1:
        raise UsageError(f"repeats= takes a whole number of at least 1, not {repeats!r}")
    sizes = [megabytes] if isinstance(megabytes, int | float) else list(megabytes)
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < 1e6:
            raise UsageError(f"megabytes= takes sizes above 0, in MB, not {size!r}")
    found: list[Cost] = []
    for state in states:
        for size in sizes:
            on_step(f"{state}, {size:g} MB")
            with tempfile.TemporaryDirectory(prefix="feliss-", dir=folder) as place:
                found += _in_turns(
                    state, size, how, dumpers, repeats, Path(place), bytes_per_second
                )
    return Comparison(tuple(found))


@dataclass(frozen=True, repr=False)
class Comparison:
    """Costs side by side: a picture in a notebook, a table in a terminal.

    Attributes
    ----------
    costs : tuple of Cost
        Everything that was measured.
    """

    costs: tuple[Cost, ...]

    def frame(self) -> pandas.DataFrame:
        """Give a row for each cost; its columns are the attributes of `Cost`."""
        import pandas

        return pandas.DataFrame([asdict(cost) for cost in self.costs])

    @property
    def data(self) -> pandas.DataFrame:
        """What `frame` gives."""
        return self.frame()

    @property
    def figure(self) -> Any:
        """Matplotlib's figure of it."""
        return self.plot().figure

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture to a file, in the format of its ending: .svg, .png, .pdf."""
        self.plot().save(path)

    def groups(self) -> dict[tuple[str, float, str], list[Cost]]:
        """Give the costs of each state, size, and capture or dumper, in their order."""
        found: dict[tuple[str, float, str], list[Cost]] = {}
        for cost in self.costs:
            found.setdefault((cost.state, cost.megabytes, cost.how), []).append(cost)
        return found

    def table(self) -> Table:
        """Give the medians of all that was measured."""
        rows = [
            (
                state,
                f"{size:g} MB",
                f"dump: {how}" if costs[0].dump else how,
                human_seconds(median(cost.seconds for cost in costs)),
                human_seconds(median(cost.pause for cost in costs)),
                _restored(costs),
                human_bytes(median(cost.bytes for cost in costs)),
                human_bytes(median(cost.written for cost in costs)),
            )
            for (state, size, how), costs in self.groups().items()
        ]
        columns = (
            "state",
            "memory",
            "how",
            "until safe",
            "pause",
            "restore",
            "on the disk",
            "written",
        )
        return Table("checkpoints and dumps, medians", columns, rows)

    def plot(self) -> Picture:
        """Draw time and bytes against the size of the state.

        Raises
        ------
        UsageError
            If matplotlib is not installed.
        """
        from feliss_nb.lab.cost_plots import draw

        return draw(self)

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_png_(self) -> bytes:
        return self.plot()._repr_png_()


def _restored(costs: Sequence[Cost]) -> str:
    found = [cost.restore for cost in costs if cost.restore is not None]
    return human_seconds(median(found)) if found else ""


def _check(what: str, names: Sequence[str], known: Any) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"there is no {what} {name!r}; there are: {', '.join(known)}")


def _in_turns(
    state: str,
    size: float,
    how: Sequence[str],
    dumpers: Sequence[str],
    repeats: int,
    place: Path,
    rate: float,
) -> list[Cost]:
    """Measure captures and dumps in turns: what else the machine does then meets all of them."""
    found: dict[str, list[Cost]] = {name: [] for name in (*how, *dumpers)}
    disk = FileStore(place / "store")
    store = disk if rate == math.inf else SlowStore(disk, rate)
    with (
        _holder(state, size) as pid,
        feliss.start(
            workers=1, spares=0, copies=0, checkpoint_every=None, store=store, keep=1
        ) as session,
    ):
        held = session.variable(functools.partial(_make, state, size), name="state")
        session.wait()
        there = [name for name in dumpers if not dumps.DUMPERS[name].missing(pid)]
        # An incremental one is one behind its like only; and behind a fork the first write to each
        # page costs a fault, which the next forked one bears, as in a job, and nobody else.
        alone = [name for name in how if _stands_alone(captures.method(name))]
        together = [name for name in how if name not in alone]
        for names in ([*together, *there], *([name] for name in alone)):
            for count in range(-UNCOUNTED, repeats):
                for name in names:
                    if name in there:
                        cost = _dump_cost(state, size, name, pid, place, rate)
                    else:
                        session.capture = name
                        session.put(_change, held, count + UNCOUNTED, rank=0).wait()
                        is_last = count == repeats - 1 and rate == math.inf
                        cost = _checkpoint_cost(state, size, name, session, disk, is_last)
                    if count >= 0:
                        found[name].append(cost)
    return [cost for costs in found.values() for cost in costs]


def _stands_alone(method: captures.Method) -> bool:
    return method.needs_base or method.forked


def _checkpoint_cost(
    state: str,
    size: float,
    name: str,
    session: feliss.Session,
    store: FileStore,
    restores: bool,
) -> Cost:
    one = checkpoint(session, Path(store.directory))
    again: float | None = None
    if restores:
        stand_up = functools.partial(_stand_up, store, one.number)
        [again] = session.variable(stand_up).partitions()
    figures = one.seconds, one.pause, one.nbytes, one.written, one.commit, again
    return Cost(state, size, name, False, *figures)


class OnStore(NamedTuple):
    """A checkpoint that is on a store in a directory.

    Attributes
    ----------
    number : int
        The checkpoint.
    seconds, pause, commit : float
        Until it was safe; in which the rank ran nothing; until it was committed in memory.
    nbytes, written : int
        Bytes on the disk, and those that the capture wrote.
    """

    number: int
    seconds: float
    pause: float
    commit: float
    nbytes: int
    written: int


def checkpoint(session: feliss.Session, place: Path) -> OnStore:
    """Take a checkpoint of a session that has its store in a directory."""
    begun = session.events.add("asked").at
    taken = session.checkpoint(PATIENCE, durable=True)
    [committed] = [
        event.at for event in session.events.of_kind("committed") if event.checkpoint == taken.id
    ]
    written = taken.bytes if taken.written is None else taken.written
    nbytes = _bytes_in(place / folder_name(taken.id))
    return OnStore(taken.id, taken.seconds, taken.pause, committed - begun, nbytes, written)


def _bytes_in(place: Path) -> int:
    """Bytes of the files in a folder, without their holes."""
    files = [os.stat(path) for path in place.iterdir()]
    return sum(min(file.st_size, file.st_blocks * 512) for file in files)


def _dump_cost(state: str, size: float, name: str, pid: int, place: Path, rate: float) -> Cost:
    folder = place / "dump"
    folder.mkdir(mode=0o700)
    dump = _dump(name, pid, str(folder), rate)
    shutil.rmtree(folder)
    figures = dump.seconds, dump.pause, dump.nbytes, dump.nbytes, dump.seconds
    return Cost(state, size, name, True, *figures)


def _dump(name: str, pid: int, folder: str, rate: float) -> dumps.Dump:
    if name == "memory":
        return dumps.dump_memory(pid, folder, rate)
    dump = dumps.DUMPERS[name].dump(pid, folder)
    if rate == math.inf:
        return dump
    return dumps.Dump(dump.nbytes / rate, dump.nbytes, dump.nbytes / rate)


@contextlib.contextmanager
def _holder(state: str, size: float) -> Iterator[int]:
    """Give the process that holds a state, once it does."""
    command = [sys.executable, "-m", "feliss_nb.lab.holder", state, str(size)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise FelissError(f"a process could not make the state {state!r}: is there memory?")
        yield process.pid
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


# ---------------------------------------------------------------- on the rank


def _make(state: str, size: float, rank: int, ranks: int) -> Any:
    return make(state, size)


def _stand_up(store: FileStore, number: int, rank: int, ranks: int) -> float:
    """Read the rank's shard from the disk and stand it up once more; the seconds of it."""
    begun = time.perf_counter()
    [manifest] = [found for found in store.manifests() if found.checkpoint == number]
    chain = [store.get(each, rank) for each in (*manifest.shard(rank).bases, number)]
    main, _ = split(whole(chain, allocate_each))
    again = restore(from_frames(main), renew_classes=False)
    seconds = time.perf_counter() - begun
    del again
    return seconds


def _change(held: Any, count: int) -> None:
    """Change one in a hundred entries, next to each other."""
    _touch(feliss.here()[held], count)


def _touch(value: Any, count: int) -> None:
    if isinstance(value, np.ndarray):
        value[: max(len(value) // 100, 1)] += count
    elif isinstance(value, dict) and value and all(type(v) is int for v in _first(value)):
        for _, key in zip(range(max(len(value) // 100, 1)), value, strict=False):
            value[key] = count
    elif isinstance(value, dict):
        for part in value.values():
            _touch(part, count)
    elif isinstance(value, list):
        for body in value[: max(len(value) // 100, 1)]:
            body.mass += count
    else:
        value.iloc[: max(len(value) // 100, 1), 1] += count


def _first(value: dict[Any, Any]) -> list[Any]:
    return [v for _, v in zip(range(10), value.values(), strict=False)]
