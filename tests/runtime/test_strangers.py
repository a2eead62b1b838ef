"""What is not as it was written is dropped or refused: no reader fails, and nothing is executed.

Frames and files are changed at random: bits, bytes, lengths, and a pickle that would leave a trace.
"""

from __future__ import annotations

import os
import pickle
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from feliss_nb.core import events as ev
from feliss_nb.core import messages as m
from feliss_nb.core.master import Master
from feliss_nb.core.seat import Seat
from feliss_nb.errors import CorruptSnapshot, FelissError
from feliss_nb.runtime import claims, doors, replaying, wire
from feliss_nb.runtime.doors import Doors
from feliss_nb.runtime.events import EventLog
from feliss_nb.runtime.peers import LOST, Peers
from feliss_nb.runtime.record import Record
from feliss_nb.state.snapshot import capture, frames, from_frames, restore
from feliss_nb.store import FileStore
from feliss_nb.store import Record as Kept
from feliss_nb.store.manifest import make

executed: list[str] = []


class Trap:
    """A pickle that leaves a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return executed.append, ("here",)


TRAP = pickle.dumps(Trap())


@pytest.fixture(autouse=True)
def nothing_is_executed() -> Iterator[None]:
    executed.clear()
    yield
    assert executed == []


@st.composite
def changes(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Draw a change of some bytes: it may come to nothing."""
    kind = draw(st.sampled_from(["flip", "byte", "cut", "longer", "insert", "trap", "trap at"]))
    where, number = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(0, 255))

    def change(data: bytes) -> bytes:
        at = int(where * len(data))
        if kind == "flip" and data:
            return data[:at] + bytes([data[at] ^ (1 << number % 8)]) + data[at + 1 :]
        if kind == "byte" and data:
            return data[:at] + bytes([number]) + data[at + 1 :]
        if kind == "cut":
            return data[:at]
        if kind == "longer":
            return data + bytes([number]) * (1 + number)
        if kind == "insert":
            return data[:at] + bytes([number]) + data[at:]
        if kind == "trap":
            return TRAP
        return data[:at] + TRAP + data[at:]

    return change


# ---------------------------------------------------------------- frames


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("private")
    directory.chmod(0o700)
    doors.prepare(directory, "ipc")
    return directory


@pytest.fixture(scope="module")
def door(private: Path) -> Iterator[Doors]:
    with zmq.Context() as context:
        found = Doors(context, private)
        yield found
        found.close()


MESSAGE = wire.Numbered(7, 3, m.Output(1, 2, 0, 4, b"digest", wire.Body((b"x" * 100_000, b"y"))))


@given(change=changes(), which=st.integers(0, 1))
def test_a_message_that_was_changed_is_not_read(door: Doors, change: Any, which: int) -> None:
    sealed = [bytes(frame) for frame in door.seal(wire.encode(MESSAGE))]
    assert len(sealed) == 2
    whole = door.open(sealed)
    assert whole is not None
    assert wire.decode(whole) is not None
    before = door.dropped
    forged = list(sealed)
    forged[which] = change(sealed[which])
    same_sizes = list(map(len, forged)) == list(map(len, sealed))
    if forged[0] == sealed[0] and same_sizes:
        return  # what is not unpickled has a digest of its own
    assert door.open(forged) is None
    assert door.open(forged[:1]) is None
    assert door.dropped == before + 2


@given(data=st.lists(st.binary(max_size=200), min_size=1, max_size=4))
def test_noise_is_not_read(door: Doors, data: list[bytes]) -> None:
    assert door.open(data) is None
    assert door.open([TRAP, *data]) is None


def test_the_inbox_of_an_engine_goes_on(private: Path, door: Doors) -> None:
    """Noise, changed, repeated and missing messages among good ones, by who could connect."""
    rng = random.Random(1)
    with zmq.Context() as context:
        mine = Doors(context, private)
        peers = Peers(context, mine, "7")
        inbox = peers.bind()
        got: list[Any] = []

        def listen() -> None:
            while (found := peers.receive(inbox)) is not None:
                got.append(found[0])
            inbox.close(0)

        thread = threading.Thread(target=listen)
        thread.start()
        with zmq.Context() as other:
            with_key = Doors(other, private)
            socket = other.socket(zmq.PUSH)
            with_key.connect(socket, "data-7")
            expected: list[Any] = []

            def sealed(number: int) -> list[bytes]:
                head = pickle.dumps(("8", number, ("text", number)), 5)
                return with_key.seal([head, b"a buffer"])

            dropped = 0
            for number in range(1, 101):
                good = sealed(number)
                for _ in range(5):
                    noise = rng.randbytes(rng.randrange(300))
                    bad = rng.choice(
                        [
                            [noise],
                            [TRAP, noise],
                            [good[0][:-1], good[1]],
                            [good[0][: rng.randrange(len(good[0]))] + TRAP, good[1]],
                            [good[0]],
                            [*good, noise],
                            [good[0], good[1] + b"."],
                            [b""],
                        ]
                    )
                    socket.send_multipart(bad)
                    dropped += 1
                socket.send_multipart(good)
                expected.append(("text", number))
                socket.send_multipart(good)  # again
                dropped += 1
            socket.send_multipart(sealed(102))
            expected.append((LOST, "8"))
            socket.send_multipart(sealed(103))
            expected.append(("text", 103))
            socket.close(20_000)
            with_key.close()
        peers_end = threading.Event()

        def all_here() -> bool:
            return len(got) == len(expected)

        deadline = 2000
        while not all_here() and deadline:
            peers_end.wait(0.01)
            deadline -= 1
        peers.close()
        thread.join(20.0)
        assert got == expected
        assert mine.dropped == dropped
        mine.close()


