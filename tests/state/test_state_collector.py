"""The garbage collector while large streams are read."""

from __future__ import annotations

import gc
import pickle
import threading
from typing import ClassVar

import pytest

from feliss_nb.state import collector
from feliss_nb.state.snapshot import capture, restore


class Spy:
    """Notes, as it is read, whether the collector is on."""

    seen: ClassVar[list[bool]] = []

    def __reduce__(self):
        return note, ()


def note() -> None:
    Spy.seen.append(gc.isenabled())


@pytest.mark.parametrize(("nbytes", "on"), [(100, True), (2 * collector.LEAST, False)])
def test_it_is_off_only_while_a_large_stream_is_read(nbytes, on):
    Spy.seen.clear()
    restore(capture([bytes(nbytes), Spy()]))
    assert Spy.seen == [on]
    assert gc.isenabled()


def test_it_goes_on_when_a_stream_cannot_be_read():
    def broken() -> None:
        with collector.paused(collector.LEAST):
            pickle.loads(b"no pickle")

    with pytest.raises(pickle.UnpicklingError):
        broken()
    assert gc.isenabled()


def test_it_stays_off_where_it_was():
    gc.disable()
    try:
        with collector.paused(collector.LEAST):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_last_of_several_readers_lets_it_go_on():
    inside, go = threading.Event(), threading.Event()

    def other() -> None:
        with collector.paused(collector.LEAST):
            inside.set()
            go.wait()

    thread = threading.Thread(target=other)
    with collector.paused(collector.LEAST):
        thread.start()
        inside.wait()
    assert not gc.isenabled()
    go.set()
    thread.join()
    assert gc.isenabled()
