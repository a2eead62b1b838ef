"""``feliss-nb bench kills``: an iteration under which an engine is killed every few seconds."""

from __future__ import annotations

import time
from statistics import median

import feliss_nb as feliss
from feliss_nb.errors import UsageError
from feliss_nb.lab.chaos_programs import iterate, iterate_alone
from feliss_nb.lab.report import Report
from feliss_nb.state.canonical import canonical_digest

WORKERS, SPARES = 3, 1
VERTICES = 1000  # of each rank: small, so that there are many rounds to lose
ROUNDS = 300  # to find how long one takes
PATIENCE = 60.0  # seconds for the last loss to show
#: The iteration is to go on behind the last kill.
LONGER = 1.1


def kills(json: bool, seconds: float = 60.0, every: float = 3.0, seed: int = 0) -> int:
    """Kill the host of a random rank again and again under a job, and compare its result.

    The job iterates over a graph as PageRank does, by messages between ranks only. The same is
    computed in this process, with the same bits.

    Parameters
    ----------
    json : bool
        Print one object instead of a table.
    seconds : float
        How long the job would take undisturbed, about.
    every : float
        Seconds between kills.
    seed : int
        Of the graph, and of the victims.

    Returns
    -------
    int
        0 if the result is the same, to the bit.
    """
    if not 0 < every <= seconds or seed < 0:
        raise UsageError(
            f"every={every:g} must be above 0 and at most seconds={seconds:g}, and seed={seed} at "
            "least 0"
        )
    count = int(seconds / every)
    plan = [feliss.Fault("kill", at=every * (number + 1)) for number in range(count)]
    with feliss.start(workers=WORKERS, spares=SPARES, checkpoint_every=0.5) as session:
        begun = time.monotonic()
        iterate(session, seed, VERTICES, ROUNDS)
        rounds = int(LONGER * seconds / (time.monotonic() - begun) * ROUNDS) + 1
        injection = session.inject(feliss.FaultPlan(plan, seed))
        assert injection is not None
        begun = time.monotonic()
        found: list[bytes] = []
        while not (found and injection.is_over):  # once, unless it was faster than expected
            found.append(canonical_digest(iterate(session, seed, VERTICES, rounds)))
        took = time.monotonic() - begun
        session.events.wait_for("engine-lost", count, PATIENCE)
        session.wait(PATIENCE)
        lost = session.events.of_kind("engine-lost")
        recovered = session.events.of_kind("recovered")
    want = canonical_digest(iterate_alone(WORKERS, seed, VERTICES, rounds))
    equal = all(digest == want for digest in found)
    # A loss that came in the middle of a recovery ends with the next one.
    times = [next((r.at for r in recovered if r.at > one.at), one.at) - one.at for one in lost]
    report = Report("kills")
    report.add("seed", seed, "")
    report.add("rounds", rounds, "")
    report.add("jobs, one after the other", len(found), "")
    report.add("kills", len(injection.fired), "")
    report.add("engines lost", len(lost), "")
    report.add("recoveries", len(recovered), "")
    report.add("from a loss to every rank running, median", median(times or [0.0]), "s")
    report.add("the longest of these", max(times, default=0.0), "s")
    report.add("time", took, "s")
    report.add("the result of the undisturbed run", int(equal), "", at_least=1)
    report.print(json)
    return 0 if equal else 1
