"""Programs of all ranks on real engines: steps, cuts between them, losses, deadlocks."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest

import feliss_nb as feliss
from feliss_nb import MPI, errors

PATIENCE = 60.0


@pytest.fixture(scope="module", params=["local", "mpi"])
def engines(request: pytest.FixtureRequest) -> str:
    """Every test here runs on both kinds."""
    if request.param == "mpi":
        pytest.importorskip("mpi4py", reason="MPI engines need mpi4py")
    return str(request.param)


def iterate(comm: Any, vector: Any, k: int, steps: int, path: str) -> Any:
    """Mix a vector through every kind of message, and go on to the next step."""
    mine = np.cos(vector + comm.rank)
    total = np.empty_like(mine)
    comm.Allreduce(mine, total, op=MPI.SUM)
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    got = comm.sendrecv({"step": k, "part": mine[comm.rank]}, dest=right, source=left)
    assert got["step"] == k
    everything = comm.allgather(got["part"])
    if comm.rank == 0:
        with open(path, "a") as file:
            file.write(f"{k}\n")
    if k + 1 < steps:
        return comm.then(iterate, total + sum(everything), k + 1, steps, path)
    return float(total.sum())


def until_told(comm: Any, path: str, count: int) -> Any:
    """Take steps until a file is there."""
    done = comm.bcast(os.path.exists(path) if comm.rank == 0 else None)
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    for _ in range(count % 3):
        assert comm.sendrecv(count, dest=right, source=left) == count
    if done:
        return count
    return comm.then(until_told, path, count + 1)


def add(total: Any, amount: int) -> None:
    feliss.here()[total] += amount


def spill(comm: Any, total: Any, k: int) -> Any:
    """Put ordinary continuations to other ranks between the messages."""
    at = feliss.here()
    assert (at.rank, at.size) == (comm.rank, comm.size)
    for rank in range(comm.size):
        at.put(add, total, k, rank=rank)
    comm.barrier()
    return comm.then(spill, total, k + 1) if k < 20 else comm.rank


def sums(comm: Any, k: int, last: int) -> Any:
    found = comm.allreduce(k * (comm.rank + 1))
    return comm.then(sums, k + 1, last) if k < last else found


def block(comm: Any, path: str) -> None:
    if comm.rank == 0:
        with open(path, "w"):
            pass
    comm.recv(source=(comm.rank + 1) % comm.size, tag=3)


def fail_on_one(comm: Any) -> None:
    if comm.rank == 1:
        raise KeyError("lost key")
    comm.recv(source=1)


def end_in_two_ways(comm: Any) -> Any:
    if comm.rank:
        return comm.then(sums, 0, 0)
    return None


def leave_unread(comm: Any) -> None:
    if comm.rank == 0:
        comm.send("nobody reads this", 1, tag=9)


def read(comm: Any, source: Any) -> Any:
    value = feliss.here()[source]
    return comm.then(read_again, source, comm.allgather(value))


def read_again(comm: Any, source: Any, values: list[Any]) -> Any:
    return values, comm.allgather(feliss.here()[source])


def keep(comm: Any, k: int) -> Any:
    """Leave large arrays with the receivers, over several steps."""
    rows = comm.alltoall([np.full(5000, k + comm.rank * 10 + r) for r in range(comm.size)])
    for source, row in enumerate(rows):
        assert (row == k + source * 10 + comm.rank).all()
        row += 1
    return comm.then(keep, k + 1) if k < 5 else rows[0][0]


def ping(comm: Any, count: int) -> float:
    """Seconds for 8 bytes there and back, the median of many."""
    buffer = np.zeros(1)
    times = []
    for _ in range(count if comm.rank < 2 else 0):
        begun = time.perf_counter()
        if comm.rank == 0:
            comm.Send(buffer, 1)
            comm.Recv(buffer, 1)
        else:
            comm.Recv(buffer, 0)
            comm.Send(buffer, 0)
        times.append(time.perf_counter() - begun)
    comm.barrier()
    return float(np.median(times)) if times else 0.0


# ---------------------------------------------------------------- without a loss


def test_every_rank_gives_what_its_last_step_returns(idle: feliss.Session) -> None:
    out = idle.spmd(sums, 0, 4, name="sums")
    assert out.partitions() == [4 * 6] * 3
    assert "sums" in idle
    assert idle.spmd(keep, 0).partitions() == [5 + r + 1 for r in range(3)]


def test_how_long_eight_bytes_take(idle: feliss.Session, capsys: Any) -> None:
    """No assertion on it: a figure to look at when it falls."""
    seconds = idle.spmd(ping, 500).partitions()[0]
    with capsys.disabled():
        print(f" [8 bytes there and back: {seconds * 1e6:.0f} us]", end="")  # noqa: T201


def test_two_gangs_and_ordinary_continuations_side_by_side(idle: feliss.Session) -> None:
    total = idle.variable(lambda rank, size: 0)
    spilled = idle.spmd(spill, total, 0)
    gangs = [idle.spmd(sums, 0, 10 + i) for i in range(4)]
    mapped = idle.map(lambda x: x + 1, idle.scatter(list(range(300))))
    idle.checkpoint()
    assert [gang.partitions() for gang in gangs] == [[6 * (10 + i)] * 3 for i in range(4)]
    assert mapped.collect() == list(range(1, 301))
    assert spilled.partitions() == [0, 1, 2]
    idle.wait(PATIENCE)
    assert total.partitions() == [3 * sum(range(21))] * 3


def test_a_gang_waits_for_its_variables_on_every_rank(idle: feliss.Session) -> None:
    pairs = idle.map(lambda x: (x % 7, x), idle.scatter(list(range(2000))))
    counts = idle.reduce(sum, pairs)
    values, again = idle.spmd(read, counts).partitions()[1]
    assert values == again
    assert sorted(pair for part in values for pair in part) == sorted(counts.collect())


def test_checkpoints_at_any_moment_of_two_gangs(idle: feliss.Session, flags: Any) -> None:
    first = idle.spmd(until_told, flags.path("stop"), 0)
    second = idle.spmd(sums, 0, 50)
    for _ in range(20):
        idle.checkpoint(PATIENCE)
    flags.set("stop")
    assert len(set(first.partitions())) == 1
    assert second.partitions() == [300] * 3


# ---------------------------------------------------------------- with a loss


def test_a_loss_between_two_steps_shows_in_no_bit(idle: feliss.Session, flags: Any) -> None:
    start = np.linspace(0, 1, 5000)
    calm = idle.spmd(iterate, start, 0, 60, flags.path("calm")).partitions()
    out = idle.spmd(iterate, start, 0, 600, flags.path("long"))
    flags.wait("long")
    idle.checkpoint(PATIENCE)
    idle.kill(2, wait=True)
    idle.checkpoint(PATIENCE)
    idle.kill(0, wait=True)
    assert len(set(out.partitions())) == 1
    steps = [int(line) for line in flags.lines("long")]
    assert steps[-1] == 599
    assert steps.count(0) == 1  # it went on from a checkpoint
    assert idle.spmd(iterate, start, 0, 60, flags.path("again")).partitions() == calm


def test_a_loss_while_ranks_wait_for_messages(idle: feliss.Session, flags: Any) -> None:
    """Every rank sits in a receive; under the new epoch it does again."""
    out = idle.spmd(until_told, flags.path("stop"), 0)
    for victim in (1, 2):
        epoch = idle.epoch
        idle.kill(victim, wait=True)
        assert idle.epoch == epoch + 1
    flags.set("stop")
    assert len(set(out.partitions())) == 1


def test_ranks_that_share_an_engine_wait_for_each_other(flags: Any, engines: str) -> None:
    start = np.linspace(0, 1, 5000)
    with feliss.start(workers=3, replace=False, checkpoint_every=None, engines=engines) as session:
        calm = session.spmd(iterate, start, 0, 30, flags.path("calm")).partitions()
        out = session.spmd(iterate, start, 0, 30, flags.path("steps"))
        session.kill(1, wait=True)
        assert sum(e.role == "worker" for e in session.status().engines) == 2
        assert out.partitions() == calm
        assert session.spmd(keep, 0).partitions() == [5 + r + 1 for r in range(3)]
        session.checkpoint(PATIENCE)
        assert session.spmd(iterate, start, 0, 30, flags.path("again")).partitions() == calm


# ---------------------------------------------------------------- programs that are wrong


def test_a_deadlock_is_reported(idle: feliss.Session, flags: Any) -> None:
    out = idle.spmd(block, flags.path("blocks"))
    with pytest.raises(errors.DeadlockError, match=r"rank 0 -> rank 1 -> rank 2 -> rank 0"):
        out.partitions()
    assert idle.spmd(sums, 0, 2).partitions() == [12] * 3


def test_an_error_of_one_rank_ends_the_others(idle: feliss.Session) -> None:
    out = idle.spmd(fail_on_one)
    with pytest.raises(errors.FunctionError, match="lost key") as caught:
        out.partitions()
    assert caught.value.rank == 1
    assert "fail_on_one raised KeyError: 'lost key' on rank 1" in str(caught.value)
    assert "fail_on_one" in caught.value.remote_traceback
    idle.wait(PATIENCE)


def test_a_gang_that_waits_can_be_cancelled(idle: feliss.Session, flags: Any) -> None:
    out = idle.spmd(block, flags.path("blocks"))
    flags.wait("blocks")
    out.job.cancel()
    with pytest.raises(errors.JobCancelled):
        out.job.wait(PATIENCE)
    idle.wait(PATIENCE)
    assert idle.spmd(sums, 0, 2).partitions() == [12] * 3


def test_ranks_end_a_step_in_the_same_way(idle: feliss.Session) -> None:
    # Where the user's own line called comm.then, the error shows it.
    with pytest.raises(feliss.FelissError, match=r"rank 1 ends it by comm\.then"):
        idle.spmd(end_in_two_ways).partitions()
    with pytest.raises(errors.UsageError, match="unmatched message from rank 0"):
        idle.spmd(leave_unread).partitions()
    with pytest.raises(errors.UsageError, match="function"):
        idle.spmd(3)


def test_what_a_notebook_defines_keeps_its_identity(script: Any, engines: str) -> None:
    out = script(
        """
        import feliss_nb as feliss
        from feliss_nb import MPI

        class Point:
            def __init__(self, x):
                self.x = x

        def main(comm):
            got = comm.bcast(Point(5) if comm.rank == 0 else None)
            assert type(got) is Point
            rank = comm.rank
            made = [make(5) for make in comm.allgather(lambda x: Point(x * rank))]
            assert [(type(p), p.x) for p in made] == [(Point, 0), (Point, 5)]
            assert MPI.COMM_WORLD.Get_rank() == comm.rank
            return comm.then(after, got, Point)

        def after(comm, point, kind):
            assert type(point) is kind is Point
            return comm.allreduce(point.x)

        if __name__ == "__main__":
            with feliss.start(workers=2) as session:
                print(session.spmd(main).partitions())
        """,
        FELISS_NB_ENGINES=engines,
    )
    assert out.stdout.strip() == "[10, 10]"
