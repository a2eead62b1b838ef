"""Messages from rank to rank: their order, their matching, their requests, and what goes wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thread_port import run

from feliss_nb.models.mpi import MPI, gang


class Model:
    """What MPI's standard says of matching (3.5), for one receiver, as sparely as can be."""

    def __init__(self, sent: list[list[tuple[int, int]]]) -> None:
        #: for each source, tags and values in the order of sending
        self.sent = [list(messages) for messages in sent]

    def allowed(self, source: int, tag: int) -> set[tuple[int, int, int]]:
        """The messages that a receive may get: the first match of each source."""
        found = set()
        for rank, messages in enumerate(self.sent):
            if source in (rank, MPI.ANY_SOURCE):
                match = [m for m in messages if tag in (m[0], MPI.ANY_TAG)]
                if match:
                    found.add((rank, *match[0]))
        return found

    def take(self, source: int, tag: int, value: int) -> None:
        self.sent[source].remove((tag, value))


@st.composite
def patterns(draw):
    """For each source its messages, and receives that take them all."""
    size = draw(st.integers(1, 4))
    sent = [
        [(draw(st.integers(0, 2)), n) for n in range(draw(st.integers(0, 6)))] for _ in range(size)
    ]
    receives = [(source, tag) for source, messages in enumerate(sent) for tag, _ in messages]
    receives = draw(st.permutations(receives))
    # a wildcard may take what a later receive names: only a suffix is wild
    wild = draw(st.integers(0, len(receives)))
    receives = receives[:wild] + [(MPI.ANY_SOURCE, MPI.ANY_TAG)] * (len(receives) - wild)
    how = draw(
        st.lists(
            st.sampled_from(["recv", "irecv", "mprobe", "Recv"]),
            min_size=len(receives),
            max_size=len(receives),
        )
    )
    return sent, receives, how, draw(st.integers(0, 5))


@given(patterns())
@settings(max_examples=150)
def test_random_patterns(drawn):
    sent, receives, how, seed = drawn

    def main(comm):
        rank = comm.rank
        pending = []
        for n, (tag, value) in enumerate(sent[rank]):
            method = ["isend", "issend"][n % 2]
            if comm.rank == 0 and comm.size == 1:
                method = "isend"
            upper = uppers[rank, tag, value]
            if upper:
                pending.append(comm.Issend(np.array([rank, tag, value]), 0, tag))
            else:
                pending.append(getattr(comm, method)((rank, tag, value), 0, tag))
        got = []
        if rank == 0:
            for (source, tag), kind in zip(receives, how, strict=True):
                status = MPI.Status()
                upper = kind == "Recv" and homogeneous
                if upper:
                    buf = np.zeros(3, int)
                    comm.Recv(buf, source, tag, status)
                    found = tuple(buf.tolist())
                elif kind == "irecv":
                    found = comm.irecv(None, source, tag).wait(status)
                elif kind == "mprobe":
                    found = comm.mprobe(source, tag).recv(status)
                else:
                    found = comm.recv(None, source, tag, status)
                assert (status.source, status.tag) == found[:2]
                got.append(found)
        MPI.Request.waitall(pending)
        return got

    homogeneous = all(kind == "Recv" for kind in how) and bool(how)
    uppers = {(r, t, v): homogeneous for r, messages in enumerate(sent) for t, v in messages}
    got = run(len(sent), main, seed=seed, hold=0.3)[0]
    model = Model(sent)
    for (source, tag), found in zip(receives, got, strict=True):
        assert found in model.allowed(source, tag)
        model.take(*found)
    assert not any(model.sent)


def test_functions_and_instances_travel():
    class Local:
        def __init__(self, n):
            self.n = n

    def main(comm):
        other = 1 - comm.rank
        f, thing, kind = comm.sendrecv((lambda x: x + 1, Local(3), MPI.SUM), other, source=other)
        assert f(1) == 2
        assert thing.n == 3
        assert kind is MPI.SUM
        world = comm.bcast(MPI.COMM_WORLD)
        assert world is MPI.COMM_WORLD

    run(2, main)


