"""The master by itself: log, waits, replay, losses, copies."""

from __future__ import annotations

import pytest
from core_helpers import (
    begin_all,
    commit,
    cut_all,
    end,
    only,
    restore_all,
    running_master,
    submit,
)

from feliss_nb.core import commands as cmd
from feliss_nb.core import events as ev
from feliss_nb.core import messages as m
from feliss_nb.core.master import Master
from feliss_nb.errors import LossError, ReplayDiverged, SessionClosed


def lose(master, rank=1):
    """Lose a rank's engine, and let everything stand again."""
    commands = master.handle(ev.EngineLost(master.routes[rank], "killed"))
    return commands + (restore_all(master) if master.state == "recovering" else [])


def give(master, job, digest=b"1", rank=0):
    output = m.Output(master.epoch, master.cut, rank, job, digest, digest)
    return master.hear(master.routes[rank], output)


def answers(commands):
    return {command.token: command for command in only(commands, cmd.Answer)}


# ---------------------------------------------------------------- jobs and waits


def test_a_submission_is_injected_at_once_and_answered_with_its_number():
    master = running_master()
    commands = master.handle(ev.Submit("token", "job", ((1, "work", (3,)),)))
    assert answers(commands)["token"].value == 0
    [inject] = only(commands, m.Inject)
    assert (inject.rank, inject.continuation.needs, inject.continuation.work) == (1, (3,), "work")


def test_waits_and_cancels_do_not_count_in_the_numbers_of_jobs():
    """Random numbers come from them: a run with more waits must draw the same."""
    master = running_master()
    first = submit(master)
    end(master, first)
    for _ in range(3):
        master.handle(ev.Wait("wait", None))
    late = submit(master)
    master.handle(ev.CancelJob(late))
    assert (first, late, submit(master)) == (0, 1, 2)


def test_a_submission_before_the_ranks_stand_is_held():
    master = Master()
    master.handle(ev.Start(("e0",), 1))
    submit(master)
    assert master.jobs[0].state == "held"
    assert only(restore_all(master), m.Inject)
    assert master.jobs[0].state == "running"


def test_a_wait_is_answered_when_its_jobs_are_quiet():
    master = running_master()
    first, second = submit(master), submit(master)
    master.handle(ev.Wait("one", (first,)))
    master.handle(ev.Wait("all", None))
    assert answers(end(master, first)).keys() == {"one"}
    assert answers(end(master, second)).keys() == {"all"}


def test_a_wait_that_nobody_waits_for_any_more_is_not_answered():
    master = running_master()
    job = submit(master)
    master.handle(ev.Wait("impatient", (job,)))
    master.handle(ev.Unwait("impatient"))
    assert answers(end(master, job)) == {}


def test_an_error_ends_its_job_alone():
    master = running_master()
    bad, good = submit(master), submit(master)
    master.handle(ev.Wait("bad", (bad,)))
    commands = master.hear("e0", m.Failed(0, 0, 0, bad, "boom"))
    assert "bad" in answers(commands)
    assert only(commands, m.Cancel)[0].job == bad
    assert (master.jobs[bad].state, master.jobs[good].state) == ("failed", "running")
    assert master.hear("e0", m.Failed(0, 0, 0, bad, "again")) == []


def test_messages_of_another_epoch_or_a_lost_engine_are_dropped():
    master = running_master()
    job = submit(master)
    for message in (
        m.Report(1, 0, {job: ({}, {-1: 1})}),
        m.Output(-1, 0, 0, job, b"", 1),
        m.Failed(7, 0, 0, job, "boom"),
    ):
        assert master.hear("e0", message) == []
    assert master.hear("nobody", m.Failed(0, 0, 0, job, "boom")) == []
    master.handle(ev.EngineLost("e1", "killed"))
    assert master.hear("e0", m.Failed(0, 0, 0, job, "boom")) == []  # while it recovers


# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_is_committed_when_every_snapshot_has_its_copies():
    master = running_master()
    master.handle(ev.TakeCheckpoint("token"))
    cut_all(master)
    for rank in (0, 1):
        saved = m.Saved(0, 1, rank, 1, 0.0, frozenset())
        assert not only(master.hear(f"e{rank}", saved), m.Commit)
    assert not only(master.hear("e1", m.Stored(1, 0)), m.Commit)
    assert master.committed.id == 0
    commands = master.hear("e0", m.Stored(1, 1))
    assert only(commands, m.Commit)
    assert "token" in answers(commands)
    assert master.committed.shards == {0: {"e0", "e1"}, 1: {"e1", "e0"}}


def test_a_checkpoint_asked_for_meanwhile_begins_after():
    master = running_master()
    master.handle(ev.TakeCheckpoint("first"))
    begin_all(master)
    master.handle(ev.TakeCheckpoint("second"))
    assert answers(commit(master)).keys() == {"first"}
    assert (master.state, master.cut) == ("preparing", 1)
    assert answers(commit(master)).keys() == {"second"}


def test_a_failed_capture_is_told_and_the_last_checkpoint_stays():
    master = running_master()
    commit(master)
    master.handle(ev.TakeCheckpoint("token"))
    begin_all(master)
    commands = master.hear("e0", m.CaptureFailed(0, 2, 0, "a lock"))
    assert answers(commands)["token"].error == "a lock"
    assert only(commands, m.Abort)
    assert (master.state, master.committed.id) == ("running", 1)


def test_a_lost_capture_begins_the_checkpoint_anew_for_those_who_asked():
    master = running_master()
    commit(master)
    master.handle(ev.TakeCheckpoint("token"))
    begin_all(master)
    commands = master.hear("e0", m.CaptureLost(0, 2, 0, "it was killed"))
    assert only(commands, m.Abort) == [m.Abort(2)] * 3
    assert only(commands, m.Prepare)
    assert not answers(commands)
    assert master.committed.id == 1
    assert master.hear("e0", m.CaptureLost(0, 2, 1, "so was this")) == []
    assert only(begin_all(master), m.Cut)[0].checkpoint == 3
    assert "token" in answers(commit(master))


def test_the_capture_goes_to_the_engines_with_the_next_checkpoint():
    master = running_master()
    master.handle(ev.TakeCheckpoint("first"))
    assert {cut.capture for cut in only(begin_all(master), m.Cut)} == {"full"}
    master.capture = "forked"
    commit(master)
    master.handle(ev.TakeCheckpoint("second"))
    assert {cut.capture for cut in only(begin_all(master), m.Cut)} == {"forked"}


def test_calling_a_job_off_before_all_have_cut_begins_the_checkpoint_anew():
    """Some snapshots would show it and others not."""
    master = running_master()
    job = submit(master)
    master.handle(ev.TakeCheckpoint("token"))
    begin_all(master)
    commands = master.hear("e0", m.Failed(0, 1, 0, job, "boom"))
    assert only(commands, m.Abort) == [m.Abort(1)] * 3
    assert only(commands, m.Prepare)
    assert only(begin_all(master), m.Cut)[0].checkpoint == 2
    assert "token" in answers(commit(master))


def test_calling_a_job_off_behind_the_cuts_leaves_the_checkpoint_alone():
    master = running_master()
    job = submit(master)
    master.handle(ev.TakeCheckpoint("token"))
    cut_all(master)
    assert not only(master.handle(ev.CancelJob(job)), m.Abort)
    lose_after = commit(master)
    assert "token" in answers(lose_after)
    assert lose(master)
    assert master.jobs[job].state == "cancelled"  # the log tells it again


def test_a_copy_that_came_late_for_an_older_checkpoint_does_not_block_the_next_one():
    master = running_master(size=2, spares=0)
    commit(master)
    master.handle(ev.EngineJoined("e9"))
    lose(master, 1)
    assert master.committed.coming  # under way for checkpoint 1
    commit(master)
    assert master.committed.coming == {}
    assert master.is_protected()


