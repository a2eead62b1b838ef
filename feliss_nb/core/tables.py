"""The transitions of both machines, and their diagrams.

Rules
-----
* A rank runs continuations in ``running`` and ``recording`` only.
* A cut waits in ``cutting`` for the continuation that runs; ``recording`` lasts until the capture
  is taken and every message that was under way at the cut has arrived.
* Before a cut the master lets the ranks agree on how far each gang goes (``preparing``).
* A retired rank belongs to an old epoch: nothing that it does has an effect.
* The master lets no rank run in a new epoch before every rank stands (``recovering``); a loss
  meanwhile extends the recovery.
* An event that is not in the table is a bug: it raises and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from feliss_nb.errors import IllegalTransition

Table = Mapping[str, Mapping[str, str]]

RANK: Table = {
    "loading": {"loaded": "restored", "retire": "retired"},
    "restored": {"resume": "running", "retire": "retired"},
    "running": {"cut asked": "cutting", "retire": "retired"},
    "cutting": {"cut": "recording", "abort": "running", "retire": "retired"},
    "recording": {"sealed": "running", "abort": "running", "retire": "retired"},
    "retired": {},
}

MASTER: Table = {
    "starting": {"stand up": "recovering", "fail": "failed", "stop": "stopped"},
    "running": {
        "checkpoint": "preparing",
        "loss": "recovering",
        "fail": "failed",
        "stop": "stopped",
    },
    "preparing": {
        "agreed": "cutting",
        "loss": "recovering",
        "fail": "failed",
        "stop": "stopped",
    },
    "cutting": {
        "all cut": "recording",
        "abort": "running",
        "fail": "failed",
        "stop": "stopped",
    },
    "recording": {"commit": "running", "abort": "running", "fail": "failed", "stop": "stopped"},
    "recovering": {
        "all restored": "running",
        "loss": "recovering",
        "fail": "failed",
        "stop": "stopped",
    },
    "failed": {"stop": "stopped"},
    "stopped": {},
}


def step(table: Table, state: str, event: str, who: str) -> str:
    """Return the state after `event`; raise IllegalTransition where the table has none."""
    try:
        return table[state][event]
    except KeyError:
        text = f"{who}: event {event!r} is not allowed in state {state!r}"
        raise IllegalTransition(text) from None


def mermaid(table: Table) -> str:
    """Return the state diagram of `table` in Mermaid's words."""
    first = next(iter(table))
    lines = ["stateDiagram-v2", f"    [*] --> {first}"]
    for state, events in table.items():
        lines += [f"    {state} --> {after}: {event}" for event, after in events.items()]
        if not events:
            lines.append(f"    {state} --> [*]")
    return "\n".join(lines)
