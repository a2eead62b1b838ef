"""Collectives under way together, waited for in another order."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
mine = np.full(3, comm.rank + 1.0)
total, every = np.empty(3), np.empty((comm.size, 3))
word = bytearray(b"hello" if comm.rank == 0 else b"-----")
requests = [
    comm.Iallreduce(mine, total, op=MPI.PROD),
    comm.Iallgather(mine, every),
    comm.Ibcast(word, root=0),
    comm.Ibarrier(),
]
for request in reversed(requests):
    request.Wait()
print(comm.rank, total.tolist(), every[:, 0].tolist(), word.decode())
