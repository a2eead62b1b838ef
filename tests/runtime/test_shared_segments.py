"""Segments and the leases on them: two readers and an owner, all in this process."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from feliss_nb.runtime.mappings import Mappings
from feliss_nb.runtime.segments import Segments, Trial
from feliss_nb.runtime.shared import Limits

KB = 1024


def memory_files() -> list[str]:
    """The anonymous files that this process has open or maps."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(entry))
        except OSError:
            continue
    found += Path("/proc/self/maps").read_text().splitlines()
    return [line for line in found if "/memfd:feliss" in line]


class Pair:
    """An owner, and readers that have met it."""

    def __init__(self, limits: Limits, readers: tuple[str, ...] = ("b", "c")) -> None:
        self.now = 0.0
        self.segments = Segments(lambda: self.now, limits)
        self.trial = Trial(self.segments.token)
        self.readers = {name: Mappings(limits) for name in readers}
        for name in readers:
            self.meet(name)

    def meet(self, name: str) -> None:
        slot = self.segments.slot(name)
        about = os.getpid(), self.trial.fd, self.segments.token
        assert self.readers[name].meet("a", *about, slot)

    def send(self, name: str, frames: list[Any]) -> list[Any]:
        """What a reader gets of frames; through the socket where they lie in no segment."""
        lies = self.segments.refer(name, frames)
        if lies is None:
            return [bytes(frame) for frame in frames]
        found = self.readers[name].take("a", *lies)
        assert found is not None
        return found

    def close(self) -> None:
        self.segments.close()
        self.trial.close()


@pytest.fixture
def pair():
    made = Pair(Limits(least=KB, nbytes=1 << 20, spare=1 << 20, segments=8, held=4))
    yield made
    made.close()


def test_what_is_read_is_where_it_was_written(pair):
    sent = pair.segments.fresh([b"head", np.arange(1000.0), b""])
    got = pair.send("b", sent)
    assert bytes(got[0]) == b"head"
    array = np.frombuffer(got[1], float)
    assert (array == np.arange(1000.0)).all()
    assert array.ctypes.data % 64 == 0
    assert array.flags.writeable
    assert bytes(got[2]) == b""
    array[3] = -1.0  # one memory, mapped twice: the sender gave it away
    assert np.frombuffer(sent[1], float)[3] == -1.0


def test_what_several_may_read_nobody_may_write(pair):
    frames = pair.segments.fresh([np.ones(1000)], shared=True)
    for got in [frames, pair.send("b", frames), pair.send("c", frames)]:
        assert got[0].readonly
        assert np.frombuffer(got[0]).sum() == 1000


def test_a_segment_is_used_again_when_all_are_done_with_it(pair):
    frames = pair.segments.fresh([bytes(4000)], shared=True)
    one, two = pair.send("b", frames), pair.send("c", frames)
    for holder in (frames, one, two):
        pair.segments.fresh([bytes(4000)])
        assert pair.segments.nbytes() == 2 * 4032  # the second of them again and again
        holder.clear()
    pair.segments.fresh([bytes(4000)])
    first = pair.segments.fresh([bytes(4000)])
    second = pair.segments.fresh([bytes(4000)])
    assert pair.segments.nbytes() == 2 * 4032
    assert first[0].obj is not second[0].obj


def test_a_slice_of_an_array_keeps_the_memory(pair):
    array = np.frombuffer(pair.send("b", pair.segments.fresh([np.arange(1000.0)]))[0], float)
    part = array[10:20].reshape(2, 5)
    del array
    for _ in range(3):
        pair.segments.fresh([np.zeros(1000)])
    assert (part.ravel() == np.arange(10, 20)).all()


