"""The truncated SVD: against scipy's and numpy's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sparse
from scipy.sparse.linalg import svds

from feliss_nb.algorithms import lsa
from feliss_nb.errors import UsageError


def matrix(m, n, seed=0):
    """Sparse, with singular values that fall slowly, as those of text do."""
    rng = np.random.default_rng(seed)
    density = 0.9 if m * n < 500 else 0.2
    a = sparse.random_array((m, n), density=density, rng=rng, data_sampler=rng.exponential)
    return sparse.csr_array(a)


def shares(a, size):
    ends = [a.shape[0] * r // size for r in range(size + 1)]
    return [(a[ends[r] : ends[r + 1]],) for r in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("m", "n", "k"), [(60, 40, 8), (40, 60, 8), (200, 30, 29), (3, 50, 2), (50, 3, 3), (7, 7, 7)]
)
def test_the_values_are_scipys_and_the_vectors_fit(ranks, size, m, n, k):
    a = matrix(m, n)
    parts = ranks(lsa.svd, shares(a, size), k=k, every=5)
    documents, values, terms = lsa.collect(parts)
    if k < min(m, n):
        expected = np.sort(svds(a, k=k, return_singular_vectors=False))[::-1]
    else:
        expected = np.linalg.svd(a.toarray(), compute_uv=False)[:k]
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    assert (documents.shape, terms.shape) == ((m, k), (k, n))
    np.testing.assert_allclose(documents.T @ documents, np.eye(k), atol=1e-8)
    np.testing.assert_allclose(terms @ terms.T, np.eye(k), atol=1e-8)
    np.testing.assert_allclose(a @ terms.T, documents * values, atol=1e-8 * values[0])
    assert all((part.values == values).all() for part in parts)


def test_bits_do_not_depend_on_the_steps(ranks):
    a = matrix(40, 50)
    runs = [lsa.collect(ranks(lsa.svd, shares(a, 3), k=4, every=every)) for every in (100, 3, 1)]
    assert len({b"".join(part.tobytes() for part in run) for run in runs}) == 1


def test_equal_values_and_separate_parts(ranks):
    """Blocks that share no row and no column: the basis of one ends, and another begins."""
    parts = [matrix(6, 5, 1), matrix(5, 8, 2), sparse.csr_array(np.diag([3.0, 2.0, 1.0]))]
    a = sparse.csr_array(sparse.block_diag(parts))
    expected = np.linalg.svd(a.toarray(), compute_uv=False)
    found = ranks(lsa.svd, shares(a, 2), k=6)[0].values
    np.testing.assert_allclose(found, expected[:6], rtol=1e-9)


@pytest.mark.parametrize("size", [1, 3])
def test_a_matrix_of_a_smaller_rank(ranks, size):
    rng = np.random.default_rng(0)
    a = sparse.csr_array(rng.standard_normal((20, 4)) @ rng.standard_normal((4, 30)))
    found = ranks(lsa.svd, shares(a, size), k=4)[0].values
    np.testing.assert_allclose(found, np.linalg.svd(a.toarray(), compute_uv=False)[:4], rtol=1e-10)
    with pytest.raises(UsageError, match="has 4 singular values above 0"):
        ranks(lsa.svd, shares(a, size), k=5)
    with pytest.raises(UsageError, match="has 0 singular values above 0"):
        ranks(lsa.svd, shares(sparse.csr_array((9, 9)), size), k=1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"k": 0}, "k="),
        ({"k": 7}, "does not have 7 singular values"),
        ({"k": 2, "tolerance": 2}, "tolerance="),
        ({"k": 2, "every": 0}, "every="),
    ],
)
def test_bad_input(ranks, options, text):
    with pytest.raises(UsageError, match=text):
        ranks(lsa.svd, shares(matrix(6, 9), 2), **options)


def test_words():
    assert (
        lsa.words("The cat's 2 eyes; snake_case, Über-x") == "the cat eyes snake case über".split()
    )
