"""What all stores promise, each alone and one on top of another."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import pickle
import signal
import stat
import subprocess
import sys
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest

from feliss_nb.errors import (
    CorruptSnapshot,
    MissingSnapshot,
    StoreError,
    StoreWarning,
    UsageError,
)
from feliss_nb.store import (
    FileStore,
    FsspecStore,
    MemoryTier,
    SlowStore,
    TieredStore,
    differences,
    open_store,
    verify,
)
from feliss_nb.store.manifest import FORMAT, from_json, make
from feliss_nb.store.shards import solid

FRAMES = [b"head", b"", np.arange(100_000.0), memoryview(bytearray(300_000)), b"x" * 7]


def plain(frames):
    return [bytes(frame) for frame in frames]


def take(store, checkpoint, ranks=2, **kwargs):
    records = [
        store.put(checkpoint, rank, [b"%d" % checkpoint, *FRAMES, b"%d" % rank])
        for rank in range(ranks)
    ]
    manifest = make(checkpoint, records, **kwargs)
    store.commit(manifest)
    return manifest


def check(store, checkpoint, ranks=2):
    for rank in range(ranks):
        assert plain(store.get(checkpoint, rank)) == plain(
            [b"%d" % checkpoint, *FRAMES, b"%d" % rank]
        )


def in_pieces(frames):
    """Frames as they come from a rank that is still making them: the first one last."""
    for number in [*range(1, len(frames)), 0]:
        view = memoryview(frames[number]).cast("B")
        for start in range(0, max(len(view), 1), 70_000):
            yield number, view[start : start + 70_000]


def numbers(store):
    return [manifest.checkpoint for manifest in store.manifests()]


def now(work):
    work()


class Later:
    """Runs work when told to."""

    def __init__(self):
        self.works = []

    def __call__(self, work):
        self.works.append(work)

    def run(self):
        while self.works:
            self.works.pop(0)()


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


KINDS = {
    "memory": lambda path: MemoryTier(),
    "files": lambda path: FileStore(path / "s"),
    "fsspec": lambda path: FsspecStore(f"memory://{path.name}"),
    "fsspec on files": lambda path: FsspecStore(f"local://{path}/s"),
    "slow": lambda path: SlowStore(FileStore(path / "s"), math.inf),
    "tiers": lambda path: TieredStore(MemoryTier(), FileStore(path / "s"), start=now),
    "three tiers": lambda path: TieredStore(
        MemoryTier(),
        TieredStore(FileStore(path / "s"), FsspecStore(f"memory://{path.name}"), start=now),
        start=now,
    ),
}


@pytest.fixture(params=sorted(KINDS))
def store(request, tmp_path):
    return KINDS[request.param](tmp_path)


def test_what_was_put_comes_back(store):
    manifest = take(store, 3, info={"cursor": 7}, code={"mine": "ab"})
    take(store, 12)
    assert numbers(store) == [12, 3]
    assert store.manifests()[1] == manifest
    assert manifest.nbytes > 2 * 1_100_000
    verify(store, manifest)
    check(store, 3)
    check(store, 12)
    store.drop(12)
    store.drop(12)
    assert numbers(store) == [3]
    with pytest.raises(MissingSnapshot):
        store.get(12, 0)


def test_frames_may_come_while_they_are_made(store):
    store.commit(make(5, [store.put(5, rank, in_pieces(FRAMES)) for rank in range(2)]))
    for rank in range(2):
        assert plain(store.get(5, rank)) == plain(FRAMES)
    (manifest,) = store.manifests()
    verify(store, manifest)


def test_what_is_not_made_to_its_end_was_not_put(store):
    take(store, 1)

    def broken():
        yield from itertools.islice(in_pieces(FRAMES), 3)
        raise ZeroDivisionError

    with pytest.raises((ZeroDivisionError, StoreError)):
        store.put(2, 0, broken())
    store.clean()
    assert store.numbers() == [1]
    check(store, 1)


def based(store, checkpoint, bases):
    records = [store.put(checkpoint, 0, [b"changes"])]
    manifest = make(checkpoint, [replace(record, bases=bases) for record in records])
    store.commit(manifest)
    return manifest


def test_what_a_checkpoint_is_made_of_is_kept_with_it(store):
    take(store, 1, ranks=1)
    take(store, 2, ranks=1)
    based(store, 3, (2,))
    based(store, 4, (2, 3))
    store.keep(1)
    assert store.numbers() == [4, 3, 2]
    assert store.manifests()[0].shard(0).bases == (2, 3)
    take(store, 5, ranks=1)
    store.keep(1)
    assert store.numbers() == [5]


def test_a_part_that_is_damaged_or_gone_is_found(tmp_path):
    store = FileStore(tmp_path / "s")
    take(store, 1, ranks=1)
    manifest = based(store, 2, (1,))
    verify(store, manifest)
    store.drop(1)
    with pytest.raises(MissingSnapshot):
        verify(store, manifest)
    with pytest.raises(MissingSnapshot, match="checkpoint-00000001"):
        based(store, 3, (1,))


def test_what_has_changed_in_memory_is_not_copied(tmp_path):
    later, failed = Later(), []
    store = TieredStore(
        MemoryTier(),
        FileStore(tmp_path / "s"),
        start=later,
        failed=lambda number, error: failed.append((number, str(error))),
    )
    frame = bytearray(b"put")
    store.commit(make(1, [store.put(1, 0, [frame])]))
    frame[0] ^= 1
    later.run()
    assert numbers(store.slow) == []
    [(number, error)] = failed
    assert number == 1
    assert "rank 0 of checkpoint 1 changed" in error


def test_what_the_copier_passed_over_is_copied_when_it_is_needed(tmp_path):
    later = Later()
    store = TieredStore(FileStore(tmp_path / "fast"), FileStore(tmp_path / "slow"), start=later)
    take(store, 1, ranks=1)
    based(store, 2, (1,))
    later.run()  # the newest only
    assert numbers(store.slow) == [2, 1]
    verify(store.slow, store.slow.manifests()[0])


def test_what_was_not_committed_is_counted_until_it_is_cleaned_away(store):
    assert store.numbers() == []
    take(store, 3)
    store.put(4, 0, FRAMES)
    assert store.numbers() == [4, 3]
    store.claim()
    store.claim()
    assert store.clean()
    assert store.numbers() == [3]
    check(store, 3)
    store.release()
    store.release()


def test_tiers_are_claimed_both_or_neither(tmp_path):
    fast, slow = FileStore(tmp_path / "fast"), FileStore(tmp_path / "slow")
    other = FileStore(tmp_path / "fast")
    other.claim()
    with pytest.raises(UsageError, match="another session"):
        TieredStore(fast, slow).claim()
    FileStore(tmp_path / "slow").claim()
    other.release()
    TieredStore(fast, FileStore(tmp_path / "other")).claim()


def test_the_last_are_kept_and_what_was_not_committed_goes_with_them(store):
    for checkpoint in (1, 2, 4, 5):
        take(store, checkpoint)
    store.put(3, 0, FRAMES)  # a checkpoint that was given up
    store.put(6, 0, FRAMES)  # one on its way
    store.keep(2)
    assert numbers(store) == [5, 4]
    store.commit(make(6, [store.put(6, 0, FRAMES)]))
    assert plain(store.get(6, 0)) == plain(FRAMES)
    with pytest.raises(UsageError, match="one checkpoint or more"):
        store.keep(0)


def test_a_checkpoint_is_committed_once(store):
    manifest = take(store, 1)
    with pytest.raises(UsageError, match="already"):
        store.commit(manifest)


@pytest.mark.parametrize("kind", ["files", "fsspec", "fsspec on files", "slow"])
def test_nothing_is_committed_without_its_shards(kind, tmp_path):
    store = KINDS[kind](tmp_path)
    records = [store.put(1, 0, FRAMES), MemoryTier().put(1, 1, FRAMES)]
    with pytest.raises(MissingSnapshot, match=r"rank-00000001.*missing"):
        store.commit(make(1, records))
    assert numbers(store) == []
    with pytest.raises(MissingSnapshot):
        store.get(1, 0)


def test_a_manifest_needs_every_rank_and_has_no_other():
    tier = MemoryTier()
    with pytest.raises(UsageError, match="one shard for each rank"):
        make(1, [tier.put(1, 0, []), tier.put(1, 2, [])])
    with pytest.raises(UsageError, match="ranks 0 to 0, not 1"):
        make(1, [tier.put(1, 0, [])]).shard(1)


# ------------------------------------------------------------ files


def test_only_the_user_can_read(tmp_path):
    old = os.umask(0)
    try:
        take(FileStore(tmp_path / "a" / "s"), 1)
        take(FsspecStore(f"local://{tmp_path}/a/t"), 1)
    finally:
        os.umask(old)
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for path in (
        tmp_path / "a",
        tmp_path / "a" / "s",
        tmp_path / "a" / "s" / "checkpoint-00000001",
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("where", ["s", "s/checkpoint-00000001"])
def test_a_directory_that_others_can_write_is_refused(tmp_path, where):
    store = FileStore(tmp_path / "s")
    take(store, 1)
    (tmp_path / where).chmod(0o770)
    with pytest.raises(UsageError, match=r"others can write the directory .* chmod go-w"):
        store.get(1, 0)
    with pytest.raises(UsageError, match="others can write"):
        store.put(1, 1, FRAMES)


def test_files_that_are_not_the_users_are_refused(tmp_path, monkeypatch):
    store = FileStore(tmp_path / "s")
    take(store, 1)
    [shard] = (tmp_path / "s" / "checkpoint-00000001").glob("rank-00000000-*")
    shard.chmod(0o620)
    with pytest.raises(UsageError, match="others can write the file"):
        store.get(1, 0)
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptSnapshot, match="is a link"):
        store.get(1, 0)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(UsageError, match=f"belongs to user {user}, not to you"):
        FileStore(tmp_path / "s")


def test_a_place_that_is_no_directory(tmp_path):
    (tmp_path / "s").write_text("a file")
    with pytest.raises(StoreError, match="Not a directory"):
        FileStore(tmp_path / "s")


def test_a_place_where_nothing_can_be_made():
    with pytest.raises(StoreError, match="No such file"):
        FileStore("/proc/s")


def test_a_directory_that_has_gone(tmp_path):
    store = FileStore(tmp_path / "s")
    store.put(1, 0, [b"head"])
    (tmp_path / "s").rename(tmp_path / "moved")
    for use in (lambda: store.put(1, 1, [b"head"]), store.numbers, lambda: store.drop(1)):
        with pytest.raises(StoreError, match=r"No such file.*moved or deleted.*bring it back"):
            use()


def test_zeros_take_no_room(tmp_path):
    store = FileStore(tmp_path / "s")
    record = store.put(1, 0, [b"head", bytes(8 << 20), b"tail"])
    store.commit(make(1, [record]))
    [path] = (tmp_path / "s" / "checkpoint-00000001").glob("rank-*")
    assert path.stat().st_size == record.nbytes > 8 << 20
    assert path.stat().st_blocks * 512 < 1 << 20
    assert plain(store.get(1, 0)) == [b"head", bytes(8 << 20), b"tail"]


@pytest.mark.parametrize("seed", range(5))
def test_solid_is_all_that_is_not_whole_blocks_of_zeros(seed):
    rng = np.random.default_rng(seed)
    data = np.repeat(rng.integers(0, 2, 100), 16).astype(np.uint8) * rng.integers(1, 255, 1600)
    data = data.astype(np.uint8)[: 1600 - int(rng.integers(0, 20))]
    data[rng.integers(0, data.size, 5)] = 1
    found = solid(data.data, 16)
    expected = np.array(
        [i // 16 * 16 + 16 > data.size or data[i // 16 * 16 :][:16].any() for i in range(data.size)]
    )
    mask = np.zeros(data.size, bool)
    for start, stop in found:
        assert start < stop
        mask[start:stop] = True
    assert (mask == expected).all()
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))


def test_restored_frames_are_writable_and_aligned(tmp_path):
    store = FileStore(tmp_path / "s")
    take(store, 1, 1)
    array = np.frombuffer(store.get(1, 0)[3])
    array[0] = 5
    assert array.ctypes.data % 64 == 0


def test_tiers_travel_to_an_engine(tmp_path):
    store = TieredStore(FileStore(tmp_path / "fast"), FileStore(tmp_path / "slow"), start=now)
    take(store, 1)
    check(pickle.loads(pickle.dumps(store)), 1)


def test_a_store_travels_to_an_engine(tmp_path):
    for kind in ("files", "fsspec", "slow"):
        store = KINDS[kind](tmp_path)
        take(store, 1)
        check(pickle.loads(pickle.dumps(store)), 1)
        store.drop(1)


def test_the_place_decides_the_store(tmp_path):
    assert isinstance(open_store(tmp_path / "s"), FileStore)
    assert open_store(f"file://{tmp_path}/s").directory == str(tmp_path / "s")
    assert isinstance(open_store("memory://x"), FsspecStore)
    with pytest.raises(UsageError, match="nosuchthing"):
        open_store("nosuchthing://x")


def test_fsspec_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(UsageError, match=r"pip install 'feliss_nb\[stores\]'"):
        FsspecStore("memory://x")


WRITER = """
import sys
from feliss_nb.store import FileStore
from feliss_nb.store.manifest import make
store, rank = FileStore(sys.argv[1]), int(sys.argv[2])
checkpoint = 0
while True:
    checkpoint += 1
    frames = [b"%d %d" % (checkpoint, rank), bytes([1 + rank]) * 3_000_000]
    record = store.put(checkpoint, rank, frames)
    if sys.argv[3] == "commit":
        store.commit(make(checkpoint, [record]))
        store.keep(3)
    print(checkpoint, record.nbytes, record.digest, flush=True)