def test_where_there_is_no_room_the_memory_is_ordinary(pair):
    held = [pair.segments.fresh([bytes(4000)]) for _ in range(12)]
    assert [pair.segments.refer("b", frames) is not None for frames in held] == [True] * 8 + [
        False
    ] * 4
    assert all(bytes(frames[0]) == bytes(4000) for frames in held)
    assert pair.segments.refer("b", pair.segments.fresh([bytes(100)])) is None  # not worth it
    assert pair.segments.refer("b", pair.segments.fresh([bytes(2 << 20)])) is None  # too large


def test_who_holds_many_gets_copies_so_that_the_owner_has_room(pair):
    held = []
    for _ in range(20):
        held.append(pair.send("b", pair.segments.fresh([np.ones(1000)])))
    assert pair.segments.nbytes() <= 8 * 8064
    assert all(np.frombuffer(frames[0]).sum() == 1000 for frames in held)
    assert all(not memoryview(frames[0]).readonly for frames in held)


def test_idle_memory_is_given_back_by_all(pair):
    array = np.frombuffer(pair.send("b", pair.segments.fresh([np.ones(1000)]))[0], float)
    pair.send("c", pair.segments.fresh([np.ones(3000)]))
    pair.now = 100.0
    pair.segments.tidy()
    assert pair.segments.nbytes() == 8000  # what somebody reads stays
    assert array.sum() == 1000
    del array
    pair.segments.tidy()
    assert pair.segments.nbytes() == 8000  # it idles since now
    pair.now = 200.0
    pair.segments.tidy()
    assert pair.segments.nbytes() == 0
    for reader in pair.readers.values():
        reader.tidy()
    gc.collect()
    assert len(memory_files()) == 1  # the one for trial


def test_more_than_is_kept_is_given_back_at_once(pair):
    pair.segments.limits.spare = 5000
    held = [pair.segments.fresh([bytes(4000)]) for _ in range(4)]
    pair.segments.tidy()
    assert pair.segments.nbytes() == 4 * 4032
    held.clear()
    pair.segments.tidy()
    assert pair.segments.nbytes() == 4032


def test_two_snapshots_take_turns_however_long_each_is_kept(pair):
    pair.segments.limits.spare = 0
    kept = pair.segments.fresh([bytes(4000)], shared=True)
    used = {kept[0].obj.segment.number}
    for _ in range(5):
        new = pair.segments.fresh([bytes(4000)], shared=True)
        used.add(new[0].obj.segment.number)
        kept = new
        pair.now += 100.0
        pair.segments.tidy()
    assert used == {0, 1}
    del kept, new
    pair.now += 100.0
    pair.segments.tidy()
    assert pair.segments.nbytes() == 0


def test_an_engine_that_ended_holds_nothing(pair):
    lost = pair.send("b", pair.segments.fresh([np.ones(1000)]))
    pair.segments.forget("b")
    pair.segments.fresh([np.zeros(1000)])
    assert pair.segments.nbytes() == 8000
    pair.meet("b")  # another one of that name
    assert np.frombuffer(pair.send("b", pair.segments.fresh([np.ones(1000)]))[0]).sum() == 1000
    lost.clear()  # what the old one gives back is not the new one's
    held = pair.send("b", pair.segments.fresh([np.full(1000, 7.0)]))
    pair.segments.fresh([np.zeros(1000)])
    assert np.frombuffer(held[0])[0] == 7.0


def test_what_an_ended_owner_sent_is_still_there(pair):
    held = pair.send("b", pair.segments.fresh([np.full(1000, 7.0)]))
    lies = pair.segments.refer("b", pair.segments.fresh([np.ones(9000)]))
    pair.close()
    assert pair.readers["b"].take("a", *lies) is None  # its file is gone
    pair.readers["b"].forget("a")
    assert pair.readers["b"].take("a", *lies) is None
    assert np.frombuffer(held[0])[0] == 7.0
    held.clear()


def test_nobody_reads_from_who_is_not_what_it_says(pair):
    reader = Mappings()
    about = os.getpid(), pair.trial.fd
    assert not reader.meet("a", *about, bytes(16), 1)
    assert not reader.meet("a", 1 << 22, pair.trial.fd, pair.segments.token, 1)
    assert reader.meet("a", *about, pair.segments.token, 1)


