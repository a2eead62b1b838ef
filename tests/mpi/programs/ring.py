"""A token goes around the ring, and every rank adds its own to it."""

from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.Get_rank(), comm.Get_size()
if rank == 0:
    comm.send([0], dest=1 % size, tag=1)
    print("around:", comm.recv(source=size - 1, tag=1))
else:
    token = comm.recv(source=rank - 1, tag=1)
    comm.send([*token, rank], dest=(rank + 1) % size, tag=1)
