"""The record of a named session: what its master was given, in order, on disk.

Another process that replays it has the master as it was (`core.seat`). A session has a directory
(mode 0700) with::

    owner               who has the master's place: its term, its process
    status.json         for people and for the commands of a terminal; never needed to go on
    record-<term>-<n>   an image of the seat, and what it was given since
    lock                held while somebody takes the master's place

What is written survives the end of the process at once; submissions are synced to the disk as well.
A file is made anew, from an image, when it has grown. Each piece has its length and its digest, so
that one whose writing was interrupted is told from a whole one.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pickle
import re
import shutil
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import xxhash

from feliss_nb.core import messages as m
from feliss_nb.core.seat import Commands, Seat
from feliss_nb.errors import CorruptSnapshot, SessionTaken, StoreError, UsageError
from feliss_nb.runtime import wire
from feliss_nb.runtime.owner import Process, processes_in, start_time
from feliss_nb.store.files import make_private, private

STATE = "FELISS_NB_STATE"
LONGEST_NAME = 200  # bytes, quoted; a file's name has at most 255

# A file is made anew when what was added is larger than this, and than the image it begins with.
GROWN = 4 << 20

_OWNER, _STATUS, _LOCK = "owner", "status.json", "lock"
_FILE = re.compile(r"record-(\d+)-(\d+)")
# The length of the table, that of all frames, the digest of both, and that of the numbers before.
_HEAD = struct.Struct("<QQ16s8s")
_CHECK = 8
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

# What a piece is.
_IMAGE, _EVENT, _JOB, _MESSAGE, _SAID, _BLOB, _NOTE = (bytes([c]) for c in b"IEJMSBN")


def home() -> Path:
    """Return the directory of all named sessions of this user."""
    found = os.environ.get(STATE)
    if found:
        return Path(found).expanduser().absolute() / "sessions"
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "feliss_nb" / "sessions"


def directory_of(name: str) -> Path:
    """Return the directory of a session, whether it is there or not.

    Raises
    ------
    UsageError
        If the name is too long to be a file's.
    """
    if not isinstance(name, str) or not name:
        raise UsageError(f"a session's name is a text, not {name!r}")
    quoted = quote(name, safe="")
    if quoted.startswith("."):
        quoted = "%2E" + quoted[1:]
    if len(quoted) > LONGEST_NAME:
        raise UsageError(f"name= is too long: {LONGEST_NAME} letters at most, not {len(quoted)}")
    return home() / quoted


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has the master's place."""

    term: int
    pid: int
    started: float

    def is_alive(self) -> bool:
        """Whether its process lives."""
        return self.pid > 0 and is_alive(self.pid, self.started)


def is_alive(pid: int, started: float) -> bool:
    """Whether a process lives, and is the one that began then."""
    try:
        process = Process(pid, started)
    except ProcessLookupError:
        return False
    ended = process.ended()
    process.close()
    return not ended


def read_owner(directory: Path) -> Owner | None:
    """Return who has the master's place of a session; None where nobody ever had."""
    try:
        found = Owner(**json.loads((directory / _OWNER).read_text()))
        if [type(value) for value in (found.term, found.pid, found.started)] == [int, int, float]:
            return found
        raise ValueError("it does not say who has the place")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as error:
        raise CorruptSnapshot(f"{directory / _OWNER} cannot be read: {error}") from None


def read_status(directory: Path) -> dict[str, Any]:
    """Return what a session has told of itself; empty where there is nothing."""
    try:
        found = json.loads((directory / _STATUS).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole, or as it was before."""
    staged = path.with_name(f".{path.name}-{os.getpid()}")
    staged.write_text(text)
    os.chmod(staged, 0o600)
    os.replace(staged, path)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Let one process at a time take the master's place, or begin, or clear up."""
    while True:
        make_private(str(directory))
        with private(str(directory)) as here:
            lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=here)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if os.fstat(lock).st_nlink:  # else it was cleared away meanwhile, as a whole
                    yield
                    return
            finally:
                os.close(lock)


# ---------------------------------------------------------------- pieces


def _piece(kind: bytes, frames: Sequence[Any]) -> list[Any]:
    views = [memoryview(frame).cast("B") for frame in frames]
    table = kind + struct.pack(f"<{len(views)}Q", *(view.nbytes for view in views))
    state = xxhash.xxh3_128(table)
    for view in views:
        state.update(view)
    size = sum(view.nbytes for view in views)
    head = _HEAD.pack(len(table), size, state.digest(), b"")
    return [head[:-_CHECK] + xxhash.xxh3_64_digest(head[:-_CHECK]), table, *views]


