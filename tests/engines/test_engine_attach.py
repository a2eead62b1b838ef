"""Sessions on engines that somebody else started: used, left alive, used again; or refused."""

from __future__ import annotations

import logging
import os
import platform
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import pytest
from engine_processes import is_dead

import feliss_nb as feliss
from feliss_nb import errors
from feliss_nb.runtime.attached import check_probe

PATIENCE = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ipp.Cluster]:
    """Three engines in a profile of the test's own."""
    old = os.environ.get("IPYTHONDIR")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    os.environ["IPYTHONDIR"] = str(folder)
    cluster = ipp.Cluster(
        profile="attached",
        ipython_dir=str(folder),
        cluster_id="feliss-test",
        n=3,
        controller_args=["--HeartMonitor.period=250"],
        log_level=logging.CRITICAL,
    )
    cluster.start_controller_sync()
    cluster.start_engines_sync()
    client = cluster.connect_client_sync()
    client.wait_for_engines(3, timeout=PATIENCE, interactive=False)
    client[:].execute(f"import sys; sys.path.append({str(Path(__file__).parent)!r})", block=True)
    client.close()
    yield cluster
    cluster.stop_cluster_sync()
    if old is None:
        del os.environ["IPYTHONDIR"]
    else:
        os.environ["IPYTHONDIR"] = old
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def client(cluster: ipp.Cluster) -> Iterator[ipp.Client]:
    client = cluster.connect_client_sync()
    yield client
    client.close()


def square(x: int) -> int:
    return x * x


def threads_of_ours() -> tuple[int, list[str], str, int]:
    import threading

    from feliss_nb.runtime.engine import _workers

    names = [t.name for t in threading.enumerate() if t.name.startswith("feliss-")]
    return len(_workers), names, type(sys.stdout).__name__, len(os.listdir("/proc/self/fd"))


def use(session: feliss.Session) -> None:
    assert session.map(square, range(7)).collect() == [x * x for x in range(7)]
    assert dict(session.mapreduce(pairs, sum, ["a b", "b"]).collect()) == {"a": 1, "b": 2}
    assert session.checkpoint(PATIENCE).id == 1
    state = session.variable(lambda rank, size: rank)
    assert state.collect() == list(range(session.size))


def pairs(line: str) -> Any:
    for word in line.split():
        yield word, 1


def test_attach_by_client_twice_leaves_the_engines_as_they_were(
    client: ipp.Client, eventually: Any
) -> None:
    view = client[:]
    pids = view.apply_sync(os.getpid)
    view.execute("mine = 41", block=True)
    before = view.apply_sync(threads_of_ours)
    for _ in range(2):
        with feliss.attach(client=client, workers=2, spares=1) as session:
            directory = session._cluster.directory
            assert directory.is_dir()
            use(session)
        assert not directory.exists()
        assert view.apply_sync(os.getpid) == pids
        assert view.pull("mine", block=True) == [41] * 3
        assert client.ids == [0, 1, 2]

        def as_before() -> bool:
            now = view.apply_sync(threads_of_ours)
            return [each[:3] for each in now] == [each[:3] for each in before]

        eventually(as_before, PATIENCE, "no thread of ours, and the engines' own streams")
    after = view.apply_sync(threads_of_ours)
    for one, other in zip(before, after, strict=True):
        assert other[3] <= one[3] + 6, "descriptors are left open on the engines"


def test_attach_by_profile_and_by_cluster_id(cluster: ipp.Cluster) -> None:
    with feliss.attach(profile="attached", cluster_id="feliss-test") as session:
        assert session.size == 3
        use(session)
    with feliss.attach(profile="attached", cluster_id="feliss-test", workers=1) as session:
        assert session.size == 1
        use(session)


def test_sessions_side_by_side_on_the_same_engines(client: ipp.Client) -> None:
    with (
        feliss.attach(client=client, workers=2) as one,
        feliss.attach(client=client, workers=3) as other,
    ):
        first = one.map(square, range(5))
        second = other.map(square, range(6))
        assert first.collect() == [0, 1, 4, 9, 16]
        assert second.collect() == [0, 1, 4, 9, 16, 25]


