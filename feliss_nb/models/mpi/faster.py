"""Reductions by the MPI underneath, in whatever order it combines: ``comm.reproducible = False``.

Only where there is one, on a communicator of all ranks of the gang in their order, for arrays of
numbers and the usual operations; elsewhere the order stays the reproducible one. A wait in here is
in no report of a deadlock.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from feliss_nb.models.mpi import moving, reduction_plans
from feliss_nb.models.mpi.core import Core
from feliss_nb.models.mpi.objects import plain_decode, plain_encode
from feliss_nb.models.mpi.ops import Op
from feliss_nb.models.mpi.schedule import Channel, Steps

_REALS: Final = "bBhHiIlLqQfd"
#: For each operation, the types of numpy's that MPI combines by it.
_TYPES: Final = {
    "SUM": _REALS + "FD",
    "PROD": _REALS + "FD",
    "MIN": _REALS,
    "MAX": _REALS,
    "BAND": _REALS[:-2],
    "BOR": _REALS[:-2],
    "BXOR": _REALS[:-2],
}


def reduce(core: Core, sendbuf: Any, recvbuf: Any, op: Op, root: int | None) -> bool:
    """Combine every rank's memory for the root, or for all if that is None.

    Returns
    -------
    bool
        False, on all ranks, if it is not for this way: then nothing was done.
    """
    native = getattr(core.endpoint.port, "native", None)
    if core.reproducible or native is None or core.size == 1:
        return False
    if core.group.members != tuple(range(core.endpoint.size)):
        return False
    if root is not None:
        root = core.root(root)
    source, target = reduction_plans.ends(core, sendbuf, recvbuf, root in (None, core.rank))
    value = source.typed().copy()
    if value.dtype.char not in _TYPES.get(op.name, ""):
        return False
    if native.in_step is None:
        native.in_step = _agree(core, native.begun)
    if not native.in_step:
        return False
    value = np.ascontiguousarray(value)
    native.reduce(value, op.name, root)
    if root in (None, core.rank):
        reduction_plans.store(target, value)
    return True


def _agree(core: Core, begun: int) -> bool:
    """Tell whether all ranks have begun as many: a gang that was cancelled may have left one out.

    MPI tells its collectives apart by their order alone.
    """

    def plan(channel: Channel) -> Steps:
        return (yield from moving.allgather(channel, plain_encode(begun)))

    return len({plain_decode(item) for item in core.run(plan, ("a faster reduction",))}) == 1
