"""``feliss-nb bench overhead``: by how much checkpoints at the automatic interval delay a job.

The job relaxes a grid that lies in strips on two ranks: every number of its state changes in each
iteration, neighbours exchange rows, and all agree on the largest change. It runs in pairs, once
with checkpoints and once without, in the same session and in alternating order.

Two runs of the same program differ by more than checkpoints cost wherever a machine is shared. So
there is a second figure from the same runs: by how much each iteration was longer than those around
it, which a machine that is slower for a while does not change.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import psutil

import feliss_nb as feliss
from feliss_nb.errors import UsageError
from feliss_nb.lab.report import Report
from feliss_nb.state import captures

PATIENCE = 600.0
#: The capture that is measured if none is asked for.
CAPTURE = "full"
_RANKS = 2
_TARGET = 2.0  # percent
_LEAST = 6  # commits in a run
_WANTED = 7.0  # intervals in a run
_AROUND = 41  # iterations: a checkpoint is felt in a few of them, less than half
#: Two-sided 95 % quantiles of Student's distribution, for 1, 2, ... degrees of freedom.
_STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160),
    *(2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056),
    *(2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: the state of all ranks in MB; mean time between losses in seconds."""

    megabytes: float = 500.0
    mtbf: float = 600.0
    trial: int = 10  # iterations that are timed to know how many make a run
    most: int = 100_000  # iterations of a run


