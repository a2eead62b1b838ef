"""Bitonic sort over a hypercube of ranks."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
mine = np.sort(np.random.default_rng(rank + 50).integers(0, 500, 8)).astype("i")
theirs = np.empty_like(mine)
k = 2
while k <= size:
    j = k // 2
    while j:
        partner = rank ^ j
        comm.Sendrecv([mine, MPI.INT], partner, k, [theirs, MPI.INT], partner, k)
        both = np.sort(np.concatenate([mine, theirs]))
        low = ((rank & k) == 0) == (rank < partner)
        mine = both[:8].copy() if low else both[8:].copy()
        j //= 2
    k *= 2
gathered = np.empty(8 * size, dtype="i") if rank == 0 else None
comm.Gather(mine, gathered, root=0)
if rank == 0:
    print(gathered.tolist())
