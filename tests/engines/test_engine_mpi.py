"""Engines under mpiexec: losses in the middle of a step, what is left behind, wrong calls."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import numpy as np
import psutil
import pytest
from engine_processes import gone

import feliss_nb as feliss
from feliss_nb import MPI, errors
from feliss_nb.runtime import mpiexec

pytest.importorskip("mpi4py", reason="MPI engines need mpi4py")

PATIENCE = 60.0
SHARES = "sockets: ranks share an engine"


def iterate(comm: Any, vector: Any, k: int, steps: int, gate: str) -> Any:
    """Mix a vector, large and small messages under way; rank 1 halts once in the middle of one."""
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    request = comm.isend(vector[: k + 1], right, tag=k)
    if k == 7 and comm.rank == 1 and gate and not os.path.exists(gate):
        with open(gate, "w"):
            pass
        while True:  # until it is killed; the others sit in calls that wait for it
            time.sleep(0.01)
    total = np.empty_like(vector)
    comm.Allreduce(np.cos(vector + comm.rank), total)
    part = comm.recv(source=left, tag=k)
    request.wait()
    vector = total + part.sum() + comm.allreduce(float(vector[comm.rank]), op=MPI.MAX)
    if k + 1 < steps:
        return comm.then(iterate, vector, k + 1, steps, gate)
    return float(vector.sum()), vector[:20].tobytes()


def calm() -> list[Any]:
    """What the program gives on ordinary engines when nothing happens to them."""
    with feliss.start(workers=3, checkpoint_every=None, engines="local") as session:
        assert session.status().carrier == "sockets"
        return session.spmd(iterate, START, 0, 15, "").partitions()


START = np.linspace(0, 1, 30_000)


@pytest.fixture(scope="module")
def undisturbed() -> list[Any]:
    return calm()


@pytest.mark.parametrize(("spares", "after"), [(1, "MPI"), (0, SHARES)])
def test_a_loss_inside_a_step_shows_in_no_bit(
    undisturbed: list[Any], flags: Any, spares: int, after: str
) -> None:
    """Once onto a spare in the world of the others, once onto an engine with a rank of its own."""
    with feliss.start(
        workers=3, spares=spares, replace=False, checkpoint_every=0.2, engines="mpi"
    ) as session:
        assert session.status().carrier == "MPI"
        out = session.spmd(iterate, START, 0, 15, flags.path("gate"))
        flags.wait("gate")
        session.kill(1, wait=True)
        assert out.partitions() == undisturbed
        assert session.status().carrier == after
        assert session.epoch == 1
        assert out.partitions() == session.spmd(iterate, START, 0, 15, "").partitions()


def test_an_engine_that_came_later_takes_a_rank(undisturbed: list[Any], eventually: Any) -> None:
    """It is in no world: the sockets carry, from the epoch in which it hosts a rank."""
    with feliss.start(workers=3, checkpoint_every=None, engines="mpi") as session:

        def spare() -> bool:
            status = session.status()
            return status.protected and any(e.role == "spare" for e in status.engines)

        session.kill(2, wait=True)
        eventually(spare, PATIENCE, "a replacement")
        session.kill(0, wait=True)
        assert session.status().carrier.startswith("sockets: ")
        assert session.spmd(iterate, START, 0, 15, "").partitions() == undisturbed


def reduce_both_ways(comm: Any, fast: bool) -> Any:
    """Sums in the order of the ranks or in MPI's; the maximum; and what MPI itself has combined."""
    comm.reproducible = not fast
    link = feliss.here()._runner.engine.link
    before = link.reductions
    total, most = np.empty(5000), np.zeros(3, np.int32)
    comm.Allreduce(np.random.default_rng(comm.rank).standard_normal(5000), total)
    comm.Reduce(np.full(3, comm.rank, np.int32), most, op=MPI.MAX, root=1)
    half = comm.Split(comm.rank % 2)  # not the whole gang: in the reproducible order always
    half.reproducible = False
    half.Allreduce(MPI.IN_PLACE, np.ones(2))
    objects = comm.allreduce([comm.rank])
    assert objects == list(range(comm.size))
    return total, most.tolist(), link.reductions - before


def leave_one_out(comm: Any, path: str) -> None:
    """Rank 0 begins a reduction of MPI's that rank 1 does not: it fails."""
    comm.reproducible = False
    once = np.ones(1)
    comm.Allreduce(MPI.IN_PLACE, once)
    if comm.rank == 1:
        while not os.path.exists(path):
            time.sleep(0.005)
        raise KeyError("left out")
    if comm.rank == 0:
        with open(path, "w"):
            pass
    comm.Allreduce(MPI.IN_PLACE, once)


