"""Carries out a fault plan on real engines: see `feliss_nb.faults`.

On the master's thread, which looks at the clock and at the event log. Every fault that happens is
an event of its own. Of an engine that was harmed by a plan no continuation is blamed.
"""

from __future__ import annotations

import heapq
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from feliss_nb.errors import UsageError, WaitTimeout
from feliss_nb.faults import Fault, FaultPlan, victims
from feliss_nb.runtime import network, wire
from feliss_nb.runtime.events import Event
from feliss_nb.runtime.owner import Process

if TYPE_CHECKING:
    from feliss_nb.runtime.driver import Driver
    from feliss_nb.runtime.liveness import EngineInfo

PERIOD = 0.05  # seconds in which a slowed engine runs once and stands still once
COUNT = 0.01  # seconds between looks at the counts of continuations

# The event of the log with which a phase begins, and for events "phase" which one.
_BEGINS = {
    "mapped": "mapping",
    "cut": "capturing",
    "saved": "encoding",
    "committed": "committing",
    "fault": "detecting",
    "recovering": "loading",
}


class Injection:
    """A fault plan that is being carried out.

    Parameters
    ----------
    plan : FaultPlan
        With every victim named.

    Attributes
    ----------
    fired : list of Event
        The faults that happened.
    """

    def __init__(self, plan: FaultPlan) -> None:
        self.plan = plan
        self.fired: list[Event] = []
        self._over = threading.Event()

    def wait(self, timeout: float | None = None) -> Injection:
        """Wait until every fault has happened and ended, or was called off.

        Raises
        ------
        WaitTimeout
            When the time is over.
        """
        if not self._over.wait(timeout):
            left = len(self.plan) - len(self.fired)
            raise WaitTimeout(f"{left} of {len(self.plan)} faults have not happened in {timeout} s")
        return self

    @property
    def is_over(self) -> bool:
        """Whether every fault has happened and ended, or was called off."""
        return self._over.is_set()

    def __repr__(self) -> str:
        return f"<{len(self.fired)} of {len(self.plan)} faults have happened>"