def pieces(data: memoryview, where: str) -> Iterator[tuple[bytes, list[memoryview], int]]:
    """Yield (kind, frames, end) of what a record holds; a last one that is not whole is left out.

    Raises
    ------
    CorruptSnapshot
        If one in the middle is not what was written.
    """
    at, end = 0, data.nbytes
    while at + _HEAD.size <= end:
        head = data[at : at + _HEAD.size]
        table_size, size, digest, check = _HEAD.unpack(head)
        if xxhash.xxh3_64_digest(head[:-_CHECK]) != check:
            if not any(data[at:]):  # room that the disk gave, and no more
                return
            raise CorruptSnapshot(f"{where} is damaged at byte {at}")
        stop = at + _HEAD.size + table_size + size
        if stop > end:
            return
        body = data[at + _HEAD.size : stop]
        if xxhash.xxh3_128(body).digest() != digest:
            if stop == end:
                return
            raise CorruptSnapshot(f"{where} is damaged at byte {at}")
        table = bytes(body[:table_size])
        lengths = struct.unpack(f"<{(table_size - 1) // 8}Q", table[1:])
        frames, place = [], table_size
        for length in lengths:
            frames.append(body[place : place + length])
            place += length
        yield table[:1], frames, stop
        at = stop


class _Pickler(pickle.Pickler):
    """Futures are the process's own: whoever waits for one ends with it."""

    def persistent_id(self, obj: Any) -> Any:
        return ("token", id(obj)) if isinstance(obj, Future) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, tokens: dict[int, Future[Any]], buffers: Any = None) -> None:
        super().__init__(file, buffers=buffers)
        self._tokens = tokens

    def persistent_load(self, pid: Any) -> Any:
        return self._tokens.setdefault(pid[1], Future())


