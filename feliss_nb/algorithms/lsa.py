"""Latent semantic analysis: TF-IDF by MapReduce, a truncated SVD by SPMD, joined by variables.

Deerwester, Dumais, Furnas, Landauer and Harshman, Indexing by latent semantic analysis, Journal of
the American Society for Information Science 41 (1990) 391-407. Weights: a term's count in a
document times ``ln(documents / documents with the term)`` (Salton and Buckley, Information
Processing and Management 24 (1988) 513-523). The SVD is Golub's and Kahan's bidiagonalization by
Lanczos' method (SIAM Journal on Numerical Analysis 2 (1965) 205-224; Golub and Van Loan, Matrix
Computations, 4th ed., section 10.4) with full reorthogonalization, so that no singular value comes
twice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sparse

from feliss_nb import Session, Variable, here
from feliss_nb.algorithms.shares import Array, csr, cuts, layout
from feliss_nb.algorithms.steps import go_on, one_thread, per_step, run
from feliss_nb.errors import UsageError

_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True, slots=True)
class Weights:
    """One rank's documents as rows of the matrix of weights.

    Attributes
    ----------
    matrix : (documents here, all terms) scipy.sparse.csr_array
    terms : list of str
        This rank's share of the terms; in rank order they are sorted, and name the columns.
    """

    matrix: Any
    terms: list[str]


@dataclass(frozen=True, slots=True)
class Semantics:
    """One rank's part of a truncated SVD, ``A ~ documents @ diag(values) @ terms.T``.

    Attributes
    ----------
    values : (k,) array
        The singular values, the largest first; the same on all ranks.
    documents : (documents here, k) array
        This rank's rows of the left singular vectors.
    terms : (its share of the terms, k) array
        Its rows of the right ones.
    """

    values: Array
    documents: Array
    terms: Array


# ---------------------------------------------------------------- TF-IDF, by MapReduce


def words(text: str) -> list[str]:
    """Give the words of a text: two letters and more, in lower case."""
    return _WORD.findall(text.lower())


def tfidf(
    session: Session,
    documents: Any,
    split: Callable[[str], Sequence[str]] = words,
    least: int = 2,
    name: str | None = None,
) -> Variable:
    """Weigh the terms of documents.

    Parameters
    ----------
    session : Session
    documents : Variable or iterable of str
        A document a record, as of ``session.read_text(paths, by="file")``.
    split : callable
        From a text to its terms.
    least : int
        Terms that fewer documents have are left out.
    name : str, optional
        Of the result.

    Returns
    -------
    Variable
        Of values: each rank's `Weights`. Documents are in the order of the records.

    Raises
    ------
    UsageError
        If ``least`` makes no sense; if no term is left (when the result is asked for).
    """
    if not isinstance(least, int | np.integer) or least < 1:
        raise UsageError(f"least= takes a whole number of at least 1, not {least!r}")
    if not callable(split):
        raise UsageError(f"split= takes a function from a text to its terms, not {split!r}")
    counts = session.map(Count(split), documents)
    spread = session.mapreduce(each_once, sum, counts)
    return session.spmd(_weigh, counts, spread, int(least), name=name)


@dataclass(frozen=True, slots=True)
class Count:
    """A map function: from a document to its counts of terms."""

    split: Callable[[str], Sequence[str]]

    def __call__(self, text: str) -> Counter[str]:
        """Count the terms of a document."""
        return Counter(self.split(text))


def each_once(counts: Counter[str]) -> Iterator[tuple[str, int]]:
    """Map a document's counts to a one for each of its terms."""
    for term in counts:
        yield term, 1


def _weigh(comm: Any, counts: Any, spread: Any, least: int) -> Weights:
    """Make this rank's rows, from its documents' counts and all ranks' counts of documents."""
    at = here()
    mine = at[counts]
    total = comm.allreduce(len(mine))
    some = [(term, count) for term, count in at[spread] if count >= least]
    known = sorted(pair for pairs in comm.allgather(some) for pair in pairs)
    if not known:
        raise UsageError(f"no term occurs in {least} of the {total} documents")
    terms = [term for term, _ in known]
    column = {term: index for index, term in enumerate(terms)}
    rarity = np.log(total / np.array([count for _, count in known], np.float64))
    starts, columns, values = [0], [], []
    for document in mine:
        found = sorted((column[term], count) for term, count in document.items() if term in column)
        columns += [index for index, _ in found]
        values += [count for _, count in found]
        starts.append(len(columns))
    where = np.array(columns, np.int64)
    weights = np.array(values, np.float64) * rarity[where]
    matrix = sparse.csr_array((weights, where, starts), shape=(len(mine), len(terms)))
    edges = cuts(len(terms), comm.size)
    return Weights(matrix, terms[edges[comm.rank] : edges[comm.rank + 1]])


