"""A real IPython shell over a session that only remembers what it was told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from notebook_fakes import FakeSession
from traitlets.config import Config

from feliss_nb.notebook import magics, sessions


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[FakeSession]:
    """Every session that was started, stopped ones too."""
    made: list[FakeSession] = []

    def start(**options: Any) -> FakeSession:
        made.append(FakeSession(options.get("name", f"s{len(made)}"), options))
        return made[-1]

    monkeypatch.setattr(sessions, "start", start)
    monkeypatch.setattr(sessions, "attach", start)
    monkeypatch.setattr(sessions, "live", lambda: [s for s in made if not s.stopped])
    return made


@pytest.fixture
def session(started: list[FakeSession]) -> FakeSession:
    return sessions.start(name="main")  # type: ignore[return-value]


@pytest.fixture
def shell(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    shell = InteractiveShell.instance(config=config)
    magics.load_ipython_extension(shell)
    yield shell
    magics.unload_ipython_extension(shell)
    InteractiveShell.clear_instance()


@pytest.fixture
def run(shell: InteractiveShell) -> Callable[..., Any]:
    return lambda line: shell.run_line_magic("feliss", line)


@pytest.fixture
def run_cell(shell: InteractiveShell) -> Callable[..., Any]:
    return lambda line, cell: shell.run_cell_magic("feliss", line, cell)
