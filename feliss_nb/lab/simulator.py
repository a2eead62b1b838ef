"""A session without processes: real protocol machines, a fake network, a fake clock.

One `core.master.Master` and many `core.worker.Worker` s are joined by links with random delays:
first in, first out for each pair of engines, in any order between pairs. An engine that dies loses
a suffix of what it has under way on each link. Every choice is drawn from one seed, so a run
repeats exactly::

    sim = Simulation(seed=7, workers=4, spares=1, copies=1)
    sim.submit([("tree", 0, 0, 3), ("checkpoint",), ("shuffle", 0, 2)])
    sim.run_until(lambda: sim.events > 300)
    sim.kill(sim.host(2))
    outcome = sim.run()          # what the notebook saw; raises Hang where nobody answers
    sim.check_invariants()       # also done after every event

The notebook's program is a list of the calls of `simulated_programs.Notebook`.

With ``record=True`` what the master is given is kept, and `replace_master` lets it die: what is
under way to it, and a part of what it has sent, is lost with it, and another goes on from the
record.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

from feliss_nb.core import commands as cmd
from feliss_nb.core import events as ev
from feliss_nb.core.image import MasterImage
from feliss_nb.core.master import Master
from feliss_nb.core.placement import spread
from feliss_nb.errors import FelissError, InternalError
from feliss_nb.faults import FaultPlan
from feliss_nb.lab import simulator_checks as checks
from feliss_nb.lab.simulated_engine import Runner, Shard, SimulatedEngine
from feliss_nb.lab.simulated_faults import FaultyNetwork, SimulatedInjection
from feliss_nb.lab.simulated_master import MASTER, NOTEBOOK, SimulatedMaster
from feliss_nb.lab.simulated_network import Clock, Links, Parcel, lose
from feliss_nb.lab.simulated_programs import Asks, Failure, Notebook


class Hang(InternalError):
    """Nothing is left to happen, or nothing but idling, and somebody waits for an answer."""


@dataclass(slots=True)
class Question:
    """What the notebook asked, and who goes on with the answer."""

    event: Any
    asker: Asks | None


class Simulation:
    """A session in a fake world.

    Parameters
    ----------
    seed : int
        Of every random choice.
    workers, spares, copies, replace
        As for a session.
    replacements : int
        How many lost engines can be replaced.
    delay : float
        The longest time that a message takes; a continuation takes up to 2.
    detection : float
        The longest time until a dead engine is noticed.
    checkpoint_every : float or None
        The time between periodic checkpoints.
    check_every : int
        Check the invariants after this many events; 0: never.
    origin : (MasterImage, list of Shard), optional
        A checkpoint of another simulation to go on from, with as many ranks as that had.
    record : bool
        Keep what another master needs to go on: see `replace_master`.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        workers: int = 3,
        spares: int = 1,
        copies: int = 1,
        replace: bool = True,
        replacements: int = 1000,
        delay: float = 1.0,
        detection: float = 3.0,
        checkpoint_every: float | None = None,
        check_every: int = 1,
        origin: tuple[MasterImage, list[Shard]] | None = None,
        record: bool = False,
    ) -> None:
        self.rng = random.Random(seed)
        self.size, self.delay, self.detection = workers, delay, detection
        self.replacements = replacements
        self.checkpoint_every, self.check_every = checkpoint_every, check_every
        self.clock = Clock()
        self.engines: dict[str, SimulatedEngine] = {}
        self.network = FaultyNetwork(self)
        self.links = Links(self.clock, self.rng, delay, self.network, self.engines)
        self.control = SimulatedMaster(self, Master(copies=copies, replace=replace), record)
        self.injections: list[SimulatedInjection] = []
        self.spoilt: set[tuple[str, int, int]] = set()  # snapshots that a fault has taken away
        self.log: list[tuple[float, str, Any]] = []
        self.view: dict[int, tuple[str, dict[int, Any]]] = {}
        self.open: dict[int, Question] = {}  # questions of the notebook, by token
        self.answered: set[int] = set()
        self.askers: list[Asks] = []
        self.notebooks: list[Notebook] = []
        self.outcome: list[Any] = []
        self.error: Exception | None = None
        self.to_fail: dict[str, int] = {}
        self.corrupted = False
        self.gangs: dict[tuple[int, tuple[int, int]], list[Runner]] = {}  # who has begun a step
        self.commits: list[Callable[[list[Any]], None]] = []
        self._names = count()
        self._tokens = count()
        self._series = 0 if origin is None else 1000  # variables of another session keep theirs
        started = tuple(self._new_engine() for _ in range(workers + spares))
        if origin is None:
            self.tell(ev.Start(started, workers))
        else:
            self._stand_up(started, workers, *origin)
        if checkpoint_every is not None:
            self.clock.after(checkpoint_every, self._tick)

    def _stand_up(
        self, engines: tuple[str, ...], workers: int, image: MasterImage, shards: list[Shard]
    ) -> None:
        self.size = image.size
        routes = spread(image.size, engines[:workers])
        for rank, name in routes.items():
            engine, key = self.engines[name], (image.committed.id, rank)
            engine.store[key] = shards[rank]
            engine.execute(engine.worker.stored(*key))
        self.tell(ev.StartFrom(engines, image, routes, frozenset(image.variables.held)))

    @property
    def is_recorded(self) -> bool:
        """Whether another master can go on where this one ends."""
        return self.control.is_recorded

    @property
    def master(self) -> Master:
        """The machine of the master that lives."""
        return self.control.seat.master

    @property
    def now(self) -> float:
        """The time."""
        return self.clock.now

    @property
    def events(self) -> int:
        """How many things have happened."""
        return self.clock.events

    # ------------------------------------------------------------ the notebook

    def submit(self, ops: Iterable[tuple[Any, ...]]) -> Notebook:
        """Let a notebook run the calls `ops`; several run side by side."""
        first = 1000 * (self._series + len(self.notebooks))  # of its variables' numbers
        notebook = Notebook(self.tell, self.view, self.size, first)
        self.notebooks.append(notebook)
        self.drive(notebook.play(ops))
        return notebook

    def drive(self, asker: Asks) -> None:
        """Let a generator of questions run: it gets each answer, or its error."""
        self.askers.append(asker)
        self._go_on(asker, None, None)

    def ask(self, question: Callable[[int], Any], asker: Asks | None = None) -> int:
        """Put a question to the master; return its token."""
        token = next(self._tokens)
        event = question(token)
        self.open[token] = Question(event, asker)
        self.tell(event)
        return token

    def tell(self, event: Any) -> None:
        """Give the master an event of the notebook, in order."""
        parcel = Parcel(self.control.given(event), "event", event)
        self.links.send("control", NOTEBOOK, MASTER, parcel)

    def _go_on(self, asker: Asks, value: Any, error: Exception | None) -> None:
        if asker not in self.askers:
            return  # it is gone, and an answer was on its way
        try:
            question = asker.send(value) if error is None else asker.throw(error)
        except StopIteration as stop:
            self.askers.remove(asker)
            self.outcome.append(stop.value)
            return
        except (FelissError, Failure) as failure:
            self.askers.remove(asker)
            self.error = failure
            return
        self.ask(question, asker)

    def _tick(self) -> None:
        if self.askers and self.checkpoint_every is not None:
            self.ask(ev.TakeCheckpoint)
            self.clock.after(self.checkpoint_every, self._tick)

    def begun(self, epoch: int, step: tuple[int, int], runner: Runner) -> None:
        """Note that a rank has begun a step of a gang; the last one lets it end on all."""
        ranks = self.gangs.setdefault((epoch, step), [])
        ranks.append(runner)
        if len(ranks) == self.size:
            for other in self.gangs.pop((epoch, step)):
                if other.waits is not None:
                    other.waits()

    # ------------------------------------------------------------ faults

    def kill(self, engine: str, known: bool = True) -> None:
        """Kill an engine: a suffix of what it sends on each link is lost; noticed after a while.

        Unless the cause is `known`, what ran there is blamed.
        """
        victim = self.engines[engine]
        if not victim.alive:
            return
        victim.alive = False
        self.note("killed", engine)
        for (_, source, _), parcels in self.links.under_way.items():
            if source == engine:
                lose(parcels, self.rng.randint(0, len(parcels)))
        running = () if known else victim.running()
        lost = ev.EngineLost(engine, "its process ended", running)
        self.clock.after(self.rng.random() * self.detection, self.control.given(lost))

    def inject(self, plan: FaultPlan) -> SimulatedInjection:
        """Carry out a fault plan, as a session does; a second of it is `simulated_faults.SECOND`.

        Raises
        ------
        UsageError
            If it names a rank that there is not.
        """
        injection = SimulatedInjection(self, plan.drawn(self.size))
        self.injections.append(injection)
        return injection

    def moment(self, name: str, rank: int | None = None) -> None:
        """Something happens at which a fault plan may wait: a phase begins."""
        for injection in self.injections:
            injection.moment(name, rank)

    def suspect(self, engine: str) -> None:
        """Let an engine miss its beats; it goes on until it is fenced."""
        self.control.given(ev.EngineSuspect(engine, "it misses its beats"))()

    def replace_master(self, most: int | None = None) -> None:
        """Let the master die, and another go on from its record.

        Parameters
        ----------
        most : int, optional
            It dies when it has done so many of the commands that its next event leads to.
        """
        self.control.replace(most)

    def catch_up(self, commands: list[Any]) -> None:
        """Do what another master, that has replayed the record, finds undone."""
        for command in commands:
            if isinstance(command, cmd.Answer) and command.token not in self.answered:
                self._answer(command)
            elif isinstance(command, cmd.Compare):
                self._compare(command)
        for job in self.master.jobs:
            self._job_changed(cmd.JobChanged(job))
        for engine in self.master.fleet.suspects:
            self._fence(cmd.Fence(engine))

    def join(self) -> str:
        """Let a new engine join; return its name."""
        engine = self._new_engine()
        self.tell(ev.EngineJoined(engine))
        return engine

    def fail_next(self, kind: str, times: int = 1) -> None:
        """Let the next ``capture``, ``keep`` (late failure of a capture) or ``load`` fail.

        ``send``: the engine that is to send a snapshot has lost it. ``copy``, ``fill``: an engine
        cannot keep the next copy that comes, or what it has put together itself.
        """
        self.to_fail[kind] = self.to_fail.get(kind, 0) + times

    def fails(self, kind: str, engine: str) -> bool:
        """Whether something shall fail now; the engines ask."""
        left = self.to_fail.get(kind, 0)
        if left:
            self.to_fail[kind] = left - 1
            self.corrupted |= kind in ("load", "send", "fill")
            self.note(f"{kind} fails", engine)
        return left > 0

    def host(self, rank: int) -> str:
        """Return the engine that hosts a rank."""
        return self.master.routes[rank]

    def living(self) -> list[str]:
        """Return the engines that live."""
        return [name for name, engine in self.engines.items() if engine.alive]

    def _new_engine(self) -> str:
        name = f"e{next(self._names)}"
        self.engines[name] = SimulatedEngine(name, self)
        self.control.knows(name)
        return name

    # ------------------------------------------------------------ its course

    def to_peer(self, source: str, target: str, kind: str, content: tuple[Any, ...]) -> None:
        """Send something from engine to engine."""

        def act() -> None:
            if self.engines[target].alive:
                self.engines[target].peer(kind, content)

        self.links.send("data", source, target, Parcel(act, kind, content))

    def step(self) -> bool:
        """Let the next event happen; return False when there is none."""
        if not self.clock.step():
            return False
        if self.check_every and self.events % self.check_every == 0:
            self.check_invariants()
        return True

    def run_until(self, true: Callable[[], Any], most: int = 100_000) -> None:
        """Run until something holds, the notebook has ended, or nothing more happens."""
        for _ in range(most):
            if not self.askers or true() or not self.step():
                return
        raise Hang(f"after {most} events the notebook still waits; {self.story()}")

    def run(self, most: int = 100_000) -> list[Any]:
        """Run to the notebook's end; return what it saw, or raise the error that ended it."""
        self.run_until(lambda: False, most)
        if self.askers:
            raise Hang(f"nothing more happens and the notebook waits; {self.story()}")
        if self.error is not None:
            raise self.error
        return self.outcome

    def settle(self, most: int = 100_000) -> None:
        """Run until nothing more happens."""
        for _ in range(most):
            if not self.step():
                return
        raise Hang(f"after {most} events something still happens; {self.story()}")

    def story(self, lines: int = 30) -> str:
        """Return the last lines of the event log."""
        told = [f"{at:9.2f}  {kind}  {data}" for at, kind, data in self.log[-lines:]]
        questions = [question.event for question in self.open.values() if question.asker]
        return "\n".join([f"asked: {questions}", f"master: {self.master.state}", *told])

    def check_invariants(self) -> None:
        """Raise InternalError where a machine, or all of them together, are in a wrong state."""
        checks.check_world(self)

    # ------------------------------------------------------------ the master's commands

    def execute(self, command: Any) -> None:
        """Do what the master says."""
        _COMMANDS[type(command)](self, command)

    def note(self, kind: str, data: Any) -> None:
        """Write a line of the event log."""
        self.log.append((self.now, kind, data))

    def _to_engine(self, command: cmd.Send) -> None:
        self.control.send(command)

    def _answer(self, command: cmd.Answer) -> None:
        token = command.token
        if token in self.answered:
            raise InternalError(f"token {token} was answered twice")
        self.answered.add(token)
        question = self.open.pop(token)
        if isinstance(question.event, ev.Wait) and command.error is None:
            checks.check_wait(self, question.event)
        asker = question.asker
        if asker is not None:
            error = command.error
            if isinstance(error, str):
                error = Failure(error)
            self.clock.after(
                self.rng.random() * 0.2, lambda: self._go_on(asker, command.value, error)
            )

    def _job_changed(self, command: cmd.JobChanged) -> None:
        job = self.master.jobs[command.job]
        self.view[job.id] = job.state, dict(job.results)

    def _log(self, command: cmd.Log) -> None:
        self.note(command.kind, command.data)
        if command.kind == "committed":
            self.moment("committing")
            shards = checks.check_commit(self)
            for look in self.commits:
                look(shards)
        elif command.kind == "recovering" and command.data["epoch"]:  # the start is no recovery
            self.moment("loading")
        elif command.kind == "failed":
            checks.check_loss(self)

    def _fence(self, command: cmd.Fence) -> None:
        self.clock.after(self.rng.random() * self.detection, lambda: self.kill(command.engine))

    def _replace(self, command: cmd.Replace) -> None:
        if self.replacements:
            self.replacements -= 1
            self.clock.after(2 + self.rng.random() * 20, lambda: void(self.join()))
        else:
            self.clock.after(self.rng.random(), self.control.given(ev.NotReplaced()))

    def _compare(self, command: cmd.Compare) -> None:
        same = command.old == command.new
        self.tell(ev.Compared(command.job, command.rank, same))


def void(value: Any) -> None:
    """Forget a value."""


_COMMANDS: dict[type, Any] = {
    cmd.Send: Simulation._to_engine,
    cmd.Answer: Simulation._answer,
    cmd.JobChanged: Simulation._job_changed,
    cmd.Log: Simulation._log,
    cmd.Fence: Simulation._fence,
    cmd.Replace: Simulation._replace,
    cmd.Compare: Simulation._compare,
}
