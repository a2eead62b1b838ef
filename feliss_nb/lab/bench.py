"""The benchmarks, by the names that ``feliss-nb bench`` knows."""

from __future__ import annotations

from feliss_nb.lab.bench_chaos import chaos
from feliss_nb.lab.bench_checkpoint import checkpoint
from feliss_nb.lab.bench_kills import kills
from feliss_nb.lab.bench_lu import lu
from feliss_nb.lab.bench_mpi import mpi
from feliss_nb.lab.bench_overhead import overhead
from feliss_nb.lab.bench_recovery import recovery
from feliss_nb.lab.bench_simulate import simulate
from feliss_nb.lab.bench_tasks import tasks
from feliss_nb.lab.bench_wordcount import wordcount

__all__ = [
    "chaos",
    "checkpoint",
    "kills",
    "lu",
    "mpi",
    "overhead",
    "recovery",
    "simulate",
    "tasks",
    "wordcount",
]
