"""References to distributed variables, as they stand in arguments and closures."""

from __future__ import annotations

from typing import Any, TypeVar

from feliss_nb.state import arrival

_Self = TypeVar("_Self")


class Handle:
    """A reference to a distributed variable.

    A continuation that carries one waits until the variable has a partition on its rank. Equal
    handles name the same variable, whatever their class.

    Parameters
    ----------
    variable : int
        The identity of the variable.
    records : bool
        Whether it holds records (else values).
    """

    __slots__ = ("__weakref__", "records", "variable")

    def __init__(self, variable: int, records: bool = False) -> None:
        self.variable = variable
        self.records = records

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and other.variable == self.variable

    def __hash__(self) -> int:
        return hash(("handle", self.variable))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.variable})"

    def __copy__(self: _Self) -> _Self:
        return self

    def __deepcopy__(self: _Self, memo: dict[int, Any]) -> _Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # A subclass has a session behind it, which has no meaning elsewhere: only the name travels.
        return make_handle, (self.variable, self.records)


class Target:
    """The writing end of a variable: it keeps the variable alive and is not waited for.

    Parameters
    ----------
    variable : int
        The identity of the variable.
    """

    __slots__ = ("variable",)

    def __init__(self, variable: int) -> None:
        self.variable = variable

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Target) and other.variable == self.variable

    def __hash__(self) -> int:
        return hash(("target", self.variable))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.variable})"

    def __reduce__(self) -> tuple[Any, ...]:
        return make_target, (self.variable,)


def make_handle(variable: int, records: bool = False) -> object:
    """A handle as it arrives: a plain one, or what the reader of the stream makes of it."""
    stream = arrival.current()
    if stream is not None and stream.make_handle is not None:
        return stream.make_handle(variable, records)
    return Handle(variable, records)


def make_target(variable: int) -> Target:
    """A target as it arrives."""
    return Target(variable)
