"""The picture of a run: drawn from events, and refused in words where it cannot be."""

import pytest
from history_events import RUN

from feliss_nb.errors import UsageError
from feliss_nb.lab.figures import Timeline
from feliss_nb.lab.history import History
from feliss_nb.lab.picture import check_picture, draw


def test_the_picture_names_engines_checkpoint_and_kill(tmp_path):
    path = tmp_path / "run.svg"
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none"}):
        draw(RUN, path, "a run")
    text = path.read_text()
    for words in (
        "a run",
        "rank 1",
        "engine 1",
        "engine 2",
        "checkpoint 1: 2.0 MB",
        "engine 1 is lost",
    ):
        assert words in text


def test_its_text_is_the_same_in_every_run():
    said = "<time line: .save('name.svg') writes it, .figure is matplotlib's>"
    assert repr(Timeline(History(RUN))) == repr(Timeline(History(RUN), last=1.0)) == said


@pytest.mark.parametrize(
    ("name", "says"), [("run.gif", r"\.svg or a \.png"), ("no/run.svg", "folder")]
)
def test_a_picture_that_cannot_be_drawn_is_refused(tmp_path, name, says):
    with pytest.raises(UsageError, match=says):
        check_picture(tmp_path / name)
