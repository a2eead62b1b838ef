"""Continuations for the tests of captures: state that changes a little, and children that wait."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

import feliss_nb as feliss

SIZE = 60_000


def start_state(rank: int, size: int) -> dict[str, Any]:
    base = np.arange(SIZE, dtype=float) + rank
    return {"base": base, "view": base[100:200], "visits": 0, "log": list(range(2000))}


def advance(mine: dict[str, Any], value: int) -> None:
    mine["visits"] += 1
    place = value * 7919 % SIZE
    mine["base"][place : place + 300] += value
    mine["view"][value % 100] = -value
    mine["log"][value % 2000] = value


def walk(ring: Any, value: int, last: int, gates: dict[int, str]) -> None:
    """Walk the ring, one continuation a step; at a gate it goes round and round until it opens."""
    at = feliss.here()
    if value in gates:
        reached, opens = gates[value], gates[value] + "-open"
        if not os.path.exists(opens):
            if not os.path.exists(reached):
                open(reached, "w").close()
            time.sleep(0.002)
            at.put(walk, ring, value, last, gates, rank=at.rank)
            return
    advance(at[ring], value)
    if value < last:
        at.put(walk, ring, value + 1, last, gates, rank=(at.rank + 1) % at.size)


def walked(size: int, last: int) -> list[dict[str, Any]]:
    """What the walk leaves on every rank."""
    found = [start_state(rank, size) for rank in range(size)]
    for value in range(last + 1):
        advance(found[value % size], value)
    return found


class Waits:
    """Pickled in a forked child, it says so and waits until it may go on; for ever without `go`."""

    def __init__(self, reached: str, go: str | None) -> None:
        self.reached, self.go, self.engine = reached, go, os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        if os.getpid() != self.engine:
            with open(self.reached, "a") as file:
                file.write(f"{os.getpid()}\n")
            while self.go is None or not os.path.exists(self.go):
                time.sleep(0.002)
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.engine = os.getpid()


def set_waits(out: Any, reached: str, go: str | None) -> None:
    at = feliss.here()
    at[out] = {"waits": Waits(reached, go), "n": 0}


def count(out: Any) -> None:
    feliss.here()[out]["n"] += 1


def check_count(out: Any, wanted: int) -> None:
    assert feliss.here()[out]["n"] == wanted


def set_lock(out: Any) -> None:
    import threading

    feliss.here()[out] = {"inside": [threading.Lock()]}


def multiply_until(started: str, go: str) -> None:
    """Keep all threads of BLAS at work."""
    a = np.random.default_rng(1).random((500, 500))
    while not os.path.exists(go):
        a @ a
        open(started, "w").close()


def relax(comm: Any, step: int, last: int, mine: Any, got: Any, noted: str) -> Any:
    """Keep what a neighbour sent, as it came, and change it in the next step."""
    open(f"{noted}{step}", "w").close()
    if got is not None:
        got *= 0.5
        mine = mine + got
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    got = comm.sendrecv(mine, dest=right, source=left)
    if step == last:
        return float(mine.sum()), float(got[7])
    return comm.then(relax, step + 1, last, mine, got, noted)


def start_relax(comm: Any, last: int, noted: str) -> Any:
    return comm.then(relax, 0, last, np.arange(50_000.0) + comm.rank, None, noted)


def patience(seconds: float) -> Any:
    """Make a function that sets how long an engine waits for a child."""

    def set_patience() -> None:
        from feliss_nb.runtime import capturing

        capturing.PATIENCE = seconds

    return set_patience


def memory_for(module: str, name: str, there_is: bool) -> Any:
    """Make a function that lets an engine have memory, or none, for a function of the runtime."""

    def fail() -> Any:
        raise MemoryError("there is none")

    def set_fault() -> None:
        import importlib

        where: Any = importlib.import_module(f"feliss_nb.runtime.{module}")
        real = getattr(getattr(where, name), "real", getattr(where, name))

        def fault(*args: Any) -> Any:
            if name == "prepare":  # what it gives fills the memory later
                return real(*args)[0], fail
            return fail()

        fault.real = real  # type: ignore[attr-defined]
        setattr(where, name, real if there_is else fault)

    return set_fault


def forget_copies(checkpoint: int) -> int:
    """On an engine: drop a checkpoint's copies that it keeps for ranks of others; say how many."""
    from feliss_nb.runtime.engine import _workers

    dropped = 0
    for worker in _workers.values():
        for key in list(worker.store.nbytes()):
            if key[0] == checkpoint and key[1] not in worker.worker.ranks:
                worker.store._shards.pop(key)
                dropped += 1
    return dropped


def is_nanny(process: Any) -> bool:
    import psutil

    try:
        return any("nanny" in word for word in process.cmdline())
    except psutil.Error:
        return False


def left_of_children() -> tuple[int, int]:
    """On an engine: how many children it has, and descriptors of their results."""
    import psutil

    folder = "/proc/self/fd"
    links = []
    for name in os.listdir(folder):
        try:
            links.append(os.readlink(f"{folder}/{name}"))
        except OSError:  # the one that lists
            continue
    # Its nanny is a child too; what has ended and was not waited for has no command line.
    children = sum(not is_nanny(child) for child in psutil.Process().children())
    return children, sum("feliss-child" in link for link in links)
