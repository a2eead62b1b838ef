"""``feliss-nb bench mpi``: messages and collectives of this communicator next to plain mpi4py.

The same functions (`mpi_kernels`) run on this communicator through sockets, through memory that the
engines share, and on engines under a real MPI; and on plain mpi4py under its own ``mpiexec``. They
take turns, and a figure is the median of the turns: on a shared machine the speed of everything
changes from one second to the next.
"""

from __future__ import annotations

import json as json_text
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import feliss_nb as feliss
from feliss_nb import MPI
from feliss_nb.errors import FelissError, UsageError
from feliss_nb.lab import mpi_kernels, plain_mpi
from feliss_nb.lab.bench_tasks import raw_echo
from feliss_nb.lab.report import Report
from feliss_nb.runtime import shared

SOCKET, SHARED = "sockets", "shared memory"
OURS_ON_MPI, PLAIN = "real MPI engines", "plain mpi4py"

#: Whole programs: name, ``"module:function"`` of ``(comm, *args)``, and the arguments, which JSON
#: must be able to write. The function is called with each kind of communicator.
PROGRAMS: tuple[tuple[str, str, list[Any]], ...] = (
    ("LU of 4320 rows", "feliss_nb.lab.mpi_programs:factorize", [4320]),
    ("CG, 250,000 unknowns", "feliss_nb.lab.mpi_programs:solve", [500]),
)
_SMALL: tuple[tuple[str, str, list[Any]], ...] = (
    ("LU of 60 rows", "feliss_nb.lab.mpi_programs:factorize", [60]),
    ("CG, 100 unknowns", "feliss_nb.lab.mpi_programs:solve", [10]),
)

_NEVER = 1 << 62

