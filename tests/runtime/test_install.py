"""A worker that does not answer is asked for again, and told apart from one that cannot start."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from feliss_nb.core.master import Master
from feliss_nb.core.seat import Seat
from feliss_nb.errors import FelissError
from feliss_nb.runtime import doors, driver
from feliss_nb.runtime.driver import Driver
from feliss_nb.runtime.events import EventLog


class Result:
    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def ready(self) -> bool:
        return self.error is not None

    def get(self, timeout: float) -> None:
        assert self.error is not None
        raise self.error


class Cluster:
    """Loses the first requests; the worker answers to the one that arrives."""

    own = True

    def __init__(self, directory: Any, lost: int, error: Exception | None = None) -> None:
        self.directory, self.lost, self.error = directory, lost, error
        doors.prepare(directory, "ipc")
        self.sent: list[str] = []
        self.arrived: Future[None] = Future()

    def ids(self) -> set[int]:
        return {7}

    def execute(self, engine: int, code: str) -> Result:
        self.sent.append(f"{engine} {code}")
        if len(self.sent) > self.lost and self.error is None:
            self.arrived.set_result(None)
        return Result(self.error)


def driver_of(cluster: Any) -> Driver:
    return Driver(cluster, Seat(Master(1, False)), EventLog(), lambda engine: f"install {engine}")


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_request_that_is_lost_is_made_again(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    monkeypatch.setattr(driver, "INSTALL_AGAIN", 0.01)
    cluster = Cluster(tmp_path, lost)
    made = driver_of(cluster)
    try:
        made.expect(7)
        made.await_hello(7, cluster.arrived, float("inf"), lambda what: None)
        assert cluster.sent == ["7 install 7"] * (lost + 1)
    finally:
        made.stop()


def test_a_worker_that_cannot_start_is_an_error(tmp_path: Any) -> None:
    made = driver_of(Cluster(tmp_path, 0, ImportError("no module named feliss_nb")))
    try:
        hello = made.expect(7)
        with pytest.raises(ImportError, match="no module named"):
            made.await_hello(7, hello, float("inf"), lambda what: None)
    finally:
        made.stop()


def test_the_wait_has_an_end(tmp_path: Any) -> None:
    made = driver_of(Cluster(tmp_path, 5))
    try:
        hello = made.expect(7)
        with pytest.raises(FelissError, match="engine 7 did not come up in time"):
            made.await_hello(7, hello, 0.0, lambda what: None)
    finally:
        made.stop()
