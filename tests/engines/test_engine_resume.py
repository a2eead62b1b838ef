"""A named session outlives its process: killed, paused, or gone with its controller."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import feliss_nb as feliss
from feliss_nb import cli, errors
from feliss_nb.runtime import claims
from feliss_nb.runtime.owner import Process, processes_in
from feliss_nb.runtime.sessions import kill_rank

PATIENCE = 60.0

#: A session with a job that waits for a file in the middle, and then counts on.
PROGRAM = """
    import os, sys, time
    import feliss_nb as feliss

    name, folder, *more = sys.argv[1:]

    def wait_for(path):
        while not os.path.exists(path):
            time.sleep(0.01)

    def count(total, step):
        here = feliss.here()
        if step == 5:
            open(f"{folder}/half-{here.rank}", "w").close()
            wait_for(f"{folder}/go")
        here[total] = here[total] + step
        if step < 100:
            here.put(count, total, step + 1)
        else:
            open(f"{folder}/end-{here.rank}", "w").close()

    if __name__ == "__main__":
        options = {"store": more[0]} if more else {}
        session = feliss.start(workers=2, name=name, checkpoint_every=None, **options)
        total = session.variable(lambda rank, size: 0, name="total")
        session.variable(lambda rank, size: "kept", name="text")
        total.wait()
        if more:
            session.checkpoint(durable=True)
        for rank in range(2):
            session.put(count, total, 0, rank=rank)
        print("submitted", flush=True)
        try:
            session.wait()
        except feliss.FelissError as error:
            print(type(error).__name__, flush=True)
        for call in (session.status, session["total"].partitions, session.checkpoint):
            try:
                call()
            except feliss.FelissError as error:
                print(type(error).__name__, flush=True)
        session.stop()
        print("over", flush=True)
