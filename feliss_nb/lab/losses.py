"""A loss made from outside, and how long each part of the recovery took, read from the events."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass

import feliss_nb as feliss
from feliss_nb.errors import FelissError

#: Seconds in which a recovery must show; a shared machine stalls.
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Kill:
    """A SIGKILL that the session was not told of.

    Attributes
    ----------
    event : Event
        The line of it in the session's log.
    clock : float
        What ``time.monotonic()``, which every process of a machine shares, showed at 0 in the log.
    """

    event: feliss.Event
    clock: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """The parts of a recovery, in seconds.

    Attributes
    ----------
    detection : float
        From the signal until the master took the engine for lost.
    load : float
        From there until the last rank stood up from its snapshot.
    resume : float
        From there until the last rank ran.
    """

    detection: float
    load: float
    resume: float

    @property
    def total(self) -> float:
        """From the signal until the last rank ran."""
        return self.detection + self.load + self.resume


def kill_unseen(session: feliss.Session, rank: int) -> Kill:
    """Kill the engine that hosts a rank, as the kernel would: the session has to notice.

    ``session.kill`` kills as truly, but tells the master in the same breath, which leaves nothing
    of the detection to measure.

    Parameters
    ----------
    session : Session
    rank : int

    Returns
    -------
    Kill
        At once.

    Raises
    ------
    FelissError
        No living engine hosts the rank, because a recovery is under way.
    """
    found = [e for e in session.status().engines if rank in e.ranks and e.role != "dead"]
    if not found:
        raise FelissError(f"no living engine hosts rank {rank} now; wait until it has recovered")
    [engine] = found
    now = time.monotonic()
    event = session.events.add("kill", engine=str(engine.engine), rank=rank)
    os.kill(engine.pid, signal.SIGKILL)
    return Kill(event, now - event.at)


def recovery(
    session: feliss.Session, kill: Kill, epoch: int, first: Iterable[float] | None = None
) -> Recovery:
    """Wait for the end of a recovery and take it apart.

    Parameters
    ----------
    session : Session
    kill : Kill
        What it recovers from.
    epoch : int
        The epoch that it leads to; the epochs from 1 on each had one loss.
    first : iterable of float, optional
        When each rank ran its first continuation of that epoch, by ``time.monotonic()``. Without
        it the recovery ends when the master says so, and the ranks run a message later.

    Raises
    ------
    TimeoutError
        If it does not recover.
    """
    ended = session.events.wait_for("recovered", epoch, PATIENCE).at
    after = [event for event in session.events if event.at >= kill.event.at]
    lost = next(event.at for event in after if event.kind == "engine-lost")
    loaded = max(event.at for event in after if event.kind == "loaded" and event.epoch == epoch)
    if first is not None:
        ended = max(first) - kill.clock
    return Recovery(lost - kill.event.at, loaded - lost, ended - loaded)
