"""A person's way through the quick start in a real browser: run it, kill a worker, reload, kill.

It needs Chromium from the system's packages (``apt-get install chromium``) and playwright, which
downloads no browser of its own. Where they are missing it is skipped; where the environment has
``FELISS_NB_BROWSER=required``, as .ci/run sets it, that is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from lab_page import Notebook, chromium, missing, server

from feliss_nb.lab import lessons

#: Lines of the text: of the notebook's 3,000 a slow machine has too few left when the click comes.
LINES = 12_000
#: Pictures are written there for the documentation, if it is set.
PICTURES = os.environ.get("FELISS_NB_PICTURES")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The quick start in JupyterLab, longer than it is."""
    folder, copy = tmp_path / "jupyter", tmp_path / "copy"
    copy.mkdir()
    notebook = nbformat.read(lessons.source() / lessons.FIRST, as_version=4)
    [cell] = [each for each in notebook.cells if "LINES = 3_000" in each.source]
    cell.source = cell.source.replace("LINES = 3_000", f"LINES = {LINES}")
    # A cell that runs until the test lets it end.
    os.mkfifo(tmp_path / "gate")
    notebook.cells.append(nbformat.v4.new_code_cell(f"open({str(tmp_path / 'gate')!r}).read()"))
    nbformat.write(notebook, copy / lessons.FIRST)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(folder / "data"))
    lessons.trust(copy / lessons.FIRST)
    with (
        server(folder, copy) as (url, token),
        chromium(f"{url}lab/tree/{lessons.FIRST}?token={token}") as page,
    ):
        yield page
        picture(page, "quick-start-at-the-end")


def picture(of: Any, name: str) -> None:
    """Write a picture of a page, or of a part of it."""
    if PICTURES:
        of.screenshot(path=Path(PICTURES) / f"{name}.png")


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_click_kills_a_worker_and_the_counts_are_exact(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
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
    # In a second page as well; and while a cell runs.
    other = page.context.new_page()
    other.goto(page.url)
    there = other.locator(".jp-Notebook .feliss-dashboard")
    there.locator(f".feliss-engine-{dead}.feliss-state-dead").wait_for()
    busy = notebook.run("/gate")
    busy.locator(".jp-InputPrompt", has_text="[*]:").wait_for()
    victim = there.locator(".feliss-row.feliss-rank-0")
    second = number_of(victim)
    victim.locator(".feliss-kill").click()
    for seen in (there, dashboard):
        seen.locator(f".feliss-engine-{second}.feliss-state-dead").wait_for()
        seen.locator(f".feliss-rank-0:not(.feliss-engine-{second})").wait_for()
    assert busy.locator(".jp-InputPrompt").inner_text().strip() == "[*]:"
    (tmp_path / "gate").write_text("go on")
    notebook.has_run(busy, 8)
    other.close()
    again = notebook.run("result = dict(counts.collect())")
    notebook.has_run(again, 9)
    compared = notebook.run("result == expected")
    notebook.has_run(compared, 10)
    assert compared.locator(".jp-OutputArea-output").last.inner_text().strip() == "True"


def number_of(row: Any) -> int:
    """The engine of a row."""
    classes = row.get_attribute("class").split()
    [found] = [c for c in classes if c.startswith("feliss-engine-")]
    return int(found.rpartition("-")[2])
