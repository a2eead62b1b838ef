"""Fault plans on real engines: whatever happens, the result is that of the undisturbed run."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_processes import is_dead

import feliss_nb as feliss
from feliss_nb import Fault, FaultPlan, errors
from feliss_nb.faults import PHASES
from feliss_nb.lab import chaos_programs as programs
from feliss_nb.state.canonical import canonical_digest

PATIENCE = 60.0
WORDS = [f"word{n % 101} other{n % 7} {n}" for n in range(6000)]
COUNTS = Counter(word for line in WORDS for word in line.split())


def tokenize(line: str) -> Any:
    for word in line.split():
        yield word, 1


def count_words(session: feliss.Session) -> None:
    """Count words and compare with what they are."""
    counted = session.mapreduce(tokenize, sum, session.scatter(WORDS))
    assert dict(counted.collect()) == COUNTS


@pytest.fixture
def settled(idle: feliss.Session) -> Any:
    """The module's session, with a checkpoint to go back to; no plan stays behind."""
    idle.variable(lambda rank, size: np.full(50_000, rank), name="big").wait(PATIENCE)
    idle.checkpoint(PATIENCE)
    yield idle
    if not idle.over:
        idle.inject(None)


def inject(session: feliss.Session, *faults: Fault, seed: int = 0) -> Any:
    injection = session.inject(FaultPlan(faults, seed))
    assert injection is not None
    return injection


def fired(session: feliss.Session, before: int) -> list[str]:
    return [event.data["fault"] for event in session.events.of_kind("fault")][before:]


@pytest.mark.parametrize("phase", sorted(set(PHASES) - {"detecting", "loading"}))
def test_a_kill_in_each_phase(settled: feliss.Session, phase: str) -> None:
    injection = inject(settled, Fault("kill", phase=phase, rank=1))
    for _ in range(20):  # a phase may be over when the master hears of it; the next time it is not
        count_words(settled)
        settled.checkpoint(PATIENCE)
        if injection.is_over:
            break
    assert [event.data["fault"] for event in injection.fired] == ["kill"]
    count_words(settled)
    assert [int(part[0]) for part in settled["big"].partitions()] == [0, 1, 2]


def test_a_second_kill_before_the_first_is_noticed(settled: feliss.Session) -> None:
    """Whether both were needed for one rank's snapshot, or not: its value, or an error."""
    inject(settled, Fault("kill", rank=0), Fault("kill", phase="detecting", rank=2))
    try:
        count_words(settled)
    except errors.LossError:
        assert settled.state == "failed"


def test_a_kill_of_the_new_holder_during_the_recovery(settled: feliss.Session) -> None:
    injection = inject(settled, Fault("kill", rank=1), Fault("kill", phase="loading", rank=1))
    count_words(settled)
    injection.wait(PATIENCE)
    assert len({event.data["engine"] for event in injection.fired}) == 2
    assert [int(part[0]) for part in settled["big"].partitions()] == [0, 1, 2]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("kill-with-nanny", rank=0),
        Fault("stop", rank=1, seconds=0.5),
        Fault("hang", rank=1, seconds=0.5),
        Fault("slow", rank=2, seconds=1.0, factor=5.0),
        Fault("exhaust-memory", rank=1),
        Fault("delay", rank=0, peer=1, seconds=0.3),
        Fault("drop", rank=0, peer=1, count=1),
        Fault("cut", rank=0, peer=1),
        Fault("cut", rank=2, peer="master"),
        Fault("kill", rank=0, victim="spare"),
        Fault("kill", rank=0, victim="holder", after=5),
    ],
    ids=str,
)
def test_a_fault_of_each_kind(settled: feliss.Session, fault: Fault) -> None:
    before = len(settled.events.of_kind("fault"))
    injection = inject(settled, fault)
    count_words(settled)
    injection.wait(PATIENCE)
    count_words(settled)
    assert fired(settled, before) == [fault.kind]
    assert [int(part[0]) for part in settled["big"].partitions()] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["flip-bit", "lose-shard"])
def test_a_bad_copy_is_found_and_another_one_is_used(settled: feliss.Session, kind: str) -> None:
    """The loss of an engine that has neither copy of rank 1 makes its host load the bad one."""
    before = len(settled.events.of_kind("restore-failed"))
    inject(settled, Fault(kind, rank=1)).wait(PATIENCE)
    [other] = [
        engine.ranks[0]
        for engine in settled.status().engines
        if engine.role == "worker" and 1 not in (*engine.ranks, *engine.copies_of)
    ]
    settled.kill(other)
    assert [int(part[0]) for part in settled["big"].partitions()] == [0, 1, 2]
    failed = settled.events.of_kind("restore-failed")[before:]
    assert [event.data["rank"] for event in failed] == [1]


