"""Cuts of a real network: a session in a network namespace of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

from feliss_nb import errors
from feliss_nb.runtime import network

PATIENCE = 100.0

#: Cuts what rank 0 sends to rank 1, and what rank 2 sends to the master, under a program.
PROGRAM = """
    import json
    import feliss_nb as feliss
    from feliss_nb import Fault, FaultPlan

    def everybody_to_everybody(comm):
        return comm.alltoall([(comm.rank, other) for other in range(comm.size)])

    def count(session):
        numbers = session.scatter(range(5000))
        return dict(session.mapreduce(lambda n: (n % 7, 1), sum, numbers).collect())

    with feliss.start(workers=3, spares=2, copies=2, checkpoint_every=None) as session:
        session.variable(lambda rank, size: rank * 1000, name="kept").wait()
        session.spmd(everybody_to_everybody).wait()
        want = count(session)
        session.checkpoint()
        plan = FaultPlan([Fault("cut", rank=0, peer=1), Fault("cut", rank=2, peer="master")])
        session.inject(plan).wait(60)
        equal = 0
        while len(session.events.of_kind("engine-lost")) < 2:
            assert count(session) == want
            equal += 1
        assert count(session) == want
        print(json.dumps({
            "kept": session["kept"].collect(),
            "cuts": [event.data["connections"] for event in session.events.of_kind("network-cut")],
            "why": sorted(event.data["why"] for event in session.events.of_kind("fencing")),
        }))
"""


def may_have_a_network() -> bool:
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    rule = "ip link set lo up && ip rule add pref 10 ipproto tcp sport 1 dport 2 blackhole"
    tried = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", rule], check=False, capture_output=True
    )
    return tried.returncode == 0


@pytest.mark.skipif(not may_have_a_network(), reason="this machine gives no network namespace")
def test_engines_that_the_network_cuts_off_are_fenced_and_the_result_is_exact(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    done = subprocess.run(
        [
            *("unshare", "--map-root-user", "--net"),
            *("sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, str(program)),
        ],
        env={**os.environ, "FELISS_NB_SOCKETS": "tcp", network.CUTS: "network"},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["kept"] == [0, 1000, 2000]
    assert found["cuts"] == [1, 1]
    between, silence = found["why"]
    assert between.startswith("it lives, and what engine")
    assert silence.startswith("it says nothing")


def test_a_network_that_leads_elsewhere_is_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.UsageError, match="FELISS_NB_SOCKETS=tcp"):
        network.check("ipc")
    outside = {"lo": mock.Mock(isup=True), "eth0": mock.Mock(isup=True)}
    monkeypatch.setattr(psutil, "net_if_stats", lambda: outside)
    with pytest.raises(errors.UsageError, match="unshare"):
        network.check("tcp")