def test_every_rank_goes_as_far_as_the_gang_has_come_before_it_cuts():
    master = running_master()
    master.handle(ev.TakeCheckpoint("token"))
    asked = master.checkpoints.round
    assert master.hear("e0", m.Begun(0, asked, 0, {4: 2, 5: 0})) == []
    commands = master.hear("e1", m.Begun(0, asked, 1, {4: 1}))
    assert only(commands, m.Prepare)[0] == m.Prepare(asked + 1, {4: 2, 5: 0})
    assert master.hear("e1", m.Begun(0, asked, 1, {4: 1})) == []  # of the question before
    assert only(begin_all(master, {4: 2, 5: 0}), m.Cut)
    assert "token" in answers(commit(master))


def test_a_loss_before_the_ranks_agree_leaves_the_checkpoint_wanted():
    master = running_master()
    master.handle(ev.TakeCheckpoint("token"))
    lose(master)
    assert master.state == "preparing"
    assert "token" in answers(commit(master))


# ---------------------------------------------------------------- losses


def test_a_loss_rolls_back_and_the_epoch_rises_when_all_stand():
    master = running_master()
    commit(master)
    commands = master.handle(ev.EngineLost("e1", "killed"))
    [rollback, _] = only(commands, m.Rollback)
    assert (rollback.epoch, rollback.checkpoint) == (1, 1)
    assert rollback.routes == {0: "e0", 1: "e2"}
    assert rollback.sources == {0: "e0", 1: "e0"}
    assert not only(commands, cmd.Replace)  # the processors are needed for the recovery
    assert master.epoch == 0
    commands = restore_all(master)
    assert only(commands, m.Resume)
    assert len(only(commands, cmd.Replace)) == 1
    assert (master.state, master.epoch) == ("running", 1)


def test_a_spare_that_is_lost_is_replaced_at_once():
    master = running_master()
    assert len(only(master.handle(ev.EngineLost("e2", "killed")), cmd.Replace)) == 1


def test_a_loss_in_a_recovery_extends_it():
    master = running_master(spares=2)
    commit(master)
    master.handle(ev.EngineLost("e1", "killed"))
    stale = m.Restored(1, master.attempt, 0)
    [rollback, _] = only(master.handle(ev.EngineLost("e2", "killed")), m.Rollback)
    assert (rollback.epoch, rollback.routes[1]) == (1, "e3")
    master.hear("e0", stale)
    assert master.restored == set()
    restore_all(master)
    assert master.epoch == 1


def test_a_rank_and_every_copy_lost_is_an_error_for_everyone_who_waits():
    master = running_master(size=3, spares=0)
    commit(master)
    job = submit(master)
    master.handle(ev.Wait("wait", (job,)))
    master.handle(ev.EngineLost("e0", "killed"))
    master.handle(ev.TakeCheckpoint("checkpoint"))
    master.handle(ev.WaitProtected("protected"))
    told = answers(master.handle(ev.EngineLost("e1", "killed")))
    assert told.keys() == {"wait", "checkpoint", "protected"}
    assert all(isinstance(answer.error, LossError) for answer in told.values())
    assert master.state == "failed"
    late = answers(master.handle(ev.Wait("late", None)))["late"]
    assert "rank 0" in str(late.error)


def test_an_engine_lost_before_we_heard_of_it_counts_as_lost():
    master = Master()
    master.handle(ev.EngineLost("e1", "killed"))
    commands = master.handle(ev.Start(("e0", "e1", "e2"), 2))
    assert only(commands, m.Rollback)[-1].routes == {0: "e0", 1: "e2"}
    master.handle(ev.EngineLost("e7", "killed"))
    assert master.handle(ev.EngineJoined("e7")) == []
    assert master.engines == ["e0", "e2"]


def test_a_suspect_is_fenced_once_and_stays_until_it_is_dead():
    master = running_master()
    assert only(master.handle(ev.EngineSuspect("e1", "silent")), cmd.Fence) == [cmd.Fence("e1")]
    assert master.handle(ev.EngineSuspect("e1", "silent")) == []
    assert master.state == "running"
    assert only(master.handle(ev.EngineLost("e1", "fenced")), m.Rollback)


