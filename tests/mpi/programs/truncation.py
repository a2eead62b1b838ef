"""A receive whose buffer is too small raises; so do ranks that are not there."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
comm.Set_errhandler(MPI.ERRORS_RETURN)
if comm.rank == 0:
    comm.Send(np.zeros(10), dest=1)
elif comm.rank == 1:
    try:
        comm.Recv(np.zeros(5), source=0)
    except MPI.Exception as error:
        print("truncated", error.Get_error_class() == MPI.ERR_TRUNCATE, error.Get_error_string())
for call in (
    lambda: comm.send(1, dest=comm.size),
    lambda: comm.send(1, dest=0, tag=-7),
    lambda: comm.bcast(1, root=-3),
):
    try:
        call()
    except MPI.Exception as error:
        print(comm.rank, error.Get_error_class(), error.Get_error_string())
