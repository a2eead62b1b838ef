"""Odd-even transposition sort: neighbours exchange their blocks and keep a half each."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
mine = np.sort(np.random.default_rng(rank).integers(0, 1000, 12))
theirs = np.empty_like(mine)
for phase in range(size):
    up = (rank + phase) % 2 == 0
    partner = rank + 1 if up else rank - 1
    if not 0 <= partner < size:
        partner = MPI.PROC_NULL
    comm.Sendrecv(mine, partner, 0, theirs, partner, 0)
    if partner != MPI.PROC_NULL:
        both = np.sort(np.concatenate([mine, theirs]))
        mine = both[:12].copy() if up else both[12:].copy()
print(rank, mine.tolist())
