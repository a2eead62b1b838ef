"""The magics in a real shell: what they call, what they return, how they fail, what Tab offers."""

from __future__ import annotations

import builtins
import gc
import linecache
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from notebook_fakes import FakeSession

from feliss_nb.errors import FunctionError, InternalError, UsageError
from feliss_nb.notebook import magics, sessions
from feliss_nb.notebook.commands import COMMANDS
from feliss_nb.runtime.variable import Variable

Run = Callable[..., Any]


# What they call


def test_start_passes_what_was_given_and_nothing_else(run: Run, started: list[FakeSession]) -> None:
    assert run("start") is started[0]
    assert started[0].options == {}
    run("start --workers 4 --spares 1 --name x --copies 2 --seed 7 --checkpoint-every .5")
    assert started[1].options == {
        "workers": 4,
        "spares": 1,
        "name": "x",
        "copies": 2,
        "seed": 7,
        "checkpoint_every": 0.5,
    }
    run("start --session y")
    assert started[2].options == {"name": "y"}
    with pytest.raises(UsageError, match="a new session has one name"):
        run("start --session y --name z")


def test_attach(run: Run, shell: InteractiveShell, started: list[FakeSession]) -> None:
    shell.user_ns["rc"] = client = object()
    run("attach --client rc --workers 2")
    run("attach --profile slurm --cluster-id 'a b'")
    assert started[0].options == {"client": client, "workers": 2}
    assert started[1].options == {"profile": "slurm", "cluster_id": "a b"}


def test_map_and_reduce_bind_a_name(
    run: Run, shell: InteractiveShell, session: FakeSession
) -> None:
    shell.run_cell("square = lambda x: x * x").raise_error()
    handle = run("map square range(10) --out squares")
    assert shell.user_ns["squares"] is handle
    assert session.calls == [("map", shell.user_ns["square"], range(10), "squares")]
    assert run("map square squares").name is None
    run("reduce sum squares --out counts --with-key")
    assert session.calls[1][2] is handle
    assert session.calls[2] == ("reduce", sum, handle, "counts", True)
    run("mapreduce square max squares --combine min --out m")
    assert session.calls[3][-2:] == ("m", {"combine": min})


def test_expressions_are_not_expanded(
    run: Run, shell: InteractiveShell, session: FakeSession
) -> None:
    shell.user_ns["x"] = 5
    run("map (lambda r: {r: x}) [{x}, '{x} $x'] --out d")
    _, f, source, _ = session.calls[0]
    assert f(1) == {1: 5}
    assert source == [{5}, "{x} $x"]


def test_the_others(run: Run, shell: InteractiveShell, session: FakeSession) -> None:
    shell.user_ns["r"] = 1
    assert "killed the engine of rank 2" in repr(run("kill r+1"))
    assert "with the copies that can be had" in repr(run("kill 0 --wait"))
    assert "nothing is left to run" in repr(run("wait --timeout 2.5"))
    assert repr(run("checkpoint")).startswith("<checkpoint 3")
    assert "<table" in run("status")._repr_html_()
    assert "its name 'counts'" in repr(run("anatomy"))
    assert run("anatomy --plot")._repr_png_().startswith(b"\x89PNG")
    assert session.calls == [
        ("kill", 2, False),
        ("kill", 0, True),
        ("wait", 2.5),
        ("checkpoint", False),
        ("status",),
        ("anatomy",),
        ("anatomy",),
    ]
    events = run("events --last 2")
    assert repr(events).split("\n")[2:] == [
        "  1.500  commit  rank 6, detail <b>",
        "  1.750  commit  rank 7, detail <b>",
    ]
    assert "<b>" not in events._repr_html_()
    assert "session main is stopped" in repr(run("stop"))
    with pytest.raises(UsageError, match="start one with %feliss start --workers 4"):
        run("status")


