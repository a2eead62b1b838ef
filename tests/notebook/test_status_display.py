"""What the status classes look like, to the letter, and that nothing gets out of them unescaped."""

from __future__ import annotations

import html.parser
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feliss_nb.notebook.display import Page, ProgressView, events_table
from feliss_nb.runtime.events import Event
from feliss_nb.runtime.status import (
    Checkpoint,
    EngineStatus,
    JobStatus,
    RankStatus,
    Status,
    Table,
    human_bytes,
    human_seconds,
)

EVIL = "<script>alert('&')</script>"
CHECKPOINT = Checkpoint(3, 1, 12_345_678, 0.0451, 0.0031, 1.0)


def status(label: str = "words", protected: bool = True, copies: int = 1) -> Status:
    return Status(
        session="quiet",
        state="running",
        epoch=1,
        copies=copies,
        protected=protected,
        engines=(
            EngineStatus(0, 4711, "worker", (0, 1), (2,), 1_234_567, 99),
            EngineStatus(3, 99999, "dead", (), (), 0, 0),
        ),
        ranks=(RankStatus(0, 0, "running", 12, label), RankStatus(1, None, "lost", 0)),
        jobs=(
            JobStatus(1, label, "running", 120, 400, "files"),
            JobStatus(12, "later", "held"),
        ),
        checkpoint=CHECKPOINT,
        memory_own=1_234_567,
        memory_copies=99,
        messages=("a spare is on its way",),
    )


def test_status_in_a_terminal() -> None:
    assert repr(status()) == dedent("""\
        session quiet
        state   running
        epoch   1
        copies  1, all in place
        memory  1.2 MB of snapshots, 99 B of copies
        last    checkpoint 3: 12.3 MB in 45 ms, ranks paused 3.1 ms

        engines
        engine    pid  role    ranks  copies of  snapshots  copies
             0   4711  worker  0, 1           2     1.2 MB    99 B
             3  99999  dead    -              -        0 B     0 B

        ranks
        rank  engine  state    pool  job
           0       0  running    12  words
           1       -  lost        0

        jobs
        job  label  state    progress
          1  words  running  120/400 files (30 %)
         12  later  held

        messages
        a spare is on its way""")


def test_status_says_when_a_rank_is_in_danger() -> None:
    assert "copies  1, being made anew" in repr(status(protected=False))
    assert "copies  0: a rank whose engine dies is lost" in repr(status(copies=0))


def test_an_empty_status_still_has_its_words() -> None:
    empty = Status("s", "starting", 0, 1, True, (), (), ())
    assert repr(empty) == dedent("""\
        session s
        state   starting
        epoch   0
        copies  1 of each snapshot, from the first checkpoint on
        memory  0 B of snapshots, 0 B of copies
        last    no checkpoint yet

        engines
        engine  pid  role  ranks  copies of  snapshots  copies
        (none)

        ranks
        rank  engine  state  pool  job
        (none)

        jobs
        job  label  state  progress
        (none)""")
    assert "<table" in empty._repr_html_()


def test_checkpoint_is_one_line() -> None:
    assert repr(CHECKPOINT) == "<checkpoint 3: 12.3 MB in 45 ms, ranks paused 3.1 ms, epoch 1>"
    assert "<td" in CHECKPOINT._repr_html_()
    assert "12.3 MB" in CHECKPOINT._repr_html_()


def test_the_parts_have_plain_reprs() -> None:
    assert repr(JobStatus(1, "a", "held")) == (
        "JobStatus(id=1, label='a', state='held', done=0, total=None, unit='')"
    )
    assert repr(RankStatus(1, None, "lost", 0)) == (
        "RankStatus(rank=1, engine=None, state='lost', pool=0, job='')"
    )
    assert repr(EngineStatus(0, 7, "spare", (), (1,), 0, 9)) == (
        "EngineStatus(engine=0, pid=7, role='spare', ranks=(), copies_of=(1,), "
        "own_bytes=0, copy_bytes=9, memory=0, beat=None, stopped=False, fenced=False)"
    )


def test_progress_of_a_job() -> None:
    assert JobStatus(1, "a", "running", 399, 400).progress == "399/400 (99 %)"
    assert JobStatus(1, "a", "running", 7, 0, "files").progress == "7 files"
    assert JobStatus(1, "a", "running", 9, 4).fraction == 1.0
    assert JobStatus(1, "a", "held").fraction is None


class Tags(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    "shown",
    [
        status(EVIL),
        Table(EVIL, (EVIL,), [(EVIL,)]),
        Page((EVIL, Table("", ("",), [(EVIL,)]))),
        ProgressView(EVIL, (JobStatus(1, EVIL, "running", 1, 2, EVIL),), 1.0),
    ],
)
def test_html_is_escaped(shown: Status | Table | Page | ProgressView) -> None:
    page = Tags(shown._repr_html_())
    assert EVIL in page.text
    assert "script" not in page.tags


@given(st.lists(st.tuples(st.text(), st.integers(), st.none() | st.floats()), max_size=4))
def test_a_table_has_one_line_a_row_whatever_is_in_it(
    rows: list[tuple[str, int, float | None]],
) -> None:
    lines = repr(Table("t", ("a", "b", "c"), rows)).split("\n")
    assert len(lines) == 2 + max(len(rows), 1)
    assert all(line.isprintable() for line in lines)
    assert "script" not in Tags(Table("t", ("a", "b", "c"), rows)._repr_html_()).tags


def test_wide_characters_and_long_cells_keep_the_columns_in_line() -> None:
    table = Table("", ("name", "n"), [("世界", 1), ("x" * 100, 22), ("e\u0301", 3)])
    lines = repr(table).split("\n")
    assert lines[1] == "世界" + " " * 56 + "   1"
    assert lines[2] == "x" * 59 + "…  22"
    assert lines[0] == "name" + " " * 56 + "   n"


def test_a_row_of_another_length_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Table("", ("a", "b"), [(1,)])


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_951, "100 kB"),
        (999_499, "999 kB"),
        (999_501, "1.0 MB"),
        (12_345_678, "12.3 MB"),
        (2 * 10**9, "2.0 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_human_bytes(count: int, text: str) -> None:
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 ms"),
        (0.0031, "3.1 ms"),
        (0.0451, "45 ms"),
        (0.9996, "1.0 s"),
        (99.4, "99.4 s"),
        (99.6, "1 min 40 s"),
        (125, "2 min 5 s"),
        (3700, "1 h 1 min"),
    ],
)
def test_human_seconds(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


def test_events() -> None:
    log = [Event("engine-lost", 0.5, {"ranks": (1, 2), "engine": None}), Event("recovered", 12.25)]
    assert repr(events_table(log, 50)) == dedent("""\
        events
        seconds  event
          0.500  engine-lost  ranks 1, 2, engine -
         12.250  recovered""")
    assert repr(events_table(log, 1)).startswith("the last 1 of 2 events\n")
    assert repr(events_table([], 50)).endswith("(none)")
