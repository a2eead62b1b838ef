"""A session in one process: ranks with pools, run in a random order that a seed decides.

It cuts work at random (``here.due``), delivers messages in a random order, pickles what goes from
rank to rank and, now and then, the whole state of a rank, as a checkpoint and a recovery would.
"""

from __future__ import annotations

import pickle
import random
from collections import Counter
from importlib import import_module
from unittest import mock

import cloudpickle

from feliss_nb.state.handle import Handle


def here():
    """What a user's function calls, at the place where the models look for it."""
    return import_module("feliss_nb.runtime.here").here()


class Variable(Handle):
    """What the notebook holds."""

    __slots__ = ("name", "session")

    def __init__(self, session, variable, records, name):
        super().__init__(variable, records)
        self.session, self.name = session, name

    def partitions(self):
        self.session.run()
        return [rank.partitions[self.variable] for rank in self.session.ranks]

    def collect(self):
        parts = self.partitions()
        return [item for part in parts for item in part] if self.records else parts


class FakeSession:
    """``cut`` is how likely ``due`` is true; ``recover`` how likely a rank is stood up anew."""

    def __init__(self, size=3, seed=0, cut=0.0, recover=0.0):
        self.size, self.random = size, random.Random(seed)
        self.cut, self.recover = cut, recover
        self.ranks = [Rank(self, rank) for rank in range(size)]
        self.running, self.ids, self.variables, self.jobs = None, set(), 0, 0
        self.mapped, self.progress, self.labels, self.ran = Counter(), {}, [], Counter()

    def declare(self, *, records, name=None):
        self.variables += 1
        return Variable(self, self.variables, records, name)

    def submit(self, starts, *, outputs, label):
        self.jobs += 1
        self.labels.append(label)
        assert all(isinstance(out, Handle) for out in outputs)
        for number, (rank, function, args) in enumerate(starts):
            self._send(rank, (self.jobs, f"job {self.jobs}/{number}", function, args))

    def _send(self, rank, work):
        identity = work[:2]
        assert identity not in self.ids, f"an identity was given twice: {identity}"
        self.ids.add(identity)
        self.ranks[rank].pool.append(pickle.loads(cloudpickle.dumps(work)))

    def run(self):
        """Run until no continuation is left."""
        patch = mock.patch("feliss_nb.runtime.here.here", side_effect=lambda: self.running)
        with patch:
            while ready := [rank for rank in self.ranks if rank.ready()]:
                self.running = self.random.choice(ready)
                self.running.step()
        left = [work[2].__name__ for rank in self.ranks for work in rank.pool]
        assert not left, f"these wait for ever: {left}"


class Rank:
    """One rank, and what ``here()`` gives on it."""

    def __init__(self, session, rank):
        self.session, self.rank, self.size = session, rank, session.size
        self.pool, self.partitions = [], {}
        self.base, self.ordinal, self.job, self.label = "", 0, 0, None

    def ready(self):
        return [
            number
            for number, (_, _, _, args) in enumerate(self.pool)
            if all(arg.variable in self.partitions for arg in args if isinstance(arg, Handle))
        ]

    def step(self):
        session = self.session
        if session.random.random() < session.recover:
            self.pool, self.partitions = pickle.loads(
                cloudpickle.dumps((self.pool, self.partitions))
            )
        self.job, self.base, function, args = self.pool.pop(session.random.choice(self.ready()))
        self.ordinal, self.label = 0, None
        session.ran[function.__name__] += 1
        try:
            function(*args)
        except Exception as error:
            label = self.label() if callable(self.label) else self.label
            error.add_note(f"rank {self.rank}: {label}")
            raise

    @property
    def due(self):
        return self.session.random.random() < self.session.cut

    def put(self, function, *args, rank=None):
        identity, self.ordinal = f"{self.base}.{self.ordinal}", self.ordinal + 1
        work = self.job, identity, function, args
        if rank is None or rank == self.rank:
            assert identity not in self.session.ids, f"an identity was given twice: {identity}"
            self.session.ids.add(identity)
            self.pool.append(work)
        else:
            self.session._send(rank, work)

    def phase(self, name):
        pass

    def at(self, index, label, value=None):
        self.base, self.ordinal, self.label = f"{self.job}:{self.rank}:{index}", 0, label

    def draw(self):
        """A random number that belongs to the record at hand."""
        return random.Random(f"{self.base}").random()

    def stands_for(self, f):
        self.function = f

    def mapped(self, n):
        self.session.mapped[self.rank] += n

    def progress(self, done, total):
        assert 0 <= done <= total
        self.session.progress[self.job, self.rank] = done, total

    def __getitem__(self, variable):
        return self.partitions[variable.variable]

    def __setitem__(self, variable, value):
        self.partitions[variable.variable] = value