# ---------------------------------------------------------------- the SVD, by SPMD


@dataclass(slots=True)
class _Lanczos:
    """``A @ right[:j].T == left.T @ B`` and ``A.T @ left.T == right[:j].T @ B.T + beta right[j]``.

    B has ``alpha`` on its diagonal and ``beta`` above it. The left vectors are as long as a rank
    has rows; the right ones are whole and the same on every rank.
    """

    matrix: Any
    first: int  # this rank's first row
    rows: int  # of all ranks
    left: Array
    right: Array
    alpha: list[float]
    beta: list[float]
    finished: bool = False  # the row space is exhausted
    seeds: int = 0  # random vectors drawn


def svd(
    comm: Any,
    rows: Any,
    k: int,
    tolerance: float = 1e-10,
    seed: int = 0,
    every: int | None = None,
) -> Any:
    """Find the k largest singular values of a matrix, and their vectors.

    Parameters
    ----------
    comm : communicator
        Any number of ranks.
    rows : (m, n) scipy.sparse matrix, or list of them
        This rank's rows.
    k : int
        How many.
    tolerance : float
        Stop when ``norm(A.T u - s v) <= tolerance * s[0]`` for each of the k; a value is then as
        near to a singular value, and as a rule nearer by the square of that.
    seed : int
        Of the vector to start from.
    every : int, optional
        Vectors a step, between two of which a checkpoint can stand; default: as many as take a
        fraction of a second.

    Returns
    -------
    Semantics
        This rank's part. Of values that are equal to each other it may find one only.

    Raises
    ------
    UsageError
        On every rank: the ranks' shares do not fit, or the matrix has a rank below k.
    """
    _check(k, tolerance, every)
    rows, offsets = layout(comm, rows, csr, "the matrix")
    if not 1 <= k <= min(offsets[-1], rows.shape[1]):
        raise UsageError(
            f"a matrix of shape {(offsets[-1], rows.shape[1])} does not have {k} singular values"
        )
    state = _Lanczos(
        rows,
        offsets[comm.rank],
        offsets[-1],
        np.empty((0, rows.shape[0])),
        np.empty((0, rows.shape[1])),
        [],
        [],
    )
    with one_thread():
        _new_direction(comm, state, seed)
    work = 4.0 * comm.allreduce(rows.nnz) / comm.size + 16.0 * k * (
        rows.shape[1] + offsets[-1] / comm.size
    )
    return run(comm, _some_vectors, state, k, tolerance, seed, every or per_step(work + 1e5, 5e8))


def _some_vectors(
    comm: Any, state: _Lanczos, k: int, tolerance: float, seed: int, every: int
) -> Any:
    """Enlarge the bases, and look whether the values have settled: a step."""
    with one_thread():
        for _ in range(every):
            if not state.finished:
                _enlarge(comm, state, seed)
            size = len(state.alpha)
            # At sizes that the cut into steps does not decide, nor then the result.
            found = _settled(state, k, tolerance) if state.finished or size % 8 == 0 else None
            if found is not None:
                values, left, right = found
                edges = cuts(state.right.shape[1], comm.size)
                mine = slice(edges[comm.rank], edges[comm.rank + 1])
                return Semantics(values, state.left.T @ left, state.right[:size, mine].T @ right)
    return go_on(comm, _some_vectors, state, k, tolerance, seed, every)


def _enlarge(comm: Any, state: _Lanczos, seed: int) -> None:
    """Add a left and a right vector."""
    matrix, newest = state.matrix, state.right[-1]
    u = matrix @ newest
    if state.beta:
        u -= state.beta[-1] * state.left[-1]
    for _ in range(2):  # once leaves what rounding left of a part that was taken off
        u -= _total(comm, state.left @ u) @ state.left
    alpha = float(np.sqrt(_total(comm, np.array([u @ u]))[0]))
    scale = max([*state.alpha, alpha])
    if alpha <= np.finfo(np.float64).eps * state.rows * scale:
        state.finished = True  # A is 0 on what is left of its row space, up to rounding
        state.right = state.right[:-1]
        return
    u /= alpha
    v = _total(comm, matrix.T @ u) - alpha * newest
    for _ in range(2):
        v -= (state.right @ v) @ state.right
    beta = float(np.sqrt(v @ v))
    state.left = np.vstack([state.left, u])
    state.alpha.append(alpha)
    if beta > np.finfo(np.float64).eps * state.right.shape[1] * scale:
        state.beta.append(beta)
        state.right = np.vstack([state.right, v / beta])
    else:
        # These vectors are a whole of A's. There may be others beside them.
        state.beta.append(0.0)
        _new_direction(comm, state, seed)


