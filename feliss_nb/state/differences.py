"""A snapshot as a difference from an earlier one: what both have is named, the rest is carried.

A difference is a list of runs that, one behind the other, give the frames of the new snapshot:
COPY is a stretch of the earlier one's frames, NEW the next bytes of the payload, XOR the next bytes
of the payload xor a stretch of the earlier one's frames. A difference from nothing (with no base)
has NEW only: so a whole snapshot is compressed.

Its frames: a header, the header of the new snapshot, the runs, the payload.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import xxhash
import zstandard

from feliss_nb.errors import CorruptSnapshot
from feliss_nb.state.codec import allocate_each
from feliss_nb.state.comparing import COPY, NEW, XOR, Difference, Run
from feliss_nb.state.digest import DIGEST_SIZE, digest
from feliss_nb.state.snapshot import SMALL, Room, from_frames, verify

__all__ = ["Compression", "apply", "assemble", "encode", "is_difference", "prepare"]

Compression = Literal["", "zstd", "xor"]

_MAGIC = b"FELDIF01"
_CHECK = 8
_ENTRIES = {"base", "check", "payload", "zstd", "sizes", "counts"}
# Speed first: higher levels gain little on differences, and a rank or its engine waits for it.
_LEVEL = 1
_MOST = 1 << 62  # no place in a frame is there, and two of them can be added


def encode(
    difference: Difference, compression: Compression = "", base: Sequence[Any] = ()
) -> list[Any]:
    """A difference as frames to send or to write.

    Parameters
    ----------
    difference : Difference
        Its payload is changed when it is encoded by xor.
    compression : {"", "zstd", "xor"}
        "xor": what has changed in a buffer is written as the xor with what the base has in its
        place, and then compressed.
    base : sequence of bytes-like
        The frames of the earlier snapshot; only "xor" reads them.
    """
    runs, named = difference.runs, difference.base
    if compression == "xor" and base:
        named = named or from_frames(base).digest
        runs = _xor(difference, base)
    flat = np.array([run for frame in runs for run in frame], np.int64).reshape(-1, 4)
    payload: Any = difference.payload
    if compression:
        payload = zstandard.ZstdCompressor(level=_LEVEL).compress(payload)
    table = flat.tobytes()
    head = {
        "base": named.hex(),
        "check": digest(difference.header, (table, payload)).hex(),
        "payload": len(difference.payload),
        "zstd": bool(compression),
        "sizes": difference.sizes,
        "counts": [len(frame) for frame in runs],
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    first = _MAGIC + xxhash.xxh3_64_digest(text) + text
    return [first, difference.header, table, payload]


def _xor(difference: Difference, base: Sequence[Any]) -> list[list[Run]]:
    """Turn what is new in a buffer to its difference from what was in its place."""
    payload = np.asarray(difference.payload)
    old = [memoryview(frame).cast("B") for frame in base]
    done = 0
    result = []
    for number, runs in enumerate(difference.runs, 1):
        turned: list[Run] = []
        place = 0
        for kind, frame, start, size in runs:
            if kind == NEW:
                # The stream's content moves about in it: nothing is gained there.
                there = min(size, len(old[number]) - place) if 1 < number < len(old) else 0
                if there > 0:
                    part = payload[done : done + there]
                    was = np.frombuffer(old[number][place : place + there], np.uint8)
                    np.bitwise_xor(part, was, out=part)
                    turned.append((XOR, number, place, there))
                if size > max(there, 0):
                    turned.append((NEW, 0, 0, size - max(there, 0)))
                done += size
            else:
                turned.append((kind, frame, start, size))
            place += size
        result.append(turned)
    return result


def is_difference(frames: Sequence[Any]) -> bool:
    """Whether these are the frames of a difference, not of a whole snapshot."""
    return bool(frames) and bytes(memoryview(frames[0])[: len(_MAGIC)]) == _MAGIC


def apply(base: Sequence[Any], frames: Sequence[Any], room: Room = allocate_each) -> list[Any]:
    """The frames of the new snapshot; see `prepare`."""
    whole, fill = prepare(base, frames, room)
    fill()
    return whole


def prepare(
    base: Sequence[Any], frames: Sequence[Any], room: Room = allocate_each
) -> tuple[list[Any], Callable[[], None]]:
    """The frames of the new snapshot, and what gives those that are new their content.

    Parameters
    ----------
    base : sequence of bytes-like
        The frames of the earlier snapshot; empty if the difference needs none. A frame that has not
        changed is given again as it is, not copied.
    frames : sequence of bytes-like
        Of the difference.
    room : callable
        Where to put the new frames.

    Raises
    ------
    CorruptSnapshot
        The difference is damaged, or it is one from another snapshot. The content of ``base`` is
        looked at by ``assemble`` and, with the result's, by ``restore``.
    """
    head = _header(frames)
    wanted = head["base"]
    found = from_frames(base).digest.hex() if base else ""
    if wanted and found != wanted:
        what = f"the one with digest {found}" if found else "nothing"
        raise CorruptSnapshot(f"a difference from the snapshot {wanted} was applied to {what}")
    runs, payload = _content(head, frames)
    old = [memoryview(frame).cast("B") for frame in base] if wanted else []
    parts = np.split(runs, np.cumsum(head["counts"])[:-1])
    _check(parts, head, old)
    whole: list[Any] = [bytes(frames[1]), *[None] * len(parts)]
    sizes: list[int] = head["sizes"]
    for number, (part, size) in enumerate(zip(parts, sizes, strict=True), 1):
        if len(part) == 1 and part[0, 0] == COPY and part[0, 2] == 0 and size >= SMALL:
            source = int(part[0, 1])
            whole[number] = base[source] if len(old[source]) == size else None
    missing = [number for number, frame in enumerate(whole) if frame is None]
    for number, target in zip(missing, room(sizes[n - 1] for n in missing), strict=True):
        whole[number] = target

    def fill() -> None:
        done = 0
        for number in missing:
            done = _fill(whole[number], parts[number - 1], old, payload, done)

    return whole, fill


def _fill(target: Any, runs: Any, old: list[memoryview], payload: memoryview, done: int) -> int:
    """Write one frame; return how much of the payload is used up."""
    place = 0
    for kind, frame, start, size in runs.tolist():
        into = np.frombuffer(target[place : place + size], np.uint8)
        if kind != COPY:
            new = np.frombuffer(payload[done : done + size], np.uint8)
            done += size
        if kind == COPY:
            into[:] = np.frombuffer(old[frame][start : start + size], np.uint8)
        elif kind == NEW:
            into[:] = new
        else:
            was = np.frombuffer(old[frame][start : start + size], np.uint8)
            np.bitwise_xor(new, was, out=into)
        place += size
    return done


def assemble(chain: Sequence[Sequence[Any]], room: Room = allocate_each) -> list[Any]:
    """The frames of a snapshot from a chain: a whole one and the differences behind it, in order.

    Raises
    ------
    CorruptSnapshot
        Something in it is damaged or missing; the error says which part.
    """
    if not chain:
        raise CorruptSnapshot("a chain of snapshots is empty")
    whole: list[Any] = []
    for number, frames in enumerate(chain):
        part = f"part {number + 1} of {len(chain)} in a chain of snapshots"
        try:
            if is_difference(frames):
                whole = apply(whole, frames, room)
            elif number == 0:
                whole = list(frames)
            else:
                raise CorruptSnapshot("a difference is wanted here, this is something else")
            verify(from_frames(whole))
        except CorruptSnapshot as error:
            raise CorruptSnapshot(f"{part}: {error}") from error
    return whole


# ---------------------------------------------------------------- what came from elsewhere


def _header(frames: Sequence[Any]) -> dict[str, Any]:
    if len(frames) != 4 or not is_difference(frames):
        raise CorruptSnapshot("these frames are not a difference, or one of another version")
    raw = bytes(frames[0])
    start = len(_MAGIC) + _CHECK
    if xxhash.xxh3_64_digest(raw[start:]) != raw[len(_MAGIC) : start]:
        raise CorruptSnapshot("the header of a difference does not match its digest")
    try:
        head = json.loads(raw[start:])
    except (ValueError, RecursionError) as error:
        raise CorruptSnapshot("the header of a difference cannot be read") from error
    if not isinstance(head, dict) or set(head) != _ENTRIES:
        raise CorruptSnapshot("the header of a difference lacks an entry")
    sizes, counts = head["sizes"], head["counts"]
    if (
        not _are_sizes(sizes)
        or not _are_sizes(counts)
        or not _are_sizes([head["payload"]])
        or len(sizes) != len(counts)
        or type(head["zstd"]) is not bool
        or not _is_digest(head["base"])
        or not _is_digest(head["check"])
    ):
        raise CorruptSnapshot("the header of a difference makes no sense")
    return head


def _are_sizes(values: Any) -> bool:
    if not isinstance(values, list) or not values:
        return False
    return all(type(value) is int and 0 <= value < _MOST for value in values)


def _is_digest(text: Any) -> bool:
    try:
        return len(bytes.fromhex(text)) in (0, DIGEST_SIZE)
    except (TypeError, ValueError):
        return False


def _content(
    head: dict[str, Any], frames: Sequence[Any]
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], memoryview]:
    _, header, table, packed = frames
    if digest(header, (table, packed)).hex() != head["check"]:
        raise CorruptSnapshot("a difference does not match its digest; take it from another copy")
    payload = memoryview(packed).cast("B")
    if head["zstd"]:
        try:
            if zstandard.frame_content_size(payload) != head["payload"]:
                raise CorruptSnapshot("a difference has a payload of another size")
            payload = memoryview(zstandard.ZstdDecompressor().decompress(payload))
        except zstandard.ZstdError as error:
            raise CorruptSnapshot(f"a difference cannot be decompressed: {error}") from error
    rows = sum(head["counts"])
    if len(payload) != head["payload"] or memoryview(table).nbytes != rows * 32:
        raise CorruptSnapshot("the frames of a difference have other sizes than its header says")
    return np.frombuffer(table, np.int64).reshape(-1, 4), payload


def _check(parts: list[Any], head: dict[str, Any], old: list[memoryview]) -> None:
    """Raise CorruptSnapshot unless every run lies inside what it names."""
    lengths = np.array([*(len(frame) for frame in old), 0], np.int64)
    used = 0
    for part, size in zip(parts, head["sizes"], strict=True):
        kinds, numbers, starts, sizes = part.T
        named = kinds != NEW
        sound = (
            np.isin(kinds, (COPY, NEW, XOR)).all()
            and (sizes > 0).all()
            and (numbers >= 0).all()
            and (numbers[named] < len(old)).all()
            and ((starts >= 0) & (starts < _MOST) & (sizes <= size)).all()
        )
        if not sound or sizes.sum() != size:
            raise CorruptSnapshot("a difference has runs that make no sense")
        if (starts[named] + sizes[named] > lengths[numbers[named]]).any():
            raise CorruptSnapshot("a difference names bytes outside its base")
        used += int(sizes[kinds != COPY].sum())
    if used != head["payload"]:
        raise CorruptSnapshot("a difference has a payload of another size")
