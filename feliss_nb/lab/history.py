"""What every rank did, when: spans and marks, made of a session's events. Pure.

A dashboard, a picture and a story are drawn of the same `History`; a trace gives one as a live
session does.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from feliss_nb.runtime import Event

#: What a rank does, for people. `capturing` and `sending` go on beside the work.
KINDS = {
    "running": "runs",
    "idle": "has nothing to do",
    "loading": "stands up from its snapshot",
    "lost": "is lost with its engine",
    "capturing": "its state is captured",
    "sending": "copies of its snapshot are on their way",
}

#: A dashboard lives for days: so many spans of a rank are kept, the last ones.
KEPT = 5000


@dataclass(frozen=True, slots=True)
class Span:
    """What a rank, or a job, did for a while.

    Attributes
    ----------
    row : int
        The rank, or the number of the job.
    kind : str
        One of `KINDS`; of a job, how it ended, or ``running``.
    begin, end : float
        Seconds since the session began.
    engine : str
        That hosted the rank.
    label : str
        Of a job.
    """

    row: int
    kind: str
    begin: float
    end: float
    engine: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that took no time.

    Attributes
    ----------
    at : float
        When.
    kind : str
        ``checkpoint``, ``loss``, ``fault`` or ``recovered``.
    text : str
        In a few words.
    ranks : tuple of int
        To whom it happened; none: to all.
    """

    at: float
    kind: str
    text: str
    ranks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Commit:
    """A checkpoint that was committed.

    Attributes
    ----------
    checkpoint, epoch : int
        Its number, and the epoch of it.
    begun, at : float
        When it was begun and committed, in seconds since the session began.
    bytes, written : int
        Of its snapshots, and those that the captures wrote.
    pause : float
        The longest time, in seconds, that a rank did not run for it.
    """

    checkpoint: int
    epoch: int
    begun: float
    at: float
    bytes: int
    written: int
    pause: float


@dataclass(slots=True)
class Loss:
    """An engine that was lost.

    Attributes
    ----------
    engine : str
    at : float
        When the master took it for lost.
    why : str
    ranks : tuple of int
        That it hosted.
    cause : Event or None
        What was done to it before, if that is known: ``kill`` or ``fault``, or ``fencing``.
    """

    engine: str
    at: float
    why: str
    ranks: tuple[int, ...]
    cause: Event | None = None


@dataclass(slots=True)
class Recovery:
    """From a loss until every rank ran again.

    Attributes
    ----------
    number : int
        Counts the recoveries of the session, from 1.
    losses : list of Loss
        The first, and those that extended the recovery.
    checkpoint : int
        The one that the ranks went back to; 0 is the start of the session.
    taken : float or None
        When that was committed.
    routes, hosts : dict
        The engine of each rank, after and before.
    spares : set of str
        Engines that hosted no rank before.
    read_from : dict
        Whose copy each rank read that moved.
    loaded : dict
        When each rank stood again.
    epoch : int or None
        The new one; None: it has not ended.
    ended, protected : float or None
        When all ranks ran, and when every snapshot had its copies again.
    joined : list of (float, str)
        Engines that came in place of those that were lost.
    """

    number: int
    losses: list[Loss]
    hosts: dict[int, str]
    checkpoint: int = 0
    taken: float | None = None
    routes: dict[int, str] = field(default_factory=dict)
    spares: set[str] = field(default_factory=set)
    read_from: dict[int, str] = field(default_factory=dict)
    loaded: dict[int, float] = field(default_factory=dict)
    epoch: int | None = None
    ended: float | None = None
    protected: float | None = None
    joined: list[tuple[float, str]] = field(default_factory=list)

    @property
    def begun(self) -> float:
        """When it was done to the first engine, or else when that was noticed."""
        cause = self.losses[0].cause
        return self.losses[0].at if cause is None else cause.at

    @property
    def detection(self) -> float:
        """Seconds until the first loss was noticed."""
        return self.losses[0].at - self.begun

    @property
    def load(self) -> float | None:
        """Seconds from there until the last rank stood up from its snapshot."""
        return max(self.loaded.values()) - self.losses[0].at if self.loaded else None

    @property
    def resume(self) -> float | None:
        """Seconds from there until every rank ran."""
        if self.ended is None or not self.loaded:
            return None
        return self.ended - max(self.loaded.values())


@dataclass(slots=True)
class _Rank:
    engine: str
    kind: str
    since: float
    busy: bool = False
    capture: tuple[str, float] | None = None  # capturing or sending, since when


