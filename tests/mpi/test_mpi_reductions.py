"""Collectives that combine: results, order, bits, and what goes wrong."""

from __future__ import annotations

import operator
from functools import reduce

import numpy as np
import pytest
from collective_calls import blocking, call, counts, data, sizes
from thread_port import run

from feliss_nb.models.mpi import MPI


@sizes
@counts
@blocking
def test_reductions(size, count, form):
    every = np.array([data(rank, count) for rank in range(size)])
    total, below = every.sum(axis=0), np.cumsum(every, axis=0)

    def main(comm):
        rank = comm.rank
        mine = data(rank, count)
        for root in {0, size - 1}:
            got = np.zeros(count) if rank == root else None
            call(comm, form, "Reduce", mine, got, MPI.SUM, root)
            assert got is None or np.allclose(got, total)
        everywhere = np.zeros(count)
        call(comm, form, "Allreduce", mine, everywhere)
        assert np.allclose(everywhere, total)
        prefix, before = np.zeros(count), np.full(count, 9.0)
        call(comm, form, "Scan", mine, prefix)
        assert np.allclose(prefix, below[rank])
        call(comm, form, "Exscan", mine, before)
        assert np.allclose(before, below[rank - 1] if rank else 9.0)
        assert np.array_equal(mine, data(rank, count))
        return everywhere.tobytes()

    assert len(set(run(size, main, seed=size))) == 1


@sizes
@counts
def test_reductions_in_place(size, count):
    every = np.array([data(rank, count) for rank in range(size)])

    def main(comm):
        rank = comm.rank
        buf = data(rank, count)
        if rank == size - 1:
            comm.Reduce(MPI.IN_PLACE, buf, root=size - 1)
            assert np.allclose(buf, every.sum(axis=0))
        else:
            comm.Reduce(buf, None, root=size - 1)
        for name, wanted in [
            ("Allreduce", every.max(axis=0)),
            ("Scan", every[: rank + 1].max(axis=0)),
            ("Exscan", every[:rank].max(axis=0) if rank else data(0, count)),
        ]:
            buf = data(rank, count)
            getattr(comm, name)(MPI.IN_PLACE, buf, op=MPI.MAX)
            assert np.array_equal(buf, wanted)

    run(size, main, seed=size)


