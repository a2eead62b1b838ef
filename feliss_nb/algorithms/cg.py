"""Conjugate gradients, preconditioned, for a symmetric positive definite matrix in CSR form.

Hestenes and Stiefel, Journal of Research of the National Bureau of Standards 49 (1952) 409-436; the
form with a preconditioner is Algorithm 9.1 of Saad, Iterative Methods for Sparse Linear Systems,
2nd ed., 2003, and the preconditioner, blocks of the diagonal, its section 4.1.1. The exchange of
the vector's outer entries, planned once from the columns that a rank's rows name, is its 11.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sparse

from feliss_nb import Session, Variable, here
from feliss_nb.algorithms.shares import Array, csr, dense, layout
from feliss_nb.algorithms.steps import agree, go_on, one_thread, per_step, run
from feliss_nb.errors import UsageError

_TAG = 11


@dataclass(frozen=True, slots=True)
class Solution:
    """One rank's part of a solution.

    Attributes
    ----------
    x : (rows here,) array
        Its entries of the solution.
    iterations : int
    residuals : (iterations + 1,) array
        ``norm(b - A x)`` as the recurrence has it, from the first guess 0 on.
    """

    x: Array
    iterations: int
    residuals: Array


@dataclass(frozen=True, slots=True)
class _System:
    """What does not change: this rank's rows, what it sends and takes, the preconditioner."""

    matrix: Any  # columns: the rank's own, then those that it takes, by rank and number
    gives: dict[int, Array]  # for each rank, which of the own entries it needs
    takes: dict[int, int]  # from each rank, how many entries
    inverse: Array  # (blocks, size, size): of the blocks of the diagonal
    goal: float  # the norm of the residual at which to stop
    last: int  # iterations at most


@dataclass(slots=True)
class _State:
    x: Array
    r: Array
    p: Array
    rz: float
    residuals: list[float]


def solve(
    comm: Any,
    rows: Any,
    b: Any,
    tolerance: float = 1e-10,
    block: int = 1,
    iterations: int | None = None,
    every: int | None = None,
) -> Any:
    """Solve A x = b.

    Parameters
    ----------
    comm : communicator
        Any number of ranks.
    rows : (m, n) scipy.sparse matrix, or list of them
        This rank's rows of the symmetric positive definite matrix A.
    b : (m,) array
        Its entries of the right-hand side.
    tolerance : float
        Stop when ``norm(b - A x) <= tolerance * norm(b)``, in the 2-norm.
    block : int
        Rows of a block of the preconditioner, which is the inverse of the blocks on A's diagonal; 1
        is Jacobi's. A rank's first block begins with its first row.
    iterations : int, optional
        At most; default: 10 n.
    every : int, optional
        Iterations a step, between two of which a checkpoint can stand; default: as many as take a
        fraction of a second.

    Returns
    -------
    Solution
        This rank's part. Sums over the ranks are in the order of the ranks, so the bits depend on
        how many there are.

    Raises
    ------
    UsageError
        On every rank: A is not square, not positive definite as far as the iterations show, or has
        a diagonal block without an inverse; b does not fit; the tolerance is not reached.
    """
    _check(tolerance, block, iterations, every)
    rows, offsets = layout(comm, rows, csr, "the matrix")
    b, places = layout(comm, b, dense, "b")
    n = offsets[-1]
    if rows.shape[1] != n:
        raise UsageError(f"the matrix must be square, not of shape {(n, rows.shape[1])}")
    if b.ndim != 1 or places != offsets:
        raise UsageError(
            f"b must have an entry for each row, on the rank that has the row: {np.diff(places)} "
            f"entries of shape {b.shape[1:]} for {np.diff(offsets)} rows"
        )
    with one_thread():
        norm = np.sqrt(comm.allreduce(float(b @ b)))
        inverse = _inverse_blocks(comm, rows, offsets[comm.rank], block)
        matrix, gives, takes = _plan(comm, rows, offsets)
        system = _System(
            matrix, gives, takes, inverse, tolerance * norm, iterations or 10 * max(n, 1)
        )
        z = _precondition(inverse, b)
        state = _State(np.zeros(len(b)), b.copy(), z, comm.allreduce(float(b @ z)), [norm])
    work = 2.0 * comm.allreduce(rows.nnz) / comm.size + 12.0 * n / comm.size
    # Half of the time of a small system is in messages: as if of 100,000 operations.
    return run(comm, _iterate, system, state, every or per_step(work + 1e5, 2e8))


