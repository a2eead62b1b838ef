"""Continuations that take engines with them: counted, and set aside before they took all.

Rules
-----
* What ran when an engine was lost may be the cause, if no other is known. It is counted by an
  identity that a replay draws again: a continuation's id, or its record's.
* At the limit it does not run any more: its job fails instead.
* Where one engine is left and no other is on its way, two losses are enough; one is not, since it
  is what a loss looks like that has nothing to do with the work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from feliss_nb.core.messages import Running, SetAside


class Poison:
    """What ran in losses, and what must not run any more.

    Parameters
    ----------
    limit : int or None
        How many losses set a continuation aside; None: it runs again each time.

    Attributes
    ----------
    poisoned : dict of bytes to int
        What must not run any more, and how many engines were lost with it.
    set_aside : dict of bytes to SetAside
        What of it was not run, for the notebook to look at.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.poisoned: dict[bytes, int] = {}
        self.set_aside: dict[bytes, SetAside] = {}
        self._losses: dict[Running, int] = {}

    def lost(self, running: Iterable[Running], is_last: bool) -> list[Running]:
        """Count a loss; return what is poisoned from now on.

        Parameters
        ----------
        running : iterable of Running
            What may be the cause.
        is_last : bool
            Whether one engine is left, and no other is on its way.
        """
        if self.limit is None:
            return []
        limit = min(self.limit, 2) if is_last else self.limit
        found = []
        for one in running:
            losses = self._losses.get(one, 0) + 1
            self._losses[one] = losses
            if losses >= limit and one.id not in self.poisoned:
                found.append(one)
            if losses >= limit:
                self.poisoned[one.id] = losses
        return found

    def forget(self, jobs: Collection[int]) -> None:
        """Forget what belongs to none of these jobs: the others do not come again."""
        gone = [one for one in self._losses if one.job not in jobs]
        for one in gone:
            del self._losses[one]
            self.poisoned.pop(one.id, None)
