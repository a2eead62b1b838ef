"""The processes of the engines, and whether they live. On the master's thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from feliss_nb.runtime import wire
from feliss_nb.runtime.board import BoardView, path_of
from feliss_nb.runtime.cluster import Engines
from feliss_nb.runtime.exchange import Exchange
from feliss_nb.runtime.links import Links
from feliss_nb.runtime.owner import Process


@dataclass(slots=True)
class EngineInfo:
    """What the session's process knows of an engine."""

    id: int
    pid: int
    process: Process
    started: float
    alive: bool = True
    board: BoardView | None = None
    heard: float = 0.0  # when it has last said something, by time.monotonic


class Liveness:
    """Watches processes, and what they say; suspects them.

    Parameters
    ----------
    cluster : Engines
        Who misses engines too.
    exchange : Exchange
        Wakes up when a process ends.

    Attributes
    ----------
    engines : dict of str to EngineInfo
        Those that there were as well.
    """

    def __init__(self, cluster: Engines, exchange: Exchange) -> None:
        self.engines: dict[str, EngineInfo] = {}
        self._cluster, self._exchange = cluster, exchange
        self._links = Links()

    def met(self, engine: str, hello: wire.Hello) -> bool:
        """An engine says hello; return whether it lives."""
        try:
            process = Process(hello.pid, hello.started)
        except ProcessLookupError:
            return False
        try:
            board = BoardView(path_of(self._cluster.directory, engine))
        except OSError:  # it has ended meanwhile
            board = None
        known = self.engines.get(engine)
        if known is not None:  # it has found this master
            process.close()
            if known.alive:
                known.board = known.board or board
            return known.alive
        self.know(engine, hello.pid, hello.started, process)
        self.engines[engine].board = board
        self.heard(engine)
        return True

    def know(self, engine: str, pid: int, started: float, process: Process) -> None:
        """Take in an engine, and watch its process."""
        self.engines[engine] = EngineInfo(int(engine), pid, process, started)
        self._links.heard(engine, time.monotonic())
        self._exchange.watch(process.fd)

    def heard(self, engine: str) -> None:
        """An engine has said something."""
        now = time.monotonic()
        self._links.heard(engine, now)
        if engine in self.engines:
            self.engines[engine].heard = now

    def beat(self, engine: str, unanswered: tuple[str, ...]) -> tuple[str, str] | None:
        """Take an engine's regular word; return whom to suspect, and why."""
        deaf = self._links.beat(engine, unanswered)
        if deaf is None:
            return None
        return deaf, f"it lives, and what engine {engine} sends to it does not arrive"

    def ended(self, ready: set[int]) -> list[str]:
        """Return the engines whose processes have ended, by the descriptors that say so."""
        return [e for e, info in self.engines.items() if info.alive and info.process.fd in ready]

    def lost(self, engine: str) -> EngineInfo | None:
        """Watch an engine no more; None if it is known to be lost."""
        info = self.engines[engine]
        if not info.alive:
            return None
        info.alive = False
        self._exchange.unwatch(info.process.fd)
        info.process.close()
        self._links.forget(engine)
        return info

    def suspects(self) -> Iterator[tuple[str, str]]:
        """Yield whom to suspect, and why."""
        now = time.monotonic()
        known = self._cluster.ids()
        for engine, info in list(self.engines.items()):
            missed = self._cluster.has_hub and info.id not in known
            if info.alive and missed and not info.process.ended():
                yield engine, "the hub misses its beats"
            elif info.alive and self._links.is_silent(engine, info.pid, info.board, now):
                yield engine, "it says nothing, and neither runs anything nor uses the processor"

    @property
    def living(self) -> list[str]:
        """The engines that live."""
        return [engine for engine, info in self.engines.items() if info.alive]

    def close(self) -> None:
        """Look at no process any more."""
        for info in self.engines.values():
            info.process.close()
            if info.board is not None:
                info.board.close()
                info.board = None
