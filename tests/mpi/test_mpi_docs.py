"""docs/mpi.md lists what is left out: as the code has it. This file run as a program writes it."""

from __future__ import annotations

import re
from pathlib import Path

from feliss_nb.models.mpi import NOT_IMPLEMENTED

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mpi.md"
BEGIN, END = "<!-- not implemented: begin -->\n", "<!-- not implemented: end -->\n"


def listed() -> str:
    """For each reason, the names of each class."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for owner, names in NOT_IMPLEMENTED.items():
        for name, reason in names.items():
            reasons.setdefault(reason, {}).setdefault(owner, []).append(name)
    parts = []
    for reason, owners in reasons.items():
        lines = [f"**{reason[0].upper()}{reason[1:]}.**"]
        for owner, names in owners.items():
            prefix = "MPI" if owner == "MPI" else f"MPI.{owner}"
            lines.append(f"{prefix}: " + " ".join(f"`{name}`" for name in sorted(names)))
        parts.append("  \n".join(lines) + "\n")
    return "\n".join(parts)


def split() -> tuple[str, str, str]:
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    inside, after = rest.split(END)
    return before, inside, after


def test_the_page_lists_what_is_missing() -> None:
    assert split()[1] == listed(), f"run python {Path(__file__).name}"


def test_the_page_names_what_there_is() -> None:
    from feliss_nb.notebook.commands import COMMANDS

    text = split()[0]
    assert "engines" in {option.name for option in COMMANDS["start"].options}
    assert set(re.findall(r"FELISS_NB_\w+", text)) == {"FELISS_NB_ENGINES"}


if __name__ == "__main__":
    before, _, after = split()
    PAGE.write_text(before + BEGIN + listed() + END + after, "utf-8")