def _dump(obj: Any) -> list[Any]:
    file, frames = io.BytesIO(), []

    def out_of_band(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < wire.SMALL:
            return True
        frames.append(view)
        return False

    _Pickler(file, protocol=5, buffer_callback=out_of_band).dump(obj)
    return [file.getbuffer(), *frames]


def _load(frames: Sequence[Any], tokens: dict[int, Future[Any]]) -> Any:
    return _Unpickler(io.BytesIO(frames[0]), tokens, frames[1:]).load()


# ---------------------------------------------------------------- what was recorded


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
    compares: dict[tuple[int, int], m.Compare] = field(default_factory=dict)
    term: int = 0

    def note(self, key: Any, value: Any) -> None:
        """Take a note; None takes it back."""
        if value is None:
            self.notes.pop(key, None)
        else:
            self.notes[key] = value

    def handle(self, event: Any) -> None:
        """Give the master an event again."""
        if isinstance(event, m.Compared):
            self.compares.pop((event.job, event.rank), None)
        self._take(self.seat.handle(event))

    def hear(self, engine: str, message: Any, number: int) -> None:
        """Give the master a message again."""
        self._take(self.seat.hear(engine, message, number))

    def _take(self, commands: Commands) -> None:
        for command in commands:
            if isinstance(command, m.Compare):
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
        newest = max(_files(directory), default=None)
        if newest is None:
            return None
        name = "record-{}-{}".format(*newest)
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
    for kind, frames, _ in pieces(data, where):
        if kind == _IMAGE:
            found = Found(*_load(frames, tokens))
        elif found is None:
            raise CorruptSnapshot(f"{where} does not begin as a record does")
        elif kind == _EVENT:
            found.handle(_load(frames, tokens))
        elif kind == _JOB:
            event, notes = _load(frames, tokens)
            found.handle(event)
            found.notes.update(notes)
        elif kind == _MESSAGE:
            engine = bytes(frames[0]).decode()
            numbered = wire.decode(frames[1:])
            found.hear(engine, numbered.message, numbered.number)
        elif kind == _SAID:
            engine, message = _load(frames, tokens)
            found.hear(engine, message, 0)
        elif kind == _BLOB:
            blob = wire.decode(frames)
            found.blobs[blob.digest] = blob
        elif kind == _NOTE:
            found.note(*_load(frames, tokens))
    if found is None:
        raise CorruptSnapshot(f"{where} holds nothing")
    return found


def _files(directory: Path) -> list[tuple[int, int]]:
    names = [_FILE.fullmatch(path.name) for path in directory.iterdir()]
    return [(int(name[1]), int(name[2])) for name in names if name is not None]


# ---------------------------------------------------------------- who writes it


def begin(name: str) -> tuple[Path, int]:
    """Take the master's place of a session that is new; return its directory, and the term.

    Raises
    ------
    UsageError
        If there is one of this name.
    """
    directory = directory_of(name)
    with locked(directory):
        owner = read_owner(directory)
        if owner is not None:
            if owner.is_alive():
                raise UsageError(
                    f"a session named {name!r} is up (process {owner.pid}): stop it, or use "
                    "another name"
                )
            if alive_processes(directory):
                raise UsageError(
                    f"a session named {name!r} outlived its process: go on with it by "
                    f"feliss_nb.resume({name!r}), end it by feliss-nb stop {name}, or use "
                    "another name"
                )
            for path in directory.iterdir():
                if path.name != _LOCK:
                    path.unlink()
        return directory, _claim(directory, 1)


def take(name: str, force: bool) -> tuple[Path, int]:
    """Take the master's place of a session that is there; return its directory, and the term.

    Raises
    ------
    UsageError
        If there is none, or its owner lives.
    """
    directory = directory_of(name)
    owner = read_owner(directory)
    if owner is None:
        known = ", ".join(sorted(path.name for path in home().glob("*"))) or "there are none"
        raise UsageError(
            f"there is no session named {name!r} to go on with (named sessions: {known}); one "
            "that was stopped has left nothing"
        )
    with locked(directory):
        owner = read_owner(directory)
        if owner is None:
            shutil.rmtree(directory, ignore_errors=True)
            raise UsageError(f"session {name!r} was stopped just now")
        if owner.is_alive() and not force:
            where = "this process" if owner.pid == os.getpid() else f"process {owner.pid}"
            raise UsageError(
                f"session {name!r} is up in {where}: use it there, or take it over with "
                f"feliss_nb.resume({name!r}, force=True), which ends its use there"
            )
        return directory, _claim(directory, owner.term + 1)


def _claim(directory: Path, term: int) -> int:
    me = {"term": term, "pid": os.getpid(), "started": start_time(os.getpid())}
    write_whole(directory / _OWNER, json.dumps(me))
    return term


def give_back(directory: Path, term: int) -> None:
    """Leave a session to whoever goes on with it, before this process ends."""
    with contextlib.suppress(OSError, UsageError), locked(directory):
        owner = read_owner(directory)
        if owner is not None and owner.term == term:
            write_whole(directory / _OWNER, json.dumps({"term": term, "pid": 0, "started": 0.0}))


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
        self._mark = self._look()

    def _look(self) -> tuple[int, int]:
        try:
            status = os.stat(self.directory / _OWNER)
        except FileNotFoundError:
            return 0, 0
        return status.st_ino, status.st_mtime_ns

    def check(self) -> None:
        """Raise SessionTaken if another master has this one's place."""
        if self._look() != self._mark:
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
        self._write(_piece(_EVENT, _dump(event)))

    def submission(
        self, event: m.Submit, blobs: Sequence[wire.Blob], notes: dict[Any, Any]
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
            whole += _piece(_BLOB, wire.encode(blob))
        whole += _piece(_JOB, _dump((event, notes)))
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
        self._write(_piece(_MESSAGE, [engine.encode(), *frames]))

    def said(self, engine: str, message: Any) -> None:
        """Write down a message that the runtime gives in an engine's name."""
        self._write(_piece(_SAID, _dump((engine, message))))

    def note(self, key: Any, value: Any) -> None:
        """Write down what the runtime needs; None takes it back."""
        if self.notes.get(key) == value:
            return
        if value is None:
            self.notes.pop(key, None)
        else:
            self.notes[key] = value
        self._write(_piece(_NOTE, _dump((key, value))))

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
        name = self.directory / f"record-{self.term}-{self._number + 1}"
        staged = self.directory / f".new-{self.term}"
        try:
            self._fd = os.open(
                staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            self._size = 0
            self._append(_piece(_IMAGE, _dump((seat, self.notes, blobs))))
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
        for term, number in _files(self.directory):
            if (term, number) < (self.term, self._number):
                (self.directory / f"record-{term}-{number}").unlink(missing_ok=True)

    def show(self, status: dict[str, Any]) -> None:
        """Tell those who look from outside."""
        if status != self._shown:
            with contextlib.suppress(OSError):
                write_whole(self.directory / _STATUS, json.dumps(status))
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
        if self._look() == self._mark:
            shutil.rmtree(self.directory, ignore_errors=True)


# ---------------------------------------------------------------- processes


def alive_processes(directory: Path) -> list[psutil.Process]:
    """Return the processes of a session that live: engines, nannies, the controller."""
    found = read_status(directory).get("directories", ())
    return processes_in(found[0]) if found else []
