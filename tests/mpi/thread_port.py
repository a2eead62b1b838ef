"""A gang in one process: a thread for each rank, queues between them, deadlocks found at once.

With a seed, which of the waiting messages comes next is drawn, among those that may: the first of
each source. So one test covers many orders of arrival, and none needs a sleep.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from feliss_nb.models.mpi import Wait, explain_deadlock, gang


class Deadlock(Exception):
    """Every rank waits or has ended, and no message is under way."""


class Stopped(Exception):
    """Another rank failed."""


class Hub:
    """The queues of all ranks, and what each waits for."""

    def __init__(
        self, size: int, seed: int | None = None, hold: float = 0.0, shares_memory: bool = False
    ) -> None:
        self.size = size
        self.shares_memory = shares_memory
        self.lock = threading.Condition()
        #: for each rank, for each source, what is under way
        self.queues: list[list[deque[Any]]] = [[deque() for _ in range(size)] for _ in range(size)]
        self.waits: dict[int, Callable[[], list[Wait]]] = {}
        self.ended: set[int] = set()
        self.failure: BaseException | None = None
        self.seed = seed
        self.hold = hold
        self.messages = 0

    def check(self) -> None:
        """Fail all ranks if none can go on; the lock is held."""
        if self.failure is not None or len(self.waits) + len(self.ended) < self.size:
            return
        if any(queue for rank in self.waits for queue in self.queues[rank]) or not self.waits:
            return
        told = {rank: what() for rank, what in self.waits.items()}
        self.failure = Deadlock(explain_deadlock(told))
        self.lock.notify_all()

    def fail(self, error: BaseException) -> None:
        with self.lock:
            if self.failure is None:
                self.failure = error
            self.lock.notify_all()


class ThreadPort:
    """One rank's port: see ``feliss_nb.models.mpi.Port``."""

    def __init__(self, hub: Hub, rank: int) -> None:
        self.hub, self.rank, self.size = hub, rank, hub.size
        self.deliver: Callable[..., None] = lambda *_: None
        self.random = random.Random(hub.seed * 1000 + rank) if hub.seed is not None else None
        self.ticks = 0

    def clock(self) -> float:
        self.ticks += 1
        return float(self.ticks)

    def freeze(self, buffers: Sequence[Any]) -> Sequence[Any]:
        return [memoryview(bytes(buffer)) for buffer in buffers]

    def shares_memory(self, ranks: Sequence[int]) -> bool:
        return self.hub.shares_memory

    def send(
        self,
        destination: int,
        head: tuple[Any, ...],
        buffers: Sequence[Any],
        frozen: bool = False,
    ) -> None:
        assert destination != self.rank
        copies = (
            buffers
            if frozen
            else [np.frombuffer(b, np.uint8).copy() if len(b) else b"" for b in buffers]
        )
        with self.hub.lock:
            self.hub.messages += 1
            self.hub.queues[destination][self.rank].append((head, copies))
            self.hub.lock.notify_all()

    def _next(self) -> tuple[int, Any] | None:
        queues = self.hub.queues[self.rank]
        some = [source for source, queue in enumerate(queues) if queue]
        if not some:
            return None
        source = self.random.choice(some) if self.random else some[0]
        return source, queues[source].popleft()

    def poll(self) -> None:
        while True:
            with self.hub.lock:
                if self.hub.failure is not None:
                    raise Stopped
                if self.random and self.random.random() < self.hub.hold:
                    return
                found = self._next()
            if found is None:
                return
            source, (head, buffers) = found
            self.deliver(source, head, buffers)

    def wait(self, arrived: Callable[[], bool], what: Callable[[], list[Wait]]) -> None:
        while not arrived():
            with self.hub.lock:
                while True:
                    if self.hub.failure is not None:
                        raise Stopped
                    found = self._next()
                    if found is not None:
                        break
                    self.hub.waits[self.rank] = what
                    self.hub.check()
                    if self.hub.failure is None:
                        self.hub.lock.wait()
                    self.hub.waits.pop(self.rank, None)
            source, (head, buffers) = found
            self.deliver(source, head, buffers)


def run(
    size: int,
    main: Callable[..., Any],
    *args: Any,
    seed: int | None = None,
    hold: float = 0.0,
    quiet: bool = True,
    then: Callable[..., Any] | None = None,
    shares_memory: bool | None = None,
) -> list[Any]:
    """Run ``main(comm, *args)`` on every rank and give what each returns.

    Parameters
    ----------
    seed : int, optional
        Draw the order of arrival.
    hold : float
        How likely a poll is to see nothing more.
    quiet : bool
        Whether to check that no message and no request is left.
    shares_memory : bool, optional
        What the ports say; on an odd number of ranks they say yes.
    """
    hub = Hub(size, seed, hold, size % 2 == 1 if shares_memory is None else shares_memory)
    results: list[Any] = [None] * size

    def body(rank: int) -> None:
        try:
            with gang(ThreadPort(hub, rank), then) as comm:
                results[rank] = main(comm, *args)
                if quiet:
                    comm.check_quiet()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  the test's own thread raises it
            hub.fail(error)
        with hub.lock:
            hub.ended.add(rank)
            hub.check()

    threads = [threading.Thread(target=body, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a rank hangs"
    if hub.failure is not None:
        raise hub.failure
    return results