def test_threads_send_read_and_tidy_at_once():
    made = Pair(Limits(least=KB, nbytes=1 << 20, spare=0, segments=16, held=4, idle=0.0))
    queues: dict[str, SimpleQueue[Any]] = {"b": SimpleQueue(), "c": SimpleQueue()}
    stop = threading.Event()
    wrong: list[Any] = []

    def read(name: str) -> None:
        kept = []
        while (message := queues[name].get()) is not None:
            fill, lies, plain = message
            (frame,) = made.readers[name].take("a", *lies) if lies else plain
            kept.append((fill, np.frombuffer(frame, np.uint8)))
            wrong.extend(fill for fill, array in kept if not (array == fill).all())
            del kept[: fill % 7]

    def tidy() -> None:
        while not stop.is_set():
            made.segments.tidy()
            for reader in made.readers.values():
                reader.tidy()

    def guarded(function: Any, *args: Any) -> None:
        try:
            function(*args)
        except BaseException as error:
            wrong.append(error)
            raise

    threads = [threading.Thread(target=guarded, args=(read, name)) for name in queues]
    threads.append(threading.Thread(target=guarded, args=(tidy,)))
    for thread in threads:
        thread.start()
    for number in range(1500):
        fill = number % 251
        size = KB << number % 5
        frames = made.segments.fresh([np.full(size, fill, np.uint8)], shared=True)
        for name, queue in queues.items():
            queue.put((fill, made.segments.refer(name, frames), [bytes(frames[0])]))
        del frames
    for queue in queues.values():
        queue.put(None)
    for thread in threads[:2]:
        thread.join()
    stop.set()
    threads[2].join()
    assert not wrong
    made.close()


class Leases(RuleBasedStateMachine):
    """Whatever is sent, kept, dropped and forgotten: nobody's memory changes under them."""

    def __init__(self) -> None:
        super().__init__()
        limits = Limits(least=512, nbytes=64 * KB, spare=32 * KB, segments=5, held=3, idle=10.0)
        self.pair = Pair(limits)
        self.count = 0
        #: what somebody refers to, and the number that fills it
        self.held: list[tuple[list[Any], int]] = []

    @rule(
        sizes=st.lists(st.integers(0, 6 * KB), min_size=1, max_size=3),
        to=st.lists(st.sampled_from(["b", "c"]), max_size=2, unique=True),
        shared=st.booleans(),
        keep=st.booleans(),
    )
    def send(self, sizes: list[int], to: list[str], shared: bool, keep: bool) -> None:
        self.count += 1
        fill = self.count % 251
        frames = self.pair.segments.fresh([np.full(s, fill, np.uint8) for s in sizes], shared)
        for name in to if shared else to[:1]:
            self.held.append((self.pair.send(name, frames), fill))
        if keep and (shared or not to):
            self.held.append((frames, fill))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def drop(self, data: Any) -> None:
        self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))

    @rule(seconds=st.sampled_from([0.0, 1.0, 20.0]))
    def tidy(self, seconds: float) -> None:
        self.pair.now += seconds
        self.pair.segments.tidy()
        for reader in self.pair.readers.values():
            reader.tidy()

    @invariant()
    def nothing_changed(self) -> None:
        for frames, fill in self.held:
            for frame in frames:
                assert not len(frame) or (np.frombuffer(frame, np.uint8) == fill).all()

    @invariant()
    def it_is_bounded(self) -> None:
        everything = self.pair.segments._all()
        assert len(everything) <= 5
        assert self.pair.segments.nbytes() <= 64 * KB

    def teardown(self) -> None:
        self.held.clear()
        self.tidy(1000.0)
        assert self.pair.segments.nbytes() == 0
        self.pair.close()
        gc.collect()
        assert memory_files() == []


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=25, stateful_step_count=40)
