"""How a step of a gang ends, or does not: deadlocks, what is left over, abort."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from thread_port import Deadlock, run

from feliss_nb.errors import UsageError
from feliss_nb.models.mpi import MPI, explain_deadlock


def test_synchronous_sends_to_each_other_are_a_deadlock():
    def main(comm):
        comm.Set_name("pair")
        comm.ssend(1, 1 - comm.rank)
        comm.recv()

    with pytest.raises(Deadlock) as caught:
        run(2, main)
    assert "rank 0 waits in ssend on pair, tag 0, for rank 1" in str(caught.value)
    assert "cycle: rank 0 -> rank 1 -> rank 0" in str(caught.value)


def test_deadlocks_are_told():
    def one_ends(comm):
        if comm.rank == 0:
            comm.recv(source=1, tag=5)

    with pytest.raises(Deadlock, match="for rank 1, which has ended its step"):
        run(2, one_ends, quiet=False)

    def ring(comm):
        comm.Recv(np.zeros(1), source=(comm.rank + 1) % comm.size)

    with pytest.raises(Deadlock, match="cycle: rank 0 -> rank 1 -> rank 2 -> rank 0"):
        run(3, ring)

    def left_alone(comm):
        if comm.rank:
            comm.Barrier()
        else:
            MPI.Request.Waitall([comm.irecv(source=2, tag=1), comm.Ibarrier()])

    with pytest.raises(
        Deadlock, match="rank 0 waits in irecv on MPI_COMM_WORLD, tag 1, for rank 2"
    ):
        run(3, left_alone, quiet=False)


def test_explain_deadlock():
    text = explain_deadlock({0: [("recv", "C", (1, 2), None)], 2: [("bcast", "C", (0,), None)]})
    assert text.splitlines() == [
        "deadlock: no message is under way, and every rank waits or has ended",
        "  rank 0 waits in recv on C, for rank 1, which has ended its step or rank 2",
        "  rank 2 waits in bcast on C, for rank 0",
        "  cycle: rank 0 -> rank 2 -> rank 0",
    ]
    assert "cycle" not in explain_deadlock({0: [("recv", "C", (1,), 3)], 1: []})
    assert "rank 1 waits in recv on D, for itself" in explain_deadlock(
        {1: [("recv", "D", (1,), None)]}
    )
    assert "nobody" in explain_deadlock({0: [("recv", "C", (), 3)]})
    many = {r: [("recv", "C", tuple(i for i in range(9) if i != r), 3)] for r in range(9)}
    assert "any of 8 ranks" in explain_deadlock(many)


def test_a_step_ends_quietly_or_says_why():
    steps = []

    def step(comm):
        return None

    def main(comm):
        comm.sendrecv(1, comm.rank, source=comm.rank)
        return comm.then(step, 5, "x")

    def then(step, args, needs):
        assert not needs
        steps.append((step, args))
        return "next"

    assert run(3, main, then=then) == ["next"] * 3
    assert steps == [(step, (5, "x"))] * 3

    def loud(comm):
        if comm.rank == 0:
            comm.send("lost", 1, 8)
            comm.irecv(source=2, tag=3)
            part = comm.Dup()
            comm.send(None, 1)
            part.Set_name("part")
        else:
            part = comm.Dup()
            if comm.rank == 1:
                comm.recv(tag=0)
            part.Set_name("part")
        if comm.rank == 2:
            part.Isend(np.zeros(4), 1, 1)
            part.issend(1, 0, 1)
        try:
            comm.then(step)
        except UsageError as error:
            return str(error)
        return None

    (text,) = set(run(3, loud, then=then, quiet=False))
    assert "rank 0 has an open request: irecv from rank 2, tag 3, on MPI_COMM_WORLD" in text
    assert (
        "rank 1 has an unmatched message from rank 0 of the gang on MPI_COMM_WORLD, tag 8" in text
    )
    assert (
        "rank 1 has an unmatched message from rank 2 of the gang on part, tag 1, 32 bytes" in text
    )
    assert "rank 2 has an open request: issend to rank 0, tag 1, on part" in text

    def elsewhere(comm):
        with pytest.raises(UsageError, match="gang's own"):
            comm.Dup().then(step)

    run(2, elsewhere)


def test_outside_a_gang():
    with pytest.raises(UsageError, match=r"session\.spmd"):
        MPI.COMM_WORLD.Get_rank()
    assert not MPI.Is_initialized()
    assert pickle.loads(pickle.dumps(MPI.COMM_WORLD)) is MPI.COMM_WORLD


def test_abort():
    def main(comm):
        if comm.rank == 1:
            MPI.COMM_WORLD.Abort(3)
        comm.barrier()

    with pytest.raises(MPI.Exception, match=r"rank 1 of MPI_COMM_WORLD called Abort\(3\)"):
        run(2, main)
