"""Functions and state on their way to real engines: by value, by name, once, anew, refused."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from pathlib import Path
from typing import Any

import engine_work as work
import numpy as np
import pytest

import feliss_nb as feliss
from feliss_nb import errors
from feliss_nb.runtime import wire
from feliss_nb.state.handle import Target

PATIENCE = 60.0


def test_what_a_script_defines_works_on_engines(script: Any) -> None:
    done = script(
        """
        import dataclasses, enum, functools
        import numpy as np
        import feliss_nb as feliss

        FACTOR = 3
        TABLE = {"a": [1, 2]}

        class Color(enum.Enum):
            RED = 1

        @dataclasses.dataclass
        class Point:
            x: int
            y: int = 0
            def norm(self):
                return helper(self.x) + self.y
            def __add__(self, other):
                return Point(self.x + other.x, self.y + other.y)

        class Counter:
            seen = 0
            def __init__(self): self.n = 0
            def __call__(self, x):
                self.n += x
                return self.n

        def helper(x):
            return FACTOR * x + len(TABLE["a"])

        def make(n):
            def add(x):
                def nested(y):
                    return helper(y) + n
                return nested(x)
            return add

        def fact(n):
            return 1 if n < 2 else n * fact(n - 1)

        def even(n): return n == 0 or odd(n - 1)
        def odd(n): return n != 0 and even(n - 1)

        @functools.lru_cache
        def cached(x): return x * FACTOR

        def walk(out, p, left):
            at = feliss.here()
            p = p + Point(1, at.rank)
            if left: at.put(walk, out, p, left - 1, rank=(at.rank + 1) % at.size)
            else: at[out] = p

        def main():
            with feliss.start(workers=2, spares=1, checkpoint_every=None) as s:
                print(s.map(make(5), [1, 2]).collect())
                print(s.map(fact, [5]).collect(), s.map(even, [4, 5]).collect())
                print(s.map(cached, [5, 5]).collect())
                print(s.map(functools.partial(make(1).__call__), [1]).collect())
                print(s.map(lambda p: p.norm(), [Point(1, 2)]).collect())
                points = s.map(Point, [1, 2])
                print(points.collect() == [Point(1), Point(2)], type(points.collect()[0]) is Point)
                print(s.map(lambda c: c is Color.RED, [Color.RED]).collect())
                print(s.scatter([Color.RED]).collect()[0] is Color.RED)
                out = s.variable(lambda rank, size: None)
                s.put(walk, out, Point(0), 7, rank=0).wait()
                print(out.collect())
                counter = s.apply(Counter)
                def count(c): return feliss.here()[c](2)
                s.apply(count, counter).wait()
                s.checkpoint()
                s.kill(0, wait=True)
                s.kill(1, wait=True)
                print(s.apply(count, counter).collect(), out.collect()[1])
                FACTOR_NOW = globals()["FACTOR"] = 10  # as a cell that is run again
                print(s.map(helper, [1]).collect())

        if __name__ == "__main__":
            main()
        """
    )
    assert done.stdout.splitlines() == [
        "[10, 13]",
        "[120] [True, False]",
        "[15, 15]",
        "[6]",
        "[7]",
        "True True",
        "[True]",
        "True",
        "[None, Point(x=8, y=4)]",
        "[4, 4] Point(x=8, y=4)",
        "[12]",
    ]


def test_a_large_global_travels_once_per_engine_and_anew_when_it_changed(script: Any) -> None:
    done = script(
        """
        import numpy as np
        import feliss_nb as feliss
        from feliss_nb.runtime import wire

        BIG = np.zeros(1_000_000)
        OTHER = 1
        sent = {}

        def use(x): return float(BIG[x])
        def use_too(x): return float(BIG[x]) + OTHER

        def hop(out, left):
            at = feliss.here()
            assert BIG.shape == (1_000_000,)
            if left: at.put(hop, out, left - 1, rank=(at.rank + 1) % at.size)
            else: at[out] = float(BIG.sum())

        def main():
            with feliss.start(workers=2, spares=1, checkpoint_every=None) as s:
                send = s._driver._exchange.send
                def counting(engine, message):
                    size = sum(memoryview(f).nbytes for f in wire.encode(message))
                    sent[engine] = sent.get(engine, 0) + size
                    send(engine, message)
                s._driver._exchange.send = counting
                def travelled():
                    found = {e: round(n / 8e6) for e, n in sent.items() if n > 4e6}
                    sent.clear()
                    return sorted(found.values())
                for _ in range(3):
                    s.map(use, range(100)).collect()
                    s.put(use, 1, rank=0).wait()
                print("first", travelled())
                out = s.variable(lambda rank, size: None)
                s.put(hop, out, 1001, rank=0).wait()
                print("another function", travelled())
                BIG[3] = 5.0
                print(s.map(use, [3]).collect(), out.collect()[1])
                print("changed", travelled())
                s.checkpoint()
                size = s.checkpoint().bytes
                print("checkpoint holds it", size > 8e6)
                s.kill(0, wait=True)
                print(s.map(use, [3]).collect())
                print("the spare", travelled())

        if __name__ == "__main__":
            main()
        """
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "first [1, 1]"
    assert lines[1] == "another function []"
    assert lines[2] == "[5.0] 0.0"
    assert lines[3] == "changed [1, 1]"
    assert lines[5] == "[5.0]"
    assert lines[6] in ("the spare [1]", "the spare [1, 1]"), lines


def test_an_edited_module_runs_as_edited(
    idle: feliss.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    idle.client[:].execute(f"import sys; sys.path.insert(0, {str(tmp_path)!r})", block=False).get(
        timeout=PATIENCE
    )
    helper = tmp_path / "engine_edited_helper.py"
    module = tmp_path / "engine_edited.py"
    helper.write_text("VALUE = 1\n")
    module.write_text(
        "import engine_edited_helper as helper\n"
        "def answer(x):\n    return ('old', x + helper.VALUE)\n"
    )
    edited: Any = importlib.import_module("engine_edited")
    try:
        assert idle.map(edited.answer, [1]).collect() == [("old", 2)]
        module.write_text(module.read_text().replace("old", "newer"))
        importlib.reload(edited)
        assert idle.map(edited.answer, [1]).collect() == [("newer", 2)]
        helper.write_text("VALUE = 100\n")  # what it imports was edited, and nothing reloaded here
        assert idle.map(edited.answer, [1]).collect() == [("newer", 101)]
    finally:
        sys.modules.pop("engine_edited", None)
        sys.modules.pop("engine_edited_helper", None)


# ---------------------------------------------------------------- refusals


def set_generator(handle: Any) -> None:
    feliss.here()[handle]["visits"] = [1, (x for x in ())]


def set_lock(handle: Any) -> None:
    feliss.here()[handle]["sum"] = {"lock": threading.Lock()}


def set_clean(handle: Any) -> None:
    at = feliss.here()
    at[handle]["visits"] = at[handle]["sum"] = 0


def put_lock(path: str) -> None:
    at = feliss.here()
    at.put(waits_with, threading.Lock(), 5)
    work.touch(path)


def waits_with(lock: Any, number: int) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "path", "kind"),
    [
        (set_generator, r"\['visits'\]\[1\]", "generator"),
        (set_lock, r"\['sum'\]\['lock'\]", "lock"),
    ],
)
def test_state_that_cannot_be_saved_is_refused_by_name(
    idle: feliss.Session, spoil: Any, path: str, kind: str
) -> None:
    state = idle.variable(work.zeros, name="state")
    idle.checkpoint(PATIENCE)
    last = idle.status().checkpoint
    idle.put(spoil, state, rank=1).wait(PATIENCE)
    with pytest.raises(errors.UnpicklableError, match=rf"variable 'state'{path} is a .*{kind}"):
        idle.checkpoint(PATIENCE)
    assert idle.status().checkpoint == last
    assert idle.state == "running"
    assert idle.apply(os.getpid).collect()  # the session goes on
    idle.put(set_clean, state, rank=1).wait(PATIENCE)
    assert idle.checkpoint(PATIENCE).bytes > 0
    del idle["state"]


def test_an_engine_that_joined_later_knows_the_names(idle: feliss.Session) -> None:
    state = idle.variable(work.zeros, name="early")
    state.wait(PATIENCE)
    joined = len(idle.events.of_kind("engine-joined"))
    idle.kill(1, wait=True)
    newest = idle.events.wait_for("engine-joined", joined + 1, PATIENCE).engine
    idle.kill(1, wait=True)
    assert idle._driver.master.routes[1] == newest
    idle.put(set_generator, state, rank=1).wait(PATIENCE)
    with pytest.raises(errors.UnpicklableError, match="variable 'early'"):
        idle.checkpoint(PATIENCE)
    idle.put(set_clean, state, rank=1).wait(PATIENCE)
    del idle["early"]


def test_a_periodic_checkpoint_that_is_refused_says_so_and_the_job_goes_on(
    idle: feliss.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    state = idle.variable(work.zeros, name="periodic")
    idle.put(set_generator, state, rank=1).wait(PATIENCE)
    failed = len(idle.events.of_kind("checkpoint-failed"))
    steps = idle.put(spin_steps, state, rank=0)
    idle.checkpoint_every(0.1)
    try:
        idle.events.wait_for("checkpoint-failed", failed + 1, PATIENCE)
    finally:
        idle.checkpoint_every(None)
    assert steps.state == "running"
    steps.cancel()
    idle.put(set_clean, state, rank=1).wait(PATIENCE)
    assert "variable 'periodic'['visits'][1]" in capsys.readouterr().err
    del idle["periodic"]


def spin_steps(state: Any) -> None:
    feliss.here().put(spin_steps, state)


def test_a_pool_that_cannot_be_saved_names_the_argument(
    idle: feliss.Session, flags: Any, begin_cut: Any
) -> None:
    idle.put(hold_with_lock, flags.path("runs"), flags.path("go"), rank=0)
    flags.wait("runs")
    token = begin_cut(idle)
    flags.set("go")
    with pytest.raises(errors.UnpicklableError, match=r"argument 1 of waits_with is a .*lock"):
        token.result(PATIENCE)
    idle.wait(PATIENCE)


def hold_with_lock(started: str, go: str) -> None:
    feliss.here().put(waits_with, threading.Lock(), 5)
    work.touch_and_wait(started, go)


def send_lock() -> None:
    at = feliss.here()
    at.put(waits_with, {"deep": [threading.Lock()]}, 1, rank=(at.rank + 1) % at.size)


def test_a_put_that_cannot_travel_is_refused(idle: feliss.Session) -> None:
    with pytest.raises(errors.UnpicklableError, match=r"argument 1 of nothing is a generator"):
        idle.put(work.nothing, (x for x in ()), rank=0)
    with pytest.raises(errors.FelissError, match="lock") as caught:
        idle.put(send_lock, rank=0).wait(PATIENCE)
    assert "argument 1 of waits_with['deep'][0] is a lock" in str(caught.value)
    assert "in send_lock" in str(caught.value)


def test_a_result_that_cannot_travel_is_refused(idle: feliss.Session) -> None:
    lock = idle.apply(threading.Lock)
    with pytest.raises(errors.FelissError, match="lock"):
        lock.collect()
    del lock


def test_messages_keep_large_buffers_out_of_the_pickle() -> None:
    array = np.zeros(100_000)
    parcel = wire.Parcel(None, b"", (memoryview(array).cast("B"),), ())
    frames = wire.encode(parcel)
    assert len(frames) == 2
    assert np.shares_memory(np.frombuffer(frames[1], dtype=float), array)
    back = wire.decode(frames)
    assert np.shares_memory(np.frombuffer(back.buffers[0], dtype=float), array)


class Leaves:
    """Neither goes into a pickle nor comes out of one; says so as no object should."""

    def __init__(self, when: str) -> None:
        self.when = when

    def __reduce__(self) -> Any:
        if self.when == "saved":
            raise SystemExit("not saved")
        return sys.exit, ("not read",)


def leave(out: Any, when: str) -> None:
    feliss.here()[out] = Leaves(when)


def test_what_leaves_when_it_is_saved_costs_the_checkpoint_only() -> None:
    with feliss.start(workers=1, checkpoint_every=None) as session:
        out = session.variable(lambda rank, size: 0)
        session.put(leave, out, "saved", rank=0).wait(PATIENCE)
        with pytest.raises(feliss.FelissError, match="not saved"):
            session.checkpoint(PATIENCE)
        session.put(work.set_variable, Target(out.variable), 1, rank=0).wait(PATIENCE)
        session.checkpoint(PATIENCE)
        assert session.epoch == 0  # its engine lives


def test_an_argument_that_leaves_when_it_is_read_ends_its_job_only(idle: feliss.Session) -> None:
    epoch = idle.epoch
    with pytest.raises(feliss.FelissError, match="reading a continuation raised SystemExit"):
        idle.put(repr, Leaves("read"), rank=0).wait(PATIENCE)
    assert idle.epoch == epoch
