"""An engine does to itself what a fault plan says: see `feliss_nb.faults`."""

from __future__ import annotations

import ctypes
import os
import queue
import resource
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from feliss_nb.errors import StoreError
from feliss_nb.runtime import wire

if TYPE_CHECKING:
    from feliss_nb.runtime.engine import EngineWorker

# What an engine may take before it is killed: it is to run into its own limit, never the machine's.
ROOM = 64 << 20


def misbehave(engine: EngineWorker, order: wire.Misbehave) -> None:
    """Carry out a fault. The engine's lock is held."""
    _KINDS[order.kind](engine, order)


def _hang(engine: EngineWorker, order: wire.Misbehave) -> None:
    """Stand still with the GIL held, as C code of the user's may."""
    poll = ctypes.PyDLL(None).poll  # PyDLL keeps the GIL
    threading.Thread(target=poll, args=(None, 0, int(order.seconds * 1000)), daemon=True).start()


def _exhaust(engine: EngineWorker, order: wire.Misbehave) -> None:
    """Take memory up to a limit near what is in use; then end as the kernel ends such a process."""

    def take() -> None:
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, hard))
        taken = []
        try:
            for _ in range(ROOM >> 20):
                taken.append(bytearray(1 << 20))
        except MemoryError:
            taken.clear()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=take, daemon=True).start()


def _delay(engine: EngineWorker, order: wire.Misbehave) -> None:
    Late(engine, order.peer, order.seconds)


class Late:
    """Holds back what is sent to a peer: first in, first out, each for some time.

    Parameters
    ----------
    engine : EngineWorker
        Whose messages.
    peer : str or None
        To whom; None: to everybody.
    seconds : float
        How late each comes, and for how long this goes on.
    """

    def __init__(self, engine: EngineWorker, peer: str | None, seconds: float) -> None:
        self._peers, self._peer, self._seconds = engine.peers, peer, seconds
        self._until = time.monotonic() + seconds
        self._late: queue.SimpleQueue[tuple[float, Callable[[], None]]] = queue.SimpleQueue()
        engine.peers.filter = self._holds
        self._thread = threading.Thread(target=self._send, name="feliss-late", daemon=True)
        self._thread.start()

    def _holds(self, peer: str, send: Callable[[], None]) -> bool:
        """Take a message over, unless it goes to somebody else. The lock of the peers is held."""
        if self._peer is not None and peer != self._peer:
            return False
        now = time.monotonic()
        self._late.put((now + self._seconds if now < self._until else now, send))
        return True

    def _send(self) -> None:
        while True:
            if time.monotonic() >= self._until:
                with self._peers.lock:  # nothing comes in between: the order stays
                    if self._late.empty():
                        if self._peers.filter == self._holds:
                            self._peers.filter = None
                        return
            try:
                at, send = self._late.get(timeout=0.02)
            except queue.Empty:
                continue
            time.sleep(max(at - time.monotonic(), 0.0))
            with self._peers.lock:
                send()


def _drop(engine: EngineWorker, order: wire.Misbehave) -> None:
    left = [order.count]

    def loses(peer: str, send: Callable[[], None]) -> bool:
        if peer != order.peer or not left[0]:
            return False
        left[0] -= 1
        return True

    engine.peers.filter = loses


def _cut(engine: EngineWorker, order: wire.Misbehave) -> None:
    if order.peer == "master":
        engine.control.mute = True
    else:
        engine.peers.filter = lambda peer, send: peer == order.peer


def _lose(engine: EngineWorker, order: wire.Misbehave) -> None:
    for key in engine.store.nbytes():
        if order.rank is None or key[1] == order.rank:
            engine.store.lose(key)


def _flip(engine: EngineWorker, order: wire.Misbehave) -> None:
    for key in engine.store.nbytes():
        if order.rank is None or key[1] == order.rank:
            frames = list(engine.store.get(key))
            sizes = [memoryview(frame).nbytes for frame in frames]
            at = sizes.index(max(sizes))
            flipped = bytearray(frames[at])
            flipped[len(flipped) // 2] ^= 1
            frames[at] = memoryview(bytes(flipped))
            engine.store.put(key, frames)


def _fill(engine: EngineWorker, order: wire.Misbehave) -> None:
    until = time.monotonic() + order.seconds

    def fails() -> None:
        if time.monotonic() < until:
            raise StoreError("[Errno 28] No space left on device")

    engine.copier.before = fails


_KINDS: dict[str, Callable[[Any, wire.Misbehave], None]] = {
    "hang": _hang,
    "exhaust-memory": _exhaust,
    "delay": _delay,
    "drop": _drop,
    "cut": _cut,
    "lose-shard": _lose,
    "flip-bit": _flip,
    "fill-disk": _fill,
}