def test_the_cell_defines_the_function(
    run_cell: Run, shell: InteractiveShell, session: FakeSession
) -> None:
    cell = "data = [1, 2]\ndef a(x): return x\ndef b(x):\n    return a(x) + 1\nif True:\n"
    run_cell("map data --out d", cell + "    def c(x): pass\n")
    call = session.calls[0]
    assert (call[1].__name__, call[2], call[3]) == ("b", [1, 2], "d")
    assert call[1](1) == 2
    assert call[1].__globals__ is shell.user_ns
    assert call[1].__module__ == "__main__"
    assert "data = [1, 2]" in linecache.getlines(call[1].__code__.co_filename)[0]
    run_cell("reduce d --with-key --out e", "def total(key, values):\n    return sum(values)\n")
    assert session.calls[1][1:] == (shell.user_ns["total"], shell.user_ns["d"], "e", True)


def test_the_line_between_magic_and_cell_is_the_only_difference(
    shell: InteractiveShell, session: FakeSession
) -> None:
    shell.run_cell("%%feliss map [1] --out d\ndef f(x):\n    return x\n").raise_error()
    shell.run_cell("x = %feliss status").raise_error()
    shell.run_cell("%%feliss spmd --out r\ndef main(comm):\n    return comm.rank\n").raise_error()
    assert [call[0] for call in session.calls] == ["map", "status", "spmd"]
    assert session.calls[2][1:] == (shell.user_ns["main"], "r")
    assert shell.user_ns["x"].session == "main"


def test_a_restored_session_binds_its_names(
    run: Run, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[FakeSession] = []

    def restore(**options: object) -> FakeSession:
        found.append(FakeSession("again", options))
        return found[0]

    monkeypatch.setattr(sessions, "restore", restore)
    shell.user_ns["taken"] = 1
    line = "restore ./kept --workers 2 --checkpoint 3 --checkpoint-every auto --mtbf 60"
    assert run(line) is found[0]
    assert found[0].options == {
        "store": "./kept",
        "workers": 2,
        "checkpoint": 3,
        "checkpoint_every": "auto",
        "mtbf": 60.0,
    }
    assert shell.user_ns["counts"].name == "counts"
    assert shell.user_ns["taken"] == 1
    assert "not a name" not in shell.user_ns
    assert found[0].activated == 1


@pytest.mark.parametrize("over", [True, False])
def test_a_restored_session_takes_over_the_names_of_one_that_ended(
    run: Run, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, over: bool
) -> None:
    ended = SimpleNamespace(over=over, released=lambda variable: None)
    old = Variable(ended, 3, True, "counts")  # type: ignore[arg-type]
    shell.user_ns["counts"] = old
    monkeypatch.setattr(sessions, "restore", lambda **options: FakeSession("again", options))
    run("restore ./kept")
    assert (shell.user_ns["counts"] is old) is not over


def test_what_a_store_has_is_shown_without_a_session(run: Run, tmp_path: Path) -> None:
    assert "(none)" in repr(run(f"checkpoints {tmp_path}"))
    with pytest.raises(UsageError, match="no directory"):
        run(f"checkpoints {tmp_path}/other")


def test_several_sessions(run: Run, started: list[FakeSession]) -> None:
    run("start --name a")
    run("start --name b")
    assert run("status").session == "b"
    assert run("status --session a").session == "a"
    with pytest.raises(
        UsageError, match=r"no session 'aa' \(did you mean 'a'\?\); there are: a, b"
    ):
        run("status --session aa")
    assert "a is meant from now on" in repr(run("stop"))
    assert run("status").session == "a"
    assert [s.stopped for s in started] == [False, True]
    assert [s.activated for s in started] == [2, 1]  # %px follows


def test_px_that_fails_does_not_fail_the_start(
    run: Run, monkeypatch: pytest.MonkeyPatch, started: list[FakeSession]
) -> None:
    broken = FakeSession("x", error=RuntimeError("no px"))
    monkeypatch.setattr(sessions, "start", lambda: broken)
    with pytest.warns(UserWarning, match="%px is not set up: no px"):
        assert run("start") is broken


def test_nothing_is_imported_to_find_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(__import__("sys").modules, "feliss_nb.runtime.session", raising=False)
    assert sessions.live() == []


# A handle with a name does not live on in the history of outputs


def test_a_named_handle_dies_when_its_name_is_bound_anew(
    shell: InteractiveShell, session: FakeSession
) -> None:
    def cell(text: str) -> None:
        shell.run_cell(text, store_history=True).raise_error()

    cell("'before'")
    cell("%feliss map str [1] --out d")
    first = weakref.ref(shell.user_ns["d"])
    assert shell.user_ns["_"] == "before"
    cell("%feliss map str [1] --out d")
    cell("1 + 1")
    gc.collect()
    assert first() is None
    assert shell.user_ns["_"] == 2
    assert shell.user_ns["__"] == "before"
    cell("%feliss map str [1]")  # without a name, the history is where it lives
    assert shell.user_ns["_"].name is None


# Help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each(run: Run, name: str) -> None:
    page = run(f"help {name}")
    text = repr(page)
    assert text.startswith(f"%feliss {name}")
    for argument in (*COMMANDS[name].positional, *COMMANDS[name].options):
        assert argument.help in text
        assert argument.metavar in text
    assert "--session NAME" in text
    assert "<table" in page._repr_html_()
    assert repr(run(f"{name} --help")) == text


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if c.example])
def test_every_example_can_be_read(name: str) -> None:
    from feliss_nb.notebook.arguments import parse
    from feliss_nb.notebook.words import split

    assert parse(split(COMMANDS[name].example), COMMANDS).command is COMMANDS[name]


