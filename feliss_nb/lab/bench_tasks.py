"""``feliss-nb bench tasks``: what a continuation, a hop and an array on its way cost.

What is compared is measured in one run, in turns, and reported as medians: on a shared machine the
speed of everything changes from one second to the next.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import zmq

import feliss_nb as feliss
from feliss_nb.lab.report import Report

#: About what the head of a hop weighs.
_MESSAGE = b"x" * 200
_LINGER = 1000  # ms in which the last answer must leave


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes
    ----------
    starts : int
        Sessions that are started, each with ``workers`` and ``spares``.
    turns : int
        Of each measurement but the next.
    exchanges : int
        Turns of hops and raw messages: many and short, so that both see the same moments.
    hops : int
        In a turn, continuations that go to and fro between two ranks, and as many raw messages;
        even.
    chain : int
        Continuations, each put by the one before.
    array : int
        Bytes of an array on its way.
    flights : int
        How often it goes; even.
    """

    starts: int = 3
    workers: int = 4
    spares: int = 1
    turns: int = 9
    exchanges: int = 50
    hops: int = 400
    chain: int = 50_000
    array: int = 64 << 20
    flights: int = 4


QUICK = Sizes(1, 2, 0, 1, 2, 50, 1_000, 1 << 20, 2)


def tasks(json: bool, quick: bool = False) -> int:
    """Measure continuations a second, hops, arrays and the start of a session.

    Parameters
    ----------
    json : bool
        Print one object instead of a table.
    quick : bool
        Little of each: figures that mean nothing, to see that it runs.

    Returns
    -------
    int
        0: a target that is missed is a finding, not a failure.
    """
    sizes = QUICK if quick else Sizes()
    report = Report("tasks")
    ready = [_start(sizes) for _ in range(sizes.starts)]
    _measure(report, sizes)
    name = f"start(workers={sizes.workers}, spares={sizes.spares}) until ready"
    report.add(name, median(ready), "s", at_most=5.0)
    report.print(json)
    return 0


def _start(sizes: Sizes) -> float:
    begun = time.perf_counter()
    with feliss.start(workers=sizes.workers, spares=sizes.spares):
        return time.perf_counter() - begun


def _measure(report: Report, sizes: Sizes) -> None:
    chains: list[float] = []
    submits: list[float] = []
    hops: list[float] = []
    raws: list[float] = []
    flights: list[float] = []
    copies: list[float] = []
    with raw_echo() as raw, feliss.start(workers=2) as session:
        log = session.variable(_new_log)
        memcpy = _memcpy(sizes.array)
        _hop(session, log, sizes.hops)
        for _ in range(sizes.exchanges):
            raws.append(raw(sizes.hops // 2) / sizes.hops)
            hops.append(_hop(session, log, sizes.hops) / sizes.hops)
        for _ in range(sizes.turns):
            chains.append(sizes.chain / _chain(session, log, sizes.chain))
            copies.append(memcpy() / sizes.array)
            flights.append(_fly(session, log, sizes) / sizes.array / sizes.flights)
            submits.append(_submit(session))
        checkpoints = [session.checkpoint().seconds for _ in range(sizes.turns)]
    report.add("continuations on a rank", median(chains), "1/s", at_least=50_000)
    report.add("hop from engine to engine, one way", median(hops) * 1e6, "us")
    report.add("raw pyzmq over ipc, one way", median(raws) * 1e6, "us")
    report.add("hop / raw pyzmq", median(hops) / median(raws), "", at_most=4.0)
    megabytes = sizes.array >> 20
    report.add(f"arrays of {megabytes} MB, engine to engine", 1e-9 / median(flights), "GB/s")
    report.add(f"memcpy of {megabytes} MB", 1e-9 / median(copies), "GB/s")
    report.add("memcpy / arrays", median(flights) / median(copies), "")
    report.add("put() and wait(), from the notebook", median(submits) * 1e3, "ms")
    report.add("checkpoint of ranks without state", median(checkpoints) * 1e3, "ms")


# --------------------------------------------------------------------------------------- on ranks


def _new_log(rank: int, size: int) -> list[float]:
    return []


def _step(log: feliss.Variable, left: int) -> None:
    here = feliss.here()
    if left:
        here.put(_step, log, left - 1)
    else:
        here[log].append(time.perf_counter())


def _bounce(log: feliss.Variable, left: int) -> None:
    here = feliss.here()
    if left:
        here.put(_bounce, log, left - 1, rank=1 - here.rank)
    else:
        here[log].append(time.perf_counter())


def _carry(log: feliss.Variable, array: Any, left: int) -> None:
    here = feliss.here()
    if left:
        here.put(_carry, log, array, left - 1, rank=1 - here.rank)
    else:
        here[log].append(time.perf_counter())


def _make_and_carry(log: feliss.Variable, nbytes: int, left: int) -> None:
    array = np.ones(nbytes // 8)
    feliss.here()[log].append(time.perf_counter())
    _carry(log, array, left)


def _clocked(function: Callable[..., None], log: feliss.Variable, *args: Any) -> None:
    feliss.here()[log].append(time.perf_counter())
    function(log, *args)


def _nothing() -> None:
    pass


# ----------------------------------------------------------------------------- from the notebook


def _between(session: feliss.Session, log: feliss.Variable, *start: Any) -> float:
    """Seconds between the first and the last continuation of a job, both on rank 0."""
    session.put(*start, rank=0).wait()
    begun, ended = log.partitions()[0][-2:]
    return float(ended - begun)


def _chain(session: feliss.Session, log: feliss.Variable, length: int) -> float:
    return _between(session, log, _clocked, _step, log, length)


def _hop(session: feliss.Session, log: feliss.Variable, hops: int) -> float:
    return _between(session, log, _clocked, _bounce, log, hops)


def _fly(session: feliss.Session, log: feliss.Variable, sizes: Sizes) -> float:
    return _between(session, log, _make_and_carry, log, sizes.array, sizes.flights)


def _submit(session: feliss.Session) -> float:
    begun = time.perf_counter()
    session.put(_nothing, rank=0).wait()
    return time.perf_counter() - begun


# ------------------------------------------------------------------------------ to compare with


def _memcpy(nbytes: int) -> Callable[[], float]:
    """Return a function that copies this many bytes and gives the seconds."""
    source, target = np.ones(nbytes // 8), np.zeros(nbytes // 8)

    def copy() -> float:
        begun = time.perf_counter()
        np.copyto(target, source)
        return time.perf_counter() - begun

    return copy


@contextmanager
def raw_echo() -> Iterator[Callable[[int], float]]:
    """Give a function that exchanges messages with another process and gives the seconds.

    Plain pyzmq, one thread at each end, one message under way: nothing of what keeps a message
    safe.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork would copy this process's threads' locks
    with tempfile.TemporaryDirectory(prefix="feliss-") as folder, zmq.Context() as context:
        address = f"ipc://{Path(folder) / 'echo'}"
        with context.socket(zmq.PAIR) as socket:
            socket.bind(address)
            other = spawn.Process(target=_echo, args=(address,), daemon=True)
            other.start()

            def exchange(count: int) -> float:
                begun = time.perf_counter()
                for _ in range(count):
                    socket.send(_MESSAGE)
                    socket.recv()
                return time.perf_counter() - begun

            try:
                exchange(10)
                yield exchange
            finally:
                other.kill()
                other.join()
                socket.close(0)


def _echo(address: str) -> None:
    with zmq.Context() as context, context.socket(zmq.PAIR) as socket:
        socket.setsockopt(zmq.LINGER, _LINGER)
        socket.connect(address)
        while True:
            socket.send(socket.recv())
