"""Dumps of a whole process, to compare checkpoints with.

Each dumper stops the process, writes its memory to a directory of the user's, lets it go on, and
returns when what it wrote is safe on the disk. ``dump_memory`` needs nothing installed: it writes
every writable private mapping, as BLCR did; the others run the tool whose name they bear, where it
is there and can. Pages of zeros are in no figure of bytes: ``dump_memory`` leaves them out, as
``FileStore`` does with larger blocks, and of a tool's files they are not counted. gdb writes them
all the same (those of memory that was never touched, too), and its seconds say so.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feliss_nb.errors import FelissError
from feliss_nb.store import shards
from feliss_nb.store.files import StagedFile, make_private, private

#: Read at once; it stays in the second-level cache while zeros are looked for and it is written.
PIECE = 1 << 20
#: Seconds in which a stopped process has to stop, and a tool to end.
PATIENCE = 10.0
TOOL_PATIENCE = 600.0
_PRESENT = np.uint64(3 << 62)  # in memory, or swapped out


class Dump(NamedTuple):
    """One dump.

    Attributes
    ----------
    seconds : float
        From the request until it is safe on the disk.
    nbytes : int
        What it takes there.
    pause : float
        Seconds in which the process stood still.
    """

    seconds: float
    nbytes: int
    pause: float


class Dumper(NamedTuple):
    """A way to dump a process.

    Attributes
    ----------
    dump : callable
        ``(pid, directory) -> Dump``. The directory should be empty.
    missing : callable
        ``(pid) -> str``: why it cannot dump this process; empty where it can.
    """

    dump: Callable[[int, str], Dump]
    missing: Callable[[int], str]


class DumpFailed(FelissError):
    """A dump could not be made; the process goes on."""


# ------------------------------------------------------------ the process stands still


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process while the block runs, and let it go on whatever happens there.

    Raises
    ------
    DumpFailed
        It does not stop, or is not there, or is stopped already: by whom, and until when?
    """
    if _state(pid) in "Tt":
        raise DumpFailed(f"process {pid} is stopped already")
    try:
        os.kill(pid, signal.SIGSTOP)
    except OSError as error:
        raise DumpFailed(f"process {pid} cannot be stopped: {error.strerror}") from error
    try:
        deadline = time.monotonic() + PATIENCE
        # SIGSTOP stops all threads, each when it gets there.
        while any(state not in "Tt" for state in _thread_states(pid)):
            if time.monotonic() > deadline:
                raise DumpFailed(f"process {pid} did not stop within {PATIENCE:g} s")
            os.sched_yield()
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _state(pid: int, where: str = "") -> str:
    try:
        text = Path(f"/proc/{pid}{where}/stat").read_text("utf-8", "replace")
    except OSError as error:
        raise DumpFailed(f"process {pid} is not there") from error
    # The command's name may hold spaces and brackets; the state follows its last bracket.
    state = text.rpartition(")")[2].split()[0]
    if state in "ZX":
        raise DumpFailed(f"process {pid} has ended")
    return state


def _thread_states(pid: int) -> list[str]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError as error:
        raise DumpFailed(f"process {pid} is not there") from error
    states = []
    for thread in threads:
        with contextlib.suppress(DumpFailed):  # a thread that ended meanwhile
            states.append(_state(pid, f"/task/{thread}"))
    return states


# ------------------------------------------------------------ every writable private mapping


def dump_memory(pid: int, directory: str, bytes_per_second: float = math.inf) -> Dump:
    """Dump all writable private mappings of a process, without what was never touched, or is zero.

    Parameters
    ----------
    pid : int
    directory : str
        Where to.
    bytes_per_second : float
        How fast at most: as through the channel of a ``SlowStore``.

    Notes
    -----

    The file holds the pages that are not zero, one stretch after the other, then a table of
    (address, bytes) of each stretch as 64-bit integers, and last the number of its lines.

    The process goes on as soon as all is written, and the file is synced then; BLCR, which wrote
    from inside the process, held it as long.
    """
    began = time.perf_counter()
    make_private(os.path.abspath(directory))
    with private(directory) as here, StagedFile(here) as file:
        with stopped(pid):
            paused = time.perf_counter()
            try:
                table = _write_mappings(pid, file, bytes_per_second)
            except OSError as error:
                raise DumpFailed(f"process {pid} cannot be read: {error.strerror}") from error
        pause = time.perf_counter() - paused
        file.write([shards.flat(table.data), memoryview(len(table).to_bytes(8, "little"))])
        file.publish(f"memory-{pid}.dump")
        size = file.stored
    return Dump(time.perf_counter() - began, size, pause)


