"""The programs on real engines: against their oracles, and the same bits after a lost rank."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sparse
from algorithm_work import Stopping
from scipy.sparse.linalg import spsolve, svds

import feliss_nb as feliss
from feliss_nb.algorithms import cannon, cg, heat, lsa, lu
from feliss_nb.errors import UsageError

PATIENCE = 60.0


@pytest.fixture(scope="module", params=["local", "mpi"])
def engines(request: pytest.FixtureRequest) -> str:
    """Every program on both kinds of engines."""
    if request.param == "mpi":
        pytest.importorskip("mpi4py", reason="MPI engines need mpi4py")
    return str(request.param)


def bits(parts: list[Any]) -> list[bytes]:
    """The bytes of every array of the ranks' parts."""
    found = []
    for part in parts:
        arrays = [part] if isinstance(part, np.ndarray) else vars_of(part)
        found += [array.tobytes() for array in arrays if isinstance(array, np.ndarray)]
    assert found
    return found


def vars_of(part: Any) -> list[Any]:
    return [getattr(part, name) for name in type(part).__slots__]


def survives(
    session: feliss.Session,
    flags: Any,
    program: Callable[[Any], feliss.Variable],
    victim: int,
) -> list[Any]:
    """Run a program twice, once with a rank killed between two of its steps; give its parts.

    The checkpoint stands before step 2, the loss comes before step 4: so steps 2 and 3 run again,
    and steps 0 and 1 do not.
    """
    calm = program(session).partitions()
    epoch = session.epoch
    out = program(Stopping(session, str(flags.folder), (2, 4)))
    flags.wait("reached-2")
    session.checkpoint(PATIENCE)
    flags.set("go-2")
    flags.wait("reached-4")
    session.kill(victim, wait=True)
    flags.set("go-4")
    assert bits(out.partitions()) == bits(calm)
    assert session.epoch == epoch + 1
    steps = [int(line) for line in flags.lines("steps")]
    assert steps[:6] == [0, 1, 2, 3, 2, 3]
    assert steps[6:] == list(range(4, 4 + len(steps[6:])))
    return calm


# Before the other tests: with their session it would be eight engines.
def test_cannon_survives_a_loss(flags: Any, engines: str) -> None:
    """Four ranks and no spare: one survivor runs two ranks."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((61, 47)), rng.standard_normal((47, 53))
    with feliss.start(workers=4, replace=False, checkpoint_every=None, engines=engines) as session:
        parts = survives(session, flags, lambda s: cannon.product(s, a, b, strips=4), 1)
        np.testing.assert_allclose(np.concatenate(parts), a @ b, atol=1e-11)
        # Variables in: what one program gave is the other's matrix.
        product = cannon.product(session, session.scatter(a @ b), session.scatter(b.T))
        again = cannon.product(session, product, np.eye(47))
        np.testing.assert_allclose(np.concatenate(again.partitions()), a @ b @ b.T, atol=1e-10)


def test_lu_survives_a_loss(idle: feliss.Session, flags: Any) -> None:
    a = np.random.default_rng(0).standard_normal((300, 300))
    parts = survives(idle, flags, lambda s: lu.factorize(s, a, block=16, grid=(3, 1), panels=2), 2)
    assert lu.residual(a, *lu.collect(parts)) < 10


def test_conjugate_gradients_survive_a_loss(idle: feliss.Session, flags: Any) -> None:
    side = 30
    line = sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
    a = sparse.kron(line, sparse.eye_array(side)) + sparse.kron(sparse.eye_array(side), line)
    b = np.random.default_rng(0).standard_normal(side**2)
    parts = survives(idle, flags, lambda s: cg.solve_system(s, a, b, block=4, every=10), 0)
    assert parts[0].iterations > 50
    np.testing.assert_allclose(cg.collect(parts), spsolve(a.tocsc(), b), rtol=1e-6)


def test_heat_survives_a_loss(idle: feliss.Session, flags: Any) -> None:
    plate = np.random.default_rng(0).standard_normal((50, 40))
    options = {"times": 90, "dt": 0.2}
    parts = survives(idle, flags, lambda s: heat.spread(s, plate, every=10, **options), 1)
    narrow = heat.spread(idle, plate, grid=(3, 1), **options).partitions()
    assert np.concatenate(parts).tobytes() == np.concatenate(narrow).tobytes()


def library(pattern: str) -> list[str]:
    """Files of Python's standard library: real text on every machine."""
    return sorted(glob.glob(os.path.join(os.path.dirname(os.__file__), pattern)))


