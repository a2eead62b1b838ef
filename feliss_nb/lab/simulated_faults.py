"""A fault plan in the simulator: what `runtime.injecting` does to processes, done to its world.

What notices a fault there (the hub, the counts of messages, an engine's silence) is here a time
drawn at random, after which the master is told as it is there. The phases of MapReduce are those of
the protocol: a continuation begins, one leaves for another engine, one arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from feliss_nb.errors import UsageError
from feliss_nb.faults import Fault, FaultPlan, victims

if TYPE_CHECKING:
    from feliss_nb.lab.simulated_engine import SimulatedEngine
    from feliss_nb.lab.simulator import Simulation

#: A plan's second in the simulator's time, in which a message takes up to 1 and work up to 2.
SECOND = 10.0
#: Seconds of a plan until an engine that stands still has missed its beats.
BEATS = 5.0
#: Times the longest detection: until lost messages are noticed, which takes longest.
LATE = 3.0

SKIPPED = {
    "flip-bit-in-store": "the simulator has no store",
    "fill-disk": "the simulator has no store",
}
"""Kinds that mean nothing here, and why."""


@dataclass(slots=True)
class _Late:
    until: float
    by: float


class FaultyNetwork:
    """What goes wrong between engines that live.

    Parameters
    ----------
    simulation : Simulation

    Attributes
    ----------
    lossy : set of str
        Engines of whose messages some were lost, which nobody has noticed.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.lossy: set[str] = set()
        self._late: dict[tuple[str, str], _Late] = {}
        self._drops: dict[tuple[str, str], int] = {}
        self._cuts: dict[tuple[str, str], bool] = {}  # and whether somebody will notice

    def slow_down(self, source: str, target: str, time: float) -> None:
        """Let what is sent come later by some time, for as long."""
        self._late[source, target] = _Late(self._simulation.now + time, time)

    def drop(self, source: str, target: str, count: int) -> None:
        """Lose the next messages."""
        self._drops[source, target] = count

    def cut(self, source: str, target: str) -> None:
        """Lose all that is sent."""
        self._cuts.setdefault((source, target), False)
        if target not in self._simulation.engines:  # the master: an engine's silence is enough
            self._cuts[source, target] = True
            self._notice(source, source, target)

    def delay(self, source: str, target: str) -> float:
        """Return by how much a message is late."""
        if not self._late:
            return 0.0
        late = self._late.get((source, target))
        return late.by if late is not None and self._simulation.now < late.until else 0.0

    def passes(self, source: str, target: str) -> bool:
        """Tell whether a message goes through; the loss of one will be noticed."""
        if not (self._drops or self._cuts):
            return True
        pair = source, target
        if pair in self._cuts:
            if not self._cuts[pair]:  # neither hears the other's answer
                self._cuts[pair] = True
                self._notice(self._simulation.rng.choice(pair), *pair)
            return False
        left = self._drops.get(pair, 0)
        if not left:
            return True
        self._drops[pair] = left - 1
        self._notice(source, *pair)
        return False

    def _notice(self, suspect: str, source: str, target: str) -> None:
        simulation = self._simulation
        self.lossy.add(source)

        def notice() -> None:
            ends = [simulation.engines.get(name) for name in (source, target)]
            if all(end is None or end.alive for end in ends):
                simulation.suspect(suspect)

        simulation.clock.after(simulation.rng.random() * LATE * simulation.detection, notice)


