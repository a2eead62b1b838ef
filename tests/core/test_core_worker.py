"""The machine of an engine: epochs, put-off words, snapshots."""

from __future__ import annotations

import pytest
from core_helpers import continuation, only

from feliss_nb.core import commands as cmd
from feliss_nb.core import messages as m
from feliss_nb.core.worker import Worker

ROUTES = {0: "e0", 1: "e1"}


def worker_at(checkpoint: int = 0, ranks: tuple[int, ...] = (0,), epoch: int = 0) -> Worker:
    """A worker whose ranks run."""
    worker = Worker("e0")
    routes = {0: "e0", 1: "e0" if 1 in ranks else "e1"}
    worker.handle(m.Rollback(epoch, 1, checkpoint, checkpoint, routes, routes))
    for rank in worker.ranks.values():
        worker.loaded(rank, m.RankImage(), (), frozenset())
    worker.handle(m.Resume(epoch))
    return worker


def rollback(epoch: int = 1, attempt: int = 2, checkpoint: int = 3, source: str = "e2"):
    return m.Rollback(epoch, attempt, checkpoint, 5, ROUTES, {0: source, 1: "e1"})


def test_a_rollback_retires_every_rank_and_waits_for_nobody():
    worker = worker_at()
    old = worker.ranks[0]
    old.put(continuation())
    old.next()
    commands = worker.handle(rollback(checkpoint=0))
    assert commands == [cmd.Retire(0), cmd.Load(0, 0)]
    assert old.state == "retired"
    assert worker.loaded(old, m.RankImage(), (), frozenset()) == []
    assert worker.finished(old) == []
    assert worker.captured(old, 1) == []
    assert worker.capture_failed(old, 0, "error") == []


def test_a_rank_loads_from_its_own_store_or_asks_who_keeps_it():
    worker = worker_at()
    assert worker.handle(rollback())[1:] == [cmd.ToEngine("e2", m.Want(3, 0, "e0"))]
    commands = worker.stored(3, 0)
    assert commands == [cmd.ToMaster(m.Stored(3, 0)), cmd.Load(0, 3)]
    assert worker.stored(3, 0) == [cmd.ToMaster(m.Stored(3, 0))]  # a second copy loads nothing
    assert worker.handle(rollback(attempt=3))[1:] == [cmd.Load(0, 3)]


def test_a_copy_that_cannot_be_loaded_is_asked_for_again_and_then_told_with_its_source():
    worker = worker_at()
    worker.handle(rollback())
    worker.stored(3, 0)
    assert worker.load_failed(0, "torn") == [cmd.ToEngine("e2", m.Want(3, 0, "e0"))]
    assert worker.stored(3, 0)[1:] == [cmd.Load(0, 3)]
    failed = worker.load_failed(0, "torn")
    assert failed == [cmd.ToMaster(m.RestoreFailed(1, 2, 0, "e2", "torn"))]
    assert worker.want(m.Want(3, 0, "e9")) == [cmd.ToEngine("e9", m.Absent(3, 0, "e0"))]


def test_for_a_bad_copy_of_its_own_an_engine_blames_itself():
    """The master may count on another, and has not heard yet that one came here."""
    worker = worker_at()
    worker.handle(rollback(attempt=2))
    worker.stored(3, 0)
    assert worker.handle(rollback(attempt=3))[1:] == [cmd.Load(0, 3)]
    failed = worker.load_failed(0, "torn")
    assert failed == [cmd.ToMaster(m.RestoreFailed(1, 3, 0, "e0", "torn"))]


def test_a_rank_whose_snapshot_does_not_come_is_told_once_and_for_its_source():
    worker = worker_at()
    worker.handle(rollback())
    assert worker.absent(m.Absent(2, 0, "e2")) == []  # asked for in another checkpoint
    assert worker.absent(m.Absent(3, 1, "e2")) == []  # nobody waits for it
    assert worker.absent(m.Absent(3, 0, "e7")) == []  # asked before the last rollback
    (told,) = worker.absent(m.Absent(3, 0, "e2"))
    assert told.message.source == "e2"
    assert told.message.rank == 0
    assert worker.absent(m.Absent(3, 0, "e2")) == []
    worker.handle(rollback(attempt=3, source="e4"))
    assert worker.stored(3, 0)[1:] == [cmd.Load(0, 3)]
    assert worker.absent(m.Absent(3, 0, "e4")) == []  # it has come meanwhile


