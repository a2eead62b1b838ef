"""Programs in steps, between which a checkpoint can stand, on any communicator.

A step is a function of (comm, ...) that returns the program's value, or what :func:`go_on` gives.
Where the communicator has ``then`` (inside ``session.spmd``), the rest of the program becomes the
gang's next continuation; where it has none (mpi4py), :func:`run` calls it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import threadpoolctl

from feliss_nb.errors import UsageError

#: Seconds that a step may take: a checkpoint waits for the step that runs, and a step's end costs
#: about a millisecond of messages.
STEP = 0.2


@dataclass(frozen=True, slots=True)
class Rest:
    """The rest of a program, on a communicator without ``then``."""

    step: Callable[..., Any]
    args: tuple[Any, ...]


class Whole:
    """A communicator without ``then``: a program on it runs to its end within the present step.

    For a program inside another one, and for the communicator of some of the ranks.

    Parameters
    ----------
    comm : communicator
        Everything else is its own.
    """

    then = None

    def __init__(self, comm: Any) -> None:
        self._comm = comm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._comm, name)


def go_on(comm: Any, step: Callable[..., Any], *args: Any) -> Any:
    """Return the rest of the program, ``step(comm, *args)``; every rank does, last of all."""
    then = getattr(comm, "then", None)
    return Rest(step, args) if then is None else then(step, *args)


def run(comm: Any, step: Callable[..., Any], *args: Any) -> Any:
    """Run a program from a step on: to its end, or to the first ``then`` that the gang makes."""
    value = step(comm, *args)
    while isinstance(value, Rest):
        value = value.step(comm, *value.args)
    return value


def per_step(operations: float, rate: float) -> int:
    """Count the units of work that make a step.

    Parameters
    ----------
    operations : float
        Of a rank in one unit; the same number on all ranks.
    rate : float
        Operations a second of a slow processor.
    """
    return max(1, int(STEP * rate / max(operations, 1.0)))


def agree(comm: Any, complaint: str | None) -> None:
    """Raise the first rank's complaint on every rank, if any rank has one.

    A rank that raised alone would leave the others waiting for its messages.

    Raises
    ------
    UsageError
        A rank complains.
    """
    for rank, said in enumerate(comm.allgather(complaint)):
        if said is not None:
            raise UsageError(f"{said} (rank {rank})")


_lock = threading.Lock()
_inside = 0
_limits: Any = None


@contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS use one thread in this process meanwhile: ranks are the threads of a program.

    Two ranks with two threads each on two cores wait for each other's spinning; and the order of
    adding, so the bits, depends on the number of threads. The limit is the process's, so it is
    taken back only when the last of the ranks that share the process has left.
    """
    global _inside, _limits
    with _lock:
        if not _inside:
            _limits = threadpoolctl.threadpool_limits(1, user_api="blas")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _limits.restore_original_limits()
