"""Collectives of memory that give a request, and those that can be started again and again."""
# ruff: noqa: N802  mpi4py's names

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feliss_nb.models.mpi import array_plans as plans
from feliss_nb.models.mpi import reduction_plans as reductions
from feliss_nb.models.mpi.core import Core
from feliss_nb.models.mpi.missing import Checked
from feliss_nb.models.mpi.ops import SUM, Op
from feliss_nb.models.mpi.request import Prequest, Request


class NonblockingCollectives(Checked):
    """Collectives that move on while their rank waits for or tests any request."""

    _core: Core

    def Ibarrier(self) -> Request:
        """Begin to wait until every rank has come here."""
        return self._core.start(*plans.barrier())

    def Ibcast(self, buf: Any, root: int = 0) -> Request:
        """Begin to give every rank the root's memory."""
        return self._core.start(*plans.bcast(self._core, buf, root))

    def Igather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        """Begin to give the root every rank's memory, in equal blocks."""
        return self._core.start(*plans.gather(self._core, sendbuf, recvbuf, root))

    def Igatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        """Begin to give the root every rank's memory, in blocks of any sizes."""
        return self._core.start(*plans.gatherv(self._core, sendbuf, recvbuf, root))

    def Iscatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        """Begin to give each rank its block of the root's memory."""
        return self._core.start(*plans.scatter(self._core, sendbuf, recvbuf, root))

    def Iscatterv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        """Begin to give each rank its block, of any size, of the root's memory."""
        return self._core.start(*plans.scatterv(self._core, sendbuf, recvbuf, root))

    def Iallgather(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Begin to give every rank every rank's memory, in equal blocks."""
        return self._core.start(*plans.allgather(self._core, sendbuf, recvbuf))

    def Iallgatherv(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Begin to give every rank every rank's memory, in blocks of any sizes."""
        return self._core.start(*plans.allgatherv(self._core, sendbuf, recvbuf))

    def Ialltoall(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Begin to give each rank its block of every rank's memory."""
        return self._core.start(*plans.alltoall(self._core, sendbuf, recvbuf))

    def Ialltoallv(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Begin to give each rank its block, of any size, of every rank's memory."""
        return self._core.start(*plans.alltoallv(self._core, sendbuf, recvbuf))

    def Ialltoallw(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Begin to give each rank its block, of any type, of every rank's memory."""
        return self._core.start(*plans.alltoallw(self._core, sendbuf, recvbuf))

    def Ireduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, root: int = 0) -> Request:
        """Begin to combine every rank's memory for the root."""
        return self._core.start(*reductions.reduce(self._core, sendbuf, recvbuf, op, root))

    def Iallreduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Request:
        """Begin to combine every rank's memory for all."""
        return self._core.start(*reductions.allreduce(self._core, sendbuf, recvbuf, op))

    def Ireduce_scatter(
        self, sendbuf: Any, recvbuf: Any, recvcounts: Any = None, op: Op = SUM
    ) -> Request:
        """Begin to combine every rank's memory, and give each rank its block."""
        return self._core.start(
            *reductions.reduce_scatter(self._core, sendbuf, recvbuf, recvcounts, op)
        )

    def Ireduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Request:
        """Begin to combine every rank's memory, and give each rank an equal block."""
        return self._core.start(*reductions.reduce_scatter_block(self._core, sendbuf, recvbuf, op))

    def Iscan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Request:
        """Begin to combine the memory of all ranks up to this one."""
        return self._core.start(*reductions.scan(self._core, sendbuf, recvbuf, op, True))

    def Iexscan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Request:
        """Begin to combine the memory of all ranks below this one."""
        return self._core.start(*reductions.scan(self._core, sendbuf, recvbuf, op, False))

    def Barrier_init(self) -> Prequest:
        """Make a ``Barrier`` that can be started again and again."""
        return self._persistent("Barrier_init", lambda: self.Ibarrier())

    def Bcast_init(self, buf: Any, root: int = 0) -> Prequest:
        """Make a ``Bcast`` that can be started again and again."""
        return self._persistent("Bcast_init", lambda: self.Ibcast(buf, root))

    def Gather_init(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Prequest:
        """Make a ``Gather`` that can be started again and again."""
        return self._persistent("Gather_init", lambda: self.Igather(sendbuf, recvbuf, root))

    def Gatherv_init(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Prequest:
        """Make a ``Gatherv`` that can be started again and again."""
        return self._persistent("Gatherv_init", lambda: self.Igatherv(sendbuf, recvbuf, root))

    def Scatter_init(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Prequest:
        """Make a ``Scatter`` that can be started again and again."""
        return self._persistent("Scatter_init", lambda: self.Iscatter(sendbuf, recvbuf, root))

    def Scatterv_init(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Prequest:
        """Make a ``Scatterv`` that can be started again and again."""
        return self._persistent("Scatterv_init", lambda: self.Iscatterv(sendbuf, recvbuf, root))

    def Allgather_init(self, sendbuf: Any, recvbuf: Any) -> Prequest:
        """Make a ``Allgather`` that can be started again and again."""
        return self._persistent("Allgather_init", lambda: self.Iallgather(sendbuf, recvbuf))

    def Allgatherv_init(self, sendbuf: Any, recvbuf: Any) -> Prequest:
        """Make a ``Allgatherv`` that can be started again and again."""
        return self._persistent("Allgatherv_init", lambda: self.Iallgatherv(sendbuf, recvbuf))

    def Alltoall_init(self, sendbuf: Any, recvbuf: Any) -> Prequest:
        """Make a ``Alltoall`` that can be started again and again."""
        return self._persistent("Alltoall_init", lambda: self.Ialltoall(sendbuf, recvbuf))

    def Alltoallv_init(self, sendbuf: Any, recvbuf: Any) -> Prequest:
        """Make a ``Alltoallv`` that can be started again and again."""
        return self._persistent("Alltoallv_init", lambda: self.Ialltoallv(sendbuf, recvbuf))

    def Alltoallw_init(self, sendbuf: Any, recvbuf: Any) -> Prequest:
        """Make a ``Alltoallw`` that can be started again and again."""
        return self._persistent("Alltoallw_init", lambda: self.Ialltoallw(sendbuf, recvbuf))

    def Reduce_init(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, root: int = 0) -> Prequest:
        """Make a ``Reduce`` that can be started again and again."""
        return self._persistent("Reduce_init", lambda: self.Ireduce(sendbuf, recvbuf, op, root))

    def Allreduce_init(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Prequest:
        """Make a ``Allreduce`` that can be started again and again."""
        return self._persistent("Allreduce_init", lambda: self.Iallreduce(sendbuf, recvbuf, op))

    def Reduce_scatter_init(
        self, sendbuf: Any, recvbuf: Any, recvcounts: Any = None, op: Op = SUM
    ) -> Prequest:
        """Make a ``Reduce_scatter`` that can be started again and again."""
        return self._persistent(
            "Reduce_scatter_init", lambda: self.Ireduce_scatter(sendbuf, recvbuf, recvcounts, op)
        )

    def Reduce_scatter_block_init(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Prequest:
        """Make a ``Reduce_scatter_block`` that can be started again and again."""
        return self._persistent(
            "Reduce_scatter_block_init", lambda: self.Ireduce_scatter_block(sendbuf, recvbuf, op)
        )

    def Scan_init(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Prequest:
        """Make a ``Scan`` that can be started again and again."""
        return self._persistent("Scan_init", lambda: self.Iscan(sendbuf, recvbuf, op))

    def Exscan_init(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Prequest:
        """Make a ``Exscan`` that can be started again and again."""
        return self._persistent("Exscan_init", lambda: self.Iexscan(sendbuf, recvbuf, op))

    def _persistent(self, name: str, begin: Callable[[], Request]) -> Prequest:
        return Prequest(self._core.endpoint, begin, name, self._core.name)