def _iterate(comm: Any, system: _System, state: _State, every: int) -> Any:
    """Improve the solution some times: a step."""
    x, r, p = state.x, state.r, state.p
    with one_thread():
        for _ in range(every):
            if state.residuals[-1] <= system.goal:
                done = np.array(state.residuals)
                return Solution(x, len(done) - 1, done)
            if len(state.residuals) > system.last:
                raise UsageError(
                    f"after {system.last} iterations the residual's norm is "
                    f"{state.residuals[-1]:.3g}, not {system.goal:.3g}: allow more iterations, or "
                    "a larger tolerance, or try larger blocks"
                )
            q = system.matrix @ _with_others(comm, system, p)
            curvature = comm.allreduce(float(p @ q))
            if not curvature > 0:
                raise UsageError(f"the matrix is not positive definite: p A p = {curvature:.3g}")
            alpha = state.rz / curvature
            x += alpha * p
            r -= alpha * q
            z = _precondition(system.inverse, r)
            # Both sums in one message: its latency is what an iteration costs between ranks.
            sums = np.empty(2)
            comm.Allreduce(np.array([r @ z, r @ r]), sums)
            p *= sums[0] / state.rz
            p += z
            state.rz = float(sums[0])
            state.residuals.append(float(np.sqrt(sums[1])))
    return go_on(comm, _iterate, system, state, every)


def _with_others(comm: Any, system: _System, p: Array) -> Array:
    """Give this rank's entries of a vector, and behind them those of others that its rows name."""
    requests = [comm.Isend(p[mine], rank, _TAG) for rank, mine in system.gives.items()]
    whole = np.empty(system.matrix.shape[1])
    whole[: len(p)] = p
    end = len(p)
    for rank, count in system.takes.items():
        comm.Recv(whole[end : end + count], rank, _TAG)
        end += count
    for request in requests:
        request.Wait()
    return whole


def _plan(comm: Any, rows: Any, offsets: list[int]) -> tuple[Any, dict[int, Array], dict[int, int]]:
    """Find which entries travel, and number the columns as `_with_others` lays them."""
    first, end = offsets[comm.rank], offsets[comm.rank + 1]
    named = np.unique(rows.indices)
    named = named[(named < first) | (named >= end)]
    wanted = np.split(named, np.searchsorted(named, offsets[1:-1]))
    asked = comm.alltoall(wanted)
    gives = {rank: places - first for rank, places in enumerate(asked) if len(places)}
    takes = {rank: len(places) for rank, places in enumerate(wanted) if len(places)}
    own = (rows.indices >= first) & (rows.indices < end)
    outer = end - first + np.searchsorted(named, rows.indices)
    columns = np.where(own, rows.indices - first, outer)
    shape = end - first, end - first + len(named)
    return sparse.csr_array((rows.data, columns, rows.indptr), shape=shape), gives, takes


