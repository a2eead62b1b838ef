"""Captures by name: every kind of object by each, chains of them, and damage."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from capture_corpus import CORPUS, IN_MAIN
from capture_helpers import Chain, take
from hypothesis import given, settings
from hypothesis import strategies as st

from feliss_nb.errors import CorruptSnapshot, UnpicklableError, UsageError
from feliss_nb.state import canonical_digest, captures, from_frames, restore
from feliss_nb.state.chunks import CHUNK, content_ends
from feliss_nb.state.differences import apply, is_difference

NAMES = captures.names()
FORKLESS = [name for name in NAMES if "forked" not in name]


# ---------------------------------------------------------------- names


def test_the_names_compose():
    assert len(NAMES) == len(set(NAMES)) == 12
    assert {"full", "forked", "incremental", "incremental+forked", "forked+xor"} <= set(NAMES)
    found = captures.method("incremental+forked+xor")
    assert (found.incremental, found.forked, found.compression) == (True, True, "xor")


@pytest.mark.parametrize("name", ["", "fork", "forked+incremental", "full+lz4", None, 3, []])
def test_a_wrong_name_is_refused_with_the_names(name):
    with pytest.raises(UsageError, match=r"incremental\+forked\+zstd"):
        captures.method(name)


def test_a_near_name_is_suggested():
    with pytest.raises(UsageError, match="did you mean 'forked'"):
        captures.method("forkd")


# ---------------------------------------------------------------- every kind of object


def by_each_capture(obj: Any) -> None:
    wanted = canonical_digest([obj, "after"])
    for name in NAMES:
        chain = Chain()
        chain.take([obj, "before"], name)
        taken = chain.take([obj, "after"], name)
        back = chain.restore()
        assert canonical_digest(back) == wanted, name
        assert len(chain.parts) == (2 if taken.needs_base else 1)


@pytest.mark.parametrize("kind", CORPUS)
def test_every_kind_of_object(kind):
    by_each_capture(CORPUS[kind]())


@pytest.mark.parametrize("kind", IN_MAIN)
def test_every_kind_of_object_of_a_notebook(kind, in_main):
    by_each_capture(in_main(IN_MAIN[kind])["state"])


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shared_stays_so(name):
    chain = Chain()
    base = np.arange(50_000.0)
    state = {"pool": [base] * 50, "part": base[100:9000], "partitions": {1: base}}
    chain.take(state, name)
    base[7] = -1
    taken = chain.take(state, name)
    assert taken.nbytes < base.nbytes * 1.1  # stored once, however often it is named
    back = chain.restore()
    back["part"][0] = 5
    assert back["partitions"][1][100] == 5
    assert all(one is back["pool"][0] for one in back["pool"])


@pytest.mark.parametrize("name", NAMES)
def test_what_changes_after_the_capture_does_not_show(name):
    state = {"a": np.zeros(50_000), "l": [1]}
    first = take(state, name)
    state["a"][:] = 1
    state["l"].append(2)
    frames = apply((), first.frames) if first.is_difference else first.frames
    back = restore(from_frames(frames))
    assert (back["a"].sum(), back["l"]) == (0, [1])


@pytest.mark.parametrize("name", NAMES)
def test_an_error_says_the_same_by_each_capture(name):
    state = {"rows": [1, {"deep": (x for x in ())}]}
    with pytest.raises(UnpicklableError) as full:
        take(state, "full")
    with pytest.raises(UnpicklableError) as this:
        take(state, name)
    assert str(this.value) == str(full.value)
    assert "rows" in str(this.value)
    assert this.value.path == full.value.path


# ---------------------------------------------------------------- what is written


def test_only_what_has_changed_is_written():
    chain = Chain()
    state = {"a": np.random.default_rng(1).random(1_000_000), "t": list(range(50_000))}
    whole = chain.take(state, "incremental")
    assert not whole.is_difference
    assert chain.take(state, "incremental").written < 2000
    state["a"][500_000] += 1
    assert chain.take(state, "incremental").written < 2000 + CHUNK
    state["t"][25_000] = -1
    assert chain.take(state, "incremental").written < 50_000
    assert canonical_digest(chain.restore()) == canonical_digest(state)


def test_an_array_that_moved_is_found_again():
    rng = np.random.default_rng(2)
    state = [rng.random(30_000) for _ in range(8)]
    chain = Chain()
    chain.take(state, "incremental")
    state.reverse()
    state.insert(0, np.ones(10))
    assert chain.take(state, "incremental").written < 20_000
    assert canonical_digest(chain.restore()) == canonical_digest(state)


def test_more_than_half_new_is_written_whole():
    chain = Chain()
    state = [np.random.default_rng(3).random(100_000)]
    chain.take(state, "incremental")
    state[0][:] += 1
    taken = chain.take(state, "incremental")
    assert not taken.is_difference
    assert taken.index is not None
    assert taken.index.links == 0


def test_xor_makes_small_changes_compressible():
    state = [np.random.default_rng(4).integers(0, 1 << 60, 100_000)]
    sizes = {}
    for name in ("full+zstd", "incremental+zstd", "incremental+xor", "full+xor"):
        chain = Chain()
        chain.take(state, name)
        state[0][::10] ^= 1
        sizes[name] = chain.take(state, name).written
        assert canonical_digest(chain.restore()) == canonical_digest(state)
    assert sizes["incremental+xor"] * 10 < sizes["incremental+zstd"]
    assert sizes["full+xor"] * 10 < sizes["full+zstd"]


def test_a_frame_that_has_not_changed_is_given_again():
    chain = Chain()
    state = [np.arange(10_000.0), np.zeros(10_000)]
    first = chain.take(state, "incremental")
    state[1][0] = 1
    second = chain.take(state, "incremental")
    whole = apply(first.frames, second.frames)
    assert whole[2] is first.frames[2]
    assert whole[3] is not first.frames[3]


def test_insertion_moves_the_cuts_near_it_only():
    stream = np.random.default_rng(5).bytes(200_000)
    longer = stream[:100_000] + b"inserted" + stream[100_000:]
    ends, after = content_ends(stream), content_ends(longer)
    assert ends[-1] == len(stream)
    kept = set(ends) & set(after) | {e for e in ends if e + 8 in after}
    assert len(kept) > len(ends) - 5


def test_a_chain_is_bounded_and_follows_what_is_committed():
    chain = captures.Chain(limit=2)
    state = {"a": np.zeros(100_000)}
    how = captures.method("incremental")
    kinds = []
    for checkpoint in range(1, 8):
        state["a"][0] = checkpoint
        taken = captures.draft(state, how, chain.known(checkpoint - 1)).finish()
        chain.add(checkpoint, taken.index)
        kinds.append(taken.is_difference)
    assert kinds == [False, True, True, False, True, True, False]
    assert chain.known(5) is None  # forgotten: another one is committed
    chain.clear()
    assert chain.known(7) is None


def test_a_capture_that_is_not_committed_changes_nothing():
    chain = captures.Chain()
    how = captures.method("incremental")
    state = [np.zeros(50_000)]
    first = captures.draft(state, how).finish()
    chain.add(1, first.index)
    state[0][:10] = 1
    chain.add(2, captures.draft(state, how, chain.known(1)).finish().index)  # then aborted
    state[0][:10] = 2
    third = captures.draft(state, how, chain.known(1)).finish()
    back = restore(from_frames(apply(first.frames, third.frames)))
    assert back[0][:10].sum() == 20


# ---------------------------------------------------------------- any change, any damage

changes = st.lists(
    st.tuples(st.sampled_from(["array", "list", "dict", "new", "drop", "resize"]), st.integers(0)),
    max_size=4,
)


def change(state: dict[Any, Any], what: str, n: int) -> None:
    if what == "array":
        for name in ("big", "small"):
            if name in state:
                array = state[name]
                array[n % len(array) : n % len(array) + 1 + n % 700] += 1
    elif what == "list":
        state.setdefault("list", list(range(3000))).insert(n % 2000, n)
    elif what == "dict":
        state.setdefault("dict", {})[n % 50] = "x" * (n % 300)
    elif what == "new":
        state[n % 20] = np.full(1 + n % 5000, n % 97)
    elif what == "drop":
        state.pop(sorted(state, key=str)[n % len(state)]) if len(state) > 1 else None
    elif "big" in state:
        state["big"] = state["big"][: max(1, n % len(state["big"]))].copy()


def start() -> dict[Any, Any]:
    big = np.random.default_rng(6).random(9000)
    return {"big": big, "view": big[10:20], "small": np.zeros(20), "text": "t" * 3000}


@given(st.lists(st.tuples(st.sampled_from(FORKLESS), changes), min_size=1, max_size=6))
def test_any_change_is_restored(steps):
    chain, state = Chain(), start()
    for name, doing in steps:
        for what, n in doing:
            change(state, what, n)
        chain.take(state, name)
        assert canonical_digest(chain.restore()) == canonical_digest(state)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(NAMES), changes), min_size=2, max_size=3))
def test_any_change_is_restored_from_children_too(steps):
    chain, state = Chain(), start()
    for name, doing in steps:
        for what, n in doing:
            change(state, what, n)
        chain.take(state, name)
    assert canonical_digest(chain.restore()) == canonical_digest(state)


class Heard:
    """Puts the frames together from what it hears."""

    def __init__(self) -> None:
        self.frames: dict[int, bytes] = {}
        self.forgot = 0

    def hear(self, frame: int, piece: Any) -> None:
        self.frames[frame] = self.frames.get(frame, b"") + bytes(piece)

    def forget(self) -> None:
        self.frames.clear()
        self.forgot += 1


@given(changes)
def test_who_listens_hears_the_stream(doing):
    state = start()
    for what, n in doing:
        change(state, what, n)
    state["raw"] = bytearray(b"r" * 200_000)
    heard = Heard()
    drafted = captures.draft(state, captures.FULL, listener=heard)
    state["raw"][:] = b"x" * 200_000
    taken = drafted.finish()
    assert heard.frames == {1: bytes(taken.frames[1])}
    assert restore(from_frames(taken.frames))["raw"] == b"r" * 200_000


def test_a_stream_that_begins_anew_is_not_taken_for_one():
    deep: list[Any] = []
    for _ in range(3000):  # deeper than Python's limit: it is written twice
        deep = [deep]
    heard = Heard()
    taken = captures.draft(deep, captures.FULL, listener=heard).finish()
    assert heard.forgot == 1
    whole = restore(from_frames(taken.frames))
    assert len(whole) == 1


def chain_of_three(name: str) -> Chain:
    chain, state = Chain(), start()
    state |= {"list": list(range(3000)), "rest": np.random.default_rng(7).random(30_000)}
    chain.take(state, name)
    for n in (1, 2):
        change(state, "array", n * 1000)
        change(state, "list", n)
        chain.take(state, name)
    assert [is_difference(part) for part in chain.parts][1:] == [True, True]
    return chain


@pytest.mark.parametrize("name", ["incremental", "incremental+xor", "full+xor"])
@given(data=st.data())
def test_damage_anywhere_is_found_and_named(name, data):
    chain = chain_of_three(name)
    part = data.draw(st.integers(0, 2))
    frame = data.draw(st.integers(0, len(chain.parts[part]) - 1))
    bad = bytearray(chain.parts[part][frame])
    if not bad:
        return
    bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    chain.parts[part][frame] = bytes(bad)
    with pytest.raises(CorruptSnapshot, match=f"part {part + 1} of 3"):
        chain.restore()


@pytest.mark.parametrize("name", ["incremental", "incremental+zstd", "full+xor"])
def test_what_is_missing_is_found_and_named(name):
    whole = chain_of_three(name)
    for lost in (0, 1):
        chain = copy.deepcopy(whole)
        del chain.parts[lost]
        with pytest.raises(CorruptSnapshot, match=f"part {lost + 1} of 2.*was applied to"):
            chain.restore()
    for part in range(3):
        for frame in range(len(whole.parts[part])):
            chain = copy.deepcopy(whole)
            del chain.parts[part][frame]
            with pytest.raises(CorruptSnapshot, match=f"part {part + 1} of 3"):
                chain.restore()
    whole.parts[1:] = whole.parts[:0:-1]
    with pytest.raises(CorruptSnapshot, match=r"part 2 of 3.*was applied to"):
        whole.restore()
    with pytest.raises(CorruptSnapshot, match="empty"):
        Chain().restore()


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5))
def test_nonsense_is_no_difference(frames):
    for first in (frames[0], b"FELDIF01" + frames[0]):
        with pytest.raises(CorruptSnapshot):
            apply((), [first, *frames[1:]])
