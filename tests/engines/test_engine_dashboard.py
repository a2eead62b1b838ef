"""A dashboard, a trace and a cell as a job, on real engines."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import feliss_nb as feliss
from feliss_nb.errors import FunctionError, UsageError
from feliss_nb.lab.explain import explain
from feliss_nb.lab.history import History
from feliss_nb.notebook import dashboard
from feliss_nb.runtime.trace import read_trace

pytest.importorskip("ipywidgets")
pytestmark = pytest.mark.engines
PATIENCE = 60.0


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trace") / "run.jsonl"


@pytest.fixture(scope="module")
def session(trace: Path) -> Iterator[feliss.Session]:
    with feliss.start(workers=2, spares=1, checkpoint_every=None) as session:
        session.record_trace(trace)
        yield session


@pytest.fixture(scope="module")
def shown(session: feliss.Session) -> dashboard.Dashboard:
    found = feliss.dashboard(session)
    assert isinstance(found, dashboard.Dashboard)
    return found


def rows(shown: dashboard.Dashboard, name: str) -> list[Any]:
    [box] = [child for child in shown.widget.children if "feliss-rows" in child._dom_classes]
    return [row for row in box.children if name in row._dom_classes]


def button(row: Any, name: str) -> Any:
    [found] = [child for child in row.children if f"feliss-{name}" in child._dom_classes]
    return found


def text_of(shown: dashboard.Dashboard, name: str) -> str:
    [found] = [child for child in shown.widget.children if name in child._dom_classes]
    return str(found.value)


def stopped(session: feliss.Session) -> list[int]:
    return [engine.engine for engine in session.status().engines if engine.stopped]


def test_rows_of_real_engines(
    session: feliss.Session, shown: dashboard.Dashboard, eventually: Any
) -> None:
    eventually(lambda: rows(shown, "feliss-state-running"), PATIENCE)
    assert len(rows(shown, "feliss-state-spare")) == 1
    engines = session.status().engines
    assert all(e.memory > 1e7 and e.beat is not None and e.beat < PATIENCE for e in engines)
    assert not any(e.stopped or e.fenced for e in engines)
    assert session.status().capture == "full"


def test_stop_and_continue(
    session: feliss.Session, shown: dashboard.Dashboard, eventually: Any
) -> None:
    eventually(lambda: rows(shown, "feliss-engine-2"), PATIENCE)
    [row] = rows(shown, "feliss-engine-2")  # the spare: nobody waits for it
    stop, go_on = button(row, "stop"), button(row, "continue")
    assert not stop.disabled
    assert go_on.disabled
    stop.click()
    eventually(lambda: "feliss-state-stopped" in row._dom_classes and not go_on.disabled, PATIENCE)
    assert stopped(session) == [2]
    go_on.click()
    eventually(lambda: "feliss-state-spare" in row._dom_classes and not stop.disabled, PATIENCE)
    assert stopped(session) == []
    assert "engine 2   suffers a fault: stop" in text_of(shown, "feliss-log")


def test_the_slow_button(
    session: feliss.Session, shown: dashboard.Dashboard, eventually: Any
) -> None:
    [row] = rows(shown, "feliss-rank-0")
    button(row, "slow").click()
    eventually(lambda: "feliss-state-slow" in row._dom_classes, PATIENCE)
    eventually(lambda: "engine 0: slow for 10 s" in text_of(shown, "feliss-note"), PATIENCE)
    assert "engine 0   suffers a fault: slow" in text_of(shown, "feliss-log")
    assert button(row, "stop").disabled
    session.inject(None)  # the other tests need not wait for it


def test_the_kill_button(
    session: feliss.Session, shown: dashboard.Dashboard, eventually: Any
) -> None:
    eventually(lambda: rows(shown, "feliss-rank-1"), PATIENCE)
    [row] = rows(shown, "feliss-rank-1")
    first = session.checkpoint().id
    button(row, "kill").click()
    session.events.wait_for("recovered", 1, PATIENCE)
    eventually(lambda: "feliss-state-dead" in row._dom_classes, PATIENCE)
    eventually(lambda: rows(shown, "feliss-rank-1"), PATIENCE)
    assert rows(shown, "feliss-rank-1") != [row]
    story = explain(History(session.events))
    assert story.recovery.checkpoint == first
    assert "was killed: a SIGKILL" in story.paragraphs[0]
    assert story.recovery.load is not None


def test_a_function_that_runs_once(session: feliss.Session) -> None:
    def work(n: int) -> list[int]:
        print("half way")  # noqa: T201 (what is tested)
        return [n, feliss.here().rank]

    job = session.run(work, 5, rank=1, quiet=True)
    assert job.result(PATIENCE) == [5, 1]
    assert job.lines == [("stdout", "half way")]
    with pytest.raises(FunctionError, match="work raised TypeError") as caught:
        session.run(work).result(PATIENCE)
    assert caught.value.rank == 0
    plain = session.put(print, rank=0)
    with pytest.raises(UsageError, match="has no result of its own"):
        plain.result(PATIENCE)


def test_the_end_leaves_no_thread(
    session: feliss.Session, shown: dashboard.Dashboard, trace: Path
) -> None:
    session.stop()
    names = {thread.name for thread in threading.enumerate()}
    assert not {"feliss-watch", "feliss-click", "feliss-master"} & names
    assert shown.is_closed
    assert rows(shown, "feliss-state-ended")
    moments = read_trace(trace)
    again = History(event for events, _ in moments for event in events)
    there = History(session.events)
    assert [m.text for m in again.marks] == [m.text for m in there.marks]
    assert [r.routes for r in again.recoveries] == [r.routes for r in there.recoveries]
    assert moments[-1][1] is None