def test_a_snapshot_that_cannot_be_read_is_read_from_another_copy():
    master = running_master(size=3, spares=0, copies=2)
    commit(master)
    lose(master, 2)
    commands = master.handle(ev.EngineLost("e1", "killed"))
    assert master.state == "recovering"
    failed = m.RestoreFailed(2, master.attempt, 0, "e0", "torn")
    commands = master.hear("e0", failed)
    assert isinstance(master.error, LossError)  # e0 alone was left
    assert only(commands, cmd.Log)[-1].kind == "failed"


def test_protection_is_answered_when_the_copies_are_made_anew():
    master = running_master(size=2, spares=1)
    commit(master)
    lose(master, 1)
    told = master.handle(ev.WaitProtected("token"))
    assert answers(told) == {}
    assert "token" in answers(master.hear("e2", m.Stored(1, 0)))


def bare_master():
    """Of rank 0's snapshot the copy was lost, and then its host did not have it either."""
    master = running_master(size=2, spares=1)
    commit(master)  # rank 0 on e0 and e1
    lose(master, 1)
    assert master.committed.coming == {(0, "e2"): "e0"}
    assert answers(master.handle(ev.WaitProtected("token"))) == {}
    return master, master.hear("e0", m.Absent(1, 0, "e0"))


def test_where_no_copy_is_left_another_checkpoint_is_taken_and_protects():
    master, told = bare_master()
    assert only(told, m.Prepare)
    assert "token" in answers(commit(master))
    assert master.is_protected()
    assert master.state == "running"


def test_who_could_not_keep_a_copy_is_not_asked_again_but_for_another_checkpoint():
    master = running_master(size=1, spares=2, copies=1)
    commit(master)  # on e0 and e1
    lose(master, 0)  # e1 has it and stands it up; e2 is to get a copy
    assert master.committed.coming == {(0, "e2"): "e1"}
    told = master.hear("e2", m.Absent(1, 0, "e2"))
    assert [log.kind for log in only(told, cmd.Log)] == ["copy-lost"]
    assert master.committed.coming == {}  # there is nobody else
    assert not only(told, m.Prepare)  # nobody waits
    assert only(master.handle(ev.WaitProtected("token")), m.Prepare)
    assert "token" in answers(commit(master))
    assert master.is_protected()


def test_another_engine_gets_the_copy_that_one_could_not_keep():
    master = running_master(size=1, spares=3, copies=1)
    commit(master)
    lose(master, 0)
    [(_, first)] = list(master.committed.coming)
    [second] = {"e2", "e3"} - {first}
    master.hear(first, m.Absent(1, 0, first))
    assert list(master.committed.coming) == [(0, second)]
    assert not master.checkpoints.is_stuck()


def test_where_that_checkpoint_fails_who_waits_for_protection_hears_of_it():
    master, _ = bare_master()
    begin_all(master)
    told = master.hear("e0", m.CaptureFailed(master.epoch, 2, 0, ValueError("it cannot be saved")))
    assert isinstance(answers(told)["token"].error, ValueError)
    assert master.state == "running"  # it is not tried again and again
    assert only(master.handle(ev.WaitProtected("later")), m.Prepare)


def test_copies_are_ordered_again_when_the_engine_that_was_to_send_them_lost_its_own():
    master = running_master(size=1, spares=3, copies=2)
    commit(master)  # on e0, e1 and e2
    lose(master, 0)
    host = master.routes[0]
    assert master.committed.coming == {(0, "e3"): host}
    assert master.hear(host, m.Absent(0, 0, host)) == []  # of another checkpoint
    told = master.hear(host, m.Absent(1, 0, host))
    assert [log.kind for log in only(told, cmd.Log)] == ["copy-lost"]
    [other] = master.committed.shards[0]
    assert {(c.engine, c.message.target) for c in told if isinstance(c, cmd.ToEngine)} == {
        (other, "e3"),
        (other, host),
    }


def test_copies_are_ordered_again_when_the_engine_that_sent_them_is_lost():
    master = running_master(size=1, spares=2, copies=1)
    commit(master)  # on e0 and e1
    lose(master, 0)  # e1 has it and stands it up; e2 gets a copy
    [order] = list(master.committed.coming.items())
    assert order == ((0, "e2"), "e1")
    master.handle(ev.EngineJoined("e3"))
    master.handle(ev.EngineLost("e2", "killed"))
    assert master.committed.coming == {(0, "e3"): "e1"}


