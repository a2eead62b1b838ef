"""Jobs that survive: distributed computation on ipyparallel with light-weight checkpoints.

A rank is its pool: the continuations it has still to run. Layers, from the top; each imports
only those below it:

``notebook``, ``cli``
    magics, display, commands
``lab``
    simulator, demonstration, benchmarks
``algorithms``
    ready programs over the models; they need scipy
``models``
    programming models, ordinary code over a Session
``runtime``
    threads, clocks, sockets, ipyparallel
``faults``
    fault plans: what goes wrong, to whom, and when
``store``, ``state``, ``core``, ``errors``
    snapshots kept, a rank's state as bytes, the pure protocol machines, the errors
"""

from typing import Any

from feliss_nb import errors
from feliss_nb.errors import FelissError
from feliss_nb.faults import Fault, FaultPlan
from feliss_nb.models.mpi import MPI
from feliss_nb.models.session import Session, attach, checkpoints, restore, resume, sessions, start
from feliss_nb.notebook.progress import Progress as _Progress
from feliss_nb.runtime import Checkpoint, Event, Here, Job, Status, Variable, continuation, here
from feliss_nb.runtime.waiting import show_with as _show_with

__version__ = "0.1.0"

_show_with(_Progress)

__all__ = [
    "MPI",
    "Checkpoint",
    "Event",
    "Fault",
    "FaultPlan",
    "FelissError",
    "Here",
    "Job",
    "Session",
    "Status",
    "Variable",
    "attach",
    "checkpoints",
    "continuation",
    "dashboard",
    "errors",
    "here",
    "restore",
    "resume",
    "sessions",
    "start",
]


def dashboard(session: Session) -> Any:
    """Return the dashboard of a session: show it as the last line of a cell, or by ``display``."""
    from feliss_nb.notebook.dashboard import of

    return of(session)


def load_ipython_extension(shell: Any) -> None:
    """Load the magics: what ``%load_ext feliss_nb`` calls."""
    from feliss_nb.notebook.magics import load_ipython_extension as load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take the magics back."""
    from feliss_nb.notebook.magics import unload_ipython_extension as unload

    unload(shell)
