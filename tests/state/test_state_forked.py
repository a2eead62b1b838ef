"""The forked child: what it gives, and every way in which it may not."""

from __future__ import annotations

import mmap
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
from capture_helpers import PATIENCE
from cloudpickle import cloudpickle

from feliss_nb.errors import UnpicklableError
from feliss_nb.state.captures import Taken, draft, method
from feliss_nb.state.forked import Child, ChildLost, fork


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = descriptors(), children()  # other tests may have left some
    yield
    assert (descriptors(), children()) == before


def children() -> set[int]:
    """Of this process, those that nobody has waited for included."""
    return {child.pid for child in psutil.Process().children()}


def descriptors() -> dict[str, str]:
    folder = "/proc/self/fd"
    found = {}
    for name in os.listdir(folder):
        try:
            found[name] = os.readlink(f"{folder}/{name}")
        except FileNotFoundError:  # the one that lists
            continue
    return {name: path for name, path in found.items() if "/proc/" not in path}


def fail(child: Child, seconds: float = PATIENCE) -> str:
    with pytest.raises(ChildLost) as lost:
        child.result(seconds)
    return str(lost.value)


def test_buffers_come_back():
    sent = [b"", b"abc", np.arange(100_000.0), bytearray(5)]
    parts = fork(lambda: sent).result(PATIENCE)
    assert [bytes(part) for part in parts] == [bytes(memoryview(s).cast("B")) for s in sent]


def test_it_sees_what_was_and_the_parent_goes_on():
    array = np.zeros(100_000)
    # The child has no descriptor but its own: it waits for a byte in memory that both see.
    with mmap.mmap(-1, mmap.PAGESIZE) as gate:

        def work() -> list[Any]:
            while not gate[0]:
                pass
            return [array]

        child = fork(work)
        array[:] = 1
        gate[0] = 1
        (seen,) = child.result(PATIENCE)
    assert not np.frombuffer(seen).any()


def test_one_that_is_stuck_is_killed():
    lock = threading.Lock()
    lock.acquire()
    child = fork(lambda: lock.acquire() and [])
    assert "did not end in 0.05 s and was killed" in fail(child, 0.05)


def test_one_that_is_stopped_is_killed():
    child = fork(lambda: os.kill(os.getpid(), signal.SIGSTOP) or [])
    assert "was killed" in fail(child, 0.2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_one_that_a_signal_ends(number):
    def work() -> list[Any]:
        signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
        os.kill(os.getpid(), number)
        return []

    assert number.name in fail(fork(work))


def test_one_that_is_killed_from_here():
    child = fork(lambda: signal.pause() or [])
    child.kill()
    child.kill()
    assert "SIGKILL" in fail(child)
    child.kill()  # it is gone: nobody else is hit


@pytest.mark.parametrize(
    "error", [KeyError("k"), SystemExit(3), KeyboardInterrupt(), MemoryError()]
)
def test_one_that_raises(error):
    def work() -> list[Any]:
        raise error

    assert type(error).__name__ in fail(fork(work))


def test_one_that_leaves():
    assert "status 77" in fail(fork(lambda: os._exit(77)))
    assert "wrote nothing" in fail(fork(lambda: os._exit(0)))


def test_what_cannot_be_saved_is_told_as_it_is():
    def work() -> list[Any]:
        raise UnpicklableError("here.there", "generator", "why")

    with pytest.raises(UnpicklableError, match=r"here\.there is a generator.*why") as caught:
        fork(work).result(PATIENCE)
    assert caught.value.path == "here.there"


def test_a_part_that_was_written_before_an_error_does_not_count():
    class Bad:
        def __buffer__(self, flags: int) -> memoryview:
            raise ValueError

    assert "Error" in fail(fork(lambda: [b"x" * 100_000, Bad()]))


def test_it_has_no_descriptor_but_its_own():
    def work() -> list[Any]:
        return [repr(sorted(descriptors().values())).encode()]

    (found,) = fork(work).result(PATIENCE)
    assert bytes(found).count(b"memfd:feliss-child") == 1
    assert bytes(found).count(b"'") == 2


def test_locks_of_the_pickler_are_free_in_it():
    """A thread that captures classes all the time holds cloudpickle's lock now and then."""
    stop = threading.Event()
    begun = threading.Event()

    def other() -> None:
        while not stop.is_set():
            with cloudpickle._DYNAMIC_CLASS_TRACKER_LOCK:
                begun.set()

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait(PATIENCE)

    class Local:
        x = 1

    how = method("forked")
    try:
        for _ in range(20):
            child = fork(lambda: draft([Local(), Local], how).finish().parts())
            assert Taken.of_parts(child.result(PATIENCE)).nbytes
    finally:
        stop.set()
        thread.join(PATIENCE)


def test_it_ends_with_the_thread_that_forked_it():
    made: list[Child] = []
    ready = mmap.mmap(-1, 1)  # the child's too

    def pause() -> list[Any]:
        ready[0] = 1
        return signal.pause() or []

    def forks() -> None:
        made.append(fork(pause))
        # A thread that ends before the child is set up leaves it to its deadline.
        while not ready[0]:
            os.sched_yield()

    thread = threading.Thread(target=forks)
    thread.start()
    thread.join(PATIENCE)
    assert "SIGKILL" in fail(made[0])


def test_a_fork_that_fails_leaves_nothing(monkeypatch):
    def no_fork() -> int:
        raise OSError(11, "no room for another process")

    monkeypatch.setattr(os, "fork", no_fork)
    with pytest.raises(OSError, match="no room"):
        fork(list)
    monkeypatch.undo()
    monkeypatch.setattr(os, "pidfd_open", lambda pid: no_fork())
    with pytest.raises(OSError, match="no room"):
        fork(list)
