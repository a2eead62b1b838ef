"""Checkpoints on a store: kept behind the work, and stood up from on other engines."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import store_work as work

import feliss_nb as feliss
from feliss_nb import errors
from feliss_nb.store import FileStore, Manifest, verify

PATIENCE = 60.0


def numbers(place: Path) -> list[int]:
    return [manifest.checkpoint for manifest in FileStore(place).manifests()]


def kill_all(session: feliss.Session) -> None:
    for engine in session.status().engines:
        if engine.role != "dead":
            os.kill(engine.pid, signal.SIGKILL)
    session.events.wait_for("failed", 1, PATIENCE)


def flip(place: Path, checkpoint: int, rank: int) -> None:
    """Flip a bit in the middle of a shard."""
    [path] = place.glob(f"checkpoint-{checkpoint:08d}/rank-{rank:08d}-*.shard")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# ---------------------------------------------------------------- a session that goes on elsewhere


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """What the walk of three ranks comes to."""
    go = tmp_path_factory.mktemp("undisturbed") / "go"
    go.touch()
    with feliss.start(workers=3, checkpoint_every=None, seed=7) as session:
        session.scatter(range(10), name="numbers")
        return work.begin(session, str(go)).collect()


@pytest.fixture(scope="module")
def wreck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is left of a session of three ranks, killed while a job waited for the file `go`.

    Checkpoint 1 stands before that job, checkpoint 2 in it.
    """
    place = tmp_path_factory.mktemp("wreck") / "kept"
    session = feliss.start(workers=3, checkpoint_every=None, seed=7, name="old", store=place)
    try:
        session.scatter(range(10), name="numbers").wait(PATIENCE)
        assert session.checkpoint(PATIENCE, durable=True).stored
        out = work.begin(session, str(place.parent / "go"))
        session.checkpoint(PATIENCE, durable=True)
        assert session.status().store.checkpoint == 2
        kill_all(session)
        with pytest.raises(errors.LossError):
            out.collect()
        with pytest.raises(errors.LossError):
            session.checkpoint(PATIENCE, durable=True)
    finally:
        session.stop()
    return place


@pytest.fixture
def kept(wreck: Path, tmp_path: Path) -> Path:
    """A copy of it: a checkpoint is a folder that can be copied."""
    place = tmp_path / "kept"
    shutil.copytree(wreck, place)
    return place


def test_a_job_goes_on_on_fewer_engines_and_outlives_another_loss(
    kept: Path, wreck: Path, undisturbed: list[np.ndarray]
) -> None:
    with feliss.restore(kept, workers=2, checkpoint_every=None) as session:
        assert (session.name, session.size, session.seed, session.epoch) == ("old", 3, 7, 1)
        status = session.status()
        assert sorted(rank for engine in status.engines for rank in engine.ranks) == [0, 1, 2]
        assert status.checkpoint.id == status.store.checkpoint == 2
        assert status.protected
        assert set(session.variables) == {"numbers", "gate", "out"}
        jobs = {job.label: job for job in session.jobs}
        assert jobs["walk"].state == "running"
        assert session["numbers"].collect() == list(range(10))
        session.kill(0, wait=True)
        (wreck.parent / "go").touch()
        try:
            found = session["out"].collect()
        finally:
            (wreck.parent / "go").unlink()
        np.testing.assert_array_equal(found, undisturbed)
        assert jobs["walk"].wait(PATIENCE).state == "done"
        more = session.map(str, session["numbers"], name="texts")
        assert more.collect() == [str(n) for n in range(10)]
        assert session.checkpoint(PATIENCE, durable=True).id == 3
    assert numbers(kept) == [3, 2]


def test_an_engine_for_each_rank_and_a_spare(kept: Path, wreck: Path, undisturbed: Any) -> None:
    with feliss.restore(kept, spares=1, checkpoint_every=None, name="other") as session:
        roles = sorted(engine.role for engine in session.status().engines)
        assert (session.name, roles) == ("other", ["spare", "worker", "worker", "worker"])
        (wreck.parent / "go").touch()
        try:
            np.testing.assert_array_equal(session["out"].collect(), undisturbed)
        finally:
            (wreck.parent / "go").unlink()


