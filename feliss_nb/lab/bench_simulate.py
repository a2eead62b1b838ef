"""``feliss-nb bench simulate``: random sessions in the simulator, and how fast they go."""

from __future__ import annotations

import time
from collections import Counter

from feliss_nb.errors import InternalError, UsageError
from feliss_nb.lab.campaign import MOST, play
from feliss_nb.lab.report import Report
from feliss_nb.lab.simulator import Hang, Simulation


def simulate(
    json: bool, runs: int = 1000, seed: int = 0, workers: int = 2000, calls: int = 6
) -> int:
    """Play random sessions under random fault plans, and one with many virtual workers.

    Parameters
    ----------
    json : bool
        Print one object instead of a table.
    runs : int
        How many sessions.
    seed : int
        Of the first; the others follow.
    workers : int
        Virtual workers of the large session, which loses one of them.
    calls : int
        The most calls of a program.

    Returns
    -------
    int
        0 if every session gave the undisturbed result, or ended because more was lost than its
        copies tolerate, and said so.
    """
    if runs < 1 or workers < 1 or calls < 1:
        raise UsageError(f"runs={runs}, workers={workers} and calls={calls} must be at least 1")
    report = Report("simulate")
    wrong = _campaign(report, runs, seed, calls)
    begun = time.perf_counter()
    sim = Simulation(seed, workers=workers, check_every=0)
    sim.submit([("walk", 0, 3, 3), ("checkpoint",), ("gang", 0, 2, 0)])
    sim.run_until(lambda: sim.events > 3 * workers, MOST * workers)
    sim.kill(sim.host(workers // 2))
    sim.run(MOST * workers)
    took = time.perf_counter() - begun
    report.add("virtual workers of one session", workers, "")
    report.add("events of it", sim.events, "")
    report.add("events of it a second", sim.events / took, "1/s")
    report.print(json)
    return 1 if wrong else 0


def _campaign(report: Report, runs: int, seed: int, calls: int) -> int:
    counts: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    bad: list[int] = []
    begun = time.perf_counter()
    for one in range(seed, seed + runs):
        try:
            played = play(one, most=calls)
        except Hang:
            counts["hangs"] += 1
            bad.append(one)
            continue
        except InternalError:
            counts["broken"] += 1
            bad.append(one)
            continue
        counts["events"] += played.events
        counts["lost"] += played.lost
        counts["equal"] += played.equal
        faults.update(played.faults)
        if not (played.equal or played.lost):
            counts["wrong"] += 1
            bad.append(one)
    took = time.perf_counter() - begun
    report.add("sessions", runs, "")
    report.add("first seed", seed, "")
    for kind, number in sorted(faults.items()):
        report.add(f"faults: {kind}", number, "")
    report.add("with the result of the undisturbed run", counts["equal"], "")
    report.add("ended: more was lost than the copies tolerate", counts["lost"], "")
    report.add("wrong results", counts["wrong"], "", at_most=0)
    report.add("hangs", counts["hangs"], "", at_most=0)
    report.add("invariants broken", counts["broken"], "", at_most=0)
    for at, number in enumerate(bad[:5], 1):
        report.add(f"seed {at} to look at", number, "")
    report.add("events", counts["events"], "")
    report.add("events a second, every 10th checked", counts["events"] / took, "1/s")
    return len(bad)
