"""Continuations that the tests run on engines, which import this module."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import feliss_nb as feliss


def on_engines(session: feliss.Session, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What a function gives on each living engine, called by ipyparallel's own means.

    The client hears of a loss and of a new engine a moment later than the session.
    """
    alive = {engine.engine for engine in session.status().engines if engine.role != "dead"}
    targets = sorted(alive & set(session.client.ids))
    found: list[Any] = session.client[targets].apply_async(function, *args).get(timeout=60.0)
    return found


def nothing() -> None:
    pass


def touch(path: str) -> None:
    Path(path).touch()


def note(path: str, text: object) -> None:
    """Add a line to a file in one write: an effect outside, which tells how often it happened."""
    with open(path, "a") as file:
        file.write(f"{text}\n")


def touch_and_wait(started: str, go: str) -> None:
    """Say that it runs, and end when told to."""
    touch(started)
    while not os.path.exists(go):
        time.sleep(0.005)


def sleep_in_c(started: str, seconds: float) -> None:
    """Wait where no interrupt of the interpreter is heard."""
    touch(started)
    time.sleep(seconds)


def import_value(out: Any, folder: str, name: str, started: str) -> None:
    """Set a variable to what a module, to be imported, holds."""
    note(started, os.getpid())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    feliss.here()[out] = importlib.import_module(name).value


def break_worker_once(broke: str) -> None:
    """Make the thread fail that speaks with the master; behind the loss do nothing."""
    from feliss_nb.runtime.engine import _workers

    if os.path.exists(broke):
        return
    touch(broke)
    for worker in _workers.values():
        worker.control._outbox.append([object()])
    while True:
        time.sleep(0.005)


def spin(started: str) -> None:
    """Run for ever, in pure Python, in one continuation."""
    touch(started)
    while True:
        pass


def spin_deaf(started: str, go: str) -> None:
    """Run on through every attempt to stop it."""
    while not os.path.exists(go):
        try:
            touch(started)
            time.sleep(0.001)
        except BaseException:  # noqa: BLE001
            continue


def set_variable(target: Any, value: Any) -> None:
    feliss.here()[target] = value


def read_variable(handle: Any, out: Any) -> None:
    at = feliss.here()
    at[out] = at[handle]


def zeros(rank: int, size: int) -> dict[str, Any]:
    return {"visits": 0, "sum": 0, "order": [], "draws": []}


def token(ring: Any, value: int, last: int) -> None:
    """Walk the ring, one continuation a step."""
    at = feliss.here()
    mine = at[ring]
    mine["visits"] += 1
    mine["sum"] += value
    if value < last:
        at.put(token, ring, value + 1, last, rank=(at.rank + 1) % at.size)


def scatter_steps(ring: Any, left: int) -> None:
    """Send units to ranks drawn at random: what is sent is always what is taken, plus one unit."""
    at = feliss.here()
    mine = at[ring]
    mine["visits"] += 1
    mine["sum"] += left
    if left:
        at.put(scatter_steps, ring, left - 1, rank=int(at.rng.integers(at.size)))


def start_arrays(rank: int, size: int) -> dict[str, Any]:
    base = np.arange(200_000, dtype=float) + rank
    return {"base": base, "view": base[10:20], "small": np.zeros(3), "raw": bytearray(8)}


def mutate(handle: Any, value: float) -> None:
    mine = feliss.here()[handle]
    mine["base"][:] = value
    mine["view"][0] = -value  # the same memory as base[10]
    mine["small"] += value
    mine["raw"][0] = int(value)
