"""The algebra of groups, and communicators made of them."""

from mpi4py import MPI

comm = MPI.COMM_WORLD
world = comm.Get_group()
even = world.Incl(list(range(0, comm.size, 2)))
low = world.Range_incl([(0, 1, 1)])
for name, group in [
    ("union", MPI.Group.Union(even, low)),
    ("intersection", MPI.Group.Intersection(even, low)),
    ("difference", MPI.Group.Difference(even, low)),
    ("without", world.Excl([0])),
]:
    ranks = MPI.Group.Translate_ranks(group, list(range(group.Get_size())), world)
    print(comm.rank, name, ranks, group.Get_rank() == MPI.UNDEFINED)
part = comm.Create_group(even, tag=3) if comm.rank % 2 == 0 else MPI.COMM_NULL
made = comm.Create(low)
print(
    comm.rank,
    part.allreduce(comm.rank) if part != MPI.COMM_NULL else None,
    made.allgather(comm.rank) if made != MPI.COMM_NULL else None,
    MPI.Group.Compare(world, comm.Dup().Get_group()) == MPI.IDENT,
)
