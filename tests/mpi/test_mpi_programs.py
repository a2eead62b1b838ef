"""Classic programs, written for mpi4py: the same output as under mpi4py, which ``*.out`` holds.

The golden files were made by ``mpiexec -n 4 python program.py`` with Open MPI's mpi4py; nothing but
the import line is changed here.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from thread_port import run

PROGRAMS = sorted(Path(__file__).with_name("programs").glob("*.py"))
THEIRS, OURS = "from mpi4py import MPI", "from feliss_nb.models.mpi import MPI"
RANKS = 4


def output(path: Path, seed: int | None) -> list[list[str]]:
    """What each rank prints."""
    source = path.read_text("utf-8")
    assert source.count(THEIRS) == 1
    code = compile(source.replace(THEIRS, OURS), str(path), "exec")

    def main(comm):
        text = io.StringIO()
        exec(code, {"__name__": "__main__", "print": lambda *a: print(*a, file=text)})
        return text.getvalue().splitlines()

    return run(RANKS, main, seed=seed, hold=0.2)


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_the_output_is_that_of_mpi4py(path, seed):
    lines = output(path, seed)
    expected = path.with_suffix(".out").read_text("utf-8").splitlines()
    printed = [line for rank in lines for line in rank]
    if sum(map(bool, lines)) > 1:  # whose line is first is nobody's promise
        printed, expected = sorted(printed), sorted(expected)
    assert printed == expected


def test_there_are_enough():
    assert len(PROGRAMS) >= 25
