"""What may have cost an engine its life: see `core.poison`.

A continuation that runs for longer than it may is found here too: its engine is killed for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from feliss_nb.core import messages as m
from feliss_nb.core.master import Master
from feliss_nb.runtime.board import left_running

if TYPE_CHECKING:
    from feliss_nb.runtime.liveness import EngineInfo


class Blame:
    """Knows what was running where. On the master's thread.

    Parameters
    ----------
    directory : Path
        The session's private one.

    Attributes
    ----------
    timeout : float or None
        Seconds that a continuation may run whose job has no time of its own.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.timeout: float | None = None
        self._overdue: dict[str, tuple[m.Running, ...]] = {}  # engine -> what ran for too long
        self._harmed: set[str] = set()

    def harmed(self, engine: str) -> None:
        """Note that an engine is harmed by us: its work is not to blame if it is lost."""
        self._harmed.add(engine)

    def ran(self, engine: str, info: EngineInfo) -> tuple[m.Running, ...]:
        """Return what may have cost a lost engine its life."""
        overdue = self._overdue.pop(engine, None)
        board, info.board = info.board, None
        if board is not None:
            board.close()
        if engine in self._harmed:
            return ()
        return left_running(self._directory, engine) if overdue is None else overdue

    def find_overdue(
        self, engines: Mapping[str, EngineInfo], master: Master
    ) -> tuple[str, str] | None:
        """Return the engine on which something has run for too long, and what that is.

        One at a time, the worst: what waits for it elsewhere is late as well.
        """
        if self._overdue or master.state in ("recovering", "failed"):
            return None
        worst: tuple[float, str, m.Running, float] | None = None
        for engine, info in engines.items():
            if not info.alive or info.board is None:
                continue
            for one, seconds in info.board.running():
                job = master.jobs.get(one.job)
                timeout = None if job is None else job.timeout
                if timeout is None:
                    timeout = self.timeout
                if timeout is None or seconds <= timeout or job is None or job.internal:
                    continue
                if master.routes.get(one.rank) == engine and (
                    worst is None or seconds - timeout > worst[0]
                ):
                    worst = seconds - timeout, engine, one, timeout
        if worst is None:
            return None
        _, engine, one, timeout = worst
        self._overdue[engine] = (one,)
        label = master.jobs[one.job].label
        return (
            engine,
            f"rank {one.rank} was in one continuation of {label} for more than {timeout:g} s",
        )
