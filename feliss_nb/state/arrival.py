"""What an unpickling knows of the place it happens in.

Objects rebuild themselves through module functions (pickle gives them no other argument), so the
namespace to bind functions to and the maker of handles are kept in a context variable (so per
thread) while a stream is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FunctionType
from typing import Any, Protocol


class Home(Protocol):
    """The part of a namespace that rebuilt functions need."""

    def resolve(self, digest: bytes, name: str | None) -> object:
        """The function or class with this name."""

    def adopt(self, skeleton: dict[str, Any], arrival: Arrival) -> dict[str, Any]:
        """The globals that a function of ``skeleton`` shall run in."""

    def anchor(self, function: FunctionType) -> None:
        """Take note of a function that runs in the home globals."""

    def home_globals(self) -> dict[str, Any]:
        """The one dictionary that the functions of ``__main__`` share here."""


class Arrival:
    """One stream being read.

    Attributes
    ----------
    namespace : Home or None
        Where functions are bound; without one every stream has globals of its own.
    make_handle : callable or None
        Replaces the plain handles, ``(variable, records) -> object``.
    renew_classes : bool
        Whether the definition in the stream is written over a class that arrived here before.
    skeleton : dict or None
        The stream's dictionary of globals in whose place the namespace's stands.
    """

    __slots__ = ("make_handle", "namespace", "renew_classes", "skeleton")

    def __init__(
        self,
        namespace: Home | None = None,
        make_handle: Callable[[int, bool], object] | None = None,
        renew_classes: bool = False,
    ) -> None:
        self.namespace = namespace
        self.make_handle = make_handle
        self.renew_classes = renew_classes
        self.skeleton: dict[str, Any] | None = None


_current: ContextVar[Arrival | None] = ContextVar("feliss_nb_arrival", default=None)


def current() -> Arrival | None:
    """The stream that this thread reads, if it reads one."""
    return _current.get()


#: The two halves of `reading`.
enter = _current.set
leave = _current.reset


@contextmanager
def reading(arrival: Arrival) -> Iterator[None]:
    """Everything unpickled by this thread inside belongs to ``arrival``."""
    # A user's __setstate__ may unpickle something itself: the outer stream comes back after it.
    token = _current.set(arrival)
    try:
        yield
    finally:
        _current.reset(token)
