"""What every test may use, whatever it tests.

Two files of tests run at once, each in a process of its own, and other programs run beside them.
So a test looks only at processes, files and memory that it started or made; the names of
parametrized tests are the same in every process; what belongs to a file, a session on engines above
all, may be shared.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A shared machine stalls: a deadline would report that as a bug. In CI the examples are the same in
# every run; locally they differ, which is how new ones are found.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("local", _COMMON)
settings.register_profile("ci", _COMMON, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# A shell lets what it starts in the background ignore Ctrl-C, and so would all processes that the
# tests start, some of which get one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: Every process that descends from this run carries this in its environment.
_MARK = "FELISS_NB_TEST_RUN"
_GRACE = 10.0  # seconds; stopping is allowed to be polite

Eventually = Callable[..., None]


def wait_until(true: Callable[[], object], timeout: float = 10.0, what: str = "") -> None:
    """Poll until ``true()`` is; fail after ``timeout`` seconds. The one place where tests sleep."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:g} s: {what or getattr(true, '__name__', true)}")
        time.sleep(0.01)


@pytest.fixture
def eventually() -> Eventually:
    """``eventually(lambda: ..., timeout=10, what="...")`` waits for what another process does."""
    return wait_until


def descendants(mark: str) -> dict[int, str]:
    """Command line of each living process, by its id, that a run with ``mark`` started."""
    found: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        try:
            if pid == os.getpid() or f"{_MARK}={mark}".encode() not in entry.joinpath(
                "environ"
            ).read_bytes().split(b"\0"):
                continue
            command = entry.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:  # it ended while we looked
            continue
        # multiprocessing's own helpers live as long as the process that uses them
        if command and "multiprocessing." not in command:
            found[pid] = command
    return found


@pytest.fixture(scope="session", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the named sessions of this run keep their records: not where the user's are."""
    place = tmp_path_factory.mktemp("state")
    os.environ["FELISS_NB_STATE"] = str(place)
    return place


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """After the last test, no engine, nanny or controller that a test started is alive."""
    mark = uuid.uuid4().hex
    os.environ[_MARK] = mark
    yield
    del os.environ[_MARK]
    deadline = time.monotonic() + _GRACE
    while (left := descendants(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, f"processes left by the tests: {left}"
