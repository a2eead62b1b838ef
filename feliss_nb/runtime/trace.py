"""A session's events and states as lines of JSON, to be shown again where no engine can run."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from feliss_nb.errors import UsageError
from feliss_nb.runtime.events import Event
from feliss_nb.runtime.status import (
    Checkpoint,
    EngineStatus,
    JobStatus,
    Pacing,
    RankStatus,
    Status,
    StoreStatus,
)
from feliss_nb.runtime.watching import Watch

FORMAT = "feliss-trace 1"

#: A moment of a trace: the events since the one before, and the state then (None: it has ended).
Moment = tuple[list[Event], "Status | None"]


class Recorder:
    """Writes a trace, up to four states a second and every event. See `BaseSession.record_trace`.

    Parameters
    ----------
    path : path
        The file; what was there before is gone.

    Raises
    ------
    UsageError
        If it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._file: IO[str] = self.path.open("w", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"no trace can be written to {str(path)!r}: {error}") from None
        self._write({"format": FORMAT})
        self._last: dict[str, Any] = {}
        self._watch: Watch | None = None

    def follow(self, watch: Watch) -> None:
        """Know the watch that calls `look`, to close it with the file."""
        self._watch = watch

    def look(self, events: list[Event], status: Status | None) -> None:
        """Write what is new."""
        for event in events:
            self._write({"event": event.kind, "at": round(event.at, 4), "data": event.data})
        state = None if status is None else state_of(status)
        if state is None:
            self._write({"status": None})
            self._file.close()
        elif _without_clock(state) != self._last:
            self._last = _without_clock(state)
            self._write({"status": state})
        if not self._file.closed:
            self._file.flush()

    def _write(self, line: dict[str, Any]) -> None:
        text = json.dumps(line, default=_plain, separators=(",", ":"))
        self._file.write(text + "\n")

    def close(self) -> None:
        """End the trace; the session goes on."""
        if self._watch is not None:
            self._watch.close()
        self._file.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<trace {str(self.path)!r}{', ended' if self._file.closed else ''}>"


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def _without_clock(state: dict[str, Any]) -> dict[str, Any]:
    """Leave out what changes though nothing happens."""
    engines = [{**e, "beat": None, "memory": 0} for e in state["engines"]]
    return {**state, "at": 0.0, "engines": engines}


def state_of(status: Status) -> dict[str, Any]:
    """Return a status as plain data."""
    anatomy = {"checkpoint": None}  # its way to ask for an anatomy does not travel
    plain = asdict(dataclasses.replace(status, **anatomy))  # type: ignore[arg-type]
    plain = _rounded(plain)
    if status.checkpoint is not None:
        fields = dataclasses.fields(status.checkpoint)
        names = [field.name for field in fields if not field.name.startswith("_")]
        plain["checkpoint"] = {name: getattr(status.checkpoint, name) for name in names}
    return plain


def _rounded(value: Any) -> Any:
    """Leave digits out that nobody sees."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value


def status_from(state: dict[str, Any]) -> Status:
    """Return the status that `state_of` made plain."""
    found = dict(state)
    engines = []
    for each in state["engines"]:
        lists = {"ranks": tuple(each["ranks"]), "copies_of": tuple(each["copies_of"])}
        engines.append(EngineStatus(**{**each, **lists}))
    found["engines"] = tuple(engines)
    found["ranks"] = tuple(RankStatus(**each) for each in state["ranks"])
    found["jobs"] = tuple(JobStatus(**each) for each in state["jobs"])
    found["messages"] = tuple(state["messages"])
    kinds: dict[str, Any] = {"checkpoint": Checkpoint, "store": StoreStatus, "pacing": Pacing}
    for name, kind in kinds.items():
        if state.get(name) is not None:
            found[name] = kind(**state[name])
    return Status(**found)


def read_trace(path: str | os.PathLike[str]) -> list[Moment]:
    """Read a trace that `BaseSession.record_trace` wrote.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    list of (list of Event, Status or None)
        Its moments, in order.

    Raises
    ------
    UsageError
        If there is no such file, or it is no trace.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"no trace can be read from {str(path)!r}: {error}") from None
    try:
        if not lines or json.loads(lines[0]) != {"format": FORMAT}:
            raise ValueError("its first line does not say so")
        return list(_moments(lines[1:]))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{str(path)!r} is no trace of this version: {error}") from None


def _moments(lines: Iterable[str]) -> Iterator[Moment]:
    events: list[Event] = []
    for number, line in enumerate(lines):
        try:
            found = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number + 2}: {error}") from None
        if "event" in found:
            events.append(Event(found["event"], found["at"], _keys(found["data"])))
        else:
            state = found["status"]
            yield events, None if state is None else status_from(state)
            events = []
    if events:
        yield events, None


def _keys(data: Any) -> Any:
    """JSON has texts as keys; ranks are numbers."""
    if isinstance(data, dict):
        return {(int(k) if k.isdecimal() else k): _keys(value) for k, value in data.items()}
    return [_keys(value) for value in data] if isinstance(data, list) else data
