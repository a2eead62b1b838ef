"""The examples of docs/notebook.md run as they stand there, in a shell of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from feliss_nb.lab.plots import KINDS
from feliss_nb.lab.rows import STATES
from feliss_nb.notebook.commands import COMMANDS
from feliss_nb.notebook.dashboard import BUTTONS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "notebook.md"
TEXT = PAGE.read_text("utf-8")

#: Runs cells as a notebook does, and prints what each gives.
SHELL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in json.loads(sys.argv[1]):
    result = shell.run_cell(cell)
    result.raise_error()
    print("OUT", " ".join(repr(result.result).split()), flush=True)
"""


@pytest.mark.engines
def test_the_examples(tmp_path: Path) -> None:
    cells = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
    done = subprocess.run(
        [sys.executable, "-c", SHELL, json.dumps(cells)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    out = [line[4:] for line in done.stdout.splitlines() if line.startswith("OUT ")]
    assert len(out) == len(cells) == 8
    assert "session-1: running, epoch 0" in out[0]
    assert out[2] == "45"
    assert "was killed: a SIGKILL" in out[3]
    assert "recovered 1" in out[4]
    assert "detection" in out[5]
    assert "session-1: ended, epoch 1" in out[7]
    assert (tmp_path / "run.svg").read_text().startswith("<?xml")
    assert (tmp_path / "recovery.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_names_what_there_is() -> None:
    for state in STATES.keys() - {"ended"}:
        assert state in TEXT
    for kind in KINDS:
        assert f"| `{kind}` |" in TEXT
    for button in BUTTONS:
        assert button.capitalize() in TEXT
    assert set(re.findall(r"%feliss (\w+)", TEXT)) <= COMMANDS.keys()
    for image in re.findall(r"\((\w+\.png)\)", TEXT):
        assert (PAGE.parent / image).exists()
