"""When the next periodic checkpoint is due, and what checkpoints and losses have cost so far.

It has no clock: who drives it tells what time passed.
"""

from __future__ import annotations

from numbers import Real
from typing import Literal

from feliss_nb.core.interval import Interval
from feliss_nb.errors import UsageError
from feliss_nb.runtime.status import Pacing

Every = float | Literal["auto"] | None
"""Seconds of running work between checkpoints, or chosen, or only on request."""

FIRST = 10.0  # seconds: until the first checkpoint has shown what one costs
# A checkpoint that pauses for a millisecond would come every second and more often: its copies to
# other engines, which the pause does not count, would then be most of what the machine does.
LEAST = 1.0


class Pace:
    """The clock of periodic checkpoints.

    Attributes
    ----------
    every : float, "auto" or None
        What was asked for.
    """

    def __init__(self) -> None:
        self.every: Every = FIRST
        self._interval = Interval(first=FIRST, least=LEAST)
        self._work = 0.0  # seconds of running work in all
        self._cut = 0.0  # where in it the last checkpoint began
        self._committed = 0.0  # where the last committed one did
        self._since = 0.0  # where this interval was chosen
        self._lost = 0.0  # seconds since then that were not work: pauses and recoveries
        self._redone = 0.0  # and of work that a loss threw back

    def set(self, every: Every, mtbf: float | None = None) -> None:
        """Begin to count the overhead anew; costs and losses that were seen still tell."""
        self.every, self._interval.given = every, mtbf
        self._since, self._lost, self._redone = self._work, 0.0, 0.0

    def ran(self, seconds: float) -> None:
        """Work has run."""
        self._work += seconds
        self._interval.ran(seconds)

    def begun(self) -> None:
        """A checkpoint has begun."""
        self._cut = self._work

    def committed(self, pause: float) -> None:
        """The checkpoint is committed; no rank ran for `pause` seconds."""
        self._committed = self._cut
        self._lost += pause
        self._interval.checkpoint_took(pause)

    def lost(self) -> None:
        """Ranks were lost: what was done since the committed checkpoint is done again."""
        self._interval.failed()
        self._redone += self._work - max(self._committed, self._since)
        self._cut = self._committed = self._work

    def recovering(self, seconds: float) -> None:
        """Nothing has run, since the ranks stand up again."""
        self._lost += seconds

    @property
    def due_after(self) -> float | None:
        """Seconds of work from one checkpoint to the next; None: only on request."""
        return self._interval.work() if self.every == "auto" else self.every

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        due = self.due_after
        return due is not None and self._work - self._cut >= due

    def figures(self) -> Pacing | None:
        """Return what a status shows; None where checkpoints are taken on request only."""
        due = self.due_after
        if due is None:
            return None
        work = self._work - self._since - self._redone
        actual = (self._lost + self._redone) / work if work > 0 else None
        if self.every != "auto":
            return Pacing(False, due, None, actual, None, None)
        interval = self._interval
        return Pacing(True, due, interval.predicted(), actual, interval.cost, interval.mtbf)


def check_every(every: object, mtbf: object = None) -> None:
    """Raise UsageError unless checkpoints can be taken like that."""
    if isinstance(every, str):
        if every != "auto":
            raise UsageError(
                'checkpoint_every takes a number of seconds above 0, "auto", or None (only on '
                f"request); not {every!r}"
            )
    else:
        _check_time("checkpoint_every", every, 'or "auto"')
    if mtbf is not None and every != "auto":
        raise UsageError('mtbf= goes with checkpoint_every="auto", which chooses by it')
    _check_time("mtbf=", mtbf, "the mean time between losses")


def _check_time(what: str, seconds: object, more: str) -> None:
    if seconds is None:
        return
    is_number = isinstance(seconds, Real) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds < float("inf"):  # type: ignore[operator]
        raise UsageError(
            f"{what} takes a number of seconds above 0, or None ({more}); not {seconds!r}"
        )
