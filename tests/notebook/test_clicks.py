"""When a click is heard: by a real kernel, told of it as JupyterLab's page tells it. No engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel
from kernel_cells import run_cell

pytest.importorskip("ipywidgets")
PATIENCE = 60.0

SETUP = """
import threading
from feliss_nb.notebook import dashboard
order, heard = [], threading.Event()
def clicked(what, value):
    order.append("click")
    heard.set()
view = dashboard._of_no_cell(lambda: dashboard.View(clicked))
print(view._checkpoint.model_id)
"""
HEARS = """
order.append("cell begins")
print("begun", flush=True)
heard.wait(60)
order.append("cell ends")
"""
#: It ends when the test lets it.
WAITS = """
order.append("cell begins")
print("begun", flush=True)
open({path!r}).read()
order.append("cell ends")
"""


class Kernel:
    """A kernel and a page."""

    def __init__(self) -> None:
        self.manager, self.client = start_new_kernel(startup_timeout=PATIENCE)
        channel = self.client.control_channel
        channel.send(self.client.session.msg("create_subshell_request"))
        # JupyterLab sends what it says to widgets to a subshell that it has made.
        self.subshell = self.client.get_control_msg(timeout=PATIENCE)["content"]["subshell_id"]

    def run(self, cell: str) -> str:
        return run_cell(self.client, cell, PATIENCE)

    def begin(self, cell: str) -> str:
        """Run a cell up to where it says that it has begun; give its request."""
        request = str(self.client.execute(cell))
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["content"].get("text") == "begun\n":
                return request

    def has_run(self, request: str) -> None:
        while True:
            reply = self.client.get_shell_msg(timeout=PATIENCE)
            if reply["parent_header"].get("msg_id") == request:
                assert reply["content"]["status"] == "ok"
                return

    def click(self, model: str) -> None:
        data = {"method": "custom", "content": {"event": "click"}}
        message = self.client.session.msg("comm_msg", {"comm_id": model, "data": data})
        message["header"]["subshell_id"] = self.subshell
        self.client.shell_channel.send(message)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    kernel = Kernel()
    yield kernel
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)


def test_a_click_is_heard_while_a_cell_runs_or_when_it_has_ended(
    kernel: Kernel, tmp_path: Path
) -> None:
    model = kernel.run(SETUP).strip()
    request = kernel.begin(HEARS)
    kernel.click(model)
    kernel.has_run(request)
    assert kernel.run("print(order)").strip() == "['cell begins', 'click', 'cell ends']"

    # In a kernel that has no such attribute the widgets work all the same.
    model = kernel.run(f"dashboard._PARENT = 'none'{SETUP}").strip()
    path = tmp_path / "fifo"
    os.mkfifo(path)
    request = kernel.begin(WAITS.format(path=str(path)))
    kernel.click(model)
    path.write_text("go on")
    kernel.has_run(request)
    assert kernel.run("print(order)").strip() == "['cell begins', 'cell ends', 'click']"
