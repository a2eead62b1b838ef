"""``feliss-nb bench lu``: LU next to LAPACK, and to the same program under plain mpi4py.

Two ranks against two threads of BLAS, in turns; a time is the shortest of its turns, since what a
shared machine adds to one is never below 0. The matrix lies on the ranks before the clock starts,
in row shares, and the factors stay there. mpi4py is measured where it and ``mpiexec`` are
installed.
"""

from __future__ import annotations

import json as jsons
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

import feliss_nb as feliss
from feliss_nb.lab import plain_mpi
from feliss_nb.lab.report import Report

RANKS = 2


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a matrix is factorized, and how often: ``turns``, each with ``repeats``."""

    n: int = 4320
    turns: int = 5
    repeats: int = 3


QUICK = Sizes(400, 1, 1)


def lu(json: bool, quick: bool = False) -> int:
    """Measure LU factorization.

    Parameters
    ----------
    json : bool
        Print one object instead of a table.
    quick : bool
        A small matrix, once.

    Returns
    -------
    int
        0 if the residual is small: a target that is missed is a finding, not a failure.
    """
    # Here and below, not above: the other benchmarks do without scipy.
    import scipy.linalg
    import threadpoolctl

    from feliss_nb.algorithms import lu as program

    sizes = QUICK if quick else Sizes()
    a = matrix(sizes.n)
    lapack: list[float] = []
    ours: list[float] = []
    theirs: list[float] = []
    with feliss.start(workers=RANKS, checkpoint_every=None) as session:
        rows = session.scatter(a).wait()
        factors = program.factorize(session, rows)  # warm
        residual = program.residual(a, *program.collect(factors.partitions()))
        for _ in range(sizes.turns):
            with threadpoolctl.threadpool_limits(RANKS):
                for _ in range(sizes.repeats):
                    begun = time.perf_counter()
                    scipy.linalg.lu_factor(a, check_finite=False)
                    lapack.append(time.perf_counter() - begun)
            for _ in range(sizes.repeats):
                begun = time.perf_counter()
                factors = program.factorize(session, rows).wait()
                ours.append(time.perf_counter() - begun)
            theirs += _under_mpi4py(sizes)
        begun = time.perf_counter()
        session.checkpoint()
        checkpoint = time.perf_counter() - begun
        del factors
    report = Report("lu")
    report.add("rows and columns", sizes.n, "")
    report.add("norm(P A - L U) / (n norm(A) eps)", residual, "", at_most=10)
    report.add(f"scipy.linalg.lu_factor, {RANKS} threads", min(lapack), "s")
    report.add(f"session of {RANKS} ranks", min(ours), "s")
    report.add("session / scipy", min(ours) / min(lapack), "", at_most=2.5)
    if theirs:
        report.add(f"the same under mpi4py, {RANKS} ranks", min(theirs), "s")
        report.add("session / mpi4py", min(ours) / min(theirs), "", at_most=1.5)
    report.add("checkpoint of matrix and factors", checkpoint, "s")
    report.print(json)
    return 0 if residual < 10 else 1


def matrix(n: int) -> Any:
    """Give the matrix that all sides factorize."""
    return np.random.default_rng(0).standard_normal((n, n))


def _under_mpi4py(sizes: Sizes) -> list[float]:
    """Give the seconds of some factorizations, none where there is no mpi4py."""
    mpiexec = plain_mpi.find_mpiexec()
    if mpiexec is None:
        return []
    program = "from feliss_nb.lab.bench_lu import under_mpi4py; under_mpi4py()"
    arguments = ["-c", program, str(sizes.n), str(sizes.repeats)]
    seconds: list[float] = jsons.loads(plain_mpi.run(mpiexec, RANKS, arguments))
    return seconds


def under_mpi4py() -> None:
    """Factorize on mpi4py's ranks, and print the seconds: what the benchmark starts."""
    from mpi4py import MPI

    from feliss_nb.algorithms import lu as program

    comm = MPI.COMM_WORLD
    n, repeats = (int(word) for word in sys.argv[-2:])
    rows = np.array_split(matrix(n), comm.size)[comm.rank].copy()
    seconds = []
    for turn in range(repeats + 1):  # the first is to warm
        comm.Barrier()
        begun = time.perf_counter()
        program.factor(comm, rows)
        comm.Barrier()
        if turn:
            seconds.append(time.perf_counter() - begun)
    if comm.rank == 0:
        print(jsons.dumps(seconds))
