"""Sample sort: splitters from samples, blocks of any sizes exchanged."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
data = np.sort(np.random.default_rng(rank).integers(0, 10000, 50))
samples = comm.allgather(data[:: 50 // size].tolist())
every = sorted(x for sample in samples for x in sample)
splitters = [every[len(every) * i // size] for i in range(1, size)]
bounds = np.searchsorted(data, splitters).tolist()
starts = [0, *bounds]
counts = np.diff([*starts, len(data)]).astype("i")
incoming = np.empty(size, dtype="i")
comm.Alltoall(counts, incoming)
where = np.concatenate([[0], np.cumsum(incoming)[:-1]]).astype("i")
got = np.empty(incoming.sum(), dtype=data.dtype)
comm.Alltoallv(
    [data, counts, np.array(starts, dtype="i"), MPI.INT64_T], [got, incoming, where, MPI.INT64_T]
)
got.sort()
total = comm.allreduce(len(got))
print(rank, len(got), got[0], got[-1], int(got.sum()), total)
