"""Ctrl-C leaves no call of ipyparallel's in the middle."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from feliss_nb.runtime import waiting_out

PATIENCE = 60.0


def test_ctrl_c_is_raised_when_the_call_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    waits, ended = threading.Event(), threading.Event()
    wait = waiting_out.wait

    def wait_again(*args: Any) -> Any:
        waits.set()
        return wait(*args)

    def call() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert waits.wait(PATIENCE)
        ended.set()

    monkeypatch.setattr(waiting_out, "wait", wait_again)
    with pytest.raises(KeyboardInterrupt):
        waiting_out.wait_out(call)
    assert ended.is_set()


def test_a_call_that_is_waited_out_gives_what_it_gives() -> None:
    assert waiting_out.wait_out(lambda: 7) == 7
    with pytest.raises(KeyError, match="gone"):
        waiting_out.wait_out(lambda: {}["gone"])
