"""ipyparallel engines of a session's own: started, found, killed, stopped."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import ipyparallel as ipp
import psutil
import zmq
from traitlets.config import Config

from feliss_nb.errors import FelissError
from feliss_nb.runtime import mpiexec, owner
from feliss_nb.runtime.doors import private_directory
from feliss_nb.runtime.owner import Process, processes_in, start_time
from feliss_nb.runtime.waiting_out import wait_out

# The hub registers an engine after it answered a beat, so a short period starts engines sooner. A
# stopped process is taken for lost after MISSES beats, 5 s: a busy machine delays beats, and
# fencing a live engine costs a recovery.
BEAT = 250  # ms
MISSES = 20

# What a controller binds: 18, with its two levels of broadcasting.
PORTS = 20


class Engines(Protocol):
    """Where a session's engines come from."""

    directory: Path
    own: bool
    has_hub: bool

    def start(self, count: int, timeout: float, on_wait: Callable[[str], None]) -> list[int]:
        """Return the ids of `count` engines that are up."""

    @property
    def controller(self) -> int | None:
        """The controller's process id, if it is ours."""

    def add(self) -> int | None:
        """Start one more engine and return its id; None if that cannot be done here."""

    def ids(self) -> set[int]:
        """Return the ids of the engines that the hub takes for alive."""

    def execute(self, engine: int, code: str) -> Any:
        """Run code on an engine; return a handle of its outcome."""

    def client(self) -> ipp.Client:
        """Return a client for the user."""

    def directories(self) -> list[str]:
        """Return the directories that the session's end removes."""

    def leave(self) -> None:
        """Let go of what runs: another process may go on with it."""

    def stop(self) -> None:
        """End what was started here, and leave nothing."""


