"""The session's side of its store: which checkpoint is copied, and when it stands there.

The master's thread decides, a thread of its own writes. Engines copy the shards of their ranks
(`copier`); when all of them have said what they wrote, the master's share and the manifest follow.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import cloudpickle

from feliss_nb.core import messages as m
from feliss_nb.core.image import MasterImage
from feliss_nb.errors import CorruptSnapshot, FelissError, LossError, SessionClosed, StoreError
from feliss_nb.runtime import wire
from feliss_nb.runtime.copier import told
from feliss_nb.runtime.status import StoreStatus
from feliss_nb.runtime.telling import functions_of
from feliss_nb.store import Manifest, Record, Store
from feliss_nb.store.manifest import make

if TYPE_CHECKING:
    from feliss_nb.runtime.driver import Driver

LAST_WORDS = 10.0  # seconds that the end of a session waits for what the store is at


@dataclass(frozen=True, slots=True)
class MasterRecord:
    """The shard of rank `size`: what a session knows besides what its ranks hold.

    Parameters
    ----------
    image : MasterImage
        The core's share.
    blobs : tuple of Blob
        The functions that unfinished jobs need.
    names : dict of str to (int, bool)
        The named variables, each with its number and whether it holds records.
    session : str
        What the session was called.
    seed : int
        The seed of the random numbers.
    """

    image: MasterImage
    blobs: tuple[wire.Blob, ...]
    names: dict[str, tuple[int, bool]]
    session: str
    seed: int


@dataclass(slots=True)
class _Copy:
    """A checkpoint on its way to the store."""

    record: MasterRecord
    begun: float
    waiting: dict[int, m.Engine]  # who copies a rank's shard
    records: dict[int, Record] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)

    @property
    def checkpoint(self) -> int:
        return self.record.image.committed.id


class Keeper:
    """Brings committed checkpoints to a store. Its methods belong to the master's thread.

    Parameters
    ----------
    store : Store
        Claimed; released at the end.
    last : int
        How many checkpoints it keeps.
    session, seed
        For the master's record.
    """

    def __init__(self, store: Store, last: int, session: str, seed: int) -> None:
        self.store, self.last = store, last
        self._stale: list[int] = []  # to be deleted when the first new checkpoint is there
        self._session, self._seed = session, seed
        self.at = wire.StoreAt(cloudpickle.dumps(store))
        self.names: dict[str, tuple[int, bool]] = {}  # as far as the master has heard
        self.status = StoreStatus(str(getattr(store, "directory", getattr(store, "url", store))))
        self._driver: Driver | None = None
        self._copy: _Copy | None = None
        self._again = False  # a newer checkpoint waits
        self._waiters: list[tuple[int, Future[int]]] = []
        self._newest: Manifest | None = None  # that this session has brought there
        self._fetch: tuple[int, dict[int, m.Engine], Future[None]] | None = None
        self._said: set[str] = set()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None  # the end of the session

    def serve(self, driver: Driver) -> None:
        """Begin to work for a session."""
        self._driver = driver
        self._thread = threading.Thread(target=self._write, name="feliss-store", daemon=True)
        self._thread.start()

    def goes_on_from(self, manifest: Manifest, stale: Iterable[int]) -> None:
        """Note the checkpoint that the session stands up from, and what it leaves behind."""
        self.status = replace(
            self.status, checkpoint=manifest.checkpoint, bytes=manifest.nbytes, seconds=None
        )
        self._stale = sorted(stale)

    def forget_name(self, name: str) -> None:
        """The notebook has dropped a name."""
        self.names.pop(name, None)

    # ------------------------------------------------------------ to the store

    def committed(self) -> None:
        """A checkpoint stands in memory, and its engines have heard of that."""
        if self._copy is not None:
            self._again = True
        else:
            self._begin()

    def _begin(self) -> None:
        driver = self._driver
        if driver is None or self._error is not None:
            return
        self._again = False
        committed = driver.master.committed
        image = driver.master.image()
        needed = functions_of(image.jobs.values(), committed.ended)
        held = driver.master.held
        names = {name: found for name, found in self.names.items() if found[0] in held}
        record = MasterRecord(
            image,
            tuple(driver.telling.blobs.get(digest) for digest in sorted(needed)),
            names,
            self._session,
            self._seed,
        )
        self._copy = _Copy(record, time.monotonic(), {})
        self.status = replace(self.status, copying=committed.id)
        self._order(range(image.size))

    def _order(self, ranks: Iterable[int]) -> None:
        """Have an engine that keeps it copy each of these shards."""
        driver, copy = self._driver, self._copy
        if driver is None or copy is None:
            return
        orders: dict[m.Engine, list[int]] = {}
        committed, routes = driver.master.committed, driver.master.routes
        for rank in ranks:
            holders = committed.shards.get(rank, set())
            if committed.id != copy.checkpoint or not holders:
                self._give_up()
                return
            engine = routes[rank] if routes[rank] in holders else min(holders)
            copy.waiting[rank] = engine
            orders.setdefault(engine, []).append(rank)
        for engine, mine in orders.items():
            base = 0 if self._newest is None else self._newest.checkpoint
            driver.telling.send(engine, wire.Keep(copy.checkpoint, tuple(mine), base))

    def hear(self, engine: m.Engine, message: wire.Kept | wire.Fetched) -> None:
        """Take an engine's word on a shard."""
        if isinstance(message, wire.Fetched):
            self._fetched(message)
            return
        copy = self._copy
        if copy is None or message.checkpoint != copy.checkpoint:
            return
        if copy.waiting.get(message.rank) != engine:
            return
        if not isinstance(message.outcome, Record):
            self._failed(message.outcome)
            return
        del copy.waiting[message.rank]
        copy.records[message.rank] = self._based(message.outcome, message.base)
        copy.code.update(message.code)
        if not copy.waiting:
            self._work.put(lambda: self._finish(copy))

    def _based(self, record: Record, base: int) -> Record:
        newest = self._newest
        if not base or newest is None:
            return record
        assert base == newest.checkpoint
        return replace(record, bases=(*newest.shard(record.rank).bases, base))

    def lost(self, engine: m.Engine) -> None:
        """An engine is gone, and the master has heard of it."""
        if self._fetch is not None:
            checkpoint, waiting, done = self._fetch
            if engine in waiting.values():
                self._fetch = None
                done.set_exception(
                    LossError(f"engine {engine} was lost while it read checkpoint {checkpoint}")
                )
        if self._copy is not None:
            self._order([rank for rank, host in self._copy.waiting.items() if host == engine])

    def _give_up(self) -> None:
        """A shard can be had no more: a newer checkpoint stands, or the session is at its end."""
        copy, self._copy = self._copy, None
        self.status = replace(self.status, copying=None)
        if copy is not None:
            self._work.put(lambda: self._drop(copy.checkpoint))
            self._again = self._again or any(n <= copy.checkpoint for n, _ in self._waiters)
        self._next()

    def _next(self) -> None:
        driver = self._driver
        if self._again and driver is not None and driver.master.state not in ("failed", "stopped"):
            committed = driver.master.committed
            if all(committed.shards.get(rank) for rank in range(driver.master.size)):
                self._begin()

    def _stored(self, copy: _Copy, manifest: Manifest) -> None:
        if self._driver is None or self._copy is not copy:
            return
        self._newest = manifest
        nbytes = manifest.nbytes
        self._copy = None
        seconds = time.monotonic() - copy.begun
        self._said.clear()
        self.status = replace(
            self.status,
            checkpoint=copy.checkpoint,
            bytes=nbytes,
            seconds=seconds,
            copying=None,
            trouble="",
        )
        data = {"checkpoint": copy.checkpoint, "bytes": nbytes, "seconds": seconds}
        self._driver.events.add("stored", **data)
        self._answer(copy.checkpoint, copy.checkpoint)
        self._next()

    def _failed(self, error: FelissError) -> None:
        """Go on without this checkpoint; what was written of it is deleted."""
        copy, self._copy = self._copy, None
        if self._driver is None or copy is None:
            return
        self._newest = None  # who knows what else is not there any more: the next is whole
        text = f"checkpoint {copy.checkpoint} is not on the store, the job goes on: {error}"
        self.status = replace(self.status, copying=None, trouble=str(error))
        self._driver.events.add("not-stored", checkpoint=copy.checkpoint, error=str(error))
        self._say(text, error)
        self._work.put(lambda: self._drop(copy.checkpoint))
        self._answer(copy.checkpoint, error)
        self._next()

    def _say(self, text: str, error: Exception) -> None:
        """Tell the user, once for each kind of trouble until a checkpoint is stored again."""
        kind = type(error).__name__ + re.sub(r"[0-9a-f]*\d[0-9a-f]*", "#", str(error))
        if kind not in self._said and self._driver is not None:
            self._said.add(kind)
            self._driver.on_trouble(text)

    # ------------------------------------------------------------ who waits

    def wait(self, checkpoint: int, token: Future[int]) -> None:
        """Answer `token` when the store has this checkpoint, or a newer one."""
        if self._error is not None:
            token.set_exception(self._error)
        elif (self.status.checkpoint or 0) >= checkpoint:
            token.set_result(self.status.checkpoint or 0)
        elif self._copy is None:
            why = self.status.trouble or "nothing is being copied"
            token.set_exception(StoreError(f"checkpoint {checkpoint} is not on the store: {why}"))
        else:
            self._waiters.append((checkpoint, token))

    def _answer(self, checkpoint: int, answer: int | FelissError) -> None:
        waiters, self._waiters = self._waiters, []
        for wanted, token in waiters:
            if wanted > checkpoint:
                self._waiters.append((wanted, token))
            elif isinstance(answer, int):
                token.set_result(answer)
            else:
                token.set_exception(answer)

    # ------------------------------------------------------------ from the store

    def fetch(self, manifest: Manifest, routes: Mapping[int, m.Engine], done: Future[None]) -> None:
        """Have engines read shards into their memory; `done` when all have, or one cannot."""
        self._fetch = manifest.checkpoint, dict(routes), done
        hosts: dict[m.Engine, list[int]] = {}
        for rank, engine in routes.items():
            hosts.setdefault(engine, []).append(rank)
        for engine, ranks in hosts.items():
            if self._driver is not None:
                shards = {rank: manifest.shard(rank).bases for rank in ranks}
                self._driver.telling.send(engine, wire.Fetch(manifest.checkpoint, shards))

    def _fetched(self, message: wire.Fetched) -> None:
        if self._fetch is None or self._fetch[0] != message.checkpoint:
            return
        _, waiting, done = self._fetch
        waiting.pop(message.rank, None)
        if message.error is not None or not waiting:
            self._fetch = None
            if message.error is not None:
                done.set_exception(message.error)
            else:
                done.set_result(None)

    # ------------------------------------------------------------ the thread that writes

    def _write(self) -> None:
        while (work := self._work.get()) is not None:
            work()
        try:
            self.store.release()
        except Exception:  # noqa: BLE001, S110  (the end of the process releases it)
            pass

    def _finish(self, copy: _Copy) -> None:
        driver, checkpoint = self._driver, copy.checkpoint
        assert driver is not None
        image = copy.record.image
        try:
            record = self.store.put(checkpoint, image.size, wire.encode(copy.record))
            info = {
                "ranks": image.size,
                "session": self._session,
                "epoch": image.epoch,
                "at": time.time(),
                "variables": sorted(copy.record.names),
                "jobs": [
                    job.label
                    for job in image.jobs.values()
                    if job.id not in image.committed.ended and not job.internal
                ],
            }
            manifest = make(checkpoint, [*copy.records.values(), record], (), copy.code, info)
            self.store.commit(manifest)
        except Exception as error:  # noqa: BLE001  (whatever failed, the job goes on)
            failure = told(error)
            driver.run_soon(lambda: self._failed(failure))
            return
        driver.run_soon(lambda: self._stored(copy, manifest))
        try:
            while self._stale:
                self.store.drop(self._stale[-1])
                self._stale.pop()
            self.store.keep(self.last)
        except Exception as error:  # noqa: BLE001  (it costs room, nothing else)
            trouble = told(error)
            driver.run_soon(lambda: self._say(f"old checkpoints stay: {trouble}", trouble))

    def _drop(self, checkpoint: int) -> None:
        try:
            self.store.drop(checkpoint)
        except Exception:  # noqa: BLE001, S110  (the next clean-up tries again)
            pass

    # ------------------------------------------------------------ the end

    def end(self, error: Exception | None = None) -> None:
        """The session is at its end; what is being written is written, nothing else."""
        if self._error is not None:
            return
        self._error = error or SessionClosed("the session was stopped meanwhile")
        self._copy = None
        waiters, self._waiters = self._waiters, []
        for _, token in waiters:
            token.set_exception(self._error)
        if self._fetch is not None:
            self._fetch[2].set_exception(self._error)
            self._fetch = None
        self._work.put(None)

    def join(self, tidy: bool = True) -> None:
        """Wait for what the store is at, once the engines are gone, and clean up behind them.

        A store that hangs is left behind.

        Parameters
        ----------
        tidy : bool
            Whether to clean up: not where the engines go on without this process.
        """
        if self._thread is not None:
            self._thread.join(LAST_WORDS)
            if tidy and not self._thread.is_alive():
                last = threading.Thread(target=self._tidy, name="feliss-store", daemon=True)
                last.start()
                last.join(LAST_WORDS)

    def _tidy(self) -> None:
        """Delete what engines wrote of a checkpoint that they did not live to see."""
        try:
            self.store.claim()
            try:
                self.store.clean()
            finally:
                self.store.release()
        except Exception:  # noqa: BLE001, S110  (another session is there, or nothing is any more)
            pass


def read_record(store: Store, checkpoint: int, size: int) -> MasterRecord:
    """Read the master's share of a checkpoint, its digest checked.

    Raises
    ------
    CorruptSnapshot
        It is not what was written.
    """
    record = wire.decode(store.get(checkpoint, size))
    if not isinstance(record, MasterRecord) or record.image.size != size:
        raise CorruptSnapshot(f"checkpoint {checkpoint} holds something else than a session's")
    return record
