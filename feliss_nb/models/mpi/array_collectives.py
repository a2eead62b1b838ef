"""Collectives of memory (upper case) that return when this rank's part is done."""
# ruff: noqa: N802  mpi4py's names

from __future__ import annotations

from typing import Any

from feliss_nb.models.mpi import array_plans as plans
from feliss_nb.models.mpi import faster
from feliss_nb.models.mpi import reduction_plans as reductions
from feliss_nb.models.mpi.core import Core
from feliss_nb.models.mpi.missing import Checked
from feliss_nb.models.mpi.ops import SUM, Op


class ArrayCollectives(Checked):
    """Blocking collectives of memory."""

    _core: Core

    def Barrier(self) -> None:
        """Wait until every rank has come here."""
        self._core.run(*plans.barrier())

    def Bcast(self, buf: Any, root: int = 0) -> None:
        """Give every rank the root's memory."""
        self._core.run(*plans.bcast(self._core, buf, root))

    def Gather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give the root every rank's memory, in equal blocks."""
        self._core.run(*plans.gather(self._core, sendbuf, recvbuf, root))

    def Gatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give the root every rank's memory, in blocks of any sizes."""
        self._core.run(*plans.gatherv(self._core, sendbuf, recvbuf, root))

    def Scatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give each rank its block of the root's memory."""
        self._core.run(*plans.scatter(self._core, sendbuf, recvbuf, root))

    def Scatterv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give each rank its block, of any size, of the root's memory."""
        self._core.run(*plans.scatterv(self._core, sendbuf, recvbuf, root))

    def Allgather(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give every rank every rank's memory, in equal blocks."""
        self._core.run(*plans.allgather(self._core, sendbuf, recvbuf))

    def Allgatherv(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give every rank every rank's memory, in blocks of any sizes."""
        self._core.run(*plans.allgatherv(self._core, sendbuf, recvbuf))

    def Alltoall(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give each rank its block of every rank's memory."""
        self._core.run(*plans.alltoall(self._core, sendbuf, recvbuf))

    def Alltoallv(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give each rank its block, of any size, of every rank's memory."""
        self._core.run(*plans.alltoallv(self._core, sendbuf, recvbuf))

    def Alltoallw(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give each rank its block, of any type, of every rank's memory."""
        self._core.run(*plans.alltoallw(self._core, sendbuf, recvbuf))

    def Reduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, root: int = 0) -> None:
        """Combine every rank's memory for the root."""
        if faster.reduce(self._core, sendbuf, recvbuf, op, root):
            return
        self._core.run(*reductions.reduce(self._core, sendbuf, recvbuf, op, root))

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """Combine every rank's memory for all."""
        if faster.reduce(self._core, sendbuf, recvbuf, op, None):
            return
        self._core.run(*reductions.allreduce(self._core, sendbuf, recvbuf, op))

    def Reduce_scatter(
        self, sendbuf: Any, recvbuf: Any, recvcounts: Any = None, op: Op = SUM
    ) -> None:
        """Combine every rank's memory, and give each rank its block."""
        self._core.run(*reductions.reduce_scatter(self._core, sendbuf, recvbuf, recvcounts, op))

    def Reduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """Combine every rank's memory, and give each rank an equal block."""
        self._core.run(*reductions.reduce_scatter_block(self._core, sendbuf, recvbuf, op))

    def Scan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """Combine the memory of all ranks up to this one."""
        self._core.run(*reductions.scan(self._core, sendbuf, recvbuf, op, True))

    def Exscan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """Combine the memory of all ranks below this one."""
        self._core.run(*reductions.scan(self._core, sendbuf, recvbuf, op, False))
