"""Continuations that take engines with them: set aside in time, and nothing else is."""

from __future__ import annotations

import pytest
from core_helpers import running_master

from feliss_nb.core.commands import Fence
from feliss_nb.core.messages import LinkBroken, Running, SetAside
from feliss_nb.core.poison import Poison
from feliss_nb.errors import LossError
from feliss_nb.lab.simulator import Simulation

BAD, OTHER = Running(0, 1, b"bad"), Running(1, 2, b"other")


def test_the_limit_sets_aside():
    poison = Poison(3)
    assert poison.lost([BAD, OTHER], False) == []
    assert poison.lost([BAD], False) == []
    assert poison.lost([BAD], False) == [BAD]
    assert poison.poisoned == {b"bad": 3}
    assert poison.lost([BAD], False) == []  # an engine was killed meanwhile; it is said once
    assert poison.poisoned == {b"bad": 4}


def test_two_losses_are_enough_before_the_last_engine():
    poison = Poison(3)
    assert poison.lost([BAD], True) == []  # a loss that has nothing to do with it looks the same
    assert poison.lost([BAD], True) == [BAD]


def test_without_a_limit_nothing_is_set_aside():
    poison = Poison(None)
    assert not any(poison.lost([BAD], True) for _ in range(10))
    assert poison.poisoned == {}


def test_what_belongs_to_no_job_any_more_is_forgotten():
    poison = Poison(2)
    poison.lost([BAD, OTHER], False)
    poison.lost([BAD], False)
    poison.forget({2})
    assert poison.poisoned == {}
    assert poison.lost([OTHER], False) == [OTHER]
    assert poison.lost([BAD], False) == []


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("spares", [0, 1, 3])
def test_a_poison_continuation_does_not_take_all_engines(seed, spares):
    """Not even of two, while a replacement is on its way: it runs again when copies are there."""
    sim = Simulation(seed, workers=2, spares=spares, checkpoint_every=5.0)
    sim.submit([("walk", 0, 3, 4), ("checkpoint",), ("poison", seed), ("shuffle", 0, 2)])
    assert "failed" in sim.run()[0]
    killed = [line for line in sim.log if line[1] == "killed"]
    assert len(killed) == 3
    assert [line[1] for line in sim.log].count("set-aside") == 1


@pytest.mark.parametrize("seed", range(10))
def test_a_poison_continuation_among_engines_that_are_not_replaced(seed):
    """The last one is spared."""
    sim = Simulation(seed, workers=3, spares=0, replace=False)
    sim.submit([("checkpoint",), ("poison", seed), ("shuffle", 0, 2)])
    assert "failed" in sim.run()[0]
    assert len(sim.living()) == 1


@pytest.mark.parametrize("seed", range(10))
def test_a_replacement_that_never_comes_is_not_waited_for(seed):
    """One more loss is then the end, and an error says so; it is no hang."""
    sim = Simulation(seed, workers=2, spares=0, replacements=0)
    sim.submit([("checkpoint",), ("poison", seed)])
    with pytest.raises(LossError):
        sim.run()


@pytest.mark.parametrize("seed", range(20))
def test_it_is_counted_from_master_to_master(seed):
    sim = Simulation(seed, workers=2, spares=1, checkpoint_every=5.0, record=True)
    sim.submit([("walk", 0, 3, 4), ("checkpoint",), ("poison", seed), ("shuffle", 0, 2)])
    for losses in (1, 2):
        sim.run_until(lambda: len([line for line in sim.log if line[1] == "killed"]) >= losses)  # noqa: B023
        sim.replace_master(seed % 4 or None)
    assert "failed" in sim.run()[0]
    assert len([line for line in sim.log if line[1] == "killed"]) == 3
    assert sim.control.term == 2


def test_what_was_set_aside_is_kept_with_the_counts():
    master = running_master(size=1)
    told = SetAside(b"bad", 1, 0, 3, "die", None, "packed")
    assert master.hear("e0", told) == []
    assert master.hear("e9", SetAside(b"other", 1, 0, 3, "die", None, "packed")) == []
    assert master.poison.set_aside == {b"bad": told}


def test_a_broken_link_costs_the_engine_that_sent():
    master = running_master(size=2)
    assert Fence("e0") in master.hear("e1", LinkBroken("e0"))
