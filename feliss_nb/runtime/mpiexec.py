"""How engines are started under Open MPI's mpiexec, so that they outlive a lost rank."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from feliss_nb.errors import UsageError

KINDS = ("local", "mpi")
VARIABLE = "FELISS_NB_ENGINES"

_INSTALL = "install what MPI engines need: pip install 'feliss_nb[mpi]'"


def check_kind(engines: str | None) -> str:
    """Return which kind of engines to start: what is asked for, or what the environment says.

    Raises
    ------
    UsageError
        If there is no such kind, or MPI is asked for and not installed.
    """
    source = "engines="
    if engines is None:
        engines, source = os.environ.get(VARIABLE) or "local", f"{VARIABLE}="
    if engines not in KINDS:
        raise UsageError(f"{source} takes {' or '.join(map(repr, KINDS))}, not {engines!r}")
    if engines == "mpi":
        find_mpiexec()
    return engines


def find_mpiexec() -> str:
    """Return the mpiexec of this Python's environment, or the one on the path.

    Raises
    ------
    UsageError
        If there is none, it is not Open MPI 5 or later, or mpi4py is missing.
    """
    if find_spec("mpi4py") is None:
        raise UsageError(f"engines='mpi' needs mpi4py: {_INSTALL}")
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("mpiexec", path=scripts) or shutil.which("mpiexec")
    if found is None:
        raise UsageError(f"engines='mpi' needs mpiexec, and there is none: {_INSTALL}")
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    words = told.stdout.replace("(Open MPI)", "OpenMPI ").split()
    version = words[words.index("OpenMPI") + 1] if "OpenMPI" in words else ""
    if not version or int(version.split(".")[0]) < 5:
        what = f"Open MPI {version}" if version else "another MPI"
        raise UsageError(
            f"{found} is of {what}, which ends all ranks when one is lost; {_INSTALL}, "
            "into the environment of this Python"
        )
    return found


def memory_directory(directory: Path) -> Path:
    """Return where MPI's shared memory lies for a session: a folder that is removed with it."""
    shared = Path("/dev/shm")  # noqa: S108 - its folder has a unique name
    if shared.is_dir() and os.access(shared, os.W_OK):
        return shared / f"{directory.name}-{os.getpid()}"
    return directory / "shm"


def command(mpiexec: str) -> list[str]:
    """Return the command that starts engines, up to their number."""
    return [mpiexec, *(["--allow-run-as-root"] if os.geteuid() == 0 else [])]


def arguments(directory: Path) -> list[str]:
    """Return the arguments of mpiexec for engines of a session in a private directory."""
    return [
        "--with-ft",
        "ulfm",
        "--map-by",
        ":OVERSUBSCRIBE",  # engines are as many as the user says
        "--bind-to",
        "none",  # a spare and a worker on one core would get half of it each
        # Everything that a killed process would leave lies where the session's end removes it.
        "--prtemca",
        "prte_tmpdir_base",
        str(directory),
        "--mca",
        "btl_sm_backing_directory",
        str(memory_directory(directory)),
        "--mca",
        "mpi_yield_when_idle",
        "1",
    ]
