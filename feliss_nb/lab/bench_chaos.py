"""``feliss-nb bench chaos``: random programs on real engines under random fault plans."""

from __future__ import annotations

import sys
import time

from feliss_nb.errors import UsageError
from feliss_nb.lab.chaos import Drawn, play_all
from feliss_nb.lab.report import Report


def chaos(json: bool, runs: int = 30, seed: int = 0) -> int:
    """Play random runs, and count what came of them.

    Parameters
    ----------
    json : bool
        Print one object instead of a table; what came of each run goes to standard error.
    runs : int
        How many.
    seed : int
        Of the first; the others follow.

    Returns
    -------
    int
        0 if every run gave the undisturbed result, or ended with the error that says that more was
        lost than copies tolerate, and nothing was left behind.
    """
    if runs < 1 or seed < 0:
        raise UsageError(f"runs={runs} must be at least 1, and seed={seed} at least 0")

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    begun = time.monotonic()
    outcome = play_all([Drawn.draw(one) for one in range(seed, seed + runs)], say)
    report = Report("chaos")
    report.add("runs", outcome.runs, "")
    report.add("first seed", seed, "")
    report.add("with the result of the undisturbed run", outcome.equal, "")
    report.add("ended: more was lost than the copies tolerate", outcome.lost, "")
    for kind, count in sorted(outcome.survived.items()):
        report.add(f"faults survived: {kind}", count, "")
    report.add("wrong results", len(outcome.wrong), "", at_most=0)
    report.add("hangs", len(outcome.hangs), "", at_most=0)
    report.add("leftovers", len(outcome.leftovers), "", at_most=0)
    report.add("minutes", (time.monotonic() - begun) / 60, "min")
    for text in [*outcome.wrong, *outcome.hangs, *outcome.leftovers]:
        say(text)
    report.print(json)
    return 0 if report.ok else 1
