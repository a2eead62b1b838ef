"""A matrix by columns times a vector: each rank has a part of every sum."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
n = 2 * size
matrix = np.arange(n * n, dtype=float).reshape(n, n)
columns = MPI.DOUBLE.Create_vector(n, 2, n).Create_resized(0, 2 * MPI.DOUBLE.Get_size())
columns.Commit()
mine = np.empty((n, 2))
if rank == 0:
    requests = [
        comm.Isend([matrix.reshape(-1)[2 * other :], 1, columns], dest=other)
        for other in range(size)
    ]
    comm.Recv(mine, source=0)
    MPI.Request.Waitall(requests)
else:
    comm.Recv(mine, source=0)
columns.Free()
part = mine @ np.array([rank + 1.0, rank + 2.0])
result = np.empty(2)
comm.Reduce_scatter(part, result, [2] * size, op=MPI.SUM)
print(rank, mine[0].tolist(), result.tolist())
