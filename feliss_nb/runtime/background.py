"""Threads that work beside the ranks, and shall not slow them down."""

from __future__ import annotations

import contextlib
import os
import threading

_NICE = 10


def stand_back() -> None:
    """Let the calling thread have what the ranks leave of the processors."""
    with contextlib.suppress(OSError):  # it costs more then, no more than that
        thread = threading.get_native_id()
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, max(nice, _NICE))
