"""capture and restore; frames."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import xxhash
from capture_corpus import CORPUS
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from feliss_nb.errors import CorruptSnapshot
from feliss_nb.state import Handle, Target, capture, frames, from_frames, pack, restore, unpack
from feliss_nb.state.snapshot import SMALL, Snapshot


def through_frames(snapshot: Snapshot) -> Snapshot:
    return from_frames([bytes(frame) for frame in frames(snapshot)])


# numpy itself turns the bytes of datetimes to the machine's order
dtypes = hnp.scalar_dtypes().filter(lambda dtype: dtype.kind not in "mM")


@given(st.lists(hnp.arrays(dtypes, hnp.array_shapes(min_side=0)), max_size=5))
def test_what_is_captured_is_restored(arrays):
    for snapshot in (capture(arrays), through_frames(capture(arrays))):
        for back, array in zip(restore(snapshot), arrays, strict=True):
            assert back.dtype == array.dtype
            assert back.shape == array.shape
            assert back.tobytes() == array.tobytes()
            assert back.flags.writeable
            assert back.flags.aligned


@pytest.mark.parametrize("size", [5, SMALL * 4])
def test_what_changes_after_the_capture_does_not_show(size):
    state = {"a": np.zeros(size), "l": [1]}
    snapshot = capture(state)
    state["a"][:] = 1
    state["l"].append(2)
    back = restore(snapshot)
    assert back["a"].sum() == 0
    assert back["l"] == [1]
    back["a"][:] = 2
    assert restore(snapshot)["a"].sum() == 0  # nor what is done to a restored one


def test_large_arrays_are_aligned_to_cache_lines():
    back = restore(capture([np.zeros(SMALL), np.zeros(SMALL + 1)]))
    assert [a.ctypes.data % 64 for a in back] == [0, 0]


def test_a_snapshot_says_what_it_refers_to():
    snapshot = through_frames(capture([Handle(3), Target(2**80), (Handle(-4), 1)]))
    assert snapshot.handles == {3, -4}
    assert snapshot.targets == {2**80}
    assert snapshot.nbytes == len(snapshot.data)
    assert capture(np.zeros(SMALL)).nbytes > SMALL * 8


def views(base: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "base": base,
        "part": base[3:7],
        "column": base[:, 2],
        "turned": base.T,
        "back": base[::-2, 1::3],
        "row": base[4],
        "wide": np.broadcast_to(base[0], (3, *base[0].shape)),
        "other": base.view(np.int64)[2:4],
    }


@pytest.mark.parametrize("side", [10, 100])
@pytest.mark.parametrize("leave", ["", "base"])
def test_views_of_one_memory_stay_so(side, leave):
    state = views(np.arange(float(side * side)).reshape(side, side))
    state.pop(leave, None)
    expected = {name: view.copy() for name, view in state.items()}
    back = restore(through_frames(capture(state)))
    for name, view in back.items():
        np.testing.assert_array_equal(view, expected[name])
        assert view.flags.writeable == state[name].flags.writeable
        assert view.flags.aligned
    for name in state:
        for other in state:
            assert np.shares_memory(back[name], back[other]) == np.shares_memory(
                state[name], state[other]
            )
    back["turned"][:] = 7
    assert all((v == 7).all() for n, v in back.items() if n != "other")


def test_views_of_another_type_stay_aligned():
    raw = np.arange(20_000, dtype=np.uint8)
    state = [raw[4:9000], raw[16:9616].view(np.float64)]
    assert state[1].flags.aligned
    back = restore(capture(state))
    assert back[1].flags.aligned
    assert back[0].tobytes() == state[0].tobytes()
    assert back[1].tobytes() == state[1].tobytes()


def test_windows_over_an_array_come_back_by_value():
    window = np.lib.stride_tricks.sliding_window_view(np.arange(10.0), 3)
    for view in (window, window[::2]):
        np.testing.assert_array_equal(restore(capture([view]))[0], view)


def test_shared_memory_is_stored_once():
    base = np.zeros(100_000)
    snapshot = capture([base, base[10:], base[:-5], base[::2]])
    assert snapshot.nbytes < base.nbytes * 1.01
    assert len(snapshot.buffers) == 1


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000)), min_size=1, max_size=8))
def test_any_overlap(ranges):
    base = np.arange(2000, dtype=np.int32)
    state = [base[min(r) : max(r)] for r in ranges]
    back = restore(capture(state))
    for view, original in zip(back, state, strict=True):
        np.testing.assert_array_equal(view, original)
        assert view.flags.aligned
    for i, first in enumerate(state):
        for j, second in enumerate(state):
            assert np.shares_memory(back[i], back[j]) == np.shares_memory(first, second)


def test_many_small_arrays_make_one_buffer():
    state = [np.full(5, i) for i in range(1000)]
    snapshot = capture(state)
    assert len(frames(snapshot)) == 3
    back = restore(snapshot)
    assert all((a == i).all() for i, a in enumerate(back))
    back[0][:] = -1
    assert (back[1] == 1).all()


@pytest.mark.parametrize("kind", [kind for kind in CORPUS if kind.startswith("read-only")])
def test_what_is_read_only_stays_so(kind):
    captured = CORPUS[kind]()
    found = captured if isinstance(captured, list) else [captured]
    for there_and_back in (restore(capture(found)), unpack(pack(found).data, pack(found).buffers)):
        for back, wanted in zip(there_and_back, found, strict=True):
            assert type(back) is type(wanted)
            np.testing.assert_array_equal(back, wanted)
            assert np.asarray(back).flags.writeable is False


def test_a_mapped_file_comes_back_as_its_content(tmp_path):
    mapped = np.memmap(tmp_path / "numbers", np.float64, "w+", shape=(SMALL,))
    mapped[:] = 1
    snapshot = capture(mapped)
    mapped[:] = 2
    back = restore(snapshot)
    assert type(back) is np.memmap
    assert back.sum() == SMALL
    back[:] = 3
    back.flush()
    assert mapped.sum() == 2 * SMALL


def test_a_hard_mask_stays_hard():
    back = restore(capture(np.ma.masked_array([1, 2], [0, 1], hard_mask=True)))
    back[1] = 5
    assert back.mask.tolist() == [False, True]


def test_aliases_and_cycles():
    array = np.arange(5000.0)
    state = {"pool": [array], "partitions": {1: array}}
    state["self"] = state
    back = restore(capture(state))
    assert back["pool"][0] is back["partitions"][1]
    assert back["self"] is back


@pytest.mark.parametrize("which", range(1, 4))
@pytest.mark.parametrize("where", [0, -1])
def test_a_flipped_bit_is_found(which, where):
    parts = [bytearray(f) for f in frames(capture([np.zeros(SMALL), np.zeros(5), "text"]))]
    assert len(parts) == 4
    restore(from_frames(parts))
    parts[which][where] ^= 1
    with pytest.raises(CorruptSnapshot, match="digest"):
        restore(from_frames(parts))


def test_from_frames_unpickles_nothing():
    parts = frames(capture([1, 2]))
    parts[1] = b"\x80\x05not a pickle".ljust(len(parts[1]), b".")
    snapshot = from_frames(parts)
    with pytest.raises(CorruptSnapshot):
        restore(snapshot)


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_nonsense_is_corrupt(parts):
    with pytest.raises(CorruptSnapshot):
        from_frames(parts)


@given(st.data())
def test_a_damaged_header_is_corrupt(data):
    head, *rest = (bytes(f) for f in frames(capture([np.zeros(SMALL), Handle(1)])))
    at = data.draw(st.integers(0, len(head) - 1))
    bad = bytearray(head)
    bad[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptSnapshot):
        from_frames([bad, *rest])


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "zz"},
        {"digest": "00"},
        {"digest": None},
        {"data": "1"},
        {"data": 1},
        {"buffers": [1]},
        {"buffers": None},
        {"segments": [-1]},
        {"segments": [1 << 60]},
        {"stretches": [0, 0]},
        {"stretches": [5, 0, 1]},
        {"stretches": [0, 1, 1 << 40]},
        {"stretches": [True, 0, 1]},
        {"handles": ["1"]},
        {"handles": {}},
        {"more": 1},
        None,
    ],
    ids=str,
)
def test_a_forged_header_is_corrupt(change):
    head, *rest = frames(capture([np.zeros(SMALL)]))
    body = json.loads(head[16:])
    body = {**body, **change} if change is not None else [1]
    text = json.dumps(body).encode()
    with pytest.raises(CorruptSnapshot):
        from_frames([head[:8] + xxhash.xxh3_64_digest(text) + text, *rest])


def test_frames_that_are_missing_or_swapped():
    parts = frames(capture([np.zeros(SMALL), np.zeros(SMALL * 2)]))
    for wrong in (parts[:-1], [*parts, b"x"], [parts[0], parts[1], parts[3], parts[2]]):
        with pytest.raises(CorruptSnapshot):
            from_frames(wrong)


RESTORE = """
    import sys
    from pathlib import Path
    from feliss_nb.state import capture, restore, frames, from_frames
    folder = Path(sys.argv[2])
    if sys.argv[1] == "capture":
        import numpy as np
        class Particle:
            def __init__(self, x): self.x = x; self.me = self
            def move(self): self.x += STEP; return self.x
        STEP = np.ones(5000)
        particles = [Particle(np.arange(5000.0)) for _ in range(3)]
        for i, f in enumerate(frames(capture({"p": particles, "f": lambda: len(particles)}))):
            folder.joinpath(f"frame{i}").write_bytes(f)
    else:
        paths = sorted(folder.glob("frame*"))
        state = restore(from_frames([p.read_bytes() for p in paths]))
        print(state["p"][0].move()[1], state["p"][1].me is state["p"][1], state["f"]())
        print("numpy" in sys.modules)
