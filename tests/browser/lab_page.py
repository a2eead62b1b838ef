"""``feliss-nb lab`` on a copy of the notebooks, and Chromium to look at it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PATIENCE = 90_000  # milliseconds, for whatever takes engines
#: Chromium asks nobody outside for anything.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
#: Every cell is in the page, wherever it is scrolled to; and no questions.
SETTINGS = {
    "notebook-extension/tracker": '{"windowingMode": "none"}',
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
}


def missing() -> str:
    """What the test lacks, or nothing."""
    if shutil.which("chromium") is None:
        return "chromium is not installed: apt-get install chromium"
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install 'feliss_nb[test]'"
    return ""


@contextlib.contextmanager
def server(folder: Path, copy: Path, wrapper: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Run it with all that is Jupyter's own in a folder; give its address and its token.

    Parameters
    ----------
    folder : Path
        Empty; the server's log is there when it has ended.
    copy : Path
        Where the notebooks are copied to, those that it does not have.
    wrapper : sequence of str
        A command in front of its own.
    """
    runtime = folder / "runtime"
    places = {
        "JUPYTER_RUNTIME_DIR": runtime,
        "JUPYTER_CONFIG_DIR": folder / "config",
        "JUPYTER_DATA_DIR": folder / "data",
        "JUPYTERLAB_SETTINGS_DIR": folder / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
        "IPYTHONDIR": folder / "ipython",
    }
    for name, text in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    line = [*wrapper, sys.executable, "-m", "feliss_nb.cli", "lab", str(copy), "--no-browser"]
    if os.geteuid() == 0:
        line.append("--allow-root")
    environment = {**os.environ, **{name: str(place) for name, place in places.items()}}
    # In a terminal, where it listens to Ctrl-C.
    master, slave = pty.openpty()
    log = folder / "log"
    with (
        log.open("w") as file,
        subprocess.Popen(line, stdin=slave, stdout=file, stderr=file, env=environment) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            # It is there before it is written.
            while not any(found := [each.read_text() for each in runtime.glob("jpserver-*.json")]):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            about = json.loads(found[0])
            yield about["url"], about["token"]
        finally:
            process.send_signal(signal.SIGINT)
            try:
                status = process.wait(60)
            finally:
                process.kill()
                os.close(master)
                os.close(slave)
    assert status == 0, log.read_text()
    assert list(runtime.glob("jpserver-*")) == []


@contextlib.contextmanager
def chromium(address: str) -> Iterator[Any]:
    """Open a page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        context = browser.new_context(viewport={"width": 1400, "height": 1000})
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(address)
        yield page
        browser.close()


class Notebook:
    """The notebook in the page."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.cells = page.locator(".jp-Notebook .jp-Cell")

    def is_ready(self) -> None:
        """Wait for the notebook, and for its kernel and the page to know of each other."""
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        self.page.wait_for_function(
            """async () => {
                const kernels = await (await fetch("/api/kernels")).json();
                return kernels.length == 1 && kernels[0].connections > 0
                    && kernels[0].execution_state == "idle";
            }"""
        )
        self.page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()

    def run(self, text: str) -> Any:
        """Run the code cell with a text in it; `has_run` waits for it."""
        cell = self.page.locator(".jp-Notebook .jp-CodeCell", has_text=text).first
        cell.locator(".jp-InputArea-editor").click()
        self.page.keyboard.press("Control+Enter")
        return cell

    @staticmethod
    def has_run(cell: Any, number: int) -> None:
        """Wait until a cell has run, as number so and so."""
        cell.locator(".jp-InputPrompt", has_text=f"[{number}]:").wait_for()

    def run_all(self) -> None:
        """Choose the menu's Run All Cells."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def save(notebook: Notebook, path: Path) -> dict[str, Any]:
    """Save it from the page; give what is then on the disk."""
    before = path.stat().st_mtime_ns
    notebook.page.keyboard.press("Control+s")
    deadline = time.monotonic() + 30
    while path.stat().st_mtime_ns == before:
        assert time.monotonic() < deadline, f"{path.name} was not saved"
        notebook.page.wait_for_timeout(100)
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found
