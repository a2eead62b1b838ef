"""Blocks of uneven sizes with gaps between them, scattered and gathered."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
counts = [i + 1 for i in range(size)]
where = [i * (size + 2) for i in range(size)]
source = np.arange(size * (size + 2), dtype="i") if rank == 1 else None
mine = np.empty(counts[rank], dtype="i")
comm.Scatterv([source, counts, where, MPI.INT], mine, root=1)
mine *= -1
result = np.zeros(size * (size + 2), dtype="i")
comm.Gatherv(mine, [result, (counts, where), MPI.INT], root=0)
if rank == 0:
    print(result.tolist())
dense = np.empty(sum(counts), dtype="i")
comm.Allgatherv([mine, MPI.INT], [dense, counts, None, MPI.INT])
print(rank, dense.tolist())
