"""Who may speak on a session's sockets, and be heard there: both ends show that they belong to it.

Rules
-----
* On one machine a socket is a file in the session's private directory (mode 0700): only this user
  can connect, and only a session's process can have made it. Who connects shows the session's
  secret besides, which lies in that directory.
* On addresses (``FELISS_NB_SOCKETS=tcp``) it is CURVE: each process has keys of its own, and its
  public one lies in that directory with its address. Who connects has learned there whom it speaks
  to; who is connected to lets in only those whose key lies there. All is encrypted.
* This is settled before a message is read: nothing of a stranger's comes as far as a pickle. What
  was let in carries a mark that only who knows the secret can make, over what will be unpickled and
  the sizes of the rest; what does not is counted and dropped.
* No frame is larger than `LARGEST`: one that says so ends its connection before there is memory
  for it, whoever sends it. Longer ones of ours travel as several.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import struct
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85

from feliss_nb.errors import UsageError

SOCKETS = "FELISS_NB_SOCKETS"

PREFIX = "feliss-"
# A Unix socket's path is at most 107 bytes; the longest name in the directory takes about 20.
LONGEST_DIRECTORY = 80

HOST = "127.0.0.1"

_SECRET, _KIND = "secret", "sockets"
_ZAP = "inproc://zeromq.zap.01"
_WORDS = "inproc://doors"  # to the thread: the monitor of a socket; empty: the end
_MARK = 16  # bytes

LARGEST = 64 << 20
"""Bytes of a frame, and so what a stranger can make a socket take before it has shown anything."""
_WRAPPING = 64  # more than CURVE adds to each
_DOMAIN = b"feliss"
_NAME = b"feliss"  # PLAIN wants one; there is one secret only

# It spoke no protocol of ours, or showed nothing that belongs to the session.
_REFUSED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_CAME, _GONE = zmq.EVENT_ACCEPTED, zmq.EVENT_DISCONNECTED
_WATCHED = _REFUSED | _CAME | _GONE | zmq.EVENT_HANDSHAKE_SUCCEEDED
_EVENT = struct.Struct("=Hi")


def kind() -> str:
    """Return what the sockets of a new session are.

    Raises
    ------
    UsageError
        If ``FELISS_NB_SOCKETS`` is neither ``ipc`` nor ``tcp``.
    """
    found = os.environ.get(SOCKETS) or "ipc"
    if found not in ("ipc", "tcp"):
        raise UsageError(f"{SOCKETS} is ipc (the default) or tcp, not {found!r}")
    return found


def prepare(directory: Path, kind: str) -> None:
    """Make what the processes of a new session recognize each other by."""
    _write(directory / _SECRET, secrets.token_hex(32))
    _write(directory / _KIND, kind)


def private_directory() -> Path:
    """Make a new directory that only this user can enter (mode 0700)."""
    base = tempfile.gettempdir()
    if len(base) + len(PREFIX) + 10 > LONGEST_DIRECTORY:
        base = os.path.join(os.sep, "tmp")  # short, and mkdtemp makes a new name in it
    sockets = kind()
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    prepare(directory, sockets)
    return directory


def _write(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}")
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w") as file:
        file.write(text)
    os.replace(staged, path)


class Doors:
    """The sockets of one process to the others of its session.

    Parameters
    ----------
    context : zmq.Context
        Of these sockets alone.
    directory : Path
        The session's private directory.

    Attributes
    ----------
    refused : int
        How often somebody has knocked who was not let in.
    dropped : int
        How many messages were not what a process of the session had sent.
    """

    def __init__(self, context: zmq.Context[Any], directory: Path) -> None:
        self._context, self._directory = context, directory
        self._secret = (directory / _SECRET).read_bytes()
        self._tcp = (directory / _KIND).read_text() == "tcp"
        self._public, self._private = zmq.curve_keypair() if self._tcp else (b"", b"")
        if self._tcp:
            _write(self._key_file(z85.decode(self._public)), "")
        self.refused = self.dropped = 0
        self._marker = hashlib.blake2b(key=bytes.fromhex(self._secret.decode()), digest_size=_MARK)
        zap = context.socket(zmq.REP)
        zap.setsockopt(zmq.LINGER, 0)
        zap.bind(_ZAP)
        words = context.socket(zmq.PULL)
        words.bind(_WORDS)
        self._thread = threading.Thread(
            target=self._serve, args=(zap, words), name="feliss-doors", daemon=True
        )
        self._thread.start()

    @property
    def kind(self) -> str:
        """What the sockets are: ``ipc`` or ``tcp``."""
        return "tcp" if self._tcp else "ipc"

    def bind(self, socket: zmq.Socket[bytes], name: str) -> None:
        """Let the session's other processes reach a socket by a name."""
        socket.maxmsgsize = LARGEST + _WRAPPING
        socket.zap_domain = _DOMAIN
        monitor = f"inproc://monitor-{name}"
        socket.monitor(monitor, _WATCHED)
        self._tell(monitor.encode())
        if not self._tcp:
            socket.plain_server = True
            socket.bind(f"ipc://{self._directory / name}")
            return
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = self._public, self._private
        port = socket.bind_to_random_port(f"tcp://{HOST}")
        text = json.dumps({"host": HOST, "port": port, "key": self._public.decode()})
        path = self._directory / name
        path.unlink(missing_ok=True)
        _write(path, text)

    def connect(self, socket: zmq.Socket[bytes], name: str) -> None:
        """Connect a socket to the one of a name; it need not be there yet, where it is a file."""
        socket.maxmsgsize = LARGEST + _WRAPPING
        if not self._tcp:
            socket.plain_username, socket.plain_password = _NAME, self._secret
            socket.connect(f"ipc://{self._directory / name}")
            return
        door = json.loads((self._directory / name).read_text())
        socket.curve_publickey, socket.curve_secretkey = self._public, self._private
        socket.curve_serverkey = door["key"].encode()
        socket.connect(f"tcp://{door['host']}:{door['port']}")

    # ------------------------------------------------------------ messages

    def seal(self, frames: Sequence[Any]) -> list[Any]:
        """Put the session's mark on a message; its first frame is what will be unpickled."""
        head = frames[0]
        return split([self._mark(head, frames) + head, *frames[1:]])

    def open(self, frames: Sequence[Any]) -> list[Any] | None:
        """Take the mark off; None if it is not the session's."""
        frames = join(frames)
        first = frames[0]
        head = memoryview(first)[_MARK:]
        if not hmac.compare_digest(first[:_MARK], self._mark(head, frames)):
            self.dropped += 1
            return None
        return [head, *frames[1:]]

    def _mark(self, head: Any, frames: Sequence[Any]) -> bytes:
        mark = self._marker.copy()
        if len(frames) > 1:
            sizes = [memoryview(frame).nbytes for frame in frames[1:]]
            mark.update(struct.pack(f"<{len(sizes)}Q", *sizes))
        mark.update(head)
        return mark.digest()

    # ------------------------------------------------------------ who is there

    def is_there(self, name: str) -> bool:
        """Whether the socket of a name is there: that of a lost engine is removed by the master."""
        return (self._directory / name).exists()

    def names(self, prefix: str) -> list[str]:
        """Return the names of sockets that begin so, in the order of the alphabet."""
        return sorted(name for name in os.listdir(self._directory) if name.startswith(prefix))

    def _key_file(self, key: bytes) -> Path:
        return self._directory / f"key-{key.hex()}"

    def _tell(self, word: bytes) -> None:
        with self._context.socket(zmq.PUSH) as words:
            words.connect(_WORDS)
            words.send(word)

    def _serve(self, zap: zmq.Socket[bytes], words: zmq.Socket[bytes]) -> None:
        """Answer who knocks, and count who is refused."""
        poller = zmq.Poller()
        poller.register(zap, zmq.POLLIN)
        poller.register(words, zmq.POLLIN)
        opened = [zap, words]
        waiting: dict[Any, _Visitors] = {}
        try:
            while True:
                for socket, _ in poller.poll():
                    if socket is zap:
                        self._answer(zap)
                    elif socket is not words:
                        self.refused += waiting[socket].refused(*socket.recv_multipart()[:1])
                    elif monitor := words.recv():
                        opened.append(self._context.socket(zmq.PAIR))
                        opened[-1].connect(monitor.decode())
                        waiting[opened[-1]] = _Visitors()
                        poller.register(opened[-1], zmq.POLLIN)
                    else:
                        return
        except zmq.ContextTerminated:
            return
        finally:
            for socket in opened:
                socket.close(0)

    def _answer(self, zap: zmq.Socket[bytes]) -> None:
        """Answer libzmq's question, in the protocol of its RFC 27."""
        version, request, _, _, _, *shown = zap.recv_multipart()
        status, text = (b"200", b"OK") if self._belongs(shown) else (b"400", b"a stranger")
        zap.send_multipart([version, request, status, text, _NAME, b""])

    def _belongs(self, shown: list[bytes]) -> bool:
        if self._tcp:
            is_key = shown[0] == b"CURVE" and len(shown[1]) == 32
            return is_key and self._key_file(shown[1]).exists()
        return shown[0] == b"PLAIN" and hmac.compare_digest(shown[2], self._secret)

    def close(self) -> None:
        """Let nobody in any more. The sockets are closed by whoever has them."""
        self._tell(b"")
        self._thread.join()
        if self._tcp:
            self._key_file(z85.decode(self._public)).unlink(missing_ok=True)