class OwnCluster:
    """A controller and engines of this session, in its private directory.

    Parameters
    ----------
    engines : {"local", "mpi"}
        Whether each engine is started by itself, or all of them by one mpiexec.
    """

    own = True
    has_hub = True

    def __init__(self, engines: str = "local") -> None:
        options: dict[str, Any] = {"config": Config()}
        # Their order is nobody's matter, so none waits for the one before it.
        options["config"].LocalEngineSetLauncher.delay = 0.0
        is_mpi = engines == "mpi"
        if is_mpi:
            found = mpiexec.find_mpiexec()
        self.directory = private_directory()
        self._shared = mpiexec.memory_directory(self.directory)
        if is_mpi:
            self._shared.mkdir(mode=0o700)
            options["engines"] = "mpi"
            launcher = options["config"].MPIEngineSetLauncher
            launcher.mpi_cmd = mpiexec.command(found)
            launcher.mpi_args = mpiexec.arguments(self.directory)
        self._is_found = False
        self._ports: list[socket.socket] = []
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._processes: list[Process] = []
        self._client: ipp.Client | None = None
        self._users: ipp.Client | None = None
        try:
            self._ports += _reserve_ports()
            self._write_configuration()
            self._cluster = ipp.Cluster(
                profile_dir=str(self.directory / "profile"),
                cluster_id="feliss",
                controller_args=[
                    f"--HeartMonitor.period={BEAT}",
                    f"--HeartMonitor.max_heartmonitor_misses={MISSES}",
                    f"--IPController.ports={_listed(self._ports)}",
                ],
                log_level=logging.CRITICAL,
                shutdown_atexit=False,
                **options,
            )
        except BaseException:  # Ctrl-C: nobody else knows of the directory yet
            self._release_ports()
            shutil.rmtree(self.directory, ignore_errors=True)
            shutil.rmtree(self._shared, ignore_errors=True)
            raise

    @classmethod
    def found(cls, directories: list[str]) -> OwnCluster:
        """Return the cluster of a session whose process has ended.

        Its controller may have ended too (`has_hub`): then the engines are reached by the session's
        own sockets alone.
        """
        self = cls.__new__(cls)
        self.directory, self._shared = Path(directories[0]), Path(directories[1])
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._processes, self._client, self._users = [], None, None
        self._is_found = True
        self._ports = []
        self._note_processes()
        self._cluster = ipp.Cluster.from_file(
            profile_dir=str(self.directory / "profile"),
            cluster_id="feliss",
            log_level=logging.CRITICAL,
            shutdown_atexit=False,
        )
        self._cluster.engine_launcher_class = "local"
        # One that has ended may still have its number, until its parent looks.
        alive = {process.pid for process in self._processes}
        controller = self._cluster.controller
        self.has_hub = controller is not None and controller.pid in alive
        if self.has_hub:
            self._client = self._connect()
        return self

    def _write_configuration(self) -> None:
        """Let controller and engines end with this process: the files are read as they start."""
        profile = self.directory / "profile"
        profile.mkdir(mode=0o700)
        me, started = os.getpid(), start_time(os.getpid())
        package = str(Path(__file__).parents[2])
        paths = f"import sys\nif {package!r} not in sys.path:\n    sys.path.append({package!r})\n"
        directories = [str(self.directory), str(self._shared)]
        controller = (
            # Not the package: the engines wait for the controller.
            "from importlib.util import module_from_spec, spec_from_file_location\n"
            f"spec = spec_from_file_location('feliss_nb_owner', {owner.__file__!r})\n"
            "owner = module_from_spec(spec)\n"
            "spec.loader.exec_module(owner)\n"
            f"owner.end_controller_with({me}, {started}, {directories!r})\n"
            # Else what it broadcasts could be read by whoever connects. With a key of its own, for
            # where there is no CURVE, and since ipyparallel warns of sessions that have none.
            f"get_config().IPController.enable_curve = {zmq.has('curve')}\n"
            f"get_config().Session.key = {secrets.token_hex(32).encode()!r}\n"
        )
        engine = (
            f"{paths}{_NOT_OF_MPI}from feliss_nb.runtime.owner import end_engine_with\n"
            f"end_engine_with({me}, {started}, {directories!r})\n"
            # Without a controller the session's own sockets still reach it.
            "get_config().IPEngine.max_heartbeat_misses = 0\n"
            "import feliss_nb.runtime.engine\n"  # while the engine waits for its registration
        )
        for name, text in (("ipcontroller", controller), ("ipengine", engine)):
            file = profile / f"{name}_config.py"
            file.touch(0o600)  # it may hold the key
            file.write_text(text)

    def start(self, count: int, timeout: float, on_wait: Callable[[str], None]) -> list[int]:
        """Start the controller and `count` engines; wait until they are registered."""
        on_wait("the controller")
        wait_out(self._cluster.start_controller_sync)
        wait_out(lambda: self._cluster.start_engines_sync(n=count))
        # One that is started later gets no place in the world of these: it may as well be local.
        self._cluster.engine_launcher_class = "local"
        self._note_processes()
        self._client = self._connect()
        deadline = time.monotonic() + timeout
        while len(self.ids()) < count:
            on_wait(f"engines: {len(self.ids())} of {count} are up")
            if any(process.ended() for process in self._processes):
                raise FelissError(
                    "an engine or the controller ended while it was starting: see whether it was "
                    "killed (memory?), or whether python -m ipyparallel.engine fails on its own"
                )
            if time.monotonic() > deadline:
                raise FelissError(
                    f"only {len(self.ids())} of {count} engines came up in {timeout:g} s; "
                    "give start() a longer timeout= on a slow machine"
                )
            time.sleep(0.01)
        return sorted(self.ids())

    def _connect(self) -> ipp.Client:
        client: ipp.Client = wait_out(self._cluster.connect_client_sync)
        return client

    def _note_processes(self) -> None:
        """Hold on to the controller and the engine sets, to end them when all else fails."""
        if self._is_found:  # what its files say may be old
            self._note(process.pid for process in processes_in(str(self.directory)))
            return
        pids = [self._cluster.controller.pid] if self._cluster.controller else []
        for engine_set in self._cluster.engines.values():
            for launcher in getattr(engine_set, "launchers", {0: engine_set}).values():
                pids.append(launcher.pid)
        self._note(pids)

    def _note(self, pids: Iterable[int]) -> None:
        known = {process.pid for process in self._processes}
        self._processes += _held(pid for pid in pids if pid and pid > 0 and pid not in known)

    def _left(self) -> list[Process]:
        return _held(process.pid for process in processes_in(str(self.directory)))

    @property
    def controller(self) -> int | None:
        """The controller's process id."""
        launcher = self._cluster.controller
        return None if launcher is None else int(launcher.pid)

    def add(self) -> int | None:
        """Start one more engine; wait until it is registered."""
        with self._lock:
            if self._client is None:
                return None
            before = set(self._client.ids)
            self._cluster.start_engines_sync(n=1)
            self._note_processes()
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and self._client is not None:
                new = set(self._client.ids) - before
                if new:
                    return min(new)
                time.sleep(0.02)
            return None

    def ids(self) -> set[int]:
        """Return the ids of the engines that the hub takes for alive."""
        return set(self._client.ids) if self._client is not None else set()

    def execute(self, engine: int, code: str) -> Any:
        """Run code on an engine; return the asynchronous result."""
        assert self._client is not None
        with self._sending:  # a session starts several replacements at once
            return self._client[engine].execute(code, silent=True, block=False)

    def client(self) -> ipp.Client:
        """Return a client for the user, apart from the one that the session works with.

        Raises
        ------
        FelissError
            If the controller has ended.
        """
        if not self.has_hub:
            raise FelissError("the controller of this session has ended: it has no client, no %px")
        if self._users is None:
            self._users = self._connect()
        return self._users

    def directories(self) -> list[str]:
        """Return the directories that the session's end removes."""
        return [str(self.directory), str(self._shared)]

    def leave(self) -> None:
        """Let go of what runs: another process may go on with it."""
        client, self._client = self._client, None
        for each in (client, self._users):
            if each is not None:
                each.close(linger=0)
        for process in self._processes:
            process.close()
        self._release_ports()

    def stop(self) -> None:
        """Kill the engines and the controller, and remove the directory."""
        client, self._client = self._client, None
        for each in (client, self._users):
            if each is not None:
                each.close(linger=0)
        self._note_processes()
        ended = _end(_with_children(self._processes))
        # Some are nobody's children by now: what watched an engine that was lost, for as long as it
        # takes to notice; engines whose mpiexec was killed.
        ended &= _end(_with_children(self._left()))
        with self._lock:
            try:
                if self._is_found and ended:
                    self._forget_processes()
                else:
                    self._cluster.stop_cluster_sync()
            except Exception as error:  # noqa: BLE001 - what it would stop is dead already
                logging.getLogger(__name__).debug("stopping a dead cluster: %s", error)
        self._release_ports()
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self._shared, ignore_errors=True)

    def _forget_processes(self) -> None:
        """Let ipyparallel wait no more for processes that have ended.

        They are the children of whoever took them in when the process that had started them died.
        In a container that may be one that never asks how they ended: ipyparallel would wait for
        minutes, for each.
        """
        launchers = [self._cluster.controller] if self._cluster.controller else []
        for engine_set in self._cluster.engines.values():
            launchers += getattr(engine_set, "launchers", {0: engine_set}).values()
        for launcher in launchers:
            if (waiting := getattr(launcher, "_stop_waiting", None)) is not None:
                waiting.set()

    def _release_ports(self) -> None:
        for port in self._ports:
            port.close()