def test_bare_shows_the_help(
    run: Run, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    text = repr(run(""))
    assert all(f"\n{name} " in text for name in COMMANDS)
    assert repr(run("help")) == text == repr(run("--help"))
    shell.run_cell("%feliss")
    assert "checkpoint   Take a checkpoint now" in capsys.readouterr().out
    assert shell.find_line_magic("feliss").__doc__ == text
    with pytest.raises(UsageError, match="did you mean 'map'"):
        run("help mapp")
    with pytest.raises(UsageError, match="there are: start, attach, restore"):
        run("help nope")


# Mistakes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("map square corpuz", r"'corpuz' is not defined \(did you mean 'corpus'\?\)"),
        ("map (lambda x: x) [y for y in nowhere]", r"'nowhere' is not defined, in '\[y for"),
        ("kill two", "RANK needs a whole number: the name 'two' is not defined"),
        ("start --workers four", "--workers needs a whole number: the name 'four' is not"),
        ("map square corpus --out a.b", "--out needs the name of a Python variable"),
        ("nonsense", "there is no subcommand 'nonsense'"),
        ("status --loud", "status has no option --loud"),
        ("map square (1", "never closed"),
    ],
)
def test_a_mistake_is_one_line_and_starts_nothing(
    shell: InteractiveShell,
    session: FakeSession,
    capsys: pytest.CaptureFixture[str],
    line: str,
    message: str,
) -> None:
    shell.user_ns.update(corpus=["a"], square=lambda x: x)
    with pytest.raises(UsageError, match=message):
        shell.run_line_magic("feliss", line)
    result = shell.run_cell(f"%feliss {line}")
    assert isinstance(result.error_in_exec, UsageError)
    shown = capsys.readouterr().out.strip()
    assert shown == f"UsageError: {result.error_in_exec}"
    assert session.calls == []


def test_an_error_of_the_session_is_short_too_and_keeps_its_class(
    shell: InteractiveShell, session: FakeSession, capsys: pytest.CaptureFixture[str]
) -> None:
    session.error = FunctionError("f raised on rank 1", 1, None, "Traceback ...\nZeroDivisionError")
    result = shell.run_cell("%feliss wait")
    assert result.error_in_exec is session.error
    assert capsys.readouterr().out == f"FunctionError: {session.error}\n"
    session.error = InternalError("a bug")
    shell.run_cell("%feliss wait")
    assert "Traceback" in capsys.readouterr().out  # for the report


def test_what_the_users_code_raises_is_raised_as_it_is(
    run: Run, shell: InteractiveShell, session: FakeSession
) -> None:
    with pytest.raises(ZeroDivisionError):
        run("map str 1/0")
    shell.run_cell("def bad():\n    return missing\n").raise_error()
    with pytest.raises(NameError, match="missing") as caught:
        run("map str bad()")
    assert not isinstance(caught.value, UsageError)