class History:
    """What a session's events tell.

    Parameters
    ----------
    events : iterable of Event
        The first of them; more by `add`.

    Attributes
    ----------
    marks : list of Mark
    commits : list of Commit
    recoveries : list of Recovery
    now : float
        The time of the last event, or later: see `look`.
    begun : float or None
        When the ranks ran first.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.marks: list[Mark] = []
        self.commits: list[Commit] = []
        self.recoveries: list[Recovery] = []
        self.now = 0.0
        self.begun: float | None = None
        self._ranks: dict[int, _Rank] = {}
        self._spans: list[Span] = []
        self._captures: list[Span] = []
        self._jobs: dict[int, Span] = {}
        self._asked: dict[int, float] = {}  # checkpoints, and when they were begun
        self._causes: dict[str, Event] = {}
        self._slow: dict[str, float] = {}  # an engine, and until when
        self.add(events)

    def add(self, events: Iterable[Event]) -> None:
        """Take more events."""
        for event in events:
            self.now = max(self.now, event.at)
            handler = _HANDLERS.get(event.kind)
            if handler is not None:
                handler(self, event)
        for spans in (self._spans, self._captures, self.marks):
            del spans[: max(len(spans) - KEPT * max(len(self._ranks), 1), 0)]
        ended = [number for number, span in self._jobs.items() if span.kind != "running"]
        for number in ended[: max(len(ended) - KEPT, 0)]:
            del self._jobs[number]

    def look(self, now: float) -> None:
        """Note that it is later: what has not ended goes on."""
        self.now = max(self.now, now)

    # ------------------------------------------------------------ what is drawn

    @property
    def ranks(self) -> list[int]:
        """The ranks there are."""
        return sorted(self._ranks)

    def spans(self, since: float = 0.0) -> list[Span]:
        """Give what the ranks did, each without gaps; what has not ended, until now.

        Parameters
        ----------
        since : float
            Those that ended before are left out.
        """
        open_ = [
            Span(number, rank.kind, rank.since, self.now, rank.engine)
            for number, rank in self._ranks.items()
        ]
        return [*_ended_after(self._spans, since), *open_]

    def captures(self, since: float = 0.0) -> list[Span]:
        """Give the captures and copies of the ranks, which go on beside their work."""
        open_ = [
            Span(number, rank.capture[0], rank.capture[1], self.now, rank.engine)
            for number, rank in self._ranks.items()
            if rank.capture is not None
        ]
        return [*_ended_after(self._captures, since), *open_]

    @property
    def jobs(self) -> list[Span]:
        """The jobs, in the order of their submission."""
        return [
            replace(span, end=self.now) if span.kind == "running" else span
            for span in self._jobs.values()
        ]

    def capturing(self, rank: int) -> str:
        """Tell whether a rank is ``capturing`` or ``sending``; else an empty text."""
        found = self._ranks.get(rank)
        return found.capture[0] if found is not None and found.capture is not None else ""

    def is_slow(self, engine: str) -> bool:
        """Tell whether a fault makes an engine slow now."""
        return self._slow.get(engine, 0.0) > self.now

    def doing(self, rank: int) -> str:
        """Tell what a rank does now."""
        found = self._ranks.get(rank)
        return "" if found is None else found.kind

    # ------------------------------------------------------------ events

    def _turn(self, number: int, kind: str, at: float, engine: str | None = None) -> None:
        """Let a rank do something else from now on."""
        rank = self._ranks.get(number)
        if rank is None:
            self._ranks[number] = _Rank(engine or "", kind, at)
            return
        host = rank.engine if engine is None else engine
        if (kind, host) == (rank.kind, rank.engine):
            return
        if at > rank.since:
            self._spans.append(Span(number, rank.kind, rank.since, at, rank.engine))
        rank.kind, rank.engine, rank.since = kind, host, at

    def _capture(self, number: int, kind: str, at: float) -> None:
        rank = self._ranks.get(number)
        if rank is None:
            return
        if rank.capture is not None:
            old, since = rank.capture
            self._captures.append(Span(number, old, since, at, rank.engine))
        rank.capture = (kind, at) if kind else None

    def _end_captures(self, event: Event) -> None:
        for number in self._ranks:
            self._capture(number, "", event.at)

    def _joined(self, event: Event) -> None:
        open_ = [each for each in self.recoveries if len(each.joined) < len(each.losses)]
        if open_ and self.begun is not None:
            open_[0].joined.append((event.at, str(event.engine)))

    def _recovering(self, event: Event) -> None:
        routes = {int(rank): str(engine) for rank, engine in event.routes.items()}
        for rank, engine in routes.items():
            self._turn(rank, "loading", event.at, engine)
        if not self._is_open():
            return
        recovery = self.recoveries[-1]
        recovery.checkpoint, recovery.routes = event.checkpoint, routes
        taken = [each.at for each in self.commits if each.checkpoint == event.checkpoint]
        recovery.taken = taken[-1] if taken else None
        recovery.read_from = {
            int(rank): str(at) for rank, at in event.data.get("read_from", {}).items()
        }
        recovery.spares = set(routes.values()) - set(recovery.hosts.values())
        recovery.loaded = {}

    def _is_open(self) -> bool:
        return bool(self.recoveries) and self.recoveries[-1].ended is None

    def _loaded(self, event: Event) -> None:
        if self._is_open():
            self.recoveries[-1].loaded[event.rank] = event.at

    def _runs(self, event: Event) -> None:
        for number, rank in self._ranks.items():
            rank.busy = False
            self._turn(number, "idle", event.at)
        if event.kind == "started":
            self.begun = event.at
        elif self._is_open():
            recovery = self.recoveries[-1]
            recovery.ended, recovery.epoch = event.at, event.epoch
            self.marks.append(Mark(event.at, "recovered", f"epoch {event.epoch}"))

    def _pool(self, event: Event) -> None:
        rank = self._ranks.get(event.rank)
        if rank is None:
            return
        rank.busy = event.kind == "busy"
        if rank.kind in ("running", "idle"):
            self._turn(event.rank, "running" if rank.busy else "idle", event.at)

    def _begun(self, event: Event) -> None:
        self._asked[event.checkpoint] = event.at

    def _cut(self, event: Event) -> None:
        self._capture(event.rank, "capturing", event.at)

    def _saved(self, event: Event) -> None:
        self._capture(event.rank, "sending", event.at)

    def _committed(self, event: Event) -> None:
        self._end_captures(event)
        begun = self._asked.pop(event.checkpoint, event.at)
        written = event.data.get("written")
        size = event.bytes if written is None else written
        figures = event.at, event.bytes, size, event.pause
        self.commits.append(Commit(event.checkpoint, event.epoch, begun, *figures))
        self.marks.append(Mark(event.at, "checkpoint", f"checkpoint {event.checkpoint}"))

    def _harmed(self, event: Event) -> None:
        self._causes[str(event.engine)] = event
        if event.kind == "fault":
            text = f"{event.fault} of engine {event.engine}" if event.engine else event.fault
            self.marks.append(Mark(event.at, "fault", text))
            if event.fault == "slow":
                self._slow[str(event.engine)] = event.at + event.data.get("seconds", 0.0)

    def _fencing(self, event: Event) -> None:
        self._causes.setdefault(str(event.engine), event)

    def _lost(self, event: Event) -> None:
        engine = str(event.engine)
        self._end_captures(event)
        ranks = tuple(event.ranks)
        hosts = {number: rank.engine for number, rank in self._ranks.items()}
        loss = Loss(engine, event.at, event.why, ranks, self._causes.pop(engine, None))
        for rank in ranks:
            self._turn(rank, "lost", event.at)
        self.marks.append(Mark(event.at, "loss", f"engine {engine} is lost", ranks))
        if self._is_open():
            self.recoveries[-1].losses.append(loss)
        elif ranks:
            number = self.recoveries[-1].number + 1 if self.recoveries else 1
            self.recoveries.append(Recovery(number, [loss], hosts))

    def _protected(self, event: Event) -> None:
        for recovery in self.recoveries:
            if recovery.ended is not None and recovery.protected is None:
                recovery.protected = event.at

    def _submitted(self, event: Event) -> None:
        if not event.data.get("internal"):
            at, label = event.at, event.label
            self._jobs[event.job] = Span(event.job, "running", at, at, label=label)

    def _job_ended(self, event: Event) -> None:
        span = self._jobs.get(event.job)
        if span is not None and span.kind == "running":  # a replay comes to its end again
            kind = event.kind.removeprefix("job-")
            self._jobs[event.job] = replace(span, kind=kind, end=event.at)

    def _over(self, event: Event) -> None:
        self._end_captures(event)


def _ended_after(spans: list[Span], since: float) -> list[Span]:
    return spans[bisect.bisect_left(spans, since, key=lambda span: span.end) :]


_HANDLERS: dict[str, Callable[[History, Event], None]] = {
    "engine-joined": History._joined,
    "recovering": History._recovering,
    "loaded": History._loaded,
    "started": History._runs,
    "recovered": History._runs,
    "busy": History._pool,
    "idle": History._pool,
    "checkpoint-begun": History._begun,
    "cut": History._cut,
    "saved": History._saved,
    "committed": History._committed,
    "checkpoint-failed": lambda history, event: history._end_captures(event),
    "capture-lost": lambda history, event: history._end_captures(event),
    "kill": History._harmed,
    "fault": History._harmed,
    "fencing": History._fencing,
    "engine-lost": History._lost,
    "protected": History._protected,
    "job-submitted": History._submitted,
    "job-done": History._job_ended,
    "job-failed": History._job_ended,
    "job-cancelled": History._job_ended,
    "failed": History._over,
    "stopped": History._over,
}
