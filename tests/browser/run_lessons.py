"""Run lessons from top to bottom, each in a fresh JupyterLab within a limit of memory.

    python tests/browser/run_lessons.py [--megabytes 1500] [--times 3] [NOTEBOOK ...]

A person's way: *Run All Cells* in the menu, in Chromium, which does not count to the memory. It is
right when every cell has run once and in order, none with an error or a warning, and the server's
end has left no process. A tool, not a test: all of them three times take half an hour.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import within
from lab_page import Notebook, chromium, save, server

from feliss_nb.lab import lessons

LONGEST = 180.0  # seconds


def run(name: str, megabytes: float, keep: Path | None) -> tuple[float, str, list[str]]:
    """Run one lesson; give seconds, what was said of its memory, and what is wrong."""
    wrong: list[str] = []
    seconds = 0.0
    with tempfile.TemporaryDirectory(prefix="feliss-") as place:
        folder = Path(place)
        copy = folder / "copy"
        wrapper = (sys.executable, within.__file__, str(megabytes))
        try:
            with server(folder, copy, wrapper) as (url, token):
                with chromium(f"{url}lab/tree/{name}?token={token}") as page:
                    notebook = Notebook(page)
                    notebook.is_ready()
                    code = page.locator(".jp-Notebook .jp-CodeCell")
                    count = code.count()
                    begun = time.monotonic()
                    notebook.run_all()
                    failed = page.locator("[data-mime-type='application/vnd.jupyter.error']")
                    last = code.nth(count - 1).locator(".jp-InputPrompt")
                    while last.inner_text().strip() != f"[{count}]:":
                        if failed.count() or time.monotonic() - begun > LONGEST:
                            wrong.append(f"the last cell has not run: {last.inner_text()!r}")
                            break
                        page.wait_for_timeout(100)
                    seconds = time.monotonic() - begun
                    found = save(notebook, copy / name)
                wrong += faults(found)
                if keep is not None:
                    shutil.copy(copy / name, keep / name)
        except AssertionError as error:
            wrong.append(str(error))
        said = re.findall(r"peak .*", (folder / "log").read_text())
    return seconds, said[-1] if said else "no peak", wrong


def faults(notebook: dict) -> list[str]:
    """What is wrong with a notebook that was run."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in code]
    wrong = [] if counts == list(range(1, len(code) + 1)) else [f"cells have run as {counts}"]
    for number, cell in enumerate(code, 1):
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                wrong.append(f"[{number}] {output['ename']}: {output['evalue']}")
            elif output.get("name") == "stderr":
                wrong.append(f"[{number}] stderr: {''.join(output['text'])}")
    return wrong


def main() -> int:
    """Run what the command line names; return 0 if all was right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK")
    parser.add_argument("--megabytes", type=float, default=1500.0)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for the notebooks as they were run")
    given = parser.parse_args()
    names = given.notebooks or sorted(path.name for path in lessons.source().glob("*.ipynb"))
    bad = 0
    for number in range(given.times):
        for name in names:
            seconds, memory, wrong = run(Path(name).name, given.megabytes, given.keep)
            bad += bool(wrong)
            outcome = "FAILED " + " | ".join(wrong) if wrong else "ok"
            sys.stdout.write(f"{number + 1} {name}: {seconds:.1f} s, {memory}: {outcome}\n")
            sys.stdout.flush()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
