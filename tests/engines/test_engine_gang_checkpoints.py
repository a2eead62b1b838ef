"""A hundred checkpoints asked for at random moments of random gangs, each looked into."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from engine_work import on_engines

import feliss_nb as feliss

PATIENCE = 60.0
REQUESTS = 100


def walk(comm: Any, trace: Any, name: str, seed: int, step: int, last: int) -> Any:
    """Take a random step, and note its begin and its end where a snapshot shows them."""
    rng = random.Random(f"{seed}/{step}")  # the same on every rank
    notes = feliss.here()[trace]
    notes[name] = (step, step - 1)
    total = 0
    for _ in range(rng.randint(1, 4)):
        kind = rng.choice(["allreduce", "ring", "split", "alone", "puts"])
        if kind == "allreduce":
            total += comm.allreduce(step + comm.rank)
        elif kind == "ring":
            right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
            total += comm.sendrecv(step, dest=right, source=left)
        elif kind == "split":
            part = comm.Split(comm.rank % 2, comm.rank)
            total += comm.allreduce(part.allreduce(1) * step)
            part.Free()
        elif kind == "alone":  # one rank is late
            late, amount = rng.randrange(comm.size), rng.randint(0, 30_000)
            total += comm.rank == late and sum(range(amount)) < 0
        else:
            target = rng.randrange(comm.size)
            feliss.here().put(count, trace, step, rank=target)
    notes[name] = (step, step)
    if step < last:
        return comm.then(walk, trace, name, seed, step + 1, last)
    return comm.allreduce(total)


def count(trace: Any, amount: int) -> None:
    """Stand beside the gangs: an ordinary continuation."""
    notes = feliss.here()[trace]
    notes["plain"] = notes.get("plain", 0) + amount


def snapshots(variable: int, checkpoint: int) -> Any:
    """On an engine: what the ranks' own snapshots and the copies hold, of one checkpoint."""

    def look() -> dict[int, Any]:
        from feliss_nb.runtime.engine import _workers
        from feliss_nb.runtime.shard import split
        from feliss_nb.state.snapshot import from_frames, restore

        found = {}
        for worker in _workers.values():
            for number, rank in worker.store.nbytes():
                if number == checkpoint:
                    main, _ = split(worker.store.get((number, rank)))
                    content: Any = restore(from_frames(main))
                    gangs = {gang for _, _, _, gang in content["image"].pool if gang is not None}
                    found[rank] = content["partitions"].get(variable), gangs
        return found

    return look


@pytest.mark.slow
def test_every_cut_has_each_gang_before_it_or_behind_it(idle: feliss.Session) -> None:
    rng = random.Random(2012)
    trace = idle.variable(lambda rank, size: {}, name="trace")
    trace.wait(PATIENCE)
    running: list[tuple[Any, int, int]] = []
    results: dict[tuple[int, int], Any] = {}
    inside = 0
    for request in range(REQUESTS):
        while len(running) < 2:
            seed, last = rng.randrange(5), rng.randint(20, 200)
            name = f"gang {request}/{len(running)}"
            running.append((idle.spmd(walk, trace, name, seed, 0, last), seed, last))
        threading.Event().wait(rng.random() * 0.03)  # the moment is what is random
        taken = idle.checkpoint(PATIENCE)
        views: dict[int, Any] = {}
        for found in on_engines(idle, snapshots(trace.variable, taken.id)):
            for rank, view in found.items():
                assert views.setdefault(rank, view) == view  # a copy is the snapshot
        assert sorted(views) == [0, 1, 2]
        notes = [{k: v for k, v in views[r][0].items() if k != "plain"} for r in range(3)]
        assert notes[0] == notes[1] == notes[2]
        assert all(begun == ended for begun, ended in notes[0].values())
        assert views[0][1] == views[1][1] == views[2][1]
        inside += bool(views[0][1])
        for one in [one for one in running if one[0].job.state != "running"]:
            running.remove(one)
            values = set(one[0].partitions())
            assert len(values) == 1
            assert results.setdefault(one[1:], values) == values
    assert inside > REQUESTS // 2  # most stood between two steps of a gang
    for out, _, _ in running:
        assert len(set(out.partitions())) == 1
