"""Cuts of the real network between two processes of a session, for fault plans.

Where a session runs in a network namespace of its own, with its sockets on addresses, a cut is one
of the kernel's: packets of a connection go nowhere, and neither end is told. Everywhere else an
engine loses its messages itself (`misbehaving`).
"""

from __future__ import annotations

import os
import shutil
import subprocess

import psutil

from feliss_nb.errors import UsageError

CUTS = "FELISS_NB_CUTS"

_BEFORE, _LOCAL = 10, 100  # places among the rules for routes


def is_ours() -> bool:
    """Whether the user says that this network is the session's alone."""
    return os.environ.get(CUTS) == "network"


def check(sockets: str) -> None:
    """Raise UsageError unless the network can be cut.

    Parameters
    ----------
    sockets : {"ipc", "tcp"}
        What the session's are.
    """
    if sockets != "tcp":
        raise UsageError(
            f"{CUTS}=network cuts connections between addresses, and the sockets of this session "
            "are files: set FELISS_NB_SOCKETS=tcp too before it starts"
        )
    leads_out = [name for name, state in psutil.net_if_stats().items() if state.isup]
    if leads_out != ["lo"] or shutil.which("ip") is None:
        raise UsageError(
            f"{CUTS}=network is for a network namespace of the session's own, and takes the "
            "command ip: start the program with unshare --map-root-user --net"
        )


def cut(source: int, target: int) -> int:
    """Let all that a process sends to another one by their connections of now get lost, for ever.

    Parameters
    ----------
    source, target : int
        The processes; only what `target` listens for is cut off.

    Returns
    -------
    int
        How many connections there are.
    """
    if not any("lookup local" in line for line in _ip("rule", "list").splitlines()[1:]):
        # What comes first by default, and would find every address of this machine.
        _ip("rule", "add", "pref", str(_LOCAL), "lookup", "local")
        _ip("rule", "del", "pref", "0")
    listens = {
        each.laddr for each in psutil.Process(target).net_connections("tcp") if not each.raddr
    }
    found = [
        each for each in psutil.Process(source).net_connections("tcp") if each.raddr in listens
    ]
    for each in found:
        ends = ("from", each.laddr.ip, "to", each.raddr.ip)
        ports = ("sport", str(each.laddr.port), "dport", str(each.raddr.port))
        _ip("rule", "add", "pref", str(_BEFORE), *ends, "ipproto", "tcp", *ports, "blackhole")
    return len(found)


def _ip(*words: str) -> str:
    try:
        done = subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise UsageError(f"the network cannot be cut: {error.stderr.strip()}") from None
    return done.stdout