def test_only_who_asks_gets_the_order_of_mpi(flags: Any) -> None:
    with feliss.start(workers=3, checkpoint_every=None, engines="mpi") as session:
        plain = session.spmd(reduce_both_ways, False).partitions()
        fast = session.spmd(reduce_both_ways, True).partitions()
        assert [count for _, _, count in plain] == [0] * 3
        assert [count for _, _, count in fast] == [2] * 3
        for (one, most, _), (other, again, _) in zip(plain, fast, strict=True):
            assert np.allclose(one, other)
            assert one.tobytes() == plain[0][0].tobytes()
            assert most == again
        assert plain[1][1] == [2] * 3
        with pytest.raises(errors.FunctionError, match="left out"):
            session.spmd(leave_one_out, flags.path("begun")).partitions()
        # MPI's collectives are out of step now: the ranks notice, and go without.
        later = session.spmd(reduce_both_ways, True).partitions()
        assert [count for _, _, count in later] == [0] * 3
        assert [total.tobytes() for total, _, _ in later] == [plain[0][0].tobytes()] * 3


# ---------------------------------------------------------------- the end


def ours() -> set[str]:
    """What Open MPI and a session leave in the folders that all programs share."""
    found = set()
    for folder in ("/tmp", "/dev/shm", tempfile.gettempdir()):
        if os.path.isdir(folder):
            names = ("feliss", "ompi", "prte", "pmix", "sm_segment", "vader")
            found |= {f"{folder}/{n}" for n in os.listdir(folder) if n.startswith(names)}
    return found


def family(session: feliss.Session) -> list[psutil.Process]:
    """The controller, mpiexec, and all that descends from them."""
    cluster = session._cluster._cluster
    heads = [cluster.controller.pid, *(launcher.pid for launcher in cluster.engines.values())]
    processes = [psutil.Process(pid) for pid in heads]
    return processes + [c for process in processes for c in process.children(recursive=True)]


def belongs(names: set[str], session: str) -> list[str]:
    """Of the new names, those of a session: other tests and programs make some meanwhile."""
    return [name for name in names if os.path.basename(session) in name]


@pytest.mark.parametrize("how", ["stop", "losses", "stopped engines"])
def test_stop_leaves_nothing(how: str) -> None:
    with feliss.start(workers=2, spares=1, replace=False, engines="mpi") as session:
        directory = str(session._cluster.directory)
        processes = family(session)
        assert sum("prte" in process.name() for process in processes) == 1
        if how == "losses":
            session.kill(0, wait=True)
            session.kill(1, wait=True)
            session.spmd(iterate, START, 0, 3, "").wait(PATIENCE)
        elif how == "stopped engines":
            for engine in session.status().engines:
                os.kill(engine.pid, signal.SIGSTOP)
    assert gone(processes)
    assert belongs(ours(), directory) == []


PROGRAM = """
import json, os, time
import psutil
import feliss_nb as feliss

def main():
    session = feliss.start(workers=2, spares=1, engines="mpi")
    cluster = session._cluster._cluster
    heads = [cluster.controller.pid, *(each.pid for each in cluster.engines.values())]
    pids = heads + [c.pid for pid in heads for c in psutil.Process(pid).children(recursive=True)]
    print(json.dumps([str(session._cluster.directory), pids]), flush=True)
    session.put(time.sleep, 1000, rank=0)
    session.wait()

if __name__ == "__main__":
    main()
"""


def test_a_killed_notebook_leaves_nothing(launch: Any, eventually: Any) -> None:
    import json

    before = ours()
    process = launch(PROGRAM)
    line = process.stdout.readline()
    assert line, process.stderr.read()
    directory, pids = json.loads(line)
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    process.kill()
    process.wait(PATIENCE)
    eventually(lambda: gone(processes), PATIENCE, "engines, nannies, mpiexec and controller")
    eventually(lambda: belongs(ours() - before, directory) == [], PATIENCE, "the folders")


def test_the_loss_of_mpiexec_is_told() -> None:
    """Whatever it takes along, nothing waits for ever, and nothing is left."""
    with feliss.start(workers=2, replace=False, checkpoint_every=None, engines="mpi") as session:
        processes = family(session)
        launcher = next(iter(session._cluster._cluster.engines.values()))
        os.kill(launcher.pid, signal.SIGKILL)
        try:
            assert len(set(session.spmd(iterate, START, 0, 5, "").partitions())) == 1
        except errors.LossError:
            pass
    assert gone(processes)


