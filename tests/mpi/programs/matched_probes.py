"""Messages of unknown size, taken out of the queue by matched probes."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
if comm.rank:
    comm.Ssend(np.arange(comm.rank * 3, dtype="i"), dest=0, tag=comm.rank)
    comm.ssend({"from": comm.rank}, dest=0, tag=99)
else:
    for source in range(1, comm.size):
        status = MPI.Status()
        message = comm.Mprobe(source=source, tag=MPI.ANY_TAG, status=status)
        data = np.empty(status.Get_count(MPI.INT), dtype="i")
        message.Recv(data)
        print(source, status.Get_tag(), data.tolist(), comm.mprobe(source, 99).recv())
    print(comm.iprobe(source=MPI.ANY_SOURCE), comm.Improbe())
