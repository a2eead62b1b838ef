"""Large messages between engines through memory that both map: the same bits, and nothing left."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_work import on_engines

import feliss_nb as feliss
from feliss_nb import MPI

PATIENCE = 60.0
NEVER = 1 << 60


def set_least(least: int) -> int:
    """Set from how many bytes on messages go through shared memory, and give what it was."""
    from feliss_nb.runtime import shared

    before, shared.LIMITS.least = shared.LIMITS.least, least
    return before


def every_call(comm: Any, least: int) -> str:
    """Digest of what every kind of call gives, at sizes on both sides of every threshold."""
    usual = set_least(least)
    digest = hashlib.blake2b()
    rank, size = comm.rank, comm.size
    right, left = (rank + 1) % size, (rank - 1) % size
    for count in (7, 5_000, 100_003, 1_500_000):
        mine = np.random.default_rng((rank, count)).standard_normal(count)
        got = np.zeros(count)
        comm.Sendrecv(mine, right, recvbuf=got, source=left)
        digest.update(got)
        for op in (MPI.SUM, MPI.PROD, MPI.MIN):
            comm.Allreduce(mine, got, op)
            digest.update(got)
        comm.Allreduce(MPI.IN_PLACE, got)
        digest.update(got)
        comm.Reduce(mine, got if rank == 1 else None, root=1)
        digest.update(got)
        comm.Bcast(got, root=1)
        digest.update(got)
        comm.Scan(mine, got)
        digest.update(got)
        every = np.zeros((size, count))
        comm.Allgather(mine, every)
        digest.update(every)
        turned = np.zeros_like(every)
        comm.Alltoall(every, turned)
        digest.update(turned)
        part = np.zeros(count)
        comm.Reduce_scatter_block(turned, part)
        digest.update(part)
        for found in comm.allgather({"rank": rank, "array": part}):
            digest.update(found["array"])
        digest.update(comm.bcast(part if rank == 0 else None))
    set_least(usual)
    return digest.hexdigest()


def keep_apart(comm: Any) -> None:
    """What one rank writes to what it sent or received shows on no other."""
    sent = np.full(300_000, float(comm.rank))
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    objects = [
        comm.sendrecv(sent, dest=right, source=left),
        comm.bcast(sent),
        *comm.allgather(sent),
    ]
    if comm.rank == 0:
        objects[1] = sent.copy()  # the root gets its own object
    buffer = np.zeros(300_000)
    comm.Sendrecv(sent, right, recvbuf=buffer, source=left)
    arrays = [*objects, buffer]
    expected = [float(array[0]) for array in arrays]
    for array in arrays:
        assert array.flags.writeable
        assert array.flags.aligned
        assert array.ctypes.data % 16 == 0
        assert (array == array[0]).all()
    comm.barrier()
    sent[:] = -1.0
    comm.barrier()
    for array, value in zip(arrays[:: 1 + comm.rank], expected[:: 1 + comm.rank], strict=True):
        assert (array == value).all()
        array[:] = 100.0 + comm.rank
    comm.barrier()
    for number, array in enumerate(arrays):
        mine = number % (1 + comm.rank) == 0
        assert (array == (100.0 + comm.rank if mine else expected[number])).all()


def many_sizes(comm: Any) -> None:
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    kept = []
    for number in range(300):
        sent = np.full(5_000 + 700 * number, number, np.int32)
        got = comm.sendrecv(sent, dest=right, source=left)
        assert (got == number).all()
        if number % 10 == 0:
            kept.append(got)
    for number, got in enumerate(kept):
        assert (got == 10 * number).all()


def exchange(comm: Any, k: int, steps: int, path: str) -> Any:
    """Move large arrays around for some steps; tell which."""
    sent = np.full(2_000_000, float(k * comm.size + comm.rank))
    got = np.zeros_like(sent)
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    total = 0.0
    for _ in range(5):
        comm.Sendrecv(sent, right, recvbuf=got, source=left)
        assert (got == k * comm.size + left).all()
        comm.Allreduce(sent, got)
        total = float(got[-1])
    with open(path, "a") as file:
        file.write(f"{comm.rank}\n")
    return comm.then(exchange, k + 1, steps, path) if k + 1 < steps else total


def carry(log: Any, array: Any, left: int) -> None:
    """Take a large array from rank to rank as a continuation's argument."""
    at = feliss.here()
    at[log].append(float(array.sum()))
    array += 1
    if left:
        at.put(carry, log, array, left - 1, rank=(at.rank + 1) % at.size)


