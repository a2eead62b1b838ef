"""Another master goes on from a checkpoint: what it takes over, and what it drops."""

from __future__ import annotations

import pickle

import pytest
from core_helpers import commit, cut_all, end, only, restore_all, running_master, submit

from feliss_nb.core import commands as cmd
from feliss_nb.core import events as ev
from feliss_nb.core import messages as m
from feliss_nb.core.image import MasterImage
from feliss_nb.core.master import Master
from feliss_nb.core.placement import spread
from feliss_nb.errors import IllegalTransition


def again(image: MasterImage) -> MasterImage:
    return pickle.loads(pickle.dumps(image))


def go_on(image: MasterImage, engines: int = 2, held: frozenset[int] = frozenset(), cut: int = 0):
    """A master that stands; the commands since."""
    master = Master()
    names = tuple(f"n{i}" for i in range(engines))
    routes = spread(image.size, names)
    commands = master.handle(ev.StartFrom(names, again(image), routes, held, cut))
    commands += restore_all(master)
    assert master.state == "running"
    master.check_invariants()
    return master, commands


def test_it_is_a_rollback_under_the_next_epoch():
    master = running_master(size=3, spares=0)
    commit(master)
    new, commands = go_on(master.image(), engines=2)
    rollback = only(commands, m.Rollback)[0]
    assert (rollback.epoch, rollback.checkpoint) == (1, 1)
    assert rollback.routes == rollback.sources == {0: "n0", 1: "n0", 2: "n1"}
    assert (new.size, new.epoch, new.committed.id) == (3, 1, 1)
    assert only(commands, m.Replicate)  # each shard came to one engine, and gets its copy


def test_more_engines_than_ranks_are_spares():
    master = running_master(size=2, spares=0)
    commit(master)
    new, _ = go_on(master.image(), engines=3)
    assert new.routes == {0: "n0", 1: "n1"}
    commands = new.handle(ev.EngineLost("n0", "killed"))
    assert not only(commands, m.Rollback) or new.routes[0] == "n2"


def test_checkpoints_count_on_from_the_largest_number():
    master = running_master()
    commit(master)
    new, _ = go_on(master.image(), cut=7)
    commit(new)
    assert new.committed.id == 8


def test_what_ran_at_the_cut_goes_on_and_what_came_behind_it_is_submitted_again():
    master = running_master()
    runs = submit(master, 0)
    master.handle(ev.TakeCheckpoint("checkpoint"))
    cut_all(master)
    late = submit(master, 1)
    commit(master)
    new, commands = go_on(master.image())
    assert {c.job for c in [i.continuation for i in only(commands, m.Inject)]} == {late}
    assert [new.jobs[job].state for job in (runs, late)] == ["running", "running"]
    end(new, runs, 0)
    end(new, late, 1)
    assert all(job.ended for job in new.jobs.values())
    assert submit(new) == late + 1


def test_a_job_that_had_ended_is_not_run_again():
    master = running_master()
    job = submit(master)
    end(master, job)
    commit(master)
    new, commands = go_on(master.image())
    assert not only(commands, m.Inject)
    assert new.jobs[job].state == "done"  # nobody has been told yet


def test_an_outcome_that_was_delivered_after_the_cut_is_not_compared():
    master = running_master()
    job = submit(master)
    commit(master)
    end(master, job)
    master.handle(ev.Wait("wait", (job,)))
    image = master.image()
    new, _ = go_on(image)
    failed = m.Failed(new.epoch, new.cut, 0, job, "other than before")
    new.hear(new.routes[0], failed)
    assert new.error is None
    assert new.jobs[job].state == "failed"


def test_the_order_that_the_notebook_waited_for_is_kept():
    master = running_master()
    first = submit(master)
    commit(master)
    end(master, first)
    master.handle(ev.Wait("wait", (first,)))
    second = submit(master)
    new, commands = go_on(master.image())
    assert not only(commands, m.Inject)  # it was submitted when the first had ended
    assert [i.continuation.job for i in only(end(new, first), m.Inject)] == [second]


def test_waits_of_the_old_notebook_are_dropped():
    master = running_master()
    job = submit(master)
    commit(master)
    master.handle(ev.Wait("wait", (job,)))
    new, _ = go_on(master.image())
    assert not only(end(new, job), cmd.Answer)


def test_a_fetch_that_ran_is_called_off_and_a_later_one_never_was():
    master = running_master()
    runs = submit(master, internal=True)
    commit(master)
    late = submit(master, internal=True)
    master.handle(ev.CancelJob(late))
    new, commands = go_on(master.image())
    assert not only(commands, m.Inject)
    assert {c.job for c in only(commands, m.Cancel)} == {runs}
    assert late not in new.jobs
    end(new, runs)
    commit(new)
    assert not new.jobs  # nobody is there to ask for it


def test_a_job_called_off_after_the_cut_is_so_again():
    master = running_master()
    job = submit(master)
    commit(master)
    master.handle(ev.CancelJob(job))
    new, commands = go_on(master.image())
    assert {c.job for c in only(commands, m.Cancel)} == {job}
    assert new.jobs[job].state == "cancelled"


def test_variables_without_a_name_go_and_named_ones_stay():
    master = running_master()
    job = submit(master, outputs=(1, 2, 3))
    submit(master, handles=frozenset({2}))  # it may lie in a partition
    end(master, job)
    commit(master, variables=(1, 2, 3))
    new, commands = go_on(master.image(), held=frozenset({1}))
    free = [v for message in only(commands, m.Free) for v in message.variables]
    assert set(free) == {3}
    assert new.held == {1}


def test_a_variable_that_a_job_still_fills_goes_when_that_has_ended():
    master = running_master()
    job = submit(master, outputs=(5,))
    commit(master)
    new, commands = go_on(master.image())
    assert not only(commands, m.Free)
    assert [set(f.variables) for f in only(end(new, job), m.Free)[:1]] == [{5}]


def test_an_image_shares_nothing_with_the_master():
    master = running_master()
    job = submit(master, outputs=(1,))
    commit(master)
    image = master.image()
    before = pickle.dumps(image)
    end(master, job)
    master.handle(ev.CancelJob(submit(master)))
    master.handle(ev.Release(1))
    commit(master)
    assert pickle.dumps(image) == before


def test_a_loss_before_the_copies_stand_is_final_here():
    """The store still has it: that is the runtime's to know."""
    master = running_master(size=2, spares=0)
    commit(master)
    new, _ = go_on(master.image())
    new.handle(ev.EngineLost("n0", "killed"))
    assert new.state == "failed"


def test_an_engine_that_was_lost_before_it_stood():
    master = running_master(size=2, spares=0)
    commit(master)
    new = Master()
    new.handle(ev.EngineLost("n1", "killed"))
    new.handle(ev.StartFrom(("n0", "n1"), again(master.image()), {0: "n0", 1: "n1"}))
    assert new.state == "failed"


def test_only_a_new_master_goes_on_from_an_image():
    master = running_master()
    commit(master)
    with pytest.raises(IllegalTransition):
        master.handle(ev.StartFrom(("n0",), again(master.image()), {0: "n0", 1: "n0"}))
    assert (master.state, master.epoch) == ("running", 0)
