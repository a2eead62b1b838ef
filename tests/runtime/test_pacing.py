"""The clock of periodic checkpoints, driven by hand."""

from __future__ import annotations

import pytest

from feliss_nb.core.interval import exact, overhead
from feliss_nb.errors import UsageError
from feliss_nb.runtime.pacing import FIRST, LEAST, Pace, check_every


def test_a_given_interval():
    pace = Pace()
    pace.set(3.0)
    pace.ran(2.9)
    assert not pace.is_due()
    pace.ran(0.2)
    assert pace.is_due()
    pace.begun()
    assert not pace.is_due()
    pace.set(None)
    pace.ran(100)
    assert not pace.is_due()
    assert pace.figures() is None


def test_the_chosen_interval_follows_what_a_checkpoint_costs():
    pace = Pace()
    pace.set("auto", mtbf=600)
    assert pace.due_after == FIRST
    pace.ran(FIRST)
    assert pace.is_due()
    pace.begun()
    pace.committed(0.5)
    assert pace.due_after == pytest.approx(exact(0.5, 600))
    figures = pace.figures()
    assert figures.predicted == pytest.approx(overhead(figures.every, 0.5, 600))
    assert (figures.cost, figures.mtbf) == (0.5, 600)
    assert "overhead predicted" in str(figures)
    for _ in range(9):
        pace.committed(1e-6)
    assert pace.due_after == LEAST


def test_losses_that_were_seen_shorten_it():
    pace = Pace()
    pace.set("auto")
    pace.ran(1000)
    pace.begun()
    pace.committed(1.0)
    calm = pace.due_after
    for _ in range(10):
        pace.lost()
    assert pace.due_after < calm
    assert pace.figures().mtbf == pytest.approx(1000 / 10.5)


def test_the_actual_overhead_is_pauses_recoveries_and_work_done_again():
    pace = Pace()
    pace.set(10.0)
    pace.ran(10.0)
    pace.begun()
    pace.ran(2.0)
    pace.committed(0.25)
    pace.ran(3.0)
    pace.lost()  # what was done since the cut: 5 s of 15
    pace.recovering(0.75)
    assert pace.figures().actual == pytest.approx((0.25 + 0.75 + 5.0) / 10.0)
    pace.ran(10.0)
    pace.lost()
    assert pace.figures().actual == pytest.approx(16.0 / 10.0)


def test_nothing_is_claimed_before_anything_ran():
    pace = Pace()
    pace.set("auto")
    figures = pace.figures()
    assert (figures.predicted, figures.actual, figures.cost) == (None, None, None)
    assert str(figures) == "every 10.0 s of work, chosen"


@pytest.mark.parametrize("every", [0, -1.0, "often", True, float("nan"), float("inf"), [1]])
def test_intervals_that_make_no_sense(every):
    with pytest.raises(UsageError, match="checkpoint_every"):
        check_every(every)


@pytest.mark.parametrize("mtbf", [0, -1.0, "long", True, float("nan"), float("inf")])
def test_times_between_losses_that_make_no_sense(mtbf):
    with pytest.raises(UsageError, match="mtbf"):
        check_every("auto", mtbf)


def test_a_time_between_losses_needs_something_to_choose():
    with pytest.raises(UsageError, match="auto"):
        check_every(10.0, 60.0)
