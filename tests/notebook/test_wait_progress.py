"""Progress: late, rare, and gone at the end."""

from __future__ import annotations

import io
import sys
from concurrent.futures import Future
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from unittest import mock

import IPython
import pytest

from feliss_nb.notebook import progress
from feliss_nb.notebook.display import ProgressView
from feliss_nb.notebook.progress import Cell, Line, Progress, default_sink
from feliss_nb.runtime.status import JobStatus
from feliss_nb.runtime.waiting import wait_for

JOBS = [
    JobStatus(1, "words", "running", 120, 400, "files"),
    JobStatus(2, "counts", "held"),
]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def screen(self) -> str:
        """What stands in the line."""
        cells: list[str] = []
        for part in self.getvalue().split("\r"):
            cells[: len(part)] = part
        return "".join(cells).rstrip()


class Recorder:
    def __init__(self) -> None:
        self.seen: list[float] = []
        self.cleared = 0

    def show(self, view: ProgressView) -> None:
        self.seen.append(view.seconds)

    def clear(self) -> None:
        self.cleared += 1


def run(sink: Any, ticks: int, clock: Clock | None = None) -> Progress:
    clock = clock or Clock()
    shown = Progress(lambda: JOBS, lambda: "counts", clock=clock, sink=sink)
    for _ in range(ticks):
        shown.tick()
        clock.now += 0.125  # exact in binary
    return shown


def test_a_short_wait_shows_nothing() -> None:
    sink = Recorder()
    run(sink, 4).close()
    assert sink.seen == []
    assert sink.cleared == 0


def test_at_most_four_updates_a_second() -> None:
    sink = Recorder()
    shown = run(sink, 1000)
    assert sink.seen[:4] == [0.5, 0.75, 1.0, 1.25]
    assert all(b - a == 0.25 for a, b in pairwise(sink.seen))
    shown.close()
    shown.close()
    shown.tick()
    assert sink.cleared == 1


def test_a_terminal_gets_one_line_and_has_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    terminal = Terminal()
    shown = run(Line(terminal), 6)
    assert terminal.screen() == (
        "waiting for counts, 500 ms: words 120/400 files (30 %), 1 more job"
    )
    assert "\n" not in terminal.getvalue()
    shown.close()
    assert terminal.screen() == ""
    assert terminal.getvalue().endswith("\r")


def test_a_narrow_terminal_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    terminal = Terminal()
    run(Line(terminal), 6)
    assert max(len(part) for part in terminal.getvalue().split("\r")) <= 29


def test_a_shorter_line_covers_a_longer_one() -> None:
    terminal = Terminal()
    line = Line(terminal)
    line.show(ProgressView("something long", (), 1.0))
    line.show(ProgressView("x", (), 1.0))
    assert terminal.screen() == "waiting for x, 1.0 s"


def test_a_terminal_that_is_gone_does_not_end_the_wait() -> None:
    terminal = Terminal()
    clock = Clock()
    shown = run(Line(terminal), 8, clock)
    terminal.close()
    clock.now += 1
    shown.tick()
    shown.tick()
    shown.close()


def test_a_notebook_gets_one_display_and_updates_it() -> None:
    calls: list[tuple[Any, ...]] = []
    handle = SimpleNamespace(update=lambda *a, **k: calls.append(("update", *a, k)))

    def display(*args: Any, **options: Any) -> Any:
        calls.append(("display", *args, options))
        return handle

    shown = run(Cell(display), 10)
    assert [call[0] for call in calls] == ["display", "update", "update"]
    assert calls[0][-1] == {"display_id": True}
    assert '<progress max="1" value="0.300">' in calls[0][1]._repr_html_()
    assert "held" in calls[0][1]._repr_html_()
    shown.close()
    assert calls[-1] == ("update", {"text/plain": "", "text/html": ""}, {"raw": True})


def test_jobs_without_figures() -> None:
    assert repr(ProgressView("x", (), 2)) == "waiting for x, 2.0 s"
    assert repr(ProgressView("x", (JOBS[1],), 2)) == "waiting for x, 2.0 s: counts held"


def test_where_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert default_sink() is None
    monkeypatch.setattr(sys, "stderr", None)
    assert default_sink() is None
    closed = Terminal()
    monkeypatch.setattr(sys, "stderr", closed)
    assert isinstance(default_sink(), Line)
    closed.close()
    monkeypatch.setattr(Terminal, "isatty", io.StringIO.isatty)
    assert default_sink() is None
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    assert isinstance(default_sink(), Cell)


def test_without_a_place_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "default_sink", lambda: None)
    asked: list[int] = []
    clock = Clock()
    shown = Progress(lambda: asked.append(1) or [], lambda: "x", clock=clock)  # type: ignore[func-returns-value]
    clock.now += 10
    shown.tick()
    shown.close()
    assert asked == []


class Interrupted(Future[Any]):
    """An answer that a person does not wait for."""

    def result(self, timeout: float | None = None) -> Any:
        raise KeyboardInterrupt


def test_of_ctrl_c_is_shown_where_the_user_waits(shell: Any, capsys: Any) -> None:
    driver = mock.Mock()
    shell.user_ns["wait"] = lambda: wait_for(Interrupted(), driver, "all jobs", list)
    done = shell.run_cell("def mine():\n    wait()\n\nmine()")
    shown = capsys.readouterr().out
    assert isinstance(done.error_in_exec, KeyboardInterrupt)
    assert "mine()" in shown
    assert "KeyboardInterrupt" in shown
    assert "waiting.py" not in shown
    assert driver.post.call_count == 1
