"""Cannon's matrix product on a square of ranks.

Cannon, A cellular computer to implement the Kalman filter algorithm, Montana State University,
1969; as in Golub and Van Loan, Matrix Computations, 4th ed., section 1.6. Each rank holds one block
of A, B and C. In each of q rounds it multiplies the blocks of A and B that it has, then A's move
one rank to the left and B's one up; they start moved such that blocks meet that belong together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from feliss_nb import Session, Variable, here
from feliss_nb.algorithms.shares import Array, Block, cuts, dense, layout, to_blocks, to_rows
from feliss_nb.algorithms.steps import go_on, one_thread, per_step, run
from feliss_nb.errors import UsageError


@dataclass(slots=True)
class _State:
    a: Array
    b: Array
    c: Array
    offsets: list[int]  # of the rows of A, and so of C
    held: list[Block]  # each rank's block of C
    done: int = 0  # strips of columns multiplied, of all rounds


def multiply(comm: Any, a: Any, b: Any, strips: int | None = None) -> Any:
    """Multiply two matrices: C = A B.

    Parameters
    ----------
    comm : communicator
        Of 1, 4, 9, 16 ... ranks.
    a, b : (m, k) array, (l, n) array
        This rank's rows of A and of B. Sizes need not be multiples of anything.
    strips : int, optional
        Into how many strips of columns a round is cut, between two of which a checkpoint can stand;
        default: as many as take a fraction of a second each.

    Returns
    -------
    (m, n) array
        This rank's rows of C.

    Raises
    ------
    UsageError
        On every rank: the ranks are no square, the matrices do not fit each other.
    """
    side = _check(comm.size, strips)
    a, a_offsets = layout(comm, a, dense, "A")
    b, b_offsets = layout(comm, b, dense, "B")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b_offsets[-1]:
        shapes = (a_offsets[-1], *a.shape[1:]), (b_offsets[-1], *b.shape[1:])
        raise UsageError(f"matrices of the shapes {shapes[0]} and {shapes[1]} have no product")
    high = cuts(a_offsets[-1], side)
    inner = cuts(b_offsets[-1], side)
    wide = cuts(b.shape[1], side)

    def piece(edges: list[int], index: int) -> slice:
        return slice(edges[index % side], edges[index % side + 1])

    grid = [divmod(rank, side) for rank in range(comm.size)]
    left = [(piece(high, i), piece(inner, i + j)) for i, j in grid]
    right = [(piece(inner, i + j), piece(wide, j)) for i, j in grid]
    held = [(piece(high, i), piece(wide, j)) for i, j in grid]
    # Blocks that take each other's place are of one size: zeros continue the shorter ones.
    deep = max(end - begin for begin, end in pairwise(inner))
    some, other = to_blocks(comm, a, a_offsets, left), to_blocks(comm, b, b_offsets, right)
    first, second = np.zeros((len(some), deep)), np.zeros((deep, other.shape[1]))
    first[:, : some.shape[1]] = some
    second[: len(other)] = other
    c = np.zeros((len(some), other.shape[1]))
    state = _State(first, second, c, a_offsets, held)
    work = 2.0 * (high[-1] * inner[-1] * wide[-1]) / side**3
    count = strips or max(1, math.ceil(work / 4e9))
    return run(comm, _some_strips, state, count, 1 if strips else per_step(work / count, 2e10))


def _some_strips(comm: Any, state: _State, strips: int, every: int) -> Any:
    """Multiply some strips of columns, and move the blocks when a round ends: a step."""
    side = math.isqrt(comm.size)
    total = side * strips
    end = min(state.done + every, total)
    edges = cuts(state.b.shape[1], strips)
    with one_thread():
        for strip in range(state.done, end):
            at = strip % strips
            if at == 0 and strip:
                _move(comm, state)
            columns = slice(edges[at], edges[at + 1])
            state.c[:, columns] += state.a @ state.b[:, columns]
        state.done = end
    if end < total:
        return go_on(comm, _some_strips, state, strips, every)
    return to_rows(comm, state.c, state.offsets, state.held)


def _move(comm: Any, state: _State) -> None:
    """Move A's blocks one rank to the left, B's one up, around the edges."""
    side = math.isqrt(comm.size)
    i, j = divmod(comm.rank, side)
    left, right = i * side + (j - 1) % side, i * side + (j + 1) % side
    above, below = (i - 1) % side * side + j, (i + 1) % side * side + j
    comm.Sendrecv_replace(state.a, left, source=right)
    comm.Sendrecv_replace(state.b, above, source=below)


# ---------------------------------------------------------------- over a session


def product(
    session: Session, a: Any, b: Any, strips: int | None = None, name: str | None = None
) -> Variable:
    """Multiply two matrices on the ranks of a session.

    Parameters
    ----------
    session : Session
        Of 1, 4, 9, 16 ... ranks.
    a, b : (m, k) array, (k, n) array, or Variables
        A variable holds row shares: of ``session.scatter(matrix)``, or what another program gave.
    strips : int, optional
        See `multiply`.
    name : str, optional
        Of the result.

    Returns
    -------
    Variable
        Of values: each rank's rows; ``np.concatenate(variable.partitions())`` is the product.

    Raises
    ------
    UsageError
        As `multiply` does: at once where the call shows it, else when the result is asked for.
    """
    _check(session.size, strips)
    given = []
    for what, matrix in (("a", a), ("b", b)):
        if not isinstance(matrix, Variable):
            matrix = dense(matrix)
            if matrix.ndim != 2 or not matrix.size:
                raise UsageError(f"{what} is a matrix, not an array of shape {matrix.shape}")
            if not np.isfinite(matrix).all():
                raise UsageError(f"{what} holds a value that is not finite")
        given.append(matrix)
    arrays = [matrix for matrix in given if not isinstance(matrix, Variable)]
    if len(arrays) == 2 and arrays[0].shape[1] != arrays[1].shape[0]:
        raise UsageError(
            f"matrices of the shapes {arrays[0].shape} and {arrays[1].shape} have no product"
        )
    given = [m if isinstance(m, Variable) else session.scatter(m) for m in given]
    return session.spmd(_multiply_variables, *given, strips, name=name)


def _multiply_variables(comm: Any, a: Any, b: Any, strips: int | None) -> Any:
    at = here()
    return multiply(comm, at[a], at[b], strips)


def _check(size: int, strips: int | None) -> int:
    """Check what does not depend on the matrices, and give the side of the square of ranks."""
    side = math.isqrt(size)
    if side * side != size:
        raise UsageError(
            f"Cannon's product needs a square number of ranks, such as {side**2} or "
            f"{(side + 1) ** 2}, not {size}"
        )
    if strips is not None and (not isinstance(strips, int | np.integer) or strips < 1):
        raise UsageError(f"strips= takes a whole number of at least 1, not {strips!r}")
    return side
