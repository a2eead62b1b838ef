"""LU: against scipy's factors and pivots, on many shapes, grids and cuts into steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg

from feliss_nb.algorithms import lu, steps
from feliss_nb.errors import UsageError

GRIDS = [(1, 1), (1, 2), (2, 1), (1, 3), (2, 2), (4, 1), (2, 3), (3, 2)]


def shares(a: Any, size: int) -> list[tuple[Any]]:
    return [(rows,) for rows in np.array_split(a, size)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    ("n", "block", "panels"),
    [(1, None, None), (2, 1, 1), (5, 2, 1), (17, 3, 2), (40, 8, 1), (64, 16, None), (61, None, 3)],
)
def test_factors_and_pivots_are_scipys(ranks, grid, n, block, panels):
    a = np.random.default_rng(n).standard_normal((n, n))
    size = grid[0] * grid[1]
    parts = ranks(lu.factor, shares(a, size), block=block, grid=grid, panels=panels)
    found, pivots = lu.collect(parts)
    expected, swaps = scipy.linalg.lu_factor(a)
    assert (pivots == swaps).all()
    assert all((part.pivots == swaps).all() for part in parts)
    np.testing.assert_allclose(found, expected, atol=1e-10 * n)
    assert lu.residual(a, found, pivots) < 10
    b = np.arange(n) + 1.0
    np.testing.assert_allclose(a @ scipy.linalg.lu_solve((found, pivots), b), b, atol=1e-8)


def test_bits_depend_on_neither_the_steps_nor_the_shares(ranks):
    a = np.random.default_rng(0).standard_normal((50, 50))
    whole = ranks(lu.factor, shares(a, 3), block=4, panels=100)
    uneven = [(a[:7],), (a[7:7],), (a[7:],)]
    cut = ranks(lu.factor, uneven, block=4, panels=1)
    for one, other in zip(whole, cut, strict=True):
        assert one.blocks.tobytes() == other.blocks.tobytes()


def test_matrices_that_need_every_swap_or_none(ranks):
    n = 24
    for a in (
        np.eye(n)[::-1],
        np.eye(n),
        np.diag(np.arange(n) + 1.0)[:, ::-1],
        np.ones((n, n)) + np.eye(n),
    ):
        for grid in ((1, 2), (2, 2)):
            parts = ranks(lu.factor, shares(a, grid[0] * grid[1]), block=5, grid=grid)
            found, pivots = lu.collect(parts)
            expected, swaps = scipy.linalg.lu_factor(a)
            assert (pivots == swaps).all()
            np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("grid", [(1, 2), (2, 1), (2, 2)])
def test_a_singular_matrix_is_told_on_every_rank(ranks, grid):
    a = np.random.default_rng(0).standard_normal((20, 20))
    a[:, 13] = 0
    with pytest.raises(UsageError, match="singular: column 13 "):
        ranks(lu.factor, shares(a, grid[0] * grid[1]), grid=grid, block=4)


@pytest.mark.parametrize(
    ("made", "options", "text"),
    [
        (lambda: np.ones((4, 5)), {}, r"square matrix, not one of shape \(4, 5\)"),
        (lambda: np.ones(4), {}, "square"),
        (lambda: np.full((4, 4), np.nan), {}, "not finite"),
        (lambda: np.full((4, 4), 1j), {}, "complex"),
        (lambda: np.eye(4), {"grid": (2, 2)}, r"does not have 2 ranks; .*\(2, 1\)"),
        (lambda: np.eye(4), {"block": 0}, "block="),
        (lambda: np.eye(4), {"panels": 1.5}, "panels="),
    ],
)
def test_bad_input(ranks, made, options, text):
    with pytest.raises(UsageError, match=text):
        ranks(lu.factor, shares(made(), 2), **options)


def test_shares_that_do_not_fit_are_told(ranks):
    with pytest.raises(UsageError, match=r"shares of the shapes \[\(2, 4\), \(2, 3\)\]"):
        ranks(lu.factor, [(np.ones((2, 4)),), (np.ones((2, 3)),)])


def test_a_program_within_a_step_and_on_some_of_the_ranks(ranks):
    a = np.random.default_rng(0).standard_normal((12, 12))

    def main(comm: Any) -> Any:
        half = comm.Split(comm.rank % 2)
        parts = lu.factor(steps.Whole(half), np.array_split(a, half.size)[half.rank], panels=1)
        half.Free()
        return parts

    parts = ranks(main, [()] * 4)
    for pair in (parts[::2], parts[1::2]):
        assert lu.residual(a, *lu.collect(pair)) < 10


def test_the_residual_sees_a_wrong_factor():
    a = np.random.default_rng(0).standard_normal((30, 30))
    found, pivots = scipy.linalg.lu_factor(a)
    assert lu.residual(a, found, pivots) < 1
    found[17, 3] += 1e-9
    assert lu.residual(a, found, pivots) > 10
