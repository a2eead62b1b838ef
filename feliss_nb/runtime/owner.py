"""Processes that end with their owner.

A controller loads this file by itself, so it imports nothing of the package.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

_OUTLIVES = "outlives"
_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>
LOOK = 5.0  # seconds between looks whether an owner still matters; its end itself wakes at once


class Process:
    """A process by its pid, safe against the pid's reuse.

    Its descriptor becomes readable when the process ends, whoever its parent is: no beat and no
    interpreter lock is involved.

    Parameters
    ----------
    pid : int
        The process.
    started : float, optional
        Its start time as psutil gives it; another one means that the pid was used again.

    Raises
    ------
    ProcessLookupError
        If there is no such process.
    """

    def __init__(self, pid: int, started: float | None = None) -> None:
        self.pid = pid
        self.fd = os.pidfd_open(pid)
        if started is not None and not _same_start(pid, started):
            self.close()
            raise ProcessLookupError(f"process {pid} has ended")

    def kill(self) -> None:
        """Send SIGKILL; a process that has ended is no error."""
        self.send(signal.SIGKILL)

    def send(self, number: int) -> None:
        """Send a signal; a process that has ended is no error."""
        if self.fd >= 0:
            try:
                signal.pidfd_send_signal(self.fd, number)
            except ProcessLookupError:
                return

    def ended(self, timeout: float = 0.0) -> bool:
        """Wait up to `timeout` seconds for its end; tell whether it has ended."""
        if self.fd < 0:
            return True
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def close(self) -> None:
        """Close the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def start_time(pid: int) -> float:
    """Return when a process started, to tell it from a later one with its pid."""
    return float(psutil.Process(pid).create_time())


def _same_start(pid: int, started: float) -> bool:
    try:
        return abs(start_time(pid) - started) < 1.0
    except psutil.Error:
        return False


def follow(
    pid: int,
    started: float,
    then: Callable[[], None],
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Call `then`, on a thread of its own, when the process `pid` ends, unless it `is_over`."""
    try:
        owner: Process | None = Process(pid, started)
    except ProcessLookupError:
        owner = None

    def wait() -> None:
        while owner is not None and not owner.ended(LOOK):
            if is_over():
                owner.close()
                return
        then()

    threading.Thread(target=wait, name="feliss-owner", daemon=True).start()


def outlives(directory: str | Path) -> bool:
    """Whether a session goes on when its process ends."""
    return os.path.exists(os.path.join(directory, _OUTLIVES))


def let_outlive(directory: Path) -> None:
    """Let a session go on when its process ends."""
    (directory / _OUTLIVES).touch()


def end_engine_with(pid: int, started: float, directories: list[str]) -> None:
    """Let this engine's process end when its session's process does, and clear up.

    A session that has a name and is up goes on.
    """

    def clear() -> None:
        if outlives(directories[0]):
            return
        for directory in directories:  # the controller may be dead
            shutil.rmtree(directory, ignore_errors=True)
        os._exit(0)

    follow(pid, started, clear)


def end_controller_with(pid: int, started: float, directories: list[str]) -> None:
    """Let this controller's process end when its session's process does, and clear up.

    A session that has a name and is up goes on.
    """

    def clear() -> None:
        if outlives(directories[0]):
            return
        time.sleep(1.0)  # the engines end by themselves first
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)
        for engine in processes_in(directories[0]):  # one that is stopped does not
            engine.kill()
        for child in psutil.Process().children(recursive=True):
            child.kill()
        os._exit(0)

    _end_forks_with_this_process()
    follow(pid, started, clear)


def processes_in(directory: str) -> list[psutil.Process]:
    """Return the other processes that were started with a profile in a session's directory."""
    found = []
    for process in psutil.process_iter():
        try:
            profile = process.environ().get("IPP_PROFILE_DIR", "")
        except psutil.Error:  # it ended, or is another user's
            continue
        if profile.startswith(directory + os.sep) and process.pid != os.getpid():
            found.append(process)
    return found


def _end_forks_with_this_process() -> None:
    """Let the kernel kill what this process's main thread forks from now on when it ends itself.

    The controller's schedulers are such: they would outlive a controller that is killed.
    """
    prctl = ctypes.CDLL(None).prctl

    def follow_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    os.register_at_fork(after_in_child=follow_parent)
