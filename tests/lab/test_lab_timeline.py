"""A session's events as lines that a person reads."""

from __future__ import annotations

from feliss_nb import Event
from feliss_nb.lab.timeline import WIDTH, timeline

STORY = [
    Event("started", 3.0, {"epoch": 0, "checkpoint": 0}),
    Event("job-submitted", 3.1, {"job": 0, "label": "map words", "internal": False}),
    Event("mapped", 3.2, {"rank": 0, "job": 0, "records": 100, "epoch": 0}),
    Event("mapped", 3.25, {"rank": 1, "job": 0, "records": 100, "epoch": 0}),
    Event("cut", 3.28, {"engine": "0", "rank": 0, "epoch": 0}),
    Event("mapped", 3.29, {"rank": 1, "job": 0, "records": 50, "epoch": 0}),
    Event("committed", 3.3, {"checkpoint": 1, "bytes": 2_500_000, "pause": 0.0123}),
    Event("kill", 3.5, {"engine": "1", "rank": 1}),
    Event("engine-lost", 3.51, {"engine": "1", "ranks": [1], "why": "its process ended"}),
    Event(
        "recovering",
        3.52,
        {"epoch": 1, "checkpoint": 1, "routes": {0: "0", 1: "2"}, "read_from": {1: "0"}},
    ),
    Event("loaded", 3.55, {"engine": "2", "rank": 1, "epoch": 1}),
    Event("recovered", 3.56, {"epoch": 1, "checkpoint": 1}),
    Event("mapped", 3.7, {"rank": 1, "job": 0, "records": 250, "epoch": 1}),
    Event("job-submitted", 3.8, {"job": 1, "label": "fetch of variable 1", "internal": True}),
    Event("job-done", 3.9, {"job": 0, "label": "map words"}),
]


def test_the_story():
    assert timeline(STORY, records=500) == (
        "     time  who        what\n"
        "  0.000 s  master     every rank runs; this start is checkpoint 0, epoch 0\n"
        "  0.100 s  notebook   submits job 0: map words\n"
        "  0.290 s  ranks      map 250 records, 50 % of the input\n"
        "  0.300 s  master     checkpoint 1 is committed: 2.5 MB, and as much in copies;\n"
        "                      ranks paused for 12 ms at most\n"
        "  0.500 s  engine 1   gets a SIGKILL: rank 1 and its memory are gone\n"
        "  0.510 s  master     engine 1 is lost: its process ended\n"
        "  0.520 s  master     every rank goes back to checkpoint 1; engine 2 takes rank\n"
        "                      1 and reads its copy on engine 0\n"
        "  0.550 s  engine 2   rank 1 stands again\n"
        "  0.560 s  master     every rank runs again, in epoch 1\n"
        "  0.700 s  ranks      map 250 records, 50 % of the input\n"
        "  0.900 s  ranks      job 0 has ended: map words"
    )


def test_it_fits_into_80_columns():
    long = Event("engine-lost", 4.0, {"engine": "1", "ranks": [], "why": "of a reason " * 30})
    assert max(map(len, timeline([*STORY, long]).splitlines())) <= WIDTH


def test_maps_of_two_epochs_are_two_lines():
    maps = [
        Event("mapped", 1.0 + epoch, {"rank": 0, "job": 0, "records": 5, "epoch": epoch})
        for epoch in (0, 0, 1)
    ]
    assert timeline(maps).splitlines()[1:] == [
        "  0.000 s  ranks      map 10 records",
        "  1.000 s  ranks      map 5 records",
    ]


def test_nothing_has_happened():
    assert timeline([]).splitlines() == ["     time  who        what"]


def test_a_fault_of_an_engine_and_of_none():
    found = timeline(
        [
            Event("fault", 1.0, {"fault": "hang", "engine": "2", "rank": 1}),
            Event("fault", 2.0, {"fault": "kill-controller", "engine": "", "rank": None}),
        ]
    )
    assert found.splitlines()[1:] == [
        "  0.000 s  engine 2   suffers a fault: hang",
        "  1.000 s  a plan     kill-controller",
    ]


def test_times_of_the_session():
    assert timeline(STORY, begun=0.0).splitlines()[1].startswith("  3.000 s")
