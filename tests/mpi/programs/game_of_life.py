"""Conway's Game of Life: rows on each rank, edges exchanged with both neighbours."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
rows, columns = 4, 16
grid = np.zeros((rows + 2, columns), dtype="i")
whole = np.random.default_rng(7).integers(0, 2, (rows * size, columns)).astype("i")
grid[1:-1] = whole[rank * rows : (rank + 1) * rows]
up, down = (rank - 1) % size, (rank + 1) % size
for _ in range(10):
    comm.Sendrecv([grid[1], MPI.INT], up, 1, [grid[-1], MPI.INT], down, 1)
    comm.Sendrecv([grid[-2], MPI.INT], down, 2, [grid[0], MPI.INT], up, 2)
    count = sum(
        np.roll(grid, shift, axis=1)[1 + step : rows + 1 + step]
        for shift in (-1, 0, 1)
        for step in (-1, 0, 1)
        if shift or step
    )
    grid[1:-1] = (count == 3) | ((grid[1:-1] == 1) & (count == 2))
alive = comm.reduce(int(grid[1:-1].sum()))
pictures = comm.gather(["".join(".#"[cell] for cell in row) for row in grid[1:-1]])
if rank == 0:
    print("alive", alive)
    for picture in pictures:
        print("\n".join(picture))
