"""Termination detection, and what a rollback undoes of a job."""

from __future__ import annotations

import random

from core_helpers import continuation
from hypothesis import given
from hypothesis import strategies as st

from feliss_nb.core.ids import NOTEBOOK
from feliss_nb.core.jobs import Entry, Job, Result, SubmissionLog


def new_job(**more):
    job = Job(0, 0, "job", ((0, continuation()),), **more)
    job.state = "running"
    job.count_starts()
    return job


def test_a_job_is_quiet_when_every_pair_agrees():
    job = new_job()
    assert not job.report(0, {1: 2}, {NOTEBOOK: 1})
    assert not job.report(1, {0: 1}, {0: 2})
    assert job.report(0, {1: 2}, {NOTEBOOK: 1, 1: 1})
    assert job.quiet
    assert not job.report(0, {1: 2}, {NOTEBOOK: 1, 1: 1})  # told once


def test_equal_sums_are_not_enough():
    """One message sent and another received: a total count would call it quiet."""
    job = new_job()
    job.report(0, {1: 1}, {NOTEBOOK: 1})
    assert not job.report(2, {}, {1: 1})


@given(st.integers(0, 2**32))
def test_a_job_is_never_called_quiet_while_something_is_alive(seed):
    """Ranks that work, send and report in any order; reports and messages that overtake."""
    rng = random.Random(seed)
    size = rng.randint(1, 4)
    job = Job(0, 0, "job", tuple((rng.randrange(size), continuation()) for _ in range(2)))
    job.count_starts()
    alive = [0] * size
    sent: list[dict[int, int]] = [{} for _ in range(size)]
    received: list[dict[int, int]] = [{} for _ in range(size)]
    flying = [(NOTEBOOK, rank) for rank, _ in job.starts]
    reports: list[list[tuple[dict[int, int], dict[int, int]]]] = [[] for _ in range(size)]
    budget = rng.randint(0, 25)
    for _ in range(3000):
        choice = rng.randrange(4)
        rank = rng.randrange(size)
        if choice == 0 and flying:
            source, rank = flying.pop(rng.randrange(len(flying)))
            received[rank][source] = received[rank].get(source, 0) + 1
            alive[rank] += 1
        elif choice == 1 and alive[rank]:
            for _ in range(rng.randint(0, 2) if budget else 0):
                budget = max(budget - 1, 0)
                target = rng.randrange(size)
                if target == rank:
                    alive[rank] += 1
                else:
                    sent[rank][target] = sent[rank].get(target, 0) + 1
                    flying.append((rank, target))
            alive[rank] -= 1
        elif choice == 2 and not alive[rank] and received[rank]:
            reports[rank].append((dict(sent[rank]), dict(received[rank])))
        elif choice == 3 and reports[rank]:
            quiet = job.report(rank, *reports[rank].pop(0))
            assert not quiet or not (any(alive) or flying)
            if quiet:
                break
    assert job.quiet


def test_a_rollback_keeps_what_was_given_before_the_cut_only():
    job = new_job()
    job.results = {0: Result(2, b"", "before"), 1: Result(3, b"", "behind")}
    job.undo(3, 1)
    assert (job.state, sorted(job.results)) == ("running", [0])
    job.undo(3, 0)  # submitted behind the cut: it is held until the replay comes to it
    assert (job.state, job.results) == ("held", {})


def test_a_rollback_keeps_a_failure_from_before_the_cut_only():
    for cut, state in ((2, "failed"), (3, "running")):
        job = new_job()
        job.state, job.error = "failed", (cut, "boom")
        job.undo(3, 1)
        assert job.state == state


def test_a_rollback_remembers_what_was_delivered():
    job = new_job()
    job.report(0, {}, {NOTEBOOK: 1})
    job.state, job.delivered = "done", True
    job.results = {0: Result(3, b"x", "value")}
    job.undo(3, 1)
    assert job.expected == ("done", {0: Result(3, b"x", "value")})
    job.undo(3, 1)  # and again, before the replay has come to it
    assert job.expected == ("done", {0: Result(3, b"x", "value")})


def test_the_log_counts_on_when_it_is_pruned():
    log = SubmissionLog()
    for number in range(4):
        log.append(Entry("submit", job=number))
    log.cursor = 3
    log.prune(2)
    assert (log.first, log.cursor, log.end) == (2, 3, 4)
    assert log.current() == Entry("submit", job=3)
    assert [entry.job for entry in log.since(3)] == [3]
    log.cursor = 4
    assert log.current() is None
