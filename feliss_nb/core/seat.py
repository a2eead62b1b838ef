"""The master's place: its machine, and its ends of the links to the engines.

Rules
-----
* A seat is a function of what it was given, in order. Whoever replays that has the same machine,
  and has numbered the same messages to the engines in the same way; so another master goes on
  where the one before ended, and no rank notices.
* Messages are numbered on each link, and kept until the other end has heard them. Ends that meet
  again tell each other how many they have heard; what is missing is sent again, what comes twice is
  dropped. So a message arrives once, in order, whichever process ended meanwhile.
* What is given to the seat is in the record before anything of what follows from it goes out.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from feliss_nb.core import commands as cmd
from feliss_nb.core import events as ev
from feliss_nb.core import messages as m
from feliss_nb.core.master import Master
from feliss_nb.errors import InternalError

Commands = list[Any]


@dataclass(slots=True)
class Link:
    """One end of a link between the master and an engine.

    Parameters
    ----------
    sent, heard : int
        The numbers of the last message that was sent, and of the last one that came.
    kept : deque of (int, object)
        What was sent, until the other end has heard it.
    """

    sent: int = 0
    heard: int = 0
    kept: deque[tuple[int, Any]] = field(default_factory=deque)

    def keep(self, message: Any) -> int:
        """Give a message its number."""
        self.sent += 1
        self.kept.append((self.sent, message))
        return self.sent

    def is_new(self, number: int) -> bool:
        """Whether a message is the next one; if not, it has come before.

        Raises
        ------
        InternalError
            If one before it is missing.
        """
        if number > self.heard + 1:
            raise InternalError(f"message {number} came behind {self.heard}")
        return number == self.heard + 1

    def acknowledged(self, heard: int) -> None:
        """The other end has heard the messages up to this one."""
        while self.kept and self.kept[0][0] <= heard:
            self.kept.popleft()

    def again(self, heard: int) -> list[tuple[int, Any]]:
        """Return what an end that has heard so much lacks."""
        self.acknowledged(heard)
        return list(self.kept)


class Seat:
    """A master with its links.

    Parameters
    ----------
    master : Master
        In its first state.
    """

    def __init__(self, master: Master) -> None:
        self.master = master
        self.links: dict[m.Engine, Link] = {}

    def link(self, engine: m.Engine) -> Link:
        """Return the link to an engine."""
        return self.links.setdefault(engine, Link())

    def handle(self, event: Any) -> Commands:
        """Give the master an event; what it tells engines comes back as `Send`."""
        commands = self._numbered(self.master.handle(event))
        if isinstance(event, ev.EngineLost):
            self.links.pop(event.engine, None)
        return commands

    def is_new(self, engine: m.Engine, number: int) -> bool:
        """Whether a message of an engine's is to be heard; it may be late, or have come before."""
        return engine not in self.master.gone and self.link(engine).is_new(number)

    def acknowledged(self, engine: m.Engine, heard: int) -> None:
        """An engine has heard the messages up to this one."""
        if engine in self.links:
            self.links[engine].acknowledged(heard)

    def hear(self, engine: m.Engine, message: Any, number: int = 0) -> Commands:
        """Give the master an engine's message.

        Parameters
        ----------
        engine : str
        message : object
        number : int
            Its number on the link; 0: the runtime speaks for the engine.
        """
        if number:
            if not self.is_new(engine, number):
                return []
            self.link(engine).heard = number
        return self._numbered(self.master.hear(engine, message))

    def _numbered(self, commands: Commands) -> Commands:
        return [
            self._number(command) if isinstance(command, cmd.ToEngine) else command
            for command in commands
        ]

    def _number(self, order: cmd.ToEngine) -> cmd.Send:
        number = self.link(order.engine).keep(order.message)
        return cmd.Send(order.engine, number, order.message)
