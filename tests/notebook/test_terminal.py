"""The magics in IPython's terminal, through a pseudo-terminal, on real engines."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.engines
PATIENCE = 90.0

#: Colours, cursor movements, titles.
_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]|\x1b\][^\x07]*\x07|\x1b[=>]|\r")


class Terminal:
    """IPython behind a pseudo-terminal."""

    def __init__(self, folder: Path) -> None:
        self._master, slave = pty.openpty()
        environment = {**os.environ, "IPYTHONDIR": str(folder), "TERM": "dumb", "COLUMNS": "100"}
        command = [sys.executable, "-m", "IPython", "--simple-prompt", "--colors=NoColor"]
        command += ["--no-banner", "--no-confirm-exit", "--HistoryManager.enabled=False"]
        self._process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=folder
        )
        os.close(slave)
        self._text = b""

    def expect(self, pattern: str) -> str:
        """Read until something comes; return what came up to its end."""
        deadline = time.monotonic() + PATIENCE
        wanted = re.compile(pattern.encode(), re.MULTILINE)
        while True:
            found = wanted.search(self._text)
            if found:
                before, self._text = self._text[: found.end()], self._text[found.end() :]
                return before.decode()
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self._text.decode()!r}"
            if select.select([self._master], [], [], min(left, 1.0))[0]:
                try:
                    more = os.read(self._master, 65536)
                except OSError:  # its end
                    more = b""
                assert more, f"it ended without {pattern!r}: {self._text.decode()!r}"
                self._text += _CONTROL.sub(b"", more)

    def run(self, *lines: str) -> str:
        """Type lines, and return what is shown up to the next prompt."""
        for line in lines:
            os.write(self._master, line.encode() + b"\n")
        return self.expect(r"^In \[\d+\]: ")

    def close(self) -> None:
        os.write(self._master, b"exit\n")
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            os.close(self._master)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    found = Terminal(tmp_path_factory.mktemp("ipython"))
    try:
        found.expect(r"^In \[\d+\]: ")
        yield found
    finally:
        found.close()


def test_a_session_in_a_terminal(terminal: Terminal) -> None:
    terminal.run("%load_ext feliss_nb")
    assert "ranks" in terminal.run("%feliss start --workers 2 --spares 1 --checkpoint-every None")
    assert re.search(r"checkpoint 1: .* in .*, ranks paused", terminal.run("%feliss checkpoint"))
    assert "every rank runs" in terminal.run("%feliss kill 1 --wait")
    shown = terminal.run("%feliss dashboard")
    assert re.search(r"^ *1 +- +dead", shown, re.M)
    assert re.search(r"^ *2 +1 +running", shown, re.M)
    assert "went back to checkpoint 1" in " ".join(terminal.run("%feliss explain last").split())
    assert "gets a SIGKILL" in terminal.run("%feliss log --last 30")
    assert "<time line: .save('name.svg') writes it" in terminal.run("%feliss timeline")


def test_a_cell_in_the_background(terminal: Terminal) -> None:
    begun = terminal.run("%%feliss run --rank 1", "print('half', 'way')", "6 * 7", "", "")
    assert "its outcome follows" in begun
    outcome = begun + terminal.expect(r"^42$") if "\n42" not in begun else begun
    assert re.search(r"done after [\s\S]*^half way$", outcome, re.M)


def test_an_error_in_a_terminal(terminal: Terminal) -> None:
    shown = terminal.run("%feliss plot overheads")
    assert "did you mean 'overhead'?" in shown
    assert "Traceback" not in shown


def test_the_sample_in_a_terminal(terminal: Terminal) -> None:
    assert "session-1: ended, epoch 1" in terminal.run("%feliss dashboard --replay sample")


def test_the_end(terminal: Terminal) -> None:
    assert "is stopped" in terminal.run("%feliss stop")