class SimulatedInjection:
    """A fault plan that is being carried out.

    Parameters
    ----------
    simulation : Simulation
        Where.
    plan : FaultPlan
        With every victim named.

    Attributes
    ----------
    fired, skipped : list of Fault
        Those that happened; those that mean nothing here, see `SKIPPED`.
    """

    def __init__(self, simulation: Simulation, plan: FaultPlan) -> None:
        if not simulation.is_recorded and any(fault.needs_name for fault in plan):
            raise UsageError("kill-kernel needs a simulation with record=True")
        self.simulation, self.plan = simulation, plan
        self.fired: list[Fault] = []
        self.skipped: list[Fault] = []
        self._waiting: list[tuple[Fault, list[int]]] = []  # and how often it is still to come
        for fault in plan:
            if fault.kind in SKIPPED:
                self.skipped.append(fault)
                simulation.log.append(
                    (simulation.now, "skipped", f"{fault}: {SKIPPED[fault.kind]}")
                )
            elif fault.phase is not None:
                self._waiting.append((fault, [fault.nth]))
            elif fault.after is not None:
                self._waiting.append((fault, [max(fault.after, 1)]))
            else:
                self._after((fault.at or 0.0) * SECOND, fault)

    @property
    def is_over(self) -> bool:
        """Whether every fault has happened."""
        return len(self.fired) + len(self.skipped) == len(self.plan)

    def moment(self, name: str, rank: int | None) -> None:
        """A phase begins, or a rank begins a continuation (``mapping``)."""
        for waiting in list(self._waiting):
            fault, left = waiting
            counts = fault.after is not None and name == "mapping" and rank == fault.rank
            if fault.phase == name or counts:
                left[0] -= 1
                if not left[0]:
                    self._waiting.remove(waiting)
                    self._after(0.0, fault)

    def _after(self, time: float, fault: Fault) -> None:
        self.simulation.clock.after(time, lambda: self._fire(fault))

    def _fire(self, fault: Fault) -> None:
        simulation, master = self.simulation, self.simulation.master
        if not simulation.askers or master.state in ("failed", "stopped"):
            return
        engine = None
        if fault.needs_engine:
            choice = victims(fault, master.routes, master.committed.shards, master.engines)
            living = [name for name in choice if simulation.engines[name].alive]
            if not living:
                self._after(SECOND / 10, fault)  # nobody lives there now
                return
            engine = simulation.engines[living[0]]
        self.fired.append(fault)
        simulation.log.append((simulation.now, "fault", f"{fault}: {engine and engine.name}"))
        _FAULTS[fault.kind](self, fault, engine)
        simulation.moment("detecting", fault.rank)

    # ------------------------------------------------------------ the faults

    def _kill(self, fault: Fault, engine: SimulatedEngine) -> None:
        self.simulation.kill(engine.name)

    def _stop(self, fault: Fault, engine: SimulatedEngine) -> None:
        self._hang(fault, engine)
        simulation = self.simulation

        def miss() -> None:
            if engine.alive and simulation.now < engine.still_until:
                simulation.suspect(engine.name)

        if fault.seconds > BEATS:
            simulation.clock.after(BEATS * SECOND, miss)

    def _hang(self, fault: Fault, engine: SimulatedEngine) -> None:
        until = self.simulation.now + fault.seconds * SECOND
        engine.still_until = max(engine.still_until, until)

    def _slow(self, fault: Fault, engine: SimulatedEngine) -> None:
        engine.slow_until = self.simulation.now + fault.seconds * SECOND
        engine.factor = fault.factor

    def _peer(self, fault: Fault) -> str:
        if isinstance(fault.peer, str):
            return fault.peer
        return self.simulation.master.routes[fault.peer or 0]

    def _delay(self, fault: Fault, engine: SimulatedEngine) -> None:
        time = fault.seconds * SECOND
        self.simulation.network.slow_down(engine.name, self._peer(fault), time)

    def _drop(self, fault: Fault, engine: SimulatedEngine) -> None:
        self.simulation.network.drop(engine.name, self._peer(fault), fault.count)

    def _cut(self, fault: Fault, engine: SimulatedEngine) -> None:
        self.simulation.network.cut(engine.name, self._peer(fault))

    def _lose(self, fault: Fault, engine: SimulatedEngine) -> None:
        for key in [key for key in engine.store if key[1] == fault.rank]:
            del engine.store[key]
            self.simulation.spoilt.add((engine.name, *key))

    def _flip(self, fault: Fault, engine: SimulatedEngine) -> None:
        for key, shard in engine.store.items():
            if key[1] == fault.rank:
                engine.store[key] = replace(shard, damaged=True)

    def _kill_controller(self, fault: Fault, engine: None) -> None:
        self.simulation.replacements = 0

    def _kill_kernel(self, fault: Fault, engine: None) -> None:
        """Let the master die now, or in the middle of what its next event leads to."""
        self.simulation.replace_master(self.simulation.rng.choice([None, 0, 1, 2, 3]))


_FAULTS: dict[str, Callable[[Any, Fault, Any], None]] = {
    "kill": SimulatedInjection._kill,
    "kill-with-nanny": SimulatedInjection._kill,
    "exhaust-memory": SimulatedInjection._kill,
    "stop": SimulatedInjection._stop,
    "hang": SimulatedInjection._hang,
    "slow": SimulatedInjection._slow,
    "delay": SimulatedInjection._delay,
    "drop": SimulatedInjection._drop,
    "cut": SimulatedInjection._cut,
    "lose-shard": SimulatedInjection._lose,
    "flip-bit": SimulatedInjection._flip,
    "kill-controller": SimulatedInjection._kill_controller,
    "kill-kernel": SimulatedInjection._kill_kernel,
}
