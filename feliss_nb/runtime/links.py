"""Whether what engines say arrives, where their processes live: see `peers.Peers.count`.

No time alone is evidence, since user code may keep an engine's interpreter from answering. An
engine that others get no answer from is suspected when it has told the master many times meanwhile
that it lives; one that says nothing when it runs nothing and uses no processor either. Of two that
hear nothing of each other one is enough: who is suspected is not believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil

BEATS = 50  # of an engine that owes an answer: it has had the time to give one
QUIET = 5.0  # seconds without a word until the processor's time is looked at
SILENT = 15.0  # until the engine is suspected
BUSY = 0.5  # seconds of the processor: who has used them is at something


@dataclass(slots=True)
class _Engine:
    heard: float
    beats: int = 0
    used: float | None = None  # of the processor, when it had been quiet for a while


class Links:
    """What was heard of whom. On the master's thread."""

    def __init__(self) -> None:
        self._engines: dict[str, _Engine] = {}
        self._owed: dict[tuple[str, str], int] = {}  # (to, by) -> the debtor's beats at first
        self._suspected: set[str] = set()

    def heard(self, engine: str, now: float) -> None:
        """An engine has said something."""
        known = self._engines.setdefault(engine, _Engine(now))
        known.heard, known.used = now, None

    def beat(self, engine: str, unanswered: tuple[str, ...]) -> str | None:
        """Take an engine's regular word; return an engine to suspect, if there is one."""
        if engine in self._engines:
            self._engines[engine].beats += 1
        for to, by in [key for key in self._owed if key[0] == engine]:
            if by not in unanswered:
                del self._owed[to, by]
        for debtor in () if engine in self._suspected else unanswered:
            known = self._engines.get(debtor)
            if known is None:
                continue
            first = self._owed.setdefault((engine, debtor), known.beats)
            if known.beats - first >= BEATS:
                self._suspected.add(debtor)
                return debtor
        return None

    def forget(self, engine: str) -> None:
        """An engine is lost."""
        self._engines.pop(engine, None)
        self._suspected.discard(engine)
        self._owed = {key: beats for key, beats in self._owed.items() if engine not in key}

    def is_silent(self, engine: str, pid: int, board: Any, now: float) -> bool:
        """Tell whether an engine says nothing, runs nothing and uses no processor."""
        known = self._engines.get(engine)
        if known is None or now - known.heard < QUIET:
            return False
        if board is not None and board.running():
            known.used = None
            known.heard = now - QUIET  # begin anew when that has ended
            return False
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            return False
        used = float(times.user + times.system)
        if known.used is None:
            known.used = used
        if used - known.used > BUSY:
            known.heard, known.used = now - QUIET, used
        return now - known.heard > SILENT
