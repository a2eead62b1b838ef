"""The kernel of a notebook is restarted or killed: its named session goes on."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from jupyter_client.manager import KernelManager
from kernel_cells import run_cell

from feliss_nb.runtime import claims

PATIENCE = 60.0
PR_SET_CHILD_SUBREAPER = 36  # of <linux/prctl.h>


class Kernel:
    """A Jupyter kernel, as the server has one."""

    def __init__(self) -> None:
        self.manager = KernelManager()
        self.manager.start_kernel()
        self._connect()

    def _connect(self) -> None:
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)

    def run(self, cell: str) -> str:
        return run_cell(self.client, cell, PATIENCE)

    def restart(self) -> None:
        """As the menu does: it is asked to end, and another one is started."""
        self.client.stop_channels()
        self.manager.restart_kernel(now=False)
        self._connect()

    def kill(self) -> None:
        """End it as the kernel of the system does with who takes too much memory."""
        self.client.stop_channels()
        os.kill(self.manager.provisioner.pid, signal.SIGKILL)
        self.manager.restart_kernel(now=True)
        self._connect()

    def end(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def orphans() -> Iterator[None]:
    """Orphans come to this process, which does not ask how they end: as in many a container."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    own = set(psutil.Process().children())
    yield
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    for process in set(psutil.Process().children()) - own:
        if process.status() == psutil.STATUS_ZOMBIE:
            os.waitpid(process.pid, os.WNOHANG)


@pytest.fixture
def kernel(orphans: None) -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.end()


START = """
%load_ext feliss_nb
%feliss start --workers 2 --name menu
import time, os
def slow(n):
    while not os.path.exists({go!r}):
        time.sleep(0.01)
    return n * n
numbers = list(range(10))
%feliss map slow numbers --out squares
"""

RESUME = """
%load_ext feliss_nb
session = %feliss resume menu
"""

READ = """
print(session.epoch, sum(squares.collect()))
"""


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_session_outlives_its_kernel(kernel: Kernel, flags: Any, how: str) -> None:
    kernel.run(START.format(go=flags.path("go")))
    kernel.restart() if how == "restart" else kernel.kill()
    listed = kernel.run("import feliss_nb as feliss; print(feliss.sessions())")
    assert "menu" in listed
    assert "no master" in listed
    kernel.run(RESUME)
    assert "slow" in kernel.run("print([job.label for job in session.jobs])")
    flags.set("go")
    assert kernel.run(READ).split()[-2:] == ["0", "285"]
    kernel.run("%feliss stop")
    assert not claims.directory_of("menu").exists()