def test_a_holder_that_has_lost_a_snapshot_says_so_to_who_asks_and_to_the_master():
    worker = worker_at()
    worker.stored(3, 1)
    (send,) = worker.want(m.Want(3, 1, "e9"))
    absent = m.Absent(3, 1, "e0")
    assert worker.lost(send) == [cmd.ToMaster(absent), cmd.ToEngine("e9", absent)]
    assert worker.want(m.Want(3, 1, "e9")) == [cmd.ToEngine("e9", absent)]


def test_messages_of_another_epoch_are_dropped():
    worker = worker_at(epoch=4)
    for epoch in (3, 5):
        assert worker.deliver(epoch, 0, 1, 0, continuation()) == []
    assert worker.deliver(4, 1, 0, 0, continuation()) == []  # not hosted here
    assert worker.ranks[0].next() is None
    assert worker.deliver(4, 0, 1, 0, continuation()) == [cmd.Run(0)]


def test_the_restored_rank_reports_every_job_anew():
    worker = Worker("e0")
    worker.handle(m.Rollback(1, 1, 0, 0, ROUTES, ROUTES))
    image = m.RankImage(sent={4: {1: 2}}, received={4: {1: 1}})
    commands = worker.loaded(worker.ranks[0], image, ((1, continuation(job=6)),), frozenset())
    assert only(commands, cmd.ToMaster) == [cmd.ToMaster(m.Restored(1, 1, 0))]
    assert worker.reports() == []  # not before all stand
    worker.handle(m.Resume(1))
    assert worker.reports() == [cmd.ToMaster(m.Report(1, 0, {4: ({1: 2}, {1: 1})}))]


def test_garbage_of_the_checkpoint_does_not_come_back():
    worker = Worker("e0")
    worker.handle(m.Rollback(1, 1, 0, 0, ROUTES, ROUTES, frozenset({9})))
    commands = worker.loaded(worker.ranks[0], m.RankImage(), (), frozenset({8, 9}))
    assert cmd.Delete(frozenset({9})) in commands
    assert worker.ranks[0].ready == {8}


# ---------------------------------------------------------------- words behind a cut


@pytest.mark.parametrize("word", [m.Forget((7,), (5,)), m.Free(frozenset({5}))])
def test_what_the_master_says_behind_a_cut_does_not_show_in_the_snapshot(word):
    """Else some ranks' snapshots hold a job's counters and others' do not: it would never end."""
    worker = worker_at(ranks=(0, 1))
    busy, idle = worker.ranks[0], worker.ranks[1]
    busy.deliver(1, 0, continuation(job=7))
    busy.next()
    busy.finish()
    busy.set_ready(5)
    busy.put(continuation(job=8))
    busy.next()
    worker.handle(m.Cut(1, {}))
    assert idle.state == "recording"
    assert worker.handle(word) == []
    image = only(worker.finished(busy), cmd.Capture)[0].image
    assert image.received == {7: {1: 1}}
    assert 5 not in image.broken
    assert busy.ready == {5}
    assert worker.captured(idle, 1) == []  # one capture is not taken yet
    late = worker.captured(busy, 1)
    assert only(late, cmd.JobOver) + only(late, cmd.Delete)
    assert (busy.received == {}) == isinstance(word, m.Forget)


def test_what_was_put_off_is_done_when_the_checkpoint_is_aborted_and_dropped_in_a_rollback():
    free = m.Free(frozenset({5}))
    for last, happens in ((m.Abort(1), True), (rollback(checkpoint=0), False)):
        worker = worker_at()
        worker.ranks[0].put(continuation())
        worker.ranks[0].next()
        worker.handle(m.Cut(1, {}))
        worker.handle(free)
        assert (cmd.Delete(frozenset({5})) in worker.handle(last)) == happens
        assert worker.deferred == []


