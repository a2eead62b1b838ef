"""A real session: strangers at every socket, and sockets on addresses with CURVE."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

import feliss_nb as feliss
from feliss_nb.runtime import doors
from feliss_nb.runtime.owner import processes_in

PATIENCE = 60.0


class Trap:
    """A pickle that leaves a trace where it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


@pytest.fixture(scope="module", params=["ipc", "tcp"])
def session(request: pytest.FixtureRequest) -> Iterator[feliss.Session]:
    """A session with its sockets in files, and one with them on addresses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(doors.SOCKETS, request.param)
        found = feliss.start(workers=2, spares=1, checkpoint_every=None)
    with found:
        yield found


def addresses(session: feliss.Session) -> list[str]:
    """Every address of the session's own sockets."""
    directory = Path(session._cluster.directory)
    found = []
    for path in sorted([*directory.glob("data-*"), *directory.glob("master-*")]):
        if path.is_socket():
            found.append(f"ipc://{path}")
        else:
            door = json.loads(path.read_text())
            found.append(f"tcp://{door['host']}:{door['port']}")
    return found


def test_a_raw_client_can_neither_deliver_nor_read(
    session: feliss.Session, tmp_path: Path, eventually: Any
) -> None:
    known = addresses(session)
    assert len(known) == 4
    traces = [tmp_path / str(number) for number in range(len(known))]
    with zmq.Context() as context:
        sockets = []
        for address, trace in zip(known, traces, strict=True):
            for kind in (zmq.PUSH, zmq.DEALER):
                sockets.append(context.socket(kind))
                sockets[-1].linger = 0
                if kind == zmq.DEALER:
                    sockets[-1].identity = b"0"  # as an engine is called
                sockets[-1].connect(address)
                for frames in ([pickle.dumps(Trap(str(trace)))], [b""], [os.urandom(1000)]):
                    # One that was refused already has nobody to send to, and would wait for ever.
                    with contextlib.suppress(zmq.Again):
                        sockets[-1].send_multipart(frames, zmq.NOBLOCK)

        def all_refuse() -> bool:
            kept_out = session._driver._kept_out
            return len(kept_out) == 4 and all(refused for refused, _ in kept_out.values())

        eventually(all_refuse, PATIENCE, "a stranger was refused at every socket")
        # Nobody noticed.
        numbers = session.scatter(range(100))
        assert sum(session.map(lambda n: 2 * n, numbers).collect()) == 9900
        assert session.spmd(lambda comm: comm.allreduce(comm.rank)).collect() == [1, 1]
        assert not any(trace.exists() for trace in traces)
        readers = [each for each in sockets if each.type == zmq.DEALER]
        assert not any(each.poll(0) for each in readers)
        for each in sockets:
            each.close(0)

    def is_told() -> bool:
        return session.events.of_kind("kept-out")[-1].refused >= 4

    eventually(is_told, PATIENCE, "the log's line of them")
    assert not session.events.of_kind("trouble", "engine-lost")


def controller_addresses(session: feliss.Session) -> list[str]:
    """Every address at which a process of the session's ipyparallel cluster listens."""
    found = set()
    for process in processes_in(str(session._cluster.directory)):
        for one in process.net_connections("inet"):
            if one.status == psutil.CONN_LISTEN:
                found.add(f"tcp://{one.laddr.ip}:{one.laddr.port}")
    own = {address for address in addresses(session) if address.startswith("tcp")}
    return sorted(found - own)


#: What a stranger may connect with: each sort of socket that the controller has on the other side.
SORTS = (zmq.SUB, zmq.DEALER, zmq.PUSH, zmq.REQ)
IN = zmq.EVENT_HANDSHAKE_SUCCEEDED
OUT = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
)


@pytest.mark.parametrize("shows", ["nothing", "a key"])
def test_the_sockets_of_the_cluster_let_nobody_in(
    session: feliss.Session, shows: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Controller, schedulers and nannies: who has no key of theirs is not let in anywhere."""
    known = controller_addresses(session)
    assert len(known) >= 15
    caplog.clear()
    with zmq.Context() as context:
        for address in known:
            for sort in SORTS:
                socket = context.socket(sort)
                socket.linger = 0
                if shows == "a key":
                    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
                    socket.curve_serverkey = zmq.curve_keypair()[0]
                if sort == zmq.SUB:
                    socket.subscribe(b"")
                monitor = socket.get_monitor_socket(IN | OUT)
                socket.connect(address)
                assert monitor.poll(PATIENCE * 1000), address
                event = recv_monitor_message(monitor)
                assert event["event"] & OUT, (address, sort)
                socket.disable_monitor()
                socket.close(0)
                monitor.close(0)
    assert session.client[:].apply_sync(os.getpid)
    assert session.map(abs, session.scatter([-1, 1])).collect() == [1, 1]
    assert not caplog.records  # ipyparallel warns of clients that do not sign


def test_it_recovers_as_ever(session: feliss.Session) -> None:
    state = session.variable(lambda rank, size: bytes([rank]) * 1_000_000)
    session.checkpoint(PATIENCE)
    session.kill(1, wait=True)
    assert state.collect() == [b"\0" * 1_000_000, b"\1" * 1_000_000]
    assert session.spmd(lambda comm: comm.allgather(comm.rank)).collect() == [[0, 1]] * 2
