"""``python -m feliss_nb.lab.mpi_thresholds``: where one algorithm of a collective beats the other.

Each constant that chooses between two ways is set so that all calls go the one way, then the other,
in turns, on every rank. The table gives the medians, and from which size on the second is quicker.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

import feliss_nb as feliss
from feliss_nb import MPI
from feliss_nb.lab.bench_mpi import text_of_bytes
from feliss_nb.models.mpi import moving, reducing
from feliss_nb.runtime import shared

_NEVER = 1 << 62
_TURNS = 5
_SIZES = [1 << power for power in range(10, 24)]

#: What a choice is called, the constant behind it, the call that it is measured with, and the
#: values that make every call go the first way and the second.
Choice = tuple[str, Any, str, str, int, int]
CHOICES: list[Choice] = [
    ("Send: socket, shared memory", shared.LIMITS, "least", "send", _NEVER, 1),
    ("Bcast: tree, stretches or ring", moving, "LONG_BROADCAST", "bcast", _NEVER, 1),
    ("Allgather: Bruck, pairwise", moving, "SHORT_ALLGATHER", "allgather", _NEVER, 0),
    ("Allreduce: doubling, blocks", reducing, "LONG_REDUCTION", "allreduce", _NEVER, 1),
    ("Small Bcast: tree, direct", moving, "FEW_RANKS", "bcast", 0, _NEVER),
    ("Small Gather: tree, direct", moving, "FEW_RANKS", "gather", 0, _NEVER),
]


def _call(comm: Any, name: str, nbytes: int) -> Callable[[], Any]:
    """Give a call on buffers of so many bytes; of an allgather and a gather, all ranks together."""
    count = nbytes // 8
    each = max(count // comm.size, 1)
    mine, theirs = np.ones(count), np.zeros(max(count, each * comm.size))
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    root = theirs[: each * comm.size]
    return {
        "send": lambda: comm.Sendrecv(mine, right, recvbuf=theirs[:count], source=left),
        "bcast": lambda: comm.Bcast(mine),
        "gather": lambda: comm.Gather(mine[:each], root if comm.rank == 0 else None),
        "allgather": lambda: comm.Allgather(mine[:each], root),
        "allreduce": lambda: comm.Allreduce(mine, theirs[:count]),
    }[name]


def measure(comm: Any, which: int, sizes: Sequence[int], value: int) -> list[float]:
    """Seconds of a call at each size, the slowest rank's, with a constant set to ``value``."""
    _, home, constant, name, _, _ = CHOICES[which]
    usual = getattr(home, constant)
    setattr(home, constant, value)
    found = []
    for nbytes in sizes:
        once = _call(comm, name, nbytes)
        times = []
        for _ in range(21):
            comm.Barrier()
            begun = time.perf_counter()
            once()
            times.append(comm.allreduce(time.perf_counter() - begun, op=MPI.MAX))
        found.append(median(times[1:]))
    setattr(home, constant, usual)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    workers = parser.parse_args().workers
    with feliss.start(workers=workers, checkpoint_every=None) as session:
        for which, (title, _, constant, _, first, second) in enumerate(CHOICES):
            print(f"\n{title} ({constant}), {workers} ranks")
            turns: list[list[list[float]]] = [[], []]
            for _ in range(_TURNS):
                for way, value in enumerate((first, second)):
                    out = session.spmd(measure, which, _SIZES, value)
                    turns[way].append(out.partitions()[0])
            for index, nbytes in enumerate(_SIZES):
                a, b = (median(turn[index] for turn in way) for way in turns)
                quicker = "second" if b < a else "first"
                print(
                    f"  {text_of_bytes(nbytes):>8}{a * 1e6:12,.0f} us{b * 1e6:12,.0f} us  {quicker}"
                )


if __name__ == "__main__":
    main()
