"""A worker that does not answer is asked for again, and told apart from one that cannot start."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from feliss_nb.errors import FelissError
from feliss_nb.runtime import installing
from feliss_nb.runtime.installing import Installer


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

    def __init__(self, lost: int, error: Exception | None = None) -> None:
        self.lost, self.error = lost, error
        self.sent: list[str] = []
        self.arrived: Future[None] = Future()

    def execute(self, engine: int, code: str) -> Result:
        self.sent.append(f"{engine} {code}")
        if len(self.sent) > self.lost and self.error is None:
            self.arrived.set_result(None)
        return Result(self.error)

    def add(self) -> int | None:
        if self.error is not None:
            raise self.error
        return None


def installer_of(cluster: Any) -> Installer:
    return Installer(cluster, lambda engine: f"install {engine}")


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_request_that_is_lost_is_made_again(monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    monkeypatch.setattr(installing, "INSTALL_AGAIN", 0.01)
    cluster = Cluster(lost)
    made = installer_of(cluster)
    made.expect(7)
    made.await_hello(7, cluster.arrived, float("inf"), lambda what: None)
    assert cluster.sent == ["7 install 7"] * (lost + 1)


def test_a_worker_that_says_hello_is_awaited_no_more() -> None:
    made = installer_of(Cluster(0))
    hello = made.expect(7)
    made.said_hello("7")
    made.await_hello(7, hello, 0.0, lambda what: None)
    made.said_hello("7")  # behind another master it says so again


def test_a_worker_that_cannot_start_is_an_error() -> None:
    made = installer_of(Cluster(0, ImportError("no module named feliss_nb")))
    hello = made.expect(7)
    with pytest.raises(ImportError, match="no module named"):
        made.await_hello(7, hello, float("inf"), lambda what: None)


def test_the_wait_has_an_end() -> None:
    made = installer_of(Cluster(5))
    hello = made.expect(7)
    with pytest.raises(FelissError, match="engine 7 did not come up in time"):
        made.await_hello(7, hello, 0.0, lambda what: None)


@pytest.mark.parametrize(
    ("error", "why"), [(None, None), (OSError("no process left"), "no process left")]
)
def test_an_engine_that_cannot_be_added_is_told(error: Any, why: str | None) -> None:
    told: Future[str | None] = Future()
    installer_of(Cluster(0, error)).add(None, told.set_result)
    assert told.result(30.0) == why
