"""A person's way through the quick start in a real browser: run it, kill a worker, reload, kill.

It needs Chromium from the system's packages (``apt-get install chromium``) and playwright, which
downloads no browser of its own. Where they are missing it is skipped; where the environment has
``FELISS_NB_BROWSER=required``, as .ci/run sets it, that is a failure.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feliss_nb.lab import lessons

PATIENCE = 90_000  # milliseconds, for whatever takes engines
#: Lines of the text: of the notebook's 3,000 a slow machine has too few left when the click comes.
LINES = 12_000
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
#: Pictures are written there for the documentation, if it is set.
PICTURES = os.environ.get("FELISS_NB_PICTURES")


def missing() -> str:
    """What the test lacks, or nothing."""
    if shutil.which("chromium") is None:
        return "chromium is not installed: apt-get install chromium"
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install 'feliss_nb[test]'"
    return ""


@pytest.fixture
def server(tmp_path: Path, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """``feliss-nb lab`` on a copy of the notebooks; gives its address."""
    runtime = tmp_path / "runtime"
    for name, place in {
        "JUPYTER_RUNTIME_DIR": runtime,
        "JUPYTER_CONFIG_DIR": tmp_path / "config",
        "JUPYTER_DATA_DIR": tmp_path / "data",
        "JUPYTERLAB_SETTINGS_DIR": tmp_path / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": tmp_path / "workspaces",
        "IPYTHONDIR": tmp_path / "ipython",
    }.items():
        monkeypatch.setenv(name, str(place))
    copy = tmp_path / "copy"
    lessons.copy(lessons.source(), copy)
    lengthen(copy / lessons.FIRST)
    settings = tmp_path / "settings" / "@jupyterlab"
    for name, text in {
        # every cell is in the page, wherever it is scrolled to
        "notebook-extension/tracker": '{"windowingMode": "none"}',
        "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    }.items():
        file = settings / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    line = [sys.executable, "-m", "feliss_nb.cli", "lab", str(copy), "--no-browser"]
    if os.geteuid() == 0:
        line.append("--allow-root")
    # In a terminal, where it listens to Ctrl-C.
    master, slave = pty.openpty()
    with (
        open(tmp_path / "log", "w") as log,
        subprocess.Popen(line, stdin=slave, stdout=log, stderr=log) as process,
    ):
        try:
            eventually(
                lambda: list(runtime.glob("jpserver-*.json")) or process.poll() is not None,
                timeout=60,
            )
            assert process.poll() is None, (tmp_path / "log").read_text()
            [found] = runtime.glob("jpserver-*.json")
            about = json.loads(found.read_text())
            yield f"{about['url']}lab/tree/{lessons.FIRST}?token={about['token']}"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0, (tmp_path / "log").read_text()
            assert list(runtime.glob("jpserver-*")) == []
        finally:
            process.kill()
            os.close(master)
            os.close(slave)


def lengthen(path: Path) -> None:
    """Give the reader time to click."""
    notebook = json.loads(path.read_text("utf-8"))
    text = json.dumps(notebook)
    assert text.count("LINES = 3_000") == 1
    path.write_text(text.replace("LINES = 3_000", f"LINES = {LINES}"))
    lessons.trust(path)


@pytest.fixture
def page(server: str) -> Iterator[Any]:
    """The quick start in JupyterLab, its kernel ready."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.goto(server)
        yield page
        picture(page, "quick-start-at-the-end")
        browser.close()


def picture(of: Any, name: str) -> None:
    """Write a picture of a page, or of a part of it."""
    if PICTURES:
        of.screenshot(path=Path(PICTURES) / f"{name}.png")


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

    def run(self, text: str, number: int | None = None) -> Any:
        """Run the code cell with a text in it; wait until it has run, as number so and so."""
        cell = self.page.locator(".jp-Notebook .jp-CodeCell", has_text=text).first
        cell.locator(".jp-InputArea-editor").click()
        self.page.keyboard.press("Control+Enter")
        return cell

    @staticmethod
    def has_run(cell: Any, number: int) -> None:
        cell.locator(".jp-InputPrompt", has_text=f"[{number}]:").wait_for()


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_click_kills_a_worker_and_the_counts_are_exact(request: pytest.FixtureRequest) -> None:
    lack = missing()
    if lack and os.environ.get("FELISS_NB_BROWSER") == "required":
        pytest.fail(lack)
    if lack:
        pytest.skip(lack)
    page = request.getfixturevalue("page")
    notebook = Notebook(page)
    notebook.is_ready()
    for number, text in enumerate(
        ["%load_ext feliss_nb", "corpus = make_text", "def words", "%feliss reduce"], 1
    ):
        notebook.has_run(notebook.run(text), number)
    shown = notebook.run("%feliss dashboard")
    notebook.has_run(shown, 5)

    # The job runs: two workers and a spare.
    dashboard = shown.locator(".feliss-dashboard")
    row = dashboard.locator(".feliss-row")
    victim = dashboard.locator(".feliss-row.feliss-rank-1")
    dashboard.locator(".feliss-row.feliss-state-spare").wait_for()
    victim.wait_for()
    assert row.count() == 3
    dead = number_of(victim)
    dashboard.locator(".feliss-checkpoint").click()
    dashboard.locator(".feliss-log", has_text="is committed").wait_for()

    # A click; the row dies, the spare takes rank 1 over, and one more spare comes.
    victim.locator(".feliss-kill").click()
    dashboard.locator(f".feliss-engine-{dead}.feliss-state-dead").wait_for()
    dashboard.locator(f".feliss-rank-1:not(.feliss-engine-{dead})").wait_for()
    dashboard.locator(".feliss-row.feliss-state-spare").wait_for()
    picture(page, "quick-start")
    picture(dashboard, "dashboard")

    result = notebook.run("result = dict(counts.collect())")
    notebook.has_run(result, 6)
    compared = notebook.run("result == expected")
    notebook.has_run(compared, 7)
    assert compared.locator(".jp-OutputArea-output").last.inner_text().strip() == "True"

    # After a reload the same dashboard is there, live, and its buttons work.
    page.keyboard.press("Control+s")
    page.locator(".jp-NotebookPanel-toolbar").first.wait_for()
    page.reload()
    notebook.is_ready()
    dashboard = page.locator(".jp-Notebook .feliss-dashboard")
    dashboard.locator(f".feliss-engine-{dead}.feliss-state-dead").wait_for()
    victim = dashboard.locator(".feliss-row.feliss-rank-0")
    second = number_of(victim)
    victim.locator(".feliss-kill").click()
    dashboard.locator(f".feliss-engine-{second}.feliss-state-dead").wait_for()
    dashboard.locator(f".feliss-rank-0:not(.feliss-engine-{second})").wait_for()
    again = notebook.run("result = dict(counts.collect())")
    notebook.has_run(again, 8)
    compared = notebook.run("result == expected")
    notebook.has_run(compared, 9)
    assert compared.locator(".jp-OutputArea-output").last.inner_text().strip() == "True"


def number_of(row: Any) -> int:
    """The engine of a row."""
    classes = row.get_attribute("class").split()
    [found] = [c for c in classes if c.startswith("feliss-engine-")]
    return int(found.rpartition("-")[2])
