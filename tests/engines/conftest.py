"""Real engines. A start costs 3 to 4 s, so sessions are shared by the tests of a module.

No test sleeps: it waits for events, or for a file that a continuation touches. Times are asserted
nowhere, but for generous deadlines that turn a hang into a failure.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_work import on_engines

import feliss_nb as feliss
from feliss_nb.core.events import TakeCheckpoint

#: Seconds; a shared machine stalls. Nothing that works comes near it.
PATIENCE = 60.0

Script = Callable[..., subprocess.CompletedProcess[str]]
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.engines)


@pytest.fixture(scope="module")
def engines() -> str | None:
    """The kind of engines; a module whose tests run on both kinds has a fixture of this name."""
    return None


@pytest.fixture(scope="module")
def shared(engines: str | None) -> Iterator[list[feliss.Session]]:
    """The session of a module's tests, if one is up."""
    sessions: list[feliss.Session] = []
    yield sessions
    for session in sessions:
        session.stop()


@pytest.fixture
def idle(
    shared: list[feliss.Session], engines: str | None, eventually: Any
) -> Iterator[feliss.Session]:
    """Three ranks on an engine each, a spare, copies in place, nothing running.

    Checkpoints on request only. Ranks that share an engine since two losses came close together
    stay there: then another session is started. So it is where a rank sits on an engine that was
    started after mpiexec.
    """
    if shared and (shared[0].state != "running" or hosts(shared[0]) != 3 or not as_asked(shared)):
        shared.pop().stop()
    if not shared:
        shared.append(feliss.start(workers=3, spares=1, checkpoint_every=None, engines=engines))
    session = shared[0]

    def ready() -> bool:
        session._check_open()
        status = session.status()
        spare = any(engine.role == "spare" for engine in status.engines)
        return status.state == "running" and status.protected and spare

    eventually(ready, PATIENCE, "a session with a spare and all copies")
    yield session
    if session.state in ("failed", "stopped"):
        return
    for job in session.jobs:
        if job.state in ("held", "running"):
            job.cancel()
    session.wait_for_jobs(None, PATIENCE, "what a test left behind")


def as_asked(shared: list[feliss.Session]) -> bool:
    """Whether what the session began with still carries its messages."""
    first = shared[0].events.of_kind("carrier")
    return not first or first[0].data["carrier"] == shared[0].status().carrier


def hosts(session: feliss.Session) -> int:
    """How many engines host ranks."""
    return sum(engine.role == "worker" for engine in session.status().engines)


@pytest.fixture
def flags(tmp_path: Path, eventually: Any) -> Flags:
    """Files by which a test and a continuation tell each other how far they are."""
    return Flags(tmp_path, eventually)


class Flags:
    """Waits for the files that `engine_work.touch` makes; makes those that it waits for."""

    def __init__(self, folder: Path, eventually: Any) -> None:
        self.folder, self.eventually = folder, eventually

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def wait(self, name: str) -> None:
        path = self.folder / name
        self.eventually(path.exists, PATIENCE, f"the flag {name}")

    def set(self, name: str) -> None:
        (self.folder / name).touch()

    def lines(self, name: str) -> list[str]:
        """What continuations added with `engine_work.note`, one write a line."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``launch(text)`` runs a program, as `__main__`, in a process of its own."""
    running: list[subprocess.Popen[str]] = []

    def launch(text: str, *args: str, **environment: str) -> subprocess.Popen[str]:
        path = tmp_path / f"program{len(running)}.py"
        path.write_text(textwrap.dedent(text))
        process = subprocess.Popen(
            [sys.executable, "-u", str(path), *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        running.append(process)
        return process

    yield launch
    for process in running:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def script(launch: Callable[..., subprocess.Popen[str]]) -> Script:
    """``script(text)`` runs a program to its end, which must be a good one."""

    def run(text: str, *args: str, ok: bool = True, **environment: str) -> Any:
        process = launch(text, *args, **environment)
        out, err = process.communicate(timeout=PATIENCE)
        result = subprocess.CompletedProcess(args, process.returncode, out, err)
        assert not ok or process.returncode == 0, f"{out}\n{err}"
        return result

    return run


@pytest.fixture
def begin_cut(eventually: Any) -> Callable[[feliss.Session], Any]:
    """``begin_cut(session)`` asks for a checkpoint; back when every rank has heard of it.

    Returns the future of the checkpoint.
    """

    def begin(session: feliss.Session) -> Any:
        token = session._driver.ask(TakeCheckpoint)

        def heard() -> bool:
            states = [state for found in on_engines(session, states_of_ranks) for state in found]
            return len(states) == session.size and "running" not in states

        eventually(heard, PATIENCE, "every rank was asked to cut")
        return token

    return begin


def states_of_ranks() -> list[str]:
    """On an engine: the states of its ranks."""
    from feliss_nb.runtime.engine import _workers

    return [rank.state for worker in _workers.values() for rank in worker.worker.ranks.values()]
