"""The session that a user holds: ranks on engines, with the programming models as methods."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cloudpickle

from feliss_nb.errors import LossError, StoreWarning, UsageError
from feliss_nb.models import mapreduce
from feliss_nb.models.mpi import explain_deadlock
from feliss_nb.models.mpi.spmd import spmd
from feliss_nb.runtime import (
    BaseSession,
    Every,
    OwnCluster,
    Place,
    Record,
    Settings,
    Store,
    Table,
    Variable,
    any_engine,
    begin,
    can_be_resumed,
    check_client,
    check_kind,
    check_seconds,
    claim_new,
    claim_origin,
    clear,
    give_back,
    list_place,
    list_sessions,
    read,
    take,
)

#: How many checkpoints stay on a store, unless told otherwise.
KEEP = 2


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
    checkpoint_every: Every = 10.0,
    timeout: float = 60.0,
    engines: str | None = None,
    mtbf: float | None = None,
    store: Place | None = None,
    keep: int | None = None,
    capture: str = "full",
    losses: int | None = 3,
    continuation_timeout: float | None = None,
) -> Session:
    """Start engines and a session on them.

    Parameters
    ----------
    workers : int
        Engines that host a rank each.
    spares : int
        Engines that wait to take a lost one's place.
    name : str, optional
        What to call the session. One with a name outlives this process: see `resume`. It ends with
        `Session.stop`, or at the end of its ``with`` block.
    copies : int
        How many other engines keep each rank's snapshot: at most all the others, so that a session
        of one engine keeps none.
    replace : bool
        Whether a lost engine is replaced in the background.
    seed : int
        The seed of every rank's random numbers.
    checkpoint_every : float, "auto" or None
        Seconds of running work between checkpoints; "auto": chosen by what they cost; None: only
        on request.
    timeout : float
        Seconds until the engines must be up.
    engines : {"local", "mpi"}, optional
        Whether each engine is started by itself, or all of them by one mpiexec, so that the
        messages of `Session.spmd` go by MPI. Default: what ``FELISS_NB_ENGINES`` says, else local.
    mtbf : float, optional
        For "auto": the mean time between losses of an engine with ranks, in seconds. Default: what
        was seen so far.
    store : str, path or Store, optional
        Keep checkpoints there too, in the background: a directory of yours, a URL that fsspec
        knows, or a store of `feliss_nb.store`. `restore` goes on from them.
    keep : int, optional
        How many checkpoints stay there. Default: 2.
    capture : str
        How a rank becomes a snapshot: see `Session.capture`.
    losses : int or None
        How many engines may be lost with the same continuation running. Then it is set aside, and
        its job ends with a `PoisonError` that names it: see `Session.set_aside`. None: it runs
        again each time.
    continuation_timeout : float, optional
        Seconds that a continuation may run, unless its job has a ``timeout=`` of its own; past
        them its engine is killed and recovered. Default: for ever.

    Raises
    ------
    UsageError
        If a number makes no sense, MPI is asked for and not installed, the store has checkpoints,
        another session writes there, or others could.
    """
    settings = Settings(
        workers,
        spares,
        name,
        copies,
        replace,
        seed,
        checkpoint_every,
        mtbf,
        timeout,
        _kept(store, keep),
        capture,
        losses,
        continuation_timeout,
    )
    _check(settings)
    settings.check_copies()
    kind = check_kind(engines)
    with _claimed(store) as claimed, _named(name) as record:
        return Session(OwnCluster(kind), settings, claimed, record=record)


def restore(
    store: Place,
    workers: int | None = None,
    spares: int = 0,
    checkpoint: int | None = None,
    name: str | None = None,
    copies: int = 1,
    replace: bool = True,
    checkpoint_every: Every = 10.0,
    timeout: float = 60.0,
    engines: str | None = None,
    mtbf: float | None = None,
    keep: int = KEEP,
    capture: str = "full",
    losses: int | None = 3,
    continuation_timeout: float | None = None,
) -> Session:
    """Go on from the newest whole checkpoint that another session has kept on a store.

    There are as many ranks as before, on any number of engines. Variables are found by their names
    (``session["counts"]``), jobs that ran go on (``session.jobs``), random numbers are those that
    would have been drawn. Checkpoints go to the same store from now on.

    Parameters
    ----------
    store : str, path or Store
        What `start` was given.
    workers : int, optional
        Engines that host ranks; default: one for each rank.
    spares : int
        Engines that wait to take a lost one's place.
    checkpoint : int, optional
        The number of a checkpoint: see `checkpoints`. Default: the newest that is not damaged. The
        ones after it are deleted when the first new one is there.
    name : str, optional
        What to call the session, which outlives this process then: see `resume`. Default: as
        before, and it ends with this process.
    copies, replace, timeout, engines
        See `start`.
    checkpoint_every, mtbf, keep, capture, losses, continuation_timeout
        See `start`.

    Raises
    ------
    UsageError
        If there is nothing, another session writes there, others could, or what was kept does not
        fit this Python and the modules that are found here; the error says what does not.
    CorruptSnapshot
        If every checkpoint is damaged; of one that is, a warning says which shard.
    """
    settings = Settings(
        1 if workers is None else workers,
        spares,
        name,
        copies,
        replace,
        0,
        checkpoint_every,
        mtbf,
        timeout,
        keep,
        capture,
        losses,
        continuation_timeout,
    )
    _check(settings)
    kind = check_kind(engines)
    origin = claim_origin(store, checkpoint)
    try:
        old = origin.record.session
        if can_be_resumed(old):
            _warn(
                f"the engines of session {old!r} are alive, and go on with resume({old!r}); this "
                "one begins at a checkpoint, and while it writes there, that one cannot"
            )
        if name is None and all(session.name != old for session in _sessions()):
            settings = dataclasses.replace(settings, name=old)
        if workers is None:
            settings = dataclasses.replace(settings, workers=origin.size)
        settings.check_copies()
        with _named(name) as record:
            return Session(OwnCluster(kind), settings, origin.store, origin, record)
    except BaseException:
        origin.store.release()
        raise


def resume(name: str, force: bool = False, timeout: float = 60.0) -> Session:
    """Go on with a named session whose process has ended, or was killed.

    Nothing is set back: what ran has run on, and goes on. Variables are found by their names
    (``session["counts"]``), jobs by ``session.jobs``; handles that no name holds are dropped.

    Parameters
    ----------
    name : str
        What `start` was given. `sessions` lists what there is.
    force : bool
        Take the session over though its process lives (one that is stopped, say). Whatever is
        called there from then on raises `feliss_nb.errors.SessionTaken`.
    timeout : float
        Seconds until the engines must have answered.

    Raises
    ------
    UsageError
        If there is no such session, or its process lives.
    LossError
        If all of its engines have ended, and no store has a checkpoint of it.
    """
    check_seconds("timeout=", timeout, above=True)
    directory, term = take(name, force)
    try:
        found = read(directory)
        if found is None:
            raise UsageError(
                f"session {name!r} was killed while it was starting, so there is nothing to go on "
                "with: start it again"
            )
        about = found.notes["about"]
        store = None if about["store"] is None else cloudpickle.loads(about["store"])
        if any_engine(found):
            claimed = _claimed_again(store, name, force)
            every, mtbf = found.notes.get("pace", (None, None))
            master = found.seat.master
            settings = Settings(
                about["workers"],
                about["spares"],
                name,
                master.copies,
                master.replace,
                about["seed"],
                every,
                mtbf,
                timeout,
                about["keep"],
                master.capture,
                master.poison.limit,
                about["continuation_timeout"],
            )
            record = Record(name, directory, term)
            record.notes = found.notes
            cluster = OwnCluster.found(about["directories"])
            if not cluster.has_hub:
                _warn(
                    f"the controller of session {name!r} has ended: its engines and their memory "
                    "were reached without it. What is lost from now on is not replaced, and %px "
                    "does not work; a checkpoint in a store, and restore(), give both back"
                )
            return Session(cluster, settings, claimed, record=record, found=found)
    except BaseException:
        give_back(directory, term)
        raise
    clear(directory)
    if store is None:
        raise LossError(
            f"all engines of session {name!r} have ended, and it had no store (start(store=)): "
            "nothing is left of it"
        )
    _warn(
        f"all engines of session {name!r} have ended: it goes on from its last checkpoint on "
        f"{store!r}"
    )
    every, mtbf = found.notes.get("pace", (None, None))
    return restore(
        store,
        workers=about["workers"],
        spares=about["spares"],
        name=name,
        copies=found.seat.master.copies,
        replace=found.seat.master.replace,
        checkpoint_every=every,
        timeout=timeout,
        mtbf=mtbf,
        keep=about["keep"],
        capture=found.seat.master.capture,
        losses=found.seat.master.poison.limit,
        continuation_timeout=about["continuation_timeout"],
    )


def _claimed_again(store: Store | None, name: str, force: bool) -> Store | None:
    if store is not None:
        try:
            store.claim()
        except UsageError:
            if not force:
                raise
            _warn(
                f"the process that session {name!r} was taken from still has its store: no more "
                "checkpoints are kept there"
            )
            return None
    return store


def _warn(text: str) -> None:
    warnings.warn(StoreWarning(text), stacklevel=3)


def sessions() -> Table:
    """Return the named sessions of this user that are alive or can go on, as a table."""
    return list_sessions()


@contextmanager
def _named(name: str | None) -> Iterator[Record | None]:
    """Claim the name of a new session; give it back if there is none in the end."""
    record = None if name is None else Record(name, *begin(name))
    try:
        yield record
    except BaseException:
        if record is not None:
            record.remove()
        raise


def checkpoints(store: Place) -> Table:
    """Return the checkpoints on a store as a table, the newest first."""
    return list_place(store)


def _kept(store: Place | None, keep: int | None) -> int:
    """Return how many checkpoints stay on the store."""
    if keep is None:
        return KEEP
    if store is None:
        raise UsageError(
            "keep= says how many checkpoints stay on a store, and there is none: give store= too"
        )
    return keep


@contextmanager
def _claimed(place: Place | None) -> Iterator[Store | None]:
    """Claim the store of a new session; release it if there is none in the end."""
    store = None if place is None else claim_new(place)
    try:
        yield store
    except BaseException:
        if store is not None:
            store.release()
        raise


def attach(
    profile: str | None = None,
    cluster_id: str | None = None,
    client: Any = None,
    workers: int | None = None,
    spares: int = 0,
    name: str | None = None,
    copies: int = 1,
    seed: int = 0,
    checkpoint_every: Every = 10.0,
    timeout: float = 60.0,
    mtbf: float | None = None,
    store: Place | None = None,
    keep: int | None = None,
    capture: str = "full",
    losses: int | None = 3,
    continuation_timeout: float | None = None,
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
    spares, name, copies, seed, checkpoint_every, timeout, mtbf, store, keep, capture
        See `start`.
    losses, continuation_timeout
        See `start`.

    Raises
    ------
    UsageError
        If nothing answers there, or the engines do not fit: another Python, without this package,
        or on another machine.
    """
    settings = Settings(
        1 if workers is None else workers,
        spares,
        name,
        copies,
        False,
        seed,
        checkpoint_every,
        mtbf,
        timeout,
        _kept(store, keep),
        capture,
        losses,
        continuation_timeout,
    )
    _check(settings)
    with _claimed(store) as claimed:
        cluster = check_client(client, profile, cluster_id)
        if workers is None:
            workers = len(cluster.ids()) - spares
            if workers < 1:
                cluster.stop()
                raise UsageError(
                    f"the cluster has {len(cluster.ids())} engines: too few for a worker"
                )
            settings = dataclasses.replace(settings, workers=workers)
        try:
            settings.check_copies()
        except UsageError:
            cluster.stop()
            raise
        return Session(cluster, settings, claimed)


def _check(settings: Settings) -> None:
    settings.check()
    if any(session.name == settings.name for session in _sessions()):
        raise UsageError(f"a session named {settings.name!r} is up: stop it, or use another name")


def _sessions() -> list[BaseSession]:
    from feliss_nb.runtime import live_sessions

    return live_sessions()
