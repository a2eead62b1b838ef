"""Who is no part of a session can neither deliver a message nor read one, whatever it knows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from feliss_nb.errors import UsageError
from feliss_nb.runtime import doors
from feliss_nb.runtime.doors import Doors, private_directory

PATIENCE = 20_000  # ms


@pytest.fixture(params=["ipc", "tcp"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def private(kind: str, tmp_path: Path) -> Path:
    """The private directory of a session."""
    directory = tmp_path / "s"
    directory.mkdir(mode=0o700)
    doors.prepare(directory, kind)
    return directory


Process = tuple[Doors, Callable[[int], Any]]


@pytest.fixture
def process(private: Path) -> Iterator[Callable[[], Process]]:
    """``process()`` gives the doors of a process of the session, and a way to make sockets."""
    made: list[tuple[Doors, zmq.Context[Any], list[Any]]] = []

    def make() -> Process:
        context: zmq.Context[Any] = zmq.Context()
        sockets: list[Any] = []
        found = Doors(context, private)

        def socket(how: int) -> Any:
            sockets.append(context.socket(how))
            sockets[-1].linger = 0
            return sockets[-1]

        made.append((found, context, sockets))
        return found, socket

    yield make
    for found, context, sockets in made:
        for each in sockets:
            each.close(0)
        found.close()
        context.term()


@pytest.fixture
def raw() -> Iterator[Callable[[int], Any]]:
    """``raw(kind)`` gives a socket of nobody's."""
    with zmq.Context() as context:
        sockets: list[Any] = []

        def make(how: int) -> Any:
            sockets.append(context.socket(how))
            sockets[-1].linger = 0
            return sockets[-1]

        yield make
        for each in sockets:
            each.close(0)


def address(private: Path, kind: str, name: str) -> str:
    if kind == "ipc":
        return f"ipc://{private / name}"
    door = json.loads((private / name).read_text())
    return f"tcp://{door['host']}:{door['port']}"


def strangers(private: Path, kind: str, name: str, raw: Any, how: int) -> list[Any]:
    """Clients that know the address, each with another idea of what to show."""
    found = [raw(how) for _ in range(3)]
    found[1].plain_username, found[1].plain_password = b"feliss", b"0" * 64
    public, private_key = zmq.curve_keypair()
    found[2].curve_publickey, found[2].curve_secretkey = public, private_key
    server = json.loads((private / name).read_text())["key"].encode() if kind == "tcp" else public
    found[2].curve_serverkey = server
    for each in found:
        if how == zmq.DEALER:
            each.identity = b"3"
        each.connect(address(private, kind, name))
    return found


def test_a_stranger_can_deliver_nothing(
    private: Path, kind: str, process: Any, raw: Any, eventually: Any
) -> None:
    mine, make = process()
    inbox = make(zmq.PULL)
    mine.bind(inbox, "data-1")
    for stranger in strangers(private, kind, "data-1", raw, zmq.PUSH):
        stranger.send(b"of a stranger")
    eventually(lambda: mine.refused >= 3, 20.0, "three strangers were refused")
    other, make_other = process()
    peer = make_other(zmq.PUSH)
    other.connect(peer, "data-1")
    peer.send(b"of a peer")
    assert inbox.poll(PATIENCE)
    assert inbox.recv() == b"of a peer"
    assert not inbox.poll(0)


def test_a_stranger_can_read_nothing(
    private: Path, kind: str, process: Any, raw: Any, eventually: Any
) -> None:
    mine, make = process()
    router = make(zmq.ROUTER)
    mine.bind(router, "master-1")
    found = strangers(private, kind, "master-1", raw, zmq.DEALER)
    eventually(lambda: mine.refused >= 3, 20.0, "three strangers were refused")
    router.send_multipart([b"3", b"nobody hears this"])
    other, make_other = process()
    engine = make_other(zmq.DEALER)
    engine.identity = b"3"
    other.connect(engine, "master-1")
    engine.send(b"here")
    assert router.poll(PATIENCE)
    assert router.recv_multipart() == [b"3", b"here"]
    router.send_multipart([b"3", b"for the engine"])
    assert engine.poll(PATIENCE)
    assert engine.recv() == b"for the engine"
    assert not any(stranger.poll(0) for stranger in found)


def test_who_has_gone_is_not_let_in_again(
    private: Path, kind: str, process: Any, eventually: Any
) -> None:
    """Its public key, known or not, opens nothing."""
    if kind == "ipc":
        pytest.skip("there is one secret only")
    mine, make = process()
    inbox = make(zmq.PULL)
    mine.bind(inbox, "data-1")
    gone, make_other = process()
    for path in private.glob("key-*"):
        path.unlink()
    peer = make_other(zmq.PUSH)
    gone.connect(peer, "data-1")
    eventually(lambda: mine.refused >= 1, 20.0, "it was refused")


def test_it_is_seen_whether_somebody_listens(private: Path, process: Any) -> None:
    mine, make = process()
    assert not mine.is_there("data-1")
    inbox = make(zmq.PULL)
    mine.bind(inbox, "data-1")
    assert mine.is_there("data-1")


def test_what_opens_the_doors_is_the_users_alone(private: Path, process: Any) -> None:
    process()
    assert {path.stat().st_mode & 0o777 for path in private.iterdir()} == {0o600}
    assert all(path.stat().st_uid == os.geteuid() for path in private.iterdir())


def test_an_unknown_kind_of_sockets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(doors.SOCKETS, "udp")
    with pytest.raises(UsageError, match="udp"):
        private_directory()
