"""ipyparallel engines that somebody else started: looked at, used, left alone."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipyparallel as ipp

from feliss_nb.errors import UsageError
from feliss_nb.runtime.doors import private_directory


class AttachedCluster:
    """Engines that somebody else started, on this machine."""

    own = False
    has_hub = True

    def __init__(self, client: ipp.Client, close: bool) -> None:
        self.directory = private_directory()
        self._client = client
        self._close = close
        self._users: ipp.Client | None = None

    def start(self, count: int, timeout: float, on_wait: Callable[[str], None]) -> list[int]:
        """Return `count` of the engines, after looking whether they fit.

        Raises
        ------
        UsageError
            If there are too few, or one has another Python, lacks this package or is elsewhere.
        """
        ids = sorted(self._client.ids)
        if len(ids) < count:
            raise UsageError(
                f"the cluster has {len(ids)} engines, and {count} are asked for: start more "
                "engines, or ask for fewer workers and spares"
            )
        for engine in ids[:count]:
            _check_engine(self._client, engine, timeout)
        return ids[:count]

    @property
    def controller(self) -> int | None:
        """None: it is somebody else's."""
        return None

    def add(self) -> int | None:
        """Return None: who started the cluster starts engines."""
        return None

    def ids(self) -> set[int]:
        """Return the ids of the engines that the hub takes for alive."""
        return set(self._client.ids)

    def execute(self, engine: int, code: str) -> Any:
        """Run code on an engine; return the asynchronous result."""
        return self._client[engine].execute(code, silent=True, block=False)

    def client(self) -> ipp.Client:
        """Return the client."""
        return self._client

    def directories(self) -> list[str]:
        """Return the session's directory."""
        return [str(self.directory)]

    def leave(self) -> None:
        """Do as at the end: such a session has no record."""
        self.stop()

    def stop(self) -> None:
        """Leave the engines alone; remove the session's directory."""
        if self._close:
            self._client.close(linger=0)
        shutil.rmtree(self.directory, ignore_errors=True)


# Code as text and an answer as text: engines of another Python may not read our pickles.
_PROBE = """
import json as _j, os as _o, platform as _p, socket as _s, importlib.util as _u
_feliss_probe = _j.dumps({"python": _p.python_version_tuple()[:2], "host": _s.gethostname(),
    "boot": open("/proc/sys/kernel/random/boot_id").read().strip()
    if _o.path.exists("/proc/sys/kernel/random/boot_id") else "",
    "pid": _o.getpid(), "package": _u.find_spec("feliss_nb") is not None,
    "uid": _o.getuid() if hasattr(_o, "getuid") else -1})
"""


def _check_engine(client: ipp.Client, engine: int, timeout: float) -> None:
    view = client[engine]
    try:
        view.execute(_PROBE, silent=True, block=False).get(timeout=timeout)
        found = json.loads(view.pull("_feliss_probe", block=False).get(timeout=timeout))
        view.execute("del _feliss_probe, _j, _o, _p, _s, _u", silent=True, block=False)
    except TimeoutError:
        raise UsageError(
            f"engine {engine} did not answer in {timeout:.0f} s: it may be busy with other work"
        ) from None
    check_probe(engine, found)


def check_probe(engine: int, found: dict[str, Any]) -> None:
    """Raise UsageError unless an engine that tells `found` of itself can join a session."""
    mine = list(platform.python_version_tuple()[:2])
    if list(found["python"]) != mine:
        raise UsageError(
            f"engine {engine} runs Python {'.'.join(found['python'])} and this process "
            f"{'.'.join(mine)}: functions travel only between equal versions; start the engines "
            "with this Python"
        )
    boot = Path("/proc/sys/kernel/random/boot_id")
    here = boot.read_text().strip() if boot.exists() else ""
    if found["host"] != socket.gethostname() or found["boot"] != here:
        raise UsageError(
            f"engine {engine} is on another machine ({found['host']}): sessions reach only the "
            "engines of this machine, because channels between machines are not authenticated yet"
        )
    if found["uid"] != os.getuid():
        raise UsageError(f"engine {engine} belongs to another user; start the engines as yourself")
    if not found["package"]:
        raise UsageError(
            f"engine {engine} cannot import feliss_nb: install it in the engines' environment"
        )


def check_client(client: object, profile: str | None, cluster_id: str | None) -> AttachedCluster:
    """Return the cluster that a client, a profile or a cluster id names.

    Raises
    ------
    UsageError
        If nothing is named, or nothing answers there.
    """
    if client is not None:
        if not isinstance(client, ipp.Client):
            raise UsageError(f"client= takes an ipyparallel.Client, not a {type(client).__name__}")
        return AttachedCluster(client, close=False)
    options: dict[str, Any] = {}
    if profile is not None:
        options["profile"] = profile
    if cluster_id is not None:
        options["cluster_id"] = cluster_id
    try:
        return AttachedCluster(ipp.Client(timeout=10, **options), close=True)
    except (OSError, TimeoutError, ipp.error.TimeoutError) as error:
        name = f"profile {profile!r}" if profile else f"cluster {cluster_id!r}"
        what = str(error).partition("\n")[0]  # and then the advice that we give
        raise UsageError(
            f"no ipyparallel cluster answers for {name if options else 'the default profile'}: "
            f"start one with ipcluster start ({what})"
        ) from None
