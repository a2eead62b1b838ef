"""How soon each fault is noticed, and how soon every rank runs again: ``python -m`` this module.

Read from the event log: from the event ``fault`` to ``engine-lost``, and from there to
``recovered``. A fault that costs no engine shows neither. It takes about two minutes, most of them
for what is noticed by silence.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence

import feliss_nb as feliss
from feliss_nb.lab.chaos_programs import pagerank

#: Seconds in which a loss must show.
PATIENCE = 60.0

FAULTS: Sequence[tuple[feliss.Fault, bool]] = (
    (feliss.Fault("kill", rank=1), True),
    (feliss.Fault("kill-with-nanny", rank=1), True),
    (feliss.Fault("exhaust-memory", rank=1), True),
    (feliss.Fault("stop", rank=1, seconds=2.0), False),
    (feliss.Fault("stop", rank=1, seconds=60.0), True),
    (feliss.Fault("hang", rank=1, seconds=2.0), False),
    (feliss.Fault("slow", rank=1, seconds=2.0), False),
    (feliss.Fault("delay", rank=0, peer=1, seconds=1.0), False),
    (feliss.Fault("drop", rank=0, peer=1), True),
    (feliss.Fault("cut", rank=0, peer=1), True),
    (feliss.Fault("cut", rank=1, peer="master"), True),
)


def measure(session: feliss.Session, fault: feliss.Fault, costs: bool) -> tuple[float, float]:
    """Let a fault happen under an iteration; return the two times, or zeros.

    Parameters
    ----------
    session : Session
    fault : Fault
    costs : bool
        Whether it costs an engine.
    """
    lost, recovered = (len(session.events.of_kind(k)) for k in ("engine-lost", "recovered"))
    injection = session.inject(fault)
    pagerank(session, random.Random(1))
    assert injection is not None
    while not (injection.is_over or costs):
        pagerank(session, random.Random(1))
    if not costs:
        return 0.0, 0.0
    noticed = session.events.wait_for("engine-lost", lost + 1, PATIENCE).at
    runs = session.events.wait_for("recovered", recovered + 1, PATIENCE).at
    session.inject(None)
    return noticed - injection.fired[0].at, runs - noticed


def main() -> int:
    """Print a row for each fault."""
    with feliss.start(workers=3, spares=1, checkpoint_every=None) as session:
        want = session.status()
        for fault, costs in FAULTS:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                status = session.status()
                alive = [engine for engine in status.engines if engine.role != "dead"]
                if status.protected and len(alive) == len(want.engines):
                    break
                time.sleep(0.05)
            session.checkpoint()
            noticed, recovered = measure(session, fault, costs)
            what = f"{fault.kind} {fault.seconds:g} s" if not costs else f"{fault}"
            row = f"noticed in {noticed:6.2f} s, every rank runs {recovered:5.2f} s later"
            print(f"{what:48} {row if costs else 'no engine is lost'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