QUICK = Sizes(2.0, 600.0, 2, 5)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the job.

    Attributes
    ----------
    seconds : float
        Of the job.
    cpu : float
        Processor time of all engines and their children meanwhile.
    commits : int
    paused : float
        Seconds in which ranks waited for checkpoints, the sum of the longest of each.
    excess : float
        Seconds by which iterations were longer than those around them.
    """

    seconds: float
    cpu: float
    commits: int
    paused: float
    excess: float


def overhead(json: bool, runs: int = 10, capture: str = CAPTURE, quick: bool = False) -> int:
    """Run the job in pairs, with checkpoints and without.

    Parameters
    ----------
    json : bool
        Print one object instead of a table.
    runs : int
        Pairs.
    capture : str
        How a rank becomes a snapshot.
    quick : bool
        One pair of a tiny job.

    Returns
    -------
    int
        0: a target that is missed is a finding, not a failure.
    """
    captures.method(capture)
    if not isinstance(runs, int) or runs < 2:
        raise UsageError(f"runs= takes a whole number of at least 2, not {runs!r}")
    sizes, runs = (QUICK, 2) if quick else (Sizes(), runs)
    report = Report("overhead")
    iterations, pairs = run_pairs(capture, sizes, runs, _step)
    _add(report, capture, sizes, iterations, pairs)
    report.print(json)
    return 0


def run_pairs(
    capture: str, sizes: Sizes, runs: int, on_step: Callable[[str], None] = lambda text: None
) -> tuple[int, list[tuple[Run, Run]]]:
    """Run the job in pairs; return its iterations, and each run with checkpoints and without."""
    with feliss.start(_RANKS, 0, copies=1, checkpoint_every=None, capture=capture) as session:
        state = session.variable(functools.partial(_grids, sizes.megabytes), name="state")
        session.wait()
        iterations, every = _length(session, state, sizes)
        on_step(f"{iterations} iterations a run, a checkpoint about every {every:.2f} s")
        pairs = []
        for turn in range(runs):
            pairs.append(_pair(session, state, sizes, iterations, turn))
            for run, name in zip(pairs[-1], ("with", "without"), strict=True):
                on_step(
                    f"pair {turn + 1} of {runs}, {name} checkpoints: {run.seconds:.2f} s, "
                    f"{run.commits} commits"
                )
    return iterations, pairs


def _length(session: feliss.Session, state: feliss.Variable, sizes: Sizes) -> tuple[int, float]:
    """Find how many iterations a run needs for its checkpoints, and their interval."""
    each = [_run(session, state, sizes.trial, None).seconds for _ in range(3)][-1] / sizes.trial
    session.checkpoint_every("auto", sizes.mtbf)
    session.checkpoint(PATIENCE)  # each so far was a cost that the interval is chosen by
    pacing = session.status().pacing
    assert pacing is not None
    return min(math.ceil(_WANTED * pacing.every / each), sizes.most), pacing.every


def _pair(
    session: feliss.Session,
    state: feliss.Variable,
    sizes: Sizes,
    iterations: int,
    turn: int,
) -> tuple[Run, Run]:
    """Run it with checkpoints and without, every other time the other way round."""
    found: dict[bool, Run] = {}
    for protected in (True, False) if turn % 2 else (False, True):
        found[protected] = _run(session, state, iterations, sizes.mtbf if protected else None)
    return found[True], found[False]


def _run(
    session: feliss.Session, state: feliss.Variable, iterations: int, mtbf: float | None
) -> Run:
    # Both kinds begin behind a checkpoint, with nothing on its way.
    session.checkpoint_every(None)
    session.checkpoint(PATIENCE)
    before = len(session.events)
    cpu = _cpu(session)
    if mtbf is not None:
        session.checkpoint_every("auto", mtbf)
    begun = time.perf_counter()
    job = session.spmd(_relax, state, iterations, [])
    session.wait(PATIENCE)
    seconds = time.perf_counter() - begun
    lasted = np.diff(job.partitions()[0])
    cpu = _cpu(session) - cpu
    committed = [event for event in session.events[before:] if event.kind == "committed"]
    paused = sum(event.pause for event in committed)
    return Run(seconds, cpu, len(committed), paused, excess(lasted))


def excess(lasted: np.ndarray) -> float:
    """Return by how much iterations were longer than the median of those around them, summed."""
    size = min(_AROUND, len(lasted))
    windows = np.lib.stride_tricks.sliding_window_view(lasted, size)
    middles = np.median(windows, axis=1)
    around = np.pad(middles, (size // 2, len(lasted) - len(middles) - size // 2), mode="edge")
    return float((lasted - around).sum())


def _cpu(session: feliss.Session) -> float:
    """Processor seconds of the engines so far, with those of children that have ended."""
    return sum(
        sum(psutil.Process(engine.pid).cpu_times()[:4])
        for engine in session.status().engines
        if engine.role != "dead"
    )


def _add(
    report: Report, capture: str, sizes: Sizes, iterations: int, pairs: list[tuple[Run, Run]]
) -> None:
    parts = [(one.seconds / other.seconds - 1) * 100 for one, other in pairs]
    spread = _half_width(parts)
    what = f"{sizes.megabytes:g} MB, {capture}"
    plain = median(other.seconds for _, other in pairs)
    report.add("pairs of runs", len(pairs), "")
    report.add(f"{what}: iterations of a run", iterations, "")
    report.add(f"{what}: a run without checkpoints", plain, "s")
    least = min(one.commits for one, _ in pairs)
    report.add(f"{what}: commits in a run, at least", least, "", at_least=_LEAST)
    report.add(f"{what}: overhead", fmean(parts), "%", at_most=_TARGET)
    report.add(f"{what}: overhead, 95 % interval from", fmean(parts) - spread, "%")
    report.add(f"{what}: overhead, 95 % interval to", fmean(parts) + spread, "%")
    report.add(f"{what}: overhead, median of the pairs", median(parts), "%")
    felt = [(one.excess - other.excess) / other.seconds * 100 for one, other in pairs]
    spread = _half_width(felt)
    report.add(f"{what}: by iterations next to others", fmean(felt), "%", at_most=_TARGET)
    report.add(f"{what}: by iterations, 95 % interval from", fmean(felt) - spread, "%")
    report.add(f"{what}: by iterations, 95 % interval to", fmean(felt) + spread, "%")
    commits = [max(one.commits, 1) for one, _ in pairs]
    paused = [one.paused / n * 1e3 for (one, _), n in zip(pairs, commits, strict=True)]
    report.add(f"{what}: pause of a checkpoint", median(paused), "ms")
    delay = [
        (one.seconds - other.seconds) / n * 1e3
        for (one, other), n in zip(pairs, commits, strict=True)
    ]
    report.add(f"{what}: delay by a checkpoint", median(delay), "ms")
    share = [one.paused / other.seconds * 100 for one, other in pairs]
    report.add(f"{what}: of it pauses", median(share), "%")
    work = [(one.cpu - other.cpu) / n * 1e3 for (one, other), n in zip(pairs, commits, strict=True)]
    report.add(f"{what}: processor time of a checkpoint", median(work), "ms")


def _half_width(values: list[float]) -> float:
    """Half of the 95 % interval of a mean."""
    free = min(len(values) - 1, len(_STUDENT))
    return _STUDENT[free - 1] * stdev(values) / math.sqrt(len(values))


def _step(text: str) -> None:
    print(f"{text} ...", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- on the ranks


def _grids(megabytes: float, rank: int, ranks: int) -> list[np.ndarray]:
    """Two grids, one read and one written, with a row of each neighbour's at the edges."""
    columns = 1000 if megabytes > 10 else 50
    rows = max(int(megabytes * 1e6 / ranks / 2 / 8 / columns), 4)
    grid = np.random.default_rng(rank).random((rows, columns))
    return [grid, grid.copy()]


def _relax(comm: Any, state: feliss.Variable, left: int, begun: list[float]) -> Any:
    begun.append(time.perf_counter())
    grids = feliss.here()[state]
    old, new = grids
    _exchange(comm, old)
    inner = new[1:-1, 1:-1]
    np.add(old[:-2, 1:-1], old[2:, 1:-1], out=inner)
    inner += old[1:-1, :-2]
    inner += old[1:-1, 2:]
    inner *= 0.25
    change = float(abs(new[1, :] - old[1, :]).max())
    change = comm.allreduce(change, max)
    grids.reverse()
    if left <= 1 or not math.isfinite(change):
        return begun
    return comm.then(_relax, state, left - 1, begun)


def _exchange(comm: Any, grid: np.ndarray) -> None:
    below, above = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    grid[0] = comm.sendrecv(grid[-2], below, source=above)
    grid[-1] = comm.sendrecv(grid[1], above, source=below)
