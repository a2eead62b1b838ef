"""``feliss-nb bench kills``: an iteration under which an engine is killed every few seconds."""

from __future__ import annotations

import random
import threading
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
PATIENCE = 60.0  # seconds for a recovery to show


def kills(json: bool, seconds: float = 60.0, every: float = 3.0, seed: int = 0) -> int:
    """Kill the host of a random rank again and again under a job, and compare its result.

    The job iterates over a graph as PageRank does, by messages between ranks only. The same is
    computed in this process, with the same bits.

    Parameters
    ----------
    json : bool
        Print one object instead of a table.
    seconds : float
        For how long.
    every : float
        Seconds between kills. Where engines start more slowly than they are killed, a kill waits
        until a loss is one that the copies tolerate.
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
    with feliss.start(workers=WORKERS, spares=SPARES, checkpoint_every=0.5) as session:
        begun = time.monotonic()
        iterate(session, seed, VERTICES, ROUNDS)
        rounds = int(seconds / (time.monotonic() - begun) * ROUNDS) + 1
        killer = Killer(session, seconds, every, seed)
        begun = time.monotonic()
        found: list[bytes] = []
        while killer.is_alive():  # once, unless it was faster than expected
            found.append(canonical_digest(iterate(session, seed, VERTICES, rounds)))
        took = time.monotonic() - begun
        session.events.wait_for("engine-lost", killer.count, PATIENCE)
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
    report.add("kills", killer.count, "")
    report.add("engines lost", len(lost), "")
    report.add("recoveries", len(recovered), "")
    report.add("from a loss to every rank running, median", median(times or [0.0]), "s")
    report.add("the longest of these", max(times, default=0.0), "s")
    report.add("time", took, "s")
    report.add("the result of the undisturbed run", int(equal), "", at_least=1)
    report.print(json)
    return 0 if equal else 1


class Killer(threading.Thread):
    """Kills until its time is over.

    Attributes
    ----------
    count : int
        How many engines.
    """

    def __init__(self, session: feliss.Session, seconds: float, every: float, seed: int) -> None:
        super().__init__(name="feliss-killer", daemon=True)
        self.count = 0
        self._session, self._every = session, every
        self._end, self._rng = time.monotonic() + seconds, random.Random(seed)
        self.start()

    def run(self) -> None:
        """Kill, and wait."""
        due = time.monotonic() + self._every
        while due <= self._end and not self._session.over:
            time.sleep(max(due - time.monotonic(), 0.02))
            if time.monotonic() > self._end:
                return
            if not self._may_lose_one():
                continue
            rank = self._rng.randrange(self._session.size)
            injection = self._session.inject(feliss.Fault("kill", rank=rank))
            if injection is not None:
                injection.wait(PATIENCE)
                self.count += 1
            while due < time.monotonic():
                due += self._every

    def _may_lose_one(self) -> bool:
        status = self._session.status()
        alive = [engine for engine in status.engines if engine.role != "dead"]
        return status.protected and len(alive) > 1
