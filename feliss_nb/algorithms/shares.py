"""Matrices in row shares, and their way to blocks on a grid of ranks and back."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sparse

from feliss_nb.algorithms.steps import agree
from feliss_nb.errors import UsageError

Array = np.ndarray[Any, Any]

#: For a rank: its rows and its columns of a matrix.
Block = tuple[slice, slice]


def dense(share: Any) -> Array:
    """Give this rank's rows of a matrix, or its part of a vector, as an array of float64."""
    array = np.asarray(share)
    if array.dtype.kind not in "biuf":
        raise UsageError(f"a share of {array.dtype} values; the programs compute with float64")
    return np.ascontiguousarray(array, np.float64)


def csr(share: Any) -> Any:
    """Give this rank's rows of a sparse matrix: of one, or of some, one below the other."""
    some = [share] if sparse.issparse(share) else list(share)
    if not some:
        return sparse.csr_array((0, 0))
    if not all(sparse.issparse(one) for one in some):
        raise UsageError("a share of a sparse matrix is a scipy.sparse matrix, or a list of them")
    joined = some[0] if len(some) == 1 else sparse.vstack(some)
    return sparse.csr_array(joined, dtype=np.float64)


def layout(comm: Any, share: Any, read: Callable[[Any], Any], what: str) -> tuple[Any, list[int]]:
    """Read this rank's share of a matrix or vector, and learn which rows lie where.

    Parameters
    ----------
    comm : communicator
    share : object
        This rank's.
    read : callable
        `dense` or `csr`.
    what : str
        What it is a share of, for errors.

    Returns
    -------
    share : array
        What ``read`` gives. A share without rows has the columns of the others.
    offsets : list of int
        ``offsets[r]`` is the first row of rank ``r``, ``offsets[size]`` the number of rows.

    Raises
    ------
    UsageError
        On every rank, if a share is no matrix, not finite, or not as wide as the others.
    """
    complaint = None
    mine = None
    try:
        mine = read(share)
        values = mine.data if sparse.issparse(mine) else mine
        if not np.isfinite(values).all():
            complaint = f"{what} holds a value that is not finite"
    except (UsageError, ValueError, TypeError) as error:
        complaint = f"{what}: {error}"
    agree(comm, complaint)
    assert mine is not None
    shapes = comm.allgather(mine.shape)
    # The rank of a share with no row may not know how wide the others are.
    kinds = {shape[1:] for shape in shapes if shape[0]} or {shapes[0][1:]}
    if len(kinds) > 1:
        raise UsageError(f"{what}: the ranks hold shares of the shapes {shapes}")
    (tail,) = kinds
    if mine.shape[1:] != tail:
        mine = read(np.empty((0, *tail))) if read is dense else sparse.csr_array((0, *tail))
    return mine, [0, *np.cumsum([shape[0] for shape in shapes]).tolist()]


def cuts(count: int, parts: int) -> list[int]:
    """Cut ``count`` rows into contiguous parts, equal give or take one."""
    return [count * part // parts for part in range(parts + 1)]


def grid_of(size: int, given: Sequence[int] | None, default: tuple[int, int]) -> tuple[int, int]:
    """Give the grid of ranks, rows by columns: as given, or the default.

    Raises
    ------
    UsageError
        If the ranks do not fill it.
    """
    if given is None:
        return default
    try:
        rows, columns = (operator.index(number) for number in given)
    except (TypeError, ValueError):
        raise UsageError(f"grid= takes two whole numbers, not {given!r}") from None
    if min(rows, columns) < 1 or rows * columns != size:
        fitting = [(some, size // some) for some in range(1, size + 1) if size % some == 0]
        raise UsageError(f"grid={rows, columns} does not have {size} ranks; these do: {fitting}")
    return rows, columns


def nearly_square(size: int) -> tuple[int, int]:
    """Give the grid of ``size`` ranks that is nearest to a square, at least as wide as high."""
    rows = next(rows for rows in range(math.isqrt(size), 0, -1) if size % rows == 0)
    return rows, size // rows


def to_blocks(comm: Any, rows: Array, offsets: list[int], wanted: Sequence[Block]) -> Array:
    """Bring each rank the block that it wants of a matrix in row shares.

    Parameters
    ----------
    comm : communicator
    rows : (offsets[rank + 1] - offsets[rank], n) array
    offsets : list of int
    wanted : sequence of (slice, slice)
        Each rank's rows and columns; the same on all ranks.
    """
    first = offsets[comm.rank]
    pieces = []
    for height, width in wanted:
        begin, end = _overlap(height, offsets, comm.rank)
        pieces.append(np.ascontiguousarray(rows[begin - first : end - first, width]))
    return np.concatenate(comm.alltoall(pieces))


def to_rows(comm: Any, block: Array, offsets: list[int], held: Sequence[Block]) -> Array:
    """Bring each rank its rows of a matrix in blocks: what `to_blocks` did, back."""
    height, _ = held[comm.rank]
    pieces = []
    for rank in range(comm.size):
        begin, end = _overlap(height, offsets, rank)
        pieces.append(np.ascontiguousarray(block[begin - height.start : end - height.start]))
    columns = max(width.stop for _, width in held)
    rows = np.empty((offsets[comm.rank + 1] - offsets[comm.rank], columns))
    for (up, width), piece in zip(held, comm.alltoall(pieces), strict=True):
        begin, end = _overlap(up, offsets, comm.rank)
        rows[begin - offsets[comm.rank] : end - offsets[comm.rank], width] = piece
    return rows


def _overlap(height: slice, offsets: list[int], rank: int) -> tuple[int, int]:
    """Give the rows that a block and a rank's share have in common; none: an empty range."""
    begin = max(height.start, offsets[rank])
    return begin, max(begin, min(height.stop, offsets[rank + 1]))
