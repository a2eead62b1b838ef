"""What `feliss-nb bench chaos` runs: programs whose results do not depend on how they are cut.

Each is a function of a session and a random generator, from which it draws its sizes, and returns
what is compared with the undisturbed run. They wait for every result, so that losses fall between a
notebook's calls as well.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import feliss_nb as feliss

Program = Callable[[feliss.Session, random.Random], Any]


# ---------------------------------------------------------------- MapReduce


def tokenize(line: str) -> Iterator[tuple[str, int]]:
    """Yield each word."""
    for word in line.split():
        yield word, 1


def lengths(line: str) -> list[tuple[int, float]]:
    """Give the lengths of words, with a share."""
    return [(len(word), 1.0 / len(word)) for word in line.split()]


def longest(values: list[float]) -> float:
    """Combine in the order in which the values come: sums of floats depend on it."""
    total = 0.0
    for value in values:
        total += value
    return total


def words(session: feliss.Session, rng: random.Random) -> Any:
    """Count words, and sum up floats by key, over lines drawn at random."""
    known = [f"w{rng.randrange(10**6)}" for _ in range(300)]
    lines = [" ".join(rng.choices(known, k=12)) for _ in range(rng.randint(1500, 4000))]
    source = session.scatter(lines)
    counts = session.mapreduce(tokenize, sum, source)
    shares = session.reduce(longest, session.map(_first_length, source))
    return counts.collect(), shares.collect()


def _first_length(line: str) -> tuple[int, float]:
    return lengths(line)[0]


# ---------------------------------------------------------------- a token in a ring


def empty(rank: int, size: int) -> dict[str, Any]:
    """Begin with nothing."""
    return {"sum": 0, "seen": [], "draws": np.zeros(4)}


def token(ring: feliss.Variable, value: int, last: int) -> None:
    """Pass a token on; what it leaves depends on the order."""
    here = feliss.here()
    mine = here[ring]
    mine["sum"] = (mine["sum"] * 31 + value) % 1_000_003
    mine["seen"].append(value)
    mine["draws"] += np.sin(value + np.arange(4.0))
    if value < last:
        here.put(token, ring, value + 1, last, rank=(here.rank + 1) % here.size)


def ring(session: feliss.Session, rng: random.Random) -> Any:
    """Pass two tokens around, one after the other."""
    state = session.variable(empty)
    for _ in range(2):
        session.put(token, state, 1, rng.randint(1000, 4000), rank=rng.randrange(session.size))
        session.wait()
    return state.partitions()


# ---------------------------------------------------------------- arrays, driven by the notebook


def matrix(seed: int, rows: int) -> Callable[[int, int], Any]:
    """Make rows of a matrix and a vector."""

    def make(rank: int, size: int) -> Any:
        draw = np.random.default_rng([seed, rank])
        return {"rows": draw.random((rows, rows * size)), "steps": 0}

    return make


def multiply(blocks: feliss.Variable, vector: Any) -> Any:
    """Multiply this rank's rows by a vector."""
    mine = feliss.here()[blocks]
    mine["steps"] += 1
    return mine["rows"] @ vector


def power(session: feliss.Session, rng: random.Random) -> Any:
    """The power method: each step takes what the notebook fetched from the one before."""
    rows = rng.choice([60, 120])
    blocks = session.variable(matrix(rng.randrange(1000), rows))
    vector = np.ones(rows * session.size)
    norm = 0.0
    for _ in range(rng.randint(15, 30)):
        parts = session.apply(multiply, blocks, vector).partitions()
        vector = np.concatenate(parts)
        norm = float(np.sqrt((vector * vector).sum()))
        vector /= norm
    return vector, norm, [part["steps"] for part in blocks.partitions()]


# ---------------------------------------------------------------- SPMD


def relax(comm: Any, field: Any, step: int, last: int) -> Any:
    """Smooth a field; the neighbours' edges come by messages, the norm by a reduction."""
    size, rank = comm.Get_size(), comm.Get_rank()
    left, right = (rank - 1) % size, (rank + 1) % size
    for _ in range(10):
        below = comm.sendrecv(field[-1].copy(), dest=right, source=left)
        above = comm.sendrecv(field[0].copy(), dest=left, source=right)
        padded = np.vstack([below[None], field, above[None]])
        field = (padded[:-2] + 2.0 * padded[1:-1] + padded[2:]) / 4.0
    norm = comm.allreduce(float(np.abs(field).sum()))
    time.sleep(0.01)
    if step < last:
        return comm.then(relax, field / (1.0 + 1e-9 * norm), step + 1, last)
    return field, norm


