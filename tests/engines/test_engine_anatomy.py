"""What a checkpoint is made of, as its ranks tell: every byte in one part, with its reason."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from engine_work import touch_and_wait

import feliss_nb as feliss
from feliss_nb import errors


@pytest.fixture(scope="module")
def session() -> Iterator[feliss.Session]:
    with feliss.start(workers=2, spares=0, checkpoint_every=None) as session:
        yield session


def put_and_wait(begun: str, go: str, weights: Any, counts: Any) -> None:
    """Leave a continuation behind, and run until the flag is there."""
    feliss.here().put(use, weights, counts)
    touch_and_wait(begun, go)


def use(weights: Any, counts: Any) -> None:
    assert len(weights)


def by_name(anatomy: Any) -> dict[tuple[str, str], Any]:
    return {(part.kind, part.name): part for part in anatomy.parts}


def test_every_part_has_its_bytes_and_its_reason(
    session: feliss.Session, flags: Any, begin_cut: Any
) -> None:
    bias = np.ones(20_000)

    def bend(begun: str, go: str, counts: Any) -> None:
        put_and_wait(begun, go, bias, counts)

    counts = session.variable(lambda rank, size: list(range(100_000)), name="counts")
    kept = session.variable(lambda rank, size: np.zeros(30_000))
    session.wait()
    job = session.put(bend, flags.path("begun"), flags.path("go"), counts, rank=1)
    flags.wait("begun")
    token = begin_cut(session)
    flags.set("go")
    number = token.result(60)["checkpoint"]
    job.wait(60)
    anatomy = session.anatomy(number)
    parts = by_name(anatomy)
    named = parts["variable", "counts"]
    assert sorted(named.ranks) == [0, 1]
    assert named.bytes > 2 * 250_000
    assert named.why == "its name 'counts', a continuation of use"
    assert parts["variable", str(kept.variable)].why == "a handle in the notebook"
    assert 480_000 <= parts["variable", str(kept.variable)].bytes < 481_000
    argument = parts["argument", "use()[0]"]
    assert list(argument.ranks) == [1]
    assert 160_000 <= argument.bytes < 161_000
    assert argument.why == "a continuation in a pool"
    whole = sum(part.bytes for part in anatomy.parts)
    assert abs(whole - anatomy.bytes) < 0.02 * anatomy.bytes
    assert anatomy.dump > anatomy.bytes + anatomy.copies
    assert anatomy.copies == 2 * anatomy.bytes  # each rank's own, and a copy of the other's
    assert "counts" in repr(anatomy)
    assert "<table" in anatomy._repr_html_()


def test_of_the_last_checkpoint_alone(session: feliss.Session) -> None:
    earlier = session.checkpoint()
    assert earlier.anatomy().checkpoint == earlier.id
    later = session.checkpoint()
    assert session.anatomy().checkpoint == later.id
    with pytest.raises(errors.UsageError, match=f"checkpoint {earlier.id} is not in memory"):
        earlier.anatomy()
    copy = pickle.loads(pickle.dumps(later))
    assert copy == later
    with pytest.raises(errors.UsageError, match="only what checkpoint"):
        copy.anatomy()


def test_it_can_be_drawn_and_computed_with(session: feliss.Session) -> None:
    table = session.variable(lambda rank, size: {rank: "x" * 3_000_000}, name="table")
    anatomy = session.checkpoint().anatomy()
    frame = anatomy.frame()
    rows = frame[(frame.kind == "variable") & (frame.name == "table")]
    assert sorted(rows["rank"]) == [0, 1]
    assert rows["bytes"].sum() == by_name(anatomy)["variable", "table"].bytes
    picture = anatomy.plot()
    assert picture._repr_png_().startswith(b"\x89PNG")
    texts = [text.get_text() for axes in picture.figure.axes for text in axes.texts]
    assert any(text.startswith("variable table") for text in texts)
    assert any(text.startswith("nothing that matters") for text in texts)
    assert table.name == "table"


def test_a_session_that_has_taken_none_takes_one(session: feliss.Session) -> None:
    with feliss.start(workers=1, spares=0, checkpoint_every=None) as fresh:
        fresh.variable(lambda rank, size: 7, name="seven")
        assert by_name(fresh.anatomy())["variable", "seven"].why == "its name 'seven'"
        assert len(fresh.events.of_kind("committed")) == 1
    with pytest.raises(errors.SessionClosed):
        fresh.anatomy()


def test_a_loss_behind_a_look_changes_nothing() -> None:
    """What was measured of an engine is other behind a recovery, and no result of the job's."""
    with feliss.start(workers=2, spares=1, replace=False, checkpoint_every=None) as session:
        kept = session.variable(lambda rank, size: [rank] * 1000)
        anatomy = session.anatomy()
        session.kill(0, wait=True)
        session.wait()
        assert kept.partitions() == [[0] * 1000, [1] * 1000]
        again = session.anatomy(anatomy.checkpoint)
        assert by_name(again).keys() == by_name(anatomy).keys()
