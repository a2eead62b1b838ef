"""The segments of other engines that an engine reads: see `shared`."""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from feliss_nb.runtime.shared import (
    GIVEN_UP,
    HEADER,
    LIMITS,
    POPULATE_READ,
    WORDS,
    Block,
    Lease,
    Limits,
    Place,
    Reference,
    Returns,
    advise,
    check,
)
from feliss_nb.state import codec


class _Mapping:
    """Another engine's segment, seen by one that reads it."""

    def __init__(self, path: str, capacity: int, token: bytes, slot: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            check(fd, token)
            self.memory = mmap.mmap(fd, HEADER + capacity)
        finally:
            os.close(fd)
        self.words = memoryview(self.memory)[WORDS:HEADER].cast("Q")
        self.slot = slot
        self.shared = False  # whether nobody may write to what lies here now
        self.given_back = 0
        self.taken = 0
        self.touched = 0

    def give_back(self) -> None:
        self.given_back += 1
        self.words[self.slot] = self.given_back


@dataclass(slots=True)
class _Owner:
    pid: int
    token: bytes
    slot: int
    mappings: dict[int, _Mapping]


class Mappings:
    """The segments of other engines that one engine reads. Every method is for any thread.

    Parameters
    ----------
    limits : Limits, optional
    """

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._owners: dict[str, _Owner] = {}
        self._returns = Returns(_Mapping.give_back)

    def meet(self, engine: str, pid: int, fd: int, token: bytes, slot: int) -> bool:
        """Tell whether this process can open what an engine shares, by a descriptor for trial."""
        try:
            trial = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # another machine, another name space, another user
            return False
        try:
            check(trial, token)
        except OSError:
            return False
        finally:
            os.close(trial)
        with self._lock:
            self._owners[engine] = _Owner(pid, token, slot, {})
        return True

    def take(
        self,
        engine: str,
        references: Sequence[Reference],
        places: Sequence[Place],
        rest: Iterable[Any],
    ) -> list[Any] | None:
        """Give the frames of a message; None if its sender has ended meanwhile."""
        blocks = []
        with self._lock:
            owner = self._owners.get(engine)
            if owner is None:
                return None
            for number, reference in enumerate(references):
                size = max(place[1] + place[2] for place in places if place and place[0] == number)
                try:
                    blocks.append(self._lease(owner, reference, size))
                except OSError as error:
                    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                        raise  # all else means that the owner's process has ended
                    return None
            held = sum(m.taken - m.given_back for m in owner.mappings.values())
        others = iter(rest)
        frames = [
            next(others) if place is None else blocks[place[0]][place[1] : place[1] + place[2]]
            for place in places
        ]
        return codec.fresh(frames) if held > self.limits.held else frames

    def _lease(self, owner: _Owner, reference: Reference, size: int) -> memoryview:
        number, fd, capacity, shared = reference
        mapping = owner.mappings.get(number)
        if mapping is None:
            path = f"/proc/{owner.pid}/fd/{fd}"
            mapping = _Mapping(path, capacity, owner.token, owner.slot)
            owner.mappings[number] = mapping
        mapping.taken += 1
        mapping.shared = shared
        lease = Lease(self._returns, mapping)
        view = Block.make(mapping.memory, size, lease, mapping, shared).data
        if size > mapping.touched:
            advise(mapping.memory, POPULATE_READ, mapping.touched, size)
            mapping.touched = size
        return view.toreadonly() if shared else view

    def has_writable(self) -> bool:
        """Tell whether somebody here may write to what lies in another engine's segment."""
        with self._lock:
            return any(
                mapping.taken != mapping.given_back and not mapping.shared
                for owner in self._owners.values()
                for mapping in owner.mappings.values()
            )

    def hold(self) -> None:
        """Give nothing back until `release`."""
        self._returns.hold()

    def release(self) -> None:
        """End a `hold`."""
        self._returns.release()

    def tidy(self) -> None:
        """Forget the segments that their owners gave up. Call it at times."""
        with self._lock:
            for owner in self._owners.values():
                for number in [n for n, m in owner.mappings.items() if m.words[GIVEN_UP]]:
                    del owner.mappings[number]

    def forget(self, engine: str) -> None:
        """Forget an ended engine's segments; what refers to their memory keeps it."""
        with self._lock:
            self._owners.pop(engine, None)

    def close(self) -> None:
        """Forget all."""
        with self._lock:
            self._owners.clear()
