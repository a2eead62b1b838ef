"""The events of a small session: two ranks, a checkpoint, a loss, a recovery."""

from __future__ import annotations

from typing import Any

from feliss_nb.runtime import Event


def event(kind: str, at: float, **data: Any) -> Event:
    return Event(kind, at, data)


START = [
    event("engine-joined", 1.0, engine="0"),
    event("engine-joined", 1.0, engine="1"),
    event("engine-joined", 1.0, engine="2"),
    event("recovering", 1.0, epoch=0, checkpoint=0, routes={0: "0", 1: "1"}, read_from={}),
    event("loaded", 1.1, engine="0", rank=0, epoch=0),
    event("loaded", 1.1, engine="1", rank=1, epoch=0),
    event("started", 1.2, epoch=0, checkpoint=0),
]
WORK = [
    event("job-submitted", 2.0, job=0, label="map tokenize", internal=False),
    event("busy", 2.1, rank=0, epoch=0),
    event("busy", 2.1, rank=1, epoch=0),
    event("checkpoint-begun", 3.0, checkpoint=1, epoch=0),
    event("cut", 3.1, engine="0", rank=0, epoch=0),
    event("saved", 3.2, engine="0", rank=0, epoch=0),
    event("cut", 3.1, engine="1", rank=1, epoch=0),
    event("saved", 3.3, engine="1", rank=1, epoch=0),
    event("committed", 3.4, checkpoint=1, epoch=0, bytes=2_000_000, written=500_000, pause=0.004),
]
LOSS = [
    event("kill", 5.0, engine="1", rank=1),
    event("engine-lost", 5.02, engine="1", ranks=(1,), why="its process ended"),
    event("recovering", 5.02, epoch=1, checkpoint=1, routes={0: "0", 1: "2"}, read_from={1: "0"}),
    event("loaded", 5.05, engine="0", rank=0, epoch=1),
    event("loaded", 5.1, engine="2", rank=1, epoch=1),
    event("recovered", 5.12, epoch=1, checkpoint=1),
]
AFTER = [
    event("busy", 5.2, rank=1, epoch=1),
    event("protected", 5.5, checkpoint=1),
    event("engine-joined", 7.0, engine="3"),
    event("idle", 8.0, rank=1, epoch=1),
    event("job-done", 8.0, job=0, label="map tokenize"),
]
RUN = [*START, *WORK, *LOSS, *AFTER]