def test_objects_are_written_as_the_gang_says():
    def main(comm):
        ways = (lambda obj: [obj.encode()], lambda data: bytes(data[0]).decode() + "!")
        with gang(comm._core.endpoint.port, objects=ways) as own:
            return own.sendrecv("x", 0, source=0), own.allgather("y"), own.check_quiet()

    assert run(1, main, quiet=False) == [("x!", ["y!"], None)]


def test_posted_receives_match_in_their_order():
    def main(comm):
        if comm.rank == 0:
            requests = [comm.irecv(source=MPI.ANY_SOURCE, tag=t) for t in (1, MPI.ANY_TAG, 1)]
            comm.barrier()
            return MPI.Request.waitall(requests)
        comm.barrier()
        for i, tag in enumerate([1, 2, 1]):
            comm.send(i, 0, tag)
        return None

    assert run(2, main)[0] == [0, 1, 2]


def test_what_is_sent_is_a_copy():
    def main(comm):
        other = 1 - comm.rank
        for target in (comm.rank, other):
            data, things = np.arange(100_000.0), [np.zeros(5000)]
            requests = [comm.Isend(data, target), comm.isend(things, target)]
            data[:] = things[0][:] = -1
            got = np.empty(100_000)
            comm.Recv(got)
            assert got[7] == 7
            (array,) = comm.recv()
            assert not array.any()
            array[0] = 1
            MPI.Request.waitall(requests)
        word = [1]
        comm.send(word, comm.rank)
        assert comm.recv() is not word

    run(2, main)


def test_a_synchronous_send_waits_for_its_receive():
    def main(comm):
        if comm.rank == 0:
            request = comm.issend("x", 1)
            eager = comm.isend("y", 1, 1)
            assert eager.test()[0]
            comm.barrier()
            assert not request.Test()
            assert not request.Get_status()
            comm.send("now", 1, 2)
            request.wait()
            assert not request
        else:
            comm.barrier()
            assert comm.recv(tag=2) == "now"
            assert comm.recv(tag=1) == "y"
            assert comm.recv(tag=0) == "x"

    run(2, main)


def test_nobody():
    def main(comm):
        status = MPI.Status()
        comm.send(1, MPI.PROC_NULL)
        comm.ssend(1, MPI.PROC_NULL)
        assert comm.recv(source=MPI.PROC_NULL, status=status) is None
        assert (status.source, status.tag, status.count) == (MPI.PROC_NULL, MPI.ANY_TAG, 0)
        buf = np.ones(3)
        comm.Recv(buf, MPI.PROC_NULL, status=status)
        assert buf.all()
        assert comm.iprobe(MPI.PROC_NULL, status=status)
        assert comm.mprobe(MPI.PROC_NULL).recv() is None
        assert comm.sendrecv(1, MPI.PROC_NULL, source=MPI.PROC_NULL) is None
        comm.Sendrecv(buf, MPI.PROC_NULL, 0, np.ones(3), MPI.PROC_NULL)
        assert comm.irecv(source=MPI.PROC_NULL).test() == (True, None)

    run(1, main)


def test_truncation_and_mixed_kinds():
    def main(comm):
        if comm.rank == 0:
            comm.Send(np.zeros(10), 1, 1)
            comm.send("x", 1, 2)
            comm.Send(np.zeros(2), 1, 3)
            comm.Send(np.arange(2.0), 1, 4)
            return
        status = MPI.Status()
        with pytest.raises(MPI.Exception, match=r"80 bytes .* takes 72") as caught:
            comm.Recv(np.zeros(9), tag=1, status=status)
        assert caught.value.Get_error_class() == status.error == MPI.ERR_TRUNCATE
        assert caught.value.Get_error_string() == "MPI_ERR_TRUNCATE: message truncated"
        with pytest.raises(MPI.Exception, match="an object was sent"):
            comm.Recv(np.zeros(9), tag=2)
        with pytest.raises(MPI.Exception, match="memory was sent"):
            comm.recv(tag=3)
        got = np.full(4, 9.0)
        comm.Recv(got, tag=4, status=status)
        assert got.tolist() == [0, 1, 9, 9]
        assert status.Get_count(MPI.DOUBLE) == 2
        assert status.Get_elements(MPI.DOUBLE) == 2
        assert status.Get_count(MPI.INT.Create_contiguous(3)) == MPI.UNDEFINED

    run(2, main)


