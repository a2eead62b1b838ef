"""What is said and kept of a continuation that is set aside: see `core.poison`."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from feliss_nb.core import messages as m
from feliss_nb.errors import PoisonError

_LONGEST = 120


@dataclass(frozen=True, slots=True)
class SetAside:
    """A continuation that does not run any more, for a person to look at.

    Attributes
    ----------
    name : str
        Of its function.
    rank, job : int
        Where it ran, and of what job.
    losses : int
        How many engines were lost while it ran.
    record : str or None
        The record at hand, where a model knows it.
    function : callable or None
        The function; None if it could not travel.
    args : tuple
        Its arguments, or the record.
    why : str
        Why function and arguments are not here; empty if they are.
    """

    name: str
    rank: int
    job: int
    losses: int
    record: str | None
    function: Callable[..., Any] | None
    args: tuple[Any, ...]
    why: str = ""


def opened(told: m.SetAside, read: Callable[[Any], Any]) -> SetAside:
    """Return what the master tells of a continuation, with its function and arguments.

    Parameters
    ----------
    told : SetAside
        By the core.
    read : callable
        Makes objects of a message's body.
    """
    function, args, why = None, (), ""
    if isinstance(told.call, str):
        why = told.call
    else:
        try:
            function, args = read(told.call)
        except Exception as error:  # noqa: BLE001 - the user's classes
            why = f"{type(error).__name__}: {error}"
    about = told.function, told.rank, told.job, told.losses, told.record
    return SetAside(*about, function, args, why)


def short_call(args: tuple[Any, ...]) -> str:
    """Give arguments as a call shows them, in one line, whatever their own reprs do."""
    texts = []
    for arg in args:
        try:
            texts.append(" ".join(reprlib.repr(arg).split()))
        except Exception:  # noqa: BLE001 - a repr that fails must not hide what is being reported
            texts.append(f"<{type(arg).__name__}>")
    text = ", ".join(texts)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def is_ours(function: object) -> bool:
    """Whether a continuation's function is a model's, and not the user's."""
    return str(getattr(function, "__module__", "")).startswith("feliss_nb.")


def users_call(function: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Find the user's function, and its arguments, in a continuation that a model has made."""
    if not is_ours(function):
        return function, args
    for at, arg in enumerate(args):
        if callable(arg):
            return arg, args[at + 1 :]
    return function, args


def poison_error(
    name: str, arguments: str, rank: int, record: str | None, losses: int
) -> PoisonError:
    """Return the error that the job of a continuation ends with which was set aside."""
    at = f", {record}," if record else ""
    text = (
        f"{name}({arguments}) on rank {rank}{at} is set aside: {losses} engines were lost while it "
        "ran (killed, out of memory, or longer than its timeout). session.set_aside has it with "
        "its arguments. If the losses had another cause, submit it again; start(losses=) says how "
        "many are too many"
    )
    return PoisonError(text, rank, record, name, arguments, losses)