def memory_of_segments() -> tuple[int, int]:
    """On an engine: bytes of its segments, and how many."""
    from feliss_nb.runtime.engine import _workers

    (worker,) = _workers.values()
    segments = worker.peers.segments
    return segments.nbytes(), len(segments._all())


def set_idle(seconds: float) -> None:
    from feliss_nb.runtime import shared

    shared.LIMITS.idle = seconds


def files(pid: int) -> list[str]:
    """What a process maps and has open: lines of its maps, and targets of its descriptors."""
    found = []
    try:
        found += Path(f"/proc/{pid}/maps").read_text().splitlines()
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            found.append(os.readlink(entry))
    except OSError:  # it has ended, or is another user's
        pass
    return found


def inodes(pid: int) -> set[str]:
    """The anonymous files of segments that a process has open or maps, by their inodes."""
    found = set()
    try:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if "/memfd:feliss" in line:
                found.add(line.split()[4])
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if "/memfd:feliss" in os.readlink(entry):
                found.add(str(entry.stat().st_ino))
    except OSError:  # it has ended, or is another user's
        pass
    return found


def made_by(pid: int) -> set[str]:
    """The inodes of the segments that an engine has made: each begins with its maker's token."""
    tokens = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if "/memfd:feliss " in os.readlink(entry):
            with entry.open("rb") as file:
                tokens[str(entry.stat().st_ino)] = entry.stat().st_size, file.read(16)
    [own] = [token for size, token in tokens.values() if size == 16]  # to be tried by others
    return {inode for inode, (size, token) in tokens.items() if token == own and size > 16}


def everybodys() -> set[str]:
    return {
        inode
        for entry in Path("/proc").iterdir()
        if re.fullmatch(r"\d+", entry.name)
        for inode in inodes(int(entry.name))
    }


def pids(session: feliss.Session) -> list[int]:
    return [engine.pid for engine in session.status().engines if engine.role != "dead"]


@pytest.fixture
def trace(idle: feliss.Session) -> Callable[[], set[str]]:
    """What of this session's segments is open or mapped, in any process."""
    seen: set[str] = set()

    def trace() -> set[str]:
        for pid in pids(idle):
            seen.update(inodes(pid))
        return seen & everybodys()

    return trace


def test_the_bits_are_those_of_sockets(idle: feliss.Session) -> None:
    assert len(set(idle.spmd(every_call, NEVER).partitions())) == 3  # Scan and others differ
    by_socket = idle.spmd(every_call, NEVER).partitions()
    assert idle.spmd(every_call, 1 << 15).partitions() == by_socket
    assert idle.spmd(every_call, 1).partitions() == by_socket


def test_memory_of_two_ranks_is_two_memories(idle: feliss.Session) -> None:
    idle.spmd(keep_apart).partitions()


def test_a_continuation_takes_a_large_array_along(idle: feliss.Session) -> None:
    log = idle.variable(lambda rank, size: [])
    idle.put(carry, log, np.zeros(500_000), 8, rank=0).wait(PATIENCE)
    assert log.partitions() == [[500_000.0 * n for n in (r, r + 3, r + 6)] for r in range(3)]


