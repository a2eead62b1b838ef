"""Who hosts a rank and who keeps its copies."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from feliss_nb.core.checkpoints import Committed
from feliss_nb.core.placement import copy_holders, new_routes, spread

ENGINES = [f"e{i}" for i in range(6)]
routes_of = st.lists(st.sampled_from(ENGINES), min_size=1, max_size=8).map(
    lambda hosts: dict(enumerate(hosts))
)


@given(routes_of, st.integers(0, 4))
def test_copies_lie_on_others_and_on_spares_last(routes, copies):
    holders = copy_holders(routes, ENGINES, copies)
    workers = set(routes.values())
    for rank, host in routes.items():
        mine = holders[rank]
        assert len(mine) == len(set(mine)) == min(copies, len(ENGINES) - 1)
        assert host not in mine
        on_spares = [engine not in workers for engine in mine]
        assert on_spares == sorted(on_spares)
        if any(on_spares):
            assert workers - {host} <= set(mine)


@given(st.integers(2, 6), st.integers(1, 5))
def test_workers_keep_about_as_many_copies(size, copies):
    routes = dict(enumerate(ENGINES[:size]))
    holders = copy_holders(routes, ENGINES[:size], min(copies, size - 1))
    counts = [sum(engine in kept for kept in holders.values()) for engine in routes.values()]
    assert len(set(counts)) == 1


@given(routes_of, st.sets(st.sampled_from(ENGINES), min_size=1))
def test_after_a_loss_every_rank_is_somewhere_alive_and_the_others_stay(routes, alive):
    living = [engine for engine in ENGINES if engine in alive]
    after = new_routes(routes, living, {})
    assert after.keys() == routes.keys()
    assert set(after.values()) <= alive
    assert all(after[rank] == engine for rank, engine in routes.items() if engine in alive)
    if set(routes.values()) - alive:
        # no spare idles while a survivor took a lost engine's ranks beside its own
        idle = alive - set(after.values())
        lost = {engine for engine in routes.values() if engine not in alive}
        took = {after[rank] for rank, engine in routes.items() if engine in lost}
        assert not idle or took.isdisjoint(set(routes.values()))


def test_without_a_spare_the_rank_goes_where_its_snapshot_lies():
    routes = {0: "e0", 1: "e1", 2: "e2"}
    assert new_routes(routes, ["e0", "e2"], {1: {"e2"}}) == {0: "e0", 1: "e2", 2: "e2"}


def test_a_spare_takes_all_ranks_of_a_lost_engine():
    routes = {0: "e0", 1: "e1", 2: "e1"}
    assert new_routes(routes, ["e0", "e5"], {}) == {0: "e0", 1: "e5", 2: "e5"}


def test_missing_copies_are_ordered_once_and_again_when_their_source_is_lost():
    committed = Committed(3, shards={0: {"e0", "e4"}, 1: {"e4"}})
    routes, engines = {0: "e0", 1: "e1"}, ["e0", "e1", "e4", "e5"]
    assert committed.order_copies(routes, engines, 2) == [(1, "e4", "e1")]
    assert committed.order_copies(routes, engines, 2) == []
    committed.shards[1].add("e5")
    committed.lose("e4")
    assert committed.order_copies(routes, [*engines[:2], "e5"], 2) == [
        (0, "e0", "e1"),
        (1, "e5", "e1"),
    ]
    committed.add(0, "e1")
    committed.add(1, "e1")
    assert committed.is_protected(routes, 2)


@given(st.integers(1, 20), st.integers(1, 6))
def test_ranks_that_stand_up_elsewhere_are_spread_evenly_and_neighbours_stay_together(
    size, engines
):
    routes = spread(size, ENGINES[:engines])
    assert list(routes) == list(range(size))
    hosts = list(routes.values())
    assert hosts == sorted(hosts)
    counts = [hosts.count(engine) for engine in set(hosts)]
    assert len(counts) == min(size, engines)
    assert max(counts) - min(counts) <= 1
