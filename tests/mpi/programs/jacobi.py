"""Laplace's equation by Jacobi's method, with requests for the edges and a maximum for the end."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
n, rows = 16, 4
u = np.zeros((rows + 2, n))
if rank == 0:
    u[0] = 100.0
above = rank - 1 if rank > 0 else MPI.PROC_NULL
below = rank + 1 if rank < size - 1 else MPI.PROC_NULL
for sweep in range(1, 501):
    requests = [
        comm.Irecv(u[0] if above != MPI.PROC_NULL else np.empty(n), source=above),
        comm.Irecv(u[-1] if below != MPI.PROC_NULL else np.empty(n), source=below),
        comm.Isend(u[1].copy(), dest=above),
        comm.Isend(u[-2].copy(), dest=below),
    ]
    MPI.Request.Waitall(requests)
    new = u.copy()
    new[1:-1, 1:-1] = (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]) / 4
    change = comm.allreduce(float(np.abs(new - u).max()), op=MPI.MAX)
    u = new
    if change < 1e-3:
        break
print(rank, sweep, [round(x, 4) for x in u[2, ::4].tolist()])
