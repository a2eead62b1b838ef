"""The README's examples run as they stand there, each in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")

#: Runs cells as a notebook does; the JSON list of them is its argument, what follows checks them.
SHELL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
try:
    for cell in json.loads(sys.argv[1]):
        result = shell.run_cell(cell)
        result.raise_error()
finally:
    shell.run_line_magic("feliss", "stop")
assert result.result == {
    "to": 2000, "be": 2000, "or": 1000, "not": 1000,
    "that": 1000, "is": 1000, "the": 1000, "question": 1000,
}, result.result
"""


def examples(heading: str) -> list[str]:
    """The Python blocks below ``## heading``."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)


def run(*argv: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *argv], cwd=cwd, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "remote",
    [
        "https://github.com/some-one/some.thing.git",
        "https://github.com/some-one/some.thing",
        "git@github.com:some-one/some.thing.git",
        "ssh://git@github.com/some-one/some.thing.git/",
    ],
)
def test_the_link_of_binder(tmp_path, remote):
    [line] = [
        block
        for block in re.findall(r"^```sh\n(.*?)^```$", README, re.M | re.S)
        if "mybinder" in block
    ]
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", remote], check=True)
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    first = "notebooks/00-quick-start.ipynb"
    assert done.stdout == (
        f"https://mybinder.org/v2/gh/some-one/some.thing/HEAD?urlpath=lab/tree/{first}\n"
    )
    assert (ROOT / first).exists()
    subprocess.run(["git", "-C", tmp_path, "remote", "set-url", "origin", "/a/folder"], check=True)
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout == b""


@pytest.mark.engines
def test_the_notebook(tmp_path):
    cells = examples("In a notebook")
    assert len(cells) == 3
    run("-c", SHELL, json.dumps(cells), cwd=tmp_path)


@pytest.mark.engines
def test_the_script(tmp_path):
    (tmp_path / "a.md").write_text("one two two\n")
    (tmp_path / "b.md").write_text("two three\n")
    count, ring, mean = examples("In a script")
    (tmp_path / "script.py").write_text(count + ring + mean)
    printed = run("script.py", cwd=tmp_path)
    assert re.search(r"^\{.*'two': 3.*\}$", printed, re.M), printed
    # tokens 1 ... 300 go round a ring of three, the first to rank 0
    sums = [sum(range(first, 301, 3)) for first in (1, 2, 3)]
    assert str(sums) in printed
    assert "[1.0, 1.0, 1.0]" in printed
