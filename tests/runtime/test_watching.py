"""Who looks at a session, and what is written of it."""

from __future__ import annotations

import json
import threading

import pytest

from feliss_nb.errors import UsageError
from feliss_nb.runtime import Checkpoint, EventLog, Status
from feliss_nb.runtime.status import EngineStatus, JobStatus, Pacing, RankStatus, StoreStatus
from feliss_nb.runtime.trace import Recorder, read_trace
from feliss_nb.runtime.watching import Watch

STATUS = Status(
    "s",
    "running",
    1,
    1,
    True,
    (EngineStatus(0, 10, "worker", (0, 1), (2,), 10, 20, 80, 0.25, False, True),),
    (RankStatus(0, 0, "running", 4, "map"), RankStatus(1, None, "lost", 0)),
    (JobStatus(3, "map f", "running", 1, 2, "records"),),
    Checkpoint(3, 1, 100, 0.1, 0.01, 5.0, 60, True),
    1,
    2,
    ("be careful",),
    "MPI",
    StoreStatus("here", 3, 100, 0.5, None, ""),
    Pacing(True, 5.0, 0.1, None, 0.01, 60.0),
    "incremental",
    6.5,
)
PATIENCE = 30.0


class Seen:
    """Counts the looks."""

    def __init__(self) -> None:
        self.looks: list[tuple[list[str], Status | None]] = []
        self.grown = threading.Condition()

    def __call__(self, events, status):
        with self.grown:
            self.looks.append(([event.kind for event in events], status))
            self.grown.notify_all()

    def wait_for(self, test):
        with self.grown:
            assert self.grown.wait_for(lambda: test(self.looks), PATIENCE)


def watches() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "feliss-watch"]


def test_a_watch_sees_every_event_once():
    log, seen = EventLog(), Seen()
    log.add("a")
    log.add("b")
    watch = Watch(log, lambda: STATUS, seen)
    seen.wait_for(lambda looks: len(looks) >= 1)
    log.add("c")
    seen.wait_for(lambda looks: any("c" in kinds for kinds, _ in looks))
    watch.close()
    assert [kind for kinds, _ in seen.looks for kind in kinds] == ["a", "b", "c"]
    assert all(status is STATUS for _, status in seen.looks)
    assert watches() == []


def test_the_last_look_is_at_a_session_that_has_ended():
    log, seen = EventLog(), Seen()
    watch = Watch(log, lambda: STATUS, seen)
    seen.wait_for(lambda looks: len(looks) >= 1)
    log.add("stopped")
    watch.end()
    kinds = [kind for kinds, _ in seen.looks for kind in kinds]
    assert kinds == ["stopped"]
    assert seen.looks[-1][1] is None
    assert watch.is_over
    watch.end()  # a second time is no harm
    assert watches() == []


def test_a_look_may_close_its_watch():
    made: list[Watch] = []
    ready = threading.Event()

    def look(events, status):
        assert ready.wait(PATIENCE)
        made[0].close()

    made.append(Watch(EventLog(), lambda: STATUS, look))
    ready.set()
    made[0]._thread.join(PATIENCE)
    assert watches() == []


def test_a_look_that_fails_ends_its_watch_only():
    def look(events, status):
        raise OSError("the disk is full")

    watch = Watch(EventLog(), lambda: STATUS, look)
    watch._thread.join(PATIENCE)
    assert watch.is_over
    watch.end()
    assert watches() == []


def test_a_trace_comes_back_as_it_was(tmp_path):
    path = tmp_path / "run.jsonl"
    log = EventLog()
    data = {"routes": {0: "0", 1: "2"}, "ranks": (0, 1), "of": {2, 1}, "why": ValueError("no")}
    events = [log.add("recovering", **data), log.add("busy", rank=0)]
    recorder = Recorder(path)
    recorder.look(events, STATUS)
    recorder.look([], STATUS)  # nothing new
    recorder.look([log.add("stopped")], None)
    (first, status), (last, ended) = read_trace(path)
    assert status == STATUS
    assert [event.kind for event in first] == ["recovering", "busy"]
    assert first[0].data == {
        "routes": {0: "0", 1: "2"},
        "ranks": [0, 1],
        "of": [1, 2],
        "why": "no",
    }
    assert first[1].at == pytest.approx(events[1].at, abs=1e-3)
    assert ([event.kind for event in last], ended) == (["stopped"], None)


def test_only_the_clock_has_moved_is_nothing_new(tmp_path):
    from dataclasses import replace

    recorder = Recorder(tmp_path / "run.jsonl")
    recorder.look([], STATUS)
    later = replace(STATUS.engines[0], beat=0.5, memory=81)
    recorder.look([], replace(STATUS, at=7.0, engines=(later,)))
    recorder.close()
    assert len((tmp_path / "run.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no trace"),
        ("{}\n", "no trace of this version"),
        ('{"format":"feliss-trace 1"}\nnonsense\n', "line 2"),
        ('{"format":"feliss-trace 1"}\n{"status":{"session":"s"}}\n', "no trace"),
        ("\udcff", "cannot|no trace"),
    ],
)
def test_what_is_no_trace(tmp_path, text, says):
    path = tmp_path / "run.jsonl"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=says):
        read_trace(path)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match="no trace can be read"):
        read_trace(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match="no trace can be written"):
        Recorder(tmp_path / "none" / "run.jsonl")


def test_a_trace_is_lines_of_json(tmp_path):
    path = tmp_path / "run.jsonl"
    with Recorder(path) as recorder:
        recorder.look([EventLog().add("busy", rank=0)], STATUS)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [next(iter(line)) for line in lines] == ["format", "event", "status"]
