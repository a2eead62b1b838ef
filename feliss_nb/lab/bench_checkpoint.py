"""``feliss-nb bench checkpoint``: checkpoints next to dumps of the whole memory."""

from __future__ import annotations

import sys
from statistics import median

from feliss_nb.lab.costs import Comparison, Cost, measure
from feliss_nb.lab.report import Report
from feliss_nb.lab.states import STATES

#: A map of 20 million entries: what Feliss was measured with against BLCR.
PAPER = "dict of ints"
ENTRIES = 20_000_000
_MEGABYTES = ENTRIES * STATES[PAPER].bytes_each / 1e6
_OTHERS = 200.0
_QUICK = 2.0
_CAPTURES = ("full", "full+zstd", "forked", "incremental", "incremental+forked")


def checkpoint(json: bool, repeats: int = 5, quick: bool = False) -> int:
    """Measure captures and dumps on states of several kinds, and on the map of the paper.

    Parameters
    ----------
    json : bool
        Print one object instead of a table.
    repeats : int
        Of each; figures are medians.
    quick : bool
        Tiny states, once each.

    Returns
    -------
    int
        0: a target that is missed is a finding, not a failure.
    """

    def step(text: str) -> None:
        print(f"{text} ...", file=sys.stderr, flush=True)

    repeats = 1 if quick else repeats
    report = Report("checkpoint")
    size = _QUICK if quick else _MEGABYTES
    paper = measure((PAPER,), (size,), _CAPTURES, repeats=repeats, on_step=step)
    _add(report, paper)
    _compare(report, paper)
    others = tuple(state for state in STATES if state != PAPER)
    size = _QUICK if quick else _OTHERS
    _add(report, measure(others, (size,), _CAPTURES, repeats=repeats, on_step=step))
    report.print(json)
    return 0


def _add(report: Report, comparison: Comparison) -> None:
    for (state, size, how), costs in comparison.groups().items():
        what = f"{state}, {size:g} MB, {'dump: ' if costs[0].dump else ''}{how}"
        report.add(f"{what}: until safe", median(cost.seconds for cost in costs), "s")
        report.add(f"{what}: pause", median(cost.pause for cost in costs) * 1e3, "ms")
        report.add(f"{what}: on the disk", median(cost.bytes for cost in costs) / 1e6, "MB")
        if not costs[0].dump:
            written = median(cost.written for cost in costs) / 1e6
            report.add(f"{what}: written by the capture", written, "MB")


def _compare(report: Report, comparison: Comparison) -> None:
    """Add the ratios to the dumps, which have targets."""
    by_name: dict[str, list[Cost]] = {}
    for (_, _, how), costs in comparison.groups().items():
        by_name[how] = costs

    def ratio(dump: str, capture: str, figure: str) -> float:
        one, other = (
            median(getattr(cost, figure) for cost in by_name[how]) for how in (dump, capture)
        )
        return one / other

    for dump, least in (("gcore", 5.3), ("memory", 2.0)):
        if dump in by_name:
            value = ratio(dump, "full", "seconds")
            report.add(f"{PAPER}: time, dump by {dump} / full", value, "", at_least=least)
            value = ratio(dump, "full", "bytes")
            report.add(f"{PAPER}: bytes, dump by {dump} / full", value, "", at_least=9.0)
            value = ratio(dump, "forked", "pause")
            report.add(f"{PAPER}: pause, dump by {dump} / forked", value, "", at_least=50.0)
