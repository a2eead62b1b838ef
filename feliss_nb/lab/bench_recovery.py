"""``feliss-nb bench recovery``: from SIGKILL to the last rank running again.

Each rank's pool holds a gate: a continuation that puts itself again until a file appears, and then
computes without end. The checkpoint is taken before the file is made, so a rank that stands up from
it goes through the gate at once, notes the time, and is in the middle of a continuation when the
next signal comes. Every process of a machine reads the same monotonic clock, so these times compare
with those of the master's events.
"""

from __future__ import annotations

import functools
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import feliss_nb as feliss
from feliss_nb.lab import losses
from feliss_nb.lab.report import Report

_TIME = struct.Struct("d")
_OPEN = "open"
#: Elements of the array that the numpy kind computes with: about 10 ms a call.
_ELEMENTS = 1 << 20

KINDS = ("Python", "numpy")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: ``kills`` with each of ``states`` (in MB a rank) and each kind."""

    kills: int = 10
    states: tuple[int, ...] = (0, 100)
    workers: int = 3
    spares: int = 1
    target: float = 300.0  # ms, for the smallest state


QUICK = Sizes(1, (0, 1), 2, 1)


def recovery(json: bool, quick: bool = False) -> int:
    """Kill workers, one after another, and measure how soon every rank runs again.

    Parameters
    ----------
    json : bool
        Print one object instead of a table.
    quick : bool
        One kill of each kind.

    Returns
    -------
    int
        0: a target that is missed is a finding, not a failure.
    """
    sizes = QUICK if quick else Sizes()
    report = Report("recovery")
    report.add("kills of each kind", sizes.kills, "")
    for megabytes in sizes.states:
        for kind in KINDS:
            parts = measure(sizes, megabytes, kind)
            target = sizes.target if megabytes == sizes.states[0] else None
            _add(report, f"{megabytes} MB a rank, {kind}", parts, target)
    report.print(json)
    return 0


def _add(report: Report, what: str, parts: list[losses.Recovery], target: float | None) -> None:
    totals = [part.total * 1e3 for part in parts]
    report.add(f"{what}: recovery, median", median(totals), "ms", at_most=target)
    report.add(f"{what}: recovery, 95th percentile", np.percentile(totals, 95), "ms")
    for name in ("detection", "load", "resume"):
        value = median(getattr(part, name) for part in parts)
        report.add(f"{what}: {name}, median", value * 1e3, "ms")


def measure(sizes: Sizes, megabytes: float, kind: str) -> list[losses.Recovery]:
    """Kill the ranks in turn, in one session; what is used up is replaced in between."""
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="feliss-") as name,
        feliss.start(sizes.workers, sizes.spares, checkpoint_every=None, losses=None) as session,
    ):
        folder = Path(name)
        state = session.variable(functools.partial(_make_state, megabytes))
        for rank in range(sizes.workers):
            session.put(_gate, name, kind, state, rank=rank)
        session.checkpoint()
        (folder / _OPEN).touch()
        _wait_until_running(session, 0)
        for epoch in range(1, sizes.kills + 1):
            protected = len(session.events.of_kind("protected"))
            kill = losses.kill_unseen(session, (epoch - 1) % sizes.workers)
            _wait_until_running(session, epoch)
            first = [_last_time(folder / str(rank)) for rank in range(sizes.workers)]
            found.append(losses.recovery(session, kill, epoch, first))
            if epoch < sizes.kills:
                _wait_until_whole(session, sizes, epoch, protected)
    return found


def _wait_until_running(session: feliss.Session, epoch: int) -> None:
    """Wait until every rank has told, by a mapped record, that it is through the gate."""
    count = 0
    while True:
        count += 1
        session.events.wait_for("mapped", count, losses.PATIENCE)
        ranks = {e.rank for e in session.events.of_kind("mapped") if e.epoch == epoch}
        if len(ranks) == session.size:
            return


def _wait_until_whole(session: feliss.Session, sizes: Sizes, losses_: int, protected: int) -> None:
    """Wait until the lost engine is replaced and every snapshot has its copies."""
    engines = sizes.workers + sizes.spares + losses_
    session.events.wait_for("engine-joined", engines, losses.PATIENCE)
    if not session.status().protected:
        session.events.wait_for("protected", protected + 1, losses.PATIENCE)


def _last_time(path: Path) -> float:
    return float(_TIME.unpack(path.read_bytes()[-_TIME.size :])[0])


# --------------------------------------------------------------------------------------- on ranks


def _make_state(megabytes: float, rank: int, size: int) -> Any:
    return np.full(int(megabytes * 1e6) // 8, float(rank))


def _gate(folder: str, kind: str, state: feliss.Variable) -> None:
    here = feliss.here()
    if not Path(folder, _OPEN).exists():
        time.sleep(0.001)
        here.put(_gate, folder, kind, state)
        return
    now = time.monotonic()
    with open(Path(folder, str(here.rank)), "ab") as file:
        file.write(_TIME.pack(now))
    here.mapped(1)
    if kind == "numpy":
        _compute_in_numpy()
    else:
        _compute_in_python()


def _compute_in_python() -> None:
    total = 0
    while True:
        total = (total * 31 + 7) % 1_000_003


def _compute_in_numpy() -> None:
    array = np.linspace(0.0, 1.0, _ELEMENTS)
    while True:
        np.cos(array, out=array)
