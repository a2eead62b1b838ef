"""A program of all ranks, as one gang: `session.spmd`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feliss_nb.errors import UsageError
from feliss_nb.models.contracts import current
from feliss_nb.models.mpi.gang import gang
from feliss_nb.models.naming import name_of, shorten
from feliss_nb.runtime import BaseSession, Variable
from feliss_nb.state.handle import Target

__all__ = ["spmd"]


def spmd(
    session: BaseSession, main: Callable[..., Any], *args: Any, name: str | None = None
) -> Variable:
    """Run ``main(comm, *args)`` on every rank, as one gang.

    Parameters
    ----------
    session : BaseSession
        Where.
    main : callable
        Gets an mpi4py communicator. ``comm.then(step, *args)``, called last by every rank, makes
        ``step(comm, *args)`` the rest of the program: a checkpoint can stand between.
    *args : object
        Handles of variables among them are waited for, on every rank.
    name : str, optional
        Of the result.

    Returns
    -------
    Variable
        Of values: what the last step returned on each rank.
    """
    if not callable(main):
        raise UsageError(f"main is {shorten(main)}; give a function of (comm, ...)")
    out = session.declare(records=False, name=name)
    call = Target(out.variable), main, args
    starts = [(rank, run_step, call) for rank in range(session.size)]
    session.submit(starts, outputs=[out], label=f"spmd {name_of(main)}", gang=True)
    return out


def run_step(out: Target, step: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Run this rank's part of a step, and make the next one or keep what it returned."""
    at = current()
    at.stands_for(step)
    port, objects = at.gang()
    goes_on = False

    def then(following: Callable[..., Any], more: tuple[Any, ...], needs: frozenset[int]) -> None:
        nonlocal goes_on
        goes_on = True
        at.then(run_step, out, following, more, needs=sorted(needs))

    with gang(port, then, objects=objects) as comm:
        value = step(comm, *args)
        if not goes_on:
            comm.check_quiet()
            at[out] = value
