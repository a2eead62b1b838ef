"""Fault plans in the simulator: those of real engines, in a world where every moment can be met.

After every event the simulator checks each machine and the whole world (`simulator_checks`). What
Hypothesis finds it shrinks: the program, the world and the list of faults.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feliss_nb.core.checkpointing import Checkpoints
from feliss_nb.errors import InternalError, LossError, UsageError
from feliss_nb.faults import KINDS, PHASES, Fault, FaultPlan
from feliss_nb.lab.campaign import play, random_program, random_world, undisturbed
from feliss_nb.lab.simulated_faults import SKIPPED
from feliss_nb.lab.simulator import Simulation
from feliss_nb.lab.simulator_checks import check_rest

PROGRAM = [
    ("tree", 0, 0, 3),
    ("checkpoint",),
    ("shuffle", 0, 2),
    ("gang", 0, 4, 2),
    ("loop", 0, 2),
    ("checkpoint",),
    ("walk", 0, 3, 4),
    ("ring", 0, 1, 9),
]
#: One that lasts: a ring that goes round while a fault is noticed.
LONG = [("checkpoint",), *[("ring", 0, 0, 200)] * 3]


def run(sim: Simulation, program: list[Any], *faults: Fault, seed: int = 0) -> list[str]:
    """Play a program under a plan; return the kinds of the log."""
    sim.submit(program)
    injection = sim.inject(FaultPlan(faults, seed))
    assert sim.run() == undisturbed(sim.size, program)
    assert injection.fired == list(injection.plan)
    return [kind for _, kind, _ in sim.log]


# ---------------------------------------------------------------- each row of the table


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("phase", sorted(set(PHASES) - {"detecting", "loading"}))
def test_a_kill_in_each_phase(phase, seed):
    kinds = run(Simulation(seed), PROGRAM, Fault("kill", phase=phase, nth=1 + seed % 2))
    assert "recovered" in kinds


@pytest.mark.parametrize("seed", range(10))
def test_two_kills_at_once_with_two_copies(seed):
    sim = Simulation(seed, workers=3, spares=2, copies=2, checkpoint_every=5.0)
    first = Fault("kill", phase="encoding", nth=1 + seed, rank=seed % 3)
    run(sim, PROGRAM, first, Fault("kill", phase="detecting", rank=(seed + 1) % 3))
    assert len([line for line in sim.log if line[1] == "killed"]) == 2


@pytest.mark.parametrize("seed", range(10))
def test_a_kill_of_the_new_host_during_the_recovery(seed):
    sim = Simulation(seed, workers=3, spares=2, copies=2)
    first = Fault("kill", rank=1, phase="reducing", nth=5)
    run(sim, PROGRAM, first, Fault("kill", phase="loading", rank=1))
    hosts = [engine for _, kind, engine in sim.log if kind == "killed"]
    assert len(set(hosts)) == 2


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["kill-with-nanny", "exhaust-memory"])
def test_other_ways_to_kill(kind, seed):
    assert "recovered" in run(Simulation(seed), PROGRAM, Fault(kind, at=1.0))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["stop", "hang", "slow", "delay"])
def test_what_ends_by_itself_costs_no_engine(kind, seed):
    peer = {"peer": 1} if kind == "delay" else {}
    fault = Fault(kind, after=3, rank=0, seconds=2.0, **peer)
    assert "engine-lost" not in run(Simulation(seed), PROGRAM, fault)


@pytest.mark.parametrize("seed", range(5))
def test_an_engine_that_is_stopped_for_long_is_fenced(seed):
    kinds = run(Simulation(seed), LONG, Fault("stop", after=3, rank=0, seconds=60.0))
    assert "fencing" in kinds
    assert "recovered" in kinds


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "fault",
    [
        Fault("drop", rank=0, peer=1),
        Fault("drop", rank=1, peer=2, count=3),
        Fault("cut", rank=0, peer=1),
        Fault("cut", rank=2, peer="master"),
    ],
    ids=str,
)
def test_lost_messages_cost_the_engine(fault, seed):
    kinds = run(Simulation(seed), LONG, fault)
    assert "fencing" in kinds
    assert "engine-lost" in kinds


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["flip-bit", "lose-shard"])
def test_a_bad_copy_is_found_and_another_one_is_used(kind, seed):
    """Rank 1 is loaded anew where it is, by the loss of another rank's host."""
    sim = Simulation(seed, workers=3, copies=2)
    sim.submit([("checkpoint",), ("ring", 0, 0, 60)])
    injection = sim.inject(FaultPlan([Fault(kind, phase="committing", rank=1)]))
    sim.run_until(lambda: injection.is_over)
    sim.kill(sim.host(0))
    assert sim.run() == undisturbed(3, [("checkpoint",), ("ring", 0, 0, 60)])
    failed = [data for _, what, data in sim.log if what == "restore-failed"]
    assert [data["rank"] for data in failed] == [1]