def test_a_plan_that_makes_no_sense_is_refused(settled: feliss.Session) -> None:
    with pytest.raises(errors.UsageError, match="no rank 7"):
        settled.inject(FaultPlan([Fault("kill", rank=7)]))
    with pytest.raises(errors.UsageError, match=r"takes a feliss_nb\.FaultPlan"):
        settled.inject("kill")  # type: ignore[arg-type]
    with pytest.raises(errors.UsageError, match="a session without a name would end with it"):
        settled.inject(Fault("kill-kernel", at=3600.0))
    settled.inject(Fault("kill", at=3600.0))
    with pytest.raises(errors.UsageError, match="is being carried out"):
        settled.inject(Fault("kill"))
    assert settled.inject(None) is None
    count_words(settled)


def test_the_example_of_the_manual_runs_as_it_stands(script: Any) -> None:
    text = (Path(__file__).parents[2] / "docs" / "faults.md").read_text("utf-8")
    [example] = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    total, fired = script(example).stdout.splitlines()
    assert total == "333328333350000"
    assert sorted(fired.split()) == ["kill", "kill", "slow"]


# ---------------------------------------------------------------- stores


def test_faults_of_stores_cost_checkpoints_only(tmp_path: Path, eventually: Any) -> None:
    with feliss.start(workers=2, spares=1, store=tmp_path / "kept", checkpoint_every=None) as s:
        s.variable(lambda rank, size: rank, name="ranks").wait(PATIENCE)
        s.inject(Fault("fill-disk", rank=0, seconds=3600.0)).wait(PATIENCE)
        with pytest.raises(errors.StoreError, match="No space left"):
            s.checkpoint(PATIENCE, durable=True)
        s.kill(0, wait=True)  # another engine writes its share now
        assert s.checkpoint(PATIENCE, durable=True).stored
        assert s["ranks"].collect() == [0, 1]
        controller = s._cluster.controller
        s.inject(Fault("kill-controller")).wait(PATIENCE)
        eventually(lambda: is_dead(controller), PATIENCE, "the end of the controller")
        count_words(s)
        # the newest checkpoint is damaged: the one before is taken
        s.checkpoint(PATIENCE, durable=True)
        s.inject(Fault("flip-bit-in-store", rank=1)).wait(PATIENCE)
    with (
        pytest.warns(errors.StoreWarning),
        feliss.restore(tmp_path / "kept", checkpoint_every=None) as again,
    ):
        assert again["ranks"].collect() == [0, 1]


# ---------------------------------------------------------------- several at once


def pagerank(session: feliss.Session) -> bytes:
    return canonical_digest(programs.pagerank(session, random.Random(3)))


def test_hard_losses_end_with_the_exact_result(eventually: Any) -> None:
    """Two at once, one during a checkpoint, one after the other under an iteration.

    Each kill takes the victim's files and memory with it, so nothing is recovered from there.
    """
    with feliss.start(workers=3, spares=2, copies=2, checkpoint_every=0.2) as session:
        want = pagerank(session)
        directory = session._cluster.directory

        def whole() -> bool:
            status = session.status()
            alive = [engine for engine in status.engines if engine.role != "dead"]
            return len(alive) == 5 and status.protected and status.state == "running"

        for faults in (
            [Fault("kill", rank=0, phase="encoding"), Fault("kill", rank=1, phase="detecting")],
            [Fault("kill", rank=2, phase="capturing", nth=2)],
            [Fault("kill", rank=1, phase="loading"), Fault("kill-with-nanny", rank=1, at=0.2)],
            *([Fault("kill", rank=n % 3, at=0.1)] for n in range(5)),  # in the middle of it
        ):
            eventually(whole, PATIENCE, "five engines and all copies")
            injection = inject(session, *faults)
            while not injection.is_over:
                assert pagerank(session) == want
            assert pagerank(session) == want
            assert len(injection.fired) == len(faults)
        dead = {engine.engine for engine in session.status().engines if engine.role == "dead"}
        assert len(dead) >= 10
        assert not [path for n in dead for path in directory.glob(f"data-{n}")]