"""


def writer(path, rank, what):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(rank), what],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("lines", [1, 4, 6])
def test_a_writer_that_is_killed(tmp_path, lines):
    process = writer(tmp_path / "s", 0, "commit")
    done = [process.stdout.readline() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    store = FileStore(tmp_path / "s")
    last = int(done[-1].split()[0])
    there = numbers(store)
    assert last in there or min(there) > last
    for checkpoint in there:
        assert bytes(store.get(checkpoint, 0)[0]) == b"%d 0" % checkpoint
    store.clean()
    assert numbers(store) == there
    assert not list((tmp_path / "s").rglob(".staging-*"))


def test_engines_write_at_the_same_time(tmp_path):
    processes = [writer(tmp_path / "s", rank, "put") for rank in range(3)]
    try:
        store = FileStore(tmp_path / "s")
        for checkpoint in range(1, 6):
            records = []
            for rank, process in enumerate(processes):
                number, nbytes, digest = process.stdout.readline().split()
                assert int(number) == checkpoint
                records.append(type(store.put(0, 0, []))(rank, int(nbytes), digest))
            store.commit(make(checkpoint, records))
            for rank in range(3):
                assert bytes(store.get(checkpoint, rank)[0]) == b"%d %d" % (checkpoint, rank)
            store.keep(2)
        assert numbers(store) == [5, 4]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_one_session_at_a_time(tmp_path):
    store = FileStore(tmp_path / "s")
    store.claim()
    store.claim()
    other = f"from feliss_nb.store import FileStore; FileStore({str(tmp_path / 's')!r}).clean()"
    done = subprocess.run(
        [sys.executable, "-c", other], capture_output=True, text=True, check=False
    )
    assert "another session writes its checkpoints" in done.stderr
    store.release()
    subprocess.run([sys.executable, "-c", other], check=True)


def test_a_forked_process_does_not_keep_a_claim_that_was_released(tmp_path):
    """A notebook's process has children of multiprocessing, say, that outlive the session."""
    store = FileStore(tmp_path)
    store.claim()
    child = multiprocessing.get_context("fork").Process(target=signal.pause, daemon=True)
    child.start()
    try:
        store.release()
        FileStore(tmp_path).claim()
    finally:
        child.kill()
        child.join()


