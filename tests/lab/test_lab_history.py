"""Events become spans, marks, recoveries and stories."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import pytest
from history_events import AFTER, LOSS, RUN, START, WORK, event

from feliss_nb.errors import UsageError
from feliss_nb.lab import gantt, history
from feliss_nb.lab.explain import explain
from feliss_nb.lab.history import History, Span


def of(spans: list[Span], row: int) -> list[tuple[str, float, float, str]]:
    found = [(s.kind, s.begin, s.end, s.engine) for s in spans if s.row == row]
    return sorted(found, key=lambda each: each[1])


def test_spans_of_a_rank_that_moves():
    assert of(History(RUN).spans(), 1) == [
        ("loading", 1.0, 1.2, "1"),
        ("idle", 1.2, 2.1, "1"),
        ("running", 2.1, 5.02, "1"),
        ("loading", 5.02, 5.12, "2"),
        ("idle", 5.12, 5.2, "2"),
        ("running", 5.2, 8.0, "2"),
        ("idle", 8.0, 8.0, "2"),
    ]


@pytest.mark.parametrize("cut", range(len(RUN)))
def test_spans_have_no_gaps_whenever_one_looks(cut):
    seen = History(RUN[: cut + 1])
    seen.look(20.0)
    for rank in seen.ranks:
        spans = of(seen.spans(), rank)
        assert all(one[2] == other[1] for one, other in itertools.pairwise(spans))
        assert spans[-1][2] == 20.0


def test_events_one_by_one_are_events_at_once():
    one_by_one = History()
    for each in RUN:
        one_by_one.add([each])
    at_once = History(RUN)
    assert one_by_one.spans() == at_once.spans()
    assert one_by_one.marks == at_once.marks
    assert one_by_one.jobs == at_once.jobs


def test_captures_and_commits():
    seen = History([*START, *WORK])
    assert of(seen.captures(), 1) == [("capturing", 3.1, 3.3, "1"), ("sending", 3.3, 3.4, "1")]
    [commit] = seen.commits
    assert (commit.checkpoint, commit.begun, commit.at) == (1, 3.0, 3.4)
    assert (commit.bytes, commit.written, commit.pause) == (2_000_000, 500_000, 0.004)
    under_way = History([*START, *WORK[:-2]])
    assert [under_way.capturing(rank) for rank in (0, 1)] == ["sending", "capturing"]


def test_a_loss_ends_the_captures():
    seen = History([*START, *WORK[:-2], *LOSS])
    assert [seen.capturing(rank) for rank in (0, 1)] == ["", ""]
    assert seen.commits == []


def test_the_parts_of_a_recovery():
    [recovery] = History(RUN).recoveries
    assert recovery.number == 1
    assert recovery.detection == pytest.approx(0.02)
    assert recovery.load == pytest.approx(0.08)
    assert recovery.resume == pytest.approx(0.02)
    assert (recovery.checkpoint, recovery.taken, recovery.epoch) == (1, 3.4, 1)
    assert (recovery.spares, recovery.read_from) == ({"2"}, {1: "0"})
    assert (recovery.protected, recovery.joined) == (5.5, [(7.0, "3")])


def test_a_loss_during_a_recovery_extends_it():
    second = [
        event("engine-lost", 5.06, engine="0", ranks=(0,), why="its process ended"),
        event("recovering", 5.06, epoch=1, checkpoint=1, routes={0: "2", 1: "2"}, read_from={}),
        event("loaded", 5.2, engine="2", rank=0, epoch=1),
        event("loaded", 5.2, engine="2", rank=1, epoch=1),
        event("recovered", 5.3, epoch=1, checkpoint=1),
    ]
    seen = History([*START, *WORK, *LOSS[:3], *second])
    [recovery] = seen.recoveries
    assert [loss.engine for loss in recovery.losses] == ["1", "0"]
    assert recovery.ended == 5.3
    text = " ".join(repr(explain(seen)).split())
    assert "While it recovered, at 5.06 s, engine 0, which hosted rank 0, was lost too" in text
    assert "Engine 2, a spare, took ranks 0 and 1 over" in text


def test_a_lost_spare_is_no_recovery():
    lost = event("engine-lost", 4.0, engine="2", ranks=(), why="its process ended")
    seen = History([*START, lost])
    assert seen.recoveries == []
    assert [mark.kind for mark in seen.marks] == ["loss"]


def test_a_job_that_a_replay_ends_again_has_ended_once():
    again = event("job-done", 9.0, job=0, label="map tokenize")
    [job] = History([*RUN, again]).jobs
    assert (job.kind, job.begin, job.end, job.label) == ("done", 2.0, 8.0, "map tokenize")


def test_what_is_long_ago_is_forgotten(monkeypatch):
    monkeypatch.setattr(history, "KEPT", 10)
    flicker = [
        event(kind, 10.0 + step + part, rank=0, epoch=1)
        for step in range(100)
        for kind, part in (("busy", 0.0), ("idle", 0.5))
    ]
    seen = History(RUN)
    seen.add(flicker)
    assert len(seen.spans()) <= 2 * 10 + 2
    assert of(seen.spans(), 0)[-1][:2] == ("idle", 109.5)


def test_since():
    seen = History(RUN)
    assert [s for s in seen.spans() if s.end >= 5.1] == seen.spans(5.1)


# Pictures


def test_runs_are_one_column_at_least_and_the_worst_wins():
    spans = [
        Span(0, "idle", 0.0, 10.0),
        Span(0, "running", 2.0, 2.0001),
        Span(0, "lost", 2.0, 2.0001),
        Span(0, "loading", 9.0, 30.0),
        Span(7, "idle", 0.0, 1.0),  # of no row
    ]
    found = gantt.runs(spans, [0], 0.0, 10.0, 10)
    assert [(run.kind, run.begin, run.end) for run in found] == [
        ("idle", 0, 2),
        ("lost", 2, 3),
        ("idle", 3, 9),
        ("loading", 9, 10),
    ]


def test_however_many_spans_the_picture_stays_small():
    spans = [Span(0, ("idle", "running")[n % 2], n / 1e4, (n + 1) / 1e4) for n in range(100_000)]
    assert len(gantt.runs(spans, [0], 0.0, 10.0, 800)) <= 800


def test_jobs_lie_beside_each_other():
    jobs = [Span(n, "done", float(n), n + 2.5) for n in range(6)]
    lanes = gantt.job_lanes(jobs, 0.0, 10.0)
    for lane in {lane for lane, _ in lanes}:
        mine = [span for its, span in lanes if its == lane]
        assert all(one.end <= other.begin for one, other in itertools.pairwise(mine))


@pytest.mark.parametrize("end", [0.0, 5.05, 100.0])
def test_the_svg_is_xml_and_says_what_happened(end):
    seen = History(RUN)
    seen.look(end)
    text = gantt.svg(seen, seen.begun or 0.0, seen.now)
    root = ET.fromstring(text)
    words = " ".join(node.text or "" for node in root.iter())
    for word in ("rank 1", "checkpoint 1", "epoch 1", "engine 1 is lost", "map tokenize"):
        assert word in words


def test_the_svg_of_nothing():
    ET.fromstring(gantt.svg(History(), 0.0, 0.0))
    assert "no checkpoint yet" in gantt.sizes_svg([])


def test_labels_are_escaped():
    bad = event("job-submitted", 2.0, job=1, label="<script>alert(1)</script>&", internal=False)
    seen = History([*START, bad])
    seen.look(60.0)
    text = gantt.svg(seen, 1.2, 60.0)
    assert "<script>" not in text
    ET.fromstring(text)


def test_the_sizes_of_checkpoints():
    root = ET.fromstring(gantt.sizes_svg(History(RUN).commits))
    titles = [node.text for node in root.iter() if node.tag.endswith("title")]
    assert titles == ["checkpoint 1: 2.0 MB, 500 kB written, paused 4 ms"]


# Stories


def test_the_story_of_a_kill():
    assert repr(explain(History(RUN))) == (
        "At 5.00 s engine 1, which hosted rank 1, was killed: a SIGKILL, which no process\n"
        "can catch. 20 ms later the session took it for lost; its memory is gone.\n"
        "\n"
        "A rank alone cannot go back, since the others know its messages: every rank went\n"
        "back to checkpoint 1, which had been committed 1.6 s before. What they did since\n"
        "then was done again, each message and submission once.\n"
        "\n"
        "Engine 2, a spare, took rank 1 over and read the snapshot from engine 0, which\n"
        "kept a copy. The other ranks stayed where they were, and read their own.\n"
        "\n"
        "120 ms after the loss every rank ran again, in epoch 1: 20 ms to notice, 80 ms\n"
        "to stand up from snapshots, 20 ms to resume. Messages of the old epoch are\n"
        "dropped wherever they come late. 380 ms later every snapshot had its copies\n"
        "again. Engine 3 joined 2.0 s after the loss, as a spare."
    )


def test_the_story_without_a_checkpoint_and_without_an_end():
    lost = event("engine-lost", 5.02, engine="1", ranks=(1,), why="its process ended")
    back = event(
        "recovering", 5.02, epoch=1, checkpoint=0, routes={0: "0", 1: "2"}, read_from={1: "0"}
    )
    text = " ".join(repr(explain(History([*START, lost, back]))).split())
    assert "noticed that engine 1 was gone (its process ended)" in text
    assert "went back to the start of the session, where every pool was empty" in text
    assert text.endswith("It has not ended yet.")


def test_which_story():
    fence = event("fencing", 10.0, engine="2", why="the hub misses its beats")
    lost = event("engine-lost", 10.1, engine="2", ranks=(1,), why="its process ended")
    seen = History([*RUN, fence, lost])
    assert explain(seen, "1").recovery.number == 1
    assert explain(seen, "LAST").recovery.number == 2
    assert "was suspected (the hub misses its beats)" in explain(seen).paragraphs[0]
    with pytest.raises(UsageError, match="there is no recovery 3: there were 2"):
        explain(seen, "3")
    with pytest.raises(UsageError, match="not 'first'"):
        explain(seen, "first")
    with pytest.raises(UsageError, match="no rank has been lost"):
        explain(History([*START, *WORK, *AFTER]))


def test_a_story_in_html_is_escaped():
    lost = event("engine-lost", 5.0, engine="1", ranks=(1,), why="<b>")
    assert "&lt;b&gt;" in explain(History([*START, lost]))._repr_html_()