# ---------------------------------------------------------------- engines started by hand


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch, eventually: Any) -> Iterator[ipp.Client]:
    """A controller, and four engines that mpiexec started: by the lines of the manual."""
    [lines] = examples("sh")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    shared = mpiexec.memory_directory(folder)
    shared.mkdir()
    monkeypatch.setenv("IPYTHONDIR", str(folder))
    # What `mpiexec.arguments` gives: the manual's reader has a machine of his own.
    programs = Path(mpiexec.find_mpiexec()).parent, Path(sys.executable).parent
    settings = {
        "PATH": ":".join([*map(str, programs), os.environ["PATH"]]),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        "PRTE_MCA_prte_tmpdir_base": str(folder),
        "OMPI_MCA_btl_sm_backing_directory": str(shared),
        "OMPI_MCA_mpi_yield_when_idle": "1",
    }
    shell = subprocess.Popen(
        ["sh", "-c", lines],
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        told = folder / "profile_batch" / "security" / "ipcontroller-client.json"
        eventually(told.exists, PATIENCE, "a controller")
        client = ipp.Client(profile="batch", timeout=PATIENCE)
        client.wait_for_engines(4, timeout=PATIENCE, interactive=False)
        here = str(Path(__file__).parent)
        client[:].execute(f"import sys; sys.path.append({here!r})", block=True)
        yield client
        client.close()
    finally:
        engines = psutil.Process(shell.pid).children(recursive=True)
        os.killpg(shell.pid, signal.SIGKILL)
        for process in engines:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shell.wait(PATIENCE)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(shared, ignore_errors=True)


def examples(language: str) -> list[str]:
    """What the manual's section on batch systems has in a language."""
    page = Path(__file__).resolve().parents[2] / "docs" / "mpi.md"
    section = page.read_text("utf-8").split("## Batch systems\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.M | re.S)


def test_attach_to_engines_under_mpiexec(undisturbed: list[Any], by_hand: ipp.Client) -> None:
    [example] = examples("python")
    names: dict[str, Any] = {"feliss_nb": feliss}
    exec(example, names)
    with names["session"] as session:
        assert session.status().carrier == "MPI"
        assert session.spmd(iterate, START, 0, 15, "").partitions() == undisturbed
    with feliss.attach(client=by_hand, workers=3, checkpoint_every=None) as session:
        assert session.status().carrier == "MPI"  # MPI is initialized: the fourth need not help
        assert session.spmd(iterate, START, 0, 15, "").partitions() == undisturbed
    with feliss.attach(client=by_hand, workers=3, spares=1, checkpoint_every=None) as session:
        session.kill(1, wait=True)
        assert session.status().carrier == "MPI"
        assert session.spmd(iterate, START, 0, 15, "").partitions() == undisturbed
    # A world that has lost a rank makes no communicator for a session that comes later.
    with feliss.attach(client=by_hand, workers=3, checkpoint_every=None) as session:
        assert session.status().carrier.startswith("sockets: ")
        assert session.spmd(iterate, START, 0, 15, "").partitions() == undisturbed


# ---------------------------------------------------------------- calls that are wrong


def test_kinds_of_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.UsageError, match="engines= takes 'local' or 'mpi', not 'slurm'"):
        feliss.start(engines="slurm")
    monkeypatch.setenv("FELISS_NB_ENGINES", "MPICH")
    with pytest.raises(errors.UsageError, match=r"FELISS_NB_ENGINES= takes .* not 'MPICH'"):
        feliss.start()
    monkeypatch.setenv("FELISS_NB_ENGINES", "mpi")
    assert mpiexec.check_kind(None) == "mpi"
    assert mpiexec.check_kind("local") == "local"
    monkeypatch.setenv("FELISS_NB_ENGINES", "")
    assert mpiexec.check_kind(None) == "local"


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mpiexec, "find_spec", lambda name: None)
    with pytest.raises(errors.UsageError, match=r"mpi4py: .*pip install 'feliss_nb\[mpi\]'"):
        feliss.start(engines="mpi")
    monkeypatch.setattr(mpiexec, "find_spec", lambda name: name)
    monkeypatch.setattr(mpiexec.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.UsageError, match=r"there is none: .*'feliss_nb\[mpi\]'"):
        feliss.start(engines="mpi")
    other = tmp_path / "mpiexec"
    for says, name in (("HYDRA build details", "another MPI"), ("(Open MPI) 4.1.4", "4.1.4")):
        other.write_text(f"#!/bin/sh\necho 'mpiexec {says}'\n")
        other.chmod(0o755)
        with pytest.raises(errors.UsageError, match=name):
            feliss.start(engines="mpi")
