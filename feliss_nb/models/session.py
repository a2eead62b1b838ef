"""The session that a user holds: ranks on engines, with the programming models as methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feliss_nb.errors import UsageError
from feliss_nb.models import mapreduce
from feliss_nb.models.mpi import explain_deadlock
from feliss_nb.models.mpi.spmd import spmd
from feliss_nb.runtime import (
    BaseSession,
    OwnCluster,
    Variable,
    check_client,
    check_kind,
    check_seconds,
)
from feliss_nb.state.captures import method as check_capture


class Session(BaseSession):
    """Ranks on engines; see `feliss_nb.start` and `feliss_nb.attach`."""

    def variable(self, init: Callable[[int, int], Any], name: str | None = None) -> Variable:
        """Return a variable with one value a rank, made there by ``init(rank, size)``."""
        return mapreduce.variable(self, init, name)

    def apply(self, function: Callable[..., Any], *args: Any, name: str | None = None) -> Variable:
        """Run ``function(*args)`` on every rank; the results are the values of a variable."""
        return mapreduce.apply(self, function, *args, name=name)

    def scatter(self, data: Any, name: str | None = None) -> Variable:
        """Return a variable with the records of `data`, in contiguous shares in rank order."""
        return mapreduce.scatter(self, data, name)

    def read_text(self, paths: Any, by: str = "line", name: str | None = None) -> Variable:
        """Return a variable with the records of text files, read by the engines themselves.

        Parameters
        ----------
        paths : path or iterable of paths
            Files and patterns; ``.gz`` files are decompressed.
        by : {"line", "block", "file"}
            What a record is: a line, some whole lines as one text, a file's content.
        name : str, optional
            The variable's name.
        """
        return mapreduce.read_text(self, paths, by, name)

    def map(self, function: Callable[[Any], Any], source: Any, name: str | None = None) -> Variable:
        """Map a function over records; a generator function gives any number for each."""
        return mapreduce.map_(self, function, source, name)

    def reduce(
        self,
        function: Callable[..., Any],
        pairs: Any,
        name: str | None = None,
        with_key: bool = False,
        partition: Callable[[Any, int], int] | None = None,
    ) -> Variable:
        """Reduce the values of each key; the records of the result are (key, value)."""
        return mapreduce.reduce(self, function, pairs, name, with_key, partition)

    def mapreduce(
        self,
        map: Callable[[Any], Any],
        reduce: Callable[..., Any],
        source: Any,
        combine: Callable[[list[Any]], Any] | None = None,
        partition: Callable[[Any, int], int] | None = None,
        name: str | None = None,
        with_key: bool = False,
    ) -> Variable:
        """Map records to pairs and reduce the values of each key, without keeping the pairs.

        The map function gives a pair, yields any number of them, or returns a dict of them.
        """
        return mapreduce.mapreduce(self, map, reduce, source, combine, partition, name, with_key)

    def spmd(self, main: Callable[..., Any], *args: Any, name: str | None = None) -> Variable:
        """Run ``main(comm, *args)`` on every rank, with mpi4py's communicator.

        The result is a variable with each rank's return value. ``return comm.then(step, *more)``
        goes on with ``step(comm, *more)``; a checkpoint can stand between.
        """
        return spmd(self, main, *args, name=name)

    explain_deadlock = staticmethod(explain_deadlock)


def start(
    workers: int = 2,
    spares: int = 0,
    name: str | None = None,
    copies: int = 1,
    replace: bool = True,
    seed: int = 0,
    checkpoint_every: float | None = 10.0,
    timeout: float = 60.0,
    engines: str | None = None,
    capture: str = "full",
) -> Session:
    """Start engines and a session on them.

    Parameters
    ----------
    workers : int
        Engines that host a rank each.
    spares : int
        Engines that wait to take a lost one's place.
    name : str, optional
        What to call the session.
    copies : int
        How many other engines keep each rank's snapshot.
    replace : bool
        Whether a lost engine is replaced in the background.
    seed : int
        The seed of every rank's random numbers.
    checkpoint_every : float or None
        Seconds of running work between checkpoints; None: only on request.
    timeout : float
        Seconds until the engines must be up.
    engines : {"local", "mpi"}, optional
        Whether each engine is started by itself, or all of them by one mpiexec, so that the
        messages of `Session.spmd` go by MPI. Default: what ``FELISS_NB_ENGINES`` says, else local.
    capture : str
        How a rank becomes a snapshot: see `Session.capture`.

    Raises
    ------
    UsageError
        If a number or a name makes no sense, or MPI is asked for and not installed.
    """
    _check(workers, spares, copies, seed, timeout, name)
    Session.check_interval(checkpoint_every)
    check_capture(capture)
    cluster = OwnCluster(check_kind(engines))
    numbers = workers, spares, name, copies, replace, seed, checkpoint_every, timeout
    return Session(cluster, *numbers, capture)


def attach(
    profile: str | None = None,
    cluster_id: str | None = None,
    client: Any = None,
    workers: int | None = None,
    spares: int = 0,
    name: str | None = None,
    copies: int = 1,
    seed: int = 0,
    checkpoint_every: float | None = 10.0,
    timeout: float = 60.0,
    capture: str = "full",
) -> Session:
    """Start a session on engines that run already, on this machine.

    The engines go on when the session stops. A lost one is not replaced: who started the cluster
    starts engines.

    Parameters
    ----------
    profile, cluster_id : str, optional
        The ipyparallel profile or cluster.
    client : ipyparallel.Client, optional
        A client of it, instead.
    workers : int, optional
        Engines that host a rank; default: all but the spares.

    Raises
    ------
    UsageError
        If nothing answers there, or the engines do not fit: another Python, without this package,
        or on another machine.
    """
    _check(1 if workers is None else workers, spares, copies, seed, timeout, name)
    Session.check_interval(checkpoint_every)
    check_capture(capture)
    cluster = check_client(client, profile, cluster_id)
    if workers is None:
        workers = len(cluster.ids()) - spares
        if workers < 1:
            cluster.stop()
            raise UsageError(f"the cluster has {len(cluster.ids())} engines: too few for a worker")
    numbers = workers, spares, name, copies, False, seed, checkpoint_every, timeout
    return Session(cluster, *numbers, capture)


def _check(
    workers: int, spares: int, copies: int, seed: int, timeout: float, name: str | None
) -> None:
    for what, number, least in (
        ("workers", workers, 1),
        ("spares", spares, 0),
        ("copies", copies, 0),
        ("seed", seed, 0),
    ):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise UsageError(f"{what}= takes a whole number of at least {least}, not {number!r}")
    if timeout is None:
        raise UsageError("timeout= takes a number of seconds above 0, not None")
    check_seconds("timeout=", timeout, above=True)
    if name is not None:
        if not isinstance(name, str) or not name:
            raise UsageError(f"name= takes a text, not {name!r}")
        if any(session.name == name for session in _sessions()):
            raise UsageError(f"a session named {name!r} is up: stop it, or use another name")


def _sessions() -> list[BaseSession]:
    from feliss_nb.runtime import live_sessions

    return live_sessions()
