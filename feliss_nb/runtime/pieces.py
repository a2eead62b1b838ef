"""The form of a session's record: pieces, one behind the other.

Each piece has its length and its digest, so that one whose writing was interrupted is told from a
whole one.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import xxhash

from feliss_nb.errors import CorruptSnapshot
from feliss_nb.runtime import wire

_FILE = re.compile(r"record-(\d+)-(\d+)")
# The length of the table, that of all frames, the digest of both, and that of the numbers before.
_HEAD = struct.Struct("<QQ16s8s")
_CHECK = 8

# What a piece is.
IMAGE, EVENT, JOB, MESSAGE, SAID, BLOB, NOTE = (bytes([c]) for c in b"IEJMSBN")


def file_name(term: int, number: int) -> str:
    """Return the name of a master's file of this number."""
    return f"record-{term}-{number}"


def files(directory: Path) -> list[tuple[int, int]]:
    """Return the terms and numbers of a session's files."""
    names = [_FILE.fullmatch(path.name) for path in directory.iterdir()]
    return [(int(name[1]), int(name[2])) for name in names if name is not None]


def piece(kind: bytes, frames: Sequence[Any]) -> list[Any]:
    """Return what to write of a piece."""
    views = [memoryview(frame).cast("B") for frame in frames]
    table = kind + struct.pack(f"<{len(views)}Q", *(view.nbytes for view in views))
    state = xxhash.xxh3_128(table)
    for view in views:
        state.update(view)
    size = sum(view.nbytes for view in views)
    head = _HEAD.pack(len(table), size, state.digest(), b"")
    return [head[:-_CHECK] + xxhash.xxh3_64_digest(head[:-_CHECK]), table, *views]


def parse(data: memoryview, where: str) -> Iterator[tuple[bytes, list[memoryview]]]:
    """Yield (kind, frames) of what a record holds; a last one that is not whole is left out.

    Raises
    ------
    CorruptSnapshot
        If one in the middle is not what was written.
    """
    at, end = 0, data.nbytes
    while at + _HEAD.size <= end:
        head = data[at : at + _HEAD.size]
        table_size, size, digest, check = _HEAD.unpack(head)
        if xxhash.xxh3_64_digest(head[:-_CHECK]) != check:
            if not any(data[at:]):  # room that the disk gave, and no more
                return
            raise CorruptSnapshot(f"{where} is damaged at byte {at}")
        stop = at + _HEAD.size + table_size + size
        if stop > end:
            return
        body = data[at + _HEAD.size : stop]
        if xxhash.xxh3_128(body).digest() != digest:
            if stop == end:
                return
            raise CorruptSnapshot(f"{where} is damaged at byte {at}")
        table = bytes(body[:table_size])
        lengths = struct.unpack(f"<{(table_size - 1) // 8}Q", table[1:])
        frames, place = [], table_size
        for length in lengths:
            frames.append(body[place : place + length])
            place += length
        yield table[:1], frames
        at = stop


class _Pickler(pickle.Pickler):
    """Futures are the process's own: whoever waits for one ends with it."""

    def persistent_id(self, obj: Any) -> Any:
        return ("token", id(obj)) if isinstance(obj, Future) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, tokens: dict[int, Future[Any]], buffers: Any = None) -> None:
        super().__init__(file, buffers=buffers)
        self._tokens = tokens

    def persistent_load(self, pid: Any) -> Any:
        return self._tokens.setdefault(pid[1], Future())


def dump(obj: Any) -> list[Any]:
    """Pickle an object of this process; large buffers stay where they are."""
    file, frames = io.BytesIO(), []

    def out_of_band(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < wire.SMALL:
            return True
        frames.append(view)
        return False

    _Pickler(file, protocol=5, buffer_callback=out_of_band).dump(obj)
    return [file.getbuffer(), *frames]


def load(frames: Sequence[Any], tokens: dict[int, Future[Any]]) -> Any:
    """Return what was dumped; the same future has the same token."""
    return _Unpickler(io.BytesIO(frames[0]), tokens, frames[1:]).load()
