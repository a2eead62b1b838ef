"""Bad input: a clear error at once, and the session goes on as if it had not been."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import engine_work as work
import pytest

import feliss_nb as feliss
from feliss_nb import errors

PATIENCE = 60.0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"workers": 0}, "workers= takes a whole number of at least 1, not 0"),
        ({"workers": -1}, "workers="),
        ({"workers": "2"}, "not '2'"),
        ({"workers": 1.5}, "not 1.5"),
        ({"workers": True}, "not True"),
        ({"spares": -1}, "spares="),
        ({"copies": -1}, "copies="),
        ({"copies": 9}, "copies=9 needs .* workers=2 and spares=0 there is one other engine"),
        ({"workers": 2, "spares": 1, "copies": 3}, "there are 2 other engines"),
        ({"workers": 1, "copies": 2}, "there are no other engines"),
        ({"replace": "no"}, "replace= takes True or False, not 'no'"),
        ({"seed": -1}, "seed="),
        ({"seed": 0.5}, "seed="),
        ({"keep": 3}, "give store= too"),
        ({"timeout": 0}, "timeout="),
        ({"timeout": "soon"}, "timeout="),
        ({"timeout": float("nan")}, "timeout="),
        ({"timeout": True}, "timeout="),
        ({"checkpoint_every": True}, "checkpoint_every"),
        ({"name": ""}, "name="),
        ({"name": 5}, "name="),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"checkpoint_every": -1.0}, "checkpoint_every"),
        ({"checkpoint_every": "often"}, "checkpoint_every"),
        ({"checkpoint_every": float("nan")}, "checkpoint_every"),
    ],
)
def test_start_refuses_before_it_starts_anything(
    options: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import feliss_nb.models.session as models

    def never(*args: Any) -> None:
        raise AssertionError("a cluster was made")

    monkeypatch.setattr(models, "OwnCluster", never)
    with pytest.raises(errors.UsageError, match=text):
        feliss.start(**options)


def test_two_sessions_of_one_name(idle: feliss.Session) -> None:
    with pytest.raises(errors.UsageError, match="is up"):
        feliss.start(name=idle.name)


@pytest.mark.parametrize("rank", [3, -1, "0", None, 1.0, True])
def test_a_rank_out_of_range(idle: feliss.Session, rank: Any) -> None:
    with pytest.raises(errors.UsageError, match="ranks are 0 to 2"):
        idle.put(work.nothing, rank=rank)
    if rank is not None:
        with pytest.raises(errors.UsageError, match="ranks are 0 to 2"):
            idle.kill(rank)


def test_a_numpy_rank_is_a_rank(idle: feliss.Session) -> None:
    import numpy as np

    job = idle.put(work.nothing, rank=np.int64(2))
    job.wait(PATIENCE)
    assert job.state == "done"


@pytest.mark.parametrize("timeout", ["soon", float("nan"), -1, True, [1]])
def test_a_time_to_wait_that_is_none(idle: feliss.Session, timeout: Any) -> None:
    for wait in (idle.wait, idle.checkpoint, idle.put(work.nothing, rank=0).wait):
        with pytest.raises(errors.UsageError, match="timeout= takes a number of seconds"):
            wait(timeout)


@pytest.mark.parametrize("name", ["nobody", "", [], 3])
def test_a_name_that_no_variable_has(idle: feliss.Session, name: Any) -> None:
    with pytest.raises(errors.UsageError, match="no variable has the name"):
        idle[name]


def put_outside() -> None:
    feliss.here().put(work.nothing, rank=7)


def call_outside() -> None:
    feliss.here().call(work.nothing, rank=-1, then=work.nothing)


def put_no_function() -> None:
    feliss.here().put("nothing")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "text"),
    [(put_outside, "no rank 7"), (call_outside, "no rank -1"), (put_no_function, "no function")],
)
def test_bad_calls_inside_continuations(idle: feliss.Session, function: Any, text: str) -> None:
    with pytest.raises(errors.FunctionError, match=text) as caught:
        idle.put(function, rank=0).wait(PATIENCE)
    assert f"in {function.__name__}" in str(caught.value)
    assert isinstance(caught.value.__cause__, errors.UsageError)


def test_here_outside_a_continuation() -> None:
    with pytest.raises(errors.UsageError, match="only inside a continuation"):
        feliss.here()


def test_what_is_no_function(idle: feliss.Session) -> None:
    for call in (
        lambda: idle.put("text", rank=0),  # type: ignore[arg-type]
        lambda: idle.map(5, [1]),  # type: ignore[arg-type]
        lambda: idle.reduce(None, [("a", 1)]),  # type: ignore[arg-type]
        lambda: idle.apply(None),  # type: ignore[arg-type]
        lambda: idle.variable(5),  # type: ignore[arg-type]
        lambda: idle.variable(0, name="x"),  # type: ignore[arg-type]
        lambda: feliss.continuation("text"),  # type: ignore[arg-type]
    ):
        with pytest.raises(errors.UsageError):
            call()
    assert "x" not in idle


@pytest.mark.parametrize("source", [5, None, "text", {"a": 1}])
def test_what_has_no_records(idle: feliss.Session, source: Any) -> None:
    with pytest.raises(errors.UsageError):
        idle.map(len, source)
    with pytest.raises(errors.UsageError):
        idle.scatter(source)


def test_files_that_are_none(idle: feliss.Session, tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match=r"absent\.txt"):
        idle.read_text(tmp_path / "absent.txt")
    with pytest.raises(errors.UsageError, match="directory"):
        idle.read_text(tmp_path)
    with pytest.raises(errors.UsageError, match=r"\*\.none"):
        idle.read_text(str(tmp_path / "*.none"))
    with pytest.raises(errors.UsageError):
        idle.read_text([])
    (tmp_path / "a.txt").write_text("a\n")
    with pytest.raises(errors.UsageError, match="by"):
        idle.read_text(tmp_path / "a.txt", by="word")
    if os.getuid():
        (tmp_path / "a.txt").chmod(0)
        with pytest.raises(errors.UsageError, match="read"):
            idle.read_text(tmp_path / "a.txt")


def half(record: int) -> float:
    return 1 / (record - 3)


def test_a_map_that_raises_names_file_rank_and_record(idle: feliss.Session, tmp_path: Path) -> None:
    with pytest.raises(errors.FunctionError) as caught:
        idle.map(half, range(9)).collect()
    text = str(caught.value)
    assert f'File "{__file__}"' in text
    assert "return 1 / (record - 3)" in text
    assert caught.value.rank == 1
    assert caught.value.record is not None
    assert "record" in caught.value.record
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    path = tmp_path / "numbers.txt"
    path.write_text("1\n2\nx\n")
    with pytest.raises(errors.FunctionError, match=r"numbers\.txt") as caught:
        idle.map(int, idle.read_text(path)).collect()
    assert "ValueError" in str(caught.value)


def yields_no_pair(record: int) -> Any:
    yield record, 1, 2


def gives_no_pair(record: int) -> Any:
    return record


def yields_list_key(record: int) -> Any:
    yield [record], 1


class Keyless:
    """Equal by identity alone: two engines never agree on it."""


def yields_odd_key(record: int) -> Any:
    yield Keyless(), 1


@pytest.mark.parametrize("mapper", [yields_no_pair, gives_no_pair, yields_list_key, yields_odd_key])
def test_what_is_no_pair_or_no_key(idle: feliss.Session, mapper: Any) -> None:
    with pytest.raises(errors.FelissError) as caught:
        idle.mapreduce(mapper, sum, range(5)).collect()
    assert mapper.__name__ in str(caught.value)
    assert "pair" in str(caught.value) or "key" in str(caught.value)
    assert idle.map(abs, [-1]).collect() == [1]


def test_bad_kills(idle: feliss.Session) -> None:
    with pytest.raises(errors.UsageError, match="no engine 99"):
        idle.kill(engine=99)
    with pytest.raises(errors.UsageError, match="takes a rank, or engine="):
        idle.kill()
    with pytest.raises(errors.UsageError, match="takes a rank, or engine="):
        idle.kill(0, engine=1)
    assert idle.epoch == idle.status().epoch


@pytest.mark.parametrize("seconds", [0, -1, "often", float("nan")])
def test_bad_intervals(idle: feliss.Session, seconds: Any) -> None:
    with pytest.raises(errors.UsageError, match="seconds above 0"):
        idle.checkpoint_every(seconds)


def test_bad_names(idle: feliss.Session) -> None:
    for name in ("", 5, b"x"):
        with pytest.raises(errors.UsageError, match="name"):
            idle.scatter([1], name=name)  # type: ignore[arg-type]
    with pytest.raises(errors.UsageError, match="no variable has the name"):
        idle["absent"]


def test_a_variable_of_another_session_is_refused(idle: feliss.Session) -> None:
    with feliss.start(workers=1, checkpoint_every=None) as other:
        foreign = other.scatter([1, 2, 3])
        for call in (
            lambda: idle.map(abs, foreign),
            lambda: idle.put(work.read_variable, foreign, foreign, rank=0),
            lambda: idle.apply(lambda: feliss.here()[foreign]),
        ):
            with pytest.raises(errors.UsageError, match="session"):
                call()


def test_every_call_on_a_stopped_session_says_so() -> None:
    session = feliss.start(workers=1, checkpoint_every=None)
    value = session.scatter([1], name="v")
    job = session.put(work.nothing, rank=0)
    session.wait(PATIENCE)
    session.stop()
    session.stop()  # nothing
    assert session.state == "stopped"
    assert "stopped" in repr(session)
    assert "stopped" in session._repr_html_()
    for call in (
        lambda: session.put(work.nothing, rank=0),
        lambda: session.map(abs, [1]),
        lambda: session.scatter([1]),
        lambda: session.wait(),
        lambda: session.checkpoint(),
        lambda: session.checkpoint_every(1),
        lambda: session.kill(0),
        lambda: session.status(),
        lambda: session.client,
        lambda: value.collect(),
        lambda: job.cancel(),
        lambda: job.wait(PATIENCE),
    ):
        with pytest.raises(errors.SessionClosed, match="start another"):
            call()
    assert session.events.of_kind("stopped")


def test_a_wait_that_a_stop_interrupts_ends() -> None:
    import threading

    session = feliss.start(workers=1, checkpoint_every=None)
    try:
        empty = session.declare()
        caught: list[BaseException] = []

        def wait() -> None:
            try:
                empty.collect()
            except BaseException as error:  # noqa: BLE001
                caught.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        session.events.wait_for("job-submitted", 1, PATIENCE)
    finally:
        session.stop()
    waiting.join(PATIENCE)
    assert [type(error) for error in caught] == [errors.SessionClosed]


def test_prints_to_a_closed_stream_do_not_end_the_session(script: Any) -> None:
    done = script(
        """
        import os, sys
        import feliss_nb as feliss

        def main():
            with feliss.start(workers=1, checkpoint_every=None) as session:
                keep = sys.stdout
                sys.stdout = open(os.devnull, "w")
                sys.stdout.close()
                session.apply(print, "lost").wait(60)
                sys.stdout = keep
                session.apply(print, "seen").wait(60)
                session.checkpoint(60)
                print("alive", session.state)

        if __name__ == "__main__":
            main()
        """
    )
    assert "[rank 0] seen" in done.stdout
    assert "alive running" in done.stdout
