"""Cells run in a real kernel."""

from __future__ import annotations

from typing import Any


def run_cell(client: Any, cell: str, patience: float = 60.0) -> str:
    """Run a cell; return what it printed. An error is one of the test's."""
    printed: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        content = message["content"]
        printed.append(content.get("text", "") or "\n".join(content.get("traceback", ())))

    reply = client.execute_interactive(cell, timeout=patience, output_hook=hear)
    assert reply["content"]["status"] == "ok", "".join(printed)
    return "".join(printed)
