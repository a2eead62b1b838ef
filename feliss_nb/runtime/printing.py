"""What the session's process prints: lines of its ranks, and its own troubles.

On the master's thread, which must outlive a stream that fails. It may be closed, have no reader,
or be an object of the user's that does as it likes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import TextIO

from feliss_nb.runtime import wire
from feliss_nb.runtime.job import Job


def show_lines(printed: wire.Printed, jobs: Mapping[int, Job]) -> None:
    """Print what ranks printed, or keep it with the job that wants it."""
    for rank, number, stream, line in printed.lines:
        job = jobs.get(number)
        if job is not None and job.lines is not None:
            job.lines.append((stream, line))
            continue
        _say(f"[rank {rank}] {line}", sys.stderr if stream == "stderr" else sys.stdout)


def show_trouble(text: str) -> None:
    """Print what the user should know, though no call of theirs failed."""
    _say(f"feliss_nb: {text}", sys.stderr)


def _say(text: str, out: TextIO | None) -> None:
    with contextlib.suppress(Exception):
        print(text, file=out, flush=True)