def test_clean_says_what_it_removes(tmp_path):
    store = FileStore(tmp_path / "s")
    take(store, 1)
    store.put(2, 0, FRAMES)
    extra = store.put(1, 0, [b"another attempt"])
    (tmp_path / "s" / "checkpoint-00000001" / ".staging-1-ab").write_text("half")
    removed = store.clean()
    assert set(removed) == {
        "checkpoint-00000002",
        f"checkpoint-00000001/rank-00000000-{extra.digest}.shard",
        "checkpoint-00000001/.staging-1-ab",
    }
    check(store, 1)
    assert store.clean() == []


# ------------------------------------------------------------ manifests


def test_what_does_not_fit_is_said():
    manifest = make(1, [], libraries=["xxhash", "nosuchthing"], code={"a": "1", "b": "2", "c": "3"})
    assert "nosuchthing" not in manifest.libraries
    assert differences(manifest, {"a": "1", "b": "2", "c": "3"}) == []
    fields = json.loads(manifest.to_json())
    other = type(manifest)(
        1, (), "2.7.18", {**fields["libraries"], "numpy": "0.1", "gone": "5"}, manifest.code
    )
    text = "\n".join(differences(other, {"a": "1", "b": "9"}))
    assert "Python 2.7.18 wrote it" in text
    assert "gone 5 was installed where it was written, and is not here" in text
    assert "numpy 0.1 was used to write it, and here is 2." in text
    assert "'b' is not the one that it was written with" in text
    assert "'c', which is not found here" in text
    assert "'a'" not in text
    assert len(text.splitlines()) == 5


