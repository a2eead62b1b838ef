"""Whole programs for ``bench mpi``: the same functions on any mpi4py communicator.

Each makes its input once in a process, before the clock starts with a second call.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import scipy.sparse

from feliss_nb.algorithms import cg, lu
from feliss_nb.algorithms.steps import Whole


def factorize(comm: Any, n: int) -> None:
    """Factorize an n by n matrix."""
    lu.factor(Whole(comm), _matrix(n, comm.rank, comm.size))


def solve(comm: Any, side: int) -> None:
    """Solve Poisson's equation on a square grid of ``side`` times ``side`` points."""
    rows, b = _poisson(side, comm.rank, comm.size)
    cg.solve(Whole(comm), rows, b, tolerance=1e-6)


@cache
def _matrix(n: int, rank: int, size: int) -> Any:
    share = np.array_split(np.arange(n), size)[rank]
    return np.random.default_rng(rank).standard_normal((len(share), n))


@cache
def _poisson(side: int, rank: int, size: int) -> tuple[Any, Any]:
    line = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
    one = scipy.sparse.eye_array(side)
    whole = (scipy.sparse.kron(line, one) + scipy.sparse.kron(one, line)).tocsr()
    share = np.array_split(np.arange(side * side), size)[rank]
    return whole[share[0] : share[-1] + 1], np.ones(len(share))
