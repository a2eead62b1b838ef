"""The examples of docs/algorithms.md run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs" / "algorithms.md"


def test_the_examples(script: Any) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCS.read_text("utf-8"), re.M | re.S)
    assert len(blocks) == 6
    printed = script("\n".join(blocks[:5])).stdout.splitlines()
    assert 0 < float(printed[0]) < 10
    assert float(printed[2]) < 1e-10
    assert 0 < float(printed[3]) < 100
    assert "'socketserver.py'" in printed[4]
