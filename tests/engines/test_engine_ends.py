"""However a session ends, no process and no file of it is left."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import engine_work as work
import psutil
import pytest
from engine_processes import gone

import feliss_nb as feliss
from feliss_nb.runtime import OwnCluster

PATIENCE = 60.0


def trace() -> tuple[set[int], set[str], set[str]]:
    """The processes that descend from this one, and the files where ours would be."""
    children = {process.pid for process in psutil.Process().children(recursive=True)}
    temporary = {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("feliss")}
    shared = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    mine = f"-{os.getpid()}"  # there is one /dev/shm for all programs
    return children, temporary, {n for n in shared if "feliss" in n and n.endswith(mine)}


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """What was there before is there afterwards, and nothing else. In a folder of its own."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # short: sockets' names have a limit
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    before = trace()
    descriptors = len(os.listdir("/proc/self/fd"))
    yield folder
    assert trace() == before
    assert list(folder.iterdir()) == []
    folder.rmdir()
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 6


def family(session: feliss.Session) -> list[psutil.Process]:
    controller = psutil.Process(session._cluster._cluster.controller.pid)
    engines = [psutil.Process(e.pid) for e in session.status().engines if e.role != "dead"]
    found = [controller, *engines]
    return found + [child for process in found for child in process.children(recursive=True)]


def test_stop_leaves_nothing(nothing_left: Path, flags: Any) -> None:
    session = feliss.start(workers=2, spares=1, checkpoint_every=0.1)
    processes = family(session)
    assert len(processes) >= 7  # the controller, engines and their nannies
    session.variable(lambda rank, size: bytes(1_000_000), name="kept")
    session.checkpoint()
    session.put(work.spin_deaf, flags.path("deaf"), flags.path("never"), rank=0)
    flags.wait("deaf")
    session.stop()
    assert gone(processes)


def test_stop_in_the_middle_of_a_replacement_leaves_nothing(nothing_left: Path) -> None:
    session = feliss.start(workers=2, checkpoint_every=None)
    session.kill(0)  # an engine is being started in the background
    session.stop()


def test_what_a_controller_that_is_killed_has_started_ends_with_it(eventually: Any) -> None:
    with feliss.start(workers=1, checkpoint_every=None) as session:
        controller = psutil.Process(session._cluster._cluster.controller.pid)
        children = controller.children(recursive=True)
        assert children
        controller.kill()
        eventually(lambda: gone(children), PATIENCE, "the schedulers")


def test_stop_with_engines_that_were_stopped(nothing_left: Path) -> None:
    with feliss.start(workers=2, checkpoint_every=None) as session:
        for engine in session.status().engines:
            os.kill(engine.pid, signal.SIGSTOP)
        processes = family(session)
    assert gone(processes)


def test_who_watched_a_lost_engine_is_ended_too(nothing_left: Path) -> None:
    """It ends by itself when it has noticed; this one cannot, and is nobody's child any more."""
    with feliss.start(workers=2, replace=False, checkpoint_every=None) as session:
        [watcher] = psutil.Process(session.status().engines[0].pid).children()
        watcher.suspend()
        session.kill(0, wait=True)
        assert not gone([watcher])
    assert gone([watcher])


