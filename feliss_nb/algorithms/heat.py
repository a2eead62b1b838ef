"""The heat equation in two dimensions, by explicit steps in time, with halo exchange.

``du/dt = diffusivity (d2u/dx2 + d2u/dy2)`` on a rectangle whose edge keeps its temperature: forward
in time, centred in space (LeVeque, Finite Difference Methods for Ordinary and Partial Differential
Equations, 2007, section 9.1; its stability in section 9.3 and, in two dimensions, 9.7). Each rank
has a block of the grid with a halo of one point, which it gets from its neighbours before each step
in time (Gropp, Lusk and Skjellum, Using MPI, 3rd ed., 2014, chapter 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from feliss_nb import Session, Variable, here
from feliss_nb.algorithms.shares import (
    Array,
    Block,
    cuts,
    dense,
    grid_of,
    layout,
    nearly_square,
    to_blocks,
    to_rows,
)
from feliss_nb.algorithms.steps import go_on, per_step, run
from feliss_nb.errors import UsageError


@dataclass(slots=True)
class _State:
    u: Array  # this rank's block within its halo; the edge of the plate is never written to
    down: float  # diffusivity * dt / dy**2, along the columns
    along: float  # diffusivity * dt / dx**2, along the rows
    grid: tuple[int, int]
    offsets: list[int]
    held: list[Block]
    left: int  # steps in time to do


def diffuse(
    comm: Any,
    rows: Any,
    times: int,
    dt: float,
    diffusivity: float = 1.0,
    spacing: tuple[float, float] = (1.0, 1.0),
    grid: Sequence[int] | None = None,
    every: int | None = None,
) -> Any:
    """Let a plate's temperatures spread.

    Parameters
    ----------
    comm : communicator
        Any number of ranks.
    rows : (m, n) array
        This rank's rows of the temperatures. The outermost rows and columns of the whole stay.
    times : int
        Steps in time.
    dt : float
        Of a step in time, in seconds.
    diffusivity : float
        In square metres a second.
    spacing : (float, float)
        Between rows and between columns, in metres.
    grid : (int, int), optional
        Rows and columns of the grid of ranks; default: as square as it gets.
    every : int, optional
        Steps in time between two points where a checkpoint can stand; default: as many as take a
        fraction of a second.

    Returns
    -------
    (m, n) array
        This rank's rows after ``times * dt`` seconds: the same bits on any grid of ranks, since
        each point is computed in the same way from the same five.

    Raises
    ------
    UsageError
        On every rank: the plate has no inner point, the step in time is unstable, which it is where
        ``diffusivity * dt * (1 / dy**2 + 1 / dx**2) > 1 / 2``.
    """
    _check(comm.size, times, dt, diffusivity, spacing, grid, every)
    rows, offsets = layout(comm, rows, dense, "the plate")
    shape = _check_plate((offsets[-1], *rows.shape[1:]), comm.size, grid)
    high, wide = offsets[-1], rows.shape[1]
    # The edge belongs to no block: it is the halo of those beside it.
    down, across = cuts(high - 2, shape[0]), cuts(wide - 2, shape[1])
    inner, framed, held = [], [], []
    for rank in range(comm.size):
        i, j = divmod(rank, shape[1])
        tall = 1 + down[i], 1 + down[i + 1]
        broad = 1 + across[j], 1 + across[j + 1]
        inner.append((slice(*tall), slice(*broad)))
        framed.append((slice(tall[0] - 1, tall[1] + 1), slice(broad[0] - 1, broad[1] + 1)))
        # What a rank gives back: its block, and the edge beside it.
        held.append(
            (
                slice(tall[0] - (i == 0), tall[1] + (i == shape[0] - 1)),
                slice(broad[0] - (j == 0), broad[1] + (j == shape[1] - 1)),
            )
        )
    u = to_blocks(comm, rows, offsets, framed)
    k = diffusivity * dt
    state = _State(u, k / spacing[0] ** 2, k / spacing[1] ** 2, shape, offsets, held, int(times))
    # A point costs some ten passes over memory; the messages of a step in time as much as 1e5.
    work = 10.0 * high * wide / comm.size + 1e5
    return run(comm, _some_times, state, every or per_step(work, 5e8))


def _some_times(comm: Any, state: _State, every: int) -> Any:
    """Take some steps in time: a step of the program."""
    spare = np.empty((len(state.u) - 2, state.u.shape[1] - 2))
    for _ in range(min(every, state.left)):
        _exchange(comm, state)
        _advance(state, spare)
        state.left -= 1
    if state.left:
        return go_on(comm, _some_times, state, every)
    height, width = state.held[comm.rank]
    i, j = divmod(comm.rank, state.grid[1])
    top, side = (0 if i == 0 else 1), (0 if j == 0 else 1)
    own = state.u[top : top + height.stop - height.start, side : side + width.stop - width.start]
    return to_rows(comm, own, state.offsets, state.held)


def _advance(state: _State, spare: Array) -> None:
    """Compute the next temperatures of the inner points."""
    u = state.u
    middle = u[1:-1, 1:-1]
    # In this order on every rank, and in a serial program: floats round.
    second = u[:-2, 1:-1] + u[2:, 1:-1]
    np.multiply(middle, 2.0, out=spare)
    second -= spare
    second *= state.down
    other = u[1:-1, :-2] + u[1:-1, 2:]
    other -= spare
    other *= state.along
    second += other
    middle += second


def _exchange(comm: Any, state: _State) -> None:
    """Get the halo from the four neighbours, where there is one."""
    u = state.u
    (rows, columns), (i, j) = state.grid, divmod(comm.rank, state.grid[1])
    # For each side: the neighbour, the halo there, what it gets; the tag names the side from which
    # the receiver sees it come.
    sides = [
        (i > 0, comm.rank - columns, u[0, 1:-1], u[1, 1:-1], 0, 1),
        (i < rows - 1, comm.rank + columns, u[-1, 1:-1], u[-2, 1:-1], 1, 0),
        (j > 0, comm.rank - 1, u[1:-1, 0], u[1:-1, 1], 2, 3),
        (j < columns - 1, comm.rank + 1, u[1:-1, -1], u[1:-1, -2], 3, 2),
    ]
    sides = [side for side in sides if side[0]]
    requests = [
        comm.Isend(np.ascontiguousarray(edge), neighbour, tag)
        for _, neighbour, _, edge, _, tag in sides
    ]
    for _, neighbour, halo, _, tag, _ in sides:
        got = np.empty(len(halo))
        comm.Recv(got, neighbour, tag)
        halo[:] = got
    for request in requests:
        request.Wait()


# ---------------------------------------------------------------- over a session


def spread(
    session: Session,
    plate: Any,
    times: int,
    dt: float,
    diffusivity: float = 1.0,
    spacing: tuple[float, float] = (1.0, 1.0),
    grid: Sequence[int] | None = None,
    every: int | None = None,
    name: str | None = None,
) -> Variable:
    """Let a plate's temperatures spread, on the ranks of a session.

    Parameters
    ----------
    session : Session
    plate : (m, n) array, or Variable
        The temperatures. A variable holds row shares: of ``session.scatter(plate)``, or what
        another program gave.
    times, dt, diffusivity, spacing, grid, every
        See `diffuse`.
    name : str, optional
        Of the result.

    Returns
    -------
    Variable
        Of values: each rank's rows, ``np.concatenate(variable.partitions())`` is the plate.

    Raises
    ------
    UsageError
        As `diffuse` does: at once where the call shows it, else when the result is asked for.
    """
    _check(session.size, times, dt, diffusivity, spacing, grid, every)
    if not isinstance(plate, Variable):
        plate = dense(plate)
        _check_plate(plate.shape, session.size, grid)
        if not np.isfinite(plate).all():
            raise UsageError("the plate holds a value that is not finite")
        plate = session.scatter(plate)
    options = times, dt, diffusivity, spacing, grid, every
    return session.spmd(_diffuse_variable, plate, *options, name=name)


def _diffuse_variable(comm: Any, plate: Any, *options: Any) -> Any:
    return diffuse(comm, here()[plate], *options)


def _check(
    size: int,
    times: int,
    dt: float,
    diffusivity: float,
    spacing: tuple[float, float],
    grid: Sequence[int] | None,
    every: int | None,
) -> None:
    """Check what does not depend on the plate."""
    grid_of(size, grid, (1, size))
    for what, number, least in (("times", times, 0), ("every", every, 1)):
        if number is not None and (not isinstance(number, int | np.integer) or number < least):
            raise UsageError(f"{what}= takes a whole number of at least {least}, not {number!r}")
    if np.shape(spacing) != (2,):
        raise UsageError(f"spacing= takes two numbers, between rows and columns, not {spacing!r}")
    for name, value in (
        ("dt", dt),
        ("diffusivity", diffusivity),
        *(("spacing", d) for d in spacing),
    ):
        if not 0 < value < np.inf:
            raise UsageError(f"{name}= takes a number above 0, not {value!r}")
    ratio = diffusivity * dt * sum(1 / d**2 for d in spacing)
    if ratio > 0.5:
        raise UsageError(
            f"dt={dt} is unstable: diffusivity * dt * (1 / dy**2 + 1 / dx**2) is {ratio:.3g}, "
            f"above 1/2; take dt <= {dt * 0.5 / ratio:.3g}"
        )


def _check_plate(shape: Sequence[int], size: int, grid: Sequence[int] | None) -> tuple[int, int]:
    """Check that each rank has a point, and give the grid of ranks."""
    if len(shape) != 2 or min(shape) < 3:
        raise UsageError(f"a plate has at least 3 by 3 points, of which one is inner: not {shape}")
    default = nearly_square(size)
    if default[0] > shape[0] - 2 or default[1] > shape[1] - 2:  # long and narrow
        default = (1, size) if shape[1] > shape[0] else (size, 1)
    chosen = grid_of(size, grid, default)
    if chosen[0] > shape[0] - 2 or chosen[1] > shape[1] - 2:
        raise UsageError(
            f"a plate of {tuple(shape)} points has fewer inner rows or columns than the grid "
            f"{chosen} of ranks: take fewer ranks, or another grid="
        )
    return chosen
