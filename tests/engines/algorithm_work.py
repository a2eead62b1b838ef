"""A session that stops the programs of `feliss_nb.algorithms` between chosen steps, for a test."""

from __future__ import annotations

import os
from typing import Any

from engine_work import note, touch

import feliss_nb as feliss


class Stopping:
    """A session whose SPMD programs wait before chosen steps for a file.

    While one waits, it takes empty steps: a checkpoint can stand there.

    Parameters
    ----------
    session : Session
        What is not here is its own.
    folder : str
        Of the files: ``reached-K`` is made before step K, ``go-K`` is waited for, and ``steps``
        gets a line for each step begun.
    stops : tuple of int
        Before which steps; the first is step 0.
    """

    def __init__(self, session: feliss.Session, folder: str, stops: tuple[int, ...]) -> None:
        self._session, self._about = session, (folder, stops)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def spmd(self, main: Any, *args: Any, name: str | None = None) -> Any:
        return self._session.spmd(watched, main, args, 0, *self._about, name=name)


def watched(
    comm: Any, step: Any, args: tuple[Any, ...], number: int, folder: str, stops: tuple[int, ...]
) -> Any:
    """Run a step of a program, unless it is to wait."""
    if number in stops:
        path = os.path.join(folder, f"go-{number}")
        touch(os.path.join(folder, f"reached-{number}"))
        if not comm.bcast(os.path.exists(path) if comm.rank == 0 else None):
            return comm.then(watched, step, args, number, folder, stops)
    if comm.rank == 0:
        note(os.path.join(folder, "steps"), number)
    return step(Watched(comm, number, folder, stops), *args)


class Watched:
    """A communicator whose ``then`` leads back to `watched`."""

    def __init__(self, comm: Any, number: int, *about: Any) -> None:
        self._comm, self._number, self._about = comm, number, about

    def __getattr__(self, name: str) -> Any:
        return getattr(self._comm, name)

    def then(self, step: Any, *args: Any) -> Any:
        return self._comm.then(watched, step, args, self._number + 1, *self._about)
