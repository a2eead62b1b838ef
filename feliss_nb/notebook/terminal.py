"""The commands of a terminal that look after named sessions, of whatever process."""

from __future__ import annotations

import json as json_format

from feliss_nb.runtime import sessions as named


def sessions(json: bool) -> int:
    """List the named sessions of which something is alive, or that can go on."""
    if json:
        print(json_format.dumps({"sessions": named.look()}))
    else:
        print(named.list_sessions())
    return 0


def kill(json: bool, name: str, rank: int) -> int:
    """Kill the engine that hosts a rank of a named session."""
    pid = named.kill_rank(name, rank)
    if json:
        print(json_format.dumps({"session": name, "rank": rank, "killed": pid}))
    else:
        print(f"killed the engine of rank {rank} of session {name} (process {pid})")
    return 0


def stop(json: bool, name: str) -> int:
    """End a named session whose process is gone."""
    named.end(name)
    if json:
        print(json_format.dumps({"stopped": name}))
    else:
        print(f"session {name} is stopped")
    return 0


def clean(json: bool) -> int:
    """Remove what ended sessions have left behind."""
    removed = named.clean()
    if json:
        print(json_format.dumps({"removed": removed}))
    else:
        print("\n".join([f"removed {what}" for what in removed] or ["there is nothing to remove"]))
    return 0
