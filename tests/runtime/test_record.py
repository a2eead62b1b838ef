"""The record of a named session: whole or cut short, damaged, taken away, on a full disk."""

from __future__ import annotations

import errno
import os
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from feliss_nb.core import events as ev
from feliss_nb.core import messages as m
from feliss_nb.core.master import Master
from feliss_nb.core.seat import Seat
from feliss_nb.errors import CorruptSnapshot, SessionTaken, StoreError, UsageError
from feliss_nb.runtime import claims, events, replaying, wire
from feliss_nb.runtime.events import EventLog
from feliss_nb.runtime.record import Record


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(claims.STATE, str(tmp_path))
    return tmp_path


def submit(label: str) -> ev.Submit:
    work = wire.Parcel(None, b"x" * 10, (b"y" * 100_000,), ())
    return ev.Submit(Future(), label, ((0, work, ()),))


class Written:
    """A seat with one rank, and its record."""

    def __init__(self, name: str = "mine") -> None:
        self.directory, term = claims.begin(name)
        self.record = Record(name, self.directory, term)
        self.seat = Seat(Master(copies=0))
        self.seat.handle(ev.Start(("0",), 1))
        self.record.note("about", {"seed": 7})
        self.record.renew(self.seat, {})

    def restore_all(self) -> None:
        restored = m.Restored(0, 1, 0)
        self.record.message("0", wire.encode(wire.Numbered(1, 0, restored)))
        self.seat.hear("0", restored, 1)

    def submit(self, label: str) -> None:
        event = submit(label)
        self.record.submission(event, [], {("name", label): (3, True)})
        self.seat.handle(event)

    def wait(self) -> None:
        event = ev.Wait(Future(), None)
        self.record.event(event)
        self.seat.handle(event)

    @property
    def path(self) -> Path:
        [path] = self.directory.glob("record-*")
        return path


def labels(found: replaying.Found | None) -> list[str]:
    assert found is not None
    return [job.label for job in found.seat.master.jobs.values()]


@pytest.mark.usefixtures("home")
def test_what_is_written_comes_to_the_same() -> None:
    written = Written()
    written.restore_all()
    written.submit("one")
    written.wait()
    written.submit("two")
    found = replaying.read(written.directory)
    assert found is not None
    assert labels(found) == ["one", "two"]
    assert found.notes == {"about": {"seed": 7}, ("name", "one"): (3, True)} | {
        ("name", "two"): (3, True)
    }
    mine, again = written.seat.link("0"), found.seat.link("0")
    assert (mine.sent, mine.heard) == (again.sent, again.heard)
    assert [n for n, _ in mine.kept] == [n for n, _ in again.kept]
    assert len(found.seat.master.waits) == 1
    [(_, work)] = [(r, start.work) for r, start in found.seat.master.jobs[1].starts]
    assert bytes(work.buffers[0]) == b"y" * 100_000
    # An image says the same, and is all that is there then.
    written.record.renew(written.seat, {})
    assert labels(replaying.read(written.directory)) == ["one", "two"]
    assert {path.stat().st_mode & 0o777 for path in written.directory.iterdir()} == {0o600}
    assert written.directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("home")
def test_a_record_that_ends_in_the_middle_of_a_piece_holds_what_came_before() -> None:
    written = Written()
    written.restore_all()
    written.submit("one")
    whole = written.path.stat().st_size
    written.submit("two")
    data = written.path.read_bytes()
    for end in [*range(whole, whole + 200), *range(whole + 200, len(data), 5003)]:
        assert labels(replaying.replay(memoryview(data[:end]), "it")) == ["one"]
    # A page of zeros in the place of what was not written to the disk.
    torn = data[: whole + 50] + bytes(len(data) - whole - 50)
    with pytest.raises(CorruptSnapshot):
        replaying.replay(memoryview(data[:300] + b"\0" + data[301:]), "it")
    assert labels(replaying.replay(memoryview(torn[: whole + 60]), "it")) == ["one"]
    with pytest.raises(CorruptSnapshot, match="holds nothing"):
        replaying.replay(memoryview(b""), "it")


@pytest.mark.usefixtures("home")
def test_a_master_whose_place_was_taken_hears_of_it() -> None:
    written = Written()
    with pytest.raises(UsageError, match="this process"):
        claims.take("mine", force=False)
    _, term = claims.take("mine", force=True)
    assert term == 2
    with pytest.raises(SessionTaken, match="took it over"):
        written.submit("one")
    with pytest.raises(SessionTaken):
        written.record.renew(written.seat, {})
    written.record.remove()
    assert written.directory.exists()  # it is another's
    claims.give_back(written.directory, term)
    assert claims.take("mine", force=False)[1] == 3


@pytest.mark.usefixtures("home")
def test_a_submission_that_a_full_disk_does_not_take_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = Written()
    written.restore_all()
    written.submit("one")
    write, room = os.writev, [50]

    def full(fd: int, views: list[Any]) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = write(fd, [views[0][: room[0]]])
        room[0] -= done
        return done

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        with pytest.raises(StoreError, match="was not taken"):
            written.submit("two")
    with pytest.raises(StoreError):  # until there is an image, it does not hold everything
        written.submit("three")
    assert labels(replaying.read(written.directory)) == ["one"]
    written.record.renew(written.seat, {})
    written.submit("four")
    assert labels(replaying.read(written.directory)) == ["one", "four"]


@pytest.mark.usefixtures("home")
def test_what_others_can_write_is_not_read() -> None:
    written = Written()
    written.path.chmod(0o666)
    with pytest.raises(UsageError, match="not yours alone"):
        replaying.read(written.directory)
    written.path.chmod(0o600)
    written.directory.chmod(0o777)
    with pytest.raises(UsageError, match="others can write"):
        replaying.read(written.directory)
    written.directory.chmod(0o700)


@pytest.mark.parametrize("name", ["a/b", "..", ".", "Größe", "a b", "%2F"])
def test_any_text_is_a_name_and_stays_inside(home: Path, name: str) -> None:
    directory = claims.directory_of(name)
    assert directory.parent == home / "sessions"
    assert not directory.name.startswith(".")


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("name", ["", None, 3, "x" * 300])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(UsageError, match="name"):
        claims.directory_of(name)


@pytest.mark.usefixtures("home")
def test_there_is_nothing_to_take() -> None:
    with pytest.raises(UsageError, match=r"no session named 'mine'.*there are none"):
        claims.take("mine", force=False)


def test_events_go_from_process_to_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = EventLog()
    first.add("started", routes={0: "1", 1: "2"})
    first.keep(tmp_path, 1)
    first.add("lost", ranks={1, 0}, error=ValueError("an error"))
    with open(tmp_path / "events-1", "a") as file:
        file.write('["cut sho')  # it ended while it wrote
    second = EventLog()
    second.go_on(tmp_path, 100.0)
    assert [event.kind for event in second] == ["started", "lost"]
    assert second[0].routes == {0: "1", 1: "2"}
    assert second[1].data == {"ranks": [0, 1], "error": "an error"}
    assert second.add("resumed").at >= 100.0
    second.keep(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["events-2"]
    # It does not grow for ever.
    monkeypatch.setattr(events, "LARGEST", 1000)
    monkeypatch.setattr(events, "KEPT", 5)
    second.keep(tmp_path, 2)
    for number in range(100):
        second.add("mapped", number=number)
    assert (tmp_path / "events-2").stat().st_size < 2000
    second.close()
    third = EventLog()
    third.go_on(tmp_path, 0.0)
    assert third[-1].number == 99
