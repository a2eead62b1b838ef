"""Communicators made of others, groups, grids, and the names of mpi4py."""

from __future__ import annotations

import itertools
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thread_port import run

from feliss_nb.models.mpi import MPI, NOT_IMPLEMENTED

#: The public names of mpi4py 4.1.2's module and classes.
NAMES = json.loads(Path(__file__).with_name("mpi4py_names.json").read_text("utf-8"))
CLASSES = [name for name in NAMES if name not in ("MPI", "Info", "Errhandler")]

members = st.lists(st.integers(0, 9), unique=True)


@given(members, members, st.data())
def test_the_algebra_of_groups(a, b, data):
    one, two = MPI.Group(a, 3), MPI.Group(b, 3)
    assert MPI.Group.Union(one, two).members == (*a, *(m for m in b if m not in a))
    assert MPI.Group.Intersection(one, two).members == tuple(m for m in a if m in b)
    assert MPI.Group.Difference(one, two).members == tuple(m for m in a if m not in b)
    picked = data.draw(st.permutations(range(len(a))))[: len(a) // 2]
    assert one.Incl(picked).members == tuple(a[i] for i in picked)
    assert one.Excl(picked).members == tuple(m for i, m in enumerate(a) if i not in picked)
    there = [b.index(m) if m in b else MPI.UNDEFINED for m in a]
    assert one.Translate_ranks(None, two) == there
    assert MPI.Group.Translate_ranks(one, list(range(len(a))), two) == there
    same = MPI.IDENT if a == b else MPI.SIMILAR if set(a) == set(b) else MPI.UNEQUAL
    assert MPI.Group.Compare(one, two) == same
    assert one.rank == (a.index(3) if 3 in a else MPI.UNDEFINED)


def test_ranges_of_groups():
    world = MPI.Group(range(10), 0)
    assert world.Range_incl([(0, 8, 4), (3, 1, -1)]).members == (0, 4, 8, 3, 2, 1)
    assert world.Range_excl([(1, 9, 1)]).members == (0,)
    with pytest.raises(MPI.Exception):
        world.Range_incl([(0, 10, 1)])
    with pytest.raises(MPI.Exception):
        world.Incl([1, 1])
    assert MPI.GROUP_NULL != MPI.GROUP_EMPTY
    assert not MPI.GROUP_NULL


@given(
    st.lists(
        st.tuples(st.integers(0, 2) | st.just(MPI.UNDEFINED), st.integers(-2, 2)),
        min_size=1,
        max_size=6,
    )
)
def test_split(said):
    def main(comm):
        color, key = said[comm.rank]
        part = comm.Split(color, key)
        if color == MPI.UNDEFINED:
            assert part == MPI.COMM_NULL
            assert not part
            return
        ranks = sorted((k, r) for r, (c, k) in enumerate(said) if c == color)
        assert part.allgather(comm.rank) == [r for _, r in ranks]
        assert part.size == len(ranks)
        inner = part.Split(part.rank % 2)
        assert inner.allgather(comm.rank) == [r for _, r in ranks][part.rank % 2 :: 2]

    run(len(said), main)


def test_contexts_do_not_mix():
    def main(comm):
        other = 1 - comm.rank
        comms = [comm, comm.Dup(), comm.Split(0), comm.Create(comm.group), comm.Dup().Dup()]
        comms.append(comm.Create_group(comm.group, 1))
        comms.append(comm.Create_group(comm.group, 1))
        comms.append(comm.Create_group(comm.group, 2))
        contexts = {c._core.context for c in comms}
        assert len(contexts) == len(comms)
        for i, c in enumerate(comms):
            c.send(i, other)
        for i, c in reversed(list(enumerate(comms))):
            assert c.recv() == i
        for c in comms[1:]:
            assert MPI.Comm.Compare(comm, c) == MPI.CONGRUENT
            c.Free()
            assert c == MPI.COMM_NULL
        assert MPI.Comm.Compare(comm, MPI.COMM_WORLD) == MPI.IDENT
        assert MPI.COMM_SELF.allgather(comm.rank) == [comm.rank]
        assert comm.Split_type(MPI.COMM_TYPE_SHARED).size == 1
        return contexts

    one, two = run(2, main)
    assert one == two


def test_integers_of_numpy_are_integers():
    def main(comm):
        number = np.int64 if comm.rank else int
        part = comm.Split(number(0), number(comm.rank))
        assert part.bcast(comm.rank, root=number(0)) == 0
        part.send(1, number(1 - comm.rank), number(3))
        assert part.recv(None, number(1 - comm.rank), number(3)) == 1
        again = comm.Create_group(comm.group.Incl([number(0), number(1)]), number(2))
        assert again.allreduce(1) == 2

    run(2, main)


def test_two_gangs_on_split_communicators():
    def main(comm):
        part = comm.Split(comm.rank % 2)
        for _ in range(20):
            total = part.allreduce(comm.rank)
        everyone = comm.allreduce(total)
        return total, everyone

    assert run(5, main, seed=1) == [(6, 26), (4, 26)] * 2 + [(6, 26)]


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=3), st.data())
def test_grids(shape, data):
    dims, periods = [d for d, _ in shape], [p for _, p in shape]
    places = list(itertools.product(*map(range, dims)))
    remain = data.draw(st.lists(st.booleans(), min_size=len(dims), max_size=len(dims)))
    if len(places) > 8:
        return

    def main(comm):
        grid = comm.Create_cart(dims, periods)
        if comm.rank >= len(places):
            assert grid == MPI.COMM_NULL
            return
        place = places[comm.rank]
        assert grid.coords == list(place)
        assert [grid.Get_coords(r) for r in range(grid.size)] == [list(p) for p in places]
        assert grid.Get_cart_rank(place) == comm.rank
        assert grid.Get_topo() == (dims, periods, list(place))
        assert (grid.dim, grid.ndim, grid.topology) == (len(dims), len(dims), MPI.CART)
        for direction, by in itertools.product(range(len(dims)), (-1, 0, 1, 2)):

            def beside(step, direction=direction):
                there = list(place)
                there[direction] += step
                if periods[direction]:
                    there[direction] %= dims[direction]
                return places.index(tuple(there)) if tuple(there) in places else MPI.PROC_NULL

            assert grid.Shift(direction, by) == (beside(-by), beside(by))
        sub = grid.Sub(remain)
        mates = [
            p for p in places if all(k or x == y for k, x, y in zip(remain, p, place, strict=True))
        ]
        assert sub.allgather(place) == mates
        assert sub.dims == [d for d, keep in zip(dims, remain, strict=True) if keep]
        assert isinstance(grid.Dup(), MPI.Cartcomm)

    run(len(places) + 1, main)


