"""Arrays of many sizes there and back, and their sizes from the status."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
if comm.rank < 2:
    status = MPI.Status()
    for n in (0, 1, 10, 1000, 100000):
        data = np.arange(n, dtype="d")
        if comm.rank == 0:
            comm.Send([data, MPI.DOUBLE], dest=1, tag=n % 1000)
            comm.Recv(data, source=1, tag=MPI.ANY_TAG, status=status)
            print(n, status.Get_count(MPI.DOUBLE), status.Get_tag(), float(data.sum()))
        else:
            comm.Probe(source=0, tag=MPI.ANY_TAG, status=status)
            got = np.empty(status.Get_count(MPI.DOUBLE))
            comm.Recv(got, source=0, tag=status.tag)
            comm.Send(got * 2, dest=0, tag=status.tag + 1)
