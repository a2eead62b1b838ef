"""The limit of memory that the lessons are run within."""

from __future__ import annotations

import subprocess
import sys

import within

#: An orphan with much memory, and who started it, both for ever.
PROGRAM = """
import subprocess, sys, time
hold = "x = bytearray(80_000_000); import time; time.sleep(1000)"
subprocess.run(["sh", "-c", 'setsid "$0" -c "$1" &', sys.executable, hold])
x = bytearray(80_000_000)
time.sleep(1000)
"""


def run(megabytes: int, program: str) -> tuple[int, str]:
    line = [sys.executable, within.__file__, str(megabytes), sys.executable, "-c", program]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def test_beyond_the_limit_all_are_killed() -> None:
    status, said = run(140, PROGRAM)
    assert status == 1
    assert "KILLED beyond 140 MB" in said
    assert "LEFT RUNNING" not in said


def test_below_the_limit_the_status_is_the_commands() -> None:
    status, said = run(140, "import sys; sys.exit(3)")
    assert status == 3
    assert "of 140\n" in said
