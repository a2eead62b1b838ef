"""Which variables the notebook holds, and which nothing can reach any more.

Rules
-----
* A variable whose handle never left for a continuation's arguments is freed as soon as the notebook
  has dropped it and no job that fills or fetches it is left.
* Any other may be carried by a pool or a partition: only a committed cut can tell (`garbage`).
* A rollback brings back what was freed since the cut; it is freed again once its jobs, which are
  replayed, have ended again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from feliss_nb.core.checkpoints import Pending
from feliss_nb.core.jobs import Job


@dataclass(slots=True)
class Variables:
    """The notebook's side of the variables."""

    held: set[int] = field(default_factory=set)  # by a handle or a name
    escaped: set[int] = field(default_factory=set)  # their handles went into jobs
    dropped: set[int] = field(default_factory=set)  # neither held nor escaped, and not yet freed
    freed: set[int] = field(default_factory=set)  # of `dropped`, since the cut that a loss goes to

    def carry(self, job: Job) -> None:
        """A job is submitted."""
        self.held.update(job.outputs)
        if not job.internal:
            self.escaped |= job.handles - set(job.outputs)  # to fill a variable is no escape

    def hold(self, variable: int) -> None:
        """The notebook got a handle with a result: it was in a partition, and may still be."""
        self.held.add(variable)
        self.escaped.add(variable)
        self.dropped.discard(variable)

    def release(self, variable: int) -> None:
        """The notebook holds no handle any more."""
        if variable in self.held:
            self.held.discard(variable)
            if variable not in self.escaped:
                self.dropped.add(variable)

    def collect(self, busy: Iterable[Job]) -> frozenset[int]:
        """Return the dropped variables that no job in `busy` fills or reads: they can go."""
        used = {v for job in busy for v in (*job.outputs, *job.handles)}
        free = self.dropped - used
        self.dropped -= free
        self.freed |= free
        return frozenset(free)

    def garbage(self, pending: Pending, jobs: Iterable[Job]) -> frozenset[int]:
        """Return the variables that no root reaches in the cut of `pending`.

        Roots are what the snapshots reach, what the notebook holds now, what the log since the
        cut carries, and what results not yet fetched carry. Handles inside partitions count as
        roots too: a variable that only garbage reaches goes one commit later.
        """
        reached = set(self.held)
        for saved in pending.saved.values():
            reached |= saved.handles
        for job in jobs:
            if job.position >= pending.position or not job.quiet:
                reached.update(job.handles, job.outputs)
            for result in job.results.values():
                reached |= result.handles
        return frozenset(pending.ready_variables() - reached)

    def commit(self, pending: Pending, garbage: frozenset[int]) -> None:
        """The cut of `pending` is committed, and `garbage` is freed."""
        self.escaped -= garbage
        self.dropped -= garbage
        self.freed -= pending.freed

    def undo(self) -> None:
        """Go back to the committed cut: what was freed since is back."""
        self.dropped |= self.freed
        self.freed.clear()