def test_a_newer_format_is_named(tmp_path):
    store = FileStore(tmp_path / "s")
    take(store, 1)
    newer = make(2, [store.put(2, rank, FRAMES) for rank in range(2)])
    object.__setattr__(newer, "format", FORMAT + 1)
    store.commit(newer)
    with pytest.raises(UsageError, match=f"has format {FORMAT + 1}, and this version"):
        from_json(newer.to_json(), "it")
    with pytest.warns(StoreWarning, match="has format"):
        assert numbers(store) == [1]


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"3", b"{}", b'{"digest": 1}', b"[" * 100_000, b"\xff"]
)
def test_bytes_that_are_no_manifest(raw):
    with pytest.raises(CorruptSnapshot, match="it is damaged"):
        from_json(raw, "it")


# ------------------------------------------------------------ slow


def test_a_slow_store_takes_its_time():
    clock = Clock()
    store = SlowStore(MemoryTier(), 1000, 0.5, clock.sleep, clock)
    record = store.put(1, 0, [bytes(10_000)])
    assert clock.now == pytest.approx(record.nbytes / 1000 + 0.5)
    before = clock.now
    store.commit(make(1, [record]))
    assert clock.now > before + 0.5
    before = clock.now
    store.get(1, 0)
    assert clock.now == pytest.approx(before + 10.5)
    before = clock.now
    store.manifests()
    assert clock.now == pytest.approx(before + 0.5)