# ---------------------------------------------------------------- replay


def delivered(master, digest=b"1"):
    """A job whose result the notebook has."""
    job = submit(master)
    give(master, job, digest)
    end(master, job)
    assert "got" in answers(master.handle(ev.Wait("got", (job,))))
    return job


def test_a_held_submission_waits_for_the_waits_before_it():
    master = running_master()
    first = delivered(master)
    second = submit(master)
    commands = lose(master)
    assert [i.continuation.job for i in only(commands, m.Inject)] == [first]
    assert master.jobs[second].state == "held"
    give(master, first)
    commands = end(master, first)
    assert [i.continuation.job for i in only(commands, m.Inject)] == [second]
    assert answers(commands) == {}  # what was answered is not answered again


def test_a_wait_in_a_replay_is_answered_when_the_replay_has_caught_up():
    master = running_master()
    first = delivered(master)
    lose(master)
    assert answers(master.handle(ev.Wait("again", (first,)))) == {}
    give(master, first)
    assert "again" in answers(end(master, first))


def test_the_same_digest_is_not_compared_and_another_is():
    master = running_master()
    job = delivered(master)
    lose(master)
    give(master, job)
    assert not only(end(master, job), cmd.Compare)
    lose(master, 0)
    give(master, job, b"2")
    [compare] = only(end(master, job), cmd.Compare)
    assert (compare.old, compare.new) == (b"1", b"2")
    master.handle(ev.Compared(job, 0, True))
    assert master.state == "running"


@pytest.mark.parametrize("how", ["another value", "no value", "failed"])
def test_a_replay_that_diverges_is_an_error_once(how):
    master = running_master()
    job, other = delivered(master), delivered(master)
    lose(master)
    if how == "failed":
        master.hear(master.routes[0], m.Failed(master.epoch, master.cut, 0, job, "boom"))
    elif how == "no value":
        end(master, job)
    else:
        give(master, job, b"2")
        end(master, job)
        assert master.state == "running"
        assert master.handle(ev.Compared(job, 0, False))
    assert isinstance(master.error, ReplayDiverged)
    assert master.state == "failed"
    assert master.handle(ev.Compared(other, 0, False)) == []


def test_what_a_committed_cut_holds_is_not_replayed():
    master = running_master()
    job = delivered(master)
    commit(master)
    assert job not in master.jobs
    assert not only(lose(master), m.Inject)


def test_a_job_stays_until_the_notebook_has_its_outcome():
    master = running_master()
    job = submit(master)
    master.hear("e0", m.Failed(0, 0, 0, job, "boom"))
    end(master, job)
    commit(master)
    assert master.jobs[job].error == (0, "boom")
    lose(master)
    assert master.jobs[job].state == "failed"
    master.handle(ev.Wait("token", (job,)))
    commit(master)
    assert job not in master.jobs


def await_first(master):
    """Two jobs run; the notebook has waited for the first, and a rollback has undone both."""
    first, second = submit(master), submit(master)
    end(master, first)
    master.handle(ev.Wait("first", (first,)))
    lose(master)
    return first, second


def test_a_wait_is_not_answered_while_the_log_is_held():
    """The notebook is further than the ranks: what it does next comes behind the held lines."""
    master = running_master()
    first, second = delivered(master), delivered(master)
    lose(master)
    give(master, first)
    end(master, first)
    assert answers(master.handle(ev.Wait("again", (first,)))) == {}
    give(master, second)
    assert answers(end(master, second)).keys() == {"again"}


def test_a_cancel_that_came_too_late_does_too_in_the_replay():
    master = running_master()
    first, second = await_first(master)
    master.handle(ev.CancelJob(second))  # the log is held: it waits for the first job
    end(master, second)
    end(master, first)
    assert master.jobs[second].state == "done"
    lose(master, 0)
    end(master, first)
    assert master.jobs[second].state == "running"


