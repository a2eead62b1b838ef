"""Whether a gang may end its step: no message without a receive, no request open, on any rank."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from feliss_nb.errors import UsageError
from feliss_nb.models.mpi import moving, ops, reducing
from feliss_nb.models.mpi.core import Core
from feliss_nb.models.mpi.datatype import PREDEFINED
from feliss_nb.models.mpi.endpoint import COUNTING
from feliss_nb.models.mpi.objects import plain_decode, plain_encode
from feliss_nb.models.mpi.reduction_plans import Arrays
from feliss_nb.models.mpi.schedule import Channel, Steps

#: An error names so many things at most.
_SHOWN = 20


def check_quiet(
    core: Core, way: str = "the function's return", needs: Iterable[int] = ()
) -> frozenset[int]:
    """Raise the same error on every rank if the gang's step cannot end here.

    Every rank has to end it in the same `way`. What the ranks need next is put together.

    How many messages each rank must have had is counted by the senders, so none is overlooked that
    is still on its way.
    """
    endpoint = core.endpoint
    if core.counting is None:  # in a context of its own: what went wrong in the other is to be told
        core.counting = core.child(core.group.members, core.name, COUNTING)
    counting = core.counting
    sent = np.array(endpoint.sent, np.int64)
    how = Arrays(ops.SUM, PREDEFINED["INT64_T"])

    def counted(channel: Channel) -> Steps:
        return (yield from reducing.allreduce(channel, how, sent))

    total = counting.run(counted, (COUNTING,))
    expected = int(total[endpoint.rank])
    endpoint.wait(
        lambda: endpoint.received >= expected,
        lambda: [(COUNTING, core.name, core.group.members, None)],
    )
    found = way, tuple(sorted(endpoint.complaints())), tuple(needs)

    def told(channel: Channel) -> Steps:
        return (yield from moving.allgather(channel, plain_encode(found)))

    said = [plain_decode(item) for item in counting.run(told, (COUNTING,))]
    complaints = [line for _, lines, _ in said for line in lines]
    if len({way for way, _, _ in said}) > 1:
        complaints += [f"rank {rank} ends it by {way}" for rank, (way, _, _) in enumerate(said)]
    if complaints:
        more = len(complaints) - _SHOWN
        lines = complaints[:_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        raise UsageError(
            "the step cannot end here; receive every message and wait for every request before "
            "then (or before the function returns), on all ranks in the same way:\n  "
            + "\n  ".join(lines)
        )
    return frozenset(variable for _, _, others in said for variable in others)
