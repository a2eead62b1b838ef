"""``feliss-nb bench wordcount``: a word count that survives, next to one that does not.

The map function is a Counter per block of text, on both sides. The pool's processes read the text
themselves, as the ranks do. Two users of a pool are timed, one who gives it a task for each block
and merges what comes back, and one who lets each process merge its own blocks first; the figure
that counts is against the faster. Start-up counts on neither side.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from statistics import median

import feliss_nb as feliss
from feliss_nb.lab import losses
from feliss_nb.lab.report import Report
from feliss_nb.lab.zipf import write_text

Part = tuple[str, int, int]  # a file, and the bytes in which the lines start
Counts = dict[str, int]

_BLOCK = 1 << 20  # bytes; what read_text takes too


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is counted, how often, and from which share on it is disturbed."""

    text: int = 100_000_000
    turns: int = 5
    middle: float = 0.55


QUICK = Sizes(4_000_000, 1, 0.3)


def wordcount(json: bool, quick: bool = False) -> int:
    """Count words with a session and with a pool, then with a loss.

    Parameters
    ----------
    json : bool
        Print one object instead of a table.
    quick : bool
        A little text, once.

    Returns
    -------
    int
        0 if all counts are equal: a target that is missed is a finding, not a failure.
    """
    sizes = QUICK if quick else Sizes()
    report = Report("wordcount")
    with tempfile.TemporaryDirectory(prefix="feliss-") as folder:
        path = Path(folder) / "zipf.txt"
        write_text(path, sizes.text)
        report.add("text", sizes.text / 1e6, "MB")
        expected, alone = _timed(lambda: _in_one_process(path))
        report.add("one process", alone, "s")
        equal = _compare(report, sizes, path, expected)
        equal &= _disturb(report, sizes, path, expected)
    report.add("results equal", equal, "", at_least=1)
    report.print(json)
    return 0 if equal else 1


# ----------------------------------------------------------------------------- the same function


def count(block: str) -> Counter[str]:
    """Count the words of a block."""
    return Counter(block.split())


def _in_one_process(path: Path) -> Counts:
    size = path.stat().st_size
    return _count_part(_parts(path, size, 1)[0])


def _parts(path: Path, size: int, number: int) -> list[Part]:
    cuts = [size * part // number for part in range(number + 1)]
    return [(str(path), *cut) for cut in itertools.pairwise(cuts)]


def _read(part: Part) -> Iterator[str]:
    """Read the lines that start in a part, about a block at a time."""
    path, start, stop = part
    with open(path, "rb") as file:
        if start:
            file.seek(start - 1)
            file.readline()
        while file.tell() < stop:
            data = file.read(min(_BLOCK, stop - file.tell()))
            yield (data + (b"" if data.endswith(b"\n") else file.readline())).decode()


def _count_part(part: Part) -> Counter[str]:
    total: Counter[str] = Counter()
    for block in _read(part):
        total.update(count(block))
    return total


def _pool_by_blocks(pool: Pool, path: Path, processes: int) -> Counts:
    size = path.stat().st_size
    blocks = _parts(path, size, max(processes, -(-size // _BLOCK)))
    return _merge(pool.imap_unordered(_count_part, blocks))


def _pool_by_parts(pool: Pool, path: Path, processes: int) -> Counts:
    return _merge(pool.map(_count_part, _parts(path, path.stat().st_size, processes), 1))


def _merge(counters: Iterator[Counter[str]] | list[Counter[str]]) -> Counts:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def count_in_session(session: feliss.Session, path: Path) -> Counts:
    """Count the words of a file."""
    text = session.read_text(path, by="block")
    return dict(session.mapreduce(count, sum, text).collect())


# ------------------------------------------------------------------------------------- comparing


def _timed(function: Callable[[], Counts]) -> tuple[Counts, float]:
    begun = time.perf_counter()
    result = function()
    return result, time.perf_counter() - begun


def _compare(report: Report, sizes: Sizes, path: Path, expected: Counts) -> bool:
    """Time the contenders in turns; each has counted once before."""
    cores = max(2, min(8, len(os.sched_getaffinity(0))))
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(cores) as pool, feliss.start(workers=cores) as session:
        contenders: dict[str, Callable[[], Counts]] = {
            "session, collected": lambda: count_in_session(session, path),
            "Pool, a task for each block": lambda: _pool_by_blocks(pool, path, cores),
            "Pool, a task for each process": lambda: _pool_by_parts(pool, path, cores),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        equal = True
        for turn in range(-1, sizes.turns):
            for name, contender in contenders.items():
                result, took = _timed(contender)
                equal &= result == expected
                if turn >= 0:
                    seconds[name].append(took)
        committed = len(session.events.of_kind("committed"))
    report.add("workers, and processes of the pool", cores, "")
    medians = {name: median(turns) for name, turns in seconds.items()}
    for name, found in medians.items():
        report.add(name, found, "s")
    ours, *pools = medians.values()
    report.add("session / faster pool", ours / min(pools), "", at_most=1.25)
    report.add("checkpoints taken meanwhile", committed, "")
    return equal


def _disturb(report: Report, sizes: Sizes, path: Path, expected: Counts) -> bool:
    """Ask for a checkpoint in the middle, kill a worker, and count what is mapped again."""
    cores = max(2, min(8, len(os.sched_getaffinity(0))))
    with feliss.start(workers=cores, spares=1, checkpoint_every=None) as session:
        _, calm = _timed(lambda: count_in_session(session, path))
        blocks = len(session.read_text(path, by="block"))
        before = _all_mapped(session)
        begun = time.perf_counter()
        counts = session.mapreduce(count, sum, session.read_text(path, by="block"))
        while _mapped(session) < before + blocks * sizes.middle:
            done = len(session.events.of_kind("mapped"))
            session.events.wait_for("mapped", done + 1, losses.PATIENCE)
        checkpoint = session.checkpoint()
        kill = losses.kill_unseen(session, 0)
        recovery = losses.recovery(session, kill, 1)
        equal = dict(counts.collect()) == expected
        took = time.perf_counter() - begun
        _all_mapped(session)
        after = sum(e.records for e in session.events.of_kind("mapped") if e.epoch)
    report.add("checkpoint in the middle, until committed", checkpoint.seconds, "s", at_most=0.5)
    report.add("checkpoint in the middle, pause", checkpoint.pause * 1e3, "ms")
    report.add("checkpoint in the middle, size", checkpoint.bytes / 1e6, "MB")
    report.add("share of the input mapped behind the loss", after / blocks, "", at_most=0.5)
    report.add("recovery from the loss", recovery.total * 1e3, "ms")
    report.add("session with a spare, undisturbed", calm, "s")
    report.add("session with a spare, a checkpoint and a loss", took, "s")
    return equal


def _mapped(session: feliss.Session) -> int:
    return sum(event.records for event in session.events.of_kind("mapped"))


def _all_mapped(session: feliss.Session) -> int:
    """Count the mapped records of jobs that have ended: the last are told a moment later."""
    while True:
        done = len(session.events.of_kind("mapped"))
        try:
            session.events.wait_for("mapped", done + 1, 0.5)
        except TimeoutError:
            return _mapped(session)
