"""The named sessions of a user, seen from any process: listed, killed in part, ended, cleared away.

What is read here is what a session tells of itself; nothing of it is unpickled.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from feliss_nb.errors import UsageError
from feliss_nb.runtime import claims
from feliss_nb.runtime.doors import PREFIX
from feliss_nb.runtime.owner import Process, processes_in
from feliss_nb.runtime.replaying import Found
from feliss_nb.runtime.table import Table, human_seconds

# A session that is starting has made its directory and binds to its first socket a little later.
SETTLED = 60.0  # seconds


def any_engine(found: Found) -> bool:
    """Whether an engine of a session lives."""
    engines = [value for key, value in found.notes.items() if key[0] == "engine"]
    return any(claims.is_alive(*engine) for engine in engines)


def can_be_resumed(name: str) -> bool:
    """Whether engines of a named session live which have no master."""
    directory = claims.directory_of(name)
    owner = claims.read_owner(directory)
    if owner is None or owner.is_alive():
        return False
    return _engines_alive(claims.read_status(directory)) > 0


def _engines_alive(status: dict[str, Any]) -> int:
    return sum(claims.is_alive(*engine) for engine in status.get("engines", {}).values())


def directories() -> list[Path]:
    """Return the directories of the named sessions."""
    home = claims.home()
    return sorted(path for path in home.iterdir() if path.is_dir()) if home.is_dir() else []


def look() -> list[dict[str, Any]]:
    """Return how each named session is of which something is alive, or that can go on.

    Times are seconds. What a session tells of itself is as its last master knew it.
    """
    found = []
    for directory in directories():
        owner, status = claims.read_owner(directory), claims.read_status(directory)
        if owner is None:
            continue
        engines = _engines_alive(status)
        has_owner, stored = owner.is_alive(), bool(status.get("stored"))
        if not (engines or has_owner or stored or claims.alive_processes(directory)):
            continue
        if has_owner:
            process = f"process {owner.pid}"
        elif engines:
            process = "gone: resume it"
        elif stored:
            process = "gone: resume it from its store"
        else:
            process = "gone, with all engines: clean removes it"
        since, jobs = status.get("since"), list(status.get("jobs", ()))
        found.append(
            {
                "session": unquote(directory.name),
                "state": status.get("state", "starting") if has_owner else "no master",
                "engines": engines,
                "owner": process,
                "running": jobs if has_owner else [],
                "last_running": [] if has_owner else jobs,
                "age": None if since is None else max(time.time() - since, 0.0),
            }
        )
    return found


def list_sessions() -> Table:
    """Return the named sessions of which something is alive, or that can go on."""
    rows = []
    for found in look():
        running, ran = found["running"], found["last_running"]
        jobs = f"last told: {', '.join(ran)}" if ran else tuple(running)
        age = None if found["age"] is None else human_seconds(found["age"])
        rows.append((*(found[key] for key in ("session", "state", "engines", "owner")), jobs, age))
    columns = ("session", "state", "engines", "owner", "running", "age")
    return Table("named sessions", columns, rows)


def _there(name: str) -> Path:
    directory = claims.directory_of(name)
    if claims.read_owner(directory) is None:
        known = ", ".join(unquote(path.name) for path in directories()) or "there are none"
        raise UsageError(f"there is no session named {name!r} (named sessions: {known})")
    return directory


def kill_rank(name: str, rank: int) -> int:
    """Kill the engine that hosts a rank of a named session; return its process.

    Raises
    ------
    UsageError
        If there is no such session or rank, or the engine has ended.
    """
    status = claims.read_status(_there(name))
    engine = status.get("ranks", {}).get(str(rank))
    if engine is None:
        last = len(status.get("ranks", {})) - 1
        raise UsageError(f"session {name!r} has no rank {rank}: ranks are 0 to {last}")
    process = _living(status.get("engines", {}).get(engine))
    if process is None:
        raise UsageError(
            f"the engine of rank {rank} has ended already; another takes its place as soon as the "
            "session has a master"
        )
    process.kill()
    process.ended(5.0)
    process.close()
    return process.pid


def _living(engine: tuple[int, float] | None) -> Process | None:
    """Return the process of an engine; None if it has ended, though nobody has looked yet."""
    if engine is None or not claims.is_alive(*engine):
        return None
    try:
        return Process(*engine)
    except ProcessLookupError:
        return None


def end(name: str) -> None:
    """End a named session whose process is gone: its engines, its files.

    Raises
    ------
    UsageError
        If there is none, or its process lives.
    """
    directory, _ = claims.take(name, force=False)
    clear(directory)


def clear(directory: Path) -> None:
    """Remove a session, with all of its processes."""
    status = claims.read_status(directory)
    found = []
    for each in claims.alive_processes(directory):
        with contextlib.suppress(ProcessLookupError):
            found.append(Process(each.pid))
    for process in found:
        process.kill()
    for process in found:
        process.ended(5.0)
        process.close()
    for each in status.get("directories", ()):
        if _is_ours(Path(each)):
            shutil.rmtree(each, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)


def clean() -> list[str]:
    """Remove what nobody uses any more; return what was removed.

    Named sessions without a master, an engine and a store, and the private directories of sessions
    whose processes have all ended.
    """
    removed = []
    for directory in directories():
        with claims.locked(directory):
            owner = claims.read_owner(directory)
            status = claims.read_status(directory)
            if owner is not None and (
                owner.is_alive()
                or _engines_alive(status)
                or status.get("stored")  # it goes on from its last checkpoint there
            ):
                continue
            clear(directory)
            removed.append(f"session {unquote(directory.name)!r}")
    in_use = _bound()
    for base in {Path(tempfile.gettempdir()), Path(os.sep, "tmp")}:
        for path in base.glob(f"{PREFIX}*"):
            if not _is_ours(path) or time.time() - path.stat().st_mtime < SETTLED:
                continue
            is_used = any(name.startswith(f"{path}{os.sep}") for name in in_use)
            if not (is_used or processes_in(str(path))):
                shutil.rmtree(path, ignore_errors=True)
                removed.append(str(path))
    return removed


def _is_ours(path: Path) -> bool:
    """Whether this is a directory that a session of this user made for itself."""
    try:
        status = path.lstat()
    except OSError:
        return False
    mine = status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return mine and stat.S_ISDIR(status.st_mode) and path.name.startswith(PREFIX)


def _bound() -> list[str]:
    """Return the files of all sockets of this machine that are bound to one."""
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    return [words[7] for line in lines if len(words := line.split(maxsplit=7)) > 7]