def test_compute_dims():
    # what Open MPI gives
    for (nodes, dims), wanted in [
        ((12, 2), [4, 3]),
        ((24, 3), [4, 3, 2]),
        ((7, 2), [7, 1]),
        ((60, 3), [5, 4, 3]),
        ((12, [0, 3]), [4, 3]),
        ((48, [0, 0, 0]), [4, 4, 3]),
        ((1, 3), [1, 1, 1]),
    ]:
        assert MPI.Compute_dims(nodes, dims) == wanted
    for nodes in range(1, 65):
        assert math.prod(MPI.Compute_dims(nodes, 3)) == nodes
    with pytest.raises(MPI.Exception):
        MPI.Compute_dims(7, [2, 0])


def has(owner, name):
    try:
        getattr(owner, name)
    except AttributeError:
        return False
    return True


def test_every_name_of_mpi4py_is_here_or_in_the_table():
    for name in NAMES["MPI"]:
        assert has(MPI, name) != (name in NOT_IMPLEMENTED["MPI"]), name
    for cls in CLASSES:
        owner = getattr(MPI, cls)
        missing = {n for base in owner.__mro__ for n in NOT_IMPLEMENTED.get(base.__name__, {})}
        made = owner() if cls in ("Status", "Message", "Group", "Request", "Op") else owner
        if cls == "Datatype":
            made = MPI.INT
        for name in NAMES[cls]:
            assert has(made, name) or name in missing, f"{cls}.{name}"
    stale = {c: [n for n in names if n not in NAMES[c]] for c, names in NOT_IMPLEMENTED.items()}
    assert not any(stale.values()), stale


def test_what_is_missing_says_so():
    with pytest.raises(NotImplementedError, match=r"MPI\.Win is not implemented: one-sided"):
        _ = MPI.Win
    with pytest.raises(NotImplementedError, match=r"MPI\.Intracomm\.Spawn is not implemented"):
        _ = MPI.COMM_WORLD.Spawn
    with pytest.raises(NotImplementedError, match="neighbourhood"):
        _ = MPI.Cartcomm.Neighbor_allgather
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = MPI.COMM_WORLD.nonsense
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = MPI.nonsense


@pytest.mark.parametrize(
    "name",
    [
        "SUM",
        "MAXLOC",
        "OP_NULL",
        "DOUBLE",
        "DOUBLE_INT",
        "IN_PLACE",
        "COMM_SELF",
        "COMM_NULL",
        "REQUEST_NULL",
    ],
)
def test_constants_are_themselves_in_every_process(name):
    constant = getattr(MPI, name)
    assert pickle.loads(pickle.dumps(constant)) is constant


def test_a_communicator_does_not_leave_its_step():
    def main(comm):
        with pytest.raises(TypeError, match="belongs to one step"):
            pickle.dumps(comm)
        with pytest.raises(TypeError, match="wait for it"):
            pickle.dumps(comm.irecv(source=0))

    run(1, main, quiet=False)
    error = MPI.Exception(MPI.ERR_TAG, "tag -3")
    assert pickle.loads(pickle.dumps(error)).detail == "tag -3"


def test_the_small_things():
    def main(comm):
        assert MPI.Is_initialized()
        assert not MPI.Is_finalized()
        assert MPI.Wtime() < MPI.Wtime()
        assert MPI.Wtick() > 0
        assert MPI.Get_processor_name()
        assert comm.name == "MPI_COMM_WORLD"
        assert comm.Get_attr(MPI.TAG_UB) >= 32767
        comm.Set_attr(1000, "x")
        assert comm.Dup().Get_attr(1000) == "x"
        comm.Delete_attr(1000)
        assert comm.Get_attr(1000) is None
        assert comm == MPI.COMM_WORLD
        assert not comm.is_inter
        assert comm.is_intra
        assert comm.topology == MPI.UNDEFINED
        assert "rank 0 of 2" in repr(comm) or comm.rank

    run(2, main)
