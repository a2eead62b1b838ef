"""A session outlives its process: its record is kept in step, and another master goes on with it.

All on the master's thread.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from feliss_nb.core import commands as cmd
from feliss_nb.core import events as ev
from feliss_nb.errors import StoreError
from feliss_nb.runtime import terms
from feliss_nb.runtime.board import left_running, remove_files
from feliss_nb.runtime.owner import Process, let_outlive
from feliss_nb.runtime.record import Record
from feliss_nb.runtime.replaying import Found

if TYPE_CHECKING:
    from feliss_nb.runtime.driver import Driver


def begin_record(driver: Driver, record: Record, done: Future[None]) -> None:
    """Begin the record: from now on the session outlives its process."""
    _renew(driver, record)
    if record.trouble is not None:
        done.set_exception(StoreError(f"cannot write to {record.directory}: {record.trouble}"))
        return
    record.show(_shown(driver))
    terms.write(driver.cluster.directory, record.term)
    let_outlive(driver.cluster.directory)
    done.set_result(None)


def look_after(driver: Driver, record: Record) -> None:
    """Begin a record anew that has grown, and show how the session is.

    Raises
    ------
    SessionTaken
        If another master has taken this one's place.
    """
    record.check()
    if not record.is_open:
        return
    if record.is_long:
        was_whole = record.trouble is None
        _renew(driver, record)
        if record.trouble is not None and was_whole:
            driver.on_trouble(
                f"the session's record cannot be written ({record.trouble}): while that lasts, "
                "no submission is taken, and the session may not outlive this process"
            )
    record.show(_shown(driver))


def take_over(
    driver: Driver,
    record: Record,
    found: Found,
    held: frozenset[int],
    missing: int,
    done: Future[None],
) -> None:
    """Go on where another master ended.

    Parameters
    ----------
    driver : Driver
        Of a new process, on that master's seat.
    record : Record
        That the session has from now on.
    found : Found
        What the record of before comes to.
    held : frozenset of int
        The variables that have names, and those that the process before held without.
    missing : int
        How many engines it wanted besides those that it knew.
    done : Future
        Done when the engines that live have found this master.
    """
    master = driver.master
    driver.meeting = done
    driver.linking.take_over(master.attempt)
    for engine in [key[1] for key in found.notes if key[0] == "engine"]:
        pid, started = found.notes["engine", engine]
        try:
            driver.liveness.know(engine, pid, started, Process(pid, started))
            driver.note(("engine", engine), (pid, started))
        except ProcessLookupError:
            pass
    for blob in found.blobs.values():
        driver.telling.blobs.add(blob)
    _renew(driver, record)
    terms.write(driver.cluster.directory, record.term)
    driver.events.add("resumed", term=record.term)
    driver.handle(ev.TakeOver(held))
    for engine in list(master.engines):
        if engine not in driver.liveness.engines:
            why, place = "it ended while the session had no master", driver.cluster.directory
            driver.handle(ev.EngineLost(engine, why, left_running(place, engine)))
            remove_files(place, engine)
    # These orders of the master before were carried out in its process, or not at all.
    again = [*map(cmd.Fence, master.fleet.suspects), *found.compares.values()]
    driver.execute(again)
    # What was being started may have come up since.
    ever = {*driver.liveness.engines, *master.gone, *found.seat.links}
    idle = sorted(driver.cluster.ids() - {int(engine) for engine in ever})[: max(missing, 0)]
    for engine in idle:
        driver.add_engine(engine)
    for _ in range(missing - len(idle)):
        driver.add_engine()
    driver.look_who_met()


def _renew(driver: Driver, record: Record) -> None:
    """Begin the record anew, with an image of what is."""
    digests, blobs = driver.telling.needed(), driver.telling.blobs
    record.renew(driver.seat, {digest: blobs.get(digest) for digest in digests})


def _shown(driver: Driver) -> dict[str, Any]:
    """Return what is told of the session to those who look from outside."""
    master = driver.master
    return {
        "state": master.state,
        "epoch": master.epoch,
        "ranks": dict(sorted(master.routes.items())),
        "engines": {e: (i.pid, i.started) for e, i in driver.liveness.engines.items() if i.alive},
        "directories": driver.cluster.directories(),
        "jobs": [job.label for job in master.ledger.busy.values() if not job.internal],
        "since": driver.since,
        "stored": driver.keeper is not None,
    }
