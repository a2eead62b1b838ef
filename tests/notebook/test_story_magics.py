"""Magics that tell what happened, and ``%%feliss run``: in a shell, over a session that is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from history_events import RUN
from IPython.core.interactiveshell import InteractiveShell
from notebook_fakes import FakeLog, FakeSession

from feliss_nb.errors import FunctionError, UsageError
from feliss_nb.notebook.complete import candidates

Run = Callable[..., Any]


@pytest.fixture
def told(session: FakeSession) -> FakeSession:
    session.events = FakeLog(RUN)
    session.events.now = 9.0
    return session


# The history


def test_log(run: Run, told: FakeSession) -> None:
    text = repr(run("log --last 3"))
    assert text.splitlines() == [
        "     time  who        what",
        "  5.120 s  master     every rank runs again, in epoch 1",
        "  5.500 s  master     every snapshot has its copies again",
        "  8.000 s  ranks      job 0 has ended: map tokenize",
    ]
    assert "<pre>" in run("log")._repr_html_()


def test_explain(run: Run, told: FakeSession) -> None:
    story = run("explain LAST")
    assert repr(run("explain")) == repr(story) == repr(run("explain 1"))
    assert story.paragraphs[0].startswith("At 5.00 s engine 1, which hosted rank 1, was killed")
    with pytest.raises(UsageError, match="there is no recovery 4: there were 1"):
        run("explain 4")


def test_explain_before_anything_was_lost(run: Run, session: FakeSession) -> None:
    with pytest.raises(UsageError, match="Kill one: %feliss kill 1"):
        run("explain")


def test_timeline(run: Run, told: FakeSession, tmp_path: Any) -> None:
    picture = run("timeline")
    assert picture._repr_png_().startswith(b"\x89PNG")
    for name in ("a.svg", "a.png"):
        picture.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000
    frame = run("timeline --data")
    assert list(frame.columns) == ["what", "number", "kind", "begin", "end", "engine", "text"]
    assert frame.equals(picture.data)
    late = run("timeline --last 3 --data")
    assert 0 < len(late) < len(frame)
    assert (late["end"] >= 6.0).all()


def test_timeline_of_nothing(run: Run, session: FakeSession) -> None:
    with pytest.raises(UsageError, match="nothing to draw yet"):
        run("timeline")


def test_record(run: Run, session: FakeSession) -> None:
    assert run("record 'my run.jsonl'") == "my run.jsonl"
    assert session.calls == [("record_trace", "my run.jsonl")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("plot overheads", r"no WHAT 'overheads' \(did you mean 'overhead'\?\); there are: ch"),
        ("plot", "plot needs WHAT"),
        ("plot recovery --repeats 0", "at least 1, not 0"),
        ("plot recovery --megabytes -1", "sizes above 0"),
        ("plot speedup --megabytes []", "one size or more"),
        ("explain first", "explain takes last, or the number of a recovery, not 'first'"),
        ("log --last x", "x"),
        ("dashboard --replay none.jsonl", "no trace can be read from 'none.jsonl'"),
        ("dashboard now", "dashboard takes no argument"),
    ],
)
def test_mistakes(run: Run, told: FakeSession, line: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        run(line)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("plot ", ["checkpoints", "recovery", "overhead", "speedup"]),
        ("plot o", ["overhead"]),
        ("plot overhead --d", ["--data"]),
        ("plot --d", ["--data"]),
        ("explain ", ["last"]),
        ("dashboard --replay ", ["sample"]),
        ("timeline --", ["--last", "--data", "--session"]),
        ("run f --r", ["--rank"]),
    ],
)
def test_tab(session: FakeSession, line: str, found: list[str]) -> None:
    assert candidates(line) == found


def test_the_dashboard_of_a_terminal_is_a_table(run: Run, session: FakeSession) -> None:
    from test_dashboard import STATUS

    session.events = FakeLog(RUN)
    session.status = lambda: STATUS  # type: ignore[method-assign]
    text = repr(run("dashboard"))
    assert "session s: running, epoch 1" in text
    assert "engine  ranks" in text
    assert "dead" in text
    assert "every rank runs again, in epoch 1" in text


# Cells as jobs


def test_a_cell_becomes_a_function_that_returns_its_last_value(
    run_cell: Run, shell: InteractiveShell, session: FakeSession
) -> None:
    shell.user_ns["base"] = 40
    run_cell("run --rank 2 --out job", "more = 2\nbase + more\n")
    [(_, function, rank, quiet), _] = session.calls
    assert (function(), rank, quiet) == (42, 2, True)
    assert "more" not in shell.user_ns
    assert shell.user_ns["job"] is session.job


def test_a_function_runs_as_it_is(run: Run, session: FakeSession) -> None:
    run("run (lambda: 5)")
    assert session.calls[0][1]() == 5


def test_a_cell_without_a_last_value_returns_nothing(run_cell: Run, session: FakeSession) -> None:
    run_cell("run", "x = 1\n")
    assert session.calls[0][1]() is None


def test_a_cell_may_return(run_cell: Run, session: FakeSession) -> None:
    run_cell("run", "for n in range(9):\n    if n > 3:\n        return n\n")
    assert session.calls[0][1]() == 4


def test_lines_of_a_cell_are_in_its_traceback(run_cell: Run, session: FakeSession) -> None:
    import traceback

    run_cell("run", "a = 1\na / 0\n")
    with pytest.raises(ZeroDivisionError) as caught:
        session.calls[0][1]()
    assert traceback.extract_tb(caught.value.__traceback__)[-1].line == "a / 0"


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("# nothing\n", "the cell is empty"),
        ("x x\n", "line 1 of the cell"),
        ("yield 1\n", "yields or awaits"),
        ("from os import *\n", "import *"),
    ],
)
def test_cells_that_cannot_run(run_cell: Run, session: FakeSession, cell: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        run_cell("run", cell)
    assert session.calls == []


def test_the_outcome_is_told_when_it_ends(
    run_cell: Run, session: FakeSession, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cell("run", "1 + 1\n")
    assert capsys.readouterr().out == "job 7 (cell): running; its outcome follows\n"
    [look] = session.watches
    session.job.lines.append(("stdout", "half way"))
    look([], object())
    assert capsys.readouterr().out == ""
    session.job.state, session.job.value = "done", 2
    session.events.now = 31.5
    look([], object())
    assert capsys.readouterr().out == "job 7 (cell): done after 1.5 s\nhalf way\n2\n"


def test_an_error_has_the_users_traceback(
    run_cell: Run, session: FakeSession, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cell("run", "1 / 0\n")
    session.job.state = "failed"
    session.job.error = FunctionError("cell raised", 0, None, "Traceback ...\n    1 / 0")
    session.watches[0]([], object())
    out = capsys.readouterr().out
    assert "FunctionError: cell raised" in out
    assert "    1 / 0" in out
    assert session.job.reported


def test_a_session_that_ends_first(
    run_cell: Run, session: FakeSession, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cell("run", "1\n")
    session.watches[0]([], None)
    assert "the session was stopped before it ended" in capsys.readouterr().out
