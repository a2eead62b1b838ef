"""Small things that programs rely on: forms of messages, statuses, results, texts; on pairs."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD.Split(MPI.COMM_WORLD.rank // 2)
r = comm.rank


def g1():
    b = np.full(8, -1)
    comm.Gather(np.arange(2) + 10 * r, [b, 2], root=0)
    return b.tolist()


def g2():
    b = np.full(8, -1)
    comm.Allgather([np.arange(4) + 10 * r, 2, MPI.LONG], [b, 2, MPI.LONG])
    return b.tolist()


def g3():
    b = np.full(4, -1)
    comm.Scatter([np.arange(8), 2], [b, 2], root=0)
    return b.tolist()


def g4():
    b = np.full(8, -1)
    comm.Alltoall([np.arange(8) + 100 * r, 2], [b, 2])
    return b.tolist()


def g5():
    b = np.full(9, -1)
    comm.Allgatherv(np.arange(2) + 10 * r, [b, (2, 3), MPI.LONG])
    return b.tolist()


def g6():
    b = np.full(4, -1)
    comm.Reduce_scatter(np.arange(4) + r, b[:2], None)
    return b.tolist()


def g7():
    b = np.full(4, -1)
    comm.Reduce_scatter_block([np.arange(4) + r, 2, MPI.LONG], [b, 2, MPI.LONG])
    return b.tolist()


def g8():
    b = np.arange(4) + r * 10
    comm.Allgather(MPI.IN_PLACE, b)
    return b.tolist()


def g9():
    b = np.arange(4) + r * 10
    comm.Gather(MPI.IN_PLACE if r == 0 else b[:2], b if r == 0 else None)
    return b.tolist()


def g10():
    b = np.arange(4) + r * 10
    comm.Scatter(b if r == 0 else None, MPI.IN_PLACE if r == 0 else b[:2])
    return b.tolist()


def g11():
    b = np.arange(3) + r * 10
    comm.Reduce_scatter(MPI.IN_PLACE, b, [1, 2])
    return b.tolist()


def g12():
    b = np.arange(4) + r * 10
    comm.Exscan(MPI.IN_PLACE, b)
    return b.tolist()


def g13():
    b = np.full(6, -1)
    comm.Alltoallv([np.arange(6), [1, 2]], [b, [r + 1, r + 1]])
    return b.tolist()


def g14():
    return comm.scan([r]), comm.exscan([r]), comm.allreduce([r]), comm.reduce((r,), root=1)


def g15():
    return (
        comm.allreduce(np.arange(2) + r, op=MPI.SUM).tolist(),
        comm.allreduce(r, MPI.LXOR),
        comm.allreduce((1.0, r), MPI.MAXLOC),
        comm.allreduce(r, op=lambda a, b: (a, b)),
    )


def g16():
    st = MPI.Status()
    comm.isend({1: 2}, (r + 1) % 2, 5)
    q = comm.irecv()
    while True:
        f, m = q.test(st)
        if f:
            break
    return m, st.source, st.tag, st.error, q == MPI.REQUEST_NULL, bool(q)


def g17():
    c = comm.Create_cart([2], periods=[False])
    return c.Shift(0, 1), c.Shift(0, 0), c.Shift(0, -1), c.periods, c.Get_dim(), c.Shift(0, 5)


def g18():
    c = comm.Create_cart([2], periods=[True])
    return c.Shift(0, 3), c.Get_cart_rank([5]), c.Get_cart_rank([-1])


def g19():
    c = comm.Create_cart([2], periods=[False])
    try:
        return c.Get_cart_rank([5])
    except MPI.Exception as error:
        return error.Get_error_string()


def g20():
    return (
        MPI.Compute_dims(24, 3),
        MPI.Compute_dims(48, 3),
        MPI.Compute_dims(12, [0, 3]),
        MPI.Compute_dims(30, 2),
        MPI.Compute_dims(36, 3),
        MPI.Compute_dims(16, 4),
        MPI.Compute_dims(100, 3),
    )


def g21():
    t_ = MPI.INT.Create_vector(3, 2, 4)
    return (
        t_.Get_extent(),
        t_.Get_size(),
        t_.Get_true_extent(),
        t_.lb,
        t_.ub,
        MPI.INT.Create_vector(0, 1, 1).Get_extent(),
        MPI.INT.Create_indexed([1, 1], [3, 1]).Get_extent(),
    )


def g22():
    return (
        repr(MPI.Request() == MPI.REQUEST_NULL),
        MPI.Group.Compare(comm.group, comm.Get_group()),
        MPI.COMM_WORLD.Get_attr(MPI.TAG_UB) > 1000,
        MPI.COMM_WORLD.Get_attr(MPI.UNIVERSE_SIZE) is not None,
    )


def g23():
    b = np.arange(4.0)
    comm.Bcast([b, 2, 1, MPI.DOUBLE], root=0)
    return b.tolist()


def g24():
    s = [np.arange(8) + 8 * r, (2, [0, 4]), MPI.LONG]
    b = np.full(8, -1)
    comm.Alltoallv(s, [b, (2, 4), MPI.LONG])
    return b.tolist()


def g25():
    try:
        comm.alltoall([1])
    except ValueError as error:
        return str(error)


def g26():
    return (
        str(MPI.Exception(6)),
        repr(MPI.Exception(6)),
        MPI.Exception(6) == 6,
        int(MPI.Exception(6)),
        MPI.Exception(3).error_string,
    )


def g27():
    comm.Barrier()
    x = comm.Iprobe(), comm.iprobe(tag=3), comm.Improbe()
    comm.Barrier()
    return x


def g28():
    b = np.zeros(3)
    comm.Sendrecv_replace(b, (r + 1) % 2, source=(r - 1) % 2)
    return b.tolist()


def g29():
    return MPI.Request.waitall([comm.isend(1, (r + 1) % 2), comm.irecv()])


def g30():
    return (
        MPI.Op.Create(lambda a, b, d: a).Is_commutative(),
        MPI.SUM.Is_commutative(),
        MPI.REPLACE.Is_commutative(),
        MPI.SUM.is_predefined,
        MPI.MAXLOC((1, 2), (1, 1)),
        MPI.LAND(2, 0),
        MPI.MAX(1, 2),
        MPI.BXOR(5, 3),
    )


def g31():
    return (
        comm.Split(r).size,
        comm.Split_type(MPI.COMM_TYPE_SHARED).size > 0,
        comm.Dup().Get_rank() == r,
    )


def g32():
    return comm.bcast(comm.scatter([{1: 2}, [3]] if r == 0 else None)), comm.gather(r, root=1)


checks = [f for name, f in list(globals().items()) if name[0] == "g" and name[1:].isdigit()]
for f in checks:
    print(MPI.COMM_WORLD.rank, f.__name__, f())
