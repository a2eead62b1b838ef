"""LU factorization with partial pivoting, blocked, right-looking, on a 2-D block-cyclic matrix.

Golub and Van Loan, Matrix Computations, 4th ed., sections 3.2 (blocked) and 3.4 (partial pivoting);
the distribution and the order of the steps are those of ScaLAPACK's ``pdgetrf`` (Blackford et al.,
ScaLAPACK Users' Guide, 1997, chapter 4). A panel is gathered on the rank that holds its
diagonal block and factorized there by LAPACK, so partial pivoting is the ordinary one and costs one
message a panel, not one a column. The swaps of a panel's rows are done together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import blas, lapack

from feliss_nb import Session, Variable, here
from feliss_nb.algorithms.shares import Array, dense, grid_of, layout
from feliss_nb.algorithms.steps import go_on, one_thread, per_step, run
from feliss_nb.errors import UsageError

#: Columns of a block: wide enough for BLAS to run at its full speed, narrow enough that panels,
#: which one rank factorizes while the others wait, stay a small part of the work.
WIDTHS = range(96, 161, 16)


@dataclass(slots=True)
class Factors:
    """One rank's part of a factorization.

    Attributes
    ----------
    n, block : int
        Rows of the matrix, and rows of a block. A matrix whose last block is not full is continued
        by ones on the diagonal, and zeros.
    grid : (int, int)
        Rows and columns of the grid of ranks; rank ``r`` stands in row ``r // grid[1]``.
    rank : int
    blocks : (number of local block columns, local rows, block) array
        Block (I, J) of the matrix lies on the rank in row ``I % grid[0]``, column ``J % grid[1]``.
        Block columns by themselves, row by row, so that what is below a row is contiguous in each.
    pivots : (n,) array of int
        As LAPACK gives them, from 0: row i was swapped with row ``pivots[i]``.
    """

    n: int
    block: int
    grid: tuple[int, int]
    rank: int
    blocks: Array
    pivots: Array

    @property
    def place(self) -> tuple[int, int]:
        """Row and column of the grid in which the rank stands."""
        return divmod(self.rank, self.grid[1])

    @property
    def count(self) -> int:
        """Number of block columns of the matrix."""
        return -(-self.n // self.block)

    def below(self, panel: int, row: int) -> int:
        """Give the first local row, in a row of the grid, of the blocks ``panel`` and below."""
        return -(-(panel - row) // self.grid[0]) * self.block if panel > row else 0

    def rows_of(self, row: int) -> Array:
        """Give the rows of the matrix that lie in a row of the grid, in order."""
        starts = np.arange(row, self.count, self.grid[0]) * self.block
        return (starts[:, None] + np.arange(self.block)).reshape(-1)


def factor(
    comm: Any,
    rows: Any,
    block: int | None = None,
    grid: Sequence[int] | None = None,
    panels: int | None = None,
) -> Any:
    """Factorize a matrix: P A = L U.

    Parameters
    ----------
    comm : communicator
        Any number of ranks.
    rows : (m, n) array
        This rank's rows of the n by n matrix A.
    block : int, optional
        Rows and columns of a block; default: about 128.
    grid : (int, int), optional
        Rows and columns of the grid of ranks; default: one row, where no panel has to be gathered
        and no row travels.
    panels : int, optional
        Block columns a step, between two of which a checkpoint can stand; default: as many as take
        a fraction of a second.

    Returns
    -------
    Factors
        This rank's part; `collect` puts them together. With partial pivoting the residual
        ``norm(P A - L U) / (n norm(A) eps)`` is of the order of 1 (`residual`); above 10 is an
        error of the program or of the machine.

    Raises
    ------
    UsageError
        On every rank: A is not square, not finite or singular, the ranks do not fill the grid.
    """
    shape = _check(comm.size, block, grid, panels)
    rows, offsets = layout(comm, rows, dense, "the matrix")
    n = offsets[-1]
    if rows.ndim != 2 or rows.shape[1] != n:
        raise UsageError(f"LU takes a square matrix, not one of shape {(n, *rows.shape[1:])}")
    width = block or _width(n, shape)
    part = distribute(comm, rows, offsets, width, shape)
    del rows
    work = 2.0 * width * n * n / comm.size
    return run(comm, _some_panels, part, 0, panels or per_step(work, 2e10))


def _width(n: int, grid: tuple[int, int]) -> int:
    """Choose the columns of a block."""
    some = -(-n // (4 * max(grid)))
    if some < WIDTHS[0]:  # a small matrix in small blocks, so that every rank has some
        return max(1, some)
    return min(WIDTHS, key=lambda width: (-n % width, abs(width - 128)))  # the last one full


def distribute(
    comm: Any, rows: Array, offsets: list[int], block: int, grid: tuple[int, int]
) -> Factors:
    """Bring a matrix from row shares to blocks, dealt out to the grid in turn."""
    n = offsets[-1]
    count = -(-n // block)
    down, across = grid
    first, more = offsets[comm.rank], count * block - n
    # The rank of the last row continues the matrix by ones on the diagonal.
    last = comm.rank == max(r for r in range(comm.size) if offsets[r] < n or r == 0)
    wide = rows
    if more:
        wide = np.zeros((len(rows) + more * last, n + more))
        wide[: len(rows), :n] = rows
    if last:
        wide[len(rows) + np.arange(more), n + np.arange(more)] = 1.0
    rows_here = first + np.arange(len(wide))
    by_block = wide.reshape(len(wide), count, block).transpose(1, 0, 2)
    pieces = []
    for rank in range(comm.size):
        row, column = divmod(rank, across)
        piece = by_block[column::across]
        if down > 1:
            piece = piece[:, rows_here // block % down == row]
        pieces.append(np.ascontiguousarray(piece))
    blocks = np.concatenate(comm.alltoall(pieces), axis=1)
    return Factors(n, block, grid, comm.rank, blocks, np.zeros(n, np.int64))


def _some_panels(comm: Any, part: Factors, panel: int, panels: int) -> Any:
    """Eliminate some block columns: a step."""
    end = min(panel + panels, part.count)
    with one_thread():
        row, column = part.place
        # A row of ranks that is all of them, or a column that is one, needs no messages of its own.
        along = comm if part.grid[0] == 1 else comm.Split(row, column)
        down = None if part.grid[0] == 1 else comm.Split(column, row)
        for at in range(panel, end):
            _eliminate(along, down, part, at)
        for own in (along, down):
            if own is not None and own is not comm:
                own.Free()
    if end < part.count:
        return go_on(comm, _some_panels, part, end, panels)
    return part


def _eliminate(along: Any, down: Any, part: Factors, panel: int) -> None:
    """Factorize a panel, swap the rows, and subtract its part from all that is right and below."""
    (height, across), size = part.grid, part.block
    row, column = part.place
    owner_row, owner_column = panel % height, panel % across
    top = part.below(panel, row)
    blocks = part.blocks

    # The panel: gathered in its column of ranks, factorized by one of them, given to all.
    diagonal = np.empty((size, size))  # L11 below its diagonal, U11 above
    mine = np.empty((blocks.shape[1] - top, size))  # this rank's rows of the panel
    pivots = np.empty(size + 1, np.int64)  # from the panel's top; the last: LAPACK's verdict
    if column == owner_column:
        whole = _factorized_panel(down, part, panel, pivots)
        diagonal[:] = whole[:size]
        mine[:] = whole if down is None else whole[_within(part, panel, row)]
    along.Bcast(pivots, owner_column)
    if pivots[size]:
        raise UsageError(
            f"the matrix is singular: column {panel * size + pivots[size] - 1} has no pivot"
        )
    along.Bcast(mine, owner_column)
    if down is None:
        diagonal = mine[:size]
    else:
        along.Bcast(diagonal, owner_column)
    known = part.pivots[panel * size : (panel + 1) * size]  # shorter in the last panel
    known[:] = panel * size + pivots[: len(known)]

    _swap_rows(down, part, panel, pivots[:size])
    if column == owner_column:
        blocks[panel // across, top:] = mine

    # The rows of U beside the panel, then what is right and below. LAPACK counts columns first: the
    # blocks lie row by row, so it sees them transposed, and nothing is copied.
    right = -(-(panel + 1 - column) // across) if panel >= column else 0
    upper = np.empty((len(blocks) - right, size, size))
    under = top
    if row == owner_row:
        under = top + size
        for index, block in enumerate(blocks[right:, top:under]):
            blas.dtrsm(1.0, diagonal.T, block.T, side=1, diag=1, overwrite_b=1)
            upper[index] = block
    if down is not None:
        down.Bcast(upper, owner_row)
    lower = mine[under - top :].T
    if not lower.size:
        return
    for beside, block in zip(upper, blocks[right:, under:], strict=True):
        blas.dgemm(-1.0, beside.T, lower, 1.0, block.T, overwrite_c=1)


def _within(part: Factors, panel: int, row: int) -> Array:
    """Give the rows, counted from a panel's top, that lie in a row of the grid."""
    rows = part.rows_of(row)
    return rows[part.below(panel, row) :] - panel * part.block


