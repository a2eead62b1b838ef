"""Messages of one pair do not overtake; tags choose among them."""

from mpi4py import MPI

comm = MPI.COMM_WORLD
if comm.rank == 0:
    status = MPI.Status()
    for source in range(1, comm.size):
        first = [comm.recv(source=source, tag=2) for _ in range(3)]
        rest = [comm.recv(source=source, tag=MPI.ANY_TAG, status=status) for _ in range(3)]
        print(source, first, rest, status.Get_tag())
else:
    for i in range(3):
        comm.send(("one", comm.rank, i), dest=0, tag=1)
        comm.send(("two", comm.rank, i), dest=0, tag=2)