def test_a_damaged_shard_is_named_and_the_checkpoint_before_is_taken(kept: Path) -> None:
    flip(kept, 2, 1)
    with pytest.warns(errors.StoreWarning, match="rank 1.*going back to checkpoint 1"):
        session = feliss.restore(kept, workers=1, checkpoint_every=None)
    with session:
        assert session.status().checkpoint.id == 1
        assert set(session.variables) == {"numbers"}
        assert session["numbers"].collect() == list(range(10))
        assert numbers(kept) == [2, 1]  # until there is another, nothing is deleted
        assert session.checkpoint(PATIENCE, durable=True).id == 3
    assert numbers(kept) == [3, 1]


def test_where_all_is_damaged_nothing_starts(kept: Path) -> None:
    flip(kept, 2, 1)
    flip(kept, 1, 0)
    with (
        pytest.warns(errors.StoreWarning, match="going back"),
        pytest.raises(errors.CorruptSnapshot, match="rank 0"),
    ):
        feliss.restore(kept, workers=1)
    FileStore(kept).claim()  # it was released


def test_an_older_checkpoint_on_request(kept: Path) -> None:
    with feliss.restore(kept, workers=1, checkpoint=1, checkpoint_every=None) as session:
        assert set(session.variables) == {"numbers"}
        session.checkpoint(PATIENCE, durable=True)
    assert numbers(kept) == [3, 1]  # the run that was left is gone


# ---------------------------------------------------------------- how it is written


def test_a_shard_is_written_while_its_rank_is_captured(tmp_path: Path) -> None:
    store = work.TroubledStore(tmp_path / "kept")
    with feliss.start(workers=1, checkpoint_every=None, store=store) as session:
        session.variable(work.some_of_each, name="state").wait(PATIENCE)
        for name in ("full", "forked", "full+zstd"):
            session.capture = name
            taken = session.checkpoint(PATIENCE, durable=True)
            assert store.flag(f"followed-{taken.id}-0").exists() == (name == "full")
            verify(store, store.manifests()[0])
        session.capture = "full"
        session.checkpoint(PATIENCE)  # nobody waits for the store
    assert not list((tmp_path / "kept").rglob(".staging*"))
    committed = numbers(tmp_path / "kept")
    assert FileStore(tmp_path / "kept").numbers() == committed
    with feliss.restore(tmp_path / "kept", workers=1, checkpoint_every=None) as session:
        (found,) = session["state"].partitions()
        assert work.same(found, work.some_of_each(0, 1))


def test_changes_are_written_as_such_and_stand_up_from_their_chain(tmp_path: Path) -> None:
    place = tmp_path / "kept"
    options: dict[str, Any] = {"capture": "incremental", "checkpoint_every": None}
    with feliss.start(workers=2, spares=1, store=place, keep=2, **options) as session:
        array = session.variable(work.zeros, name="array")
        sizes = []
        for step in range(1, 6):
            for rank in range(2):
                session.put(work.set_one, array, step, rank=rank).wait(PATIENCE)
            if step == 4:
                session.kill(1, wait=True)
            session.checkpoint(PATIENCE, durable=True)
            sizes.append(session.status().store.bytes)
    manifests = FileStore(place).manifests()
    for manifest in manifests:
        verify(FileStore(place), manifest)
    assert max(sizes[1], sizes[2], sizes[4]) < sizes[0] / 10  # behind the loss it is whole again
    assert sizes[3] > sizes[0] / 2
    newest, before = (manifest.checkpoint for manifest in manifests)
    assert manifests[0].bases == {before}
    with feliss.restore(place, workers=1, **options) as session:
        expected = work.zeros(0, 2)
        for step in range(1, 6):
            expected[step] = step
        for found in session["array"].partitions():
            np.testing.assert_array_equal(found, expected)
    flip(place, newest, 1)
    with pytest.warns(errors.StoreWarning, match="going back"):
        session = feliss.restore(place, workers=1, **options)
    with session:
        expected[5] = 0
        np.testing.assert_array_equal(session["array"].partitions()[1], expected)
    flip(place, before, 0)
    with (
        pytest.warns(errors.StoreWarning, match="going back"),
        pytest.raises(errors.CorruptSnapshot, match="rank 0"),
    ):
        feliss.restore(place, workers=1, **options)


# ---------------------------------------------------------------- written by another process