#: Measures every call of a plan once, and gives what ``mpi_kernels.measure`` does.
Measure = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes
    ----------
    turns : int
        Of each kind of communicator.
    sizes : tuple of (int, int)
        Bytes of a call, and how often it is called in a turn.
    exchanges : int
        Raw messages in a turn, there and back.
    programs : tuple
        See `PROGRAMS`.
    """

    turns: int = 5
    sizes: tuple[tuple[int, int], ...] = (
        (8, 100),
        (1 << 10, 100),
        (32 << 10, 100),
        (256 << 10, 50),
        (1 << 20, 30),
        (8 << 20, 10),
        (64 << 20, 5),
    )
    exchanges: int = 500
    programs: tuple[tuple[str, str, list[Any]], ...] = PROGRAMS


QUICK = Sizes(1, ((8, 2), (64 << 10, 1)), 10, _SMALL)


@dataclass
class Comparison(Report):
    """A report whose table has a column for each kind of communicator."""

    cells: dict[tuple[str, int], dict[str, float]] = field(default_factory=dict)
    programs: dict[str, dict[str, float]] = field(default_factory=dict)

    def note(self, kind: str, found: Sequence[dict[str, Any]]) -> None:
        """Add what one kind of communicator gave in each turn."""
        for call in mpi_kernels.CALLS:
            for row in zip(*(turn["calls"][call] for turn in found), strict=True):
                seconds = median(value for _, value in row)
                self.cells.setdefault((call, row[0][0]), {})[kind] = seconds
                self.add(f"{call} of {text_of_bytes(row[0][0])}, {kind}", seconds * 1e6, "us")
        for name in found[0]["programs"]:
            seconds = median(turn["programs"][name] for turn in found)
            self.programs.setdefault(name, {})[kind] = seconds
            self.add(f"{name}, {kind}", seconds, "s")

    def table(self) -> str:
        """A row for each call and size, then the other figures."""
        kinds = list(dict.fromkeys(kind for cell in self.cells.values() for kind in cell))
        rows = [("", *kinds)]
        rows += [
            (f"{call}, {text_of_bytes(nbytes)}", *(_time(cell.get(kind), nbytes) for kind in kinds))
            for (call, nbytes), cell in self.cells.items()
        ]
        rows += [
            (name, *(f"{cell[kind]:.3g} s" if kind in cell else "" for kind in kinds))
            for name, cell in self.programs.items()
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in rows
        ]
        rest = [
            f for f in self.figures if not f.name.endswith(tuple(f", {kind}" for kind in kinds))
        ]
        return "\n".join([*lines, "", Report(self.benchmark, self.machine, rest).table()])


def mpi(json: bool, quick: bool = False, workers: int = 2) -> int:
    """Measure messages and collectives, on this communicator and on plain mpi4py.

    Parameters
    ----------
    json : bool
        Print one object instead of a table.
    quick : bool
        Little of each: figures that mean nothing, to see that it runs.
    workers : int
        Number of ranks.

    Returns
    -------
    int
        0: a target that is missed is a finding, not a failure.
    """
    if workers < 2:
        raise UsageError("messages need two ranks or more: --workers 2")
    sizes = QUICK if quick else Sizes()
    plan = {"sizes": sizes.sizes, "calls": list(mpi_kernels.CALLS), "programs": sizes.programs}
    report = Comparison("mpi")
    found: dict[str, list[dict[str, Any]]] = {}
    raws: list[float] = []
    with ExitStack() as stack:
        raw = stack.enter_context(raw_echo())
        kinds: dict[str, Measure] = {}
        for kind, measure in _kinds(stack, workers):
            if isinstance(measure, str):
                print(f"{kind}: not measured: {measure}", file=sys.stderr)
            else:
                kinds[kind] = measure
        for _ in range(sizes.turns):
            for kind, measure in kinds.items():
                found.setdefault(kind, []).append(measure(plan))
            raws.append(raw(sizes.exchanges) / sizes.exchanges / 2)
    for kind, turns in found.items():
        report.note(kind, turns)
    _summarize(report, sizes, median(raws))
    report.print(json)
    return 0


def _summarize(report: Comparison, sizes: Sizes, raw: float) -> None:
    smallest, largest = sizes.sizes[0][0], sizes.sizes[-1][0]
    ping = report.cells[next(iter(mpi_kernels.CALLS)), smallest]
    report.add("raw pyzmq over ipc, one way", raw * 1e6, "us")
    report.add(f"Send and Recv of {text_of_bytes(smallest)} / raw pyzmq", ping[SHARED] / raw, "")
    for call in mpi_kernels.CALLS:
        cell = report.cells[call, largest]
        if PLAIN in cell:
            share = cell[PLAIN] / cell[SHARED]
            name = f"bandwidth of {call} of {text_of_bytes(largest)}, shared memory / plain mpi4py"
            promised = call in ("Bcast", "Allreduce")
            report.add(name, share, "", at_least=0.5 if promised else None)
    for name, cell in report.programs.items():
        if PLAIN in cell:
            report.add(
                f"{name}: shared memory / plain mpi4py",
                cell[SHARED] / cell[PLAIN],
                "",
                at_most=1.5 if name.startswith("LU") else None,
            )
            if OURS_ON_MPI in cell:
                share = cell[OURS_ON_MPI] / cell[PLAIN]
                report.add(
                    f"{name}: real MPI engines / plain mpi4py",
                    share,
                    "",
                    at_most=1.1 if name.startswith("LU") else None,
                )


# --------------------------------------------------------------------- the kinds of communicators


def _kinds(stack: ExitStack, workers: int) -> Iterator[tuple[str, Measure | str]]:
    """Give what measures each kind, or why nothing does."""
    session = stack.enter_context(feliss.start(workers=workers, checkpoint_every=None))
    least = shared.LIMITS.least
    yield SOCKET, lambda plan: _on_session(session, plan, _NEVER)
    yield SHARED, lambda plan: _on_session(session, plan, least)
    yield OURS_ON_MPI, _on_mpi_engines(stack, workers, least)
    yield PLAIN, _on_plain(workers)


def _on_session(session: feliss.Session, plan: dict[str, Any], least: int) -> dict[str, Any]:
    first: dict[str, Any] = session.spmd(_kernel, plan, least).partitions()[0]
    return first


def _kernel(comm: Any, plan: dict[str, Any], least: int) -> dict[str, Any]:
    usual, shared.LIMITS.least = shared.LIMITS.least, least
    try:
        return mpi_kernels.measure(comm, MPI, plan)
    finally:
        shared.LIMITS.least = usual


def _on_mpi_engines(stack: ExitStack, workers: int, least: int) -> Measure | str:
    try:
        session = stack.enter_context(
            feliss.start(workers=workers, checkpoint_every=None, engines="mpi")
        )
    except (FelissError, OSError) as error:
        return str(error)
    return lambda plan: _on_session(session, plan, least)


def _on_plain(workers: int) -> Measure | str:
    mpiexec = plain_mpi.find_mpiexec()
    if mpiexec is None:
        return plain_mpi.MISSING

    def run(plan: dict[str, Any]) -> dict[str, Any]:
        kernels = [str(mpi_kernels.__file__), json_text.dumps(plan)]
        found: dict[str, Any] = json_text.loads(plain_mpi.run(mpiexec, workers, kernels))
        return found

    return run


# ------------------------------------------------------------------------------------- for people


def text_of_bytes(count: int) -> str:
    """Write a number of bytes for people."""
    for unit, size in (("MB", 1 << 20), ("KB", 1 << 10)):
        if count >= size:
            return f"{count // size} {unit}"
    return f"{count} B"


def _time(seconds: float | None, nbytes: int) -> str:
    if seconds is None:
        return ""
    speed = f" {nbytes / seconds / 1e9:6.2f} GB/s" if nbytes >= 1 << 20 else " " * 12
    return f"{seconds * 1e6:,.1f} us{speed}"