def serial_tfidf(texts: list[str], least: int) -> tuple[list[str], np.ndarray[Any, Any]]:
    counts = [Counter(lsa.words(text)) for text in texts]
    spread = Counter(term for count in counts for term in count)
    terms = sorted(term for term, number in spread.items() if number >= least)
    rarity = [np.log(len(texts) / spread[term]) for term in terms]
    weights = [[count[t] * r for t, r in zip(terms, rarity, strict=True)] for count in counts]
    return terms, np.array(weights)


def test_semantics_of_real_text(idle: feliss.Session) -> None:
    paths = library("*.py")
    assert len(paths) > 100
    weights = lsa.tfidf(idle, idle.read_text(paths, by="file"))
    found = lsa.truncated_svd(idle, weights, 20)
    parts = weights.partitions()
    matrix = sparse.vstack([part.matrix for part in parts])
    texts = [Path(path).read_bytes().decode("utf-8", "replace") for path in paths]
    terms, expected = serial_tfidf(texts, 2)
    assert [term for part in parts for term in part.terms] == terms
    np.testing.assert_allclose(matrix.toarray(), expected, rtol=1e-14)
    documents, values, vectors = lsa.collect(found.partitions())
    best = np.sort(svds(matrix, k=20, return_singular_vectors=False, tol=1e-14))[::-1]
    np.testing.assert_allclose(values, best, rtol=1e-9)
    np.testing.assert_allclose(matrix @ vectors.T, documents * values, atol=1e-7 * values[0])


def test_semantics_survive_a_loss(idle: feliss.Session, flags: Any) -> None:
    texts = idle.read_text(library("[a-c]*.py"), by="file")

    def program(session: Any) -> feliss.Variable:
        weights = lsa.tfidf(idle, texts)
        return lsa.truncated_svd(session, weights, 5, every=3)

    parts = survives(idle, flags, program, 1)
    assert (np.diff(parts[0].values) <= 0).all()


@pytest.mark.slow
def test_lu_of_4320(idle: feliss.Session) -> None:
    a = np.random.default_rng(0).standard_normal((4320, 4320))
    parts = lu.factorize(idle, a).partitions()
    assert lu.residual(a, *lu.collect(parts)) < 10


def test_bad_input_is_told_at_once(idle: feliss.Session) -> None:
    square, wide = np.eye(6), np.ones((4, 6))
    unsymmetric = sparse.csr_array(np.triu(np.ones((4, 4))))
    calls: list[tuple[str, Callable[[], object]]] = [
        ("square matrix", lambda: lu.factorize(idle, wide)),
        ("does not have 3 ranks", lambda: lu.factorize(idle, square, grid=(2, 2))),
        ("not finite", lambda: lu.factorize(idle, square / 0 * 0)),
        ("square number of ranks, such as 1 or 4", lambda: cannon.product(idle, square, square)),
        ("not symmetric", lambda: cg.solve_system(idle, unsymmetric, np.ones(4))),
        ("an entry for each row", lambda: cg.solve_system(idle, sparse.eye_array(4), np.ones(5))),
        ("square scipy.sparse matrix", lambda: cg.solve_system(idle, square, np.ones(6))),
        ("unstable", lambda: heat.spread(idle, np.ones((9, 9)), 1, 0.3)),
        ("fewer inner rows", lambda: heat.spread(idle, np.ones((3, 3)), 1, 0.1)),
        ("does not have 7", lambda: lsa.truncated_svd(idle, sparse.eye_array(6), 7)),
        ("split=", lambda: lsa.tfidf(idle, ["a b"], split="words")),  # type: ignore[arg-type]
    ]
    jobs = len(idle.jobs)
    for text, call in calls:
        with np.errstate(all="ignore"), pytest.raises(UsageError, match=text):
            call()
    assert len(idle.jobs) == jobs


def test_bad_input_on_the_ranks_is_told_by_the_result(idle: feliss.Session) -> None:
    with pytest.raises(UsageError, match="singular: column 0 "):
        lu.factorize(idle, np.zeros((6, 6))).partitions()
    with pytest.raises(UsageError, match="square"):
        lu.factorize(idle, idle.scatter(np.ones((4, 6)))).partitions()
    with pytest.raises(UsageError, match="no term occurs in 2 of the 3 documents"):
        lsa.tfidf(idle, ["one two", "three four", "five"]).partitions()
    with pytest.raises(UsageError, match="share of"):
        lu.factorize(idle, idle.scatter(["not", "a", "matrix"])).partitions()
