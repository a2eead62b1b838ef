"""Jobs as the master sees them: state, termination detection, outputs.

A job is *quiet* when none of its continuations is left anywhere. The test is Mattern's vector
method: ranks report, when they have nothing left of a job, how many of its messages they have sent
to and received from each rank; the job is quiet when every pair agrees. A report older than a later
message cannot hide it: the message's sender was alive after its own report, so it had received
one, and so on back to a message whose counts disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from feliss_nb.core.ids import NOTEBOOK
from feliss_nb.core.messages import Continuation, Counts


@dataclass(frozen=True, slots=True)
class Result:
    """A value that a rank gave to the notebook, with the sender's cut number."""

    cut: int
    digest: bytes
    body: Any
    handles: frozenset[int] = frozenset()


@dataclass(slots=True)
class Job:
    """One submission and all its descendants.

    Parameters
    ----------
    id : int
        Counts the submissions: waits and cancels between them do not show in it, so that two runs
        of a program draw the same random numbers.
    position : int
        Its place in the log.
    label : str
        For people.
    starts : tuple of (int, Continuation)
        What to inject, by rank.
    outputs : tuple of int
        The variables that it fills.
    handles : frozenset of int
        The variables that it carries.
    internal : bool
        A fetch: it reads and keeps nothing, so carrying a handle into it is no escape.
    timeout : float or None
        Seconds that one of its continuations may run: the runtime's.
    """

    id: int
    position: int
    label: str
    starts: tuple[tuple[int, Continuation], ...]
    outputs: tuple[int, ...] = ()
    handles: frozenset[int] = frozenset()
    internal: bool = False
    timeout: float | None = None
    state: str = "held"
    quiet: bool = False
    delivered: bool = False
    error: tuple[int, Any] | None = None  # (cut, error)
    cancelled_at: int | None = None  # the position of the notebook's cancel in the log
    results: dict[int, Result] = field(default_factory=dict)
    # What was delivered before a rollback undid it: the replay must give the same.
    expected: tuple[str, dict[int, Result]] | None = None
    balance: dict[tuple[int, int], int] = field(default_factory=dict)
    reports: dict[int, tuple[Counts, Counts]] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the notebook may see its outcome."""
        return self.state in ("failed", "cancelled") or (self.state == "done" and self.quiet)

    def count_starts(self) -> None:
        """Begin to count anew: the starts are messages from the notebook."""
        self.balance, self.reports = {}, {}
        for rank, _ in self.starts:
            self._add((NOTEBOOK, rank), 1)

    def report(self, rank: int, sent: Counts, received: Counts) -> bool:
        """Take a rank's counters; return True when the job has just become quiet."""
        old_sent, old_received = self.reports.get(rank, ({}, {}))
        self.reports[rank] = sent, received
        for destination, count in sent.items():
            self._add((rank, destination), count - old_sent.get(destination, 0))
        for source, count in received.items():
            self._add((source, rank), old_received.get(source, 0) - count)
        if self.balance or self.quiet:
            return False
        self.quiet = True
        return True

    def _add(self, pair: tuple[int, int], change: int) -> None:
        value = self.balance.get(pair, 0) + change
        if value:
            self.balance[pair] = value
        else:
            self.balance.pop(pair, None)

    def undo(self, checkpoint: int, position: int) -> None:
        """Go back to the cut of `checkpoint`: outputs sent behind it did not happen.

        Parameters
        ----------
        checkpoint : int
            Where the ranks go back to.
        position : int
            The cut's place in the log: what was submitted before it is in the snapshots.
        """
        submitted = self.position < position
        if self.delivered and self.expected is None:
            self.expected = self.state, dict(self.results)
        self.quiet = False
        self.results = {
            rank: result
            for rank, result in self.results.items()
            if submitted and result.cut < checkpoint
        }
        if self.error is not None and not (submitted and self.error[0] < checkpoint):
            self.error = None
        if self.cancelled_at is not None and self.cancelled_at >= position:
            self.cancelled_at = None
        if not submitted:
            self.state = "held"
        elif self.error is not None:
            self.state = "failed"
        else:
            self.state = "cancelled" if self.cancelled_at is not None else "running"
        self.count_starts()


@dataclass(slots=True)
class Entry:
    """One line of the session's log: what the notebook did, in order.

    ``submit``: `job`. ``await``: the jobs in `jobs` had ended (None: every job before this line).
    ``cancel``: `job`. ``void``: a cancel that came too late, and shall in a replay too.
    """

    kind: str
    job: int = 0
    jobs: tuple[int, ...] | None = ()
    submitted: int = 0  # for await with None: the jobs below this number


@dataclass(slots=True)
class SubmissionLog:
    """What the notebook did since the last committed checkpoint, and how far it took effect."""

    entries: list[Entry] = field(default_factory=list)
    first: int = 0  # the position of entries[0]
    cursor: int = 0  # the position of the first entry that has not taken effect

    def append(self, entry: Entry) -> None:
        """Add a line."""
        self.entries.append(entry)

    @property
    def end(self) -> int:
        """The position behind the last line."""
        return self.first + len(self.entries)

    def current(self) -> Entry | None:
        """Return the next line that has to take effect, if there is one."""
        return self.entries[self.cursor - self.first] if self.cursor < self.end else None

    def since(self, position: int) -> Iterable[Entry]:
        """Return the lines from `position` on."""
        return self.entries[max(position - self.first, 0) :]

    def prune(self, position: int) -> None:
        """Drop the lines before `position`: a committed checkpoint holds their effect."""
        del self.entries[: position - self.first]
        self.first = position
