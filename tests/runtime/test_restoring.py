"""What a place has to offer to a new session, without engines: chosen, refused, explained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from feliss_nb.core import events as ev
from feliss_nb.core.image import MasterImage
from feliss_nb.core.master import Master
from feliss_nb.errors import CorruptSnapshot, StoreWarning, UsageError
from feliss_nb.runtime import wire
from feliss_nb.runtime.keeping import MasterRecord
from feliss_nb.runtime.restoring import claim_new, claim_origin, list_place, what_differs
from feliss_nb.store import (
    FileStore,
    FsspecStore,
    MemoryStore,
    MemoryTier,
    SlowStore,
    TieredStore,
)
from feliss_nb.store.manifest import make


def image(checkpoint: int, size: int) -> MasterImage:
    master = Master()
    master.handle(ev.Start(("e0",) * size, size))
    found = master.image()
    return dataclasses.replace(found, committed=dataclasses.replace(found.committed, id=checkpoint))


def keep(place: Path, checkpoint: int, size: int = 2, code: dict[str, str] | None = None) -> None:
    """Write a checkpoint as a session does."""
    store = FileStore(place)
    record = MasterRecord(image(checkpoint, size), (), {"x": (1, True)}, "old", 5)
    records = [store.put(checkpoint, rank, [b"rank", b"%d" % rank]) for rank in range(size)]
    records.append(store.put(checkpoint, size, wire.encode(record)))
    info = {"ranks": size, "session": "old", "at": 0.0, "variables": ["x"], "jobs": ["long"]}
    store.commit(make(checkpoint, records, (), code, info))


def damage(place: Path, checkpoint: int, rank: int) -> None:
    [path] = place.glob(f"checkpoint-{checkpoint:08d}/rank-{rank:08d}-*")
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def is_free(place: Path) -> bool:
    store = FileStore(place)
    store.claim()
    store.release()
    return True


def test_the_newest_is_taken_and_claimed(tmp_path: Path) -> None:
    for number in (3, 4):
        keep(tmp_path, number)
    origin = claim_origin(tmp_path, None)
    assert (origin.manifest.checkpoint, origin.size, origin.record.seed) == (4, 2, 5)
    assert (origin.newest, origin.stale) == (4, ())
    with pytest.raises(UsageError, match="another session"):
        claim_origin(tmp_path, None)
    with pytest.warns(StoreWarning, match="rank 0; going back to checkpoint 3"):
        assert origin.before(CorruptSnapshot("rank 0")).manifest.checkpoint == 3


def test_where_the_masters_share_is_damaged_the_one_before_is_taken(tmp_path: Path) -> None:
    for number in (3, 4, 5):
        keep(tmp_path, number)
    damage(tmp_path, 5, 2)
    with pytest.warns(StoreWarning, match=r"rank-00000002.*damaged.*back to checkpoint 4"):
        origin = claim_origin(str(tmp_path), None)
    assert (origin.manifest.checkpoint, origin.newest, origin.stale) == (4, 5, (5,))


def test_a_manifest_that_cannot_be_read_still_counts(tmp_path: Path) -> None:
    for number in (3, 4):
        keep(tmp_path, number)
    (tmp_path / "checkpoint-00000004" / "manifest.json").write_bytes(b"{")
    with pytest.warns(StoreWarning, match="cannot be read") as told:
        origin = claim_origin(tmp_path, None)
    assert len(told) == 1
    assert (origin.manifest.checkpoint, origin.newest, origin.stale) == (3, 4, (4,))


def test_where_no_manifest_can_be_read_that_is_said(tmp_path: Path) -> None:
    keep(tmp_path, 3)
    (tmp_path / "checkpoint-00000003" / "manifest.json").write_bytes(b"{")
    with (
        pytest.warns(StoreWarning, match="cannot be read"),
        pytest.raises(CorruptSnapshot, match=r"no whole checkpoint.*\(3\)"),
    ):
        claim_origin(tmp_path, None)
    assert is_free(tmp_path)


def test_one_that_is_asked_for_has_no_other_behind_it(tmp_path: Path) -> None:
    for number in (3, 4):
        keep(tmp_path, number)
    origin = claim_origin(tmp_path, 4)
    with pytest.raises(CorruptSnapshot, match="rank 1"):
        origin.before(CorruptSnapshot("rank 1"))
    origin.store.release()
    damage(tmp_path, 4, 2)
    with pytest.raises(CorruptSnapshot):
        claim_origin(tmp_path, 4)
    assert is_free(tmp_path)


@pytest.mark.parametrize(
    ("number", "match"), [(7, "there are: 3"), ("3", "number"), (True, "number"), (3.0, "number")]
)
def test_numbers_that_are_not_there(tmp_path: Path, number: Any, match: str) -> None:
    keep(tmp_path, 3)
    with pytest.raises(UsageError, match=match):
        claim_origin(tmp_path, number)
    assert is_free(tmp_path)


def test_nothing_is_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no directory"):
        claim_origin(tmp_path / "typo", None)
    assert not (tmp_path / "typo").exists()
    with pytest.raises(UsageError, match="no checkpoint"):
        claim_origin(tmp_path, None)
    assert list(tmp_path.iterdir()) == []  # it may be anybody's directory
    FileStore(tmp_path).put(1, 0, [b"never committed"])
    with pytest.raises(UsageError, match="no checkpoint"):
        claim_origin(tmp_path, None)
    assert is_free(tmp_path)


def test_shards_that_no_session_wrote(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.commit(make(1, [store.put(1, 0, [b"other"])]))
    with pytest.raises(UsageError, match="not written by a session"):
        claim_origin(tmp_path, None)


def test_another_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(tmp_path, 3)
    monkeypatch.setattr("platform.python_version", lambda: "3.99.1")
    with pytest.raises(UsageError, match=r"this is 3\.99\.1"):
        claim_origin(tmp_path, None)
    assert is_free(tmp_path)


def test_modules_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "changed_one.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(folder)
    keep(tmp_path / "kept", 3, code={"changed_one": "00", "missing_one": "00", "json": "00"})
    origin = claim_origin(tmp_path / "kept", None)
    texts = what_differs(origin.manifest)
    assert any("'changed_one' is not the one" in text for text in texts)
    assert any("'missing_one', which is not found" in text for text in texts)


def test_a_new_session_takes_an_empty_place_and_no_other(tmp_path: Path) -> None:
    claim_new(tmp_path / "a").release()
    keep(tmp_path / "b", 1)
    with pytest.raises(UsageError, match=r"checkpoints \(1\)"):
        claim_new(tmp_path / "b")
    (tmp_path / "b" / "checkpoint-00000001" / "manifest.json").write_bytes(b"{")
    with pytest.raises(UsageError, match=r"checkpoints \(1\)"):
        claim_new(tmp_path / "b")
    assert is_free(tmp_path / "b")


def test_what_an_interrupted_session_left_is_removed(tmp_path: Path) -> None:
    FileStore(tmp_path).put(1, 0, [b"never committed"])
    claim_new(tmp_path)
    assert FileStore(tmp_path).numbers() == []


def test_what_is_no_store() -> None:
    for place in (3, None, MemoryStore()):
        with pytest.raises(UsageError, match="a store is a directory"):
            claim_new(place)  # type: ignore[arg-type]
    for take in (claim_new, list_place):
        for text in ("", "a\0b"):
            with pytest.raises(UsageError, match="a directory or a URL"):
                take(text)
        with pytest.raises(UsageError, match="no such user"):
            take("~nosuchuserhere/kept")


def test_the_list_shows_what_a_person_looks_for(tmp_path: Path) -> None:
    for number in (3, 4):
        keep(tmp_path, number)
    text = repr(list_place(tmp_path))
    first = next(line for line in text.splitlines() if line.lstrip().startswith("4"))
    for word in ("old", "x", "long"):
        assert word in first
    assert text.index(" 4 ") < text.index(" 3 ")
    manifest = json.loads((tmp_path / "checkpoint-00000004" / "manifest.json").read_text())
    assert manifest["info"]["ranks"] == 2


def test_memory_is_no_place_for_a_session(tmp_path):
    for place in (
        MemoryTier(),
        "memory://x",
        SlowStore(MemoryTier(), 1e6),
        TieredStore(MemoryTier(), FileStore(tmp_path / "s")),
        TieredStore(FileStore(tmp_path / "s"), SlowStore(FsspecStore("memory://x"), 1e6)),
    ):
        with pytest.raises(UsageError, match="is memory of each process by itself"):
            claim_new(place)
    claim_new(TieredStore(FileStore(tmp_path / "f"), FileStore(tmp_path / "s"))).release()