def _reserve_ports() -> list[socket.socket]:
    """Return sockets on ports of this machine that only who asks for them by number can have.

    A controller that chooses its ports itself closes them before its processes bind them, a second
    later: of clusters that start together one may lose a port, and hang. Linux lets two sockets
    have a port where both allow it and one listens at most; 0MQ's allow it, and what asks for any
    port gets another. So these stay bound, and never listen, as long as the cluster is there.
    """
    found: list[socket.socket] = []
    try:
        for _ in range(PORTS):
            found.append(socket.socket())
            found[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found[-1].bind(("127.0.0.1", 0))
    except BaseException:
        for each in found:
            each.close()
        raise
    return found


def _listed(ports: Iterable[socket.socket]) -> str:
    return ",".join(str(port.getsockname()[1]) for port in ports)


# In an engine that no mpiexec of ours started; this process itself may run under one.
_NOT_OF_MPI = """\
import os
if "--mpi" not in sys.argv:
    for name in [name for name in os.environ if name.startswith(("OMPI_", "PMIX_", "SLURM_"))]:
        del os.environ[name]
"""


def _held(pids: Iterable[int]) -> list[Process]:
    found = []
    for pid in pids:
        try:
            found.append(Process(pid))
        except ProcessLookupError:
            continue
    return found


def _with_children(processes: Iterable[Process]) -> list[Process]:
    found: list[Process] = []
    for process in processes:
        found.append(process)
        if not process.ended():
            found += _held(_children(process.pid))
    return found


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def _end(processes: list[Process]) -> bool:
    """Kill processes; tell whether all of them have ended within a few seconds."""
    for process in processes:
        process.kill()
    ended = all(process.ended(5.0) for process in processes)
    for process in processes:
        process.close()
    return ended


def search_path() -> list[str]:
    """Return this process's module search path, as absolute paths."""
    return [os.path.abspath(path) for path in sys.path]
