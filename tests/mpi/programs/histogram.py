"""A histogram: counts per rank, summed in place at the root and for all."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
values = np.random.default_rng(comm.rank).integers(0, 8, 100)
counts = np.bincount(values, minlength=8)
if comm.rank == 0:
    total = counts.copy()
    comm.Reduce(MPI.IN_PLACE, total, op=MPI.SUM, root=0)
    print(total.tolist())
else:
    comm.Reduce(counts, None, op=MPI.SUM, root=0)
comm.Allreduce(MPI.IN_PLACE, counts, op=MPI.MAX)
print(comm.rank, counts.tolist())
