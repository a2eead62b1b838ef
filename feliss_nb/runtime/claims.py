"""Where named sessions are, and who has the master's place of one: its term, its process.

The file ``owner`` of a session's directory (mode 0700) says it. Who takes the place holds ``lock``
meanwhile, and writes another term there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from feliss_nb.errors import CorruptSnapshot, UsageError
from feliss_nb.runtime.owner import Process, processes_in, start_time
from feliss_nb.store.files import make_private, private

STATE = "FELISS_NB_STATE"
LONGEST_NAME = 200  # bytes, quoted; a file's name has at most 255

_OWNER, _STATUS, _LOCK = "owner", "status.json", "lock"


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


def write_status(directory: Path, status: dict[str, Any]) -> None:
    """Let a session tell of itself."""
    _write_whole(directory / _STATUS, json.dumps(status))


def _write_whole(path: Path, text: str) -> None:
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
    _write_whole(directory / _OWNER, json.dumps(me))
    return term


def give_back(directory: Path, term: int) -> None:
    """Leave a session to whoever goes on with it, before this process ends."""
    with contextlib.suppress(OSError, UsageError), locked(directory):
        owner = read_owner(directory)
        if owner is not None and owner.term == term:
            _write_whole(directory / _OWNER, json.dumps({"term": term, "pid": 0, "started": 0.0}))


def mark(directory: Path) -> tuple[int, int]:
    """Return what changes when another master takes the place."""
    try:
        status = os.stat(directory / _OWNER)
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def alive_processes(directory: Path) -> list[psutil.Process]:
    """Return the processes of a session that live: engines, nannies, the controller."""
    found = read_status(directory).get("directories", ())
    return processes_in(found[0]) if found else []
