"""Dumps of another process: they hold its memory, and leave it running."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from feliss_nb.errors import UsageError
from feliss_nb.lab import dumps

PROGRAM = """
import ctypes, mmap, sys
secret = bytearray(bytes(range(256)) * 40960)   # 10 MiB, no page of zeros
zeros = bytearray(b"x") * (64 << 20)
ctypes.memset((ctypes.c_char * len(zeros)).from_buffer(zeros), 0, len(zeros))  # touched, zero
if "reserve" in sys.argv:  # 0x4000: MAP_NORESERVE
    reserve = mmap.mmap(-1, 1 << 36, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
address = ctypes.addressof((ctypes.c_char * len(secret)).from_buffer(secret))
print(address, flush=True)
for line in sys.stdin:
    print("alive", flush=True)
"""
MB = 1 << 20


@pytest.fixture
def target(request):
    command = [sys.executable, "-c", PROGRAM, getattr(request, "param", "")]
    process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True)
    try:
        process.address = int(process.stdout.readline())
        yield process
    finally:
        process.kill()
        process.communicate()


def is_alive(process) -> bool:
    process.stdin.write("?\n")
    process.stdin.flush()
    return process.stdout.readline() == "alive\n"


def tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport os, sys\n{script}\n")
    path.chmod(0o700)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A folder that comes first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


# gdb 13 writes the zeros of such a reserve out: 64 GiB
@pytest.mark.parametrize("target", ["reserve"], indirect=True)
def test_memory_has_every_byte_and_no_zeros(target, tmp_path):
    assert dumps.available(target.pid)["memory"] == ""
    dump = dumps.dump_memory(target.pid, str(tmp_path / "d"))
    assert is_alive(target)
    [path] = (tmp_path / "d").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert dump.nbytes == path.stat().st_size
    assert 10 * MB < dump.nbytes < 50 * MB  # neither the zeros nor the reserve
    assert 0 < dump.pause < dump.seconds
    found = bytearray(10 * MB)
    for address, content in dumps.read_dump(str(path)):
        assert content.strip(b"\0")
        start = address - target.address
        a, b = max(start, 0), min(start + len(content), len(found))
        if a < b:
            found[a:b] = content[a - start : b - start]
    assert found == bytes(range(256)) * 40960


def test_gcore(target, tmp_path):
    reason = dumps.available(target.pid)["gcore"]
    if reason:
        pytest.skip(reason)
    dump = dumps.dump_gcore(target.pid, str(tmp_path / "d"))
    assert is_alive(target)
    [path] = (tmp_path / "d").iterdir()
    assert bytes(range(256)) * 4096 in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert 10 * MB < dump.nbytes <= path.stat().st_blocks * 512 - 64 * MB  # gdb wrote the zeros
    assert 0 < dump.pause < dump.seconds


def test_a_tool_that_fails_leaves_the_process_running(target, tmp_path, tools):
    tool(tools, "gdb", "print('no permission'); sys.exit(0)")
    with pytest.raises(dumps.DumpFailed, match="no permission"):
        dumps.dump_gcore(target.pid, str(tmp_path / "d"))
    assert is_alive(target)
    tool(tools, "gdb", "print('broken'); sys.exit(3)")
    with pytest.raises(dumps.DumpFailed, match="broken"):
        dumps.dump_gcore(target.pid, str(tmp_path / "d"))
    assert is_alive(target)


def test_criu_is_run_on_a_stopped_process(target, tmp_path, tools):
    tool(
        tools,
        "criu",
        """
if sys.argv[1] == "check":
    sys.exit(0)
pid = sys.argv[sys.argv.index("-t") + 1]
state = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
folder = sys.argv[sys.argv.index("-D") + 1]
with open(os.path.join(folder, "inventory.img"), "w") as file:
    file.write(state)
    file.truncate(1 << 30)
""",
    )
    assert dumps.available(target.pid)["CRIU"] == ""
    dump = dumps.dump_criu(target.pid, str(tmp_path / "d"))
    assert is_alive(target)
    with open(tmp_path / "d" / "inventory.img") as file:
        assert file.read(1) == "T"
    assert dump.nbytes < MB  # the rest is a hole
    tool(tools, "criu", "print('Error: kernel too new', file=sys.stderr); sys.exit(1)")
    assert dumps.available(target.pid)["CRIU"] == "criu check: Error: kernel too new"


def test_dmtcp_needs_a_process_that_it_launched(target, tools):
    tool(tools, "dmtcp_command", "sys.exit(0)")
    assert "dmtcp_launch" in dumps.available(target.pid)["DMTCP"]


def test_what_is_not_on_the_path_is_said(target, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    reasons = dumps.available(target.pid)
    assert "not on the path" in reasons["gcore"]
    assert "not on the path" in reasons["CRIU"]
    assert "not on the path" in reasons["DMTCP"]


def test_a_process_that_has_ended(target, tmp_path):
    target.kill()
    target.wait()
    with pytest.raises(dumps.DumpFailed, match="not there"):
        dumps.dump_memory(target.pid, str(tmp_path / "d"))
    assert list((tmp_path / "d").iterdir()) == []
    assert dumps.available(target.pid)["memory"]


def test_a_directory_that_others_can_write_gets_no_dump(target, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0o777)
    with pytest.raises(UsageError, match="others can write"):
        dumps.dump_memory(target.pid, str(tmp_path / "d"))
    assert is_alive(target)


def test_a_process_that_cannot_be_read_goes_on(target, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(dumps, "touched", refuse)
    with pytest.raises(dumps.DumpFailed, match="cannot be read"):
        dumps.dump_memory(target.pid, str(tmp_path / "d"))
    assert is_alive(target)
    assert list((tmp_path / "d").iterdir()) == []
