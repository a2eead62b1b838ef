"""What ranks tell of themselves from time to time."""

from __future__ import annotations

from collections.abc import Mapping

from feliss_nb.runtime import wire
from feliss_nb.runtime.events import EventLog
from feliss_nb.runtime.job import Job


class Progress:
    """Keeps the figures of ranks, and notes what changes. On the master's thread.

    Parameters
    ----------
    events : EventLog
        Where changes go.

    Attributes
    ----------
    pools : dict of int to int
        How many continuations each rank has.
    """

    def __init__(self, events: EventLog) -> None:
        self.pools: dict[int, int] = {}
        self._busy: set[int] = set()  # ranks whose pools were not empty when they last told
        self._events = events

    def take(self, told: wire.Progress, jobs: Mapping[int, Job]) -> None:
        """Take the figures of an engine's ranks."""
        self.pools.update(told.pools)
        for rank, pool in told.pools.items():
            if (rank in self._busy) != (pool > 0):
                self._busy ^= {rank}
                self._events.add("busy" if pool else "idle", rank=rank, epoch=told.epoch)
        for (rank, job), figures in told.progress.items():
            if job in jobs:
                jobs[job].set_progress(rank, *figures)
        for (rank, job), records in told.mapped.items():
            self._events.add("mapped", rank=rank, job=job, records=records, epoch=told.epoch)

    def stand_up(self) -> None:
        """Ranks stand up idle, and tell what they have to do."""
        self._busy.clear()
