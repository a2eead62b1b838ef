"""What carries the messages of gangs: decided once for all ranks, whatever the engines answer."""

from __future__ import annotations

from typing import Any

import pytest

from feliss_nb.runtime import linking, wire
from feliss_nb.runtime.linking import Linking


class Scene:
    """Engines by name, at the places of a world or not, and what they are sent."""

    now = 100.0

    def __init__(self, places: dict[str, wire.Place | None]) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.changes: list[str] = []
        self.linking = Linking(lambda e, m: self.sent.append((e, m)), self.changes.append)
        for engine, place in places.items():
            self.linking.joined(engine, place)

    def look(self, later: float = 0.0) -> list[tuple[str, Any]]:
        """Let time pass; gives what the engines are sent then."""
        self.sent.clear()
        Scene.now += later
        self.linking.look()
        return sorted(self.sent, key=lambda pair: pair[0])

    def roll_back(self, attempt: int, *hosts: str) -> list[tuple[str, Any]]:
        """An epoch begins; gives what the engines are sent, at once and when it is quiet."""
        self.sent.clear()
        self.linking.begin(attempt, dict(enumerate(hosts)))
        return sorted(self.sent, key=lambda pair: pair[0]) + self.look(later=2 * linking.QUIET)

    def lose(self, engine: str) -> list[tuple[str, Any]]:
        self.sent.clear()
        self.linking.lost(engine)
        return sorted(self.sent, key=lambda pair: pair[0])

    def answer(self, attempt: int, *engines: str, error: str = "") -> list[Any]:
        self.sent.clear()
        for engine in engines:
            self.linking.hear(engine, wire.Linked(attempt, error))
        return sorted(self.sent, key=lambda pair: pair[0])


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linking.time, "monotonic", lambda: Scene.now)


def world(count: int, size: int | None = None, up: bool = True, trouble: str = "") -> Any:
    """Engines a, b, c ... in this order."""
    names = "abcdefgh"[:count]
    return {n: wire.Place("w", i, size or count, up, trouble) for i, n in enumerate(names)}


def test_without_mpi_nobody_is_told_anything() -> None:
    scene = Scene({"a": None, "b": None})
    assert scene.roll_back(1, "a", "b") == []
    assert (scene.linking.carrier, scene.changes) == ("sockets", [])
    assert scene.linking.settled.is_set()


def test_all_members_must_have_answered() -> None:
    scene = Scene(world(3))
    orders = scene.roll_back(1, "b", "a")
    assert [(engine, order.members, order.group) for engine, order in orders] == [
        (engine, (0, 1, 2), (1, 0)) for engine in "abc"
    ]
    assert not scene.linking.settled.is_set()
    assert scene.answer(1, "a", "b") == []
    assert sorted(scene.answer(1, "c")) == [(e, wire.Carrier(1, True)) for e in "abc"]
    assert scene.linking.carrier == "MPI"
    assert scene.linking.settled.is_set()


def linked(places: Any, *hosts: str) -> Scene:
    scene = Scene(places)
    scene.roll_back(1, *hosts)
    scene.answer(1, *places)
    assert scene.linking.carrier == "MPI"
    return scene


def sockets(attempt: int, *engines: str) -> list[tuple[str, Any]]:
    return [(engine, wire.Carrier(attempt, False)) for engine in engines]


def test_ranks_that_share_an_engine_use_the_sockets_at_once() -> None:
    scene = linked(world(3), "a", "b", "c")
    assert scene.lose("b") == []
    assert scene.roll_back(2, "a", "a", "c") == sockets(2, "a", "c")
    assert scene.linking.carrier == "sockets: ranks share an engine"
    assert scene.linking.settled.is_set()


def test_one_that_came_later_is_no_member() -> None:
    scene = linked(world(2), "a", "b")
    scene.linking.joined("z", None)
    scene.lose("a")
    assert scene.roll_back(2, "z", "b") == sockets(2, "b")
    assert scene.linking.carrier == "sockets: engine z is not in the MPI world of the others"


