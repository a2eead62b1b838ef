"""Operations of one's own: polynomials composed (order matters), and matrices multiplied."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD


def compose(a, b, datatype):
    x = np.frombuffer(a, dtype="d").reshape(-1, 2)
    y = np.frombuffer(b, dtype="d").reshape(-1, 2)
    y[:] = np.stack([x[:, 0] * y[:, 0], x[:, 1] * y[:, 0] + y[:, 1]], axis=1)


op = MPI.Op.Create(compose, commute=False)
mine = np.array([[comm.rank + 1.0, 1.0], [2.0, comm.rank]])
total = np.empty_like(mine)
comm.Allreduce(mine, total, op=op)
print(comm.rank, total.tolist(), op.Is_commutative())
upto = np.empty_like(mine)
comm.Scan(mine, upto, op=op)
print(comm.rank, upto.tolist())
op.Free()
words = MPI.Op.Create(lambda a, b, _: a + b, commute=False)
print(comm.rank, comm.allreduce(str(comm.rank), op=words), comm.scan("abcd"[comm.rank % 4], words))
