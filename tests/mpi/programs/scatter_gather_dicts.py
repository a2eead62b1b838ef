"""Objects of any kind scattered, changed and gathered."""

from mpi4py import MPI

comm = MPI.COMM_WORLD
data = None
if comm.rank == 0:
    data = [{"n": i, "word": "abcd"[i % 4] * i} for i in range(comm.size)]
mine = comm.scatter(data, root=0)
mine["seen"] = comm.rank
back = comm.gather(mine, root=comm.size - 1)
if back is not None:
    for entry in back:
        print(sorted(entry.items()))
key = comm.bcast({"key": [7, 2.72, 2 + 3j], "set": ("abc", "xyz")} if comm.rank == 0 else None)
print(comm.rank, sorted(key))
