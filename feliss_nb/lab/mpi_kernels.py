"""What ``bench mpi`` runs on every rank: plain numpy and an mpi4py communicator, of whatever make.

The file imports nothing of this package, so that plain mpi4py runs it too, as a script:
``mpiexec -n 2 python mpi_kernels.py PLAN``, with the plan as JSON.
"""
# ruff: noqa: N803  MPI is a module, here as in mpi4py

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np

#: Seconds of one call, by the name of the call and the bytes of its buffer.
Times = dict[str, list[list[float]]]


def measure(comm: Any, MPI: Any, plan: dict[str, Any]) -> dict[str, Any]:
    """Measure every call at every size, and every program.

    Parameters
    ----------
    comm : communicator
    MPI : module
        That of the communicator.
    plan : dict
        ``sizes``: pairs of bytes and how often; ``calls``: names of ``CALLS``; ``programs``:
        triples of name, ``"module:function"`` and arguments behind the communicator.

    Returns
    -------
    dict
        ``calls``: for each name the pairs of bytes and median seconds, of the slowest rank each
        time; ``programs``: the seconds of each.
    """
    calls: Times = {name: [] for name in plan["calls"]}
    for nbytes, count in plan["sizes"]:
        for name in plan["calls"]:
            once = CALLS[name](comm, MPI, nbytes)
            if once is not None:
                calls[name].append([nbytes, _seconds(comm, MPI, once, count) / WAYS.get(name, 1)])
    programs = {}
    for name, where, args in plan.get("programs", ()):
        programs[name] = _seconds(comm, MPI, partial(_function(where), comm, *args), 2)
    return {"calls": calls, "programs": programs}


def _seconds(comm: Any, MPI: Any, once: Callable[[], Any], count: int) -> float:
    times = []
    for turn in range(count + 1):
        comm.Barrier()
        begun = time.perf_counter()
        once()
        spent = comm.allreduce(time.perf_counter() - begun, op=MPI.MAX)
        if turn or count == 1:  # the first one brings in pages
            times.append(spent)
    return median(times)


def _function(where: str) -> Callable[..., Any]:
    module, _, name = where.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _ping(comm: Any, MPI: Any, nbytes: int) -> Callable[[], Any]:
    """To rank 1 and back: two messages."""
    buffer = np.ones(nbytes, np.uint8)

    def once() -> None:
        if comm.rank == 0:
            comm.Send(buffer, 1)
            comm.Recv(buffer, 1)
        elif comm.rank == 1:
            comm.Recv(buffer, 0)
            comm.Send(buffer, 0)

    return once


def _bcast(comm: Any, MPI: Any, nbytes: int) -> Callable[[], Any]:
    buffer = np.ones(nbytes, np.uint8)
    return lambda: comm.Bcast(buffer)


def _allreduce(comm: Any, MPI: Any, nbytes: int) -> Callable[[], Any]:
    mine, total = np.ones(nbytes // 8), np.zeros(nbytes // 8)
    return lambda: comm.Allreduce(mine, total)


def _alltoall(comm: Any, MPI: Any, nbytes: int) -> Callable[[], Any] | None:
    """``nbytes`` a rank, in equal blocks for all ranks."""
    each = nbytes // comm.size
    if not each:
        return None
    mine, theirs = np.ones(each * comm.size, np.uint8), np.zeros(each * comm.size, np.uint8)
    return lambda: comm.Alltoall(mine, theirs)


#: Make the buffers of a call, and give what calls it once.
CALLS: dict[str, Callable[[Any, Any, int], Callable[[], Any] | None]] = {
    "Send and Recv, one way": _ping,
    "Bcast": _bcast,
    "Allreduce": _allreduce,
    "Alltoall": _alltoall,
}
#: Messages one behind the other in a call, where it is more than one.
WAYS = {"Send and Recv, one way": 2}


def main(arguments: Sequence[str]) -> None:
    """Measure under plain mpi4py, and print what rank 0 found."""
    from mpi4py import MPI

    found = measure(MPI.COMM_WORLD, MPI, json.loads(arguments[0]))
    if MPI.COMM_WORLD.Get_rank() == 0:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
