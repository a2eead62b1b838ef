"""The smallest value and the rank that has it."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
value = (comm.rank * 7 + 3) % 5 + 0.5
print(comm.rank, comm.allreduce((value, comm.rank), op=MPI.MINLOC))
pair = np.zeros(2, dtype=np.dtype([("v", "f8"), ("i", "i4")], align=True))
pair["v"] = [value, -value]
pair["i"] = comm.rank
best = np.zeros_like(pair)
comm.Allreduce([pair, MPI.DOUBLE_INT], [best, MPI.DOUBLE_INT], op=MPI.MAXLOC)
print(comm.rank, best.tolist())
