"""What the record of a named session comes to, when it is given to a master again."""

from __future__ import annotations

import os
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feliss_nb.core import commands as cmd
from feliss_nb.core import events as ev
from feliss_nb.core.seat import Commands, Seat
from feliss_nb.errors import CorruptSnapshot, UsageError
from feliss_nb.runtime import pieces, wire
from feliss_nb.store.files import private

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class Found:
    """What a record comes to.

    Parameters
    ----------
    seat : Seat
        The master's place, as it was.
    notes : dict
        What the runtime noted: settings, names, engines.
    blobs : dict of bytes to Blob
        The functions that jobs need.
    compares : dict of (int, int) to Compare
        Comparisons that were not answered.
    term : int
        Of the master that goes on.
    """

    seat: Seat
    notes: dict[Any, Any] = field(default_factory=dict)
    blobs: dict[bytes, wire.Blob] = field(default_factory=dict)
    compares: dict[tuple[int, int], cmd.Compare] = field(default_factory=dict)
    term: int = 0

    def note(self, key: Any, value: Any) -> None:
        """Take a note; None takes it back."""
        if value is None:
            self.notes.pop(key, None)
        else:
            self.notes[key] = value

    def handle(self, event: Any) -> None:
        """Give the master an event again."""
        if isinstance(event, ev.Compared):
            self.compares.pop((event.job, event.rank), None)
        self._take(self.seat.handle(event))

    def hear(self, engine: str, message: Any, number: int) -> None:
        """Give the master a message again."""
        self._take(self.seat.hear(engine, message, number))

    def _take(self, commands: Commands) -> None:
        for command in commands:
            if isinstance(command, cmd.Compare):
                self.compares[command.job, command.rank] = command


def read(directory: Path) -> Found | None:
    """Replay the newest record of a session; None where there is none.

    Raises
    ------
    UsageError
        If others could write there.
    CorruptSnapshot
        If it is damaged, other than at its end.
    """
    with private(str(directory)) as here:
        newest = max(pieces.files(directory), default=None)
        if newest is None:
            return None
        name = pieces.file_name(*newest)
        fd = os.open(name, _READ, dir_fd=here)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise UsageError(f"{directory / name} is not yours alone: it is not read")
            data = memoryview(file.read())
    return replay(data, str(directory / name))


def replay(data: memoryview, where: str) -> Found:
    """Return what the content of a record comes to."""
    found: Found | None = None
    tokens: dict[int, Future[Any]] = {}
    for kind, frames in pieces.parse(data, where):
        if kind == pieces.IMAGE:
            found = Found(*pieces.load(frames, tokens))
        elif found is None:
            raise CorruptSnapshot(f"{where} does not begin as a record does")
        elif kind == pieces.EVENT:
            found.handle(pieces.load(frames, tokens))
        elif kind == pieces.JOB:
            event, notes = pieces.load(frames, tokens)
            found.handle(event)
            found.notes.update(notes)
        elif kind == pieces.MESSAGE:
            engine = bytes(frames[0]).decode()
            numbered = wire.decode(frames[1:])
            found.hear(engine, numbered.message, numbered.number)
        elif kind == pieces.SAID:
            engine, message = pieces.load(frames, tokens)
            found.hear(engine, message, 0)
        elif kind == pieces.BLOB:
            blob = wire.decode(frames)
            found.blobs[blob.digest] = blob
        elif kind == pieces.NOTE:
            found.note(*pieces.load(frames, tokens))
    if found is None:
        raise CorruptSnapshot(f"{where} holds nothing")
    return found
