"""Reading the records of one extent, from any record on."""

from __future__ import annotations

import gzip
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

from feliss_nb.errors import DataError, InputChanged

if TYPE_CHECKING:
    from feliss_nb.models.text import Extent, Position

#: Bytes that are split into lines at a time. A continuation that goes on in the middle of a chunk
#: reads the rest of it again, so this is small next to what a slice of time reads.
CHUNK = 1 << 18

_T = TypeVar("_T")


class _Stream(Protocol):
    at: int

    def chunk(self, size: int) -> tuple[bytes, bool]:
        """Give whole lines, about ``size`` bytes (none at the end), and whether they end it."""

    def leave(self, rest: bytes, at: int) -> None:
        """End reading, at a byte before the ``rest`` that was taken and not used."""


def lines(
    extent: Extent, offset: int | None, block: int, index: int
) -> Iterator[tuple[Position, str]]:
    """Yield the lines of an extent, each with the position behind it.

    Parameters
    ----------
    extent : Extent
        What to read.
    offset : int or None
        The byte to go on at, where a line starts; None: at the first.
    block : int
        Not used: lines are read in chunks of their own size.
    index : int
        The extent's number, for the positions.

    Yields
    ------
    position : tuple
        Behind the line.
    line : str
        Without its end.
    """
    stream = _open(extent, offset, "line")
    at = start = stream.at
    data = b""
    try:
        while True:
            data, final = stream.chunk(CHUNK)
            if not data:
                return
            start, end = at, at + len(data)
            behind = (index + 1, None) if final else (index, end)
            raws, texts = _split(data)
            for raw, text in zip(raws, texts, strict=True):
                at += len(raw) + 1
                yield (index, at) if at < end else behind, text
    finally:
        stream.leave(data[at - start :], at)


def _split(data: bytes) -> tuple[list[bytes], list[str]]:
    """Lines as bytes, without their "\\n", and as text."""
    raws = data.split(b"\n")
    if data.isascii():
        texts = data.decode("ascii").split("\n")
    else:
        texts = [raw.decode("utf-8", "replace") for raw in raws]
    if b"\r\n" in data:
        last = texts.pop()  # nothing, or a line that the file's end ends: its "\r" is text
        texts = [text[:-1] if text.endswith("\r") else text for text in texts]
        texts.append(last)
    if not raws[-1]:
        raws.pop(), texts.pop()
    return raws, texts


def blocks(
    extent: Extent, offset: int | None, block: int, index: int
) -> Iterator[tuple[Position, str]]:
    """Yield the lines of an extent, some at a time as one string.

    Parameters
    ----------
    extent : Extent
        What to read.
    offset : int or None
        The byte to go on at, where a block ended; None: at the first.
    block : int
        About how many bytes make a block: it ends with the line that reaches this size.
    index : int
        The extent's number, for the positions.

    Yields
    ------
    position : tuple
        Behind the block.
    block : str
        With its line ends as they are in the file.
    """
    stream = _open(extent, offset, "block")
    at = stream.at
    try:
        while True:
            data, final = stream.chunk(block)
            if not data:
                return
            at += len(data)
            yield (index + 1, None) if final else (index, at), data.decode("utf-8", "replace")
    finally:
        stream.leave(b"", at)


def whole(extent: Extent) -> str:
    """Read a whole file.

    Parameters
    ----------
    extent : Extent
        The whole of a file.

    Returns
    -------
    str
        Its content, with its line ends as they are.
    """
    if extent.packed:
        return _Packed(extent, 0, "").all().decode("utf-8", "replace")
    return _Plain(extent, 0).all().decode("utf-8", "replace")


def count_lines(extent: Extent) -> int:
    """Count the lines that start in an extent.

    Parameters
    ----------
    extent : Extent
        What to read.

    Returns
    -------
    int
        Their number.
    """
    stream, count = _open(extent, None, ""), 0
    try:
        while data := stream.chunk(CHUNK)[0]:
            count += data.count(b"\n") + (not data.endswith(b"\n"))
    finally:
        stream.leave(b"", 0)
    return count


def first(extent: Extent) -> int | None:
    """Find the byte at which the first record of an extent starts.

    Parameters
    ----------
    extent : Extent
        What to read.

    Returns
    -------
    int or None
        None when no record starts in it.
    """
    stream = _open(extent, None, "")
    at = stream.at
    try:
        return at if stream.chunk(1)[0] else None
    finally:
        stream.leave(b"", 0)