def _inverse_blocks(comm: Any, rows: Any, first: int, size: int) -> Array:
    """Invert the blocks on the diagonal; ones stand where the last block has no rows."""
    m = rows.shape[0]
    count = -(-m // size)
    entries = rows[:, first : first + m].tocoo()
    same = entries.row // size == entries.col // size
    row, column = entries.row[same], entries.col[same]
    blocks = np.zeros((count, size, size))
    np.add.at(blocks, (row // size, row % size, column % size), entries.data[same])
    for place in range(m, count * size):
        blocks[place // size, place % size, place % size] = 1.0
    complaint = None
    inverse = blocks
    try:
        inverse = np.linalg.inv(blocks)
    except np.linalg.LinAlgError:
        complaint = f"a block of {size} rows on the diagonal has no inverse"
    agree(comm, complaint)
    return inverse


def _precondition(inverse: Array, r: Array) -> Array:
    """Multiply by the inverses of the blocks."""
    count, size, _ = inverse.shape
    if size == 1:
        return inverse[:, 0, 0] * r
    padded = np.zeros(count * size)
    padded[: len(r)] = r
    return (inverse @ padded.reshape(count, size, 1)).reshape(-1)[: len(r)]


# ---------------------------------------------------------------- over a session


def solve_system(
    session: Session,
    a: Any,
    b: Any,
    tolerance: float = 1e-10,
    block: int = 1,
    iterations: int | None = None,
    every: int | None = None,
    name: str | None = None,
) -> Variable:
    """Solve A x = b on the ranks of a session.

    Parameters
    ----------
    session : Session
    a : (n, n) scipy.sparse matrix, or Variable
        Symmetric positive definite. A variable holds a scipy.sparse matrix, or a list of them, on
        each rank: its rows.
    b : (n,) array, or Variable
        A variable holds on each rank the entries of its rows.
    tolerance, block, iterations, every
        See `solve`.
    name : str, optional
        Of the result.

    Returns
    -------
    Variable
        Of values: each rank's `Solution`; ``collect(variable.partitions())`` gives x.

    Raises
    ------
    UsageError
        As `solve` does: at once where the call shows it (a matrix that is not symmetric as well),
        else when the result is asked for.
    """
    _check(tolerance, block, iterations, every)
    if not isinstance(a, Variable):
        if not sparse.issparse(a) or a.ndim != 2 or a.shape[0] != a.shape[1] or not a.shape[0]:
            what = getattr(a, "shape", type(a).__name__)
            raise UsageError(f"a is a square scipy.sparse matrix, not {what}")
        a = sparse.csr_array(a, dtype=np.float64)
        if not np.isfinite(a.data).all():
            raise UsageError("the matrix holds a value that is not finite")
        if abs(a - a.T).max() > 1e-12 * abs(a).max():
            raise UsageError("the matrix is not symmetric: conjugate gradients do not solve it")
    if not isinstance(b, Variable):
        b = dense(b)
        if b.ndim != 1 or (not isinstance(a, Variable) and len(b) != a.shape[0]):
            raise UsageError(f"b has the shape {b.shape}, not an entry for each row")
        b = session.scatter(b)
    if not isinstance(a, Variable):
        ends = _ends(a.shape[0], session.size)
        a = session.scatter([a[begin:end] for begin, end in pairwise(ends)])
    return session.spmd(_solve_variables, a, b, tolerance, block, iterations, every, name=name)


def _ends(count: int, parts: int) -> list[int]:
    """Cut rows as ``session.scatter`` cuts a vector."""
    return [0, *np.cumsum([len(some) for some in np.array_split(np.empty(count), parts)]).tolist()]


def _solve_variables(comm: Any, a: Any, b: Any, *options: Any) -> Any:
    at = here()
    return solve(comm, at[a], at[b], *options)


def collect(parts: list[Solution]) -> Array:
    """Put the ranks' parts of x together."""
    return np.concatenate([part.x for part in parts])


def _check(tolerance: float, block: int, iterations: int | None, every: int | None) -> None:
    if not 0 < tolerance < 1:
        raise UsageError(f"tolerance= takes a number between 0 and 1, not {tolerance!r}")
    for what, number in (("block", block), ("iterations", iterations), ("every", every)):
        if number is not None and (not isinstance(number, int | np.integer) or number < 1):
            raise UsageError(f"{what}= takes a whole number of at least 1, not {number!r}")
