"""``feliss-nb demo``: what it exits with, and what it prints."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys

import pytest

import feliss_nb as feliss
from feliss_nb.lab import demo
from feliss_nb.lab.losses import Recovery

COMMAND = [sys.executable, "-m", "feliss_nb.cli", "demo"]


@pytest.fixture(scope="module")
def shown():
    """What ``feliss-nb demo --json`` printed, on real engines."""
    return subprocess.run(
        [*COMMAND, "--json"], capture_output=True, text=True, timeout=110, check=False
    )


@pytest.fixture
def text():
    return demo.Text(["a.py", "b.py"], 10, 100, {"if": 3, "else": 1}, 0.5)


@pytest.fixture
def done():
    events = [
        feliss.Event("started", 2.0, {"epoch": 0}),
        feliss.Event("kill", 3.0, {"engine": "1", "rank": 1}),
    ]
    checkpoint = feliss.Checkpoint(1, 0, 2_000_000, 0.05, 0.01, 0.0)
    parts = Recovery(0.01, 0.02, 0.03)
    return demo.Run({"if": 3, "else": 1}, events, 2.0, 1.0, checkpoint, parts, 0.5)


@pytest.mark.engines
def test_json_is_one_object_with_the_figures(shown):
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert found["benchmark"] == "demo"
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert figures["results equal"] == {
        "name": "results equal",
        "value": 1,
        "unit": "",
        "target": 1,
        "ok": True,
    }
    for name in (
        "checkpoint, size",
        "checkpoint, time",
        "loss noticed after",
        "snapshots loaded after another",
        "ranks resumed after another",
        "recovery, from SIGKILL to all running",
    ):
        assert figures[name]["value"] >= 0, name


@pytest.mark.engines
def test_the_worker_died_in_the_middle(shown):
    figures = {f["name"]: f["value"] for f in json.loads(shown.stdout)["figures"]}
    # What was mapped before the checkpoint is not mapped again, and there was something left.
    assert 0 < figures["input mapped behind the loss"] < 100


@pytest.mark.engines
def test_ctrl_c_ends_it():
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"Counting" in process.stdout.readline()  # now it starts the engines
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted" in complaint


def test_the_exit_code_tells_whether_the_results_are_equal(monkeypatch, capsys, text, done):
    monkeypatch.setattr(demo.Text, "of_library", classmethod(lambda cls: text))
    monkeypatch.setattr(demo, "run", lambda text: done)
    assert demo.main(json=False) == 0
    assert "equals the count of a single process" in capsys.readouterr().out
    wrong = dataclasses.replace(done, counts={"if": 4, "else": 1})
    monkeypatch.setattr(demo, "run", lambda text: wrong)
    assert demo.main(json=False) == 1
    assert "DIFFERS" in capsys.readouterr().out
    assert demo.main(json=True) == 1
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert figures[0]["name"] == "results equal"
    assert figures[0]["ok"] is False


def test_the_input_is_the_library_and_nothing_else():
    found = demo.Text.of_library()
    assert any(path.endswith("argparse.py") for path in found.paths)
    assert not any("site-packages" in path for path in found.paths)
    assert sum(found.counts.values()) > 100_000
    assert found.seconds >= demo._WORTH


def test_the_map_function_gives_pairs():
    assert list(demo.words(" to be  or to\n")) == [("to", 1), ("be", 1), ("or", 1), ("to", 1)]
