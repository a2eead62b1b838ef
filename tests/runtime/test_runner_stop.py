"""A request to stop reaches the thread that it is meant for, or none."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from feliss_nb.runtime import runner as module
from feliss_nb.runtime.here import StopContinuation
from feliss_nb.runtime.runner import Runner
from feliss_nb.runtime.shared import Returns


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests to stop that were raised; nothing is."""
    found: list[Any] = []

    def note(thread: threading.Thread, kind: type[BaseException] | None) -> None:
        if kind is not None:
            found.append(thread)

    monkeypatch.setattr(module, "_raise_in", note)
    monkeypatch.setattr(module, "Here", lambda *args: None)
    monkeypatch.setattr(module, "enter", lambda here: None)
    return found


def runner_of(state: str, loop: Any) -> Runner:
    """A runner in a continuation of job 3, whose thread runs `loop`."""
    made: Any = object.__new__(Runner)
    made.engine = SimpleNamespace(lock=threading.RLock(), size=1, seed=0)
    made.rank = SimpleNamespace(running=SimpleNamespace(job=3), state=state, rank=0)
    made.mailbox = SimpleNamespace(waits=False)
    made.in_user_code, made.asked_to_stop, made._ask_again = True, False, 0.0
    made._stand_up = lambda: True
    made._loop = loop
    made.thread = threading.Thread(target=made._main)
    return made


def test_a_thread_that_runs_is_asked(raised: list[Any]) -> None:
    go = threading.Event()
    runner = runner_of("retired", None)
    runner.thread = threading.Thread(target=go.wait)
    runner.thread.start()
    assert runner.stop_user_code(3) is False
    go.set()
    runner.thread.join()
    assert raised == [runner.thread]


def test_a_thread_that_gives_memory_back_is_left_alone(raised: list[Any]) -> None:
    """A lock that it holds would never be given back, and whoever forks would wait for it."""
    inside, go = threading.Event(), threading.Event()

    def take_back(item: object) -> None:
        inside.set()
        go.wait()

    runner = runner_of("retired", None)
    runner.thread = threading.Thread(target=Returns(take_back).add, args=(1,))
    runner.thread.start()
    inside.wait()
    assert runner.stop_user_code(3, spare_imports=False) is False
    go.set()
    runner.thread.join()
    assert raised == []


def test_a_thread_that_has_ended_is_not_asked(raised: list[Any]) -> None:
    """Its number may be another thread's by now."""
    runner = runner_of("retired", None)
    runner.thread = threading.Thread(target=lambda: None)
    runner.thread.start()
    runner.thread.join()
    assert runner.stop_user_code(3) is True
    assert raised == []


@pytest.mark.parametrize("times", [1, 2])
def test_a_stop_between_two_turns_leaves_no_thread_in_user_code(
    raised: list[Any], times: int
) -> None:
    def loop(here: Any) -> None:
        runner.rank.state = "retired"
        raise StopContinuation

    runner = runner_of("running", loop)
    requests = [StopContinuation] * (times - 1)

    def no_stop() -> None:
        if requests:
            raise requests.pop()

    runner._no_stop = no_stop  # type: ignore[method-assign]
    runner.thread.start()
    runner.thread.join()
    assert runner.in_user_code is False
    assert requests == []
    assert runner.stop_user_code(3) is True
    assert raised == []
