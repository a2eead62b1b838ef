"""What the tests of ``state`` share: code as a notebook has it, and other processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def in_main() -> Callable[[str], dict[str, Any]]:
    """``in_main(source)`` gives the globals after that source ran as a notebook's cell does."""

    def run(source: str) -> dict[str, Any]:
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(textwrap.dedent(source), "<cell>", "exec"), names)
        return names

    return run


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    """``script(source, *args, **environment)`` runs it as ``__main__`` and gives what it prints."""

    def run(source: str, *args: object, **environment: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(source), "utf-8")
        done = subprocess.run(
            [sys.executable, path, *map(str, args)],
            env={**os.environ, "PYTHONPATH": os.fspath(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
