"""A matrix by rows times a vector: each rank needs all of the vector."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
n = 3 * comm.size
rows = np.empty((3, n))
matrix = np.arange(n * n, dtype=float).reshape(n, n) if comm.rank == 0 else None
comm.Scatter(matrix, rows, root=0)
piece = np.arange(3.0) + comm.rank
vector = np.empty(n)
comm.Allgather([piece, MPI.DOUBLE], [vector, MPI.DOUBLE])
result = np.empty(n) if comm.rank == 0 else None
comm.Gather(rows @ vector, result, root=0)
if comm.rank == 0:
    print(result.tolist())
    print("right:", np.array_equal(result, matrix @ vector))
