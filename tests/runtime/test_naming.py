"""What cannot travel is named by what the user wrote: the function, its argument, the data."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from feliss_nb.errors import UnpicklableError
from feliss_nb.models import mapreduce
from feliss_nb.models.mpi.spmd import spmd
from feliss_nb.runtime.blobs import Blobs
from feliss_nb.runtime.here import _reply, _serve
from feliss_nb.runtime.naming import name_in_call, name_part
from feliss_nb.runtime.packing import pack_starts
from feliss_nb.runtime.variable import give_result
from feliss_nb.state.handle import Handle

LOCK = threading.Lock()


class Submits:
    """Packs what is submitted, as a session does, and sends it nowhere."""

    size = 2

    def declare(self, records: bool = False, name: str | None = None) -> Any:
        return Handle(7, records)

    def submit(self, starts: Any, **more: Any) -> None:
        pack_starts(starts, Blobs())


class Holds:
    """A callable object that holds what cannot travel."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, *args: Any) -> Any:
        return args


def visit(*args: Any) -> Any:
    return args


# As in a notebook: it travels with the globals that it uses.
CELL: dict[str, Any] = {"__name__": "__main__", "LOCK": LOCK}
exec("def locked(*args): return LOCK, args", CELL)
locked = CELL["locked"]


CALLS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda s: mapreduce.scatter(s, [1, 2, 3, LOCK]), "the data of rank 1[1]"),
    (lambda s: mapreduce.map_(s, visit, [LOCK]), "the data of rank 0[0]"),
    (lambda s: mapreduce.apply(s, visit, 1, [LOCK]), "argument 2 of visit[0]"),
    (lambda s: spmd(s, visit, 1, {"a": LOCK}), "argument 2 of visit['a']"),
    (lambda s: s.submit([(0, give_result, (visit, (LOCK,)))]), "argument 1 of visit"),
    (lambda s: s.submit([(0, visit, (1, LOCK))]), "argument 2 of visit"),
    (lambda s: s.submit([(0, visit, ((LOCK,),))]), "argument 1 of visit[0]"),
    (lambda s: mapreduce.map_(s, Holds(), [1]), "Holds.lock"),
    (lambda s: mapreduce.variable(s, Holds()), "Holds.lock"),
    (lambda s: mapreduce.reduce(s, Holds(), [("a", 1)]), "Holds.lock"),
    (lambda s: mapreduce.apply(s, locked), "locked's global variable 'LOCK'"),
    (lambda s: mapreduce.apply(s, visit, locked), "locked's global variable 'LOCK'"),
]


@pytest.mark.parametrize(("call", "path"), CALLS)
def test_what_is_submitted(call: Callable[[Any], Any], path: str) -> None:
    with pytest.raises(UnpicklableError) as caught:
        call(Submits())
    assert caught.value.path == path
    assert str(caught.value).count("keep what it is made from") == 1


def test_what_continuations_put() -> None:
    def named(function: Any, args: Any, *keys: Any, running: Any = None) -> str | None:
        return name_in_call(function, args, 1, running, keys)

    assert named(visit, (1, 2), 0) == "visit"
    assert named(visit, (1, 2), 1, 1) == "argument 2 of visit"
    assert named(visit, (1, 2)) == named(visit, (1, 2), 1) == "the call of visit"
    some = visit, None, None, "title", 0, None, [LOCK]
    assert named(mapreduce.map_some, some, 1, 6) == "what visit made"
    # A reply: who has called it is known where it runs only.
    assert named(_reply, (b"", LOCK), 1, 1, running=visit) == "what visit made"
    assert named(_reply, (b"", LOCK), 1, 1) == "the data of rank 1"
    assert named(_serve, (visit, (0, LOCK), 0, b""), 1, 1, 1) == "argument 2 of visit"


def test_the_parts_of_a_part_are_named_by_where_they_lie() -> None:
    assert name_part(visit, ([1],), 0, None, (0, 0)) is None
