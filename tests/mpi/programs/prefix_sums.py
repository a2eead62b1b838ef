"""Prefix sums of a distributed array: local sums, then an exclusive scan."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
data = np.arange(1, 6) * (comm.rank + 1)
local = np.cumsum(data)
before = np.zeros(1, dtype=local.dtype)
comm.Exscan(local[-1:].copy(), before, op=MPI.SUM)
if comm.rank == 0:
    before[:] = 0
upto = np.zeros(1, dtype=local.dtype)
comm.Scan(local[-1:].copy(), upto)
print(comm.rank, (local + before).tolist(), upto.tolist(), comm.exscan(comm.rank + 1, op=MPI.PROD))
