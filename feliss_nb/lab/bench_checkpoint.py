"""``feliss-nb bench checkpoint``: what checkpoints cost, next to dumps of the whole memory.

The parts, which can be asked for one by one:

``paper``
    The map of 20 million entries, to a file, next to the dumps.
``slow``
    The same on a store of 100 MB/s.
``pause``, ``disk``
    A gigabyte of arrays: into memory, next to a copy and a fork of the same process; onto the disk,
    next to a plain write; and with a hundredth of it changed.
``restore``
    A worker is killed, and its state comes from another one's memory.
``memory``
    All that the engines take before, while and after.
``others``
    Smaller states of other kinds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from feliss_nb.errors import UsageError
from feliss_nb.lab import array_costs
from feliss_nb.lab.array_costs import ratio
from feliss_nb.lab.costs import Comparison, Cost, measure
from feliss_nb.lab.report import Report
from feliss_nb.lab.states import STATES

#: A map of 20 million entries: what Feliss was measured with against BLCR.
PAPER = "dict of ints"
ENTRIES = 20_000_000
_CAPTURES = (
    "full",
    "full+zstd",
    "forked",
    "forked+zstd",
    "incremental",
    "incremental+zstd",
    "incremental+forked",
)
_FEW = ("full", "full+zstd", "forked", "incremental", "incremental+forked")
_SLOW = 100e6
#: How many times faster than each dump a checkpoint of the map is to be on a local disk.
_FASTER = {"gcore": 5.3, "memory": 2.0}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: states in megabytes, a store in bytes a second; and what."""

    paper: float = ENTRIES * STATES[PAPER].bytes_each / 1e6
    arrays: float = 1000.0
    resident: float = 2000.0
    others: float = 200.0
    slow: float = _SLOW
    states: tuple[str, ...] = tuple(state for state in STATES if state != PAPER)
    in_memory: tuple[str, ...] = ("full", "forked", "incremental")


QUICK = Sizes(2.0, 2.0, 150.0, 2.0, 10 * _SLOW, ("float array",), ("forked",))

Part = Callable[[Report, Sizes, int], None]


def checkpoint(json: bool, repeats: int = 5, quick: bool = False, part: str | None = None) -> int:
    """Measure captures and dumps on states of several kinds, and on the map of the paper.

    Parameters
    ----------
    json : bool
        Print one object instead of a table.
    repeats : int
        Of each; figures are medians.
    quick : bool
        Tiny states, once each.
    part : str, optional
        One of the parts only.

    Returns
    -------
    int
        0: a target that is missed is a finding, not a failure.
    """
    if part is not None and part not in PARTS:
        raise UsageError(f"there is no part {part!r}; there are: {', '.join(PARTS)}")
    if not isinstance(repeats, int) or repeats < 1:
        raise UsageError(f"repeats= takes a whole number of at least 1, not {repeats!r}")
    repeats = 1 if quick else repeats
    report = Report("checkpoint")
    report.add("repeats of each", repeats, "")
    for name in PARTS if part is None else (part,):
        PARTS[name](report, QUICK if quick else Sizes(), repeats)
    report.figures.sort(key=lambda figure: figure.target is None)  # what was promised comes first
    report.print(json)
    return 0


