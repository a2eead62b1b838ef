"""The programs' kernels on ranks in threads: the communicator's own code, no engine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from feliss_nb.algorithms import steps

# tests/mpi is no package.
sys.path.insert(0, str(Path(__file__).parents[1] / "mpi"))

from thread_port import run

Kernel = Callable[..., list[Any]]


@pytest.fixture
def ranks() -> Kernel:
    """``ranks(kernel, shares, **options)`` runs ``kernel(comm, *shares[rank], **options)``.

    Every rank ends its steps by ``comm.then``, so each is checked to leave no message.
    """

    def call(kernel: Callable[..., Any], shares: Sequence[tuple[Any, ...]], **options: Any) -> Any:
        def main(comm: Any) -> Any:
            def begin(comm: Any) -> Any:
                return kernel(comm, *shares[comm.rank], **options)

            return steps.run(comm, begin)

        return run(len(shares), main, then=lambda step, args, needs: steps.Rest(step, args))

    return call
