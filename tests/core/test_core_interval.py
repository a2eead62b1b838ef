"""The interval that is chosen, against simulated failures and against published formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feliss_nb.core.interval import (
    Interval,
    daly,
    exact,
    iterations,
    overhead,
    threshold,
    young,
)
from feliss_nb.errors import UsageError

positive = st.floats(1e-3, 1e6)


def simulate(segments, cost, mtbf, recovery=0.0, seed=0):
    """Time that is not work, as a part of the work, for segments of work that each end in a
    checkpoint: every attempt at one meets a failure after a random time, or succeeds."""
    rng = np.random.default_rng(seed)
    needed = np.asarray(segments) + cost
    left = np.arange(needed.size)
    spent = 0.0
    recovering = np.zeros(needed.size, bool)
    while left.size:
        failure = rng.exponential(mtbf, left.size)
        wanted = needed[left] + np.where(recovering[left], recovery, 0)
        failed = failure < wanted
        spent += np.minimum(failure, wanted).sum()
        recovering[left] = failed
        left = left[failed]
    return spent / np.sum(segments) - 1


def cut(lengths, due_after):
    """Work of each segment when a checkpoint is taken at the first end at or past a threshold."""
    segments, work = [], 0.0
    for length in lengths:
        work += length
        if work >= due_after:
            segments.append(work)
            work = 0.0
    return segments


def test_known_values():
    assert young(50, 3600) == 600
    # first order + cost of 50 s / 1 h: Daly's is a little above Young's less the cost
    assert daly(50, 3600) == pytest.approx(600 * (1 + math.sqrt(50 / 7200) / 3 + 50 / 64800) - 50)
    assert daly(3, 1) == 1
    assert exact(0, 10) == 0


@given(cost=positive, mtbf=positive)
def test_exact_is_where_the_overhead_is_least(cost, mtbf):
    best = exact(cost, mtbf)
    least = overhead(best, cost, mtbf)
    assert least <= overhead(best * 1.01, cost, mtbf) * (1 + 1e-9)
    assert least <= overhead(best * 0.99, cost, mtbf) * (1 + 1e-9)
    assert 0 < best <= mtbf * (1 + 1e-12)


@given(mtbf=positive, part=st.floats(1e-6, 0.5))
def test_daly_is_close_to_exact_and_young_is_its_limit(mtbf, part):
    cost = mtbf * part
    assert daly(cost, mtbf) == pytest.approx(exact(cost, mtbf), rel=0.02)
    if part < 1e-4:
        assert young(cost, mtbf) == pytest.approx(exact(cost, mtbf), rel=0.01)


@pytest.mark.parametrize("recovery", [0.0, 5.0])
@pytest.mark.parametrize(("cost", "mtbf"), [(1.0, 1000.0), (2.0, 100.0), (20.0, 60.0)])
def test_the_predicted_overhead_is_the_simulated_one(cost, mtbf, recovery):
    work = exact(cost, mtbf)
    found = simulate(np.full(400_000, work), cost, mtbf, recovery)
    assert found == pytest.approx(overhead(work, cost, mtbf, recovery), rel=0.03)


@pytest.mark.parametrize(("cost", "mtbf"), [(1.0, 1000.0), (2.0, 100.0), (20.0, 60.0)])
def test_the_chosen_interval_is_as_good_as_the_best_simulated(cost, mtbf):
    interval = Interval(mtbf)
    for seconds in (cost, 50 * cost, cost):  # one checkpoint met a busy disk
        interval.checkpoint_took(seconds)
    grid = interval.work() * np.geomspace(0.25, 4, 17)
    times = [1 + simulate(np.full(200_000, work), cost, mtbf) for work in grid]
    assert 1 + simulate(np.full(200_000, interval.work()), cost, mtbf) <= min(times) * 1.01


LENGTHS = {
    "equal": lambda rng, n, mean: np.full(n, mean),
    "uniform": lambda rng, n, mean: rng.uniform(0, 2 * mean, n),
    "exponential": lambda rng, n, mean: rng.exponential(mean, n),
    "few long ones": lambda rng, n, mean: np.where(rng.random(n) < 0.05, 10 * mean, mean / 2),
}


@pytest.mark.parametrize("mean", [2.0, 15.0, 60.0])
@pytest.mark.parametrize("law", sorted(LENGTHS))
def test_at_ends_of_continuations_the_threshold_is_as_good_as_the_best_simulated(law, mean):
    cost, mtbf = 2.0, 400.0  # 40 between checkpoints that could be anywhere
    lengths = LENGTHS[law](np.random.default_rng(1), 150_000, mean)
    interval = Interval(mtbf)
    interval.checkpoint_took(cost)
    for length in lengths[:400]:
        interval.continuation_took(float(length))
    grid = [0.0, *(exact(cost, mtbf) * np.linspace(0.1, 3, 30))]
    times = [1 + simulate(cut(lengths, due), cost, mtbf) for due in grid]
    chosen = 1 + simulate(cut(lengths, interval.due_after()), cost, mtbf)
    assert chosen <= min(times) * 1.02
    assert 1 + interval.predicted() == pytest.approx(chosen, rel=0.1)


@pytest.mark.parametrize("length", [0.5, 7.0, 30.0, 300.0])
def test_the_number_of_equal_iterations_is_the_best(length):
    cost, mtbf = 2.0, 400.0
    best = min(range(1, 400), key=lambda k: overhead(k * length, cost, mtbf))
    assert iterations(length, cost, mtbf) == best
    # and the threshold ends after as many
    done = 0.0
    count = 0
    while done < threshold(length, cost, mtbf) or not count:
        done += length
        count += 1
    assert overhead(count * length, cost, mtbf) <= overhead(best * length, cost, mtbf) * 1.02


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=20))
def test_iterations_of_random_lengths_are_one_or_more(lengths):
    assert iterations(lengths, 1.0, 1000.0) >= 1
    assert iterations(lengths, 1e-6, 1000.0) >= 1


def test_nothing_measured_yet():
    interval = Interval(first=30)
    assert interval.work() == interval.due_after() == 30
    assert interval.cost is interval.mtbf is interval.predicted() is None
    interval.continuation_took(0.0)
    assert interval.due_after() == 30
    assert not interval.is_due(29)
    assert interval.is_due(30)


def test_the_mean_time_between_failures_is_observed():
    interval = Interval()
    interval.checkpoint_took(1)
    interval.ran(100)
    assert interval.mtbf == 200
    before = interval.work()
    interval.ran(900)
    assert interval.work() > before  # nothing failed for longer
    before = interval.work()
    interval.failed()
    assert interval.mtbf == pytest.approx(1000 / 1.5)
    assert interval.work() < before
    assert Interval(mtbf=5).mtbf == 5


def test_bounds():
    interval = Interval(mtbf=1e9, least=1, most=10)
    interval.checkpoint_took(1)
    assert interval.work() == interval.due_after() == 10
    for _ in range(9):
        interval.checkpoint_took(0)
    assert interval.work() == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: young(-1, 1),
        lambda: daly(1, 0),
        lambda: exact(math.nan, 1),
        lambda: overhead(1, 1, math.inf),
        lambda: iterations(0, 1, 1),
        lambda: threshold([], 1, 1),
        lambda: Interval(least=2, most=1),
        lambda: Interval(mtbf=0),
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError):
        wrong()
