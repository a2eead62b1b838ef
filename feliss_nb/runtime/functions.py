"""The functions that the master has sent to an engine, by what they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from feliss_nb.errors import InternalError
from feliss_nb.runtime import wire
from feliss_nb.runtime.blobs import large_buffers
from feliss_nb.state.functions import refresh_modules

PATIENCE = 60.0  # seconds; the master has sent it before anybody could name it


class Functions:
    """Keeps functions, and lets who is early wait for them.

    Parameters
    ----------
    lock : RLock
        The engine's.
    has_master : callable
        Tells whether a master is there: the time without one does not count.
    """

    def __init__(self, lock: threading.RLock, has_master: Callable[[], bool]) -> None:
        self._lock, self._has_master = lock, has_master
        self._blobs: dict[bytes, wire.Blob] = {}
        self._arrived = threading.Condition(lock)

    def keep(self, blob: wire.Blob) -> None:
        """Take a function. The lock is held."""
        refresh_modules(blob.modules)
        if any(isinstance(buffer, wire.Known) for buffer in blob.buffers):
            shared = {
                mark: other.buffers[place]
                for other in self._blobs.values()
                for mark, place in large_buffers(other.buffers)
            }
            blob.buffers = tuple(
                shared[buffer.digest] if isinstance(buffer, wire.Known) else buffer
                for buffer in blob.buffers
            )
        self._blobs[blob.digest] = blob
        self._arrived.notify_all()

    def drop(self, digests: Iterable[bytes]) -> None:
        """Drop functions. The lock is held."""
        for digest in digests:
            self._blobs.pop(digest, None)

    def get(self, digest: bytes) -> wire.Blob:
        """Return a function; if a peer was faster than the master, wait for it.

        Raises
        ------
        InternalError
            If it never came.
        """
        with self._lock:
            waited = 0.0
            while not self._arrived.wait_for(lambda: digest in self._blobs, 1.0):
                waited += self._has_master()  # another one sends it
                if waited >= PATIENCE:
                    raise InternalError(f"there is no function {digest.hex()} on this engine")
            return self._blobs[digest]

    def handles(self, digest: bytes) -> frozenset[int]:
        """Return the variables that a function captured."""
        blob = self._blobs.get(digest)
        return frozenset() if blob is None else blob.handles
