"""The integral of x squared by the trapezoid rule, a piece on each rank."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
a, b, n = 0.0, 3.0, 1200
h = (b - a) / n
x = a + h * np.arange(rank * n // size, (rank + 1) * n // size + 1)
mine = np.array([h * ((x[:-1] ** 2 + x[1:] ** 2) / 2).sum()])
total = np.zeros(1)
comm.Reduce([mine, MPI.DOUBLE], [total, MPI.DOUBLE], op=MPI.SUM, root=0)
if rank == 0:
    print(f"integral {total[0]:.6f}")
