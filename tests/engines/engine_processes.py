"""Whether processes have ended, asked while they may be ending."""

from __future__ import annotations

from collections.abc import Iterable

import psutil


def is_dead(pid: int) -> bool:
    try:
        return gone([psutil.Process(pid)])
    except psutil.NoSuchProcess:
        return True


def gone(processes: Iterable[psutil.Process]) -> bool:
    """Whether none of them runs. A process may end between two questions to it."""
    return all(_has_ended(process) for process in processes)


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
