"""Cannon's product: against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from feliss_nb.algorithms import cannon
from feliss_nb.errors import UsageError


def shares(a, b, size):
    return list(zip(np.array_split(a, size), np.array_split(b, size), strict=True))


@pytest.mark.parametrize("size", [1, 4, 9])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (6, 6, 6), (7, 5, 8), (2, 9, 3), (20, 1, 20), (1, 30, 1), (33, 17, 11)]
)
@pytest.mark.parametrize("strips", [None, 1, 4])
def test_the_product_is_numpys(ranks, size, shape, strips):
    rng = np.random.default_rng(size)
    a, b = rng.standard_normal(shape[:2]), rng.standard_normal(shape[1:])
    parts = ranks(cannon.multiply, shares(a, b, size), strips=strips)
    assert [len(part) for part in parts] == [len(rows) for rows in np.array_split(a, size)]
    np.testing.assert_allclose(np.concatenate(parts), a @ b, atol=1e-12 * shape[1])


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_ranks_that_are_no_square(ranks, size):
    side = int(size**0.5)
    with pytest.raises(UsageError, match=f"such as {side**2} or {(side + 1) ** 2}, not {size}"):
        ranks(cannon.multiply, shares(np.eye(9), np.eye(9), size))


@pytest.mark.parametrize(
    ("a", "b", "options", "text"),
    [
        (np.ones((4, 5)), np.ones((4, 5)), {}, r"\(4, 5\) and \(4, 5\) have no product"),
        (np.ones(4), np.ones((4, 5)), {}, "have no product"),
        (np.full((4, 4), np.nan), np.eye(4), {}, "A holds a value that is not finite"),
        (np.eye(4), np.array(list("abcd")), {}, "B: a share of"),
        (np.eye(4), np.eye(4), {"strips": 0}, "strips="),
    ],
)
def test_bad_input(ranks, a, b, options, text):
    with pytest.raises(UsageError, match=text):
        ranks(cannon.multiply, shares(a, b, 4), **options)
