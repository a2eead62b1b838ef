"""Cannon's matrix product on a grid of ranks that is a torus."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
q = int(comm.size**0.5)
grid = comm.Create_cart([q, q], periods=[True, True])
if grid != MPI.COMM_NULL:
    row, column = grid.coords
    b = 3
    whole = np.random.default_rng(3).integers(-5, 5, (2, q * b, q * b)).astype("d")
    cut = np.s_[row * b : (row + 1) * b, column * b : (column + 1) * b]
    left, right = whole[0][cut].copy(), whole[1][cut].copy()
    source, target = grid.Shift(1, -row)
    grid.Sendrecv_replace(left, target, 0, source, 0)
    source, target = grid.Shift(0, -column)
    grid.Sendrecv_replace(right, target, 0, source, 0)
    product = np.zeros((b, b))
    for _ in range(q):
        product += left @ right
        source, target = grid.Shift(1, -1)
        grid.Sendrecv_replace(left, target, 0, source, 0)
        source, target = grid.Shift(0, -1)
        grid.Sendrecv_replace(right, target, 0, source, 0)
    print(grid.coords, product[0].tolist(), np.array_equal(product, (whole[0] @ whole[1])[cut]))