def _open(extent: Extent, offset: int | None, use: str) -> _Stream:
    if not extent.packed:
        return _Plain(extent, offset)
    kept = _kept.pop((extent, offset or 0, use), None)
    return kept or _Packed(extent, offset or 0, use)


class _Plain:
    """An extent of a file that can be read from any byte on."""

    def __init__(self, extent: Extent, offset: int | None) -> None:
        self._extent = extent
        self._file = _opened(extent)
        self.at = self._align() if offset is None else offset
        self._file.seek(self.at)

    def _align(self) -> int:
        """The first byte of the extent at which a line starts, or its end."""
        at, stop = self._extent.start, self._extent.stop
        if at == 0:
            return 0
        at -= 1  # the line end before it makes the extent's first byte a line's start
        self._file.seek(at)
        while at < stop - 1:
            data = self._file.read(min(CHUNK, stop - 1 - at))
            if not data:
                break
            found = data.find(b"\n")
            if found >= 0:
                return at + found + 1
            at += len(data)
        return stop

    def chunk(self, size: int) -> tuple[bytes, bool]:
        wanted = min(size, self._extent.stop - self.at)
        if wanted <= 0:
            return b"", True
        data = self._file.read(wanted)
        if not data.endswith(b"\n"):
            data += self._file.readline()
        # Behind the read, so what was read is what was there when the file was first seen.
        _check(self._file.fileno(), self._extent)
        self.at += len(data)
        return data, self.at >= self._extent.stop

    def all(self) -> bytes:
        with self._file:
            data = self._file.read()
            _check(self._file.fileno(), self._extent)
        return data

    def leave(self, rest: bytes, at: int) -> None:
        self._file.close()


class _Packed:
    """A compressed file: only its start can be found, so an open one is worth keeping."""

    def __init__(self, extent: Extent, offset: int, use: str) -> None:
        self._extent, self._use = extent, use
        self._raw = _opened(extent)
        self._file = gzip.GzipFile(fileobj=self._raw)
        self._rest, self._ended = b"", False
        self.at = offset
        if offset:
            self._guard(lambda: self._file.seek(offset))

    def _guard(self, read: Callable[[], _T]) -> _T:
        try:
            result = read()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self._ended = True
            _check(self._raw.fileno(), self._extent)
            raise DataError(
                f"{self._extent.path} is damaged behind byte {self.at} unpacked: {error}"
            ) from error
        _check(self._raw.fileno(), self._extent)
        return result

    def chunk(self, size: int) -> tuple[bytes, bool]:
        data, self._rest = self._rest, b""
        if not data:
            data = self._guard(lambda: self._lines(size))
        self.at += len(data)
        self._ended = not self._guard(lambda: self._file.peek(1))
        return data, self._ended

    def _lines(self, size: int) -> bytes:
        data = self._file.read(size)
        return data if data.endswith(b"\n") else data + self._file.readline()

    def all(self) -> bytes:
        with self._raw:
            return self._guard(self._file.read)

    def leave(self, rest: bytes, at: int) -> None:
        if not self._use or (self._ended and not rest):
            self._raw.close()
            return
        self._rest, self.at = rest, at
        # By use too: the rest of a chunk of lines is no block.
        _kept[self._extent, at, self._use] = self
        while len(_kept) > _KEEP:
            try:
                _, oldest = _kept.popitem(last=False)
            except KeyError:  # another rank of this engine was faster
                break
            oldest._raw.close()


#: Open compressed files between two continuations of a map, by the byte to go on at. No state: the
#: position says it all, and without this the file is unpacked from its start again.
_kept: OrderedDict[tuple[Extent, int, str], _Packed] = OrderedDict()
_KEEP = 8  # open files; more than the ranks that an engine hosts


def _opened(extent: Extent) -> BinaryIO:
    try:
        file = open(extent.path, "rb")  # noqa: SIM115 - the stream's, which closes it
    except FileNotFoundError as error:
        raise InputChanged(
            f"{extent.path} was there when it was first seen, and is gone"
        ) from error
    try:
        _check(file.fileno(), extent)
    except BaseException:
        file.close()
        raise
    return file


def _check(descriptor: int, extent: Extent) -> None:
    now = os.fstat(descriptor)
    if (now.st_size, now.st_mtime_ns) == (extent.size, extent.mtime_ns):
        return
    what = (
        f"from {extent.size} to {now.st_size} bytes"
        if now.st_size != extent.size
        else "(its time of modification)"
    )
    raise InputChanged(
        f"{extent.path} changed {what} since it was first seen, so the run could not be repeated "
        "after a loss; read it anew with read_text"
    )
