"""Whole sessions in the simulator: whatever is lost, the notebook sees what it sees without a loss.

After every event the simulator checks each machine and the whole world (`simulator_checks`): every
continuation in exactly one place, counters that agree with what is under way, snapshots kept where
the master counts on them; at each answered wait, that nothing it waited for is alive; at each
commit, that the cut is consistent; at each end by loss, that a rank and all its copies were lost.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from core_helpers import (
    all_ops,
    faults,
    outcome,
    plain_ops,
    plans,
    programs,
    worlds,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from feliss_nb.core import events as ev
from feliss_nb.errors import LossError, ReplayDiverged
from feliss_nb.lab.campaign import inject, undisturbed
from feliss_nb.lab.simulator import Hang, Simulation

EVERYTHING = [
    ("tree", 0, 0, 3),
    ("checkpoint",),
    ("shuffle", 0, 2),
    ("fill_and_read", 0, 3),
    ("keep_and_follow", 0, 5),
    ("loop", 0, 2),
    ("fail", 2),
    ("cancel", 1),
    ("walk", 0, 3, 4),
    ("ring", 0, 1, 9),
]
THOROUGH = settings(max_examples=150, suppress_health_check=list(HealthCheck))


def play(world: dict[str, Any], program: list[Any], plan: list[Any]) -> Simulation:
    sim = Simulation(**world)
    sim.submit(program)
    for wait, fault in plan:
        until = sim.events + wait
        sim.run_until(lambda until=until: sim.events >= until)
        inject(sim, *fault)
    return sim


# ---------------------------------------------------------------- the same result


@THOROUGH
@given(worlds, programs, plans)
def test_a_run_with_losses_gives_what_a_run_without_gives(world, program, plan):
    sim = play(world, program, plan)
    seen = outcome(sim)
    if seen is not None:
        assert seen == undisturbed(world["workers"], program)
        _no_garbage_is_left(sim)


@THOROUGH
@given(worlds, st.lists(all_ops, max_size=3), st.integers(0, 40))
def test_one_loss_is_always_tolerated(world, program, when):
    world = {**world, "copies": 1, "workers": max(world["workers"], 2)}
    sim = Simulation(**world)
    sim.submit(program)
    sim.run_until(lambda: sim.master.epoch == 0 and sim.events >= when * 10)
    sim.kill(sim.host(when % sim.size))
    assert sim.run() == undisturbed(world["workers"], program)


def _no_garbage_is_left(sim: Simulation) -> None:
    """Every variable was dropped; what only garbage reaches goes one commit later."""
    for _ in range(3):
        sim.settle()
        sim.ask(ev.TakeCheckpoint)
    sim.settle()
    for engine in sim.engines.values():
        left = {v for runner in engine.runners.values() for v in runner.partitions}
        assert not (left and engine.alive and sim.master.state == "running")


@pytest.mark.parametrize("victim", range(3))
def test_a_kill_at_every_moment(victim):
    """Not at random: the host of one rank dies at the n-th event, for n all over the run."""
    want = undisturbed(3, EVERYTHING)
    for when in range(5, 700, 13):
        sim = Simulation(1, check_every=5)
        sim.submit(EVERYTHING)
        sim.run_until(lambda sim=sim, when=when: sim.events >= when)
        sim.kill(sim.host(victim) if sim.master.routes else sim.living()[victim])
        assert sim.run() == want


def lost_with_a_copy(spares, copies):
    """A host is lost, and the copy that is asked for then is not there."""
    sim = Simulation(2, workers=3, spares=spares, copies=copies)
    sim.submit(EVERYTHING)
    sim.run_until(lambda: sim.master.committed.id)
    sim.fail_next("send")
    sim.kill(sim.host(1))
    return sim


def test_a_rank_stands_up_from_another_copy_when_the_one_asked_for_is_lost():
    sim = lost_with_a_copy(spares=3, copies=2)
    assert sim.run() == undisturbed(3, EVERYTHING)
    kinds = [kind for _, kind, _ in sim.log]
    assert "copy-lost" in kinds
    assert "restore-failed" in kinds


def test_a_session_ends_with_an_error_when_no_copy_is_left_to_ask_for():
    sim = lost_with_a_copy(spares=1, copies=1)
    with pytest.raises(LossError, match="any copy of checkpoint"):
        sim.run()


@pytest.mark.parametrize("kind", ["copy", "fill"])
def test_a_snapshot_that_cannot_be_kept_costs_no_engine(kind):
    """Neither does it stop anything: a checkpoint that fails is asked for again."""
    want = undisturbed(3, EVERYTHING)
    for when in range(5, 700, 29):
        for kill in (False, True):
            sim = Simulation(1, check_every=5)
            sim.submit(EVERYTHING)
            sim.run_until(lambda sim=sim, when=when: sim.events >= when)
            sim.fail_next(kind)
            sim.run_until(lambda sim=sim, kind=kind: not sim.to_fail[kind])
            if kill and not sim.to_fail[kind]:
                sim.kill(sim.host(when % sim.size))
            assert sim.run() == want
            lost = [what for _, what, _ in sim.log if what == "engine-lost"]
            assert len(lost) == (1 if kill and not sim.to_fail[kind] else 0)


# ---------------------------------------------------------------- any order of events


class Session(RuleBasedStateMachine):
    """Programs, faults and joins in any order; every program must come to its own result."""

    @initialize(world=worlds)
    def begin(self, world: dict[str, Any]) -> None:
        self.world = world
        self.sim = Simulation(**world)
        self.notebooks: list[tuple[Any, list[Any]]] = []

    @rule(program=st.lists(plain_ops, max_size=3))
    def submit(self, program: list[Any]) -> None:
        if len(self.notebooks) < 3:
            self.notebooks.append((self.sim.submit(program), program))

    @rule(events=st.integers(1, 80))
    def go_on(self, events: int) -> None:
        until = self.sim.events + events
        self.sim.run_until(lambda: self.sim.events >= until)

    @rule(fault=faults)
    def fault(self, fault: tuple[str, int]) -> None:
        inject(self.sim, *fault)

    @rule()
    def everything_dies(self) -> None:
        for engine in self.sim.living()[1:]:
            self.sim.kill(engine)

    def teardown(self) -> None:
        if hasattr(self, "sim") and outcome(self.sim) is not None:
            self.sim.check_invariants()
            for notebook, program in self.notebooks:
                assert notebook.outcome == undisturbed(self.world["workers"], program)[0]


Session.TestCase.settings = settings(
    max_examples=100, stateful_step_count=25, suppress_health_check=list(HealthCheck)
)
TestSession = Session.TestCase


# ---------------------------------------------------------------- the cut


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(2, 4), st.integers(1, 9), st.integers(1, 20))
def test_a_committed_cut_conserves_what_walks_about(seed, workers, amount, hops):
    """What is in the partitions, pools and channels of a cut is what was given out before it."""
    sim = Simulation(seed, workers=workers, checkpoint_every=2.0, delay=3.0)
    sim.submit([("walk", 0, amount, hops)])
    positions: list[int] = []
    totals: list[int] = []

    def look(shards: list[Any]) -> None:
        works = [c.work for s in shards for c in [*s.image.pool, *(c for _, c in s.channel)]]
        total = sum(args[1] for name, args in works if name == "walk")
        total += sum(shard.partitions.get(1, 0) for shard in shards)
        before = bool(positions) and positions[0] < sim.master.committed.position
        assert total == (amount * workers if before else 0)
        totals.append(total)

    sim.commits.append(look)
    while sim.askers and "end" not in sim.notebooks[0].outcome and sim.step():
        if not positions:
            jobs = sim.master.jobs.values()
            positions += [job.position for job in jobs if job.label == "walk"]
    assert totals


# ---------------------------------------------------------------- another session goes on


def wreck(world: dict[str, Any], program: list[Any], plan: list[Any], events: int) -> Any:
    """What a store has of a session that ends after some events: None before a checkpoint."""
    sim = Simulation(**world)
    kept: list[Any] = []
    sim.commits.append(lambda shards: kept.append(copy.deepcopy(shards)))
    sim.submit(program)
    for wait, fault in plan:
        until = sim.events + wait
        sim.run_until(lambda until=until: sim.events >= until)
        inject(sim, *fault)
    until = sim.events + events
    sim.run_until(lambda: sim.events >= until)
    # It is taken behind the commit, at any time, also in the middle of a recovery.
    return (copy.deepcopy(sim.master.image()), kept[-1]) if kept else None


#: Programs none of whose jobs runs until their notebook calls it off.
ending = programs.map(lambda ops: [op for op in ops if not op[0].startswith("cancel")])


@settings(THOROUGH, max_examples=80)
@given(worlds, ending, plans, st.integers(0, 200), st.integers(1, 5), st.booleans())
def test_another_session_comes_to_an_end(world, program, plan, events, workers, loss):
    """What ran goes on, what was submitted since is submitted again, nothing waits for ever."""
    world = {**world, "checkpoint_every": 3.0}
    origin = wreck(world, program, plan, events)
    if origin is None:
        return
    sim = Simulation(world["seed"], workers=workers, spares=1, checkpoint_every=5.0, origin=origin)
    if loss:
        while sim.master.state != "running" or not sim.master.is_protected():
            assert sim.step()
        sim.kill(sim.host(0))
    sim.submit([("wait",)])
    sim.run()
    assert all(job.ended for job in sim.master.jobs.values())
    assert sim.master.epoch > origin[0].epoch


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(2, 4), st.integers(1, 20), st.integers(0, 150), st.data())
def test_another_session_conserves_what_walks_about(seed, workers, hops, events, data):
    world = {"seed": seed, "workers": workers, "checkpoint_every": 2.0, "delay": 3.0}
    origin = wreck(world, [("walk", 0, 5, hops)], [], events)
    if origin is None or 1 not in origin[0].variables.held:
        return  # the program has not begun, or has ended and dropped it
    sim = Simulation(seed, workers=data.draw(st.integers(1, 4)), origin=origin)
    sim.submit([("wait",)])
    sim.run()
    ranks = [e.runners[r] for r in range(workers) for e in [sim.engines[sim.host(r)]]]
    assert sum(runner.partitions.get(1, 0) for runner in ranks) == 5 * workers


# ---------------------------------------------------------------- another master goes on


@THOROUGH
@given(worlds, programs, st.integers(0, 400), st.none() | st.integers(0, 6))
def test_another_master_goes_on_and_nothing_is_set_back(world, program, when, most):
    sim = Simulation(**world)
    sim.submit(program)
    sim.run_until(lambda: sim.events >= when)
    sim.replace_master(most)
    assert sim.run() == undisturbed(world["workers"], program)
    assert sim.master.epoch == 0


@settings(THOROUGH, max_examples=100)
@given(worlds, st.integers(1, 20), st.integers(0, 300), st.booleans())
def test_another_notebook_goes_on_with_what_has_a_name(world, hops, events, loss):
    """The one before is gone with its questions, some of which never reached the master."""
    sim = Simulation(**world)
    sim.submit([("walk", 0, 5, hops), ("wait",), ("loop", 0, 2)])
    sim.run_until(lambda: 1 in sim.master.held and sim.events >= events)
    if not sim.askers or "end" in sim.notebooks[0].outcome:
        return
    sim.askers.clear()
    for question in sim.open.values():
        question.asker = None
    for parcel in sim.links.under_way["control", "notebook", "master"]:
        parcel.lost = True
    before = sim.master.epoch
    sim.replace_master()
    sim.tell(ev.TakeOver(frozenset({1})))
    walks = any(job.label == "walk" for job in sim.master.jobs.values())
    if loss and world["copies"] and world["workers"] > 1:
        sim.kill(sim.host(0))
    sim.submit([("wait",)])
    try:
        sim.run()
    except LossError:
        return
    assert loss or sim.master.epoch == max(before, 0)  # it may not have started then
    assert all(job.ended for job in sim.master.jobs.values())
    submitted = [data["label"] for _, kind, data in sim.log if kind == "job-submitted"]
    if walks and "shuffle" not in submitted:
        total = sum(
            sim.engines[sim.host(rank)].runners[rank].partitions.get(1, 0)
            for rank in range(sim.size)
        )
        assert total == 5 * world["workers"]


# ---------------------------------------------------------------- replay


def lying(same: int, seed: int) -> Simulation:
    """A session whose notebook has fetched something, and then loses a worker."""
    sim = Simulation(seed, workers=2)
    sim.submit([("lies", same, lambda: sim.rng.random()), ("wait",)])
    sim.run_until(lambda: "done" in sim.notebooks[0].outcome)
    sim.kill(sim.host(0))
    return sim


@pytest.mark.parametrize("seed", range(10))
def test_a_result_that_a_replay_does_not_give_again_is_an_error(seed):
    sim = lying(0, seed)
    with pytest.raises(ReplayDiverged, match="replay diverged"):
        sim.run()
    assert sim.master.state == "failed"


@pytest.mark.parametrize("seed", range(10))
def test_an_equal_result_with_another_digest_is_none(seed):
    sim = lying(7, seed)
    assert sim.run()


# ---------------------------------------------------------------- the simulator itself


def test_the_same_seed_gives_the_same_run():
    def run() -> list[Any]:
        sim = Simulation(5, check_every=0)
        sim.submit(EVERYTHING)
        sim.run_until(lambda: sim.events >= 200)
        sim.kill(sim.host(1))
        sim.run()
        return [sim.now, sim.events, *sim.log]

    assert repr(run()) == repr(run())


def test_a_session_that_nobody_answers_is_called_a_hang():
    sim = Simulation(0, workers=1, spares=0)
    sim.drive(iter_wait())
    sim.master.ledger.busy[-1] = None  # somebody's bug
    sim.check_every = 0
    with pytest.raises(Hang, match="nothing more happens"):
        sim.run()


def iter_wait() -> Any:
    yield lambda token: ev.Wait(token, None)


def test_losing_everything_is_an_error_for_the_notebook():
    sim = Simulation(0, workers=2, replace=False)
    sim.submit(EVERYTHING)
    sim.run_until(lambda: sim.events >= 100)
    for engine in sim.living():
        sim.kill(engine)
    with pytest.raises(LossError):
        sim.run()
