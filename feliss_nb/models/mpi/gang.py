"""One step of a gang, on one rank: a communicator over a port, and the thread that uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from feliss_nb.models.mpi.comm import Intracomm
from feliss_nb.models.mpi.core import Core, Then, derive, enter
from feliss_nb.models.mpi.endpoint import Endpoint
from feliss_nb.models.mpi.objects import Decode, Encode, use
from feliss_nb.models.mpi.port import Port


@contextmanager
def gang(
    port: Port,
    then: Then | None = None,
    name: str = "MPI_COMM_WORLD",
    objects: tuple[Encode, Decode] | None = None,
) -> Iterator[Intracomm]:
    """Give the gang's communicator, which is ``MPI.COMM_WORLD`` on this thread meanwhile.

    Parameters
    ----------
    port : Port
        Of this rank in this step of the gang.
    then : callable, optional
        ``then(step, args, needs)`` makes the rest of the program the gang's next continuation; what
        it returns is what ``comm.then`` returns. It is called when the gang is quiet. ``needs`` are
        the variables whose handles stand in the arguments, of any rank.
    name : str
        What errors and reports of deadlocks call the communicator.
    objects : tuple of callables, optional
        How objects are written and read: ``encode(obj)`` gives buffers, the pickle first, the
        others views of live memory; ``decode(buffers)`` gives the object. Without it functions and
        classes that no module has travel by value, anew with each message.
    """
    core = Core(Endpoint(port), range(port.size), derive("world"), name, then)
    before, ways = enter(core), use(objects)
    try:
        yield Intracomm(core)
    finally:
        enter(before)
        use(ways)
