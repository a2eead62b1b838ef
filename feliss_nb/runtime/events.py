"""The event log: what happened, in order. Dashboard, plots and tests read it and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the log.

    Attributes
    ----------
    kind : str
        What happened: ``engine-lost``, ``recovered``, ``committed``, ...
    at : float
        Seconds since the session began.
    data : dict
        What belongs to it.
    """

    kind: str
    at: float
    data: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        data = ", ".join(f"{key}={value!r}" for key, value in self.data.items())
        return f"{self.at:9.3f} s  {self.kind}" + (f"  {data}" if data else "")

    def __getattr__(self, name: str) -> Any:
        try:
            return object.__getattribute__(self, "data")[name]
        except KeyError:
            raise AttributeError(name) from None


class EventLog(Sequence[Event]):
    """The events of a session; grows while it is read."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._events: list[Event] = []
        self._grown = threading.Condition()

    @property
    def now(self) -> float:
        """Seconds since the session began, as events have them."""
        return time.monotonic() - self._begun

    def add(self, kind: str, **data: Any) -> Event:
        """Add an event now."""
        event = Event(kind, self.now, data)
        with self._grown:
            self._events.append(event)
            self._grown.notify_all()
        return event

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        return self._events[index]

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(list(self._events))

    def __repr__(self) -> str:
        return "\n".join(repr(event) for event in self)

    def of_kind(self, *kinds: str) -> list[Event]:
        """Return the events of these kinds."""
        return [event for event in self if event.kind in kinds]

    def last(self, kind: str, **data: Any) -> Event | None:
        """Return the last event of a kind with these data, if there is one."""
        for event in reversed(self._events):
            if event.kind == kind and all(event.data.get(k) == v for k, v in data.items()):
                return event
        return None

    def wait_for(self, kind: str, count: int = 1, timeout: float | None = None) -> Event:
        """Wait until there are `count` events of a kind; return the last of them.

        Raises
        ------
        TimeoutError
            If they do not come in `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._grown:
            while len(found := [e for e in self._events if e.kind == kind]) < count:
                left = 1.0 if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{len(found)} of {count} events {kind!r} in {timeout} s")
                self._grown.wait(min(left, 1.0))
            return found[count - 1]
