"""Variables on real engines: names, content, and what is freed when."""

from __future__ import annotations

import gc
import gzip
import json
import operator
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_work import on_engines

import feliss_nb as feliss
from feliss_nb import errors

PATIENCE = 60.0


def partitions_held() -> set[int]:
    """On an engine: the variables that have a partition in a rank here."""
    from feliss_nb.runtime.engine import _workers

    return {
        variable
        for worker in _workers.values()
        for runner in worker.runners.values()
        for variable in runner.state.partitions
    }


def held(session: feliss.Session) -> set[int]:
    return set().union(*on_engines(session, partitions_held))


def after_commit(session: feliss.Session) -> set[int]:
    session.checkpoint(PATIENCE)
    return held(session)


# ---------------------------------------------------------------- content


def test_values_and_records(idle: feliss.Session) -> None:
    values = idle.variable(lambda rank, size: [rank] * size)
    assert values.collect() == values.partitions() == [[0] * 3, [1] * 3, [2] * 3]
    assert len(values) == 3
    records = idle.scatter(range(10))
    assert records.collect() == list(range(10))
    assert [len(part) for part in records.partitions()] == [4, 3, 3]
    assert len(records) == 10
    assert records.reduce(operator.sub) == 0 - 45
    assert values.reduce(operator.add) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    arrays = idle.scatter(np.arange(10.0))
    assert arrays.collect().tolist() == list(range(10))


def test_what_is_collected_is_a_copy(idle: feliss.Session) -> None:
    values = idle.variable(lambda rank, size: [rank])
    mine = values.collect()
    mine[0].append("changed")
    assert values.collect() == [[0], [1], [2]]
    array = idle.variable(lambda rank, size: np.zeros(10_000)).collect()[0]
    array += 1  # writable


def test_reduce_of_nothing_is_refused(idle: feliss.Session) -> None:
    empty = idle.scatter([])
    assert empty.collect() == []
    assert len(empty) == 0
    with pytest.raises(errors.UsageError, match="empty"):
        empty.reduce(operator.add)


def test_save(idle: feliss.Session, tmp_path: Path) -> None:
    numbers = idle.scatter([3, 1, 2])
    assert numbers.save(tmp_path / "n.txt").read_text() == "3\n1\n2\n"
    assert json.loads(numbers.save(tmp_path / "n.json").read_text()) == [3, 1, 2]
    assert np.load(numbers.save(str(tmp_path / "n.npy"))).tolist() == [3, 1, 2]
    assert pickle.loads(numbers.save(tmp_path / "n.pkl").read_bytes()) == [3, 1, 2]
    old = tmp_path / "keep.json"
    old.write_text("old")
    with pytest.raises(TypeError):
        idle.scatter([{1, 2}]).save(old)  # JSON knows no sets
    assert old.read_text() == "old"
    with pytest.raises(errors.UsageError, match="endings"):
        numbers.save(tmp_path / "n.csv")
    with pytest.raises(errors.UsageError, match="does not exist"):
        numbers.save(tmp_path / "absent" / "n.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "keep.json", "n.json", "n.npy", "n.pkl", "n.txt",
    ]  # fmt: skip


