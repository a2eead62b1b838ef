"""How a session is to work, whatever its engines: checked before anything is started."""

from __future__ import annotations

from dataclasses import dataclass

from feliss_nb.errors import UsageError
from feliss_nb.runtime.pacing import Every, check_every
from feliss_nb.runtime.waiting import check_seconds
from feliss_nb.state.captures import method


@dataclass(frozen=True, slots=True)
class Settings:
    """What `start`, `restore` and `attach` have in common.

    Parameters
    ----------
    workers, spares : int
        How many engines host a rank from the start, and how many wait to take one over.
    name : str or None
        What to call the session.
    copies : int
        How many other engines keep each rank's snapshot.
    replace : bool
        Whether a lost engine is replaced in the background.
    seed : int
        The seed of every rank's random numbers.
    checkpoint_every : float, "auto" or None
        Seconds of running work between checkpoints; None: only on request.
    mtbf : float or None
        For "auto": the mean time between losses, in seconds.
    timeout : float
        Seconds until the engines must be up.
    keep : int
        How many checkpoints a store keeps.
    capture : str
        How a rank becomes a snapshot.
    losses : int or None
        How many engines may be lost with the same continuation running; None: any number.
    continuation_timeout : float or None
        Seconds that a continuation may run.
    """

    workers: int
    spares: int
    name: str | None
    copies: int
    replace: bool
    seed: int
    checkpoint_every: Every
    mtbf: float | None
    timeout: float
    keep: int
    capture: str
    losses: int | None = 3
    continuation_timeout: float | None = None

    def check(self) -> None:
        """Raise UsageError if something makes no sense."""
        for what, least in (("workers", 1), ("spares", 0), ("copies", 0), ("seed", 0), ("keep", 1)):
            number = getattr(self, what)
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise UsageError(
                    f"{what}= takes a whole number of at least {least}, not {number!r}"
                )
        if not isinstance(self.replace, bool):
            raise UsageError(f"replace= takes True or False, not {self.replace!r}")
        if self.timeout is None:
            raise UsageError("timeout= takes a number of seconds above 0, not None")
        check_seconds("timeout=", self.timeout, above=True)
        check_seconds("continuation_timeout=", self.continuation_timeout, above=True)
        losses = self.losses
        if losses is not None and (
            isinstance(losses, bool) or not isinstance(losses, int) or losses < 1
        ):
            raise UsageError(f"losses= takes a whole number of at least 1, or None; not {losses!r}")
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise UsageError(f"name= takes a text, not {self.name!r}")
        check_every(self.checkpoint_every, self.mtbf)
        method(self.capture)

    def check_copies(self) -> None:
        """Raise UsageError if there are never as many engines as copies need.

        A lost engine is replaced, but a session gets no more engines than it began with. One copy,
        the default, may be asked for where there is no other engine.
        """
        others = self.workers + self.spares - 1
        if self.copies > max(others, 1):
            what = "is one other engine" if others == 1 else f"are {others or 'no'} other engines"
            raise UsageError(
                f"copies={self.copies} needs as many engines besides a rank's own, and with "
                f"workers={self.workers} and spares={self.spares} there {what}: ask for fewer "
                "copies, or for more workers or spares"
            )
