"""Gangs: which step starts, how far before a cut; and whole sessions with them in the simulator."""

from __future__ import annotations

from typing import Any

import pytest
from core_helpers import running_rank

from feliss_nb.core import messages as m
from feliss_nb.core.rank import Rank
from feliss_nb.errors import InternalError
from feliss_nb.lab.campaign import play

#: A thousand sessions take about ten seconds; `feliss-nb bench simulate --runs N` plays more.
SEEDS = 600


def step(gang: int, number: int, needs: tuple[int, ...] = ()) -> m.Continuation:
    return m.Continuation(b"%d/%d" % (gang, number), gang, needs, None, (gang, number))


def plain(job: int, name: bytes = b"plain") -> m.Continuation:
    return m.Continuation(name, job, (), None)


def started(rank: Rank) -> Any:
    """Start what can, and return its gang or its id; it runs."""
    continuation = rank.next()
    return continuation and (continuation.gang or continuation.id)


def ended(rank: Rank, following: m.Continuation | None = None) -> None:
    if following is not None:
        rank.put(following)
    rank.finish()
    rank.check_invariants()


def test_the_oldest_gang_alone_starts_its_steps():
    rank = running_rank()
    rank.put(step(5, 0))
    rank.put(step(3, 0))
    assert started(rank) == (3, 0)
    ended(rank, step(3, 1))
    assert started(rank) == (3, 1)
    ended(rank)
    assert started(rank) == (5, 0)


def test_ordinary_continuations_and_steps_take_turns():
    rank = running_rank()
    rank.put(step(1, 0))
    for _ in range(3):
        rank.put(plain(2))
    order = []
    for number in range(1, 4):
        for _ in range(2):
            order.append(started(rank))
            ended(rank, step(1, number) if isinstance(order[-1], tuple) else None)
    assert order.count(b"plain") == 3
    assert [o for o in order if o != b"plain"] == [(1, 0), (1, 1), (1, 2)]


def test_a_step_that_needs_variables_waits_for_all_ranks_and_blocks_nothing_ordinary():
    rank = running_rank()
    rank.put(step(1, 0, needs=(7,)))
    assert started(rank) is None
    assert rank.to_announce is None
    rank.put(plain(2))
    assert started(rank) == b"plain"
    rank.set_ready(7)
    ended(rank)
    assert started(rank) is None
    assert rank.to_announce == (1, 0)
    rank.released[1] = 0
    assert started(rank) == (1, 0)


def test_before_a_cut_no_step_starts_beyond_the_limits():
    rank = running_rank()
    rank.put(step(1, 0))
    assert started(rank) == (1, 0)
    rank.prepare(1, {})
    assert rank.take_begun() == (1, {1: 0})
    assert rank.take_begun() is None
    ended(rank, step(1, 1))
    assert started(rank) is None
    rank.prepare(2, {1: 1})
    assert rank.take_begun() is None  # the limit is not reached
    assert started(rank) == (1, 1)
    ended(rank, step(1, 2))
    assert rank.take_begun() == (2, {1: 1})
    assert started(rank) is None
    assert rank.ask_cut(1)
    assert [c.gang for c in rank.make_cut().pool] == [(1, 2)]
    assert started(rank) == (1, 2)


def test_a_gang_that_left_still_tells_how_far_it_came_until_it_is_forgotten():
    rank = running_rank()
    rank.put(step(1, 0))
    started(rank)
    ended(rank)
    rank.prepare(1, {})
    assert rank.take_begun() == (1, {1: 0})
    rank.forget([1])
    rank.prepare(2, {1: 4})
    assert rank.take_begun() == (2, {})


def test_a_gang_that_was_called_off_has_no_limit():
    rank = running_rank()
    rank.put(step(1, 0))
    started(rank)
    rank.prepare(1, {1: 3})
    assert rank.take_begun() is None
    rank.cancel(1, ())
    assert rank.take_begun() == (1, {})


def test_a_rank_has_one_step_of_a_gang():
    rank = running_rank()
    rank.put(step(1, 0))
    with pytest.raises(InternalError, match="two steps"):
        rank.put(step(1, 1))


# ---------------------------------------------------------------- whole sessions


@pytest.mark.parametrize("first", range(0, SEEDS, 100))
def test_no_checkpoint_stands_in_a_gang_or_stops_one(first):
    for seed in range(first, first + 100):
        played = play(seed)
        assert played.equal or played.lost, seed
