"""Finds a gang in which every rank waits for a message and none is under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from feliss_nb.runtime.wire import Waiting

Explain = Callable[[Mapping[int, Sequence[Any]]], str]


def explain(waits: Mapping[int, Sequence[Any]]) -> str:
    """Say that there is a deadlock; a model that knows more says who waits for whom."""
    return f"deadlock: ranks {sorted(waits)} wait for messages that nobody sends"


class Deadlocks:
    """What the ranks of gangs said of their waits.

    A rank that waits sends nothing until it receives something. So when, of every pair of ranks,
    one had sent as many messages as the other had received, each at the moment of its own report,
    none is under way and none will be (Mattern's vector method, as in `core.jobs`).

    Parameters
    ----------
    size : int
        The number of ranks.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.epoch = -1
        self.waiting: dict[tuple[int, int], dict[int, Waiting]] = {}

    def hear(self, report: Waiting) -> dict[int, list[Any]] | None:
        """Take a report; return what each rank waits for if that is a deadlock."""
        if report.epoch < self.epoch:
            return None
        if report.epoch > self.epoch:
            self.epoch, self.waiting = report.epoch, {}
        gang, step = report.step
        for other in [key for key in self.waiting if key[0] == gang and key[1] < step]:
            del self.waiting[other]
        reports = self.waiting.setdefault(report.step, {})
        reports[report.rank] = report
        if len(reports) < self.size:
            return None
        for source, sender in reports.items():
            for target, receiver in reports.items():
                if sender.sent[target] != receiver.received[source]:
                    return None
        del self.waiting[report.step]
        return {rank: other.waits for rank, other in sorted(reports.items())}

    def forget(self, gang: int) -> None:
        """Drop what was said of a gang."""
        for step in [step for step in self.waiting if step[0] == gang]:
            del self.waiting[step]