def test_refusals_of_the_call(client: ipp.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(errors.UsageError, match="3 engines"):
        feliss.attach(client=client, workers=4)
    with pytest.raises(errors.UsageError, match="too few"):
        feliss.attach(client=client, spares=3)
    with pytest.raises(errors.UsageError, match=r"ipyparallel\.Client"):
        feliss.attach(client="default")
    with pytest.raises(errors.UsageError, match="workers="):
        feliss.attach(client=client, workers=0)
    with pytest.raises(errors.UsageError, match=r"no ipyparallel cluster answers .*absent"):
        feliss.attach(profile="absent")
    with pytest.raises(errors.UsageError, match="no ipyparallel cluster answers"):
        feliss.attach(profile="attached", cluster_id="absent")
    folder.rmdir()  # nothing is left in it


def probe(**changed: Any) -> dict[str, Any]:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "python": list(platform.python_version_tuple()[:2]),
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "pid": os.getpid(),
        "package": True,
        "uid": os.getuid(),
        **changed,
    }


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"python": ["3", "9"]}, "engine 7 runs Python 3.9"),
        ({"host": "elsewhere"}, "on another machine .*elsewhere.*not authenticated"),
        ({"boot": "another"}, "on another machine"),
        ({"package": False}, "engine 7 cannot import feliss_nb: install it"),
        ({"uid": 12345}, "another user"),
    ],
)
def test_engines_that_do_not_fit(changed: dict[str, Any], text: str) -> None:
    check_probe(7, probe())
    with pytest.raises(errors.UsageError, match=text):
        check_probe(7, probe(**changed))


HIDE = """
import sys
class _Hide:
    def find_spec(self, name, path=None, target=None):
        return None
def _hide():
    import importlib.util as util
    real = util.find_spec
    util._real_find_spec = real
    util.find_spec = lambda name, *a: None if name.startswith("feliss_nb") else real(name, *a)
_hide()
"""
SHOW = "import importlib.util as util; util.find_spec = util._real_find_spec"


def test_an_engine_without_the_package_is_refused_and_stays(client: ipp.Client) -> None:
    client[1].execute(HIDE, block=True)
    try:
        with pytest.raises(errors.UsageError, match="engine 1 cannot import feliss_nb"):
            feliss.attach(client=client)
    finally:
        client[1].execute(SHOW, block=True)
    with feliss.attach(client=client) as session:
        use(session)


def test_a_busy_engine_is_named(client: ipp.Client, tmp_path: Path) -> None:
    go = tmp_path / "go"
    busy = client[2].apply_async(wait_for, str(go))
    try:
        with pytest.raises(errors.UsageError, match="engine 2 did not answer"):
            feliss.attach(client=client, timeout=1.0)
    finally:
        go.touch()
        busy.get(timeout=PATIENCE)


def wait_for(path: str) -> None:
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.005)


def test_a_process_that_dies_leaves_attached_engines_clean(
    cluster: ipp.Cluster, client: ipp.Client, launch: Any, eventually: Any
) -> None:
    process = launch(
        """
        import time
        import feliss_nb as feliss

        def main():
            session = feliss.attach(profile="attached", cluster_id="feliss-test")
            print(session._cluster.directory, flush=True)
            session.put(time.sleep, 1000, rank=0)
            session.wait()

        if __name__ == "__main__":
            main()
        """
    )
    directory = process.stdout.readline().strip()
    assert directory, process.stderr.read()
    process.kill()
    process.wait(PATIENCE)
    view = client[:]
    eventually(
        lambda: all(found[0] == 0 for found in view.apply_sync(threads_of_ours)),
        PATIENCE,
        "no worker of ours on the engines",
    )
    eventually(lambda: not os.path.exists(directory), PATIENCE, "the directory")
    with feliss.attach(client=client) as session:
        use(session)


def test_a_lost_engine_is_recovered_and_not_replaced(
    cluster: ipp.Cluster, client: ipp.Client
) -> None:
    """The last test of the module: it costs an engine."""
    with feliss.attach(client=client, workers=2, spares=1) as session:
        state = session.variable(lambda rank, size: rank * 5)
        state.wait(PATIENCE)
        pid = next(engine.pid for engine in session.status().engines if 0 in engine.ranks)
        session.kill(0, wait=True)
        assert is_dead(pid)
        assert state.collect() == [0, 5]
        assert session.epoch == 1
    assert client[[1, 2]].apply_sync(square, 3) == [9, 9]
