"""Requests made once and started every step."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
out, got = np.zeros(4), np.zeros(4)
send = comm.Send_init(out, dest=(comm.rank + 1) % comm.size, tag=3)
recv = comm.Recv_init(got, source=(comm.rank - 1) % comm.size, tag=3)
sums = []
for step in range(3):
    out[:] = comm.rank * 10 + step
    MPI.Prequest.Startall([recv, send])
    MPI.Request.Waitall([send, recv])
    sums.append(float(got.sum()))
send.Free()
recv.Free()
print(comm.rank, sums)
