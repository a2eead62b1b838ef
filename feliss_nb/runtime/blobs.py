"""Functions that the notebook submitted, and which engines have them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from feliss_nb.runtime.wire import Blob, Known
from feliss_nb.state.digest import digest as digest_of
from feliss_nb.store.memory import total

# Functions of jobs that have ended are kept, so that the next submission of the same one sends
# nothing: up to this many, and this many bytes.
KEEP = 64
KEEP_BYTES = 256 << 20

# A captured array of at least this size goes to an engine once, whatever functions capture it.
SHARED = 64 * 1024


class Blobs:
    """The registry of functions by digest. The master's thread alone reads and cleans it."""

    def __init__(self) -> None:
        self._blobs: dict[bytes, Blob] = {}  # the last used ones last
        self._known: dict[str, set[bytes]] = {}
        self._marks: dict[bytes, tuple[tuple[bytes, int], ...]] = {}

    def add(self, blob: Blob) -> None:
        """Take a function, or note that it is used again."""
        known = self._blobs.pop(blob.digest, blob)
        self._blobs[blob.digest] = known

    def get(self, digest: bytes) -> Blob:
        """Return a function that a live job uses."""
        return self._blobs[digest]

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._blobs

    def missing(self, engine: str, digests: Iterable[bytes]) -> list[Blob]:
        """Return the functions that an engine lacks, and note that it will have them.

        Large buffers that it has with other functions are named, not sent.
        """
        known = self._known.setdefault(engine, set())
        lacks = [d for d in dict.fromkeys(digests) if d not in known]
        result = []
        for digest in lacks:
            there = {d for function in known for d, _ in self._large(function)}
            blob = self._blobs[digest]
            buffers = list(blob.buffers)
            for mark, place in self._large(digest):
                if mark in there:
                    buffers[place] = Known(mark)
            known.add(digest)
            result.append(replace(blob, buffers=tuple(buffers)))
        return result

    def _large(self, digest: bytes) -> tuple[tuple[bytes, int], ...]:
        """Return the digest and the place of each large buffer of a function."""
        found = self._marks.get(digest)
        if found is None:
            buffers = self._blobs[digest].buffers
            found = self._marks[digest] = large_buffers(buffers)
        return found

    def forget_engine(self, engine: str) -> None:
        """An engine was lost."""
        self._known.pop(engine, None)

    def clean(self, used: Collection[bytes]) -> dict[str, list[bytes]]:
        """Drop functions that no job uses beyond what is kept; return what engines may drop."""
        idle = [digest for digest in self._blobs if digest not in used]
        size = sum(_bytes(self._blobs[digest]) for digest in idle)
        drop: set[bytes] = set()
        for digest in idle:
            if len(idle) - len(drop) <= KEEP and size <= KEEP_BYTES:
                break
            drop.add(digest)
            size -= _bytes(self._blobs.pop(digest))
            self._marks.pop(digest, None)
        result = {}
        for engine, known in self._known.items():
            gone = [digest for digest in known if digest in drop]
            if gone:
                known.difference_update(gone)
                result[engine] = gone
        return result


def large_buffers(buffers: Iterable[Any]) -> tuple[tuple[bytes, int], ...]:
    """Return the digest and the place of each buffer that is worth naming."""
    return tuple(
        (digest_of(buffer), place)
        for place, buffer in enumerate(buffers)
        if memoryview(buffer).nbytes >= SHARED
    )


def _bytes(blob: Blob) -> int:
    return len(blob.data) + total(blob.buffers)
