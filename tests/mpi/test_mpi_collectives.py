"""Every collective, of objects and of memory, against what numpy and plain Python say."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from collective_calls import COUNTS, SIZES, blocking, call, counts, data, sizes
from hypothesis import given, settings
from hypothesis import strategies as st
from thread_port import run

from feliss_nb.models.mpi import MPI, moving, reducing


def test_the_counts_reach_every_algorithm():
    nbytes = [8 * count for count in COUNTS]
    assert min(nbytes) < moving.SHORT_ITEM < max(nbytes)
    assert min(nbytes) < moving.SHORT_ALLGATHER < max(nbytes)
    assert min(nbytes) < reducing.LONG_REDUCTION < max(nbytes)
    assert min(nbytes) < moving.STRETCH < moving.LONG_BROADCAST < max(nbytes)
    assert max(SIZES) > moving.RING_RANKS
    assert min(SIZES) < moving.FEW_RANKS < max(SIZES)


@sizes
@counts
@blocking
def test_broadcast(size, count, form):
    def main(comm):
        for root in {0, size - 1}:
            buf = data(root, count) if comm.rank == root else np.zeros(count)
            call(comm, form, "Bcast", buf, root=root)
            assert np.array_equal(buf, data(root, count))

    run(size, main, seed=size)


@sizes
@counts
@blocking
def test_gather_and_scatter(size, count, form):
    every = np.array([data(rank, count) for rank in range(size)])

    def main(comm):
        for root in {0, size - 1}:
            got = np.zeros((size, count)) if comm.rank == root else None
            call(comm, form, "Gather", data(comm.rank, count), got, root=root)
            assert got is None or np.array_equal(got, every)
            mine = np.zeros(count)
            call(comm, form, "Scatter", got, mine, root=root)
            assert np.array_equal(mine, data(comm.rank, count))

    run(size, main, seed=size)


@sizes
@counts
@blocking
def test_allgather_and_alltoall(size, count, form):
    every = np.array([data(rank, count) for rank in range(size)])

    def main(comm):
        got = np.zeros((size, count))
        call(comm, form, "Allgather", data(comm.rank, count), got)
        assert np.array_equal(got, every)
        again = np.zeros((size, count))
        again[comm.rank] = data(comm.rank, count)
        call(comm, form, "Allgather", MPI.IN_PLACE, again)
        assert np.array_equal(again, every)
        sent = np.array([data(comm.rank * size + other, count) for other in range(size)])
        call(comm, form, "Alltoall", sent, got)
        wanted = np.array([data(other * size + comm.rank, count) for other in range(size)])
        assert np.array_equal(got, wanted)
        if form != "persistent":  # twice is back again
            call(comm, form, "Alltoall", MPI.IN_PLACE, sent)
            assert np.array_equal(sent, wanted)

    run(size, main, seed=size)


@given(
    st.integers(1, 6).flatmap(
        lambda size: st.tuples(
            st.lists(
                st.lists(st.integers(0, 40), min_size=size, max_size=size),
                min_size=size,
                max_size=size,
            ),
            st.integers(0, size - 1),
            st.integers(0, 3),
        )
    )
)
@settings(max_examples=40)
def test_blocks_of_any_sizes(drawn):
    lengths, root, gap = drawn
    size = len(lengths)

    def block(source, target):
        return np.arange(lengths[source][target]) + 1000 * source + 50 * target

    def spread(blocks):
        where, at = [], 0
        for b in blocks:
            where.append(at)
            at += len(b) + gap
        whole = np.full(at, -1)
        for start, b in zip(where, blocks, strict=True):
            whole[start : start + len(b)] = b
        return whole, [len(b) for b in blocks], where

    def main(comm):
        rank = comm.rank
        out, counts, where = spread([block(rank, t) for t in range(size)])
        wanted, sizes_in, where_in = spread([block(s, rank) for s in range(size)])
        got = np.full(len(wanted), -1)
        comm.Alltoallv([out, counts, where, MPI.INT64_T], [got, (sizes_in, where_in), MPI.LONG])
        assert np.array_equal(got, wanted)
        got = np.full(len(wanted), -1)
        comm.Ialltoallw(
            [out, counts, [8 * w for w in where], [MPI.INT64_T] * size],
            (got, (sizes_in, [8 * w for w in where_in]), [MPI.INT64_T] * size),
        ).wait()
        assert np.array_equal(got, wanted)
        column, sizes_in, where_in = spread([block(s, 0) for s in range(size)])
        got = np.full(len(column), -1) if rank == root else None
        comm.Gatherv(block(rank, 0), [got, sizes_in, where_in, MPI.INT64_T], root=root)
        assert got is None or np.array_equal(got, column)
        got = np.full(len(column), -1)
        comm.Allgatherv(block(rank, 0), [got, sizes_in, where_in, MPI.INT64_T])
        assert np.array_equal(got, column)
        mine = np.zeros(lengths[root][rank], int)
        comm.Scatterv([out, counts, where, MPI.INT64_T] if rank == root else None, mine, root=root)
        assert np.array_equal(mine, block(root, rank))

    run(size, main, seed=gap)


@pytest.mark.parametrize("size", [*SIZES, 18])
def test_objects(size):
    def main(comm):
        rank = comm.rank
        thing = {"rank": rank, "array": np.arange(5000) + rank}
        comm.barrier()
        for root in {0, size - 1}:
            got = comm.bcast(thing if rank == root else None, root=root)
            assert got["rank"] == root
            assert np.array_equal(got["array"], np.arange(5000) + root)
            got["array"][0] = -1  # its own, and writable
            thing["array"][0] = rank
            gathered = comm.gather(thing, root)
            assert (gathered is None) == (rank != root)
            if gathered is not None:
                assert [g["rank"] for g in gathered] == list(range(size))
                assert all(g["array"][1] == 1 + i for i, g in enumerate(gathered))
                assert gathered[rank]["array"] is not thing["array"]
            assert comm.scatter(gathered, root)["rank"] == rank
        assert [g["rank"] for g in comm.allgather(thing)] == list(range(size))
        assert comm.alltoall([(rank, i) for i in range(size)]) == [(i, rank) for i in range(size)]
        word = chr(97 + rank)
        words = "".join(chr(97 + i) for i in range(size))
        for root in {0, size - 1}:
            assert comm.reduce(word, root=root) == (words if rank == root else None)
        assert comm.allreduce(word, op=operator.add) == words
        assert comm.scan(word) == words[: rank + 1]
        assert comm.exscan(word) == (words[:rank] or None)

    run(size, main, seed=size)