"""


def test_another_process_restores_it(script, tmp_path):
    script(RESTORE, "capture", tmp_path)
    assert script(RESTORE, "restore", tmp_path).splitlines()[0] == "2.0 True 3"


def test_a_captured_object_is_let_go():
    array = np.zeros(SMALL * 2)
    before = sys.getrefcount(array)
    snapshot = capture([array, array[::2], array[5:]])
    assert sys.getrefcount(array) == before
    assert snapshot.nbytes


def test_restore_binds_handles():
    assert restore(capture([Handle(2, True)]), lambda v, r: (v, r)) == [(2, True)]


SLOTS = """
    import pickle, sys
    from pathlib import Path
    from feliss_nb.state import canonical_digest, capture, frames, from_frames, restore
    path = Path(sys.argv[1])
    if not path.exists():
        import re, typing
        class Cell:
            __slots__ = ("value", "__weakref__")
        class Named(typing.NamedTuple):
            a: int
        class Failed(Exception):
            def __init__(self, code, why):
                super().__init__(why)
                self.code = code
        cell = Cell()
        cell.value = 1
        state = [cell, Named(2), Failed(3, "no"), re.compile("a"), int | str]
        path.write_bytes(pickle.dumps([bytes(frame) for frame in frames(capture(state))]))
    else:
        state = restore(from_frames(pickle.loads(path.read_bytes())))
    print(canonical_digest(state).hex())
    print(*(hasattr(each, "__dict__") for each in state[:2]), state[2].code, state[2])
"""


def test_classes_of_main_are_the_same_in_another_process(script, tmp_path):
    made, found = script(SLOTS, tmp_path / "frames"), script(SLOTS, tmp_path / "frames")
    assert found == made
    assert made.splitlines()[1] == "False False 3 no"


CLASSES = """
    import sys
    from pathlib import Path
    from feliss_nb.state import capture, restore, frames, from_frames
    folder = Path(sys.argv[2])
    if sys.argv[1] == "capture":
        class Count:
            total = 0
        for i, f in enumerate(frames(capture(Count()))):
            folder.joinpath(f"frame{i}").write_bytes(f)
    else:
        snapshot = from_frames([p.read_bytes() for p in sorted(folder.glob("frame*"))])
        cls = type(restore(snapshot))
        cls.total = 5
        print(type(restore(snapshot, renew_classes=False)) is cls, cls.total)
        print(type(restore(snapshot)) is cls, cls.total)
"""


def test_a_rollback_takes_classes_back_and_a_fetch_does_not(script, tmp_path):
    script(CLASSES, "capture", tmp_path)
    assert script(CLASSES, "restore", tmp_path).splitlines() == ["True 5", "True 0"]
