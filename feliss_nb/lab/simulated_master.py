"""The master of a simulation: its end of the links to engines, and another one in its place.

With a record, what the master is given is kept. When it dies, what is under way to it, and a part
of what it has sent, is lost with it, and another goes on from the record.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from feliss_nb.core import commands as cmd
from feliss_nb.core.master import Master
from feliss_nb.core.seat import Seat
from feliss_nb.errors import InternalError
from feliss_nb.lab import simulator_checks as checks
from feliss_nb.lab.simulated_network import Parcel, lose

if TYPE_CHECKING:
    from feliss_nb.lab.simulator import Simulation

MASTER, NOTEBOOK = "master", "notebook"


class SimulatedMaster:
    """Gives the machine its events and messages; engines meet it.

    Parameters
    ----------
    simulation : Simulation
        Carries out what the machine commands.
    master : Master
        The first one.
    record : bool
        Keep what another master needs to go on.

    Attributes
    ----------
    seat : Seat
        The machine of the master that lives.
    term : int
        Counts the masters.
    """

    def __init__(self, simulation: Simulation, master: Master, record: bool) -> None:
        self.seat = Seat(master)
        self.term = 0
        self._simulation = simulation
        self._connected: dict[str, int] = {}  # an engine -> the term of its master
        self._record: list[tuple[Any, ...]] | None = [] if record else None
        self._image = copy.deepcopy(self.seat)  # what the record begins with
        self._most: int | None = None  # commands until it dies in the middle of them

    def knows(self, engine: str) -> None:
        """A new engine turns to the master of now."""
        self._connected[engine] = self.term

    # ------------------------------------------------------------ given

    def given(self, event: Any) -> Callable[[], None]:
        """Return what lets the master have an event."""

        def act() -> None:
            if self._record is not None:
                self._record.append(("event", copy.deepcopy(event)))
            self._execute(self.seat.handle(event))

        return act

    def hear(self, source: str, message: Any) -> None:
        """Send a worker's message to the master."""
        number = self._simulation.engines[source].link.keep(message)
        if self._connected[source] == self.term:
            self._post(source, number, message)

    def _post(self, source: str, number: int, message: Any) -> None:
        heard = self._simulation.engines[source].link.heard

        def act() -> None:
            if self.seat.is_new(source, number):
                self.seat.link(source).acknowledged(heard)
                if self._record is not None:
                    self._record.append(("message", source, copy.deepcopy(message), number))
                self._execute(self.seat.hear(source, message, number))

        parcel = Parcel(act, "message", message, term=self.term)
        self._simulation.links.send("control", source, MASTER, parcel)

    # ------------------------------------------------------------ commanded

    def _execute(self, commands: list[Any]) -> None:
        do = self._simulation.execute
        if self._most is None:
            for command in commands:
                do(command)
            return
        # It dies before it has done all of this.
        commands, undone = commands[: self._most], commands[self._most :]
        self._most = None
        for command in commands:
            do(command)
        self._die()
        for command in undone:  # the next one sees which engines have not come
            if isinstance(command, cmd.Replace):
                do(command)

    def send(self, command: cmd.Send) -> None:
        """Send a message of the master's to an engine."""
        engine = self._simulation.engines[command.engine]
        number, message = command.number, command.message
        if self._connected[engine.name] != self.term:
            return  # it is sent when they have met
        heard = self.seat.link(engine.name).heard

        def act() -> None:
            if engine.alive and engine.link.is_new(number):
                engine.link.heard = number
                engine.link.acknowledged(heard)
                engine.hear(message)

        parcel = Parcel(act, "order", message, term=self.term)
        self._simulation.links.send("control", MASTER, engine.name, parcel)

    # ------------------------------------------------------------ replaced

    @property
    def is_recorded(self) -> bool:
        """Whether another one can go on where it ends."""
        return self._record is not None

    def replace(self, most: int | None) -> None:
        """Let it die, now or when it has done so many of its next commands."""
        if self._record is None:
            raise InternalError("nothing was recorded")
        if most is None:
            self._die()
        else:
            self._most = most

    def _die(self) -> None:
        simulation = self._simulation
        simulation.note("another master", self.term + 1)
        for (plane, source, target), parcels in simulation.links.under_way.items():
            if plane != "control" or source == NOTEBOOK:
                continue
            lose(parcels, 0 if target == MASTER else simulation.rng.randint(0, len(parcels)))
        before, self.seat = self.seat, copy.deepcopy(self._image)
        self.term += 1
        commands: list[Any] = []
        for kind, *what in copy.deepcopy(self._record or []):
            commands += self.seat.handle(*what) if kind == "event" else self.seat.hear(*what)
        checks.check_replay(before, self.seat)
        if simulation.rng.random() < 0.5:  # the record begins anew now and then
            self._image, self._record = copy.deepcopy(self.seat), []
        simulation.catch_up(commands)
        for name in simulation.engines:
            simulation.clock.after(
                simulation.rng.random() * simulation.delay, partial(self._meet, name)
            )

    def _meet(self, name: str) -> None:
        """Let an engine meet the master of now: each tells what it has heard."""
        engine = self._simulation.engines[name]
        if not engine.alive or self._connected[name] == self.term:
            return
        for key in (("control", name, MASTER), ("control", MASTER, name)):
            for parcel in self._simulation.links.under_way.get(key, ()):
                if parcel.term < self.term:
                    parcel.lost = True
        self._connected[name] = self.term
        if name in self.seat.master.gone:
            return
        mine = self.seat.link(name)
        for number, message in mine.again(engine.link.heard):
            self.send(cmd.Send(name, number, message))
        for number, message in engine.link.again(mine.heard):
            self._post(name, number, message)
