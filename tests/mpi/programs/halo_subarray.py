"""The edges of a tile exchanged through subarray datatypes."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
grid = comm.Create_cart(MPI.Compute_dims(comm.size, 2), periods=[True, True])
n = 4
tile = np.full((n + 2, n + 2), -1, dtype="i")
tile[1:-1, 1:-1] = grid.rank
sizes = [n + 2, n + 2]


def edge(rows, columns, row, column):
    return MPI.INT.Create_subarray(sizes, [rows, columns], [row, column]).Commit()


for dimension, (shape, ends) in enumerate(
    [
        ((1, n), [((1, 1), (n + 1, 1)), ((n, 1), (0, 1))]),
        ((n, 1), [((1, 1), (1, n + 1)), ((1, n), (1, 0))]),
    ]
):
    for step, (inner, outer) in zip((-1, 1), ends):
        source, target = grid.Shift(dimension, step)
        send, recv = edge(*shape, *inner), edge(*shape, *outer)
        grid.Sendrecv([tile, 1, send], target, 0, [tile, 1, recv], source, 0)
        send.Free()
        recv.Free()
for row in tile.tolist():
    print(grid.rank, row)