def _step(text: str) -> None:
    print(f"{text} ...", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- next to dumps


def _paper(report: Report, sizes: Sizes, repeats: int) -> None:
    found = measure((PAPER,), (sizes.paper,), _CAPTURES, repeats=repeats, on_step=_step)
    _add(report, found)
    by_name = _by_name(found)
    for dump in _dumps(by_name):
        for how in (how for how in _CAPTURES if not how.startswith("incremental")):
            times, sizes_ = (_ratio(by_name, dump, how, figure) for figure in ("seconds", "bytes"))
            what = f"{PAPER}: {{}}, dump by {dump} / {how}"
            # forking shortens the pause, which has its own target
            least = None if "forked" in how else _FASTER.get(dump)
            report.add(what.format("time"), times, "", at_least=least)
            report.add(what.format("bytes"), sizes_, "", at_least=13 if "zstd" in how else 9)
        value = _ratio(by_name, dump, "forked", "pause")
        report.add(f"{PAPER}: pause, dump by {dump} / forked", value, "", at_least=50)


def _slow(report: Report, sizes: Sizes, repeats: int) -> None:
    _step(f"a store of {sizes.slow / 1e6:g} MB/s")
    found = measure(
        (PAPER,),
        (sizes.paper,),
        ("full", "full+zstd"),
        repeats=repeats,
        on_step=_step,
        bytes_per_second=sizes.slow,
    )
    where = f", {sizes.slow / 1e6:g} MB/s"
    _add(report, found, where)
    by_name = _by_name(found)
    for dump in _dumps(by_name):
        for how in ("full", "full+zstd"):
            value = _ratio(by_name, dump, how, "seconds")
            report.add(f"{PAPER}{where}: time, dump by {dump} / {how}", value, "", at_least=8)


def _others(report: Report, sizes: Sizes, repeats: int) -> None:
    _add(report, measure(sizes.states, (sizes.others,), _FEW, repeats=repeats, on_step=_step))


def _add(report: Report, comparison: Comparison, where: str = "") -> None:
    for (state, size, how), costs in comparison.groups().items():
        what = f"{state}, {size:g} MB{where}, {'dump: ' if costs[0].dump else ''}{how}"
        report.add(f"{what}: until safe", median(cost.seconds for cost in costs), "s")
        report.add(f"{what}: pause", _ms(costs, "pause"), "ms")
        report.add(f"{what}: on the disk", median(cost.bytes for cost in costs) / 1e6, "MB")
        if costs[0].dump:
            continue
        report.add(f"{what}: committed in memory", median(cost.commit for cost in costs), "s")
        written = median(cost.written for cost in costs) / 1e6
        report.add(f"{what}: written by the capture", written, "MB")
        again = [cost.restore for cost in costs if cost.restore is not None]
        if again:
            report.add(f"{what}: restore from the disk", median(again), "s")


def _by_name(comparison: Comparison) -> dict[str, list[Cost]]:
    return {how: costs for (_, _, how), costs in comparison.groups().items()}


def _dumps(by_name: dict[str, list[Cost]]) -> list[str]:
    return [how for how, costs in by_name.items() if costs[0].dump]


def _ratio(by_name: dict[str, list[Cost]], one: str, other: str, figure: str) -> float:
    above, below = ([getattr(cost, figure) for cost in by_name[how]] for how in (one, other))
    return ratio(above, below)


def _ms(costs: list[Cost], figure: str) -> float:
    return median(getattr(cost, figure) for cost in costs) * 1e3


# ---------------------------------------------------------------- a gigabyte of arrays


def _pause(report: Report, sizes: Sizes, repeats: int) -> None:
    _step(f"arrays, {sizes.arrays:g} MB: into memory")
    found = array_costs.in_memory(sizes.arrays, repeats)
    what = f"arrays, {found.nbytes / 1e6:g} MB"
    report.add(f"{what}: pause, forked", median(found.forked) * 1e3, "ms", at_most=20)
    report.add(f"{what}: os.fork alone", median(found.fork) * 1e3, "ms")
    report.add(f"{what}: pause, the first full one", found.first * 1e3, "ms")
    report.add(f"{what}: pause, full", median(found.full) * 1e3, "ms")
    report.add(f"{what}: a copy alone", median(found.copy) * 1e3, "ms")
    share = ratio(found.copy, found.full) * 100
    report.add(f"{what}: full, of the rate of a copy", share, "%", at_least=60)
    _step(f"{PAPER}, {sizes.resident:g} MB resident: a fork")
    objects = array_costs.forked_objects(sizes.resident, repeats)
    what = f"{PAPER}, {median(objects.resident) / 1e6:.0f} MB resident"
    report.add(f"{what}: pause, forked", median(objects.forked) * 1e3, "ms", at_most=40)
    report.add(f"{what}: os.fork alone", median(objects.fork) * 1e3, "ms")


def _disk(report: Report, sizes: Sizes, repeats: int) -> None:
    _step(f"an array, {sizes.arrays:g} MB: onto the disk")
    found = array_costs.on_disk(sizes.arrays, repeats)
    what = f"an array, {found.nbytes / 1e6:g} MB"
    report.add(f"{what}: full, until safe", median(found.full), "s")
    report.add(f"{what}: a plain write and sync", median(found.plain), "s")
    share = ratio(found.plain, found.full) * 100
    report.add(f"{what}: full, of the rate of a plain write", share, "%", at_least=80)
    report.add(f"{what}: incremental, 1 % changed, until safe", median(found.incremental), "s")
    value = ratio(found.full, found.incremental)
    report.add(f"{what}: time, full / incremental, 1 % changed", value, "", at_least=4)
    value = ratio(found.full_bytes, found.incremental_bytes)
    report.add(f"{what}: bytes, full / incremental, 1 % changed", value, "", at_least=20)


def _restore(report: Report, sizes: Sizes, repeats: int) -> None:
    _step(f"arrays, {sizes.arrays:g} MB: lost and restored")
    found = array_costs.restores("arrays", sizes.arrays, repeats, False)
    what = f"arrays, {sizes.arrays:g} MB"
    report.add(f"{what}: restored from another engine's memory", median(found.load), "s")
    rate = sizes.arrays / 1e3 / median(found.load)
    report.add(f"{what}: restored, rate", rate, "GB/s", at_least=0.8)
    _step(f"{PAPER}, {sizes.paper:g} MB: lost and restored")
    found = array_costs.restores(PAPER, sizes.paper, repeats, True)
    what = f"{PAPER}, {sizes.paper:g} MB"
    report.add(f"{what}: restored from another engine's memory", median(found.load), "s")
    report.add(f"{what}: pickle.loads alone", median(found.plain), "s")
    value = ratio(found.plain, found.load)
    report.add(f"{what}: time, pickle.loads / restored", value, "", at_least=1)


def _memory(report: Report, sizes: Sizes, repeats: int) -> None:
    for how in sizes.in_memory:
        _step(f"arrays, {sizes.arrays:g} MB: memory of all engines, {how}")
        found = array_costs.memory(sizes.arrays, how)
        what = f"arrays, {sizes.arrays:g} MB, one copy, {how}"
        report.add(f"{what}: live", found.live / 1e6, "MB")
        report.add(f"{what}: snapshots", found.captured / 1e6, "MB")
        report.add(f"{what}: copies", found.copies / 1e6, "MB")
        report.add(f"{what}: all, behind a checkpoint", found.after / 1e6, "MB")
        report.add(f"{what}: all, peak while one is taken", found.peak / 1e6, "MB")


PARTS: dict[str, Part] = {
    "paper": _paper,
    "slow": _slow,
    "pause": _pause,
    "disk": _disk,
    "restore": _restore,
    "memory": _memory,
    "others": _others,
}
