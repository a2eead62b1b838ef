"""What carries the messages of gangs: decided once for all ranks, whatever the engines answer."""

from __future__ import annotations

from typing import Any

import pytest

from feliss_nb.runtime import linking, wire
from feliss_nb.runtime.linking import Linking


class Scene:
    """Engines by name, at the places of a world or not, and what they are sent."""

    def __init__(self, places: dict[str, wire.Place | None]) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.changes: list[str] = []
        self.linking = Linking(lambda e, m: self.sent.append((e, m)), self.changes.append)
        self.alive = set(places)
        for engine, place in places.items():
            self.linking.joined(engine, place)

    def roll_back(self, attempt: int, *hosts: str) -> list[tuple[str, Any]]:
        """All engines that live are told; gives what they are sent behind it."""
        self.sent.clear()
        for engine in sorted(self.alive):
            self.linking.order(engine, attempt, dict(enumerate(hosts)))
        return list(self.sent)

    def lose(self, engine: str) -> None:
        self.alive.discard(engine)
        self.linking.lost(engine)

    def answer(
        self, attempt: int, *engines: str, error: str = "", final: bool = False
    ) -> list[Any]:
        self.sent.clear()
        for engine in engines:
            self.linking.hear(engine, wire.Linked(attempt, error, final))
        return list(self.sent)


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
    scene.answer(1, *scene.alive)
    assert scene.linking.carrier == "MPI"
    return scene


def test_a_loss_shrinks_the_world_though_the_sockets_carry() -> None:
    scene = linked(world(3), "a", "b", "c")
    scene.lose("b")
    orders = scene.roll_back(2, "a", "a", "c")
    assert [(e, o.members, o.group) for e, o in orders] == [("a", (0, 2), ()), ("c", (0, 2), ())]
    assert scene.linking.carrier == "sockets: ranks share an engine"
    assert scene.linking.settled.is_set()
    assert scene.answer(2, "a", "c") == []


def test_one_that_came_later_is_no_member() -> None:
    scene = linked(world(2), "a", "b")
    scene.alive.add("z")
    scene.linking.joined("z", None)
    scene.lose("a")
    assert [engine for engine, _ in scene.roll_back(2, "z", "b")] == ["b"]
    assert scene.linking.carrier == "sockets: engine z is not in the MPI world of the others"


def test_an_engine_that_fails_to_link_leaves_the_epoch_to_the_sockets() -> None:
    scene = linked(world(3), "a", "b")
    scene.lose("a")
    scene.roll_back(2, "c", "b")
    told = scene.answer(2, "b", error="PROC_FAILED")
    assert sorted(told) == [(e, wire.Carrier(2, False)) for e in "bc"]
    assert scene.answer(2, "c") == []  # it comes too late to matter
    assert scene.linking.carrier == "sockets: PROC_FAILED"
    scene.roll_back(3, "c", "b")
    assert scene.answer(3, "b", "c") != []
    assert scene.linking.carrier == "MPI"


@pytest.mark.parametrize("final", [False, True])
def test_a_world_that_was_never_joined_or_cannot_shrink_is_given_up(final: bool) -> None:
    scene = linked(world(3), "a", "b") if final else Scene(world(3))
    scene.roll_back(5, "a", "b")
    scene.answer(5, "a", error="broken", final=final)
    assert scene.linking.carrier == "sockets: broken"
    assert scene.roll_back(6, "a", "b") == []
    assert scene.linking.carrier == "sockets: broken"


def test_a_loss_while_they_link_ends_the_wait() -> None:
    scene = linked(world(3), "a", "b")
    scene.roll_back(2, "a", "b")
    assert not scene.linking.settled.is_set()
    scene.lose("b")
    assert scene.linking.settled.is_set()
    orders = scene.roll_back(3, "a", "c")
    assert [order.members for _, order in orders] == [(0, 2)] * 2
    assert scene.answer(2, "a", "c") == []  # of the attempt before
    assert scene.linking.carrier != "MPI"
    scene.answer(3, "a", "c")
    assert scene.linking.carrier == "MPI"


def test_who_does_not_answer_costs_the_use_of_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(world(2))
    scene.roll_back(1, "a", "b")
    scene.linking.look()
    assert scene.linking.carrier == "sockets"
    monkeypatch.setattr(linking.time, "monotonic", lambda: float("inf"))
    scene.linking.look()
    assert scene.linking.carrier == "sockets: an MPI call of an engine does not end"
    assert scene.roll_back(2, "a", "b") == []


@pytest.mark.parametrize(
    ("places", "why"),
    [
        (world(2, size=3, up=False), "not all engines of the MPI world"),
        (world(2, trouble="mpiexec was started without --with-ft ulfm"), "without --with-ft ulfm"),
    ],
)
def test_worlds_that_cannot_be_used(places: Any, why: str) -> None:
    scene = Scene(places)
    assert scene.roll_back(1, "a", "b") == []
    assert why in scene.linking.carrier


def test_a_part_of_a_world_that_is_up_will_do() -> None:
    linked(world(2, size=3, up=True), "a", "b")