class _Visitors:
    """Who has come to a socket, and has not been let in or refused yet."""

    def __init__(self) -> None:
        self._settled = 0  # how many were let in or refused
        self._came: dict[int, int] = {}  # and how many had been when a connection came

    def refused(self, event: bytes) -> bool:
        """Take an event of the socket; tell whether somebody was refused.

        A frame that is too large ends its connection, and no event says why: it has gone, and
        nobody was let in or refused meanwhile.
        """
        what, which = _EVENT.unpack(event)
        if what == _CAME:
            self._came[which] = self._settled
        elif what == _GONE:
            return self._came.pop(which, -1) == self._settled
        else:
            self._settled += 1
        return bool(what & _REFUSED)


def split(frames: list[Any]) -> list[Any]:
    """Cut frames of `LARGEST` bytes and more: behind one of that size comes the rest of it."""
    if len(frames[0]) < LARGEST and all(memoryview(frame).nbytes < LARGEST for frame in frames[1:]):
        return frames
    pieces: list[Any] = []
    for frame in frames:
        view = memoryview(frame).cast("B")
        pieces += [view[at : at + LARGEST] for at in range(0, view.nbytes + 1, LARGEST)]
    return pieces


def join(pieces: Sequence[Any]) -> Sequence[Any]:
    """Put together what was split."""
    if max(map(len, pieces)) < LARGEST:
        return pieces
    frames: list[Any] = []
    parts: list[Any] = []
    for piece in pieces:
        parts.append(piece)
        if len(piece) < LARGEST:
            frames.append(piece if len(parts) == 1 else memoryview(bytearray().join(parts)))
            parts = []
    return [*frames, *parts]
