"""What an engine does with snapshots that come and that it cannot keep."""

from __future__ import annotations

import errno
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from feliss_nb.core import messages as m
from feliss_nb.core.worker import Worker
from feliss_nb.errors import StoreError
from feliss_nb.runtime import capturing, data
from feliss_nb.runtime.capturing import Capturing
from feliss_nb.runtime.engine import EngineWorker
from feliss_nb.runtime.shard import join
from feliss_nb.state import codec
from feliss_nb.state.captures import FULL, draft, method
from feliss_nb.store.memory import MemoryStore

PATIENCE = 60.0
FULL_DISK = OSError(errno.ENOSPC, "No space left on device")


class Engine:
    """What receives and captures needs of an engine; it notes what the master hears."""

    def __init__(self) -> None:
        self.engine, self.lock = "e1", threading.RLock()
        self.worker, self.store = Worker("e1"), MemoryStore()
        self.captures: dict[Any, Any] = {}
        self.room = codec.allocate_each
        self.fresh: Any = lambda buffers, shared=False: codec.fresh(buffers)
        self.said: list[Any] = []

    def execute(self, commands: list[Any]) -> None:
        self.said += [command.message for command in commands]

    def trouble(self, error: BaseException) -> None:
        self.said.append(error)

    def copy_failed(self, checkpoint: int, rank: int, error: BaseException) -> None:
        EngineWorker.copy_failed(self, checkpoint, rank, error)  # type: ignore[arg-type]


def receive(engine: Engine, *messages: Any) -> list[Any]:
    """Let an engine take messages, to the last; return what it asked other engines for."""
    asked: list[Any] = []
    left = [*messages, None]
    peers: Any = SimpleNamespace(
        bind=lambda: SimpleNamespace(close=lambda linger: None),
        receive=lambda inbox: left.pop(0),
        send=lambda *what: asked.append(what),
    )
    listening = data.Data(engine, peers)  # type: ignore[arg-type]
    listening.start()
    listening._thread.join(PATIENCE)
    assert not left
    return asked


def shard(state: Any) -> list[Any]:
    return join(draft(state, FULL).finish().frames, [])


def difference(checkpoint: int, frames: list[Any]) -> Any:
    return ("difference", checkpoint, 0, 1, "e0"), frames


def refused(engine: Engine, checkpoint: int) -> str:
    """Why an engine did not keep a snapshot."""
    failed = [word for word in engine.said if isinstance(word, m.CaptureFailed)]
    assert [word.checkpoint for word in failed] == [checkpoint]
    assert m.Absent(checkpoint, 0, "e1") in engine.said
    error = failed[0].error.error()
    assert isinstance(error, StoreError)
    return str(error)


@pytest.mark.parametrize("error", [MemoryError("there is none"), FULL_DISK], ids=repr)
@pytest.mark.parametrize("kind", ["shard", "difference"])
def test_who_cannot_keep_a_snapshot_says_so_and_listens_on(
    monkeypatch: pytest.MonkeyPatch, kind: str, error: Exception
) -> None:
    engine = Engine()
    failing = [error]

    def fresh(buffers: Any, shared: bool = False) -> Any:
        if failing and kind == "shard":
            raise failing.pop()
        return codec.fresh(buffers)

    def apply(*args: Any) -> Any:
        raise failing.pop()

    engine.fresh = fresh
    monkeypatch.setattr(data, "apply", apply)
    engine.store.put((1, 0), shard([0]))
    sent = shard([1])
    bad = (("shard", 2, 0), sent) if kind == "shard" else difference(2, sent)
    receive(engine, bad, (("shard", 3, 0), shard([2])))
    assert str(error) in refused(engine, 2)
    assert m.Stored(3, 0) in engine.said
    assert (2, 0) not in engine.store.nbytes()


def test_a_difference_that_makes_no_sense_is_no_more_than_a_copy_lost() -> None:
    engine = Engine()
    engine.store.put((1, 0), shard([0]))
    asked = receive(
        engine,
        difference(2, [b"no number"]),
        difference(3, [b"1", b"no difference"]),
        (("shard", 4, 0), shard([2])),
    )
    assert "no number" in refused(engine, 2)
    assert asked == [("e0", ("want", 3, 0, "e1"))]
    assert m.Stored(4, 0) in engine.said


def test_a_rank_that_cannot_put_its_own_snapshot_together_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def prepare(*args: Any) -> Any:
        def fill() -> None:
            raise MemoryError("there is none")

        return [b"", b""], fill

    monkeypatch.setattr(capturing, "prepare", prepare)
    engine = Engine()
    engine.worker = SimpleNamespace(  # type: ignore[assignment]
        captured=lambda rank, checkpoint: [], copy_failed=Worker("e1").copy_failed
    )
    state = [np.zeros(50_000)]
    how = method("incremental")
    first = draft(state, how).finish()
    second = draft(state, how, first.index).finish()
    assert second.is_difference
    taking: Any = Capturing(SimpleNamespace(engine=engine, rank=SimpleNamespace(rank=0)))  # type: ignore[arg-type]
    taking._deliver(capturing._Task(2, frozenset(), frozenset(), 1, first.frames), second)
    filled = engine.captures[0, 2].filled
    assert isinstance(filled.exception(PATIENCE), MemoryError)
    assert "there is none" in refused(engine, 2)