def test_invalid_calls_fail_at_once():
    def main(comm):
        for error, bad in [
            (MPI.ERR_RANK, lambda: comm.send(1, 2)),
            (MPI.ERR_RANK, lambda: comm.isend(1, -5)),
            (MPI.ERR_RANK, lambda: comm.recv(source=2)),
            (MPI.ERR_RANK, lambda: comm.send(1, MPI.ANY_SOURCE)),
            (MPI.ERR_TAG, lambda: comm.send(1, 0, -2)),
            (MPI.ERR_TAG, lambda: comm.Send(b"", 0, MPI.ANY_TAG)),
            (MPI.ERR_TAG, lambda: comm.Irecv(bytearray(1), 0, 2**31)),
            (MPI.ERR_COUNT, lambda: comm.Send([np.zeros(2), -1], 0)),
            (MPI.ERR_TYPE, lambda: comm.Send([np.zeros(2), MPI.DATATYPE_NULL], 0)),
            (MPI.ERR_COMM, lambda: MPI.COMM_NULL.send(1, 0)),
            (MPI.ERR_COMM, lambda: MPI.COMM_WORLD.Free()),
        ]:
            with pytest.raises(MPI.Exception) as caught:
                bad()
            assert caught.value.Get_error_class() == error
        with pytest.raises(ValueError, match="needs 40 bytes"):
            comm.Send([np.zeros(4), 5], 0)
        with pytest.raises(BufferError, match="read-only"):
            comm.Recv(b"abc", 0)
        with pytest.raises(BufferError, match="contiguous"):
            comm.Send(np.zeros((4, 4))[:, 1], 0)
        with pytest.raises(KeyError, match="datatype"):
            comm.Send(np.zeros(2, "S4"), 0)
        with pytest.raises(ValueError, match="2 to 4"):
            comm.Send([np.zeros(4)], 0)

    run(2, main)


def test_requests_of_many_kinds():
    def main(comm):
        if comm.rank:
            comm.barrier()
            comm.send("a", 0, 1)
            comm.recv()
            comm.send("b", 0, 2)
            return
        requests = [comm.irecv(source=1, tag=t) for t in (2, 1)]
        assert MPI.Request.testall(requests) == (False, None)
        assert MPI.Request.testany(requests) == (MPI.UNDEFINED, False, None)
        assert MPI.Request.testsome(requests) == ([], [])
        comm.barrier()
        status, statuses = MPI.Status(), []
        assert MPI.Request.waitany(requests, status) == (1, "a")
        assert (status.source, status.tag) == (1, 1)
        comm.send(None, 1)
        assert MPI.Request.waitall(requests, statuses) == ["b", None]
        assert [s.tag for s in statuses] == [2, MPI.ANY_TAG]
        assert MPI.Request.waitany(requests) == (MPI.UNDEFINED, None)
        assert MPI.Request.Waitsome(requests) is None
        assert MPI.Request.testany(requests) == (MPI.UNDEFINED, True, None)
        assert MPI.Request.Testsome(requests) is None
        assert requests[0] == MPI.REQUEST_NULL
        assert MPI.Request.Testall(requests)
        assert requests[0].wait() is None
        assert MPI.Request.waitall([]) == []

    run(2, main)


def test_cancel():
    def main(comm):
        request = comm.irecv(source=0, tag=4)
        request.cancel()
        status = MPI.Status()
        assert request.wait(status) is None
        assert status.Is_cancelled()
        comm.send(1, 0, 4)  # the receive that was taken back does not get it
        assert comm.recv(tag=4) == 1
        late = comm.irecv(source=0, tag=5)
        comm.send(2, 0, 5)
        late.Cancel()
        assert late.wait(status) == 2
        assert not status.cancelled

    run(1, main)
