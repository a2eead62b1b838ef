"""``feliss-nb lab``: what it copies, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbformat.sign import NotebookNotary

from feliss_nb import cli
from feliss_nb.errors import UsageError
from feliss_nb.lab import lessons

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(autouse=True)
def _own_signatures(tmp_path_factory, monkeypatch):
    """Notebooks that are trusted here are trusted nowhere else."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path_factory.mktemp("jupyter")))


@pytest.fixture
def terminal():
    """The standard input of a program in a terminal: Jupyter listens to Ctrl-C there only."""
    master, slave = pty.openpty()
    yield slave
    os.close(master)
    os.close(slave)


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_the_notebooks_of_a_checkout_are_found():
    assert lessons.source() == ROOT / "notebooks"
    assert NOTEBOOKS[0].name == lessons.FIRST


def test_a_copy_has_all_of_them_and_overwrites_none(tmp_path):
    place = tmp_path / "mine" / "lessons"
    place.mkdir(parents=True)
    (place / NOTEBOOKS[0].name).write_text("my own work")
    assert lessons.copy(lessons.source(), place) == len(NOTEBOOKS) - 1
    assert sorted(path.name for path in place.iterdir()) == [path.name for path in NOTEBOOKS]
    assert (place / NOTEBOOKS[0].name).read_text() == "my own work"
    assert (place / NOTEBOOKS[1].name).read_bytes() == NOTEBOOKS[1].read_bytes()
    assert os.access(place / NOTEBOOKS[1].name, os.W_OK)
    assert lessons.copy(lessons.source(), place) == 0


def test_what_is_copied_is_trusted_and_what_was_there_is_not(tmp_path):
    (tmp_path / NOTEBOOKS[0].name).write_bytes(NOTEBOOKS[0].read_bytes())
    lessons.copy(lessons.source(), tmp_path)
    notary = NotebookNotary()
    trusted = [
        notary.check_signature(nbformat.read(tmp_path / path.name, as_version=4))
        for path in NOTEBOOKS
    ]
    assert trusted == [False] + [True] * (len(NOTEBOOKS) - 1)


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="give another directory"):
        lessons.copy(lessons.source(), tmp_path / "file" / "below")


def test_an_installation_without_notebooks_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(lessons.feliss_nb, "__file__", str(tmp_path / "feliss_nb" / "__init__.py"))
    with pytest.raises(UsageError, match="left them out"):
        lessons.source()


def test_without_jupyterlab_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jupyterlab", None)
    with pytest.raises(UsageError, match=r"jupyterlab not installed .* 'feliss_nb\[lab\]'"):
        lessons.check(None, True)


def test_root_is_refused_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UsageError, match="--allow-root"):
        lessons.check(None, False)
    lessons.check(None, True)


def test_a_port_that_is_taken_or_is_none_is_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot be used"):
            lessons.check(taken.getsockname()[1], True)
    with pytest.raises(UsageError, match="1 to 65535"):
        lessons.check(70_000, True)


def test_the_line_of_a_terminal_reaches_it(monkeypatch):
    calls = []
    monkeypatch.setattr(cli, "load", lambda target: lambda **given: calls.append((target, given)))
    assert cli.main("lab here --port 9000 --no-browser".split()) == 0
    [(target, given)] = calls
    assert target == "feliss_nb.lab.lessons:main"
    assert given == {"directory": "here", "port": 9000, "no_browser": True, "allow_root": False}


def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path, port, terminal, eventually):
    line = [sys.executable, "-m", "feliss_nb.cli", "lab", "copy", "--no-browser", "--allow-root"]
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    with (
        open(tmp_path / "log", "w") as log,
        subprocess.Popen(
            [*line, "--port", str(port)],
            cwd=tmp_path,
            env=environment,
            stdin=terminal,
            stdout=log,
            stderr=log,
        ) as server,
    ):
        try:
            eventually(lambda: answers(port) or server.poll() is not None, timeout=60)
            assert server.poll() is None, (tmp_path / "log").read_text()
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0, (tmp_path / "log").read_text()
        finally:
            server.kill()
    assert sorted(path.name for path in (tmp_path / "copy").glob("*.ipynb")) == [
        path.name for path in NOTEBOOKS
    ]
    assert not answers(port)
    assert list((tmp_path / "runtime").glob("jpserver*")) == []


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=5) as reply:
            return "version" in json.load(reply)
    except (urllib.error.URLError, ConnectionError):
        return False


def test_a_wheel_has_the_notebooks(tmp_path):
    pip = [sys.executable, "-m", "pip", "-q", "wheel", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(pip, check=True, timeout=110)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "from feliss_nb.lab.lessons import source; print(source())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()
    assert found == str(tmp_path / "site" / "feliss_nb" / "lessons")
    assert {path.name for path in Path(found).iterdir()} == {path.name for path in NOTEBOOKS}


# ---------------------------------------------------------------- the notebooks themselves


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text("utf-8"))["cells"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_executed_is_small_and_names_no_machine(path):
    text = path.read_text("utf-8")
    assert len(text) < 300_000
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    shown = json.dumps([output.get("data", output.get("text")) for output in outputs])
    shown = re.sub(r'"image/\w+": "[^"]*"', "", shown)
    assert not re.search(r"(?<![\w.:~}<])/(?:home|opt|root|tmp|usr|var|work|Users)/", shown)
    assert not re.search("[Ww]arning| at 0x[0-9a-f]{6}", shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_exercise_has_a_solution_that_is_folded_and_a_check(path):
    tags = [set(cell["metadata"].get("tags", ())) for cell in cells(path)]
    kinds = [kind for each in tags for kind in ("exercise", "solution", "check") if kind in each]
    text = " ".join(kinds).replace("check check", "check")
    assert text
    assert text == " ".join(["exercise solution check"] * kinds.count("exercise"))
    for cell, each in zip(cells(path), tags, strict=True):
        if "solution" in each:
            assert cell["metadata"]["jupyter"] == {"source_hidden": True}