def test_two_that_write_at_once_share_the_channel():
    """Both ask at 0; the first needs it for ten seconds and the second waits for it."""
    clock = Clock()
    naps = []
    store = SlowStore(MemoryTier(), 1000, 0, naps.append, clock)
    sizes = [store.put(1, rank, [bytes(10_000)]).nbytes for rank in range(2)]
    assert naps == pytest.approx([sizes[0] / 1000, sum(sizes) / 1000])


def test_a_slow_store_needs_a_rate():
    with pytest.raises(UsageError):
        SlowStore(MemoryTier(), 0)
    with pytest.raises(UsageError):
        SlowStore(MemoryTier(), 1, -1)


# ------------------------------------------------------------ tiers


def test_the_copier_takes_the_newest_and_holds_nobody_up(tmp_path):
    later = Later()
    tiers = TieredStore(MemoryTier(), FileStore(tmp_path / "s"), start=later)
    for checkpoint in (1, 2, 3):
        take(tiers, checkpoint)
    tiers.keep(1)
    assert numbers(tiers.slow) == []
    assert len(later.works) == 1
    later.run()
    assert tiers.flush(0)
    assert numbers(tiers.slow) == [3]
    assert numbers(tiers.fast) == [3]
    check(tiers.slow, 3)


def test_a_failing_disk_warns_and_the_work_goes_on(tmp_path, monkeypatch):
    tiers = TieredStore(MemoryTier(), FileStore(tmp_path / "s"), start=now)
    take(tiers, 1)
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(28, "No space left on device")

        patch.setattr(os, "pwritev", full)
        with pytest.warns(
            StoreWarning, match=r"checkpoint 2 stays in the fast store only.*No space"
        ):
            take(tiers, 2)
    check(tiers, 2)
    assert numbers(tiers.slow) == [1]
    check(tiers.slow, 1)
    take(tiers, 3)
    assert numbers(tiers.slow) == [3, 1]


