"""A session comes up: anew, from a checkpoint, or where another process has left it."""

from __future__ import annotations

import contextlib
import os
import time
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from feliss_nb.core import events as ev
from feliss_nb.errors import LossError, WaitTimeout
from feliss_nb.runtime.cluster import Engines, search_path
from feliss_nb.runtime.outliving import begin_record, take_over
from feliss_nb.runtime.owner import start_time
from feliss_nb.runtime.record import Record
from feliss_nb.runtime.replaying import Found
from feliss_nb.runtime.restoring import Origin, explain_loss, stand_up
from feliss_nb.runtime.settings import Settings
from feliss_nb.runtime.waiting import display

if TYPE_CHECKING:
    from feliss_nb.runtime.session import BaseSession

MEET = 10.0  # seconds that a new master waits for engines to find it


def install_code(cluster: Engines, size: int, seed: int, engine: str) -> str:
    """Return the code that starts the worker on an engine."""
    me = os.getpid()
    options = {
        "engine": engine,
        "directory": str(cluster.directory),
        "owner": me,
        "owner_started": start_time(me),
        "size": size,
        "seed": seed,
        "paths": search_path(),
        "folder": os.getcwd() if cluster.own else None,
        "own": cluster.own,
    }
    module = "__import__('feliss_nb.runtime.engine', fromlist=['install'])"
    return f"{module}.install(**{options!r})"


def start(session: BaseSession, settings: Settings, origin: Origin | None) -> None:
    """Start engines and their workers, and let the ranks stand up.

    Parameters
    ----------
    session : BaseSession
        Has a master, and nothing else.
    settings : Settings
        Checked.
    origin : Origin or None
        The checkpoint to stand up from.
    """
    driver, cluster, timeout = session._driver, session._cluster, settings.timeout
    waiting_for = ["engines"]
    progress = display(session._job_statuses, lambda: waiting_for[0])
    deadline = time.monotonic() + timeout
    try:

        def on_wait(what: str) -> None:
            waiting_for[0] = what
            if progress is not None:
                progress.tick()

        engines = cluster.start(settings.workers + settings.spares, timeout, on_wait)
        hellos = {engine: driver.installer.expect(engine) for engine in engines}
        for engine, hello in hellos.items():
            driver.installer.await_hello(engine, hello, deadline, on_wait)
        started = tuple(str(engine) for engine in engines)
        token: Future[Any] = Future()
        if origin is None:
            driver.post(ev.Start(started, session.size))
        else:
            origin = stand_up(session, origin, started, settings.workers)
        driver.post(ev.WaitProtected(token))
        try:
            session._result(token, "the ranks")
        except LossError as error:
            raise error if origin is None else explain_loss(session, origin, error) from None
        # A loss while MPI makes a communicator would cost the session its use of MPI.
        driver.linking.settled.wait(timeout)
    finally:
        if progress is not None:
            progress.close()


def write_down(session: BaseSession, settings: Settings, record: Record) -> None:
    """Let the session outlive this process from now on."""
    driver = session._driver
    about = {
        "seed": session.seed,
        "engines": settings.workers + settings.spares,
        "workers": settings.workers,
        "spares": settings.spares,
        "keep": settings.keep,
        "continuation_timeout": settings.continuation_timeout,
        "store": None if driver.keeper is None else driver.keeper.at.data,
        "directories": session._cluster.directories(),
        "since": driver.since,
    }
    done: Future[None] = Future()
    driver.run_soon(lambda: driver.note("about", about))
    for name, found in session._holding.bound().items():
        driver.run_soon(partial(driver.note, ("name", name), found))
    driver.run_soon(lambda: begin_record(driver, record, done))
    session._result(done, "the session's record")
    session.events.keep(record.directory, record.term)


def go_on(session: BaseSession, settings: Settings, record: Record, found: Found) -> None:
    """Go on with a session that outlived another process.

    Parameters
    ----------
    session : BaseSession
        On the seat that was found.
    settings : Settings
        Checked.
    record : Record
        The session's from now on.
    found : Found
        What it has of that process.
    """
    driver, master = session._driver, found.seat.master
    variables, about = master.ledger.variables, found.notes["about"]
    driver.since = about["since"]
    names = {
        key[1]: value
        for key, value in found.notes.items()
        if key[0] == "name" and value[0] in variables.held
    }
    if driver.keeper is not None:
        driver.keeper.names.update(names)
    session.events.keep(record.directory, record.term)
    unnamed = {
        key[1]: records
        for key, records in found.notes.items()
        if key[0] == "unnamed" and key[1] in variables.held
    }
    session.unnamed = session._adopt(variables, master.jobs, names, unnamed)
    held = frozenset([*unnamed, *(number for number, _ in names.values())])
    met: Future[None] = Future()
    ordered = about["engines"] - len(master.engines) - master.to_replace
    missing = ordered if master.replace else 0
    driver.run_soon(lambda: take_over(driver, record, found, held, missing, met))
    every, mtbf = found.notes.get("pace", (None, None))
    driver.run_soon(lambda: driver.pace.set(every, mtbf))
    # Who is stopped does not answer, and is fenced by and by; the others need not wait for it.
    with contextlib.suppress(WaitTimeout):
        session._result(met, "the engines", min(settings.timeout, MEET))