def test_a_cancel_of_a_delivered_job_in_a_replay_is_too_late():
    master = running_master()
    job = delivered(master)
    lose(master)
    master.handle(ev.CancelJob(job))
    give(master, job)
    end(master, job)
    assert master.jobs[job].state == "done"


def test_a_cancelled_job_is_cancelled_in_the_replay_even_if_it_ends_first():
    master = running_master()
    first, second = submit(master), submit(master)
    end(master, first)
    master.handle(ev.Wait("first", (first,)))
    master.handle(ev.CancelJob(second))
    master.handle(ev.Wait("second", (second,)))
    lose(master)
    end(master, second)
    assert master.jobs[second].state == "done"
    end(master, first)
    assert master.jobs[second].state == "cancelled"


# ---------------------------------------------------------------- variables


def frees(commands):
    return {v for free in only(commands, m.Free) for v in free.variables}


def test_a_variable_that_never_escaped_is_freed_when_its_jobs_have_ended():
    master = running_master()
    job = submit(master, outputs=(5,))
    assert frees(master.handle(ev.Release(5))) == set()
    assert frees(end(master, job)) == {5}


def test_a_fetch_is_no_escape_but_is_waited_for():
    master = running_master()
    end(master, submit(master, outputs=(5,)))
    fetch = submit(master, handles=frozenset({5}), internal=True)
    assert frees(master.handle(ev.Release(5))) == set()
    assert frees(end(master, fetch)) == {5}


def test_a_replay_does_not_free_what_it_needs_again():
    master = running_master()
    made = submit(master, outputs=(5,))
    fetch = submit(master, handles=frozenset({5}), internal=True)
    end(master, made)
    end(master, fetch)
    assert frees(master.handle(ev.Release(5))) == {5}
    assert frees(lose(master)) == set()  # both are replayed
    assert frees(end(master, made)) == set()
    assert frees(end(master, fetch)) == {5}


def test_what_was_freed_behind_the_cut_is_freed_again_after_a_rollback():
    master = running_master()
    end(master, submit(master, outputs=(5,)))
    commit(master, variables=(5,))
    assert frees(master.handle(ev.Release(5))) == {5}
    assert frees(lose(master)) == {5}
    commit(master)
    assert frees(lose(master, 0)) == set()


def test_an_escaped_variable_goes_with_the_commit_that_does_not_reach_it():
    master = running_master()
    end(master, submit(master, outputs=(5,)))
    end(master, submit(master, handles=frozenset({5})))
    assert frees(master.handle(ev.Release(5))) == set()
    assert only(commit(master, (5,), reached=(5,)), m.Commit)[0].garbage == frozenset()
    assert only(commit(master, (5,)), m.Commit)[0].garbage == {5}
    [rollback, *_] = only(lose(master), m.Rollback)
    assert rollback.garbage == {5}


@pytest.mark.parametrize("root", ["held", "log", "result"])
def test_what_the_notebook_can_still_reach_is_no_garbage(root):
    master = running_master()
    end(master, submit(master, outputs=(5,)))
    master.handle(ev.TakeCheckpoint("checkpoint"))
    begin_all(master)
    if root == "log":
        end(master, submit(master, handles=frozenset({5})))
    elif root == "result":
        job = submit(master)
        master.hear("e0", m.Output(0, 1, 0, job, b"", None, frozenset({5})))
    if root != "held":
        master.handle(ev.Release(5))
    assert only(commit(master, (5,)), m.Commit)[0].garbage == frozenset()


# ---------------------------------------------------------------- the end


def test_a_stopped_session_refuses_and_says_so():
    master = running_master()
    submit(master)
    master.handle(ev.Wait("waiting", None))
    assert isinstance(answers(master.handle(ev.Stop()))["waiting"].error, SessionClosed)
    for event in (
        ev.Submit("late", "job", ()),
        ev.Wait("late", None),
        ev.TakeCheckpoint("late"),
        ev.WaitProtected("late"),
    ):
        assert isinstance(answers(master.handle(event))["late"].error, SessionClosed)
    assert master.handle(ev.Stop()) == []
    assert master.hear("e0", m.Stored(0, 0)) == []
