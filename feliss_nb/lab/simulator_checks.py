"""What must hold in the simulator's whole world, which no machine sees alone."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from feliss_nb.core import events as ev
from feliss_nb.core import messages as m
from feliss_nb.core.rank import Rank
from feliss_nb.core.seat import Seat
from feliss_nb.errors import InternalError, LossError

if TYPE_CHECKING:
    from feliss_nb.lab.simulated_engine import Shard, SimulatedEngine
    from feliss_nb.lab.simulator import Simulation

LIVE = ("running", "preparing", "cutting", "recording")


def ranks(sim: Simulation) -> dict[int, Rank]:
    """Return the ranks of the live epoch, those on engines whose death is not known included."""
    found: dict[int, Rank] = {}
    for rank, engine in sim.master.routes.items():
        worker = sim.engines[engine].worker
        if worker.epoch == sim.master.epoch and rank in worker.ranks:
            found[rank] = worker.ranks[rank]
    return found


def under_way(sim: Simulation) -> Iterator[tuple[int, int, m.Continuation]]:
    """Yield (source, target, continuation) of the messages of the live epoch between ranks."""
    for (plane, _, _), parcels in sim.links.under_way.items():
        for parcel in parcels if plane == "data" else ():
            if parcel.kind == "continuation" and not parcel.lost:
                epoch, target, source, _, continuation = parcel.content
                if epoch == sim.master.epoch:
                    yield source, target, continuation


def injected(sim: Simulation) -> Iterator[m.Continuation]:
    """Yield the starts that are under way to their rank, in the live epoch."""
    for engine in sim.master.engines:
        way = sim.links.under_way.get(("control", "master", engine), ())
        orders = [parcel.content for parcel in way if not parcel.lost]
        for at, order in enumerate(orders):
            stale = any(isinstance(later, m.Rollback) for later in orders[at:])
            if isinstance(order, m.Inject) and not stale:
                yield order.continuation


def alive(sim: Simulation) -> list[m.Continuation]:
    """Return every continuation of the live epoch, wherever it is."""
    found = [continuation for _, _, continuation in under_way(sim)]
    found += injected(sim)
    for rank in ranks(sim).values():
        found += rank.pool
        found += [c for waiting in rank.blocked.values() for c in waiting]
        found += rank.steps.values()
        found += [c for _, _, c in rank.held]
        found += [] if rank.running is None else [rank.running]
    return found


def check_world(sim: Simulation) -> None:
    """Check every machine, and all of them together."""
    master = sim.master
    master.check_invariants()
    for engine in sim.engines.values():
        if engine.alive:
            engine.worker.check_invariants()
            absent = engine.worker.shards - engine.store.keys()
            if any((engine.name, *key) not in sim.spoilt for key in absent):
                raise InternalError(f"{engine.name} acknowledged snapshots that it does not keep")
    if master.state not in ("failed", "stopped") and not sim.corrupted:
        for rank, holders in master.committed.shards.items():
            for holder in holders:
                keeper = sim.engines[holder]
                key = master.committed.id, rank
                if keeper.alive and key not in keeper.store and (holder, *key) not in sim.spoilt:
                    raise InternalError(f"{holder} has dropped its snapshot of rank {rank}")
    if master.state not in LIVE:
        return
    ids = Counter(continuation.id for continuation in alive(sim))
    twice = [identity for identity, n in ids.items() if n > 1]
    if twice:
        raise InternalError(f"{len(twice)} continuations are in two places")
    engines = [sim.engines[name] for name in master.engines]
    if all(engine.alive and engine.name not in sim.network.lossy for engine in engines):
        _check_counters(sim)


def _check_counters(sim: Simulation) -> None:
    """What was sent and not received is under way or held back, job by job, pair by pair."""
    found = ranks(sim)
    flying = Counter((s, t, c.job) for s, t, c in under_way(sim))
    for target, rank in found.items():
        flying.update((s, target, c.job) for s, _, c in rank.held if s >= 0)
    for job in sim.master.ledger.busy.values():
        pairs = {(source, target) for source, target, other in flying if other == job.id}
        for at, machine in found.items():
            pairs |= {(at, target) for target in machine.sent.get(job.id, ())}
            pairs |= {(source, at) for source in machine.received.get(job.id, ())}
        for source, target in pairs:
            if source not in found or target not in found:
                continue
            sent = found[source].sent.get(job.id, {}).get(target, 0)
            received = found[target].received.get(job.id, {}).get(source, 0)
            if sent - received != flying[source, target, job.id]:
                raise InternalError(
                    f"job {job.id}, {source} to {target}: sent {sent}, received {received}, "
                    f"under way {flying[source, target, job.id]}"
                )


def check_wait(sim: Simulation, wait: ev.Wait) -> None:
    """Check, when a wait is answered, that nothing it waited for is alive anywhere.

    An explicit wait for a job that failed or was cancelled is over with the job's outcome.
    """
    for continuation in alive(sim):
        if wait.jobs is None or continuation.job in wait.jobs:
            job = sim.master.jobs.get(continuation.job)
            if wait.jobs is None or job is None or job.state == "done":
                raise InternalError(f"wait() ended with a continuation of {continuation.job} alive")


def check_rest(sim: Simulation) -> None:
    """Check, when nothing more happens, that every snapshot has all copies that it can have."""
    master = sim.master
    if master.state != "running" or sim.corrupted:
        return
    wanted = min(master.copies + 1, len(sim.living()))
    for rank in range(sim.size if master.committed.id else 0):
        key = master.committed.id, rank
        keepers = [name for name in sim.living() if key in sim.engines[name].store]
        spoilt = [name for name in sim.living() if (name, *key) in sim.spoilt]
        if len(keepers) + len(spoilt) < wanted:
            raise InternalError(
                f"at rest {len(keepers)} engines keep rank {rank}, not {wanted}; {sim.story()}"
            )


def check_replay(before: Seat, after: Seat) -> None:
    """Check that a replay of the record gives the master that had it."""
    for one, other in ((before, after), (before.master, after.master)):
        for name, value in vars(one).items():
            if name not in ("master", "links") and _shown(value) != _shown(vars(other)[name]):
                raise InternalError(f"a replay gives another {name}: {vars(other)[name]}, {value}")
    for engine, link in before.links.items():
        again = after.link(engine)
        if (again.sent, again.heard) != (link.sent, link.heard):
            raise InternalError(f"a replay gives another link to {engine}: {again}, {link}")


def _shown(value: Any) -> Any:
    """Return what is in a part of a machine, for a comparison."""
    if isinstance(value, dict):
        return {key: _shown(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | deque):
        return [_shown(inner) for inner in value]
    if isinstance(value, set | frozenset | int | str | bytes | float | None):
        return value
    if isinstance(value, BaseException):
        return repr(value)
    names = getattr(type(value), "__slots__", None) or vars(value)
    return type(value).__name__, [(name, _shown(getattr(value, name))) for name in names]


def check_commit(sim: Simulation) -> list[Shard]:
    """Check that the checkpoint just committed is a consistent cut; return its snapshots."""
    master = sim.master
    shards = []
    for rank in range(sim.size):
        key = master.committed.id, rank
        if (master.routes[rank], *key) in sim.spoilt:
            return []
        shards.append(sim.engines[master.routes[rank]].store[key])
    sent = Counter({(s, t): n for s, x in enumerate(shards) for t, n in x.image.sent_total.items()})
    came: Counter[tuple[int, int]] = Counter()
    for target, receiver in enumerate(shards):
        came.update({(s, target): n for s, n in receiver.image.received_total.items()})
        came.update((source, target) for source, _ in receiver.channel)
    for source, target in sent.keys() | came.keys():
        pair = source, target
        if source >= 0 and source != target and sent[pair] != came[pair]:
            raise InternalError(
                f"cut {master.committed.id}, {source} to {target}: sent {sent[pair]}, received "
                f"or recorded {came[pair]}"
            )
    ids: Counter[Any] = Counter()
    for shard in shards:
        ids.update(continuation.id for continuation in shard.image.pool)
        ids.update(continuation.id for _, continuation in shard.channel)
    if any(n > 1 for n in ids.values()):
        raise InternalError(f"cut {master.committed.id}: a continuation is in two places")
    steps = [
        {continuation.gang for continuation in shard.image.pool if continuation.gang is not None}
        for shard in shards
    ]
    if any(found != steps[0] for found in steps):
        raise InternalError(f"cut {master.committed.id} stands inside a gang: {steps}")
    return shards


def _has(engine: SimulatedEngine, checkpoint: int, rank: int) -> bool:
    shard = engine.store.get((checkpoint, rank))
    return shard is not None and not shard.damaged


def check_loss(sim: Simulation) -> None:
    """Check that a session which gave up had lost every copy of a rank."""
    master = sim.master
    if not isinstance(master.error, LossError) or sim.corrupted or not sim.living():
        return
    for rank in range(sim.size):
        keepers = [
            name
            for name in sim.living()
            if name in master.engines
            and (master.committed.id == 0 or _has(sim.engines[name], master.committed.id, rank))
        ]
        told = [
            message.rank
            for name in keepers
            for number, message in sim.engines[name].link.kept
            if isinstance(message, m.Stored) and number > sim.control.seat.link(name).heard
        ]
        if not keepers or (rank in told and not master.committed.shards.get(rank)):
            return
    raise InternalError(f"the session gave up with every rank kept somewhere; {sim.story()}")