class Injector:
    """Waits for the moments of a plan, and does what it says. On the master's thread.

    Parameters
    ----------
    driver : Driver
        Of the session.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._injection: Injection | None = None
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._phases: list[tuple[Fault, list[int]]] = []  # and how often they are still to come
        self._counts: list[tuple[Fault, int]] = []  # and what the rank had begun
        self._stopped: dict[str, Process] = {}  # engines that stand still by our signal

    # ------------------------------------------------------------ the plan

    def order(self, plan: FaultPlan | None, done: Future[Injection | None]) -> None:
        """Begin with a plan, or call off (None) the one that there is; `done` hears of it."""
        try:
            if plan is None:
                self.end()
                done.set_result(None)
            else:
                done.set_result(self.begin(plan))
        except UsageError as error:
            done.set_exception(error)

    def begin(self, plan: FaultPlan) -> Injection:
        """Begin with a plan."""
        if self._injection is not None and not self._injection.is_over:
            raise UsageError(
                "a fault plan is being carried out: wait for its end, or call it off with "
                "session.inject(None)"
            )
        record = self._driver.record
        if (record is None or not record.is_open) and any(fault.needs_name for fault in plan):
            raise UsageError(
                "kill-kernel kills this process, and a session without a name would end with it: "
                "start one with start(name=...), which another process goes on with by "
                "feliss_nb.resume(NAME)"
            )
        if network.is_ours() and any(fault.kind == "cut" for fault in plan):
            network.check(self._driver._exchange.sockets)
        self._injection = injection = Injection(plan)
        now = time.monotonic()
        for fault in plan:
            if fault.phase is not None:
                self._phases.append((fault, [fault.nth]))
            elif fault.after is not None:
                begun = self._begun(fault)
                self._counts.append((fault, begun + fault.after))
            else:
                self._after(fault.at or 0.0, lambda fault=fault: self._fire(fault), now)  # type: ignore[misc]
        self._driver.events.listener = self._hear
        self.look()
        return injection

    def end(self) -> None:
        """Call off what has not happened, and let go on what stands still."""
        self._agenda.clear()
        self._phases.clear()
        self._counts.clear()
        for engine in list(self._stopped):
            self._go_on(engine)
        self._driver.events.listener = None
        if self._injection is not None:
            self._injection._over.set()

    def _after(self, seconds: float, act: Callable[[], None], now: float | None = None) -> None:
        at = seconds + (time.monotonic() if now is None else now)
        heapq.heappush(self._agenda, (at, next(self._order), act))

    def _hear(self, event: Event) -> None:
        """Take an event of the log; any thread may have added it."""
        begun = event.data.get("phase") if event.kind == "phase" else _BEGINS.get(event.kind)
        if begun is None:
            return
        for fault, left in list(self._phases):
            if fault.phase == begun and left[0] > 0:
                left[0] -= 1
                if left[0] == 0:
                    self._driver.run_soon(lambda fault=fault, left=left: self._due(fault, left))  # type: ignore[misc]

    def _due(self, fault: Fault, left: list[int]) -> None:
        if (fault, left) in self._phases:
            self._phases.remove((fault, left))
            self._fire(fault)

    @property
    def patience(self) -> float:
        """Seconds until there may be something to do."""
        if self._counts:
            return COUNT
        if not self._agenda:
            return 1.0
        return max(self._agenda[0][0] - time.monotonic(), 0.0)

    def look(self) -> None:
        """Do what is due."""
        if self._injection is None or self._injection.is_over:
            return
        while self._agenda and self._agenda[0][0] <= time.monotonic():
            heapq.heappop(self._agenda)[2]()
        for fault, count in list(self._counts):
            if self._begun(fault) >= count:
                self._counts.remove((fault, count))
                self._fire(fault)
        if not (self._agenda or self._phases or self._counts):
            self.end()

    def _begun(self, fault: Fault) -> int:
        """How many continuations the victim's rank has begun in its engine."""
        info = self._driver.liveness.engines.get(
            self._driver.master.routes.get(fault.rank or 0, "")
        )
        board = None if info is None else info.board
        return 0 if board is None else board.begun(fault.rank or 0)

    # ------------------------------------------------------------ the faults

    def _fire(self, fault: Fault) -> None:
        driver = self._driver
        if driver.master.state in ("failed", "stopped"):
            return
        engine = self._victim(fault) if fault.needs_engine else ""
        if fault.needs_engine and not engine:
            self._after(0.1, lambda: self._fire(fault))  # nobody lives there now
            return
        data: dict[str, Any] = {"fault": fault.kind, "engine": engine, "rank": fault.rank}
        if fault.kind == "slow":
            data["seconds"] = fault.seconds
        event = driver.events.add("fault", **data)
        if self._injection is not None:
            self._injection.fired.append(event)
        if engine:
            driver.blame.harmed(engine)
        _FAULTS[fault.kind](self, fault, engine)

    def _victim(self, fault: Fault) -> str:
        master = self._driver.master
        choice = victims(fault, master.routes, master.committed.shards, master.engines)
        return next((e for e in choice if self._living(e) is not None), "")

    def _living(self, engine: str) -> EngineInfo | None:
        info = self._driver.liveness.engines.get(engine)
        return info if info is not None and info.alive and not info.process.ended() else None

    def _kill(self, fault: Fault, engine: str) -> None:
        self._driver.liveness.engines[engine].process.kill()

    def _kill_with_nanny(self, fault: Fault, engine: str) -> None:
        info = self._driver.liveness.engines[engine]
        for nanny in _children(info.pid):  # ipyparallel's: it watches its parent
            _kill_process(nanny)
        info.process.kill()

    def _stop(self, fault: Fault, engine: str) -> None:
        self._stand_still(engine)
        self._after(fault.seconds, lambda: self._go_on(engine))

    def _stand_still(self, engine: str) -> None:
        info = self._living(engine)
        if info is not None:
            self._stopped[engine] = info.process
            info.process.send(signal.SIGSTOP)

    def _go_on(self, engine: str) -> None:
        process = self._stopped.pop(engine, None)
        if process is not None:
            process.send(signal.SIGCONT)

    def _slow(self, fault: Fault, engine: str) -> None:
        until = time.monotonic() + fault.seconds
        still = PERIOD * (1.0 - 1.0 / fault.factor)

        def pause() -> None:
            if time.monotonic() < until and self._living(engine) is not None:
                self._stand_still(engine)
                self._after(still, run)

        def run() -> None:
            self._go_on(engine)
            self._after(PERIOD - still, pause)

        pause()

    def _order_engine(self, fault: Fault, engine: str) -> None:
        peer = None
        if isinstance(fault.peer, int):
            peer = self._driver.master.routes.get(fault.peer)
        elif fault.peer is not None:
            peer = fault.peer
        rank = fault.rank if fault.kind in ("lose-shard", "flip-bit") else None
        order = wire.Misbehave(fault.kind, fault.seconds, peer, rank, fault.count)
        self._driver.telling.send(engine, order)

    def _cut(self, fault: Fault, engine: str) -> None:
        """Cut the network itself, where it is ours and there is a connection to cut."""
        driver = self._driver
        if network.is_ours():
            target = os.getpid()
            if isinstance(fault.peer, int):
                target = driver.liveness.engines[driver.master.routes[fault.peer]].pid
            try:
                cut = network.cut(driver.liveness.engines[engine].pid, target)
            except psutil.Error:  # one of them has just ended
                return
            if cut:
                driver.events.add("network-cut", engine=engine, connections=cut)
                return
        self._order_engine(fault, engine)

    def _flip_in_store(self, fault: Fault, engine: str) -> None:
        keeper = self._driver.keeper
        directory = None if keeper is None else getattr(keeper.store, "directory", None)
        if directory is None:
            return
        shards = sorted(Path(directory).glob(f"checkpoint-*/rank-{fault.rank or 0:08d}-*.shard"))
        for path in shards[-1:]:
            with open(path, "r+b") as file:
                file.seek(path.stat().st_size // 2)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 1]))

    def _kill_controller(self, fault: Fault, engine: str) -> None:
        pid = self._driver.cluster.controller
        if pid is not None:
            for process in [*_children(pid), pid]:
                _kill_process(process)

    def _kill_kernel(self, fault: Fault, engine: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def _kill_process(pid: int) -> None:
    try:
        process = Process(pid)
    except ProcessLookupError:
        return
    process.kill()
    process.close()


_FAULTS: dict[str, Callable[[Any, Fault, str], None]] = {
    "kill": Injector._kill,
    "kill-with-nanny": Injector._kill_with_nanny,
    "stop": Injector._stop,
    "slow": Injector._slow,
    "hang": Injector._order_engine,
    "exhaust-memory": Injector._order_engine,
    "delay": Injector._order_engine,
    "drop": Injector._order_engine,
    "cut": Injector._cut,
    "lose-shard": Injector._order_engine,
    "flip-bit": Injector._order_engine,
    "fill-disk": Injector._order_engine,
    "flip-bit-in-store": Injector._flip_in_store,
    "kill-controller": Injector._kill_controller,
    "kill-kernel": Injector._kill_kernel,
}
