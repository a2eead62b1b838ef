"""Conjugate gradients on the one-dimensional Laplacian, a slice of rows on each rank."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
n = 8
left = rank - 1 if rank else MPI.PROC_NULL
right = rank + 1 if rank < size - 1 else MPI.PROC_NULL


def apply(v):
    low, high = np.zeros(1), np.zeros(1)
    comm.Sendrecv(v[-1:], right, 0, low, left, 0)
    comm.Sendrecv(v[:1], left, 1, high, right, 1)
    full = np.concatenate([low, v, high])
    return 2 * v - full[:-2] - full[2:]


def dot(a, b):
    return comm.allreduce(float(a @ b))


x, r = np.zeros(n), np.ones(n)
p, rr = r.copy(), dot(r, r)
steps = 0
while rr > 1e-20 and steps < 100:
    q = apply(p)
    alpha = rr / dot(p, q)
    x += alpha * p
    r -= alpha * q
    new = dot(r, r)
    p, rr = r + new / rr * p, new
    steps += 1
m = n * size
i = np.arange(rank * n, (rank + 1) * n) + 1
print(rank, [round(v, 6) for v in x.tolist()], bool(np.allclose(x, i * (m + 1 - i) / 2)))
