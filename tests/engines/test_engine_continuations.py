"""Continuations on real engines: puts, calls, random numbers, errors, cancels, prints."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import engine_work as work
import numpy as np
import psutil
import pytest

import feliss_nb as feliss
from feliss_nb import errors
from feliss_nb.runtime.failure import name_of
from feliss_nb.state.handle import Handle, Target

PATIENCE = 60.0


def put_everywhere(out: Any) -> None:
    at = feliss.here()
    for rank in range(at.size):
        at.put(mark, out, at.rank, rank=rank)


def mark(out: Any, source: int) -> None:
    at = feliss.here()
    at[out] = (source, at.rank, at.size)


def test_a_continuation_puts_to_its_own_rank_and_to_others(idle: feliss.Session) -> None:
    out = idle.declare()
    idle.put(put_everywhere, Target(out.variable), rank=1).wait(PATIENCE)
    assert out.collect() == [(1, rank, 3) for rank in range(3)]


# ---------------------------------------------------------------- copies


def send_and_change(out: Any) -> None:
    at = feliss.here()
    sent = [1, 2, 3]
    array = np.zeros(100_000)
    for rank in range(at.size):
        if rank != at.rank:
            at.put(keep, out, sent, array, rank=rank)
    sent.append(4)
    array += 1


def keep(out: Any, sent: list[int], array: np.ndarray) -> None:
    at = feliss.here()
    at[out] = (list(sent), float(array.sum()))
    sent.append(99)  # the receiver's own
    array += 7


def test_what_is_sent_is_a_copy_taken_at_the_put(idle: feliss.Session) -> None:
    out = idle.variable(lambda rank, size: None)
    idle.put(send_and_change, out, rank=0).wait(PATIENCE)
    assert out.collect() == [None, ([1, 2, 3], 0.0), ([1, 2, 3], 0.0)]


def test_what_the_notebook_submits_is_a_copy(idle: feliss.Session, flags: Any) -> None:
    out = idle.variable(lambda rank, size: None)
    idle.put(work.touch_and_wait, flags.path("runs"), flags.path("go"), rank=1)
    flags.wait("runs")
    sent, array = [1], np.zeros(100_000)
    job = idle.put(keep, out, sent, array, rank=1)
    sent.append(2)
    array += 5
    flags.set("go")
    job.wait(PATIENCE)
    assert out.collect()[1] == ([1], 0.0)
    assert sent == [1, 2]


# ---------------------------------------------------------------- calls


def ask(out: Any, rank: int) -> None:
    feliss.here().call(double, 21, rank=rank, then=feliss.continuation(answered, out, "first"))


def double(x: int) -> tuple[int, int]:
    return feliss.here().rank, 2 * x


def answered(out: Any, tag: str, reply: tuple[int, int]) -> None:
    at = feliss.here()
    at[out] = (tag, at.rank, reply)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_reply_becomes_the_last_argument_of_a_continuation_at_the_caller(
    idle: feliss.Session, rank: int
) -> None:
    out = idle.variable(lambda rank, size: None)
    idle.put(ask, out, rank, rank=0).wait(PATIENCE)
    assert out.collect() == [("first", 0, (rank, 42)), None, None]


def ask_slowly(out: Any, started: str, go: str) -> None:
    then = feliss.continuation(answered, out, "late")
    feliss.here().call(slow, started, go, rank=1, then=then)


def slow(started: str, go: str) -> str:
    work.touch_and_wait(started, go)
    return "reply"


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("saved", [False, True])
def test_a_call_under_way_outlives_its_caller_and_its_callee(
    idle: feliss.Session, flags: Any, begin_cut: Any, victim: int, saved: bool
) -> None:
    out = idle.variable(lambda rank, size: None)
    out.wait(PATIENCE)
    if saved:  # the parked continuation must come back from the snapshot
        idle.put(work.touch_and_wait, flags.path("busy"), flags.path("free"), rank=1)
        flags.wait("busy")
    job = idle.put(ask_slowly, out, flags.path("runs"), flags.path("go"), rank=0)
    if saved:
        token = begin_cut(idle)
        flags.set("free")
        token.result(PATIENCE)
    flags.wait("runs")
    idle.kill(victim)
    flags.set("go")
    job.wait(PATIENCE)
    assert out.collect() == [("late", 0, "reply"), None, None]


def call_what_raises() -> None:
    feliss.here().call(raise_value, rank=1, then=work.nothing)


def raise_value() -> None:
    raise ValueError("from the callee")


def test_an_error_in_a_called_function_ends_the_job(idle: feliss.Session) -> None:
    with pytest.raises(errors.FunctionError, match="from the callee") as caught:
        idle.put(call_what_raises, rank=0).wait(PATIENCE)
    assert caught.value.rank == 1
    assert "in raise_value" in str(caught.value)


# ---------------------------------------------------------------- random numbers


def draw(out: Any, left: int) -> None:
    at = feliss.here()
    at[out].append((at.rng.random(3).tolist(), at.rng.integers(1 << 60)))
    if left:
        at.put(draw, out, left - 1)


def test_random_numbers_differ_between_continuations_and_repeat_in_a_replay(
    idle: feliss.Session, flags: Any
) -> None:
    out = idle.variable(lambda rank, size: [])
    for rank in range(3):
        idle.put(draw, out, 9, rank=rank)
    idle.wait(PATIENCE)
    before = out.collect()
    flat = [repr(drawn) for part in before for drawn in part]
    assert len(set(flat)) == len(flat) == 30
    recovered = len(idle.events.of_kind("recovered"))
    idle.kill(0, wait=True)
    idle.events.wait_for("recovered", recovered + 1, PATIENCE)
    assert out.collect() == before


# ---------------------------------------------------------------- variables


def read_and_set(number: Any, out: Any) -> None:
    at = feliss.here()
    at[out] = at[number] * 10
    at[number] = -1
    at[out] = (at[out], at[number])


def test_partitions_are_read_and_set(idle: feliss.Session) -> None:
    number = idle.variable(lambda rank, size: rank + 1)
    out = idle.variable(lambda rank, size: None)
    for rank in range(3):
        idle.put(read_and_set, number, out, rank=rank)
    idle.wait(PATIENCE)
    assert out.collect() == [(10, -1), (20, -1), (30, -1)]
    assert number.collect() == [-1, -1, -1]


def read_unready(number: int) -> None:
    feliss.here()[Handle(number)]


def test_reading_what_was_not_waited_for_says_how_to_wait(idle: feliss.Session) -> None:
    empty = idle.declare()
    job = idle.put(read_unready, empty.variable, rank=0)
    with pytest.raises(errors.FunctionError, match="has no partition on rank 0 yet"):
        job.wait(PATIENCE)


# ---------------------------------------------------------------- errors


def raise_key() -> None:
    table: dict[str, int] = {}
    table["absent"]  # the line of the error


def test_an_error_in_a_module_shows_file_line_text_and_rank(idle: feliss.Session) -> None:
    with pytest.raises(errors.FunctionError) as caught:
        idle.put(raise_key, rank=2).wait(PATIENCE)
    text = str(caught.value)
    number = raise_key.__code__.co_firstlineno + 2
    assert f'File "{__file__}", line {number}, in raise_key' in text
    assert 'table["absent"]  # the line of the error' in text
    assert "KeyError: 'absent'" in text
    assert caught.value.rank == 2
    assert isinstance(caught.value.__cause__, KeyError)
    assert "feliss_nb" not in caught.value.remote_traceback.replace(str(Path(__file__)), "")


def test_an_error_in_a_script_shows_its_line(script: Any) -> None:
    done = script(
        """
        import feliss_nb as feliss

        class Odd(Exception):
            def __init__(self, one, two):
                super().__init__(one + two)

        def outer(x):
            inner(x)

        def inner(x):
            raise Odd("od", "d")  # here it is

        def main():
            with feliss.start(workers=2, checkpoint_every=None) as session:
                try:
                    session.put(outer, 1, rank=1).wait(60)
                except feliss.errors.FunctionError as error:
                    print(error.rank, error)
                try:
                    session.map(lambda x: 1 // x, [3, 2, 1, 0]).collect()
                except feliss.errors.FunctionError as error:
                    print(error.record, "|", error)
                session.put(outer, 1, rank=1)
                try:
                    session.wait(60)
                except feliss.errors.FunctionError as error:
                    print("told by session.wait")
                session.wait(60)  # told once
                print(session.map(len, ["a", "bb"]).collect())

        if __name__ == "__main__":
            main()
        """
    )
    out = done.stdout
    assert out.startswith("1 outer raised")
    assert 'program0.py", line 9, in outer' in out
    assert "    inner(x)" in out
    assert 'raise Odd("od", "d")  # here it is' in out
    assert "Odd: odd" in out
    assert "record" in out
    assert "ZeroDivisionError" in out
    assert "told by session.wait" in out
    assert out.rstrip().endswith("[1, 2]")


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), StopIteration(), MemoryError()]
)
def test_whatever_is_raised_ends_the_job_and_not_the_session(
    idle: feliss.Session, error: BaseException
) -> None:
    job = idle.put(raise_it, error, rank=0)
    with pytest.raises(errors.FunctionError, match=type(error).__name__):
        job.wait(PATIENCE)
    assert job.state == "failed"
    assert idle.apply(double, 1).collect() == [(0, 2), (1, 2), (2, 2)]
    assert idle.epoch == idle.status().epoch


def raise_it(error: BaseException) -> None:
    raise error


class Refuses(Exception):
    """Cannot be pickled, and says so as no exception should."""

    def __reduce__(self) -> Any:
        raise SystemExit("no")


class Pretends(Exception):
    """Comes out of its pickle as something that cannot be raised."""

    def __reduce__(self) -> Any:
        return int, (5,)


class Keeps(Exception):
    """Has its own idea of its traceback."""

    def with_traceback(self, trace: object) -> Any:
        raise RuntimeError("no")


class Nameless:
    """A function that fails, and cannot be named either."""

    def __call__(self) -> None:
        raise ValueError("it failed")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def raise_one(kind: type[Exception]) -> None:
    raise kind


def put_nameless() -> None:
    feliss.here().put(Nameless())


@pytest.mark.parametrize("kind", [Refuses, Pretends, Keeps])
def test_an_exception_that_cannot_travel_is_told_all_the_same(
    idle: feliss.Session, kind: type[Exception]
) -> None:
    epoch = idle.epoch
    with pytest.raises(errors.FunctionError, match=kind.__name__):
        idle.put(raise_one, kind, rank=0).wait(PATIENCE)
    assert idle.epoch == epoch  # its engine lives


def test_a_function_without_a_name_fails_alone(idle: feliss.Session) -> None:
    epoch = idle.epoch
    with pytest.raises(errors.FunctionError, match="on rank 0"):
        idle.put(put_nameless, rank=0).wait(PATIENCE)
    assert idle.epoch == epoch


def test_a_name_is_found_where_every_attribute_is() -> None:
    assert name_of(mock.Mock()) == "Mock"
    assert name_of(functools.partial(double, 1)) == "double"


def raise_after_setting(out: Any) -> None:
    feliss.here()[out] = "written"
    raise ValueError("after")


def test_what_a_job_wrote_before_its_error_stays(idle: feliss.Session) -> None:
    out = idle.variable(lambda rank, size: "old")
    with pytest.raises(errors.FunctionError):
        idle.put(raise_after_setting, out, rank=1).wait(PATIENCE)
    assert out.collect() == ["old", "written", "old"]


# ---------------------------------------------------------------- cancel, timeouts


def waiting_in_pools() -> int:
    """On an engine: the continuations that have not begun."""
    from feliss_nb.runtime.engine import _workers

    return sum(
        len(rank.pool) for worker in _workers.values() for rank in worker.worker.ranks.values()
    )


def test_a_pending_continuation_is_cancelled(
    idle: feliss.Session, flags: Any, eventually: Any
) -> None:
    idle.put(work.touch_and_wait, flags.path("runs"), flags.path("go"), rank=0)
    flags.wait("runs")
    pending = idle.put(work.note, flags.path("ran"), "x", rank=0)
    pending.cancel()
    with pytest.raises(errors.JobCancelled):
        pending.wait(PATIENCE)
    # The wait ends when the master knows; the engine hears of it a moment later.
    eventually(
        lambda: sum(work.on_engines(idle, waiting_in_pools)) == 0,
        PATIENCE,
        "the pools are empty",
    )
    flags.set("go")
    idle.wait(PATIENCE)
    assert flags.lines("ran") == []
    assert pending.state == "cancelled"


def test_an_endless_continuation_is_cancelled_and_its_rank_goes_on(
    idle: feliss.Session, flags: Any
) -> None:
    job = idle.put(work.spin, flags.path("runs"), rank=0)
    flags.wait("runs")
    job.cancel()
    with pytest.raises(errors.JobCancelled):
        job.wait(PATIENCE)
    idle.wait(PATIENCE)  # it is gone from its rank too
    assert idle.apply(double, 1).collect()[0] == (0, 2)


def spin_and_miss_once(started: str) -> None:
    """The first request to stop comes to nothing: so it does in a __del__ too."""
    with contextlib.suppress(BaseException):
        work.spin(started)
    while True:
        pass


def test_a_request_to_stop_that_is_lost_is_made_again(idle: feliss.Session, flags: Any) -> None:
    job = idle.put(spin_and_miss_once, flags.path("runs"), rank=0)
    flags.wait("runs")
    job.cancel()
    idle.wait(PATIENCE)
    assert idle.put(double, 1, rank=0).wait(PATIENCE).state == "done"


def hop(payload: np.ndarray) -> None:
    at = feliss.here()
    at.put(hop, payload, rank=(at.rank + 1) % at.size)


def test_cancelling_jobs_that_send_loses_no_message(idle: feliss.Session) -> None:
    """A stop between the counting of a message and its sending made `wait` hang for ever."""
    out = idle.variable(work.zeros)
    for _ in range(8):
        jobs = [idle.put(hop, np.zeros(20_000), rank=rank) for rank in (0, 1, 2, 0, 1, 2)]
        steps = idle.put(work.token, out, 1, 60, rank=0)
        steps.wait(PATIENCE)
        for job in jobs:
            job.cancel()
        with contextlib.suppress(errors.JobCancelled):
            idle.wait(PATIENCE)
    assert sum(part["visits"] for part in out.collect()) == 8 * 60


def test_wait_with_a_timeout_lets_the_job_go_on(idle: feliss.Session, flags: Any) -> None:
    job = idle.put(work.touch_and_wait, flags.path("runs"), flags.path("go"), rank=1)
    flags.wait("runs")
    with pytest.raises(errors.WaitTimeout, match="goes on"):
        job.wait(timeout=0.05)
    with pytest.raises(TimeoutError):  # the builtin's subclass
        idle.wait(timeout=0.05)
    assert job.state == "running"
    flags.set("go")
    assert job.wait(PATIENCE) is job
    assert job.state == "done"


# ---------------------------------------------------------------- prints, other clients


def speak(times: int) -> None:
    for number in range(times):
        print("line", number)  # noqa: T201
    print("to stderr", file=sys.stderr)  # noqa: T201
    sys.stdout.write("no line end")


def test_what_a_continuation_prints_carries_its_rank(
    idle: feliss.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in range(3):
        idle.put(speak, 2, rank=rank)
    idle.wait(PATIENCE)
    out, err = capsys.readouterr()  # all is there when the wait ends
    for rank in range(3):
        assert f"[rank {rank}] line 0\n" in out
        assert f"[rank {rank}] line 1\n" in out
        assert f"[rank {rank}] no line end\n" in out
        assert f"[rank {rank}] to stderr\n" in err


class Broken:
    """A stream that fails in a way of its own."""

    def write(self, text: str) -> int:
        raise RuntimeError(text)


def test_a_stream_that_fails_does_not_end_the_session(
    idle: feliss.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Broken())
        idle.put(speak, 2, rank=0).wait(PATIENCE)
    assert idle.apply(double, 1).collect() == [(0, 2), (1, 2), (2, 2)]


def test_ipyparallel_works_on_while_a_job_runs(idle: feliss.Session, flags: Any) -> None:
    jobs = [
        idle.put(work.touch_and_wait, flags.path(f"runs{rank}"), flags.path("go"), rank=rank)
        for rank in range(3)
    ]
    for rank in range(3):
        flags.wait(f"runs{rank}")
    view = idle.client[:]
    pids = view.apply_async(os.getpid).get(timeout=PATIENCE)
    assert len(set(pids)) == len(pids) >= 4
    done = view.execute("import os; mine = os.getpid()", block=False)  # what %px does
    done.get(timeout=PATIENCE)
    assert view.pull("mine", block=False).get(timeout=PATIENCE) == pids
    assert all(job.state == "running" for job in jobs)
    flags.set("go")


def test_ctrl_c_interrupts_the_wait_and_not_the_job(launch: Any, flags: Any) -> None:
    process = launch(
        """
        import os, sys, time
        import feliss_nb as feliss

        def hold(started, go):
            open(started, "w").close()
            while not os.path.exists(go):
                time.sleep(0.005)
            return "held"

        def main(started, go):
            with feliss.start(workers=2, checkpoint_every=None) as session:
                held = session.apply(hold, started, go)
                print("waiting", flush=True)
                try:
                    session.wait()
                except KeyboardInterrupt:
                    print("interrupted", held.job.state, flush=True)
                open(go, "w").close()
                print(held.collect(), session.epoch, flush=True)

        if __name__ == "__main__":
            main(*sys.argv[1:])
        """,
        flags.path("runs"),
        flags.path("go"),
    )
    assert process.stdout.readline() == "waiting\n"
    flags.wait("runs")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert out == "interrupted running\n['held', 'held'] 0\n", (out, err)
    assert process.returncode == 0


# ---------------------------------------------------------------- channels


def test_ranks_send_directly_through_private_sockets(idle: feliss.Session) -> None:
    directory = idle._cluster.directory
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert directory.stat().st_uid == os.getuid()
    hops = idle.variable(work.zeros)
    hubs = _bytes_through(psutil.Process(idle._cluster._cluster.controller.pid))
    big = idle.put(carry, hops, np.zeros(4_000_000), 9, rank=0)
    big.wait(PATIENCE)
    assert sum(part["visits"] for part in hops.collect()) == 10
    grown = _bytes_through(psutil.Process(idle._cluster._cluster.controller.pid)) - hubs
    assert grown < 100e6, "32 MB a hop went through the controller"


def carry(hops: Any, payload: np.ndarray, left: int) -> None:
    at = feliss.here()
    at[hops]["visits"] += 1
    if left:
        at.put(carry, hops, payload, left - 1, rank=(at.rank + 1) % at.size)


def _bytes_through(process: psutil.Process) -> int:
    family = [process, *process.children(recursive=True)]
    return sum(each.io_counters().read_chars for each in family)


def test_nothing_listens_beyond_loopback(idle: feliss.Session) -> None:
    me = psutil.Process()
    family = [me, *me.children(recursive=True)]
    listening = [
        connection.laddr.ip
        for process in family
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening  # ipyparallel's own
    assert set(listening) <= {"127.0.0.1", "::1"}
    engines = [psutil.Process(e.pid) for e in idle.status().engines if e.role != "dead"]
    ours = [
        connection.laddr
        for process in engines
        for connection in process.net_connections(kind="unix")
        if connection.laddr and "data-" in str(connection.laddr)
    ]
    directory = str(idle._cluster.directory)
    assert ours
    assert all(str(path).startswith(directory) for path in ours)