def test_no_communicator_is_made_before_it_is_quiet() -> None:
    """And losses before that cost nothing but time."""
    scene = linked(world(4), "a", "b")
    scene.lose("a")
    scene.linking.begin(2, {0: "c", 1: "b"})
    assert scene.look() == []
    assert scene.look(later=0.9 * linking.QUIET) == []
    assert not scene.linking.settled.is_set()
    assert scene.lose("b") == []
    scene.linking.begin(3, {0: "c", 1: "d"})
    assert scene.look(later=0.9 * linking.QUIET) == []
    orders = scene.look(later=0.2 * linking.QUIET)
    assert [(e, o.members, o.group) for e, o in orders] == [
        ("c", (2, 3), (2, 3)),
        ("d", (2, 3), (2, 3)),
    ]
    assert scene.look() == []
    assert scene.answer(2, "c", "d") == []  # of an attempt that is over
    assert scene.answer(3, "c", "d") == [(e, wire.Carrier(3, True)) for e in "cd"]
    assert scene.linking.carrier == "MPI"


def test_a_spare_is_lost_before_it_is_quiet() -> None:
    scene = linked(world(4), "a", "b")
    scene.lose("a")
    scene.linking.begin(2, {0: "c", 1: "b"})
    assert scene.lose("d") == []
    assert [order.members for _, order in scene.look(later=2 * linking.QUIET)] == [(1, 2)] * 2


def test_an_engine_that_fails_to_link_costs_the_use_of_mpi() -> None:
    scene = linked(world(3), "a", "b")
    scene.lose("a")
    scene.roll_back(2, "c", "b")
    assert scene.answer(2, "b", error="PROC_FAILED") == sockets(2, "b", "c")
    assert scene.answer(2, "c") == []  # it comes too late to matter
    assert scene.linking.carrier == "sockets: PROC_FAILED"
    assert scene.roll_back(3, "c", "b") == sockets(3, "b", "c")
    assert scene.linking.carrier == "sockets: PROC_FAILED"


def test_a_loss_while_they_link_ends_the_wait_and_the_use_of_mpi() -> None:
    scene = linked(world(3), "a", "b")
    scene.roll_back(2, "a", "b")
    assert not scene.linking.settled.is_set()
    assert scene.lose("b") == sockets(2, "a", "c")
    assert scene.linking.settled.is_set()
    assert scene.roll_back(3, "a", "c") == sockets(3, "a", "c")
    assert scene.linking.carrier == ("sockets: an engine was lost while MPI made a communicator")


def test_who_does_not_answer_costs_the_use_of_mpi() -> None:
    scene = Scene(world(2))
    scene.roll_back(1, "a", "b")
    assert scene.look() == []
    assert scene.linking.carrier == "sockets"
    assert scene.look(later=2 * linking.PATIENCE) == sockets(1, "a", "b")
    assert scene.linking.carrier == "sockets: an MPI call of an engine does not end"
    assert scene.roll_back(2, "a", "b") == sockets(2, "a", "b")


@pytest.mark.parametrize(
    ("places", "why"),
    [
        (world(2, size=3, up=False), "not all engines of the MPI world"),
        (world(2, trouble="mpiexec was started without --with-ft ulfm"), "without --with-ft ulfm"),
    ],
)
def test_worlds_that_cannot_be_used(places: Any, why: str) -> None:
    scene = Scene(places)
    assert scene.roll_back(1, "a", "b") == sockets(1, "a", "b")
    assert why in scene.linking.carrier


def test_a_part_of_a_world_that_is_up_will_do() -> None:
    linked(world(2, size=3, up=True), "a", "b")


def test_another_process_learns_what_carries() -> None:
    scene = Scene({})
    scene.linking.take_over(3)
    assert not scene.linking.settled.is_set()
    for engine, place in world(2).items():
        scene.linking.joined(engine, place, (3, True) if engine == "a" else None)
    scene.linking.met()
    carrier = wire.Carrier(3, True)
    assert (scene.sent, scene.linking.carrier) == ([("a", carrier), ("b", carrier)], "MPI")
    # Behind a loss, sockets.
    scene.lose("b")
    assert scene.roll_back(4, "a", "a") == [("a", wire.Carrier(4, False))]
    assert scene.linking.carrier == f"sockets: {linking.TAKEN}"


def test_what_was_not_decided_by_the_process_before_is_not_mpi() -> None:
    scene = Scene({})
    scene.linking.take_over(3)
    for engine, place in world(2).items():
        scene.linking.joined(engine, place, None if engine == "a" else (2, True))
    scene.linking.met()
    assert scene.sent == [("a", wire.Carrier(3, False)), ("b", wire.Carrier(3, False))]
    scene.linking.joined("c", wire.Place("w", 2, 3, True, ""))
    assert scene.sent[-1] == ("c", wire.Carrier(3, False))
