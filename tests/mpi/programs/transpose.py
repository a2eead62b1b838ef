"""A matrix transposed by blocks with one exchange of everything with everyone."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
size, rank = comm.size, comm.rank
b = 2
n = b * size
mine = (np.arange(b * n) + rank * b * n).reshape(b, n)
send = np.ascontiguousarray(mine.reshape(b, size, b).transpose(1, 2, 0))
recv = np.empty_like(send)
comm.Alltoall(send, recv)
result = recv.transpose(1, 0, 2).reshape(b, n)
whole = np.arange(n * n).reshape(n, n).T
print(rank, result[0].tolist(), np.array_equal(result, whole[rank * b : (rank + 1) * b]))
