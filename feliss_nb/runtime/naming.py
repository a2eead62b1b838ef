"""What errors call the parts of a continuation: what the user wrote, not what a model adds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

from feliss_nb.runtime.failure import name_of
from feliss_nb.runtime.poisoned import is_ours, users_call


def name_part(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    rank: int,
    running: Callable[..., Any] | None,
    keys: tuple[Any, ...],
) -> str | None:
    """Return what to call a part of a continuation's arguments; None: by where it lies in another.

    Parameters
    ----------
    function : callable
        The continuation's.
    args : tuple
        Its arguments.
    rank : int
        Where it goes to.
    running : callable or None
        The user's function that has made it, where that is known.
    keys : tuple
        Keys, attributes and indices down to the part: see `feliss_nb.state.pack`.
    """
    if not keys:
        return f"the call of {name_of(users_call(function, args)[0])}"
    at, depth = keys[0], len(keys)
    if not is_ours(function):
        return _argument(function, at) if depth == 1 else None
    called, _ = users_call(function, args)
    if args[at] is called:
        return name_of(called) if depth == 1 else None
    if called is not function and isinstance(args[at], tuple):  # the user's, as they were given
        return _argument(called, keys[1]) if depth == 2 else None
    if depth == 2 and callable(inner := getattr(args[at], str(keys[1]), None)):
        return name_of(inner)
    if depth > 1:
        return None
    if called is not function and isinstance(function, FunctionType):
        code = function.__code__
        if code.co_flags & inspect.CO_VARARGS and at >= code.co_argcount:
            return _argument(called, at - code.co_argcount)
    made = running if called is function else called
    return f"the data of rank {rank}" if made is None else f"what {name_of(made)} made"


def name_in_call(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    rank: int,
    running: Callable[..., Any] | None,
    keys: tuple[Any, ...],
) -> str | None:
    """Return what to call a part of the pair of a continuation's function and its arguments."""
    if keys[:1] == (0,):
        return name_of(function) if len(keys) == 1 else None
    return name_part(function, args, rank, running, keys[1:])


def _argument(function: Callable[..., Any], index: int) -> str:
    return f"argument {index + 1} of {name_of(function)}"
