"""The short programs of mpi4py's tutorial, one after another."""

import numpy
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank = comm.Get_rank()
size = comm.Get_size()

if rank == 0:
    data = {"a": 7, "b": 3.14}
    req = comm.isend(data, dest=1, tag=11)
    req.wait()
elif rank == 1:
    req = comm.irecv(source=0, tag=11)
    print("dictionary", req.wait())

if rank == 0:
    data = numpy.arange(1000, dtype="i")
    comm.Send([data, MPI.INT], dest=1, tag=77)
    comm.Send(numpy.arange(100, dtype=numpy.float64), dest=1, tag=13)
elif rank == 1:
    data = numpy.empty(1000, dtype="i")
    comm.Recv([data, MPI.INT], source=0, tag=77)
    floats = numpy.empty(100, dtype=numpy.float64)
    comm.Recv(floats, source=0, tag=13)
    print("arrays", data.sum(), floats.sum())

data = comm.scatter([(i + 1) ** 2 for i in range(size)] if rank == 0 else None, root=0)
assert data == (rank + 1) ** 2
data = comm.gather(data, root=0)
print("gathered", rank, data)

sendbuf = numpy.zeros(100, dtype="i") + rank
recvbuf = numpy.empty([size, 100], dtype="i") if rank == 0 else None
comm.Gather(sendbuf, recvbuf, root=0)
if rank == 0:
    print("rows", [numpy.allclose(recvbuf[i, :], i) for i in range(size)])


def matvec(comm, A, x):
    m = A.shape[0]
    p = comm.Get_size()
    xg = numpy.zeros(m * p, dtype="d")
    comm.Allgather([x, MPI.DOUBLE], [xg, MPI.DOUBLE])
    return numpy.dot(A, xg)


print("matvec", rank, matvec(comm, numpy.ones((2, 2 * size)), numpy.arange(2.0) + rank).tolist())
