"""A rank that changes at random, captured onto a disk that is damaged at random, restored."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from capture_helpers import take
from hypothesis import given, settings
from hypothesis import strategies as st

from feliss_nb.errors import CorruptSnapshot, StoreWarning
from feliss_nb.runtime.shard import join, split, whole
from feliss_nb.state import canonical_digest, captures, from_frames, restore
from feliss_nb.state.codec import allocate_each
from feliss_nb.store import FileStore
from feliss_nb.store.manifest import Manifest, make

NAMES = [name for name in captures.names() if "forked" not in name]


class Session:
    """One rank and its store, as engine and keeper use it."""

    def __init__(self, place: Path) -> None:
        self.store = FileStore(place)
        self.state: dict[str, Any] = {
            "array": np.random.default_rng(1).random(20_000),
            "words": {f"word {i}": i for i in range(2000)},
        }
        self.state["alias"] = self.state["array"][100:200]
        self.known = captures.Chain()
        self.digests: dict[int, bytes] = {}
        self.newest: Manifest | None = None
        self.whole: list[Any] = []

    def change(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        start = int(random.integers(0, 19_000))
        self.state["array"][start : start + int(random.integers(1, 1000))] += 1
        self.state["words"][f"new {seed % 7}"] = seed

    def checkpoint(self, name: str) -> None:
        how = captures.method(name)
        base = 0 if self.newest is None else self.newest.checkpoint
        known = self.known.known(base) if how.needs_base else None
        if not how.needs_base:
            self.known.clear()
        old = split(self.whole)[0] if known is not None else ()
        taken = take(self.state, name, known, old)
        number = base + 1
        shard = join([bytes(frame) for frame in taken.frames], [])
        record = self.store.put(number, 0, shard)
        if taken.needs_base:
            assert self.newest is not None
            record = replace(record, bases=(*self.newest.shard(0).bases, base))
        self.newest = make(number, [record])
        self.store.commit(self.newest)
        self.whole = read(self.store, self.newest)
        self.known.add(number, taken.index)
        self.digests[number] = canonical_digest(self.state)


def read(store: FileStore, manifest: Manifest) -> list[Any]:
    numbers = (*manifest.shard(0).bases, manifest.checkpoint)
    return whole([store.get(number, 0) for number in numbers], allocate_each)


def damage(place: Path, number: int, how: str, where: int) -> None:
    [path] = place.glob(f"checkpoint-{number:08d}/rank-*.shard")
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
        return
    if how == "flip":
        content[where % len(content)] ^= 1 << where % 8
    else:
        del content[where % len(content) :]
    path.write_bytes(content)


def newest_whole(store: FileStore) -> tuple[int, Any, Sequence[str]]:
    """What a restore finds: the number, the state, and what it says of those that it passes."""
    said = []
    for manifest in store.manifests():
        try:
            found = restore(from_frames(split(read(store, manifest))[0]))
        except CorruptSnapshot as error:
            said.append(str(error))
        else:
            return manifest.checkpoint, found, said
    return 0, None, said


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 1000)), min_size=1, max_size=7),
    st.integers(1, 4),
    st.lists(
        st.tuples(st.integers(0), st.sampled_from(["flip", "cut", "gone"]), st.integers(0)),
        max_size=2,
    ),
)
def test_what_comes_back_is_the_newest_that_is_whole(steps, last, damages):
    with tempfile.TemporaryDirectory() as place:
        session = Session(Path(place, "kept"))
        for name, seed in steps:
            session.change(seed)
            session.checkpoint(name)
            session.store.keep(last)
        manifests = session.store.manifests()
        bad = set()
        for which, how, where in damages:
            number = manifests[which % len(manifests)].checkpoint
            if number not in bad:
                damage(Path(place, "kept"), number, how, where)
                bad.add(number)
        sound = [m.checkpoint for m in manifests if not bad & {m.checkpoint, *m.shard(0).bases}]
        with warnings.catch_warnings():
            warnings.simplefilter("error", StoreWarning)
            number, found, said = newest_whole(session.store)
        assert number == max(sound, default=0)
        assert all(any(f"checkpoint-{n:08d}" in text for n in bad) for text in said)
        if number:
            assert canonical_digest(found) == session.digests[number]
            assert found["alias"].base is not None
            found["array"][150] = -5
            assert found["alias"][50] == -5
