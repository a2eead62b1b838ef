"""The benchmarks, tiny and on real engines: what they give, never how fast it was."""

from __future__ import annotations

import json
import math

import pytest

from feliss_nb.errors import UsageError
from feliss_nb.lab import bench, bench_wordcount

#: The figures that have a target.
TARGETS = {
    "tasks": {
        "continuations on a rank",
        "hop / raw pyzmq",
        "start(workers=2, spares=0) until ready",
    },
    # and the ratios to the dumps, where there is a dumper
    "checkpoint": {
        "dict of ints: pause, forked",
        "arrays, 2 MB: pause, forked",
        "arrays, 2 MB: full, of the rate of a copy",
        "an array, 2 MB: full, of the rate of a plain write",
        "an array, 2 MB: time, full / incremental, 1 % changed",
        "an array, 2 MB: bytes, full / incremental, 1 % changed",
        "arrays, 2 MB: restored, rate",
        "dict of ints, 2 MB: time, pickle.loads / restored",
    },
    "overhead": {
        "2 MB, full: commits in a run, at least",
        "2 MB, full: overhead",
        "2 MB, full: by iterations next to others",
    },
    "recovery": {"0 MB a rank, Python: recovery, median", "0 MB a rank, numpy: recovery, median"},
    "mpi": set(),
    # and "session / mpi4py", where mpi4py is installed
    "lu": {"norm(P A - L U) / (n norm(A) eps)", "session / scipy"},
    "wordcount": {
        "session / faster pool",
        "checkpoint in the middle, until committed",
        "share of the input mapped behind the loss",
        "results equal",
    },
}


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.timeout(300)  # eight sessions, one after the other
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_benchmark_prints_one_object(name, capsys):
    assert getattr(bench, name)(json=True, quick=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["benchmark"] == name
    assert found["machine"]["cores"] >= 1
    assert all(math.isfinite(figure["value"]) for figure in found["figures"])
    targets = {f["name"] for f in found["figures"] if "target" in f}
    # what is compared with mpi4py is there where mpi4py is
    rest = {target for target in targets if not any(n in target for n in ("mpi4py", "dump by"))}
    assert rest == TARGETS[name]
    if name == "wordcount":
        values = {figure["name"]: figure["value"] for figure in found["figures"]}
        assert values["results equal"] == 1
        assert values["share of the input mapped behind the loss"] <= 1


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text"
    # lines of every length up to 200 bytes, some longer than a part, and no end of the last line
    path.write_text("\n".join("ab " * (n % 67) for n in range(3000)) + "\nlast one")
    return path


@pytest.mark.parametrize("number", [1, 2, 3, 7, 500])
def test_the_parts_of_the_pools_hold_every_line_once(text, number):
    whole = bench_wordcount._in_one_process(text)
    assert whole["ab"] == sum(n % 67 for n in range(3000))
    parts = bench_wordcount._parts(text, text.stat().st_size, number)
    assert len(parts) == number
    assert bench_wordcount._merge(map(bench_wordcount._count_part, parts)) == whole


def test_the_map_function_of_both_sides_counts_a_block():
    block = "to be or not to be\n"
    assert bench_wordcount.count(block) == {"to": 2, "be": 2, "or": 1, "not": 1}


@pytest.mark.engines
@pytest.mark.slow
def test_kills_every_two_seconds(capsys):
    assert bench.kills(json=True, seconds=6.0, every=2.0, seed=1) == 0
    found = json.loads(capsys.readouterr().out)
    values = {figure["name"]: figure["value"] for figure in found["figures"]}
    assert values["kills"] == values["engines lost"] >= 1
    assert values["the result of the undisturbed run"] == 1


def test_kills_need_time():
    with pytest.raises(UsageError, match="every=3 must be above 0 and at most seconds=2"):
        bench.kills(json=True, seconds=2.0, every=3.0)


def test_benchmarks_are_the_ones_that_the_command_knows():
    from feliss_nb import cli

    assert set(cli.BENCHMARKS) == set(bench.__all__)


def test_simulated_sessions_are_counted_one_by_one(capsys):
    assert bench.simulate(json=True, runs=40, seed=7, workers=20) == 0
    found = json.loads(capsys.readouterr().out)
    values = {figure["name"]: figure["value"] for figure in found["figures"]}
    assert values["sessions"] == 40
    same = values["with the result of the undisturbed run"]
    assert same + values["ended: more was lost than the copies tolerate"] == 40
    assert same > 0
    assert values["wrong results"] == values["hangs"] == values["invariants broken"] == 0


def test_a_part_that_there_is_not():
    with pytest.raises(UsageError, match="there is no part 'papr'; there are: paper, slow"):
        bench.checkpoint(json=True, part="papr")
    with pytest.raises(UsageError, match="at least 1, not 0"):
        bench.checkpoint(json=True, repeats=0)


def test_one_pair_has_no_interval():
    with pytest.raises(UsageError, match="at least 2, not 1"):
        bench.overhead(json=True, runs=1)
    with pytest.raises(UsageError, match="there is no capture 'fast'"):
        bench.overhead(json=True, capture="fast")


def test_no_session_is_no_campaign():
    with pytest.raises(UsageError, match="at least 1"):
        bench.simulate(json=True, runs=0)
