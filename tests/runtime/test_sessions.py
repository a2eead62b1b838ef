"""What is told of named sessions from outside: from the files that they leave, nothing started."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from feliss_nb import cli
from feliss_nb.runtime import claims
from feliss_nb.runtime.owner import start_time
from feliss_nb.runtime.sessions import can_be_resumed, list_sessions

ME = (os.getpid(), start_time(os.getpid()))
GONE = (os.getpid(), 0.0)  # one that had the number before


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(claims.STATE, str(tmp_path))


def leave(name: str, owner: tuple[int, float], engine: tuple[int, float], **status: Any) -> None:
    """Write what a session of this name has written."""
    directory = claims.directory_of(name)
    directory.mkdir(mode=0o700, parents=True)
    place = {"term": 1, "pid": owner[0], "started": owner[1]}
    (directory / "owner").write_text(json.dumps(place))
    told = {"state": "running", "engines": {"0": engine}, "jobs": ["count", "map f"]}
    claims.write_status(directory, told | {"since": time.time() - 200} | status)


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """What --json gives, by the names of the sessions."""
    assert cli.main(["sessions", "--json"]) == 0
    return {found["session"]: found for found in json.loads(capsys.readouterr().out)["sessions"]}


def test_times_are_numbers_for_programs_and_text_for_people(
    capsys: pytest.CaptureFixture[str],
) -> None:
    leave("up", ME, ME)
    found = listed(capsys)["up"]
    assert 200 <= found["age"] < 2000
    assert (found["state"], found["engines"]) == ("running", 1)
    assert (found["running"], found["last_running"]) == (["count", "map f"], [])
    [row] = list_sessions().rows
    assert row[3:5] == (f"process {os.getpid()}", ("count", "map f"))
    assert " min " in str(row[5])


def test_a_session_that_is_starting_has_no_age_yet(capsys: pytest.CaptureFixture[str]) -> None:
    leave("new", ME, GONE)
    claims.write_status(claims.directory_of("new"), {})
    found = listed(capsys)["new"]
    assert (found["state"], found["age"]) == ("starting", None)


def test_jobs_of_a_master_that_has_ended_are_not_told_as_running(
    capsys: pytest.CaptureFixture[str],
) -> None:
    leave("orphan", GONE, ME)
    found = listed(capsys)["orphan"]
    assert (found["state"], found["owner"]) == ("no master", "gone: resume it")
    assert (found["running"], found["last_running"]) == ([], ["count", "map f"])
    assert "last told: count, map f" in repr(list_sessions())


def test_what_can_be_done_with_a_session_without_engines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave("kept", GONE, GONE, stored=True)
    leave("lost", GONE, GONE)
    assert listed(capsys).keys() == {"kept"}
    # The controller lives.
    monkeypatch.setattr(claims, "alive_processes", lambda directory: [object()])
    found = listed(capsys)
    assert found["kept"]["owner"] == "gone: resume it from its store"
    assert found["lost"]["owner"] == "gone, with all engines: clean removes it"


def test_only_engines_without_a_master_wait_for_another() -> None:
    leave("up", ME, ME)
    leave("left", GONE, ME)
    leave("gone", GONE, GONE)
    assert [can_be_resumed(name) for name in ("up", "left", "gone", "never")] == [
        False,
        True,
        False,
        False,
    ]
