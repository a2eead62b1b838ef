"""Memory in every form that mpi4py lets a program name it, and datatypes with gaps."""

from __future__ import annotations

import array
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thread_port import run

from feliss_nb.models.mpi import MPI, buffers

DTYPES = "bBhHiIlLqQfdgFDG?e"


def sent(spec, into):
    """Send and receive on one rank."""

    def main(comm):
        comm.sendrecv(None, 0, source=0)
        request = comm.Irecv(into, 0)
        comm.Send(spec, 0)
        status = MPI.Status()
        request.Wait(status)
        return status

    return run(1, main)[0]


@pytest.mark.parametrize("code", DTYPES)
def test_arrays_of_every_type(code):
    source = np.arange(6).astype(code)
    for shaped in (source, source.reshape(2, 3), source.reshape(3, 2).T, source[:0]):
        got = np.zeros_like(source)
        status = sent(shaped, got)
        assert np.array_equal(got[: shaped.size], source[: shaped.size])
        assert status.Get_count(MPI.Datatype.fromcode(code)) == shaped.size
    assert np.dtype(MPI.Datatype.fromcode(code).typechar) == np.dtype(code)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (lambda a: a, range(8)),
        (lambda a: [a, 3], range(3)),
        (lambda a: [a, MPI.LONG], range(8)),
        (lambda a: [a, "l"], range(8)),
        (lambda a: [a, 2, MPI.LONG], range(2)),
        (lambda a: (a, (2, 3), MPI.LONG), [3, 4]),
        (lambda a: (a, (None, 3), MPI.LONG), range(3, 8)),
        (lambda a: [a, 2, 5, MPI.LONG], [5, 6]),
        (lambda a: [a, None, MPI.LONG], range(8)),
        (lambda a: [a.data, MPI.LONG], range(8)),
        (lambda a: array.array("l", a), range(8)),
        (lambda a: a.tobytes(), range(8)),
        (lambda a: bytearray(a.tobytes()), range(8)),
        (lambda a: [a, 1, MPI.LONG.Create_vector(3, 1, 2)], [0, 2, 4]),
        (lambda a: [a, 2, MPI.LONG.Create_contiguous(3)], range(6)),
        (lambda a: [a, 1, MPI.LONG.Create_indexed([2, 1], [5, 0])], [5, 6, 0]),
        (lambda a: [a, 1, MPI.LONG.Create_hindexed([1, 1], [56, 8])], [7, 1]),
        (lambda a: [a, 1, MPI.LONG.Create_indexed_block(2, [0, 4])], [0, 1, 4, 5]),
        (lambda a: [a, 3, MPI.LONG.Create_resized(0, 16)], [0, 2, 4]),
        (lambda a: [a, 1, MPI.LONG.Create_subarray([2, 4], [2, 2], [0, 1])], [1, 2, 5, 6]),
        (
            lambda a: [a, 1, MPI.LONG.Create_subarray([4, 2], [2, 2], [1, 0], MPI.ORDER_F)],
            [1, 2, 5, 6],
        ),
        (lambda a: [a, 1, MPI.LONG.Create_hvector(2, 2, 40)], [0, 1, 5, 6]),
        (lambda a: [a, 1, MPI.LONG.Create_vector(2, 1, 3).Create_vector(2, 1, 1)], [0, 3, 4, 7]),
        (lambda a: None, []),
    ],
)
def test_forms_of_a_message(spec, wanted):
    source = np.arange(8)
    got = np.full(8, -1)
    status = sent(spec(source), got)
    wanted = list(wanted)
    assert got[: len(wanted)].tolist() == wanted
    assert (got[len(wanted) :] == -1).all()
    assert status.Get_count(MPI.LONG) == len(wanted)


def test_structures():
    dtype = np.dtype([("a", "i4"), ("b", "f8"), ("c", "u1")], align=True)
    item = MPI.Datatype.Create_struct(
        [1, 1, 1], [dtype.fields[n][1] for n in "abc"], [MPI.INT, MPI.DOUBLE, MPI.BYTE]
    ).Create_resized(0, dtype.itemsize)
    assert item.Get_size() == 13
    source = np.array([(1, 2.5, 3), (4, 5.5, 6)], dtype)
    got = np.zeros(2, dtype)
    sent([source, 2, item], [got, 2, item])
    assert got.tolist() == source.tolist()


