"""The transition tables, and their diagrams in ARCHITECTURE.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from core_helpers import continuation

from feliss_nb.core import events as ev
from feliss_nb.core import messages as m
from feliss_nb.core import tables
from feliss_nb.core.master import Master
from feliss_nb.core.rank import Rank
from feliss_nb.errors import IllegalTransition

DOCUMENT = Path(__file__).resolve().parents[2] / "ARCHITECTURE.md"

MOVES = {
    "loaded": lambda rank: rank.load(m.RankImage(), (), (), 0),
    "resume": lambda rank: rank.resume(),
    "cut asked": lambda rank: rank.ask_cut(1),
    "cut": lambda rank: rank.make_cut(),
    "sealed": lambda rank: rank.seal(),
}
PATHS = {
    "loading": (),
    "restored": ("loaded",),
    "running": ("loaded", "resume"),
    "cutting": ("loaded", "resume", "cut asked"),
    "recording": ("loaded", "resume", "cut asked", "cut"),
}


def rank_in(state: str) -> Rank:
    rank = Rank(0, 0)
    for move in PATHS.get(state, ()):
        MOVES[move](rank)
    if state == "retired":
        rank.retire()
    if state != "loading":
        rank.put(continuation())
    assert rank.state == state
    return rank


def contents(machine: object) -> dict[str, object]:
    return {name: repr(value) for name, value in vars(machine).items()}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("state", tables.RANK)
def test_an_illegal_move_of_a_rank_raises_and_changes_nothing(state: str, move: str) -> None:
    rank = rank_in(state)
    before = contents(rank)
    if move in tables.RANK[state]:
        MOVES[move](rank)
        assert rank.state == tables.RANK[state][move]
    else:
        with pytest.raises(IllegalTransition, match=f"'{move}'.*'{state}'"):
            MOVES[move](rank)
        assert contents(rank) == before


def test_a_second_start_raises_and_changes_nothing() -> None:
    master = Master()
    master.handle(ev.Start(("e0",), 1))
    before = contents(master)
    with pytest.raises(IllegalTransition, match="stand up"):
        master.handle(ev.Start(("e1", "e2"), 2))
    assert contents(master) == before


@pytest.mark.parametrize("table", [tables.RANK, tables.MASTER], ids=["rank", "master"])
def test_every_state_is_reached_and_every_target_exists(table: tables.Table) -> None:
    targets = {after for events in table.values() for after in events.values()}
    assert targets <= table.keys()
    assert table.keys() - targets == {next(iter(table))}


@pytest.mark.parametrize("table", [tables.RANK, tables.MASTER], ids=["rank", "master"])
def test_the_document_shows_the_diagrams(table: tables.Table) -> None:
    block = f"```mermaid\n{tables.mermaid(table)}\n```"
    assert block in DOCUMENT.read_text("utf-8"), f"ARCHITECTURE.md lacks:\n{block}"