# ---------------------------------------------------------------- files


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, int]:
    """A record of some jobs, and how many there are."""
    home = tmp_path_factory.mktemp("state")
    old = os.environ.get(claims.STATE)
    os.environ[claims.STATE] = str(home)
    try:
        directory, term = claims.begin("mine")
        written, seat = Record("mine", directory, term), Seat(Master(copies=0))
        seat.handle(ev.Start(("0",), 1))
        written.renew(seat, {})
        for number in range(5):
            work = wire.Parcel(None, b"x" * 10, (b"y" * 20_000,), ())
            event = ev.Submit(Future(), f"job {number}", ((0, work, ()),))
            written.submission(event, [], {("name", str(number)): (number, True)})
            seat.handle(event)
        [path] = directory.glob("record-*")
        data = path.read_bytes()
        written.close()
    finally:
        if old is None:
            del os.environ[claims.STATE]
        else:
            os.environ[claims.STATE] = old
    return data, 5


@settings(max_examples=200)
@given(change=changes())
def test_a_record_that_was_changed_is_refused_or_cut(
    recorded: tuple[bytes, int], change: Any
) -> None:
    data, jobs = recorded
    changed = change(data)
    try:
        found = replaying.replay(memoryview(changed), "it")
    except CorruptSnapshot:
        return
    labels = [job.label for job in found.seat.master.jobs.values()]
    assert labels == [f"job {number}" for number in range(len(labels))]
    if changed != data and len(labels) < jobs:  # only the end may be missing, and only if it is
        assert data.startswith(changed) or len(labels) == jobs - 1


@settings(max_examples=200)
@given(change=changes())
@pytest.mark.parametrize("name", ["owner", "status.json", "events-1"])
def test_what_is_read_of_a_session_is_no_program(
    tmp_path_factory: pytest.TempPathFactory, name: str, change: Any
) -> None:
    directory = tmp_path_factory.mktemp("session")
    texts = {
        "owner": '{"term": 3, "pid": 12, "started": 1.5}',
        "status.json": '{"state": "running", "engines": {"0": [12, 1.5]}, "directories": []}',
        "events-1": '["started", 0.5, {"routes": {"0": "1"}}]\n' * 3,
    }
    (directory / name).write_bytes(change(texts[name].encode()))
    try:
        claims.read_owner(directory)
    except CorruptSnapshot:
        assert name == "owner"
    assert isinstance(claims.read_status(directory), dict)
    log = EventLog()
    log.go_on(directory, 0.0)
    assert len(log) <= 4


STATE = {"numbers": list(range(1000)), "text": "some text " * 100, "array": bytearray(70_000)}


@settings(max_examples=200)
@given(change=changes(), which=st.integers(0, 10))
def test_a_snapshot_that_was_changed_is_refused(change: Any, which: int) -> None:
    whole = [bytes(frame) for frame in frames(capture(STATE, label="it"))]
    which %= len(whole)
    changed = list(whole)
    changed[which] = change(whole[which])
    if changed == whole:
        return
    with pytest.raises(CorruptSnapshot):
        restore(from_frames(changed))


@pytest.mark.filterwarnings("ignore::feliss_nb.errors.StoreWarning")
@settings(max_examples=100)
@given(change=changes(), which=st.integers(0, 10))
def test_a_store_whose_files_were_changed_says_so(
    tmp_path_factory: pytest.TempPathFactory, change: Any, which: int
) -> None:
    place = tmp_path_factory.mktemp("store")
    place.chmod(0o700)
    store = FileStore(place)
    kept: Kept = store.put(1, 0, list(frames(capture(STATE, label="it"))))
    store.commit(make(1, [kept]))
    files = sorted(path for path in place.rglob("*") if path.is_file())
    path = files[which % len(files)]
    old = path.read_bytes()
    path.write_bytes(change(old))
    try:
        for number in [manifest.checkpoint for manifest in store.manifests()]:
            found = restore(from_frames(store.get(number, 0)))
            assert found == STATE
    except FelissError:
        assert path.read_bytes() != old
