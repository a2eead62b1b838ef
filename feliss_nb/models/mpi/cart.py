"""Cartesian topologies: ranks laid out as a grid, the last dimension running fastest."""
# ruff: noqa: N802  mpi4py's names

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from feliss_nb.models.mpi import constants
from feliss_nb.models.mpi.comm import COMM_NULL, Comm, Intracomm
from feliss_nb.models.mpi.constants import PROC_NULL
from feliss_nb.models.mpi.core import Core
from feliss_nb.models.mpi.failures import MPIError


class Topocomm(Intracomm):
    """A communicator whose ranks have a topology."""


class Cartcomm(Topocomm):
    """A communicator whose ranks are a grid.

    Parameters
    ----------
    inner : Core
    dims : sequence of int
    periods : sequence of int
    """

    def __init__(self, inner: Core, dims: Sequence[int], periods: Sequence[int]) -> None:
        super().__init__(inner)
        self._dims, self._periods = list(dims), [int(ring) for ring in periods]

    def _like(self, made: Core) -> Any:
        return Cartcomm(made, self._dims, self._periods)

    def Get_topology(self) -> int:
        """Give ``CART``."""
        return constants.CART

    def Get_dim(self) -> int:
        """Count the dimensions."""
        return len(self._dims)

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return len(self._dims)

    ndim = dim

    @property
    def dims(self) -> list[int]:
        """Ranks along each dimension."""
        return list(self._dims)

    @property
    def periods(self) -> list[int]:
        """Whether each dimension is a ring: 1 or 0, as in mpi4py."""
        return list(self._periods)

    @property
    def coords(self) -> list[int]:
        """Where this rank stands."""
        return self.Get_coords(self.rank)

    @property
    def topo(self) -> tuple[list[int], list[int], list[int]]:
        """Dimensions, rings, and where this rank stands."""
        return self.Get_topo()

    def Get_topo(self) -> tuple[list[int], list[int], list[int]]:
        """Give dimensions, rings, and where this rank stands."""
        return self.dims, self.periods, self.coords

    def Get_coords(self, rank: int) -> list[int]:
        """Give where a rank stands."""
        if not 0 <= rank < self.size:
            raise MPIError(constants.ERR_RANK, f"rank {rank} of {self.size}")
        coords = []
        for extent in reversed(self._dims):
            rank, coordinate = divmod(rank, extent)
            coords.append(coordinate)
        return coords[::-1]

    def Get_cart_rank(self, coords: Sequence[int]) -> int:
        """Give the rank at some place."""
        rank = 0
        for place, extent, ring in zip(coords, self._dims, self._periods, strict=True):
            if not ring and not 0 <= place < extent:
                raise MPIError(constants.ERR_ARG, f"{list(coords)} in a grid of {self._dims}")
            rank = rank * extent + place % extent
        return rank

    def Shift(self, direction: int, disp: int) -> tuple[int, int]:
        """Give the rank ``disp`` before this one along a dimension, and the one behind."""
        if not 0 <= direction < self.dim:
            raise MPIError(constants.ERR_DIMS, f"dimension {direction} of {self.dim}")
        return self._beside(direction, -disp), self._beside(direction, disp)

    def _beside(self, direction: int, by: int) -> int:
        coords = self.coords
        coords[direction] += by
        inside = 0 <= coords[direction] < self._dims[direction]
        if not inside and not self._periods[direction]:
            return PROC_NULL
        return self.Get_cart_rank(coords)

    def Sub(self, remain_dims: Sequence[bool]) -> Cartcomm:
        """Make a communicator of each subgrid along the dimensions that remain."""
        if len(remain_dims) != self.dim:
            raise MPIError(constants.ERR_DIMS, f"{len(remain_dims)} flags for {self.dim} dims")
        coords = self.coords
        color = 0
        for keep, place, extent in zip(remain_dims, coords, self._dims, strict=True):
            if not keep:
                color = color * extent + place
        inner = self.Split(color, self.rank)
        kept = [i for i, keep in enumerate(remain_dims) if keep]
        return Cartcomm(
            inner._core, [self._dims[i] for i in kept], [self._periods[i] for i in kept]
        )

    def Cart_map(self, dims: Sequence[int], periods: Any = None) -> int:
        """Give the rank that ``Create_cart`` would give this one."""
        return self.rank if self.rank < math.prod(dims) else constants.UNDEFINED


def lay_out(comm: Comm, dims: Iterable[int], periods: Any) -> Cartcomm | Intracomm:
    """Make the grid of ``Create_cart``; ``COMM_NULL`` for ranks that do not fit in."""
    extents = [int(extent) for extent in dims]
    if periods is None or isinstance(periods, bool | int):
        rings = [bool(periods)] * len(extents)
    else:
        rings = [bool(ring) for ring in periods]
    needed = math.prod(extents)
    if len(rings) != len(extents) or any(extent < 1 for extent in extents):
        raise MPIError(constants.ERR_DIMS, f"dims {extents}, periods {rings}")
    if needed > comm.Get_size():
        raise MPIError(constants.ERR_ARG, f"a grid of {extents} for {comm.Get_size()} ranks")
    inside = comm.Get_rank() < needed
    made = comm.Split(0 if inside else constants.UNDEFINED, comm.Get_rank())
    if not inside:
        return COMM_NULL
    made.Set_name(f"{comm.Get_name()} (cart {'x'.join(map(str, extents))})")
    return Cartcomm(made._core, extents, rings)


def compute_dims(nnodes: int, dims: int | Sequence[int]) -> list[int]:
    """Divide ranks over the dimensions of a grid, as evenly as can be, in falling order.

    Parameters
    ----------
    nnodes : int
    dims : int or sequence of int
        How many dimensions; or the extent of each, 0 where it is to be found.
    """
    given = [0] * dims if isinstance(dims, int) else [int(extent) for extent in dims]
    fixed = math.prod(extent for extent in given if extent)
    free = given.count(0)
    if nnodes < 1 or any(extent < 0 for extent in given) or nnodes % fixed:
        raise MPIError(constants.ERR_DIMS, f"{nnodes} ranks over {given}")
    if not free:
        if fixed != nnodes:
            raise MPIError(constants.ERR_DIMS, f"{nnodes} ranks over {given}")
        return given
    found = iter(_even(nnodes // fixed, free))
    return [extent or next(found) for extent in given]


def _even(number: int, parts: int) -> list[int]:
    """Factor a number into ``parts`` factors, in falling order, the largest as small as can be."""
    if parts == 1:
        return [number]
    best: list[int] = []
    low = 1
    while low**parts < number:
        low += 1
    for largest in range(low, number + 1):
        if number % largest:
            continue
        rest = _even(number // largest, parts - 1)
        if rest[0] <= largest:
            best = [largest, *rest]
            break
    return best