"""
RESULT = [sum(range(101))] * 2

Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def ended() -> Iterator[Callable[[str], None]]:
    """``ended(name)`` lets nothing of a session outlive the test, whatever comes of it."""
    names: list[str] = []
    yield names.append
    for name in names:
        directory = claims.directory_of(name)
        for process in claims.alive_processes(directory) if directory.exists() else ():
            process.kill()


@pytest.fixture
def begin(launch: Launch, tmp_path: Path, flags: Any, ended: Any) -> Callable[..., Any]:
    """``begin(name)`` gives a process whose session is in the middle of its job."""

    def start(name: str, *more: str) -> subprocess.Popen[str]:
        ended(name)
        process = launch(PROGRAM, name, str(tmp_path), *more)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "submitted", process.communicate()
        for rank in range(2):
            flags.wait(f"half-{rank}")
        return process

    return start


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def kill_everything(name: str) -> None:
    """Kill the engines, their nannies and the controller of a session."""
    found = claims.alive_processes(claims.directory_of(name))
    watched = [Process(each.pid) for each in found]
    for process in watched:
        process.kill()
    for process in watched:
        assert process.ended(PATIENCE)
        process.close()


def left_of(name: str, places: list[str]) -> list[Any]:
    """What is there of a session that was stopped."""
    found: list[Any] = [place for place in places if os.path.exists(place)]
    if claims.directory_of(name).exists():
        found.append(claims.directory_of(name))
    return found + [p for place in places for p in processes_in(place) if p.is_running()]


def places_of(name: str) -> list[str]:
    return list(claims.read_status(claims.directory_of(name))["directories"])


def test_a_job_goes_on_without_its_notebook_and_nothing_is_set_back(
    begin: Any, flags: Any, capfd: Any
) -> None:
    kill(begin("one"))
    assert "no master" in repr(feliss.sessions())
    flags.set("go")
    for rank in range(2):
        flags.wait(f"end-{rank}")  # with no master anywhere
    places = places_of("one")
    session = feliss.resume("one")
    try:
        assert session.epoch == 0
        session.wait(PATIENCE)
        assert session["total"].partitions() == RESULT
        assert session["text"].partitions() == ["kept"] * 2
        assert [job.state for job in session.jobs if job.label == "count"] == ["done"] * 2
        assert not session.events.of_kind("recovered")
        # What the process before saw is told too.
        kinds = [event.kind for event in session.events]
        assert kinds.index("started") < kinds.index("job-submitted") < kinds.index("resumed")
        # It is a session like others: losses, checkpoints, submissions.
        session.checkpoint(PATIENCE)
        session.kill(1, wait=True)
        more = session.apply(lambda: feliss.here().rank, name="ranks")
        assert more.collect() == [0, 1]
        assert session["total"].partitions() == RESULT
        with pytest.raises(errors.UsageError, match="this process"):
            feliss.resume("one")
        with pytest.raises(errors.UsageError, match="is up"):
            feliss.start(workers=1, name="one")
        # And it outlives this one.
        session._leave()
        with pytest.raises(errors.UsageError, match="outlived its process"):
            feliss.start(workers=1, name="one")
        session = feliss.resume("one")
        assert session["ranks"].collect() == [0, 1]
        assert session.epoch == 1
    finally:
        session.stop()
    assert left_of("one", places) == []
    with pytest.raises(errors.UsageError, match="no session named 'one'"):
        feliss.resume("one")


def test_an_engine_that_is_killed_with_the_notebook_is_recovered(begin: Any, flags: Any) -> None:
    process = begin("two")
    process.send_signal(signal.SIGSTOP)
    assert cli.main(["kill", "two", "0"]) == 0
    with pytest.raises(errors.UsageError, match="has ended already"):
        kill_rank("two", 0)
    with pytest.raises(errors.UsageError, match="ranks are 0 to 1"):
        kill_rank("two", 2)
    kill(process)
    flags.set("go")
    with feliss.resume("two") as session:
        session.wait(PATIENCE)
        assert session["total"].partitions() == RESULT
        assert session.epoch == 1


def test_a_master_that_comes_back_from_a_pause_has_no_say(begin: Any, flags: Any) -> None:
    process = begin("three")
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(errors.UsageError, match="force=True"):
        feliss.resume("three")
    with feliss.resume("three", force=True) as session:
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=PATIENCE)
        assert out.split() == ["SessionTaken"] * 4 + ["over"], err
        assert "Traceback" not in err
        assert re.search(r"program0\.py.*Warning: session 'three' .* took it over", err)
        flags.set("go")
        session.wait(PATIENCE)
        assert session["total"].partitions() == RESULT
        assert session.epoch == 0


def controller_of(name: str) -> psutil.Process:
    found = [
        process
        for process in claims.alive_processes(claims.directory_of(name))
        if "ipyparallel.controller" in " ".join(process.cmdline())
    ]
    # Its schedulers are its children; whoever takes orphans in is its parent, not always process 1.
    [controller] = [p for p in found if p.ppid() not in {other.pid for other in found}]
    return controller


def test_without_a_controller_the_engines_are_reached(begin: Any, flags: Any) -> None:
    kill(begin("four"))
    controller = Process(controller_of("four").pid)
    controller.kill()
    assert controller.ended(PATIENCE)
    controller.close()
    with pytest.warns(errors.StoreWarning, match="controller"):
        session = feliss.resume("four")
    with session:
        flags.set("go")
        session.wait(PATIENCE)
        assert session["total"].partitions() == RESULT


def test_without_engines_the_last_checkpoint_is_taken(
    begin: Any, flags: Any, tmp_path: Path
) -> None:
    kill(begin("five", str(tmp_path / "kept")))
    kill_everything("five")
    assert cli.main(["clean"]) == 0  # what can be resumed stays
    flags.set("go")
    with pytest.warns(errors.StoreWarning, match="last checkpoint on"):
        session = feliss.resume("five")
    with session:
        session.wait(PATIENCE)
        assert session["total"].partitions() == [0, 0]  # the jobs came behind it
        assert session["text"].partitions() == ["kept"] * 2


def test_without_engines_and_a_store_nothing_is_left(begin: Any) -> None:
    kill(begin("six"))
    places = places_of("six")
    kill_everything("six")
    with pytest.raises(errors.LossError, match="had no store"):
        feliss.resume("six")
    assert left_of("six", places) == []


def test_what_is_orphaned_is_cleared_away(begin: Any, capsys: Any) -> None:
    kill(begin("seven"))
    places = places_of("seven")
    assert cli.main(["sessions"]) == 0
    assert "seven" in capsys.readouterr().out
    assert cli.main(["clean"]) == 0
    assert "seven" not in capsys.readouterr().out  # it can be resumed
    assert cli.main(["stop", "seven"]) == 0
    assert left_of("seven", places) == []
    assert cli.main(["stop", "seven"]) == 1


def test_a_program_that_ends_leaves_its_named_session(script: Any) -> None:
    text = """
        import feliss_nb as feliss
        session = feliss.start(workers=1, name="eight", checkpoint_every=None)
        numbers = session.scatter([1, 2, 3], name="numbers")
        dropped = session.map(lambda n: -n, numbers)
        del dropped
        squares = session.map(lambda n: n * n, numbers)
        values = session.apply(lambda: "value")
        squares.wait()
    """
    script(text)
    with feliss.resume("eight") as session:
        assert session["numbers"].collect() == [1, 2, 3]
        assert [variable.collect() for variable in session.unnamed] == [[1, 4, 9], ["value"]]
        session.unnamed.clear()
        session._leave()
    with feliss.resume("eight") as session:
        assert session.unnamed == []
        assert list(session.variables) == ["numbers"]


#: A continuation that kills its engine twice, waits, and would do so again.
POISON = """
    import os, signal, sys, time
    import feliss_nb as feliss

    def die(folder, text):
        for flag in ("first", "second"):
            if not os.path.exists(f"{folder}/{flag}"):
                open(f"{folder}/{flag}", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
        open(f"{folder}/third", "w").close()
        while not os.path.exists(f"{folder}/go"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    session = feliss.start(workers=2, spares=1, name="nine", continuation_timeout=30.0)
    job = session.put(die, sys.argv[1], "a text", rank=0)
    print("submitted", flush=True)
    session.wait()
"""


def test_what_kills_its_engines_is_counted_from_process_to_process(
    launch: Launch, flags: Any
) -> None:
    process = launch(POISON, str(flags.folder))
    flags.wait("third")
    kill(process)
    with feliss.resume("nine") as session:
        assert session.set_aside == []
        flags.set("go")
        with pytest.raises(errors.PoisonError, match=r"die\(.*'a text'\) on rank 0"):
            session.wait(PATIENCE)
        # For the next process too.
        session._leave()
    with feliss.resume("nine") as session:
        [kept] = session.set_aside
        assert (kept.name, kept.rank, kept.losses, kept.args[1]) == ("die", 0, 3, "a text")
        assert session._driver.blame.timeout == 30.0
        assert [job.state for job in session.jobs if job.label == "die"] == ["failed"]
        assert session.apply(abs, -1).collect() == [1, 1]


#: A continuation that kills its engine each time; its notebook is killed before the first one.
LONELY = """
    import os, signal, sys, time
    import feliss_nb as feliss

    def die(folder):
        open(f"{folder}/runs", "w").close()
        while not os.path.exists(f"{folder}/go"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    session = feliss.start(workers=2, spares=1, name="eleven", losses=1)
    session.put(die, sys.argv[1], rank=0)
    session.wait()
"""


def test_what_an_engine_dies_of_with_no_master_is_counted(
    launch: Launch, flags: Any, ended: Any
) -> None:
    ended("eleven")
    process = launch(LONELY, str(flags.folder))
    flags.wait("runs")
    status = claims.read_status(claims.directory_of("eleven"))
    engine = Process(*status["engines"][status["ranks"]["0"]])
    kill(process)
    flags.set("go")
    assert engine.ended(PATIENCE)
    engine.close()
    with feliss.resume("eleven") as session:
        with pytest.raises(errors.PoisonError, match=r"die\(.*on rank 0"):
            session.wait(PATIENCE)
        directory = Path(session._cluster.directory)
        [dead] = [one.engine for one in session.status().engines if one.role == "dead"]
        assert not [*directory.glob(f"*-{dead}")]


#: It kills its own process: the first one in a checkpoint, the second one in a recovery.
KERNEL = """
    import sys
    import feliss_nb as feliss
    from feliss_nb import Fault, FaultPlan

    def count(total, step):
        here = feliss.here()
        here[total] = here[total] + step
        if step < 3000:
            here.put(count, total, step + 1)

    if sys.argv[1] == "first":
        session = feliss.start(workers=2, spares=1, name="ten", checkpoint_every=None)
        total = session.variable(lambda rank, size: 0, name="total")
        session.checkpoint()
        for rank in range(2):
            session.put(count, total, 0, rank=rank)
        injection = session.inject(Fault("kill-kernel", phase="capturing"))
        session.checkpoint()
    else:
        session = feliss.resume("ten")
        faults = Fault("kill", rank=0), Fault("kill-kernel", phase="loading")
        injection = session.inject(FaultPlan(faults))
    injection.wait()
    print("it was not killed", flush=True)
"""


def test_a_plan_kills_the_kernel_and_another_one_goes_on(launch: Launch, ended: Any) -> None:
    ended("ten")
    for which in ("first", "second"):
        process = launch(KERNEL, which)
        assert process.communicate(timeout=PATIENCE)[0] == ""
        assert process.returncode == -signal.SIGKILL
    with feliss.resume("ten") as session:
        session.wait(PATIENCE)
        assert session["total"].partitions() == [sum(range(3001))] * 2
        assert session.epoch == 1
        faults = [event.data["fault"] for event in session.events.of_kind("fault")]
        assert faults == ["kill-kernel", "kill", "kill-kernel"]
        assert [event.data["term"] for event in session.events.of_kind("resumed")] == [2, 3]


def test_the_examples_of_the_manual_run_as_they_stand(script: Any) -> None:
    text = (Path(__file__).parents[2] / "docs" / "resume.md").read_text("utf-8")
    first, second = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    script(first)
    found = script("import feliss_nb as feliss\n" + second)
    assert found.stdout.splitlines()[-1] == str(sum(n * n for n in range(1000)))
    assert not claims.directory_of("mine").exists()
