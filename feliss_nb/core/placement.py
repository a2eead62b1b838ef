"""Who hosts a rank, and who keeps a copy of its snapshot. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from feliss_nb.core.messages import Engine


def spread(size: int, engines: Sequence[Engine]) -> dict[int, Engine]:
    """Return where ranks stand up that may be more or fewer than the engines: neighbours together.

    With more engines than ranks the rest are spares.
    """
    used = engines[:size]
    return {rank: used[rank * len(used) // size] for rank in range(size)}


def copy_holders(
    routes: Mapping[int, Engine], engines: Sequence[Engine], copies: int
) -> dict[int, tuple[Engine, ...]]:
    """Return, for each rank, the engines that keep a copy of its snapshot.

    The next workers in a ring, so that each keeps about as many; spares only when the workers do
    not suffice, since a spare costs the least when it is empty.
    """
    used = set(routes.values())
    hosts = [engine for engine in engines if engine in used]
    spares = [engine for engine in engines if engine not in used]
    place = {engine: at for at, engine in enumerate(hosts)}
    others = min(copies, len(hosts) - 1)
    holders = {}
    for rank, host in routes.items():
        ring = [hosts[(place[host] + 1 + i) % len(hosts)] for i in range(others)]
        holders[rank] = (*ring, *spares[: copies - others])
    return holders


def new_routes(
    routes: Mapping[int, Engine],
    engines: Sequence[Engine],
    holders: Mapping[int, Collection[Engine]],
) -> dict[int, Engine]:
    """Return where the ranks go after a loss: a spare takes a lost engine's place.

    Without a spare, a lost rank moves to the survivor with the fewest ranks, one that holds its
    snapshot before one that does not.

    Parameters
    ----------
    routes : mapping of int to str
        Where the ranks were.
    engines : sequence of str
        The engines that live, in the order in which they joined.
    holders : mapping of int to collection of str
        The engines that keep each rank's snapshot.
    """
    alive = set(engines)
    result = {rank: engine for rank, engine in routes.items() if engine in alive}
    spares = [engine for engine in engines if engine not in set(result.values())]
    takes: dict[Engine, Engine] = {}
    for rank, engine in sorted(routes.items()):
        if engine in alive:
            continue
        if engine not in takes and spares:
            takes[engine] = spares.pop(0)
        if engine in takes:
            result[rank] = takes[engine]
            continue
        load = dict.fromkeys(engines, 0)
        for host in result.values():
            load[host] += 1
        held = holders.get(rank, ())
        result[rank] = min(engines, key=lambda e: (load[e], e not in held))
    return dict(sorted(result.items()))