def test_a_new_process_reads_what_lasts(tmp_path):
    take(TieredStore(MemoryTier(), FileStore(tmp_path / "s"), start=now), 1, 3)
    later = Later()
    tiers = TieredStore(MemoryTier(), FileStore(tmp_path / "s"), start=later)
    assert numbers(tiers) == [1]
    tiers.prefetch(1, [0, 2])
    later.run()
    assert sorted(tiers.fast.shards.nbytes()) == [(1, 0), (1, 2)]
    check(tiers, 1, 3)
    with pytest.raises(UsageError, match="ranks 0 to 2"):
        tiers.get(1, 3)


def test_get_waits_for_what_is_being_fetched(tmp_path):
    take(FileStore(tmp_path / "s"), 1)
    tiers = TieredStore(MemoryTier(), FileStore(tmp_path / "s"))  # with a thread
    tiers.prefetch(1, [0, 1, 7])
    check(tiers, 1)
    assert tiers.flush(30)
    assert sorted(tiers.fast.shards.nbytes()) == [(1, 0), (1, 1)]


def test_engines_copy_and_the_master_commits(tmp_path):
    master = FileStore(tmp_path / "s")
    told = []
    for rank in range(2):
        tiers = TieredStore(MemoryTier(), FileStore(tmp_path / "s"), start=now)
        tiers.put(4, rank, [b"4", *FRAMES, b"%d" % rank])
        tiers.copy(4, [rank, 9], lambda *outcome: told.append(outcome))
    assert [(c, r) for c, r, _ in told] == [(4, 0), (4, 9), (4, 1), (4, 9)]
    assert isinstance(told[1][2], MissingSnapshot)
    master.commit(make(4, [told[0][2], told[2][2]]))
    check(master, 4)


def test_what_is_being_copied_is_not_dropped_under_the_copier(tmp_path):
    slow = FileStore(tmp_path / "s")
    tiers = TieredStore(MemoryTier(), slow, start=now)
    put = slow.put

    def put_and_drop(checkpoint, rank, frames):
        if rank == 0:
            tiers.drop(checkpoint)
            tiers.keep(1)
        return put(checkpoint, rank, frames)

    slow.put = put_and_drop
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        take(tiers, 1)
    assert numbers(tiers) == []
    assert tiers.fast.shards.nbytes() == {}


def test_a_thread_of_the_tiers_ends_with_its_work(tmp_path):
    tiers = TieredStore(MemoryTier(), FileStore(tmp_path / "s"))
    take(tiers, 1)
    assert tiers.flush(30)
    check(tiers.slow, 1)
    for thread in threading.enumerate():
        if thread.name == "feliss-copier":
            thread.join(30)
            assert not thread.is_alive()


def test_damage_in_one_tier_is_made_good_by_the_other(tmp_path):
    fast, slow = FileStore(tmp_path / "f"), FileStore(tmp_path / "s")
    tiers = TieredStore(fast, slow, start=now)
    take(tiers, 1)
    [path] = (tmp_path / "f").glob("*/rank-00000000-*")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptSnapshot, match=path.name):
        fast.get(1, 0)
    check(tiers, 1)
    [path] = (tmp_path / "s").glob("*/rank-00000000-*")
    path.unlink()
    with pytest.raises(MissingSnapshot, match=r"missing; and .* is damaged"):
        tiers.get(1, 0)
