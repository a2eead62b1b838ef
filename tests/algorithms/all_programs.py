"""Every program on one communicator, whichever it is: ``mpiexec -n 4 python all_programs.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sparse

from feliss_nb.algorithms import cannon, cg, heat, lsa, lu


def share(comm: Any, whole: Any) -> Any:
    """This rank's rows."""
    ends = [whole.shape[0] * rank // comm.size for rank in range(comm.size + 1)]
    return whole[ends[comm.rank] : ends[comm.rank + 1]]


def main(comm: Any) -> None:
    """Run each program and compare with its oracle, on a square number of ranks."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((90, 90)), rng.standard_normal((90, 40))

    for grid in {(1, comm.size), (comm.size, 1), (int(comm.size**0.5),) * 2}:
        parts = comm.allgather(lu.factor(comm, share(comm, a), grid=grid, block=7, panels=2))
        found, pivots = lu.collect(parts)
        assert (pivots == scipy.linalg.lu_factor(a)[1]).all()
        assert lu.residual(a, found, pivots) < 10

    product = comm.allgather(cannon.multiply(comm, share(comm, a), share(comm, b), strips=2))
    np.testing.assert_allclose(np.concatenate(product), a @ b, atol=1e-11)

    plate = rng.standard_normal((30, 20))
    after = comm.allgather(heat.diffuse(comm, share(comm, plate), times=9, dt=0.2, every=2))
    stencil = np.array([[0, 0.2, 0], [0.2, 0.2, 0.2], [0, 0.2, 0]])
    for _ in range(9):
        windows = np.lib.stride_tricks.sliding_window_view(plate, (3, 3))
        plate[1:-1, 1:-1] = (windows * stencil).sum(axis=(2, 3))
    np.testing.assert_allclose(np.concatenate(after), plate, atol=1e-12)

    spd = sparse.csr_array(a @ a.T + 90 * np.eye(90))
    x = cg.collect(comm.allgather(cg.solve(comm, share(comm, spd), share(comm, b[:, 0]), every=3)))
    np.testing.assert_allclose(spd @ x, b[:, 0], atol=1e-7)

    thin = sparse.random_array((60, 50), density=0.2, rng=np.random.default_rng(1)).tocsr()
    values = lsa.svd(comm, share(comm, thin), k=5, every=4).values
    expected = np.linalg.svd(thin.toarray(), compute_uv=False)[:5]
    np.testing.assert_allclose(values, expected, rtol=1e-10)


if __name__ == "__main__":
    from mpi4py import MPI

    main(MPI.COMM_WORLD)
    if MPI.COMM_WORLD.rank == 0:
        print("ok")  # noqa: T201
