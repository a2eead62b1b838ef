"""The master's share of a checkpoint: with the ranks' snapshots, all that another master needs.

It is taken when the checkpoint is committed and shares nothing that changes, so that it can be
written while the session goes on. What the notebook waited for is not in it: the one that goes on
from here is another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from feliss_nb.core.checkpoints import Committed
from feliss_nb.core.jobs import Entry, Job
from feliss_nb.core.variables import Variables

if TYPE_CHECKING:
    from feliss_nb.core.ledger import Ledger


@dataclass(frozen=True, slots=True)
class MasterImage:
    """A master at a committed checkpoint.

    Parameters
    ----------
    size, epoch, cut : int
        The ranks, the epoch, and the number of the last checkpoint begun.
    committed : Committed
        The checkpoint; who keeps its shards is not in it.
    jobs : dict of int to Job
        Those that had not ended at the cut, or whose outcome the notebook has not seen.
    entries : tuple of Entry
        The log since the cut.
    submitted : int
        The next job's number.
    variables : Variables
        What the notebook held.
    """

    size: int
    epoch: int
    cut: int
    committed: Committed
    jobs: dict[int, Job]
    entries: tuple[Entry, ...]
    submitted: int
    variables: Variables


def take_image(ledger: Ledger, committed: Committed, epoch: int, cut: int) -> MasterImage:
    """Return what another master needs to go on from the committed checkpoint.

    Fetches are the old notebook's: one that had ended, or had not begun at the cut, is left out.
    """
    jobs = {
        job.id: replace(
            job,
            delivered=False,
            expected=None,
            results=dict(job.results),
            balance=dict(job.balance),
            reports=dict(job.reports),
        )
        for job in ledger.jobs.values()
        if not job.internal or (job.id not in committed.ended and job.position < committed.position)
    }
    entries = tuple(
        Entry("void")
        if entry.kind in ("submit", "cancel") and entry.job not in jobs
        else replace(entry)
        for entry in ledger.log.since(committed.position)
    )
    held = ledger.variables
    return MasterImage(
        len(ledger.fleet.routes),
        epoch,
        cut,
        replace(committed, shards={}, coming={}, refused=set()),
        jobs,
        entries,
        ledger.submitted,
        Variables(set(held.held), set(held.escaped), set(held.dropped), set(held.freed)),
    )


def adopt(ledger: Ledger, image: MasterImage, held: frozenset[int]) -> None:
    """Let a new ledger go on from an image; a rollback to its checkpoint must follow.

    Parameters
    ----------
    ledger : Ledger
        Empty.
    image : MasterImage
        It is the ledger's from now on.
    held : frozenset of int
        The variables that the new notebook holds: of all others no handle is left there.
    """
    log = ledger.log
    log.first = log.cursor = image.committed.position
    log.entries = list(image.entries)
    ledger.submitted = image.submitted
    ledger.jobs = image.jobs
    ledger.busy = {job.id: job for job in image.jobs.values() if not job.quiet}
    ledger.variables = image.variables
    ledger.take_over(held)