@sizes
@counts
@blocking
def test_reduce_scatter(size, count, form):
    total = sum(data(rank, count * size) for rank in range(size))

    def main(comm):
        rank = comm.rank
        got = np.zeros(count)
        call(comm, form, "Reduce_scatter_block", data(rank, count * size), got)
        assert np.allclose(got, total[rank * count : (rank + 1) * count])
        counts = [count * 2 * i // max(size - 1, 1) for i in range(size)]
        counts[-1] = count * size - sum(counts[:-1])
        start = sum(counts[:rank])
        part = np.zeros(counts[rank])
        call(comm, form, "Reduce_scatter", data(rank, count * size), part, counts)
        assert np.allclose(part, total[start : start + counts[rank]])
        if form == "blocking":
            whole = data(rank, count * size)
            comm.Reduce_scatter_block(MPI.IN_PLACE, whole)
            assert np.allclose(whole[:count], total[rank * count : (rank + 1) * count])

    run(size, main, seed=size)


OPS = {
    "SUM": operator.add,
    "PROD": operator.mul,
    "MAX": max,
    "MIN": min,
    "LAND": lambda x, y: bool(x and y),
    "LOR": lambda x, y: bool(x or y),
    "LXOR": lambda x, y: bool(x) != bool(y),
    "BAND": operator.and_,
    "BOR": operator.or_,
    "BXOR": operator.xor,
}


@pytest.mark.parametrize("name", OPS)
def test_operations(name):
    op = getattr(MPI, name)

    def main(comm):
        values = np.array([3, 0, 5, comm.rank, comm.rank % 2])
        got = np.zeros_like(values)
        comm.Allreduce(values, got, op=op)
        columns = zip(*[[3, 0, 5, r, r % 2] for r in range(comm.size)], strict=True)
        wanted = [reduce(OPS[name], column) for column in columns]
        assert got.tolist() == [int(x) for x in wanted]
        assert [comm.allreduce(int(v), op=op) for v in values] == wanted

    run(5, main)


def test_an_operation_that_a_datatype_has_not():
    def main(comm):
        for op, array in [
            (MPI.BAND, np.zeros(2)),
            (MPI.MAXLOC, np.zeros(2)),
            (MPI.MAX, np.ones(2, "D")),
        ]:
            with pytest.raises(MPI.Exception) as caught:
                comm.Allreduce(array, array.copy(), op=op)
            assert caught.value.Get_error_class() == MPI.ERR_OP
        with pytest.raises(MPI.Exception):
            comm.allreduce(1, op=MPI.OP_NULL)

    run(2, main)


@sizes
@pytest.mark.parametrize("count", [1, 3, 5000])
def test_operations_that_do_not_commute(size, count):
    """2x2 matrices modulo a prime: associative, and the order shows."""

    def times(a, b, datatype):
        x = np.frombuffer(a, np.int64).reshape(-1, 2, 2)
        y = np.frombuffer(b, np.int64).reshape(-1, 2, 2)
        assert datatype == item
        y[:] = x @ y % 10007

    item = MPI.INT64_T.Create_contiguous(4)

    def matrices(rank):
        return np.random.default_rng(rank).integers(0, 10007, (count, 2, 2))

    def product(ranks):
        return reduce(lambda x, y: x @ y % 10007, [matrices(r) for r in ranks])

    def main(comm):
        op = MPI.Op.Create(times, commute=False)
        mine, got = matrices(comm.rank), np.zeros((count, 2, 2), int)
        comm.Allreduce([mine, item], [got, item], op=op)
        assert np.array_equal(got, product(range(size)))
        comm.Scan([mine, item], [got, item], op=op)
        assert np.array_equal(got, product(range(comm.rank + 1)))
        comm.Reduce([mine, item], [got, item], op=op, root=size - 1)
        if comm.rank == size - 1:
            assert np.array_equal(got, product(range(size)))
        each = -(-count // size) * size
        padded = np.concatenate([mine, np.tile(np.eye(2, dtype=int), (each - count, 1, 1))])
        part = np.zeros((each // size, 2, 2), int)
        comm.Reduce_scatter_block([padded, item], [part, item], op=op)
        parts = comm.allgather(part)
        assert np.array_equal(np.concatenate(parts)[:count], product(range(size)))

    run(size, main, seed=count)


@pytest.mark.parametrize("count", [3, 1000, 30_000])
def test_the_same_bits_whatever_the_order_of_arrival(count):
    def main(comm):
        mine = data(comm.rank, count) * 10.0 ** (comm.rank - 3)
        found = []
        for name in ["Allreduce", "Scan", "Reduce"]:
            got = np.zeros(count)
            getattr(comm, name)(mine, got)
            found.append(got.tobytes())
        got = np.zeros(count)
        requests = [comm.Iallreduce(mine, got), comm.Ibarrier()]
        while not MPI.Request.Testall(requests):
            pass
        part = np.zeros(count)
        comm.Reduce_scatter_block(np.tile(mine, comm.size), part)
        return [*found, got.tobytes(), part.tobytes(), comm.allreduce(float(mine[0]))]

    first = run(6, main)
    for seed in range(6):
        assert run(6, main, seed=seed, hold=0.5) == first


def test_many_collectives_under_way():
    def main(comm):
        arrays = [np.full(10, comm.rank + i) for i in range(20)]
        got = [np.zeros(10, int) for _ in range(20)]
        requests = [comm.Iallreduce(a, g) for a, g in zip(arrays, got, strict=True)]
        assert comm.allgather(comm.rank) == list(range(comm.size))
        MPI.Request.Waitall(requests[::-1])
        base = sum(range(comm.size))
        assert [int(g[3]) for g in got] == [base + i * comm.size for i in range(20)]

    run(5, main, seed=3)


def test_ranks_that_do_not_agree():
    def sizes_differ(comm):
        comm.Bcast(np.zeros(3 + comm.rank))

    with pytest.raises(MPI.Exception, match=r"called Bcast\(0, \d+\) where rank") as caught:
        run(3, sizes_differ)
    assert caught.value.Get_error_class() == MPI.ERR_TRUNCATE

    def calls_differ(comm):
        if comm.rank:
            comm.allreduce(1)
        else:
            comm.allgather(1)

    with pytest.raises(MPI.Exception, match="where rank") as caught:
        run(2, calls_differ)
    assert caught.value.Get_error_class() == MPI.ERR_OTHER

    def one_more(comm):
        if comm.rank == 0:
            comm.bcast(1)

    with pytest.raises(Exception, match="unmatched message of bcast from rank 0"):
        run(2, one_more)


def test_an_error_of_an_operation_is_raised():
    def main(comm):
        def bad(a, b, datatype):
            raise ZeroDivisionError

        comm.Iallreduce(np.ones(3), np.ones(3), MPI.Op.Create(bad)).Wait()

    with pytest.raises(ZeroDivisionError):
        run(2, main)


def test_wrong_arguments():
    def main(comm):
        with pytest.raises(MPI.Exception) as caught:
            comm.bcast(1, root=2)
        assert caught.value.Get_error_class() == MPI.ERR_ROOT
        with pytest.raises(ValueError, match="expecting 2 items"):
            comm.alltoall([1, 2, 3])
        with pytest.raises(ValueError, match="equal blocks"):
            comm.Allgather(np.zeros(1), np.zeros(3))
        with pytest.raises(ValueError, match="counts"):
            comm.Allgatherv(np.zeros(1), [np.zeros(3), [1, 1, 1], None, MPI.DOUBLE])
        if comm.rank == 0:
            with pytest.raises(MPI.Exception) as caught:
                comm.Reduce(np.zeros(3), np.zeros(2))
            assert caught.value.Get_error_class() == MPI.ERR_TRUNCATE

    run(2, main)


@sizes
@counts
def test_no_bit_depends_on_what_the_port_shares(size, count):
    def main(comm):
        got = np.zeros(count)
        comm.Allreduce(data(comm.rank, count), got)
        comm.Bcast(got, root=size - 1)
        every = np.zeros((size, count))
        comm.Allgather(got + comm.rank, every)
        return every.tobytes()

    assert run(size, main, shares_memory=True) == run(size, main, shares_memory=False)


@sizes
def test_a_reduction_of_blocks_leaves_what_is_sent_alone(size):
    """Where rank 0's part is combined first, where the last is, and in place."""

    def main(comm):
        mine = data(comm.rank, 20_000)
        mine.flags.writeable = comm.rank % 2 == 0
        total = np.zeros_like(mine)
        comm.Allreduce(mine, total)
        assert np.array_equal(mine, data(comm.rank, 20_000))
        again = mine.copy()
        comm.Allreduce(MPI.IN_PLACE, again)
        assert np.array_equal(again, total)

    run(size, main)
