"""An engine's copier, without an engine: the two ways to a store, and a disk that is full."""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from feliss_nb.errors import StoreError
from feliss_nb.runtime import wire
from feliss_nb.runtime.copier import Copier
from feliss_nb.runtime.misbehaving import misbehave
from feliss_nb.store import FileStore, Record

PATIENCE = 60.0
SHARD = [b"1", b"main", b"channel"]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Any]:
    """What a copier needs of its engine, with a shard of rank 0 at checkpoint 1 in its memory."""
    said: queue.SimpleQueue[Any] = queue.SimpleQueue()
    shards = {(1, 0): SHARD}
    memory = SimpleNamespace(get=shards.__getitem__)
    engine = SimpleNamespace(
        lock=threading.RLock(), store=memory, is_closed=False, to_master=said.put, said=said
    )
    engine.copier = Copier(engine)  # type: ignore[arg-type]
    engine.copier.take(wire.StoreAt(pickle.dumps(FileStore(tmp_path / "kept"))))
    yield engine
    engine.copier.close()


def outcome(engine: Any, streamed: bool) -> Any:
    """What the master hears of the shard, written while it is made or afterwards."""
    with engine.lock:
        if streamed:
            stream = engine.copier.follow(1, 0)
            assert stream is not None
            stream.hear(0, b"main")
            engine.copier.sealed(1, 0, SHARD, 0, SHARD)
        engine.copier.take(wire.Keep(1, (0,)))
    return engine.said.get(timeout=PATIENCE).outcome


@pytest.mark.parametrize("streamed", [True, False])
def test_a_shard_comes_to_the_store(engine: Any, streamed: bool, tmp_path: Path) -> None:
    assert isinstance(outcome(engine, streamed), Record)
    assert len(list(tmp_path.glob("kept/checkpoint-*/rank-*"))) == 1


@pytest.mark.parametrize("streamed", [True, False])
def test_a_disk_that_is_full(engine: Any, streamed: bool, tmp_path: Path) -> None:
    misbehave(engine, wire.Misbehave("fill-disk", 3600.0, None, None, 1))
    found = outcome(engine, streamed)
    assert isinstance(found, StoreError)
    assert "No space left" in str(found)
    assert not list(tmp_path.glob("kept/checkpoint-*/rank-*"))


@pytest.mark.parametrize("streamed", [True, False])
def test_a_disk_that_has_room_again(engine: Any, streamed: bool) -> None:
    misbehave(engine, wire.Misbehave("fill-disk", 0.0, None, None, 1))
    assert isinstance(outcome(engine, streamed), Record)
