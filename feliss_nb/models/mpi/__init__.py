"""mpi4py's communicator over the messages of a gang: point to point, collectives, groups, grids."""

from feliss_nb.models.mpi import names as MPI  # noqa: N812  mpi4py's name
from feliss_nb.models.mpi.comm import Comm, Intracomm
from feliss_nb.models.mpi.gang import gang
from feliss_nb.models.mpi.missing import NOT_IMPLEMENTED
from feliss_nb.models.mpi.port import Port, Wait, explain_deadlock

__all__ = [
    "MPI",
    "NOT_IMPLEMENTED",
    "Comm",
    "Intracomm",
    "Port",
    "Wait",
    "explain_deadlock",
    "gang",
]