def _new_direction(comm: Any, state: _Lanczos, seed: int) -> None:
    """Add a right vector, random in A's row space, at a right angle to those that are there."""
    random = np.random.default_rng([seed, state.seeds]).standard_normal(state.rows)
    state.seeds += 1
    mine = random[state.first : state.first + state.matrix.shape[0]]
    v = _total(comm, state.matrix.T @ mine)
    before = float(np.sqrt(v @ v))
    for _ in range(2):
        v -= (state.right @ v) @ state.right
    length = float(np.sqrt(v @ v))
    if length <= 1e-12 * before or before == 0.0:
        state.finished = True
    else:
        state.right = np.vstack([state.right, v / length])


def _settled(state: _Lanczos, k: int, tolerance: float) -> tuple[Array, Array, Array] | None:
    """Give the k values and B's vectors to them, once they are good enough."""
    size = len(state.alpha)
    if state.finished and size < k:
        raise UsageError(f"the matrix has {size} singular values above 0: ask for k <= {size}")
    if size < k:
        return None
    small = np.diag(state.alpha) + np.diag(state.beta[: size - 1], 1)
    left, values, right = np.linalg.svd(small)
    rest = 0.0 if state.finished else state.beta[size - 1]
    if (rest * np.abs(left[-1, :k]) > tolerance * values[0]).any():
        return None
    return values[:k], left[:, :k], right[:k].T


def _total(comm: Any, mine: Array) -> Array:
    """Add up an array over the ranks."""
    total = np.empty_like(mine)
    comm.Allreduce(np.ascontiguousarray(mine), total)
    return total


# ---------------------------------------------------------------- over a session


def truncated_svd(
    session: Session,
    matrix: Any,
    k: int,
    tolerance: float = 1e-10,
    seed: int = 0,
    every: int | None = None,
    name: str | None = None,
) -> Variable:
    """Find the k largest singular values of a matrix on the ranks of a session.

    Parameters
    ----------
    session : Session
    matrix : Variable, or (m, n) scipy.sparse matrix
        A variable holds on each rank its `Weights`, or a scipy.sparse matrix or a list of them.
    k, tolerance, seed, every
        See `svd`.
    name : str, optional
        Of the result.

    Returns
    -------
    Variable
        Of values: each rank's `Semantics`; ``collect(variable.partitions())`` puts them together.

    Raises
    ------
    UsageError
        As `svd` does: at once where the call shows it, else when the result is asked for.
    """
    _check(k, tolerance, every)
    if not isinstance(matrix, Variable):
        if not sparse.issparse(matrix) or matrix.ndim != 2:
            raise UsageError(
                f"matrix is a variable or a scipy.sparse matrix, not a {type(matrix).__name__}"
            )
        if not k <= min(matrix.shape):
            raise UsageError(f"a matrix of shape {matrix.shape} does not have {k} singular values")
        whole, edges = sparse.csr_array(matrix), cuts(matrix.shape[0], session.size)
        parts = [whole[begin:end] for begin, end in pairwise(edges)]
        matrix = session.scatter(parts)
    return session.spmd(_svd_variable, matrix, k, tolerance, seed, every, name=name)


def _svd_variable(comm: Any, matrix: Any, *options: Any) -> Any:
    share = here()[matrix]
    return svd(comm, share.matrix if isinstance(share, Weights) else share, *options)


def collect(parts: Sequence[Semantics]) -> tuple[Array, Array, Array]:
    """Put the ranks' parts together.

    Returns
    -------
    documents : (m, k) array
    values : (k,) array
        The largest first.
    terms : (k, n) array
        As of ``numpy.linalg.svd``: the matrix is about ``documents @ np.diag(values) @ terms``.
    """
    documents = np.concatenate([part.documents for part in parts])
    terms = np.concatenate([part.terms for part in parts])
    return documents, parts[0].values, terms.T


def _check(k: int, tolerance: float, every: int | None) -> None:
    for what, number in (("k", k), ("every", every)):
        if number is not None and (not isinstance(number, int | np.integer) or number < 1):
            raise UsageError(f"{what}= takes a whole number of at least 1, not {number!r}")
    if not 0 < tolerance < 1:
        raise UsageError(f"tolerance= takes a number between 0 and 1, not {tolerance!r}")