def begin_relax(comm: Any, seed: int, rows: int, last: int) -> Any:
    """Make the field."""
    draw = np.random.default_rng([seed, comm.Get_rank()])
    return comm.then(relax, draw.random((rows, 200)), 0, last)


def steps(session: feliss.Session, rng: random.Random) -> Any:
    """Run an SPMD program of many steps."""
    rows, last = rng.choice([20, 200]), rng.randint(30, 60)
    return session.spmd(begin_relax, rng.randrange(1000), rows, last).partitions()


# ---------------------------------------------------------------- iteration by messages


def edges(seed: int, count: int) -> Callable[[int, int], Any]:
    """Draw the edges that leave a rank's vertices."""

    def make(rank: int, size: int) -> Any:
        draw = np.random.default_rng([seed, rank])
        targets = draw.integers(0, count * size, (count, 5))
        zeros = np.zeros(count)
        return {"targets": targets, "rank": np.ones(count), "sum": zeros, "in": {}, "round": 0}

    return make


def flows(mine: dict[str, Any], size: int) -> Any:
    """Return what flows from one rank's vertices to each vertex."""
    return np.bincount(mine["targets"].ravel(), np.repeat(mine["rank"] / 5.0, 5), minlength=size)


def settle(mine: dict[str, Any], shares: list[Any]) -> None:
    """End a round. The ranks come to rest in the end; their sum remembers every round."""
    mine["rank"] = 0.15 + 0.85 * sum(shares)
    mine["sum"] = mine["sum"] + mine["rank"]
    mine["round"] += 1


def spread(graph: feliss.Variable, last: int) -> None:
    """Send each rank its share of what leaves this one."""
    here = feliss.here()
    mine = here[graph]
    count = len(mine["rank"])
    flow = flows(mine, count * here.size)
    for rank in range(here.size):
        part = flow[rank * count : (rank + 1) * count]
        here.put(gather, graph, mine["round"], here.rank, part, last, rank=rank)


def gather(graph: feliss.Variable, number: int, source: int, part: Any, last: int) -> None:
    """Take a share; the last one of a round ends it, and the shares are added by their origin."""
    here = feliss.here()
    mine = here[graph]
    waiting = mine["in"].setdefault(number, {})
    waiting[source] = part
    if number != mine["round"] or len(waiting) < here.size:
        return
    shares = mine["in"].pop(number)
    settle(mine, [shares[source] for source in range(here.size)])
    if number < last:
        here.put(spread, graph, last)


def pagerank(session: feliss.Session, rng: random.Random) -> Any:
    """Iterate by continuations only: once begun, the notebook is not needed."""
    seed, count = rng.randrange(1000), rng.choice([1000, 20_000])
    return iterate(session, seed, count, rng.randint(30, 80))


def iterate(session: feliss.Session, seed: int, count: int, last: int) -> Any:
    """Iterate over a graph with so many vertices a rank."""
    graph = session.variable(edges(seed, count))
    session.wait()
    for rank in range(session.size):
        session.put(spread, graph, last, rank=rank)
    session.wait()
    return [(part["rank"], part["sum"], part["round"]) for part in graph.partitions()]


def iterate_alone(size: int, seed: int, count: int, last: int) -> Any:
    """Give what `iterate` gives, computed in this process."""
    make = edges(seed, count)
    parts = [make(rank, size) for rank in range(size)]
    for _ in range(last + 1):
        leaving = [flows(part, count * size) for part in parts]
        for rank, part in enumerate(parts):
            settle(part, [flow[rank * count : (rank + 1) * count] for flow in leaving])
    return [(part["rank"], part["sum"], part["round"]) for part in parts]


PROGRAMS: dict[str, Program] = {
    "words": words,
    "ring": ring,
    "power": power,
    "steps": steps,
    "pagerank": pagerank,
}
