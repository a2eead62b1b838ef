"""Conjugate gradients: against scipy's direct solver."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sparse
from scipy.sparse.linalg import spsolve

from feliss_nb.algorithms import cg
from feliss_nb.errors import UsageError


def poisson(side: int) -> Any:
    """The five-point matrix of a square, with a diagonal that differs from row to row."""
    line = sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
    one = sparse.eye_array(side)
    a = sparse.kron(line, one) + sparse.kron(one, line)
    scale = sparse.diags_array(np.linspace(1, 10, side * side))
    return sparse.csr_array(scale @ a @ scale)


def random_matrix(n: int) -> Any:
    a = sparse.random_array((n, n), density=min(1.0, 4 / n), rng=np.random.default_rng(n))
    return sparse.csr_array(a @ a.T + sparse.eye_array(n))


def shares(a: Any, b: Any, size: int) -> list[tuple[Any, Any]]:
    ends = [0, *np.cumsum([len(some) for some in np.array_split(b, size)])]
    return [(a[ends[r] : ends[r + 1]], b[ends[r] : ends[r + 1]]) for r in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("block", [1, 3, 8])
@pytest.mark.parametrize("a", [poisson(7), random_matrix(40), random_matrix(5), random_matrix(1)])
def test_the_solution_is_scipys(ranks, size, block, a):
    b = np.random.default_rng(1).standard_normal(a.shape[0])
    parts = ranks(cg.solve, shares(a, b, size), block=block, tolerance=1e-12, every=3)
    x = cg.collect(parts)
    np.testing.assert_allclose(x, np.atleast_1d(spsolve(a.tocsc(), b)), rtol=1e-8, atol=1e-10)
    residuals = parts[0].residuals
    assert len(residuals) == parts[0].iterations + 1
    assert residuals[0] == pytest.approx(np.linalg.norm(b))
    assert residuals[-1] <= 1e-12 * residuals[0]
    assert np.linalg.norm(b - a @ x) <= 1e-10 * np.linalg.norm(b)


def test_a_preconditioner_saves_iterations(ranks):
    a = poisson(16)
    b = np.ones(256)
    jacobi = ranks(cg.solve, shares(a, b, 2))[0].iterations
    blocks = ranks(cg.solve, shares(a, b, 2), block=32)[0].iterations
    plain = sparse.diags_array(1 / np.sqrt(a.diagonal()))
    assert blocks < jacobi
    # Jacobi is the plain method on the matrix that is scaled to ones on its diagonal.
    scaled = ranks(cg.solve, shares(sparse.csr_array(plain @ a @ plain), plain @ b, 2))[0]
    assert abs(scaled.iterations - jacobi) <= 3


def test_bits_do_not_depend_on_the_steps(ranks):
    a, b = poisson(9), np.random.default_rng(0).standard_normal(81)
    runs = [ranks(cg.solve, shares(a, b, 3), every=every) for every in (1, 7, None)]
    assert len({cg.collect(parts).tobytes() for parts in runs}) == 1


def test_zero_on_the_right_needs_no_iteration(ranks):
    part = ranks(cg.solve, shares(poisson(3), np.zeros(9), 2))[0]
    assert part.iterations == 0
    assert not part.x.any()


def test_a_share_is_one_matrix_or_some(ranks):
    a, b = poisson(5), np.arange(25.0)
    whole = ranks(cg.solve, [(a, b)])
    some = ranks(cg.solve, [([a[:4], a[4:10].tocoo(), a[10:]], list(b))])
    assert cg.collect(whole).tobytes() == cg.collect(some).tobytes()
    with_none = ranks(cg.solve, [([], []), (a, b), (a[:0], b[:0])])
    assert cg.collect(with_none).tobytes() == cg.collect(whole).tobytes()


@pytest.mark.parametrize(
    ("a", "b", "options", "text"),
    [
        (poisson(3)[:, :8], np.ones(9), {}, "square"),
        (poisson(3), np.ones(8), {}, "an entry for each row"),
        (-poisson(3), np.ones(9), {}, "positive definite"),
        (poisson(3), np.full(9, np.inf), {}, "b holds a value that is not finite"),
        (sparse.csr_array((9, 9)), np.ones(9), {}, "no inverse"),
        (poisson(9), np.arange(81.0), {"iterations": 2}, "after 2 iterations"),
        (poisson(3), np.ones(9), {"tolerance": 0}, "tolerance="),
        (poisson(3), np.ones(9), {"block": 0}, "block="),
        (np.eye(9), np.ones(9), {}, "scipy.sparse"),
    ],
)
def test_bad_input(ranks, a, b, options, text):
    split = [(a[:5], b[:5]), (a[5:], b[5:])]
    with pytest.raises(UsageError, match=text):
        ranks(cg.solve, split, **options)
