"""The commands of a terminal: what they accept, what they refuse, and with which words."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from feliss_nb import cli
from feliss_nb.errors import InternalError, UsageError


@pytest.fixture
def command(monkeypatch):
    """Put a function in the place of every command; returns the calls it got."""
    calls = []

    def install(result=None, error=None):
        def load(target):
            def run(json):
                calls.append((target, json))
                if error is not None:
                    raise error
                return result

            return run

        monkeypatch.setattr(cli, "load", load)
        return calls

    return install


@pytest.mark.parametrize(
    ("line", "target", "json"),
    [
        ("demo", "feliss_nb.lab.demo:main", False),
        ("demo --json", "feliss_nb.lab.demo:main", True),
        ("bench tasks", "feliss_nb.lab.bench:tasks", False),
        ("bench recovery --json", "feliss_nb.lab.bench:recovery", True),
        ("bench mpi --json", "feliss_nb.lab.bench:mpi", True),
        ("bench wordcount", "feliss_nb.lab.bench:wordcount", False),
    ],
)
def test_a_line_reaches_its_command(command, line, target, json):
    calls = command()
    assert cli.main(line.split()) == 0
    assert calls == [(target, json)]


def test_the_exit_code_is_the_commands(command):
    command(result=3)
    assert cli.main(["demo"]) == 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("dmo", ["dmo", "demo", "bench"]),
        ("bench", ["BENCHMARK"]),
        ("bench task", ["task", "tasks", "recovery", "wordcount"]),
        ("demo --jsn", ["--jsn"]),
        ("demo --js", ["--js"]),
        ("demo again", ["again"]),
    ],
)
def test_a_line_that_makes_no_sense_is_refused_with_its_word(capsys, command, line, words):
    calls = command()
    with pytest.raises(SystemExit) as exit_:
        cli.main(line.split())
    printed = capsys.readouterr()
    assert exit_.value.code == 2
    assert printed.out == ""
    assert "usage: feliss-nb" in printed.err
    for word in words:
        assert word in printed.err
    assert calls == []


def test_no_command_shows_the_help(capsys):
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert "demo" in shown
    assert "bench" in shown


def test_bench_help_lists_the_benchmarks(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", "--help"])
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.BENCHMARKS)


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"feliss_nb {cli.version()}\n"


def test_an_error_of_the_package_is_a_line_and_not_a_traceback(capsys, command):
    command(error=UsageError("workers=0: a session needs one"))
    assert cli.main(["demo"]) == 1
    assert capsys.readouterr().err == "feliss-nb: error: workers=0: a session needs one\n"


def test_a_bug_keeps_its_traceback(command):
    command(error=InternalError("two masters"))
    with pytest.raises(InternalError):
        cli.main(["demo"])


def test_ctrl_c(capsys, command):
    command(error=KeyboardInterrupt())
    assert cli.main(["demo"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_load_imports_only_what_is_asked_for(monkeypatch):
    module = ModuleType("a_command")
    module.run = lambda json: 7
    monkeypatch.setitem(sys.modules, "a_command", module)
    assert cli.load("a_command:run")(json=False) == 7


def test_the_commands_of_the_manual_are_ones_that_there_are():
    text = (Path(__file__).resolve().parents[1] / "docs" / "reliability.md").read_text("utf-8")
    [block] = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    for line in block.splitlines():
        name, *rest = line.split()
        assert name == "feliss-nb"
        assert cli.make_parser().parse_args(rest).target.startswith("feliss_nb.lab.bench:")
