"""A look at a session: what `status` shows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil

from feliss_nb.runtime.job import Job
from feliss_nb.runtime.status import Checkpoint, EngineStatus, JobStatus, RankStatus, Status

if TYPE_CHECKING:
    from feliss_nb.runtime.driver import Driver
    from feliss_nb.runtime.session import BaseSession


STILL = 0.5  # seconds without a word, of a process that stands still, until that is said


def job_status(job: Job) -> JobStatus:
    """Return the figures of a job."""
    return JobStatus(job.id, job.label, job.state, job.done, job.total or None, "")


def status_of(session: BaseSession, driver: Driver) -> Status:
    """Return the state of a session. Reads the machine from outside: a glance, not a cut."""
    master = driver.master
    routes = dict(master.routes)
    committed = master.committed
    shards = {rank: set(holders) for rank, holders in list(committed.shards.items())}
    sizes = dict(committed.sizes)
    engines = []
    for name, info in list(driver.liveness.engines.items()):
        ranks = tuple(rank for rank, host in routes.items() if host == name)
        held = tuple(rank for rank, holders in shards.items() if name in holders)
        copies = tuple(rank for rank in held if rank not in ranks)
        role = "dead" if not info.alive else "worker" if ranks else "spare"
        own = sum(sizes.get(rank, 0) for rank in held if rank in ranks)
        copy = sum(sizes.get(rank, 0) for rank in copies)
        if role == "dead":
            ranks, copies, own, copy = (), (), 0, 0
        beat = None if role == "dead" else time.monotonic() - info.heard
        memory, stopped = (0, False) if role == "dead" else _process(info.pid)
        engine = EngineStatus(
            info.id,
            info.pid,
            role,  # type: ignore[arg-type]
            ranks,
            copies,
            own,
            copy,
            memory,
            beat,
            # One that is slowed by signals stands still again and again, and speaks in between.
            stopped and beat is not None and beat > STILL,
            role != "dead" and name in master.fleet.suspects,
        )
        engines.append(engine)
    ranks_now = tuple(
        RankStatus(rank, int(host), master.state, driver.progress.pools.get(rank, 0), "")
        for rank, host in sorted(routes.items())
    )
    jobs = tuple(job_status(job) for job in session.jobs)
    messages = []
    if not master.is_protected():
        messages.append("copies of snapshots are on their way: a loss now may be final")
    most = max(len(master.engines) - 1, 0)
    if 0 < most < master.copies:
        messages.append(f"copies={master.copies} were asked for; the engines suffice for {most}")
    if most == 0:
        messages.append("there is one engine only: no snapshot has a copy elsewhere")
    if master.error is not None:
        messages.append(str(master.error))
    return Status(
        session.name,
        session.state,
        master.epoch,
        min(master.copies, most),
        master.is_protected(),
        tuple(engines),
        ranks_now,
        jobs,
        _checkpoint(session),
        sum(engine.own_bytes for engine in engines),
        sum(engine.copy_bytes for engine in engines),
        tuple(messages),
        driver.linking.carrier,
        None if driver.keeper is None else driver.keeper.status,
        driver.pace.figures(),
        session.capture,
        session.events.now,
    )


def _process(pid: int) -> tuple[int, bool]:
    """Return a process's memory, and whether it stands still."""
    try:
        process = psutil.Process(pid)
        return process.memory_info().rss, process.status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return 0, False


def _restored(session: BaseSession) -> Checkpoint | None:
    """The checkpoint that another session took, where none was taken since."""
    begun = session.events.last("restoring")
    if begun is None:
        return None
    data = begun.data
    size = sum(session._driver.master.committed.sizes.values())
    return Checkpoint(data["checkpoint"], data["epoch"], size, 0.0, 0.0, begun.at, stored=True)


def _checkpoint(session: BaseSession) -> Checkpoint | None:
    last = session.events.last("committed")
    if last is None:
        return _restored(session)
    data = last.data
    begun = session.events.last("checkpoint-begun", checkpoint=data["checkpoint"])
    seconds = last.at - begun.at if begun is not None else 0.0
    return Checkpoint(
        data["checkpoint"],
        data["epoch"],
        data["bytes"],
        seconds,
        data["pause"],
        last.at,
        data["written"],
    )