def _factorized_panel(down: Any, part: Factors, panel: int, pivots: Array) -> Array:
    """Gather a panel, factorize it, give it whole to its column of ranks; fill ``pivots``."""
    across, size = part.grid[1], part.block
    row, owner = part.place[0], panel % part.grid[0]
    own = part.blocks[panel // across, part.below(panel, row) :]
    length = (part.count - panel) * size
    pieces = [own] if down is None else down.gather(own, owner)
    whole = np.empty((length, size))
    if row == owner:
        gathered = np.empty((length, size), order="F")
        for rank, piece in enumerate(pieces):
            gathered[_within(part, panel, rank)] = piece
        factorized, swaps, verdict = lapack.dgetrf(gathered, overwrite_a=1)
        whole[:] = factorized
        pivots[:size], pivots[size] = swaps, verdict
    if down is not None:
        down.Bcast(whole, owner)
        down.Bcast(pivots, owner)
    return whole


def _swap_rows(down: Any, part: Factors, panel: int, pivots: Array) -> None:
    """Do a panel's swaps of rows at once, over the whole width.

    Only the rows between which a swap moves something travel: at most two for each pivot.
    """
    swapped: dict[int, int] = {}  # which row lies here after all swaps
    for here_, there in enumerate(pivots.tolist()):
        if here_ != there:
            above, below = swapped.get(here_, here_), swapped.get(there, there)
            swapped[here_], swapped[there] = below, above
    moves = sorted((to, source) for to, source in swapped.items() if to != source)
    if not moves:
        return
    to, source = np.array(moves).T + panel * part.block
    blocks, size, height = part.blocks, part.block, part.grid[0]
    if down is None:
        blocks[:, to] = blocks[:, source]
        return
    local_to, local_source = (rows // size // height * size + rows % size for rows in (to, source))
    to_row, source_row = to // size % height, source // size % height
    row = part.place[0]
    pieces = [blocks[:, local_source[(source_row == row) & (to_row == r)]] for r in range(height)]
    for rank, piece in enumerate(down.alltoall(pieces)):
        blocks[:, local_to[(to_row == row) & (source_row == rank)]] = piece


# ---------------------------------------------------------------- over a session


def factorize(
    session: Session,
    a: Any,
    block: int | None = None,
    grid: Sequence[int] | None = None,
    panels: int | None = None,
    name: str | None = None,
) -> Variable:
    """Factorize a matrix on the ranks of a session.

    Parameters
    ----------
    session : Session
    a : (n, n) array, or Variable
        A variable holds row shares: of ``session.scatter(matrix)``, or what another program gave.
    block, grid, panels
        See `factor`.
    name : str, optional
        Of the result.

    Returns
    -------
    Variable
        Of values: each rank's `Factors`; ``collect(variable.partitions())`` puts them together.

    Raises
    ------
    UsageError
        As `factor` does: at once where the call shows it, else when the result is asked for.
    """
    _check(session.size, block, grid, panels)
    if not isinstance(a, Variable):
        a = dense(a)
        if a.ndim != 2 or a.shape[0] != a.shape[1] or not a.size:
            raise UsageError(f"LU takes a square matrix, not one of shape {a.shape}")
        if not np.isfinite(a).all():
            raise UsageError("the matrix holds a value that is not finite")
        a = session.scatter(a)
    return session.spmd(_factor_variable, a, block, grid, panels, name=name)


def _factor_variable(comm: Any, a: Any, *options: Any) -> Any:
    return factor(comm, here()[a], *options)


def collect(parts: Sequence[Factors]) -> tuple[Array, Array]:
    """Put the ranks' parts together.

    Returns
    -------
    lu : (n, n) array
        U, and L below the diagonal without its ones.
    pivots : (n,) array of int
        Both as ``scipy.linalg.lu_factor`` gives them, so ``scipy.linalg.lu_solve`` takes them.
    """
    some = parts[0]
    whole = np.empty((some.count * some.block, some.count, some.block))
    for part in parts:
        row, column = part.place
        whole[part.rows_of(row), column :: part.grid[1]] = part.blocks.transpose(1, 0, 2)
    return whole.reshape(len(whole), -1)[: some.n, : some.n].copy(), some.pivots


def residual(a: Array, lu: Array, pivots: Array) -> float:
    """Give ``norm(P A - L U) / (n norm(A) eps)``, in the norm of the largest row sum."""
    a = np.asarray(a, np.float64)
    order = np.arange(len(a))
    for row, other in enumerate(pivots):
        order[[row, other]] = order[[other, row]]
    lower = np.tril(lu, -1)
    np.fill_diagonal(lower, 1.0)
    error = a[order] - lower @ np.triu(lu)
    largest = np.abs(a).sum(axis=1).max() * len(a) * np.finfo(np.float64).eps
    return float(np.abs(error).sum(axis=1).max() / largest)


def _check(
    size: int, block: int | None, grid: Sequence[int] | None, panels: int | None
) -> tuple[int, int]:
    """Check what does not depend on the matrix, and give the grid."""
    for what, number in (("block", block), ("panels", panels)):
        if number is not None and (not isinstance(number, int | np.integer) or number < 1):
            raise UsageError(f"{what}= takes a whole number of at least 1, not {number!r}")
    return grid_of(size, grid, (1, size))