def test_text_is_read_by_all_ranks(idle: feliss.Session, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo \xff\n" + b"x" * 50 + b"\n" * 3)
    with gzip.open(tmp_path / "b.txt.gz", "wt") as file:
        file.write("zipped\n")
    expected = ["one", "two �", "x" * 50, "", "", "zipped"]
    lines = idle.read_text([tmp_path / "a.txt", tmp_path / "*.gz"])
    assert idle.map(identity, lines).collect() == expected
    blocks = idle.read_text(str(tmp_path / "a.txt"), by="block")
    assert "".join(idle.map(identity, blocks).collect()).splitlines() == expected[:-1]
    files = idle.read_text(tmp_path / "*.gz", by="file")
    assert idle.map(len, files).collect() == [7]


def identity(record: Any) -> Any:
    return record


# ---------------------------------------------------------------- names


def test_names(idle: feliss.Session) -> None:
    first = idle.variable(lambda rank, size: 1, name="x")
    assert idle["x"] is first
    assert "x" in idle
    assert idle.variables["x"] is first
    second = idle.variable(lambda rank, size: 2, name="x")
    assert idle["x"] is second
    assert first.collect() == [1, 1, 1]  # the handle still holds it
    del idle["x"]
    assert "x" not in idle
    with pytest.raises(errors.UsageError, match="no variable has the name 'x'"):
        idle["x"]
    with pytest.raises(errors.UsageError):
        del idle["x"]
    assert second.collect() == [2, 2, 2]


def test_a_submission_that_fails_leaves_the_name_as_it_was(idle: feliss.Session) -> None:
    idle.scatter([1, 2], name="kept")
    generator = (x for x in ())
    with pytest.raises(errors.UnpicklableError):
        idle.map(lambda x: generator, [1], name="kept")
    with pytest.raises(errors.UnpicklableError):
        idle.map(lambda x: generator, [1], name="new")
    assert idle["kept"].collect() == [1, 2]
    assert "new" not in idle
    del idle["kept"]


# ---------------------------------------------------------------- garbage


def test_a_dropped_variable_is_freed(idle: feliss.Session, eventually: Any) -> None:
    value = idle.variable(lambda rank, size: np.zeros(1000))
    value.wait(PATIENCE)
    number = value.variable
    assert number in held(idle)
    del value
    gc.collect()
    eventually(lambda: number not in after_commit(idle), PATIENCE, "the partitions are gone")


def test_a_dropped_variable_is_freed_without_a_checkpoint(idle: feliss.Session) -> None:
    value = idle.variable(lambda rank, size: np.zeros(1000))
    value.wait(PATIENCE)
    number = value.variable
    del value
    gc.collect()
    idle.put(int, rank=0).wait(PATIENCE)
    idle.apply(int).wait(PATIENCE)  # the master's words come in order
    assert number not in held(idle)


def test_a_name_keeps_a_variable(idle: feliss.Session, eventually: Any) -> None:
    number = idle.scatter([1, 2, 3], name="named").wait(PATIENCE).variable
    gc.collect()
    idle.checkpoint(PATIENCE)
    idle.checkpoint(PATIENCE)
    assert number in held(idle)
    idle.scatter([4], name="named").wait(PATIENCE)
    gc.collect()
    eventually(lambda: number not in after_commit(idle), PATIENCE, "bound anew")
    del idle["named"]


def test_what_a_job_carried_is_freed_at_a_commit(idle: feliss.Session, eventually: Any) -> None:
    source = idle.scatter(range(10))
    result = idle.map(identity, source).wait(PATIENCE)
    number = source.variable
    del source
    gc.collect()

    eventually(lambda: number not in after_commit(idle), PATIENCE, "no pool holds the source")
    idle.kill(0, wait=True)
    assert result.collect() == list(range(10))
    assert number not in held(idle)


def keep_handle(out: Any, other: Any) -> None:
    feliss.here()[out] = {"inside": other}


def follow_handle(out: Any) -> None:
    at = feliss.here()
    at[out] = at[at[out]["inside"]]


def test_a_handle_inside_a_partition_keeps_its_variable(idle: feliss.Session) -> None:
    inner = idle.variable(lambda rank, size: f"inner {rank}")
    outer = idle.variable(lambda rank, size: None)
    for rank in range(3):
        idle.put(keep_handle, outer, inner, rank=rank)
    idle.wait(PATIENCE)
    number = inner.variable
    del inner
    gc.collect()
    for _ in range(3):
        idle.checkpoint(PATIENCE)
    idle.kill(1, wait=True)
    assert number in held(idle)
    arrived = outer.collect()[2]["inside"]
    assert isinstance(arrived, feliss.Variable)
    assert arrived.collect() == ["inner 0", "inner 1", "inner 2"]
    for rank in range(3):
        idle.put(follow_handle, outer, rank=rank)
    assert outer.collect() == ["inner 0", "inner 1", "inner 2"]


def hop_with(handle: Any, out: Any, left: int) -> None:
    at = feliss.here()
    if left:
        at.put(hop_with, handle, out, left - 1, rank=(at.rank + 1) % at.size)
    else:
        at[out] = at[handle]


def test_a_handle_that_only_travels_keeps_its_variable(idle: feliss.Session) -> None:
    value = idle.variable(lambda rank, size: rank * 11)
    out = idle.variable(lambda rank, size: None)
    job = idle.put(hop_with, value, out, 3000, rank=0)
    del value
    gc.collect()
    checkpoints = 0
    while job.state == "running" and checkpoints < 50:
        idle.checkpoint(PATIENCE)
        checkpoints += 1
    job.wait(PATIENCE)
    assert out.collect() == [0, None, None]


def test_results_of_a_loop_do_not_pile_up(idle: feliss.Session, eventually: Any) -> None:
    before = held(idle)
    for step in range(30):
        idle.apply(np.full, 1000, step).reduce(np.add)
    gc.collect()
    eventually(
        lambda: len(after_commit(idle) - before) <= 1, PATIENCE, "the steps' results are gone"
    )


# ---------------------------------------------------------------- arrays


def copies_made(handle: Any) -> tuple[int, int]:
    import tracemalloc

    at = feliss.here()
    tracemalloc.start()
    try:
        part = at[handle]
        part += 1
        again = at[handle]
        return tracemalloc.get_traced_memory()[1], int(again is part)
    finally:
        tracemalloc.stop()


def test_a_partition_is_the_object_itself(idle: feliss.Session) -> None:
    data = idle.variable(lambda rank, size: np.zeros(2_000_000))
    for peak, same in idle.apply(copies_made, data).collect():
        assert same
        assert peak < 1_000_000
    assert data.collect()[0][0] == 1.0


def test_a_checkpoint_holds_an_array_once_and_twice_with_its_copy(idle: feliss.Session) -> None:
    data = idle.variable(lambda rank, size: np.zeros(500_000))
    data.wait(PATIENCE)
    gc.collect()
    idle.checkpoint(PATIENCE)  # finds the garbage of earlier tests, the next one is without it
    checkpoint = idle.checkpoint(PATIENCE)
    status = idle.status()
    assert 12_000_000 <= checkpoint.bytes < 13_500_000
    assert status.memory_own == checkpoint.bytes
    assert status.memory_copies == checkpoint.bytes
    assert "copies" in repr(status)