def _write_mappings(pid: int, file: StagedFile, bytes_per_second: float) -> np.ndarray:
    page = os.sysconf("SC_PAGE_SIZE")
    begun = time.monotonic()
    room = memoryview(bytearray(PIECE))
    found: list[tuple[int, int]] = []
    reader = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for start, stop in touched(pid):
            while start < stop:
                want = min(PIECE, stop - start)
                got = os.preadv(reader, [room[:want]], start)
                if not got:  # a stopped process unmaps nothing; its devices may
                    break
                solid = shards.solid(room[:got], page)
                # No holes in the file: what is not there is left out. (All zeros were found.)
                file.write([room[a:b] for a, b in solid], block=PIECE + page)
                found += [(start + a, b - a) for a, b in solid]
                start += got
                ahead = file.stored / bytes_per_second - (time.monotonic() - begun)
                if ahead > 0:
                    time.sleep(ahead)
    finally:
        os.close(reader)
    return np.array(found, np.uint64).reshape(-1, 2)


def mappings(pid: int) -> list[tuple[int, int]]:
    """Address ranges of a process's writable private mappings, the kernel's own left out."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text("utf-8", "replace").splitlines():
        span, rights, _, _, _, *name = line.split(maxsplit=5)
        if rights[1] != "w" or rights[3] != "p":
            continue
        if name and (name[0].startswith("/dev/") or name[0] in ("[vvar]", "[vsyscall]")):
            continue
        start, stop = span.split("-")
        found.append((int(start, 16), int(stop, 16)))
    return found


def touched(pid: int) -> list[tuple[int, int]]:
    """The stretches of ``mappings`` that have ever had a page: in memory now, or swapped out.

    Reading the others would give zeros, and of a thread's stack or an allocator's reserve there
    may be many times the memory of the machine.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    found = []
    try:
        entries = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return mappings(pid)
    try:
        for start, stop in mappings(pid):
            # a million pages at a time: a reserve may be of terabytes
            for first in range(start // page, stop // page, 1 << 20):
                count = min(1 << 20, stop // page - first)
                raw = os.pread(entries, count * 8, first * 8)
                there = (np.frombuffer(raw, np.uint64) & _PRESENT) != 0
                edges = np.flatnonzero(np.diff(there, prepend=False, append=False))
                for a, b in edges.reshape(-1, 2).tolist():
                    found.append(((first + a) * page, (first + b) * page))
    finally:
        os.close(entries)
    return found


def read_dump(path: str) -> Iterator[tuple[int, bytes]]:
    """What ``dump_memory`` wrote, as addresses and the bytes that were there."""
    with open(path, "rb") as file:
        file.seek(-8, os.SEEK_END)
        count = int.from_bytes(file.read(), "little")
        file.seek(-8 - 16 * count, os.SEEK_END)
        table = np.frombuffer(file.read(16 * count), np.uint64).reshape(-1, 2).tolist()
        file.seek(0)
        for address, size in table:
            yield address, file.read(size)


def _no_memory(pid: int) -> str:
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return f"the memory of process {pid} cannot be read: {error.strerror}"
    return ""


# ------------------------------------------------------------ gdb


def dump_gcore(pid: int, directory: str) -> Dump:
    """Have gdb write a core file, with no symbols loaded and nothing else that takes its time."""
    core = os.path.join(os.path.abspath(directory), f"core-{pid}")
    command = [
        "gdb",
        "--nx",
        "--batch",
        "-iex",
        "set auto-load off",
        "-iex",
        "set auto-solib-add off",
    ]
    command += ["-iex", "set debuginfod enabled off", "-p", str(pid), "-ex", f"gcore {core}"]
    # gdb ends with success whether or not it could
    return _with_tool(pid, directory, command, needs=core)


def _no_gcore(pid: int) -> str:
    if not shutil.which("gdb"):
        return "gdb is not on the path"
    return _no_memory(pid)


# ------------------------------------------------------------ CRIU


def dump_criu(pid: int, directory: str) -> Dump:
    """Have CRIU write its images, and leave the process running.

    With open connections kept (``--tcp-established``, ``--ext-unix-sk``), which an engine has.
    """
    images = os.path.abspath(directory)
    command = ["criu", "dump", "-t", str(pid), "-D", images, "--leave-running", "--shell-job"]
    command += ["--tcp-established", "--ext-unix-sk", "--file-locks"]
    return _with_tool(pid, directory, command, needs=os.path.join(images, "inventory.img"))


def _no_criu(pid: int) -> str:
    if not shutil.which("criu"):
        return "criu is not on the path"
    try:
        check = subprocess.run(
            ["criu", "check"], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"criu check: {error}"
    if check.returncode:
        lines = (check.stderr + check.stdout).strip().splitlines()
        return f"criu check: {lines[-1] if lines else 'failed'}"
    return _no_memory(pid)


# ------------------------------------------------------------ DMTCP


def dump_dmtcp(pid: int, directory: str) -> Dump:
    """Have DMTCP write its image of a process that runs under ``dmtcp_launch``.

    A thread of its own inside the process writes, so that it cannot be stopped from outside: the
    pause is the whole time of the command, which returns when the process goes on. The image is
    written where DMTCP was told to at the launch, and linked into ``directory``, which therefore
    has to be on the same file system.
    """
    began = time.perf_counter()
    there = _environment(pid)
    source = there.get("DMTCP_CHECKPOINT_DIR") or os.readlink(f"/proc/{pid}/cwd")
    before = {path: path.stat().st_mtime_ns for path in Path(source).glob("ckpt_*.dmtcp")}
    make_private(os.path.abspath(directory))
    command = ["dmtcp_command", "--bcheckpoint"]
    if "DMTCP_COORD_HOST" in there:
        command += ["--coord-host", there["DMTCP_COORD_HOST"]]
    if "DMTCP_COORD_PORT" in there:
        command += ["--coord-port", there["DMTCP_COORD_PORT"]]
    paused = time.perf_counter()
    _run(pid, command)
    pause = time.perf_counter() - paused
    written = [
        path
        for path in Path(source).glob("ckpt_*.dmtcp")
        if path.stat().st_mtime_ns != before.get(path)
    ]
    if not written:
        raise DumpFailed(f"dmtcp_command wrote no image of process {pid} in {source}")
    for path in written:
        try:
            os.link(path, os.path.join(directory, path.name))
        except OSError as error:
            raise DumpFailed(
                f"{path} cannot be linked into {directory}: {error.strerror}"
            ) from error
    _make_safe(directory)
    seconds = time.perf_counter() - began
    return Dump(seconds, _solid_bytes(directory), pause)


def _no_dmtcp(pid: int) -> str:
    if not shutil.which("dmtcp_command"):
        return "dmtcp_command is not on the path"
    try:
        inside = "libdmtcp" in Path(f"/proc/{pid}/maps").read_text("utf-8", "replace")
    except OSError as error:
        return f"process {pid} cannot be looked at: {error.strerror}"
    return "" if inside else f"process {pid} does not run under dmtcp_launch"


def _environment(pid: int) -> dict[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError as error:
        raise DumpFailed(f"process {pid} is not there") from error
    pairs = (entry.decode("utf-8", "replace").partition("=") for entry in raw.split(b"\0"))
    return {name: value for name, _, value in pairs if name}


# ------------------------------------------------------------ what the tools share


def _with_tool(pid: int, directory: str, command: list[str], needs: str) -> Dump:
    """Stop a process, run a tool on it, let it go on, and bring what was written to the disk."""
    began = time.perf_counter()
    make_private(os.path.abspath(directory))
    with private(directory):
        pass
    with stopped(pid):
        paused = time.perf_counter()
        output = _run(pid, command)
    pause = time.perf_counter() - paused
    if not os.path.exists(needs):
        raise DumpFailed(f"{command[0]} wrote no dump of process {pid}: {output.strip()[-300:]}")
    _make_safe(directory)
    seconds = time.perf_counter() - began
    return Dump(seconds, _solid_bytes(directory), pause)


def _run(pid: int, command: list[str]) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TOOL_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DumpFailed(f"{command[0]} on process {pid}: {error}") from error
    output = done.stdout + done.stderr
    if done.returncode:
        raise DumpFailed(f"{command[0]} could not dump process {pid}: {output.strip()[-300:]}")
    return output


def _make_safe(directory: str) -> None:
    """Sync every file in a directory, and the directory."""
    for fd in _files(directory):
        os.fchmod(fd, 0o600)  # a dump holds everything that the process knew
        os.fsync(fd)
    with private(directory) as here:
        os.fsync(here)


def _solid_bytes(directory: str) -> int:
    """Bytes of the pages in a directory's files that are not zero, whoever wrote the others out."""
    page = os.sysconf("SC_PAGE_SIZE")
    room = memoryview(bytearray(PIECE))
    size = 0
    for fd in _files(directory):
        place, end = 0, os.fstat(fd).st_size
        while place < end:
            try:
                place = os.lseek(fd, place, os.SEEK_DATA) // page * page
            except OSError:  # nothing but a hole from here on
                break
            got = os.preadv(fd, [room], place)
            size += sum(stop - start for start, stop in shards.solid(room[:got], page))
            place += got
    return size


def _files(directory: str) -> Iterator[int]:
    with private(directory) as here:
        for name in os.listdir(here):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            try:
                yield fd
            finally:
                os.close(fd)


#: Every dumper, by name.
DUMPERS: Mapping[str, Dumper] = {
    "memory": Dumper(dump_memory, _no_memory),
    "gcore": Dumper(dump_gcore, _no_gcore),
    "CRIU": Dumper(dump_criu, _no_criu),
    "DMTCP": Dumper(dump_dmtcp, _no_dmtcp),
}


def available(pid: int) -> dict[str, str]:
    """For every dumper why it cannot dump this process; empty where it can."""
    return {name: dumper.missing(pid) for name, dumper in DUMPERS.items()}
