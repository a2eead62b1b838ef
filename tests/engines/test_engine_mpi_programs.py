"""The classic programs on real engines of both kinds: the output of mpi4py, in one session each."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import feliss_nb as feliss

PROGRAMS = sorted((Path(__file__).parents[1] / "mpi" / "programs").glob("*.py"))
THEIRS, OURS = "from mpi4py import MPI", "from feliss_nb import MPI"
RANKS = 4


def main(comm: Any, source: str, name: str) -> list[str]:
    """Run a program and give the lines that this rank prints."""
    text = io.StringIO()
    space = {"__name__": "__main__", "print": lambda *args: print(*args, file=text)}
    exec(compile(source, name, "exec"), space)
    return text.getvalue().splitlines()


@pytest.fixture(scope="module", params=["local", "mpi"])
def session(request: pytest.FixtureRequest) -> Iterator[feliss.Session]:
    if request.param == "mpi":
        pytest.importorskip("mpi4py", reason="MPI engines need mpi4py")
    with feliss.start(workers=RANKS, checkpoint_every=None, engines=request.param) as session:
        assert session.status().carrier == ("MPI" if request.param == "mpi" else "sockets")
        yield session


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_the_output_is_that_of_mpi4py(session: feliss.Session, path: Path) -> None:
    source = path.read_text("utf-8")
    assert source.count(THEIRS) == 1
    lines = session.spmd(main, source.replace(THEIRS, OURS), path.name).partitions()
    expected = path.with_suffix(".out").read_text("utf-8").splitlines()
    printed = [line for rank in lines for line in rank]
    if sum(map(bool, lines)) > 1:  # whose line is first is nobody's promise
        printed, expected = sorted(printed), sorted(expected)
    assert printed == expected
