"""The widgets of a dashboard, without a page: what they hold, and what a click does."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from history_events import LOSS, RUN, START, WORK, event

from feliss_nb.errors import SessionClosed, UsageError
from feliss_nb.notebook import dashboard
from feliss_nb.runtime import Checkpoint, EventLog, Status
from feliss_nb.runtime.cluster import BEAT, MISSES
from feliss_nb.runtime.status import EngineStatus, RankStatus
from feliss_nb.runtime.trace import Recorder

ipywidgets = pytest.importorskip("ipywidgets")
PATIENCE = 30.0

STATUS = Status(
    "s",
    "running",
    1,
    1,
    True,
    (
        EngineStatus(0, 10, "worker", (0,), (), 10, 0, 80_000_000, 0.05),
        EngineStatus(1, 11, "dead", (), (), 0, 0),
        EngineStatus(2, 12, "worker", (1,), (), 10, 0, 80_000_000, 0.05),
    ),
    (RankStatus(0, 0, "running", 4), RankStatus(1, 2, "running", 0)),
    (),
    Checkpoint(1, 0, 2_000_000, 0.4, 0.004, 3.4),
    at=9.0,
)


class Session:
    """As much of one as a dashboard calls."""

    over = False

    def __init__(self) -> None:
        self.events = EventLog()
        self.capture = "full"
        self.calls: list[Any] = []
        self.called = threading.Condition()
        self.error: Exception | None = None
        self.state = STATUS

    def _call(self, *call: Any) -> None:
        with self.called:
            self.calls.append(call)
            self.called.notify_all()
        if self.error is not None:
            raise self.error

    def wait_for(self, *call: Any) -> None:
        with self.called:
            assert self.called.wait_for(lambda: call in self.calls, PATIENCE), self.calls

    def watch(self, look: Any) -> Any:
        self.look = look

        class Watch:
            is_over = False

            def close(self) -> None:
                self.is_over = True

        return Watch()

    def status(self) -> Status:
        return self.state

    def kill(self, engine: int) -> None:
        self._call("kill", engine)

    def checkpoint(self, timeout: float) -> str:
        self._call("checkpoint")
        return "checkpoint 2"


@pytest.fixture
def session() -> Session:
    return Session()


def widgets(root: Any, name: str) -> list[Any]:
    """All widgets of a CSS class."""
    found = [root] if name in root._dom_classes else []
    for child in getattr(root, "children", ()):
        found += widgets(child, name)
    return found


def text_of(root: Any, name: str) -> str:
    [found] = widgets(root, name)
    return str(found.value)


def test_rows(session: Session) -> None:
    shown = dashboard.Dashboard(session)  # type: ignore[arg-type]
    session.look(RUN, STATUS)
    rows = widgets(shown.widget, "feliss-row")
    assert [row._dom_classes for row in rows] == [
        ("feliss-row", "feliss-engine-0", "feliss-state-running", "feliss-rank-0"),
        ("feliss-row", "feliss-engine-1", "feliss-state-dead"),
        ("feliss-row", "feliss-engine-2", "feliss-state-running", "feliss-rank-1"),
    ]
    off = {b.description: b.disabled for b in rows[1].children[1:]}
    assert set(off) == {"Kill", "Stop", "Continue", "Hang", "Slow"}
    assert all(off.values())
    on = {b.description: b.disabled for b in rows[0].children[1:]}
    assert (on["Kill"], on["Stop"], on["Continue"]) == (False, False, True)
    assert "epoch <b>1</b>" in text_of(shown.widget, "feliss-head")
    assert "every rank runs again" in text_of(shown.widget, "feliss-log")


def test_what_has_not_changed_is_not_sent(session: Session) -> None:
    shown = dashboard.Dashboard(session)  # type: ignore[arg-type]
    rest = replace(STATUS, ranks=(RankStatus(0, 0, "running", 0),))
    session.look(RUN, rest)
    sent: list[Any] = []

    def follow(widget: Any) -> None:
        widget.observe(
            sent.append,
            [n for n in ("value", "children", "disabled", "_dom_classes") if n in widget.traits()],
        )
        for child in getattr(widget, "children", ()):
            follow(child)

    follow(shown.widget)
    session.look([], replace(rest, at=9.3))
    assert sent == []


def test_an_engine_that_comes_and_a_rank_that_moves(session: Session) -> None:
    shown = dashboard.Dashboard(session)  # type: ignore[arg-type]
    before = replace(
        STATUS,
        engines=(
            STATUS.engines[0],
            EngineStatus(1, 11, "worker", (1,), (), 10, 0, 80_000_000, 0.05),
        ),
    )
    session.look([*START, *WORK], before)
    assert len(widgets(shown.widget, "feliss-row")) == 2
    first = widgets(shown.widget, "feliss-engine-0")[0]
    session.look(LOSS, STATUS)
    assert len(widgets(shown.widget, "feliss-row")) == 3
    assert widgets(shown.widget, "feliss-engine-0")[0] is first  # pages keep what they show
    assert "feliss-state-dead" in widgets(shown.widget, "feliss-engine-1")[0]._dom_classes
    assert "feliss-rank-1" in widgets(shown.widget, "feliss-engine-2")[0]._dom_classes


def test_the_end(session: Session) -> None:
    shown = dashboard.Dashboard(session)  # type: ignore[arg-type]
    session.look(RUN, STATUS)
    session.look([event("stopped", 9.5)], None)
    assert "feliss-state-ended" in widgets(shown.widget, "feliss-engine-0")[0]._dom_classes
    assert all(b.disabled for b in widgets(shown.widget, "feliss-kill"))
    assert widgets(shown.widget, "feliss-checkpoint")[0].disabled


def test_what_a_button_says_is_what_it_does() -> None:
    assert BEAT * MISSES == 5000
    assert "after 5 s it counts as lost" in dashboard.BUTTONS["stop"]
    assert "4 times slower for 10 s" in dashboard.BUTTONS["slow"]
    assert "still for 3 s" in dashboard.BUTTONS["hang"]


def test_clicks(session: Session) -> None:
    shown = dashboard.Dashboard(session)  # type: ignore[arg-type]
    session.look(RUN, STATUS)
    widgets(shown.widget, "feliss-engine-2")[0].children[1].click()
    session.wait_for("kill", 2)
    widgets(shown.widget, "feliss-checkpoint")[0].click()
    session.wait_for("checkpoint")


def test_the_capture_follows_the_session_and_sets_it(session: Session, eventually: Any) -> None:
    shown = dashboard.Dashboard(session)  # type: ignore[arg-type]
    session.look(RUN, replace(STATUS, capture="forked"))
    [chosen] = widgets(shown.widget, "feliss-capture")
    assert chosen.value == "forked"
    assert session.capture == "full"  # to show what is set sets nothing
    chosen.value = "incremental"  # as a page does it
    eventually(lambda: session.capture == "incremental", PATIENCE)


def test_what_fails_is_said(session: Session) -> None:
    shown = dashboard.Dashboard(session)  # type: ignore[arg-type]
    session.look(RUN, STATUS)
    session.error = SessionClosed("it was <stopped>")
    shown._do("kill", 0)
    session.look([], STATUS)
    assert "kill: it was &lt;stopped&gt;" in text_of(shown.widget, "feliss-note")


@pytest.mark.parametrize("what", ["stop", "continue", "hang", "slow"])
@pytest.mark.parametrize("engine", [1, 77])
def test_a_dead_engine_cannot_be_harmed(session: Session, what: str, engine: int) -> None:
    with pytest.raises(UsageError, match="is dead already"):
        dashboard.do(session, what, engine)  # type: ignore[arg-type]


def test_one_dashboard_a_session(session: Session) -> None:
    one = dashboard.of(session)  # type: ignore[arg-type]
    assert dashboard.of(session) is one  # type: ignore[arg-type]
    one.close()
    assert dashboard.of(session) is not one  # type: ignore[arg-type]


# Replays


@pytest.fixture
def trace(tmp_path: Any) -> str:
    path = tmp_path / "run.jsonl"
    recorder = Recorder(path)
    recorder.look([*START, *WORK], replace(STATUS, epoch=0, at=4.0))
    recorder.look(LOSS, replace(STATUS, at=5.2))
    recorder.look([event("stopped", 9.0)], None)
    return str(path)


def test_a_replay_goes_forth_and_back(trace: str) -> None:
    shown = dashboard.replay(trace)
    assert "epoch <b>0</b>" in text_of(shown.widget, "feliss-head")
    assert widgets(shown.widget, "feliss-kill") == []
    shown.slider.value = 2
    assert "feliss-state-ended" in widgets(shown.widget, "feliss-engine-0")[0]._dom_classes
    shown.slider.value = 1
    assert "epoch <b>1</b>" in text_of(shown.widget, "feliss-head")
    assert "every rank runs again" in text_of(shown.widget, "feliss-log")
    shown.slider.value = 0
    assert "every rank runs again" not in text_of(shown.widget, "feliss-log")


def test_the_trace_of_the_package() -> None:
    shown = dashboard.replay("sample")
    shown.slider.value = shown.slider.max
    assert "feliss-state-dead" in str([r._dom_classes for r in widgets(shown.widget, "feliss-row")])
    assert "epoch 1" in repr(dashboard.text(None, "sample"))


def test_a_trace_without_a_moment(tmp_path: Any) -> None:
    Recorder(tmp_path / "empty.jsonl").close()
    with pytest.raises(UsageError, match="is empty"):
        dashboard.replay(str(tmp_path / "empty.jsonl"))