def test_memory_is_bounded_and_given_back(idle: feliss.Session, eventually: Any) -> None:
    idle.spmd(many_sizes).partitions()
    for nbytes, count in on_engines(idle, memory_of_segments):
        assert nbytes <= 128 << 20  # what went through is 100 MB a rank, and the last checkpoint's
        assert count <= 64

    def given_back() -> bool:
        return all(len(inodes(pid)) <= 8 for pid in pids(idle))

    idle.client[:].apply_sync(set_idle, 0.0)
    try:
        eventually(given_back, PATIENCE, "idle memory given back")
    finally:
        idle.client[:].apply_sync(set_idle, 5.0)
    idle.spmd(keep_apart).partitions()


@pytest.mark.parametrize("victim", [0, 2])
def test_a_kill_in_the_middle_of_transfers(
    idle: feliss.Session, flags: Any, eventually: Any, trace: Any, victim: int
) -> None:
    """Every rank sends and receives all the time: the victim is both."""
    out = idle.spmd(exchange, 0, 40, flags.path("steps"))
    eventually(lambda: len(flags.lines("steps")) >= 15, PATIENCE, "some steps")
    used = trace()
    before = set(pids(idle))
    assert len(used) > len(before)
    # What was never there need not be cleared away.
    assert not any("/dev/shm/" in line for pid in before for line in files(pid))
    lost = next(e.pid for e in idle.status().engines if victim in e.ranks)
    idle.kill(victim, wait=True)
    assert out.partitions() == [float(3 * 39 * 3 + 3)] * 3
    assert before - {lost} <= set(pids(idle))  # nobody else went with it
    assert inodes(lost) == set()
    assert trace() <= {inode for pid in pids(idle) for inode in inodes(pid)}


def two_megabytes(rank: int, size: int) -> Any:
    return np.full(1 << 18, float(rank))


def frames_of_snapshots() -> list[bool]:
    """For each large frame that this engine keeps: whether it lies in a segment of its own."""
    from feliss_nb.runtime.engine import _workers
    from feliss_nb.runtime.segments import _ours

    (worker,) = _workers.values()
    shards = [worker.store.get(key) for key in worker.store.nbytes()]
    large = [frame for shard in shards for frame in shard if len(frame) > 1 << 20]
    return [_ours(frame) is not None for frame in large]


def test_an_engine_to_which_a_rank_moved_soon_owns_its_snapshot(
    idle: feliss.Session, eventually: Any
) -> None:
    state = idle.variable(two_megabytes)
    idle.checkpoint()

    def owned() -> bool:
        found = [own for frames in on_engines(idle, frames_of_snapshots) for own in frames]
        return len(found) >= 2 * idle.size and all(found)

    for victim in (0, 1):  # the second one gave the first its snapshot
        idle.kill(victim, wait=True)
        eventually(owned, PATIENCE, "every snapshot in memory of its engine")
    for rank, found in enumerate(state.partitions()):
        assert np.array_equal(found, two_megabytes(rank, idle.size))


def test_what_a_killed_engine_shared_goes_with_it(idle: feliss.Session, eventually: Any) -> None:
    """Nothing is stood up from memory that a dead machine would have taken with it."""
    state = idle.variable(two_megabytes)
    idle.checkpoint()
    victim = next(e.pid for e in idle.status().engines if 1 in e.ranks)
    shared = made_by(victim)
    assert shared
    idle.kill(1, wait=True)

    def is_gone() -> bool:
        return not any(shared & inodes(pid) for pid in pids(idle))

    eventually(is_gone, PATIENCE, "an end of the victim's memory")
    for rank, found in enumerate(state.partitions()):
        assert np.array_equal(found, two_megabytes(rank, idle.size))


def test_nothing_is_left_behind_a_session(eventually: Any, flags: Any) -> None:
    seen: set[str] = set()
    with feliss.start(workers=2, checkpoint_every=None) as session:
        out = session.spmd(exchange, 0, 10_000, flags.path("steps"))
        eventually(lambda: len(flags.lines("steps")) >= 4, PATIENCE, "some steps")
        for pid in pids(session):
            seen |= inodes(pid)
        directory = session._cluster.directory
        session.kill(0)
        session.kill(1)
        del out
    assert len(seen) > 2
    assert not seen & everybodys()
    assert not directory.exists()
