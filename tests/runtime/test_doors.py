"""Who is no part of a session can neither deliver a message nor read one, whatever it knows."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
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
        # One that was refused already has nobody to send to, and would wait for ever.
        with contextlib.suppress(zmq.Again):
            stranger.send(b"of a stranger", zmq.NOBLOCK)
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


def knock(private: Path, kind: str, name: str, data: bytes) -> None:
    """Send bytes to a socket; return when it has closed the connection."""
    if kind == "ipc":
        stranger = socket.socket(socket.AF_UNIX)
        where: Any = str(private / name)
    else:
        stranger = socket.socket(socket.AF_INET)
        door = json.loads((private / name).read_text())
        where = door["host"], door["port"]
    with stranger:
        stranger.settimeout(PATIENCE / 1000)
        stranger.connect(where)
        stranger.sendall(data)
        try:
            while stranger.recv(4096):  # its greeting
                pass
        except ConnectionResetError:
            return


@pytest.mark.parametrize("size", [doors.LARGEST + 100, 1 << 62])
def test_a_frame_that_is_too_large_is_refused_before_it_comes(
    private: Path, kind: str, process: Any, eventually: Any, size: int
) -> None:
    mine, make = process()
    inbox = make(zmq.PULL)
    mine.bind(inbox, "data-1")
    mechanism = b"CURVE" if kind == "tcp" else b"PLAIN"
    greeting = b"\xff" + bytes(8) + b"\x7f\3\0" + mechanism.ljust(20, b"\0") + bytes(32)
    for _ in range(3):  # a command that is that long, and its beginning
        knock(private, kind, "data-1", greeting + b"\6" + struct.pack(">Q", size) + b"x" * 100)
    eventually(lambda: mine.refused == 3, 20.0, "three strangers were refused")
    other, make_other = process()
    peer = make_other(zmq.PUSH)
    other.connect(peer, "data-1")
    peer.send(b"of a peer")
    assert inbox.poll(PATIENCE)
    assert inbox.recv() == b"of a peer"
    assert mine.refused == 3


def test_a_frame_of_ours_that_is_too_large_comes_in_pieces(
    private: Path, process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "LARGEST", 1000)
    mine, make = process()
    inbox = make(zmq.PULL)
    mine.bind(inbox, "data-1")
    other, make_other = process()
    peer = make_other(zmq.PUSH)
    other.connect(peer, "data-1")
    for size in (0, 1, 983, 984, 985, 999, 1000, 1001, 2000, 12_345):
        message = [os.urandom(size), os.urandom(size), b"", os.urandom(5000)]
        peer.send_multipart(other.seal(message))
        assert inbox.poll(PATIENCE)
        pieces = inbox.recv_multipart()
        assert max(map(len, pieces)) <= 1000
        assert mine.open(pieces[:-1]) is None
        assert [bytes(frame) for frame in mine.open(pieces) or ()] == message
    peer.send(os.urandom(1100))  # from one who knows the secret, too
    for _ in range(PATIENCE // 100):  # what follows on that connection may end with it
        peer.send(b"the next one")
        if inbox.poll(100):
            break
    assert inbox.recv() == b"the next one"


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
