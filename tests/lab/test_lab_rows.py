"""What a dashboard says of each engine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from history_events import LOSS, RUN, START, WORK, event

from feliss_nb.lab.history import History
from feliss_nb.lab.rows import STATES, beat_of, rows, table
from feliss_nb.runtime import Status
from feliss_nb.runtime.status import EngineStatus, RankStatus

ENGINES = (
    EngineStatus(2, 12, "spare", (), (0,), 0, 5, 70_000_000, 0.1),
    EngineStatus(0, 10, "worker", (0,), (1,), 10, 20, 80_000_000, 0.05),
    EngineStatus(1, 11, "worker", (1,), (0,), 10, 20, 80_000_000, 3.4),
)
STATUS = Status(
    "s",
    "running",
    0,
    1,
    True,
    ENGINES,
    (RankStatus(0, 0, "running", 4), RankStatus(1, 1, "running", 0)),
    (),
)


def states(status: Status, events: list, **options: bool) -> list[str]:
    return [row.state for row in rows(status, History(events), **options)]


def changed(number: int, **what: object) -> Status:
    engines = tuple(replace(e, **what) if e.engine == number else e for e in ENGINES)
    return replace(STATUS, engines=engines)


def slow(seconds):
    return event("fault", 5.0, fault="slow", engine="1", rank=1, seconds=seconds)


def test_a_row_for_each_engine_in_order():
    found = rows(STATUS, History([*START, *WORK]))
    assert [row.engine for row in found] == [0, 1, 2]
    assert [row.pool for row in found] == [4, 0, None]
    assert [row.is_late for row in found] == [False, True, False]
    assert found[0].cells() == ("0", "0", "running", "4", "80.0 MB", "30 B", "< 1 s ago")
    assert "spare" in repr(table("engines", found))


@pytest.mark.parametrize(
    ("status", "events", "found"),
    [
        (STATUS, [*START, *WORK], ["running", "running", "spare"]),
        (STATUS, [*START, *WORK[:-4]], ["capturing", "running", "spare"]),
        (STATUS, [*START, *WORK[:-2]], ["sending", "capturing", "spare"]),
        (changed(1, stopped=True), [*START, *WORK], ["running", "stopped", "spare"]),
        (changed(1, stopped=True), [*START, *WORK, slow(60.0)], ["running", "slow", "spare"]),
        (STATUS, [*START, *WORK, slow(1.0), slow(0.0)], ["running", "running", "spare"]),
        (changed(1, stopped=True, fenced=True), RUN, ["running", "fenced", "spare"]),
        (changed(1, role="dead", ranks=()), RUN, ["running", "dead", "spare"]),
        (replace(STATUS, state="recovering"), LOSS[:3], ["loading", "loading", "spare"]),
    ],
)
def test_states(status, events, found):
    assert states(status, events) == found
    assert set(found) <= STATES.keys()


def test_after_the_end():
    dead = changed(1, role="dead", ranks=())
    assert states(dead, RUN, ended=True) == ["ended", "dead", "ended"]


def test_a_beat_does_not_change_with_every_look():
    assert [beat_of(s) for s in (0.01, 0.9, 1.2, 1.9, 61.5)] == [
        "< 1 s",
        "< 1 s",
        "1 s",
        "1 s",
        "61 s",
    ]
