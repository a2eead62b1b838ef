"""Ranks split by colour and key, and messages in each part that do not meet."""

from mpi4py import MPI

comm = MPI.COMM_WORLD
part = comm.Split(comm.rank % 2, key=-comm.rank)
names = part.allgather(comm.rank)
none = comm.Split(0 if comm.rank < 2 else MPI.UNDEFINED, comm.rank)
some = none.allreduce(10 + comm.rank) if none != MPI.COMM_NULL else None
twin = comm.Dup()
comm.isend("world", dest=(comm.rank + 1) % comm.size, tag=5).wait()
twin.isend("twin", dest=(comm.rank + 1) % comm.size, tag=5).wait()
first = twin.recv(source=MPI.ANY_SOURCE, tag=5)
second = comm.recv(source=MPI.ANY_SOURCE, tag=5)
same = MPI.Comm.Compare(comm, twin) == MPI.CONGRUENT
print(comm.rank, part.rank, names, some, first, second, same)
