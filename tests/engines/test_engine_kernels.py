"""The kernel of a notebook is restarted or killed: its named session goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from feliss_nb.runtime import claims

PATIENCE = 60.0


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
        """Run a cell; return what it printed. An error is one of the test's."""
        printed: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            content = message["content"]
            printed.append(content.get("text", "") or "\n".join(content.get("traceback", ())))

        reply = self.client.execute_interactive(cell, timeout=PATIENCE, output_hook=hear)
        assert reply["content"]["status"] == "ok", "".join(printed)
        return "".join(printed)

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
def kernel() -> Iterator[Kernel]:
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
