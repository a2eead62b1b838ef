"""What the tests of collectives share: sizes, counts, and the three forms of a call."""

from __future__ import annotations

import numpy as np
import pytest

SIZES = range(1, 8)
#: Items of 8 bytes: none, one, few, more than a tree's, more than a ring's, more than a block's.
COUNTS = [0, 1, 5, 700, 20_000, 70_000]

sizes = pytest.mark.parametrize("size", SIZES)
counts = pytest.mark.parametrize("count", COUNTS)
blocking = pytest.mark.parametrize("form", ["blocking", "request", "persistent"])


def call(comm, form, name, *args, **options):
    """Call a collective in one of its three forms."""
    if form == "blocking":
        getattr(comm, name)(*args, **options)
    elif form == "request":
        getattr(comm, "I" + name.lower())(*args, **options).Wait()
    else:
        request = getattr(comm, name + "_init")(*args, **options)
        for _ in range(2):
            request.Start()
            request.Wait()


def data(rank, count):
    return np.random.default_rng((rank, count)).standard_normal(count)
