"""Continuations and stores of the tests of sessions on stores; engines import this module."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import feliss_nb as feliss
from feliss_nb.state.handle import Handle, Target
from feliss_nb.store import FileStore, Record
from feliss_nb.store.shards import Frames


def walk(out: Target, gate: Target, left: int, half: int, state: np.ndarray) -> None:
    """Go from rank to rank and leave the state where it ends; half way it waits for the gate."""
    here = feliss.here()
    if left == 0:
        here[out] = state
        return
    state = (state * 1.7 + here.rng.random(state.size)) % 11
    if left == half:
        here.put(wait_here, out, Handle(gate.variable, False), left - 1, state, rank=here.rank)
    else:
        here.put(walk, out, Target(gate.variable), left - 1, half, state, rank=ahead(here))


def wait_here(out: Target, gate: Handle, left: int, state: np.ndarray) -> None:
    """Runs when the gate is open; that it waits is in the pool, not in any thread."""
    here = feliss.here()
    here.put(walk, out, Target(gate.variable), left, -1, state, rank=ahead(here))


def ahead(here: Any) -> int:
    return (here.rank + 1) % here.size


def open_when(gate: Target, go: str) -> None:
    """Open the gate when a file is there."""
    here = feliss.here()
    if os.path.exists(go):
        here[gate] = True
        return
    time.sleep(0.005)
    here.put(open_when, gate, go, rank=here.rank)


def begin(session: feliss.Session, go: str) -> feliss.Variable:
    """Submit a job that stands half way until the file `go` is there; the variable it fills."""
    gate, out = session.declare(name="gate"), session.declare(name="out")
    ranks = range(session.size)
    session.submit(
        [(r, open_when, (Target(gate.variable), go)) for r in ranks], [gate], label="gate"
    )
    fill = Target(out.variable)
    hops = 6 * session.size  # a state ends where it began
    starts = [(r, walk, (fill, Target(gate.variable), hops, 8, np.arange(4.0) + r)) for r in ranks]
    session.submit(starts, [out], label="walk")
    return out


class TroubledStore(FileStore):
    """A directory that is full, or slow, while a file of that name lies beside it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return TroubledStore, (self.directory,)

    def flag(self, name: str) -> Path:
        return Path(f"{self.directory}.{name}")

    def put(self, checkpoint: int, rank: int, frames: Frames) -> Record:
        if isinstance(frames, Iterator):
            self.flag(f"followed-{checkpoint}-{rank}").touch()
        if self.flag("full").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        while self.flag("slow").exists():
            self.flag(f"{checkpoint}-{rank}").touch()
            time.sleep(0.005)
        return super().put(checkpoint, rank, frames)


def zeros(rank: int, size: int) -> np.ndarray:
    return np.zeros(100_000)


def set_one(array: Handle, step: int) -> None:
    feliss.here()[array][step] = step


def some_of_each(rank: int, size: int) -> dict[str, Any]:
    """More than is written at once, of what goes into the stream and of what does not."""
    array = np.arange(3_000_000.0)
    return {
        "counts": {i: i * i for i in range(2_000_000)},
        "array": array,
        "view": array[10:20],
        "small": np.arange(5),
        "raw": bytearray(b"r" * 100_000),
    }


def same(found: Any, expected: Any) -> bool:
    view = found["view"]
    view[0] = -1  # is one still
    return (
        found["counts"] == expected["counts"]
        and list(found["counts"]) == list(expected["counts"])
        and found["array"][10] == -1
        and bool((found["array"][11:] == expected["array"][11:]).all())
        and found["raw"] == expected["raw"]
        and found["small"].tolist() == expected["small"].tolist()
    )