KERNEL = """
    import sys
    import feliss_nb as feliss
    import mine

    def grow(out, box, go):
        import os, time
        here = feliss.here()
        if os.path.exists(go):
            here[out] = [mine.Box(box.content + here.rank), local(here.rank)]
            return
        time.sleep(0.005)
        here.put(grow, out, mine.Box(box.content), go, rank=here.rank)

    def local(rank):
        return {"local": rank}

    if __name__ == "__main__":
        place, go = sys.argv[1:]
        session = feliss.start(workers=2, checkpoint_every=None, store=place)
        out = session.declare(name="out")
        fill = feliss.state.handle.Target(out.variable)
        starts = [(rank, grow, (fill, mine.Box(10), go)) for rank in range(2)]
        session.submit(starts, [out], label="grow")
        session.checkpoint(durable=True)
        print("ready", flush=True)
        sys.stdin.read()
"""
MODULE = "class Box:\n    def __init__(self, content):\n        self.content = content\n"


@pytest.fixture(scope="module")
def orphan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a process that was killed; its module `mine` lies beside it."""
    folder = tmp_path_factory.mktemp("orphan")
    (folder / "mine.py").write_text(MODULE)
    (folder / "kernel.py").write_text(textwrap.dedent(KERNEL))
    process = subprocess.Popen(
        [sys.executable, "kernel.py", "kept", str(folder / "go")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
    finally:
        process.kill()
        process.communicate()
    return folder


def test_a_kernel_that_died_is_followed_by_another(
    orphan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(orphan / "kept", tmp_path / "kept")
    monkeypatch.syspath_prepend(orphan)
    with feliss.restore(tmp_path / "kept", workers=1, checkpoint_every=None) as session:
        [job] = session.jobs
        assert (job.label, job.state) == ("grow", "running")
        (orphan / "go").touch()
        job.wait(PATIENCE)
        (orphan / "go").unlink()
        found = session.apply(contents, session["out"]).collect()
        assert found == [(10, {"local": 0}), (11, {"local": 1})]


def contents(out: Any) -> tuple[int, dict[str, int]]:
    box, local = feliss.here()[out]
    return box.content, local


def test_a_module_that_is_missing_is_named(orphan: Path, tmp_path: Path) -> None:
    shutil.copytree(orphan / "kept", tmp_path / "kept")
    with (
        pytest.warns(errors.StoreWarning, match="your module 'mine', which is not found here"),
        pytest.raises(errors.UsageError, match=r"does not fit.*No module named 'mine'"),
    ):
        feliss.restore(tmp_path / "kept", workers=1)


def test_a_class_that_is_another_is_named(
    orphan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(orphan / "kept", tmp_path / "kept")
    (tmp_path / "mine.py").write_text(MODULE.replace("Box", "Crate"))
    monkeypatch.syspath_prepend(tmp_path)
    with (
        pytest.warns(errors.StoreWarning, match="'mine' is not the one"),
        pytest.raises(errors.UsageError, match=r"does not fit.*Box"),
    ):
        feliss.restore(tmp_path / "kept", workers=1)


def test_the_examples_of_the_manual_run_as_they_stand(tmp_path: Path, script: Any) -> None:
    text = (Path(__file__).parents[2] / "docs" / "stores.md").read_text("utf-8")
    first, second = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)[:2]
    (tmp_path / "words.md").write_text("to be\nor not\n")
    script(first)
    found = script("import feliss_nb as feliss\n" + second)
    assert "words.md" not in found.stdout
    assert found.stdout.splitlines()[-1] == "2"


def step(comm: Any, total: float, left: int, go: str) -> Any:
    """Sums over all ranks, step by step; before the last ten it waits for a file."""
    if left == 10 and not comm.bcast(os.path.exists(go)):
        return comm.then(step, total, left, go)
    if left == 0:
        return total
    return comm.then(step, comm.allreduce(total + comm.rank) % 1001, left - 1, go)


def test_a_gang_goes_on_between_two_steps(tmp_path: Path) -> None:
    place, go = tmp_path / "kept", tmp_path / "go"
    with feliss.start(workers=2, checkpoint_every=None, store=place) as session:
        session.spmd(step, 1.0, 40, str(go), name="sum")
        session.checkpoint(PATIENCE, durable=True)
    with feliss.restore(place, workers=1, checkpoint_every=None) as session:
        assert [job.state for job in session.jobs] == ["running"]
        go.touch()
        assert session["sum"].collect() == [expected(2, 1.0, 40)] * 2


def expected(size: int, total: float, steps: int) -> float:
    for _ in range(steps):
        total = sum(total + rank for rank in range(size)) % 1001
    return total


# ---------------------------------------------------------------- a store that is slow, or fails


@pytest.fixture(scope="module")
def on_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[feliss.Session]:
    """Two ranks and a spare, on a store with flags; checkpoints on request."""
    store = work.TroubledStore(tmp_path_factory.mktemp("troubled") / "kept")
    with feliss.start(workers=2, spares=1, checkpoint_every=None, store=store) as session:
        session.scatter(np.arange(1000.0), name="numbers").wait(PATIENCE)
        yield session


@pytest.fixture
def store(on_store: feliss.Session, eventually: Any) -> Iterator[work.TroubledStore]:
    """The store of that session, which has a checkpoint, and no trouble."""
    keeper = on_store._driver.keeper
    assert keeper is not None
    assert isinstance(keeper.store, work.TroubledStore)
    found = keeper.store
    on_store.checkpoint(PATIENCE, durable=True)
    yield found
    for name in ("full", "slow"):
        found.flag(name).unlink(missing_ok=True)
    eventually(lambda: on_store.status().store.copying is None, PATIENCE, "the copy's end")
    on_store.checkpoint(PATIENCE, durable=True)
    # keep=2, and nothing else is left; it is deleted behind the answer
    eventually(lambda: len(found.numbers()) == 2, PATIENCE, "old checkpoints are deleted")
    assert len(found.manifests()) == 2


def newest(store: FileStore) -> Manifest:
    manifest = store.manifests()[0]
    verify(store, manifest)
    return manifest


def hold(on_store: feliss.Session, store: work.TroubledStore, eventually: Any) -> int:
    """Take a checkpoint whose copy begins and does not end while the flag `slow` is there."""
    store.flag("slow").touch()
    number = on_store.checkpoint(PATIENCE).id
    for rank in range(2):
        path = store.flag(f"{number}-{rank}")
        eventually(path.exists, PATIENCE, f"the copy of rank {rank}")
    return number


def test_memory_does_not_wait_for_the_store(
    on_store: feliss.Session, store: work.TroubledStore, eventually: Any
) -> None:
    before = newest(store).checkpoint
    held = hold(on_store, store, eventually)
    later = [on_store.checkpoint(PATIENCE).id for _ in range(3)]
    assert on_store.status().checkpoint.id == later[-1]
    assert newest(store).checkpoint == before
    with pytest.raises(errors.WaitTimeout):
        on_store.checkpoint(0.1, durable=True)
    assert on_store.status().store.copying == held
    store.flag("slow").unlink()
    assert on_store.checkpoint(PATIENCE, durable=True).stored
    stored = [event.data["checkpoint"] for event in on_store.events.of_kind("stored")]
    assert held in stored
    assert not set(later[:-1]) & set(stored)  # a slow store gets fewer checkpoints
    assert "on " in str(on_store.status().store)


def test_a_loss_while_copying(
    on_store: feliss.Session, store: work.TroubledStore, eventually: Any
) -> None:
    held = hold(on_store, store, eventually)
    on_store.kill(1, wait=True)
    store.flag("slow").unlink()
    eventually(lambda: on_store.status().store.checkpoint == held, PATIENCE, "the checkpoint")
    assert newest(store).checkpoint == held
    assert on_store["numbers"].collect().sum() == 499500


def test_a_loss_while_copying_what_is_not_in_memory_any_more(
    on_store: feliss.Session, store: work.TroubledStore, eventually: Any
) -> None:
    held = hold(on_store, store, eventually)
    later = on_store.checkpoint(PATIENCE).id
    on_store.kill(1, wait=True)
    store.flag("slow").unlink()
    eventually(lambda: on_store.status().store.checkpoint == later, PATIENCE, "the checkpoint")
    assert newest(store).checkpoint == later
    assert held not in [event.data["checkpoint"] for event in on_store.events.of_kind("stored")]


def test_a_full_disk_costs_that_checkpoint_only(
    on_store: feliss.Session, store: work.TroubledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(on_store._driver, "on_trouble", said.append)
    before = newest(store)
    job = work.begin(on_store, str(store.flag("go")))
    store.flag("full").touch()
    for _ in range(3):
        with pytest.raises(errors.StoreError, match="No space left"):
            on_store.checkpoint(PATIENCE, durable=True)
    assert len(said) == 1
    assert "No space left" in said[0]
    assert newest(store) == before
    assert "No space left" in on_store.status().store.trouble
    store.flag("full").unlink()
    assert on_store.checkpoint(PATIENCE, durable=True).stored
    assert on_store.status().store.trouble == ""
    store.flag("go").touch()
    assert len(job.collect()) == 2


def test_a_place_that_disappears_and_comes_back(
    on_store: feliss.Session, store: work.TroubledStore
) -> None:
    before = newest(store)
    there = Path(store.directory)
    there.rename(f"{there}.away")
    with pytest.raises(errors.StoreError, match="kept"):
        on_store.checkpoint(PATIENCE, durable=True)
    assert on_store["numbers"].collect().sum() == 499500
    Path(f"{there}.away").rename(there)
    assert newest(store) == before
    assert on_store.checkpoint(PATIENCE, durable=True).stored


def test_another_session_is_kept_out(on_store: feliss.Session, store: FileStore) -> None:
    for take in (feliss.restore, lambda place: feliss.start(store=place)):
        with pytest.raises(errors.UsageError, match="another session writes"):
            take(store.directory)


def test_names_that_are_bound_anew_or_dropped(
    on_store: feliss.Session, store: FileStore, eventually: Any
) -> None:
    for number in range(3):
        on_store.scatter([number], name="again")
    on_store.scatter([1], name="dropped")
    del on_store["dropped"]
    on_store.checkpoint(PATIENCE, durable=True)
    names: Any = newest(store).info["variables"]
    assert "again" in names
    assert "dropped" not in names
    del on_store["again"]


def test_the_interval_is_chosen_from_what_was_measured(
    on_store: feliss.Session, store: work.TroubledStore
) -> None:
    on_store.checkpoint(PATIENCE)
    on_store.checkpoint_every("auto", mtbf=5.0)
    taken = len(on_store.events.of_kind("committed"))
    work.begin(on_store, str(store.flag("auto")))
    on_store.events.wait_for("committed", taken + 2, PATIENCE)
    pacing = on_store.status().pacing
    assert pacing.chosen
    assert pacing.mtbf == 5.0
    assert pacing.cost < pacing.every < 10.0  # what it was before anything was measured
    assert pacing.predicted is not None
    assert pacing.actual is not None
    assert "overhead predicted" in repr(on_store.status())
    on_store.checkpoint_every(None)
    store.flag("auto").touch()
    on_store.wait(PATIENCE)


# ---------------------------------------------------------------- what is refused


def test_what_is_durable_needs_a_store(idle: feliss.Session) -> None:
    with pytest.raises(errors.UsageError, match="no store"):
        idle.checkpoint(durable=True)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"store": 3}, "a store is a directory"),
        ({"store": ""}, "a directory or a URL"),
        ({"keep": 0}, "keep="),
        ({"keep": 1.5}, "keep="),
        ({"mtbf": 60}, "auto"),
        ({"checkpoint_every": "auto", "mtbf": 0}, "mtbf="),
        ({"checkpoint_every": "automatic"}, "checkpoint_every"),
    ],
)
def test_wrong_values_are_refused_at_once(options: dict[str, Any], match: str) -> None:
    with pytest.raises(errors.UsageError, match=match):
        feliss.start(workers=1, **options)


def test_a_place_with_checkpoints_is_not_begun_anew(kept: Path) -> None:
    with pytest.raises(errors.UsageError, match=r"feliss_nb\.restore"):
        feliss.start(workers=1, store=kept)
    FileStore(kept).claim()  # it was released
    assert numbers(kept) == [2, 1]


@pytest.mark.parametrize("take", [feliss.restore, feliss.checkpoints])
def test_what_others_can_write_is_not_read(kept: Path, take: Callable[[Path], Any]) -> None:
    for path in (kept, kept / "checkpoint-00000002"):
        mode = path.stat().st_mode
        path.chmod(0o777)
        if path == kept:
            with pytest.raises(errors.UsageError, match="others can write"):
                take(path)
        elif take is feliss.restore:
            # As a damaged one it is told and left alone: the one before is the user's own.
            with pytest.warns(errors.StoreWarning, match="others can write"):
                feliss.checkpoints(kept)
        path.chmod(mode)


def test_a_shard_that_others_can_write_is_not_unpickled(kept: Path) -> None:
    [path] = kept.glob("checkpoint-00000002/rank-00000003-*.shard")  # the master's
    path.chmod(0o666)
    with pytest.raises(errors.UsageError, match="others can write"):
        feliss.restore(kept, workers=1)