def test_without_another_copy_it_is_an_error():
    sim = Simulation(0, workers=2, copies=0)
    sim.submit(LONG)
    injection = sim.inject(FaultPlan([Fault("flip-bit", phase="committing", rank=1)]))
    sim.run_until(lambda: injection.is_over)
    sim.inject(FaultPlan([Fault("kill", rank=0)]))
    with pytest.raises(LossError):
        sim.run()


def test_copies_that_nobody_makes_anew_are_found(monkeypatch):
    sim = Simulation(0, workers=3, spares=1, replace=False)
    sim.submit([("checkpoint",)])
    sim.run()
    sim.settle()
    check_rest(sim)
    monkeypatch.setattr(Checkpoints, "replicate_missing", lambda checkpoints: [])
    sim.kill(sim.host(1))
    sim.settle()
    assert sim.master.state == "running"
    with pytest.raises(InternalError, match="at rest"):
        check_rest(sim)


@pytest.mark.parametrize("seed", range(5))
def test_a_controller_that_is_lost_replaces_no_engine(seed):
    sim = Simulation(seed, workers=3, spares=1)
    kinds = run(sim, PROGRAM, Fault("kill-controller"), Fault("kill", at=2.0))
    assert kinds.count("engine-joined") == 4
    assert "recovered" in kinds


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("phase", sorted(set(PHASES) - {"detecting"}))
def test_a_kernel_that_is_killed_in_each_phase(phase, seed):
    """Another master goes on from its record, with a higher term; nothing is set back by that."""
    sim = Simulation(seed, record=True)
    loss = [Fault("kill", phase="reducing", nth=3)] if phase == "loading" else []
    run(sim, PROGRAM, *loss, Fault("kill-kernel", phase=phase, nth=1 + seed % 2 * (not loss)))
    assert sim.control.term == 1
    assert sim.master.epoch == len(loss)


@pytest.mark.parametrize("seed", range(10))
def test_a_kernel_that_is_killed_with_an_engine(seed):
    sim = Simulation(seed, record=True)
    first = Fault("kill", phase="encoding", nth=1 + seed)
    kinds = run(sim, PROGRAM, first, Fault("kill-kernel", phase="detecting"))
    assert sim.control.term == 1
    assert "recovered" in kinds


def test_a_kernel_is_killed_where_another_can_go_on_only():
    with pytest.raises(UsageError, match="record=True"):
        Simulation(0).inject(FaultPlan([Fault("kill-kernel")]))


@pytest.mark.parametrize("kind", sorted(SKIPPED))
def test_what_means_nothing_here_is_skipped_with_a_word(kind):
    sim = Simulation(0)
    sim.submit([("shuffle", 0, 1)])
    injection = sim.inject(FaultPlan([Fault(kind)]))
    assert injection.is_over
    assert [fault.kind for fault in injection.skipped] == [kind]
    assert "has no store" in next(data for _, what, data in sim.log if what == "skipped")
    assert sim.run()


@pytest.mark.parametrize("seed", range(5))
def test_what_is_suspected_is_fenced_first(seed):
    """As it is for a continuation past its deadline."""
    sim = Simulation(seed)
    sim.submit(LONG)
    sim.run_until(lambda: sim.master.state == "running" and sim.events > 60)
    sim.suspect(sim.host(1))
    assert sim.run() == undisturbed(3, LONG)
    kinds = [kind for _, kind, _ in sim.log]
    assert kinds.index("fencing") < kinds.index("killed") < kinds.index("engine-lost")


def test_a_rank_that_there_is_not():
    with pytest.raises(UsageError, match="no rank 7"):
        Simulation(0).inject(FaultPlan([Fault("kill", rank=7)]))


# ---------------------------------------------------------------- any plan


_moments = st.one_of(
    st.builds(lambda tenths: {"at": tenths / 10}, st.integers(0, 60)),
    st.builds(
        lambda phase, nth: {"phase": phase, "nth": nth},
        st.sampled_from(sorted(PHASES)),
        st.integers(1, 4),
    ),
    st.builds(lambda count: {"after": count}, st.integers(0, 40)),
)
faults = st.builds(
    lambda kind, moment, rank, victim, seconds: Fault(
        kind, rank=rank, victim=victim, seconds=seconds, **moment
    ),
    st.sampled_from([kind for kind in KINDS if kind not in SKIPPED]),
    _moments,
    st.integers(0, 3),
    st.sampled_from(["host", "holder", "spare"]),
    st.sampled_from([0.1, 1.0, 8.0]),
)


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.lists(faults, max_size=4), st.randoms(use_true_random=False))
def test_any_plan_gives_the_undisturbed_result_or_an_error(seed, plan, rng):
    program, world = random_program(rng), random_world(rng)
    sim = Simulation(seed, **world, record=True)
    sim.submit(program)
    sim.inject(FaultPlan([replace(fault, rank=fault.rank % sim.size) for fault in plan], seed))
    try:
        seen = sim.run()
    except LossError:
        return  # the simulator has checked that no rank was kept anywhere
    assert seen == undisturbed(sim.size, program)


def test_a_seed_gives_the_same_session():
    assert [play(seed) for seed in range(5)] == [play(seed) for seed in range(5)]
