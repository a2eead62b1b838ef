"""At whatever step it fails: what is listed as committed reads back, or says what does not."""

from __future__ import annotations

import errno
import warnings
from unittest import mock

import pytest
from forgetful_disk import ForgetfulDisk, PowerLoss
from hypothesis import given
from hypothesis import strategies as st

from feliss_nb.errors import CorruptSnapshot, StoreError, StoreWarning
from feliss_nb.store import FileStore, files
from feliss_nb.store.manifest import make


@pytest.fixture(autouse=True, scope="module")
def ask_the_disk_to_begin():
    with mock.patch.object(files, "AHEAD", 100):
        yield


ROOT = "/store"
RANKS = 2


def content(checkpoint: int, rank: int) -> list[bytes]:
    return [
        b"%d of %d" % (rank, checkpoint),
        b"",
        bytes([checkpoint, rank]) * (30 + 7 * checkpoint),
        bytes(2 * files.HOLE + 5),
        b"end",
    ]


@pytest.fixture
def disk():
    made = ForgetfulDisk(ROOT)
    # No real descriptor stands behind this disk's, so nothing to lock: the lock has its own test.
    with mock.patch.object(files, "os", made), mock.patch.object(FileStore, "claim"):
        yield made


def take(store: FileStore, checkpoint: int) -> None:
    records = [store.put(checkpoint, rank, content(checkpoint, rank)) for rank in range(RANKS)]
    store.commit(make(checkpoint, records))


def check(store: FileStore, checkpoint: int) -> None:
    for rank in range(RANKS):
        assert [bytes(frame) for frame in store.get(checkpoint, rank)] == content(checkpoint, rank)


def listed(store: FileStore) -> list[int]:
    return [manifest.checkpoint for manifest in store.manifests()]


def steps_of_a_run() -> int:
    disk = ForgetfulDisk(ROOT)
    with mock.patch.object(files, "os", disk), mock.patch.object(files, "AHEAD", 100):
        run(FileStore(ROOT), [], 1)
    return disk.steps


def run(store: FileStore, done: list[int], first: int) -> None:
    """Three checkpoints, of which two are kept."""
    for checkpoint in range(first, first + 3):
        take(store, checkpoint)
        done.append(checkpoint)
        store.keep(2)


STEPS = steps_of_a_run()


@given(stop=st.integers(1, STEPS), data=st.data())
def test_a_loss_of_power_at_any_step(stop, data):
    disk = ForgetfulDisk(ROOT)
    with mock.patch.object(files, "os", disk), mock.patch.object(FileStore, "claim"):
        disk.stop_at = stop
        done: list[int] = []
        with pytest.raises(PowerLoss):
            run(FileStore(ROOT), done, 1)
        disk.power_on(lambda n: data.draw(st.integers(0, n - 1)))
        store = FileStore(ROOT)
        with warnings.catch_warnings():
            warnings.simplefilter("error", StoreWarning)  # nothing is damaged either
            there = listed(store)
        for checkpoint in there:
            check(store, checkpoint)
        # What was committed is there: all but those that keep() deletes.
        newest = done[-1] if done else 0
        assert set(there) >= {c for c in done if c > newest - 1}
        assert set(there) <= {*done, newest + 1}
        # Nothing stays that nobody speaks of.
        store.clean()
        assert {name.split("/")[0] for name in disk.files()} == {
            f"checkpoint-{c:08d}" for c in there
        }
        assert len(disk.files()) == len(there) * (RANKS + 1)
        assert listed(store) == there
        # And the work goes on.
        run(store, [], 10)
        assert listed(store) == [12, 11]
        check(store, 11)


@given(
    stop=st.integers(1, STEPS),
    why=st.sampled_from([errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS]),
)
def test_a_call_that_fails_at_any_step(stop, why):
    disk = ForgetfulDisk(ROOT)
    with mock.patch.object(files, "os", disk), mock.patch.object(FileStore, "claim"):
        disk.stop_at, disk.fails_with = stop, why
        done: list[int] = []
        try:
            run(FileStore(ROOT), done, 1)
        except StoreError as error:
            assert "stay as they are" in str(error)  # noqa: PT017
        else:
            assert done == [1, 2, 3]  # advice, which may fail
        disk.stop_at = None
        store = FileStore(ROOT)
        assert not [name for name in disk.files() if ".staging" in name]
        for checkpoint in listed(store):
            check(store, checkpoint)
        assert set(listed(store)) >= set(done[-1:])
        run(store, [], 10)
        store.clean()
        assert listed(store) == [12, 11]
        assert len(disk.files()) == 2 * (RANKS + 1)


@pytest.mark.parametrize("room", [0, 1, 100, 400])
def test_a_full_disk(disk, room):
    store = FileStore(ROOT)
    take(store, 1)
    before = set(disk.files())
    disk.room = room
    with pytest.raises(StoreError, match="No space left on device; make room there"):
        take(store, 2)
    assert not [name for name in set(disk.files()) - before if ".staging" in name]
    assert listed(store) == [1]
    check(store, 1)
    disk.room = None
    take(store, 2)
    check(store, 2)


@given(data=st.data())
def test_damage_is_named_and_the_checkpoint_before_is_there(data):
    disk = ForgetfulDisk(ROOT)
    with mock.patch.object(files, "os", disk):
        store = FileStore(ROOT)
        take(store, 1)
        take(store, 2)
        name = data.draw(st.sampled_from(sorted(n for n in disk.files() if "00002/" in n)))
        file = disk.files()[name]
        how = data.draw(st.sampled_from(["flip", "cut", "longer", "zeros", "gone"]))
        place = data.draw(st.integers(0, len(file.now) - 1))
        if how == "flip":
            file.now[place] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del file.now[place:]
        elif how == "longer":
            file.now += b"\0"
        elif how == "zeros":
            file.now[:] = bytes(len(file.now))
        else:
            folder = disk.top.now["checkpoint-00000002"]
            del folder.now[name.split("/")[1]]
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            there = listed(store)
        if name.endswith("manifest.json"):
            assert there == [1]
            assert how == "gone" or any(name in str(w.message) for w in told)
        else:
            assert there == [2, 1]
            rank = int(name.split("rank-")[1][:8])
            with pytest.raises(CorruptSnapshot, match=name):
                store.get(2, rank)
        check(store, 1)
