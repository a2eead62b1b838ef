"""Run a command within a limit of memory: ``python within.py MEGABYTES COMMAND ...``.

The limit holds for the command and all that it starts, orphans too, together: ten times a second
their proportional set sizes (PSS: memory that several share counts once) are added up, and beyond
the limit all of them are killed. A peak of less than a tenth of a second may be missed. It needs no
right but to read one's own /proc, where a control group needs root.

The last line says the peak; what the command leaves running is killed, and a failure.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

PERIOD = 0.1
_PR_SET_CHILD_SUBREAPER = 36


def pss(pid: int) -> int:
    """Bytes of a process, what it shares counted in parts; 0 if it has gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def below() -> list[psutil.Process]:
    """Every process that was started from here."""
    found = psutil.Process().children(recursive=True)
    return [each for each in found if each.status() != psutil.STATUS_ZOMBIE]


def kill(processes: list[psutil.Process]) -> None:
    """End them, and what they start meanwhile."""
    for each in processes:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue


def main(megabytes: float, command: list[str]) -> int:
    """Run a command; return its status, or 1 beyond the limit or if it leaves processes."""
    # Orphans come to us, and stay in the sum; as in many a container, nobody asks how they end.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: process.send_signal(received))
    peak = 0
    over = ""
    while process.poll() is None:
        parts = {}
        for each in psutil.Process().children(recursive=True):
            parts[each.pid] = pss(each.pid)
        total = sum(parts.values())
        peak = max(peak, total)
        if total > megabytes * 1e6:
            sizes = ", ".join(f"{size / 1e6:.0f}" for size in sorted(parts.values(), reverse=True))
            over = f"; KILLED beyond {megabytes:g} MB: {sizes}"
            while left := below():
                kill(left)
                process.poll()
                _reap(process.pid)
            break
        time.sleep(PERIOD)
    status = process.wait()
    # What ends by itself behind its parent has a moment for it.
    deadline = time.monotonic() + 10
    while (left := below()) and time.monotonic() < deadline:
        _reap()
        time.sleep(PERIOD)
    names = [" ".join(each.cmdline()[:6]) for each in left]
    kill(left)
    rest = f"; LEFT RUNNING: {names}" if left else ""
    sys.stderr.write(f"peak {peak / 1e6:.0f} MB of {megabytes:g}{over}{rest}\n")
    return status if not over and not left else 1


def _reap(but: int = -1) -> None:
    """Let orphans that have ended go."""
    for each in psutil.Process().children():
        if each.pid != but:
            try:
                os.waitpid(each.pid, os.WNOHANG)
            except ChildProcessError:
                continue


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
