"""``feliss-nb demo``: count words, lose a worker in the middle, recover, compare."""

from __future__ import annotations

import math
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import feliss_nb as feliss
from feliss_nb.lab.losses import Kill, Recovery, kill_unseen, recovery
from feliss_nb.lab.picture import check_picture, draw
from feliss_nb.lab.report import Report
from feliss_nb.lab.timeline import timeline

WORKERS = 3
#: What lies in the library's folder and is no part of it, or twice its size.
_OTHERS = {"site-packages", "dist-packages", "test", "tests"}
#: The share of the lines that is mapped when the checkpoint is asked for, and when a worker dies.
_CHECKPOINT_AT, _KILL_AT = 0.3, 0.45
#: Seconds of counting in one process that the input is worth at least: on a fast machine the files
#: are read several times over, for the job must still run when the worker dies.
_WORTH = 0.4


def words(line: str) -> Iterator[tuple[str, int]]:
    """Map a line to its words."""
    for word in line.split():
        yield word, 1


@dataclass(frozen=True, slots=True)
class Text:
    """The input, and what one process makes of it.

    Attributes
    ----------
    paths : list of str
        Each as often as it is read.
    lines, nbytes : int
        In all of them.
    counts : dict of str to int
        The words.
    seconds : float
        What that took.
    """

    paths: list[str]
    lines: int
    nbytes: int
    counts: dict[str, int]
    seconds: float

    @classmethod
    def of_library(cls) -> Text:
        """Count the words of the Python standard library's source."""
        folder = Path(sysconfig.get_path("stdlib"))
        files = sorted(p for p in folder.rglob("*.py") if not _OTHERS & set(p.parts))
        begun = time.perf_counter()
        counts: Counter[str] = Counter()
        lines = nbytes = 0
        for file in files:
            data = file.read_bytes()
            counts.update(data.decode("utf-8", "replace").split())
            lines += data.count(b"\n") + (data[-1:] not in (b"", b"\n"))
            nbytes += len(data)
        seconds = time.perf_counter() - begun
        times = math.ceil(_WORTH / seconds)
        return cls(
            [str(file) for file in files] * times,
            lines * times,
            nbytes * times,
            {word: count * times for word, count in counts.items()},
            seconds * times,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """What the run with a loss gave."""

    counts: dict[str, int]
    events: list[feliss.Event]
    started: float  # seconds until the engines were up
    seconds: float  # of the job, with its loss
    checkpoint: feliss.Checkpoint
    recovery: Recovery
    again: float  # share of the lines that was mapped after the loss


def run(text: Text) -> Run:
    """Count the words on three workers, kill one in the middle, collect the result.

    Parameters
    ----------
    text : Text
        The input.
    """
    begun = time.perf_counter()
    with feliss.start(workers=WORKERS, spares=1) as session:
        started = time.perf_counter() - begun
        begun = time.perf_counter()
        counts = session.mapreduce(words, sum, session.read_text(text.paths))
        _wait_for(session, counts, text.lines * _CHECKPOINT_AT)
        checkpoint = session.checkpoint()
        _wait_for(session, counts, text.lines * _KILL_AT)
        kill: Kill = kill_unseen(session, 1)
        parts = recovery(session, kill, 1)
        result = dict(counts.collect())
        seconds = time.perf_counter() - begun
        events = list(session.events)
    again = sum(e.records for e in events if e.kind == "mapped" and e.epoch)
    return Run(result, events, started, seconds, checkpoint, parts, again / text.lines)


def _wait_for(session: feliss.Session, filled: feliss.Variable, lines: float) -> None:
    """Wait until so many lines are mapped, or the job has ended before that was told."""
    count = 0
    while filled.job is not None and filled.job.state in ("held", "running"):
        mapped = session.events.of_kind("mapped")
        if sum(event.records for event in mapped) >= lines:
            return
        count = len(mapped) + 1
        try:
            session.events.wait_for("mapped", count, timeout=0.2)
        except TimeoutError:
            continue


def figures(text: Text, done: Run) -> Report:
    """Put the figures together.

    Parameters
    ----------
    text : Text
        The input.
    done : Run
        What came of it.
    """
    report, parts = Report("demo"), done.recovery
    report.add("results equal", done.counts == text.counts, "", at_least=1)
    report.add("text", text.nbytes / 1e6, "MB")
    report.add("words", sum(text.counts.values()), "")
    report.add("different words", len(text.counts), "")
    report.add("start of 3 workers and a spare", done.started, "s")
    report.add("one process alone", text.seconds, "s")
    report.add("3 workers, with a checkpoint and a loss", done.seconds, "s")
    report.add("checkpoint, size", done.checkpoint.bytes / 1e6, "MB")
    report.add("checkpoint, time", done.checkpoint.seconds * 1e3, "ms")
    report.add("checkpoint, pause of the ranks", done.checkpoint.pause * 1e3, "ms")
    report.add("loss noticed after", parts.detection * 1e3, "ms")
    report.add("snapshots loaded after another", parts.load * 1e3, "ms")
    report.add("ranks resumed after another", parts.resume * 1e3, "ms")
    report.add("recovery, from SIGKILL to all running", parts.total * 1e3, "ms")
    report.add("input mapped behind the loss", 100 * done.again, "%")
    return report


def main(json: bool, picture: str | None = None) -> int:
    """Run the demonstration.

    Parameters
    ----------
    json : bool
        Print the figures as one object, and nothing else.
    picture : str, optional
        Draw the time line into this file.

    Returns
    -------
    int
        0 only if the result with a lost worker equals that of one process.
    """
    if picture is not None:
        check_picture(picture)
    text = Text.of_library()
    if not json:
        files = len(set(text.paths))
        times = len(text.paths) // files
        print(
            f"Counting the words of the Python standard library: {files} files, "
            f"{text.nbytes / 1e6:.1f} MB" + (f" ({times} times over)" if times > 1 else "") + ",\n"
            f"on {WORKERS} workers with a spare; one dies in the middle.\n",
            flush=True,
        )
    done = run(text)
    report = figures(text, done)
    if not json:
        print(timeline(done.events, text.lines), end="\n\n")
    report.print(json)
    if picture is not None:
        lost = done.recovery.total * 1e3
        title = f"Word count on 3 workers and a spare; all run again {lost:.0f} ms after a SIGKILL"
        draw(done.events, picture, title)
    equal = done.counts == text.counts
    if not json:
        what = "equals" if equal else "DIFFERS FROM"
        print(f"\nThe result {what} the count of a single process.")
    return 0 if equal else 1