def test_ctrl_c_in_the_middle_of_a_stop_leaves_nothing(
    nothing_left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C gives the prompt back; the stop goes on, and another one waits for its end."""
    session = feliss.start(workers=1, checkpoint_every=None)
    processes = family(session)
    stop = session._cluster.stop

    def interrupted() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        stop()

    monkeypatch.setattr(session._cluster, "stop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.stop()
    session.stop()
    assert gone(processes)


def test_ctrl_c_before_a_stop_has_begun_leaves_nothing(
    nothing_left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = feliss.start(workers=1, checkpoint_every=None)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", mock.Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            session.stop()
    assert session.state == "stopped"
    session.stop()


FORK = """
import os, sys
import feliss_nb as feliss

def main():
    with feliss.start(workers=2, checkpoint_every=None) as session:
        ones = session.apply(int)
        child = os.fork()
        if child == 0:
            if sys.argv[1] == "stop":
                session.stop()
            sys.exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(ones.collect(), session.apply(int).collect(), session.epoch)

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("how", ["exit", "stop"])
def test_the_end_of_a_fork_of_the_process_ends_nothing(script: Any, how: str) -> None:
    assert script(FORK, how).stdout.split("\n")[:2] == ["7", "[0, 0] [0, 0] 0"]


def test_an_exception_in_the_block_leaves_nothing(nothing_left: Path) -> None:
    session = feliss.start(workers=1, checkpoint_every=None)
    processes = family(session)
    with pytest.raises(ZeroDivisionError), session:
        _ = 1 / 0
    assert gone(processes)
    assert session.state == "stopped"


def test_a_start_that_fails_leaves_nothing(nothing_left: Path) -> None:
    with pytest.raises(feliss.FelissError, match=r"came up in 0.01 s|did not come up"):
        feliss.start(workers=2, timeout=0.01)


@pytest.mark.parametrize("where", ["ipyparallel.Cluster", "feliss_nb.runtime.session.Driver"])
def test_ctrl_c_early_in_a_start_leaves_nothing(
    nothing_left: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(where, mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        feliss.start(workers=1)


def test_an_engine_that_dies_in_a_start_is_told_at_once(
    nothing_left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = OwnCluster._connect

    def kill_one(cluster: OwnCluster) -> Any:
        engines = next(iter(cluster._cluster.engines.values()))
        os.kill(next(iter(engines.launchers.values())).pid, signal.SIGKILL)
        return connect(cluster)

    monkeypatch.setattr(OwnCluster, "_connect", kill_one)
    with pytest.raises(feliss.FelissError, match="ended while it was starting"):
        feliss.start(workers=2, timeout=PATIENCE)


PROGRAM = """
import os, signal, sys, time, json
import psutil
import feliss_nb as feliss

def work():
    time.sleep(1000)

def main(how):
    session = feliss.start(workers=2, spares=1, checkpoint_every=0.2)
    with session:
        me = psutil.Process()
        pids = [p.pid for p in me.children(recursive=True)]
        for engine in session.status().engines:
            process = psutil.Process(engine.pid)
            pids += [engine.pid, *(p.pid for p in process.children(recursive=True))]
        controller = psutil.Process(session._cluster._cluster.controller.pid)
        pids += [controller.pid, *(p.pid for p in controller.children(recursive=True))]
        session.put(work, rank=0)
        if how == "stopped":
            for engine in session.status().engines:
                os.kill(engine.pid, signal.SIGSTOP)
        if how == "without":
            controller.kill()
        print(json.dumps([str(session._cluster.directory), sorted(set(pids))]), flush=True)
        if how == "exit":
            sys.exit(3)
        session.wait()

def unstopped(how):
    session = feliss.start(workers=1, checkpoint_every=None)
    controller = psutil.Process(session._cluster._cluster.controller.pid)
    pids = [controller.pid, *(e.pid for e in session.status().engines)]
    print(json.dumps([str(session._cluster.directory), pids]), flush=True)
    # neither stopped nor in a with block: the end of the interpreter stops it

if __name__ == "__main__":
    (unstopped if sys.argv[1] == "forgotten" else main)(sys.argv[1])
"""


@pytest.mark.parametrize(
    "how", ["interrupt", "kill", "exit", "forgotten", "terminate", "stopped", "without"]
)
def test_the_end_of_the_process_ends_the_session(launch: Any, how: str, eventually: Any) -> None:
    """Ctrl-C in the block, SIGKILL, SIGTERM, sys.exit, or just the end of the program.

    A SIGKILL also where engines are stopped, or without a controller that lives.
    """
    import json

    process = launch(PROGRAM, how)
    line = process.stdout.readline()
    assert line, process.stderr.read()
    directory, pids = json.loads(line)
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    assert how in ("exit", "forgotten") or Path(directory).is_dir()
    sent = {"interrupt": signal.SIGINT, "kill": signal.SIGKILL, "terminate": signal.SIGTERM}
    sent |= {"stopped": signal.SIGKILL, "without": signal.SIGKILL}
    if how in sent:
        process.send_signal(sent[how])
    process.wait(PATIENCE)
    expected = {"interrupt": (1, -signal.SIGINT), "exit": (3,), "forgotten": (0,)}
    assert how not in expected or process.returncode in expected[how]
    if how in ("kill", "terminate", "stopped", "without"):  # it disappears by itself
        eventually(lambda: gone(processes), PATIENCE, "engines, nannies and controller")
        eventually(lambda: not os.path.exists(directory), PATIENCE, "the directory")
    else:
        assert gone(processes)
        assert not os.path.exists(directory)
