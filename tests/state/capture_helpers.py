"""Captures taken and put together as a session does it, without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feliss_nb.state import from_frames, restore
from feliss_nb.state.captures import Taken, draft, method
from feliss_nb.state.comparing import Index
from feliss_nb.state.differences import assemble
from feliss_nb.state.forked import fork

#: Seconds; nothing that works comes near it.
PATIENCE = 60.0


def take(obj: object, name: str, known: Index | None = None, base: Sequence[Any] = ()) -> Taken:
    how = method(name)
    if not how.forked:
        return draft(obj, how, known).finish(base)
    child = fork(lambda: draft(obj, how, known).finish(base).parts())
    return Taken.of_parts(child.result(PATIENCE))


class Chain:
    """A chain of captures as a store keeps it: from the last whole one on."""

    def __init__(self) -> None:
        self.parts: list[list[Any]] = []
        self.index: Index | None = None

    def take(self, obj: object, name: str) -> Taken:
        known = self.index if method(name).needs_base else None
        base = assemble(self.parts) if known is not None else ()
        taken = take(obj, name, known, base)
        frames = [bytes(frame) for frame in taken.frames]  # nothing of it is live
        self.parts = [*self.parts, frames] if taken.needs_base else [frames]
        self.index = taken.index
        return taken

    def restore(self) -> Any:
        return restore(from_frames(assemble(self.parts)))
