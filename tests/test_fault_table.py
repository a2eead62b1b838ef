"""The table of docs/faults.md: each row names its tests, and these are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from feliss_nb.faults import KINDS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "faults.md").read_text("utf-8")
#: Where the tests of the last two columns are, where no file is named.
FILES = ("tests/engines/test_engine_faults.py", "tests/lab/test_lab_fault_plans.py")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.split("\n## The table\n")[1].split("\n## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| fault")
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_row_names_tests_that_there_are(row):
    assert len(row) == 5
    for cell, usual in zip(row[3:], FILES, strict=True):
        names = re.findall(r"`(test_\w+)`(?: in `(tests/[\w/]+\.py)`)?", cell)
        assert names or (cell == "there is no store" and usual == FILES[1])
        for name, file in names:
            assert f"def {name}(" in (ROOT / (file or usual)).read_text("utf-8")


def test_every_kind_has_a_row():
    told = " ".join(row[0] for row in ROWS)
    assert [kind for kind in KINDS if f"`{kind}`" not in told] == []
