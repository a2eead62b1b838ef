"""The examples of docs/checkpoints.md, docs/stores.md and docs/mpi.md that no other test runs.

Those of batch systems are run by `test_engine_mpi.py`.
"""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

pytestmark = pytest.mark.engines
DOCS = Path(__file__).resolve().parents[2] / "docs"


def examples(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / name).read_text("utf-8"), re.M | re.S)


def test_captures_anatomy_and_intervals(script: Any) -> None:
    begun, anatomy = examples("checkpoints.md")
    *_, auto = examples("stores.md")
    _, change = auto.splitlines()
    found = script(
        "import feliss_nb\n"
        + begun
        + "session.variable(lambda rank, size: bytes(20_000), name='twenty').wait()\n"
        + anatomy
        + "print(session.capture, 'twenty' in repr(anatomy), len(anatomy.frame()) > 0)\n"
        + change
        + "\nprint(session.status().pacing)\nsession.stop()\n"
    )
    first, pacing = found.stdout.splitlines()[-2:]
    assert first == "incremental+forked True True"
    assert "a loss in 1 h" in pacing


def test_engines_under_mpi(script: Any) -> None:
    pytest.importorskip("mpi4py")
    name, start, choice, _ = examples("mpi.md")
    found = script(
        "import feliss_nb\n"
        + name
        + start
        + "def main(comm):\n"
        + indent(choice, "    ")
        + "    return comm.allreduce(comm.rank, op=MPI.SUM)\n"
        + "print(session.spmd(main).partitions(), session.status().carrier)\nsession.stop()\n"
    )
    assert found.stdout.splitlines()[-1] == "[1, 1] MPI"
