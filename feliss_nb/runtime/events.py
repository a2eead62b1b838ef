"""The event log: what happened, in order. Dashboard, plots and tests read it and nothing else.

That of a named session stands in files of its directory too, a line of JSON for each event, so that
the next process has what the one before saw. It is for people: nothing is decided by it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

LARGEST = 4 << 20  # bytes added to a file until it begins anew
KEPT = 5000  # events that it begins with

_FILE = "events-{}"


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
        self.listener: Callable[[Event], None] | None = None  # hears of each event, on its thread
        self._fd, self._room, self._path = -1, 0, Path()

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
            if self._fd >= 0:
                self._note(event)
        listener = self.listener
        if listener is not None:
            listener(event)
        return event

    # ------------------------------------------------------------ from process to process

    def go_on(self, directory: Path, age: float) -> None:
        """Begin with what the process before saw of a session.

        Parameters
        ----------
        directory : Path
            The session's.
        age : float
            Seconds since it began.
        """
        self._begun = time.monotonic() - age
        for path in sorted(directory.glob(_FILE.format("*")), key=_term)[-1:]:
            for line in path.read_text("utf-8", "replace").splitlines():
                event = _read(line)
                if event is not None:
                    self._events.append(event)

    def keep(self, directory: Path, term: int) -> None:
        """Write events down from now on, with those that are there.

        Parameters
        ----------
        directory : Path
            The session's.
        term : int
            Of this process's master: it has a file of its own.
        """
        with self._grown:
            self._path = directory / _FILE.format(term)
            self._begin_file()
        for path in directory.glob(_FILE.format("*")):
            if _term(path) < term:
                path.unlink(missing_ok=True)

    def _begin_file(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        staged = self._path.with_name(f".{self._path.name}")
        self.close()
        self._room = LARGEST
        try:
            self._fd = os.open(staged, flags, 0o600)
            for event in self._events[-KEPT:]:
                self._write(event)
            os.replace(staged, self._path)
        except OSError:  # a full disk: the log in memory goes on
            self.close()

    def _write(self, event: Event) -> None:
        line = json.dumps((event.kind, event.at, event.data), default=_plain) + "\n"
        self._room -= os.write(self._fd, line.encode())

    def _note(self, event: Event) -> None:
        if self._room < 0:
            self._begin_file()
            return
        try:
            self._write(event)
        except OSError:
            self.close()

    def close(self) -> None:
        """Write nothing down any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # ------------------------------------------------------------ to read

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


def _term(path: Path) -> int:
    return int(path.name.partition("-")[2])


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def _read(line: str) -> Event | None:
    """Return the event of a line; None where its process ended while it wrote, or it is damaged."""
    try:
        found = json.loads(line, object_hook=_with_numbers)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or [type(part) for part in found] != [str, float, dict]:
        return None
    return Event(*found)


def _with_numbers(data: dict[str, Any]) -> dict[Any, Any]:
    """Give numbers back that were keys: JSON knows texts only."""
    return {int(key) if key.isdecimal() else key: value for key, value in data.items()}
