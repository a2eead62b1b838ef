"""Pi by random points, each rank with a seed of its own."""

import random

from mpi4py import MPI

comm = MPI.COMM_WORLD
draw = random.Random(1000 + comm.rank)
n = 20000
inside = sum(draw.random() ** 2 + draw.random() ** 2 < 1 for _ in range(n))
total = comm.allreduce(inside, op=MPI.SUM)
print(f"rank {comm.rank}: {inside} inside, pi about {4 * total / (n * comm.size):.4f}")