def test_a_job_is_stopped_at_once_even_while_a_cut_waits():
    worker = worker_at()
    worker.ranks[0].put(continuation(job=7))
    worker.ranks[0].next()
    worker.handle(m.Cut(1, {}))
    assert cmd.StopJob(0, 7) in worker.handle(m.Cancel(7, ()))


# ---------------------------------------------------------------- snapshots


def test_a_snapshot_is_sealed_when_captured_and_every_message_is_in():
    worker = worker_at()
    rank = worker.ranks[0]
    commands = worker.handle(m.Cut(1, {0: ("e1",)}))
    assert only(commands, m.CutDone) or cmd.ToMaster(m.CutDone(0, 1, 0, {})) in commands
    assert worker.captured(rank, 1) == []
    assert worker.handle(m.Channels(1, {0: {1: 1}})) == []
    late = continuation()
    assert worker.deliver(0, 0, 1, 0, late)[-1] == cmd.Seal(0, 1, ((1, late),), ("e1",))
    saved = m.Saved(0, 1, 0, 1, 0.0, frozenset())
    assert worker.kept(saved) == [cmd.ToMaster(saved)]
    assert worker.want(m.Want(1, 0, "e2")) == [cmd.SendShard("e2", 1, 0)]


def test_a_capture_that_fails_late_is_told():
    worker = worker_at()
    rank = worker.ranks[0]
    worker.handle(m.Cut(1, {}))
    worker.captured(rank, 1)
    worker.handle(m.Channels(1, {}))
    assert rank.state == "running"
    failed = cmd.ToMaster(m.CaptureFailed(0, 1, 0, "no memory"))
    assert worker.capture_failed(rank, 1, "no memory") == [failed]
    assert worker.capture_failed(rank, 2, "no memory") == []


def test_a_capture_that_is_lost_is_told_while_it_is_wanted():
    worker = worker_at()
    rank = worker.ranks[0]
    commands = worker.handle(m.Cut(1, {}, "forked"))
    assert only(commands, cmd.Capture)[0].capture == "forked"
    lost = cmd.ToMaster(m.CaptureLost(0, 1, 0, "it was killed"))
    assert worker.capture_lost(rank, 1, "it was killed") == [lost]
    assert worker.capture_lost(rank, 2, "it was killed") == []
    worker.handle(m.Abort(1))
    assert worker.capture_lost(rank, 1, "it was killed") == []


def test_a_snapshot_that_cannot_be_kept_is_not_here_and_the_master_hears_of_it():
    worker = worker_at()
    worker.stored(1, 1)
    told = worker.copy_failed(1, 1, "no memory")
    assert only(told, m.CaptureFailed) == [m.CaptureFailed(0, 1, 1, "no memory")]
    assert only(told, m.Absent) == [m.Absent(1, 1, "e0")]
    assert worker.want(m.Want(1, 1, "e2")) == [cmd.ToEngine("e2", m.Absent(1, 1, "e0"))]


def test_only_a_commit_drops_the_older_and_what_comes_too_late_is_not_kept():
    worker = worker_at()
    for checkpoint in (1, 2):
        worker.stored(checkpoint, 1)
    assert cmd.Drop(older=2) in worker.handle(m.Commit(2, frozenset()))
    assert worker.shards == {(2, 1)}
    assert worker.stored(1, 0) == [cmd.Drop(older=2)]
    assert worker.handle(m.Replicate(1, 1, "e2")) == []
    assert worker.handle(m.Replicate(2, 1, "e2")) == [cmd.SendShard("e2", 2, 1)]


def test_an_abort_keeps_the_last_checkpoint():
    worker = worker_at()
    worker.stored(1, 0)
    worker.handle(m.Commit(1, frozenset()))
    worker.handle(m.Cut(2, {}))
    worker.stored(2, 1)
    commands = worker.handle(m.Abort(2))
    assert cmd.Drop(exactly=2) in commands
    assert cmd.Discard(0, 2) in commands
    assert worker.shards == {(1, 0)}
    assert worker.ranks[0].state == "running"