def test_a_cell_without_a_function_is_not_run(
    run_cell: Run, shell: InteractiveShell, session: FakeSession
) -> None:
    with pytest.raises(UsageError, match="the cell defines no function"):
        run_cell("map [1]", "touched = 1\nf = lambda x: x\n")
    with pytest.raises(UsageError, match="g is async"):
        run_cell("map [1]", "async def g(x): pass\n")
    with pytest.raises(UsageError, match=r"line 2 of the cell: .*\n        return x x\n +\^"):
        run_cell("map [1]", "def f(x):\n    return x x\n")
    with pytest.raises(UsageError, match="map needs SOURCE: %%feliss map SOURCE"):
        run_cell("map", "touched = 1\ndef f(x): pass\n")
    with pytest.raises(UsageError, match="status takes no cell"):
        run_cell("status", "touched = 1\n")
    assert "touched" not in shell.user_ns


def test_without_a_session_the_cell_is_not_run(
    run_cell: Run, shell: InteractiveShell, started: list[FakeSession]
) -> None:
    with pytest.raises(UsageError, match="no session: start one with %feliss start --workers 4"):
        run_cell("map [1]", "touched = 1\ndef f(x): pass\n")
    assert "touched" not in shell.user_ns


# Tab


def tab(shell: InteractiveShell, line: str) -> list[str]:
    """What the terminal and the notebook get."""
    with provisionalcompleter():
        return [c.text for c in shell.Completer.completions(line, len(line))]


@pytest.mark.filterwarnings("ignore:`Completer.complete` is pending deprecation")
@pytest.mark.parametrize("jedi", [True, False])
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("%feliss st", ["start", "status", "stop"]),
        ("x = %feliss st", ["start", "status", "stop"]),
        ("a = 1\nb, c = %feliss st", ["start", "status", "stop"]),
        ("feliss st", ["start", "status", "stop"]),
        ("%feliss ", list(COMMANDS)),
        ("%%feliss ", ["map", "reduce", "spmd", "run"]),
        ("%feliss help ma", ["map", "mapreduce"]),
        ("%feliss start --wo", ["--workers"]),
        ("%feliss start --workers 3 --w", []),
        ("%feliss start --no", ["--no-replace"]),
        ("%feliss start --replace --no", []),
        ("%feliss map f [1, 2] --o", ["--out"]),
        ("%feliss kill ", ["0", "1", "2"]),
        ("%feliss kill 2 ", ["--wait", "--session"]),
        ("%%feliss map data ", ["--out", "--session"]),
        ("%feliss status --session m", ["main", "mine"]),
        ("%feliss status --session ", ["main", "mine", "other-1"]),
        ("%feliss status --session other-", ["other-1"]),
        ("%feliss nonsense --", []),
        ("%feliss map (f, --", []),
    ],
)
def test_tab(
    shell: InteractiveShell, session: FakeSession, jedi: bool, line: str, found: list[str]
) -> None:
    sessions.start(name="mine")
    sessions.start(name="other-1")
    shell.Completer.use_jedi = jedi
    ours = {*COMMANDS, "main", "mine", "other-1"} - vars(builtins).keys()
    offered = tab(shell, line)
    if found:
        assert offered == found
        last = line.split("\n")[-1]
        assert shell.complete(None, last, len(last))[1] == found  # what qtconsole and Emacs ask
    else:
        assert not [word for word in offered if word in ours or word.startswith("--")], offered


def test_tab_in_an_expression_is_left_to_ipython(
    shell: InteractiveShell, session: FakeSession
) -> None:
    shell.user_ns["tokenize_lines"] = len
    shell.Completer.use_jedi = False
    assert tab(shell, "%feliss map tokenize_") == ["tokenize_lines"]
    assert "status" not in tab(shell, "feliss = st")
    assert "status" not in tab(shell, "print('%feliss st")


# Loading


def test_load_and_unload(shell: InteractiveShell, session: FakeSession) -> None:
    magics.load_ipython_extension(shell)  # a second time
    assert len(shell.Completer.custom_matchers) == 1
    callbacks = shell.events.callbacks["post_run_cell"]
    ours = [c for c in callbacks if getattr(c, "__name__", "") == "forget_output"]
    assert len(ours) == 1
    magics.unload_ipython_extension(shell)
    assert shell.find_line_magic("feliss") is None
    assert shell.find_cell_magic("feliss") is None
    assert shell.Completer.custom_matchers == []
    assert "start" not in tab(shell, "feliss st")
    magics.unload_ipython_extension(shell)  # a second time is no harm
