"""The record of a named session: what its master is given, in order, on disk.

Another process that replays it has the master as it was (`core.seat`). A session has a directory
(mode 0700) with::

    owner               who has the master's place: its term, its process
    status.json         for people and for the commands of a terminal; never needed to go on
    record-<term>-<n>   an image of the seat, and what it was given since
    lock                held while somebody takes the master's place

What is written survives the end of the process at once; submissions are synced to the disk as well.
A file is made anew, from an image, when it has grown.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feliss_nb.core import events as ev
from feliss_nb.core.seat import Seat
from feliss_nb.errors import SessionTaken, StoreError
from feliss_nb.runtime import wire
from feliss_nb.runtime.claims import give_back, mark, read_owner, write_status
from feliss_nb.runtime.pieces import (
    BLOB,
    EVENT,
    IMAGE,
    JOB,
    MESSAGE,
    NOTE,
    SAID,
    dump,
    file_name,
    files,
    piece,
)

# A file is made anew when what was added is larger than this, and than the image it begins with.
GROWN = 4 << 20


class Record:
    """Writes down what a master is given. Its methods belong to the master's thread.

    Parameters
    ----------
    name : str
        The session's.
    directory : Path
        Its directory, claimed.
    term : int
        Of this master.
    """

    def __init__(self, name: str, directory: Path, term: int) -> None:
        self.name, self.directory, self.term = name, directory, term
        self.notes: dict[Any, Any] = {}
        self.trouble: OSError | None = None  # it does not hold everything any more
        self._fd = -1
        self._number = 0
        self._size = self._image_size = 0
        self._tried = 0.0
        self._shown: dict[str, Any] = {}
        self._mark = mark(self.directory)

    def check(self) -> None:
        """Raise SessionTaken if another master has this one's place."""
        if mark(self.directory) != self._mark:
            owner = read_owner(self.directory)
            who = "it was cleared away" if owner is None else f"process {owner.pid} took it over"
            raise SessionTaken(
                f"session {self.name!r} is not this process's any more ({who}): nothing that is "
                f"done here has an effect. Use it there, or take it back with "
                f"feliss_nb.resume({self.name!r}, force=True)"
            )

    # ------------------------------------------------------------ pieces

    def event(self, event: Any) -> None:
        """Write down an event, before the master gets it.

        Raises
        ------
        SessionTaken
            If another master has the place.
        """
        self._write(piece(EVENT, dump(event)))

    def submission(
        self, event: ev.Submit, blobs: Sequence[wire.Blob], notes: dict[Any, Any]
    ) -> None:
        """Write down a job with its functions and names, all or nothing, down to the disk.

        Raises
        ------
        SessionTaken
            If another master has the place.
        StoreError
            If it cannot be written.
        """
        whole: list[Any] = []
        for blob in blobs:
            whole += piece(BLOB, wire.encode(blob))
        whole += piece(JOB, dump((event, notes)))
        before = self._size
        self._write(whole)
        if self.trouble is None and self._fd >= 0 and not event.internal:
            try:
                os.fsync(self._fd)
            except OSError as error:
                self.trouble = error
                self._shorten(before)
            self.check()
        if self.trouble is not None:
            raise StoreError(
                f"the record of session {self.name!r} cannot be written ({self.trouble}), so the "
                f"submission was not taken: make room on the disk of {self.directory}"
            )
        self.notes.update(notes)

    def message(self, engine: str, frames: Sequence[Any]) -> None:
        """Write down a message of an engine's, as it came."""
        self._write(piece(MESSAGE, [engine.encode(), *frames]))

    def said(self, engine: str, message: Any) -> None:
        """Write down a message that the runtime gives in an engine's name."""
        self._write(piece(SAID, dump((engine, message))))

    def note(self, key: Any, value: Any) -> None:
        """Write down what the runtime needs; None takes it back."""
        if self.notes.get(key) == value:
            return
        if value is None:
            self.notes.pop(key, None)
        else:
            self.notes[key] = value
        self._write(piece(NOTE, dump((key, value))))

    def _write(self, views: list[Any]) -> None:
        if self.trouble is None and self._fd >= 0:
            try:
                self._append(views)
            except OSError as error:
                self.trouble = error
        self.check()

    def _append(self, views: list[Any]) -> None:
        left = [memoryview(view).cast("B") for view in views]
        size = sum(view.nbytes for view in left)
        try:
            while left:
                done = os.writev(self._fd, left[:512])
                while left and done >= left[0].nbytes:
                    done -= left.pop(0).nbytes
                if done:
                    left[0] = left[0][done:]
        except OSError:
            self._shorten(self._size)
            raise
        self._size += size

    def _shorten(self, size: int) -> None:
        """Take back what was not written to its end."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, size)
            self._size = size

    # ------------------------------------------------------------ images

    @property
    def is_long(self) -> bool:
        """Whether it is time for a new image."""
        if self.trouble is not None:  # an image makes it whole again, once there is room
            return time.monotonic() - self._tried > 1.0
        return self._size > self._image_size + max(GROWN, self._image_size)

    def renew(self, seat: Seat, blobs: dict[bytes, wire.Blob]) -> None:
        """Begin a new file with an image of the seat; the one before goes.

        Raises
        ------
        SessionTaken
            If another master has the place.
        """
        self.check()
        self._tried = time.monotonic()
        old, old_size = self._fd, self._size
        name = self.directory / file_name(self.term, self._number + 1)
        staged = self.directory / f".new-{self.term}"
        try:
            self._fd = os.open(
                staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            self._size = 0
            self._append(piece(IMAGE, dump((seat, self.notes, blobs))))
            os.fsync(self._fd)
            os.rename(staged, name)
            here = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(here)
            finally:
                os.close(here)
        except OSError as error:
            if self._fd not in (old, -1):
                os.close(self._fd)
            self._fd, self._size, self.trouble = old, old_size, self.trouble or error
            return
        if old >= 0:
            os.close(old)
        self.trouble = None
        self._number += 1
        self._image_size = self._size
        for term, number in files(self.directory):
            if (term, number) < (self.term, self._number):
                (self.directory / file_name(term, number)).unlink(missing_ok=True)

    def show(self, status: dict[str, Any]) -> None:
        """Tell those who look from outside."""
        if status != self._shown:
            with contextlib.suppress(OSError):
                write_status(self.directory, status)
                self._shown = status

    # ------------------------------------------------------------ the end

    @property
    def is_open(self) -> bool:
        """Whether it holds what another process needs."""
        return self._fd >= 0

    def close(self) -> None:
        """Leave it for another."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        give_back(self.directory, self.term)

    def remove(self) -> None:
        """The session was stopped: nothing is left."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if mark(self.directory) == self._mark:
            shutil.rmtree(self.directory, ignore_errors=True)