@given(st.data())
def test_subarrays_are_those_of_numpy(data):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    parts = [data.draw(st.integers(1, n)) for n in shape]
    starts = [data.draw(st.integers(0, n - p)) for n, p in zip(shape, parts, strict=True)]
    order = data.draw(st.sampled_from("CF"))
    kind = MPI.INT64_T.Create_subarray(shape, parts, starts, "CF".index(order)).Commit()
    whole = np.arange(np.prod(shape)).reshape(shape, order=order)
    box = tuple(slice(s, s + p) for s, p in zip(starts, parts, strict=True))
    section = buffers.message([whole, 1, kind])
    assert section.typed().tolist() == whole[box].flatten(order).tolist()
    target = np.full(shape, -1, order=order)
    buffers.message([target, 1, kind]).write(section.bytes())
    assert np.array_equal(target[box], whole[box])
    assert (target == -1).sum() == whole.size - whole[box].size


@given(st.integers(0, 4), st.integers(0, 4), st.integers(1, 6), st.integers(1, 3))
def test_vectors(count, length, stride, items):
    stride = max(stride, length)
    kind = MPI.INT.Create_vector(count, length, stride)
    assert kind.Get_size() == 4 * count * length
    wanted = [i * stride + j for i in range(count) for j in range(length)]
    extent = (max(wanted) + 1) if wanted else 0
    assert kind.Get_extent() == (0, 4 * extent)
    data = np.arange(max(extent, 1) * items, dtype="i")
    section = buffers.message([data, items, kind])
    assert section.typed().tolist() == [n * extent + w for n in range(items) for w in wanted]
    again = pickle.loads(pickle.dumps(kind))
    assert again == kind
    assert hash(again) == hash(kind)


def test_a_part_of_a_message_with_gaps():
    target = np.full(8, -1)
    kind = MPI.LONG.Create_vector(4, 1, 2)
    sent(np.arange(2), [target, 1, kind])
    assert target.tolist() == [0, -1, 1, -1, -1, -1, -1, -1]


def test_buffers_that_do_not_fit():
    vector = MPI.DOUBLE.Create_vector(2, 1, 3)
    for spec in ([np.zeros(3), 1, vector], [np.zeros(3), 2, 2, MPI.DOUBLE]):
        with pytest.raises(ValueError, match="bytes"):
            buffers.message(spec)
    assert buffers.message([np.zeros(4), 1, vector]).nbytes == 16
    with pytest.raises(MPI.Exception):
        MPI.INT.Create_subarray([3], [2], [2])
    with pytest.raises(MPI.Exception):
        MPI.INT.Create_contiguous(-1)
    with pytest.raises(MPI.Exception):
        MPI.INT.Free()
    with pytest.raises(TypeError):
        buffers.message(5)


def test_names_and_sizes_of_datatypes():
    assert MPI.DOUBLE.Get_name() == "MPI_DOUBLE"
    assert (MPI.DOUBLE_INT.Get_size(), MPI.DOUBLE_INT.extent) == (12, 16)
    assert MPI.INT.Create_vector(2, 1, 3).Get_true_extent() == (0, 16)
    assert MPI.INT == MPI.INT32_T
    assert MPI.INT != MPI.DOUBLE
    assert MPI.INT.is_predefined
    assert not MPI.INT.Dup().is_predefined
    assert MPI.DATATYPE_NULL != MPI.INT
    a = np.zeros(3)
    assert MPI.Get_address(a[1:]) - MPI.Get_address(a) == 8
    assert len(MPI.Alloc_mem(10)) == 10


def test_reduce_local():
    a, b = np.arange(3.0), np.ones(3)
    MPI.SUM.Reduce_local(a, b)
    assert b.tolist() == [1, 2, 3]
