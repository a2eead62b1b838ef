"""What happened in a session, as lines of plain text made from its event log."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator

from feliss_nb import Event
from feliss_nb.runtime.table import human_bytes

WIDTH = 80  # columns
_WHO = 9
_INDENT = 11 + _WHO + 2

Line = tuple[str, str]


def timeline(
    events: Iterable[Event], records: int | None = None, begun: float | None = None
) -> str:
    """Write the events that a person wants to see, in order, with the time since the first.

    Parameters
    ----------
    events : iterable of Event
        Of one session, in order.
    records : int, optional
        How many records the maps have to go through, to tell their share.
    begun : float, optional
        The time that counts as 0, in seconds since the session began. Default: the first event.

    Returns
    -------
    str
        Lines of at most 80 columns.
    """
    events = list(events)
    if begun is None:
        begun = events[0].at if events else 0.0
    lines = [f"{'time':>9}  {'who':<{_WHO}}  what"]
    for at, who, what in _rows(events, records):
        wrapped = textwrap.wrap(what, WIDTH - _INDENT) or [""]
        lines.append(f"{at - begun:7.3f} s  {who:<{_WHO}}  {wrapped[0]}")
        lines += [" " * _INDENT + rest for rest in wrapped[1:]]
    return "\n".join(lines)


def _rows(events: list[Event], records: int | None) -> Iterator[tuple[float, str, str]]:
    """Events as rows; maps report ten times a second and rank, so those in a row are one row."""
    mapped, last, epoch = 0, 0.0, 0
    for event in events:
        if event.kind == "mapped":
            if event.epoch != epoch and mapped:
                yield last, "ranks", _mapped(mapped, records)
                mapped = 0
            mapped, last, epoch = mapped + event.records, event.at, event.epoch
            continue
        found = _WORDS[event.kind](event) if event.kind in _WORDS else None
        if found is None:
            continue
        if mapped:
            yield last, "ranks", _mapped(mapped, records)
            mapped = 0
        yield event.at, *found
    if mapped:
        yield last, "ranks", _mapped(mapped, records)


def _mapped(count: int, records: int | None) -> str:
    share = f", {100 * count / records:.0f} % of the input" if records else ""
    return f"map {count:,} records{share}"


def _started(event: Event) -> Line:
    return "master", "every rank runs; this start is checkpoint 0, epoch 0"


def _submitted(event: Event) -> Line | None:
    return None if event.internal else ("notebook", f"submits job {event.job}: {event.label}")


def _done(event: Event) -> Line | None:
    if event.label.startswith("fetch of "):
        return None
    return "ranks", f"job {event.job} has ended: {event.label}"


def _committed(event: Event) -> Line:
    return (
        "master",
        f"checkpoint {event.checkpoint} is committed: {human_bytes(event.bytes)}, and as much in "
        f"copies; ranks paused for {event.pause * 1e3:.0f} ms at most",
    )


def _kill(event: Event) -> Line:
    what = "" if event.rank is None else f": rank {event.rank} and its memory are gone"
    return f"engine {event.engine}", f"gets a SIGKILL{what}"


def _fault(event: Event) -> Line:
    who = f"engine {event.engine}" if event.engine else "a plan"
    return who, f"suffers a fault: {event.fault}" if event.engine else event.fault


def _lost(event: Event) -> Line:
    return "master", f"engine {event.engine} is lost: {event.why}"


def _recovering(event: Event) -> Line | None:
    if not event.epoch:
        return None
    moved = ", ".join(
        f"engine {event.routes[rank]} takes rank {rank} and reads its copy on engine {source}"
        for rank, source in event.read_from.items()
    )
    text = f"every rank goes back to checkpoint {event.checkpoint}"
    return "master", f"{text}; {moved}" if moved else text


def _loaded(event: Event) -> Line | None:
    return (f"engine {event.engine}", f"rank {event.rank} stands again") if event.epoch else None


def _words(who: str, what: str) -> Callable[[Event], Line]:
    return lambda event: (who, what.format(**event.data))


_WORDS: dict[str, Callable[[Event], Line | None]] = {
    "started": _started,
    "job-submitted": _submitted,
    "job-done": _done,
    "job-failed": _words("ranks", "job {job} failed"),
    "job-cancelled": _words("notebook", "job {job} is cancelled"),
    "checkpoint-begun": _words("master", "asks every rank for a cut: checkpoint {checkpoint}"),
    "checkpoint-failed": _words("rank {rank}", "checkpoint {checkpoint} failed: {error}"),
    "copy-lost": _words("{engine}", "has lost its copy of rank {rank}'s snapshot"),
    "capture-lost": _words("rank {rank}", "lost the capture for checkpoint {checkpoint}: {why}"),
    "committed": _committed,
    "kill": _kill,
    "fault": _fault,
    "fencing": _words("master", "kills engine {engine}, which is suspect: {why}"),
    "engine-lost": _lost,
    "recovering": _recovering,
    "loaded": _loaded,
    "recovered": _words("master", "every rank runs again, in epoch {epoch}"),
    "resumed": _words("master", "another process has the master's place (term {term})"),
    "protected": _words("master", "every snapshot has its copies again"),
    "no-replacement": _words("master", "the lost engine was not replaced: {error}"),
    "failed": _words("master", "the session cannot go on: {error}"),
}
