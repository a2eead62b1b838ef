"""Text files as records, read by the ranks themselves: a partition holds extents, not text.

Files are laid end to end and the bytes are split evenly over the ranks. A split point may fall
inside a line: a line belongs to the extent in which it *starts*, so a reader skips to its first
line start and reads past its extent's end to finish its last line. "\\n" and "\\r\\n" end lines;
neither byte occurs inside a character of UTF-8, so lines are cut before they are decoded.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feliss_nb.errors import InputChanged, UsageError
from feliss_nb.models import reading
from feliss_nb.models.naming import shorten

KINDS = ("line", "block", "file")
BLOCK = 1 << 20  # bytes; small enough to stop behind one, large enough to hide the cost of a call

#: The extent at hand, and the byte in it where the next record starts; None: at its first.
Position = tuple[int, int | None]


@dataclass(frozen=True, slots=True)
class Extent:
    """The records of a file that start in ``start <= byte < stop``.

    Parameters
    ----------
    path : str
        Absolute.
    start, stop : int
        In bytes of the file as it lies on the disk.
    size, mtime_ns : int
        Of the file when it was first seen.
    """

    path: str
    start: int
    stop: int
    size: int
    mtime_ns: int

    @property
    def packed(self) -> bool:
        """Whether the file is compressed, and so can only be read from its start."""
        return self.path.endswith(".gz")


def expand(paths: Any) -> list[str]:
    """Give the files that were named.

    Parameters
    ----------
    paths : str or PathLike, or iterable of these
        Files and globs (``**`` crosses folders); a leading ``~`` is the user's home.

    Returns
    -------
    list of str
        Absolute, in the order given; the matches of one glob are sorted.

    Raises
    ------
    UsageError
        When a file does not exist, is a directory or cannot be read, or a glob matches nothing.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    if isinstance(paths, bytes) or not isinstance(paths, Iterable):
        raise UsageError(f"paths is {shorten(paths)}; give a str, a Path or a list of these")
    found = [path for item in paths for path in _expand_one(item)]
    if not found:
        raise UsageError("there is nothing to read: the list of paths is empty")
    return found


def _expand_one(item: Any) -> list[str]:
    text = os.fspath(item) if isinstance(item, str | os.PathLike) else None
    if not isinstance(text, str):
        raise UsageError(f"{shorten(item)} is no path; give a str or a Path")
    text = os.path.abspath(os.path.expanduser(text))
    if not os.path.exists(text) and glob.has_magic(text):
        matches = sorted(path for path in glob.glob(text, recursive=True) if os.path.isfile(path))
        if not matches:
            raise UsageError(f"no file matches {os.fspath(item)!r} (looked for {text})")
        return [path for match in matches for path in _readable(match)]
    return _readable(text)


def _readable(path: str) -> list[str]:
    if os.path.isdir(path):
        raise UsageError(
            f"{path} is a directory; name its files, by a glob such as {os.path.join(path, '*')!r}"
        )
    if not os.path.exists(path):
        raise UsageError(f"the file {path} does not exist")
    if not os.path.isfile(path):
        raise UsageError(f"{path} is no regular file, so it could not be read again after a loss")
    if not os.access(path, os.R_OK):
        raise UsageError(f"the file {path} may not be read by this user")
    return [path]


def plan(paths: Iterable[str], by: str, size: int) -> list[list[Extent]]:
    """Split files by bytes over the ranks, contiguously and in order.

    Parameters
    ----------
    paths : iterable of str
        As :func:`expand` gives them.
    by : {"line", "block", "file"}
        What a record is. Whole files and ``.gz`` files are not split: the rank that their middle
        byte falls to gets all of them.
    size : int
        Number of ranks.

    Returns
    -------
    list of list of Extent
        One list a rank; concatenated they give the files in order.
    """
    if by not in KINDS:
        raise UsageError(f"by={shorten(by)}: a record is a 'line', a 'block' or a 'file'")
    files = []
    for path in paths:
        seen = os.stat(path)
        files.append(Extent(path, 0, seen.st_size, seen.st_size, seen.st_mtime_ns))
    # An empty file is a record too, where files are: it must fall to some rank.
    extra = 1 if by == "file" else 0
    total = sum(file.size + extra for file in files)
    cuts = [total * rank // size for rank in range(size + 1)]
    ranks: list[list[Extent]] = [[] for _ in range(size)]
    begin, rank = 0, 0
    for file in files:
        end = begin + file.size + extra
        if by == "file" or file.packed:
            middle = (begin + end) // 2
            while rank < size - 1 and cuts[rank + 1] <= middle:
                rank += 1
            ranks[rank].append(file)
        else:
            rank = _split(file, begin, cuts, rank, ranks)
        begin = end
    return ranks


def _split(file: Extent, begin: int, cuts: list[int], rank: int, ranks: list[list[Extent]]) -> int:
    """Give each rank its part of a file that begins at ``begin``; return the last one's rank."""
    at = 0
    while at < file.size:
        while rank < len(ranks) - 1 and cuts[rank + 1] <= begin + at:
            rank += 1
        stop = file.size if rank == len(ranks) - 1 else min(file.size, cuts[rank + 1] - begin)
        ranks[rank].append(Extent(file.path, at, stop, file.size, file.mtime_ns))
        at = stop
    return rank


class TextSource:
    """The partition of one rank: what it is to read, and no text.

    Small and picklable, so a checkpoint holds a few extents; iterating reads the files anew.

    Parameters
    ----------
    extents : iterable of Extent
        In order.
    by : {"line", "block", "file"}
        What a record is: a line without its end; some whole lines as one string; a file's content.
        Bytes that are not UTF-8 are replaced.
    block : int
        About how many bytes make a block.
    """

    __slots__ = ("block", "by", "extents")

    def __init__(self, extents: Iterable[Extent], by: str = "line", block: int = BLOCK) -> None:
        self.extents, self.by, self.block = tuple(extents), by, block

    def __repr__(self) -> str:
        files = len({extent.path for extent in self.extents})
        return f"TextSource({files} files, {self.total} bytes, by={self.by!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextSource) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return self.extents, self.by, self.block

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._key()

    def __iter__(self) -> Iterator[str]:
        for _, record in self.records():
            yield record

    def __len__(self) -> int:
        """Count the records, which reads the files except for ``by="file"``."""
        if self.by == "file":
            return len(self.extents)
        if self.by == "line":
            return sum(reading.count_lines(extent) for extent in self.extents)
        return sum(1 for _ in self)

    @property
    def total(self) -> int:
        """Bytes to read, as they lie on the disk."""
        return sum(extent.stop - extent.start for extent in self.extents)

    def done(self, position: Position | None) -> int:
        """Give the bytes, as they lie on the disk, before a position.

        Parameters
        ----------
        position : tuple or None
            As :meth:`records` gives it. A compressed file counts as read when it is finished.

        Returns
        -------
        int
            From 0 to :attr:`total`.
        """
        index, offset = position or (0, None)
        read = sum(extent.stop - extent.start for extent in self.extents[:index])
        if offset is not None and not self.extents[index].packed:
            extent = self.extents[index]
            read += min(offset, extent.stop) - extent.start
        return read

    def records(self, position: Position | None = None) -> Iterator[tuple[Position, str]]:
        """Read on from a position.

        Parameters
        ----------
        position : tuple, optional
            What came with the last record that is done with; None: from the start.

        Yields
        ------
        position : tuple
            Where to go on behind this record.
        record : str
            The record.

        Raises
        ------
        InputChanged
            When a file is not what it was when it was first seen.
        DataError
            When a compressed file is damaged.
        """
        index, offset = position or (0, None)
        while index < len(self.extents):
            extent = self.extents[index]
            if self.by == "file":
                yield (index + 1, None), reading.whole(extent)
            else:
                read = reading.lines if self.by == "line" else reading.blocks
                yield from read(extent, offset, self.block, index)
            index, offset = index + 1, None

    def where(self, position: Position | None = None) -> str:
        """Name the place of the record behind a position, for an error.

        Parameters
        ----------
        position : tuple or None
            As :meth:`records` gives it.

        Returns
        -------
        str
            Such as ``corpus.txt, byte 1234``, with the path in full.
        """
        index, offset = position or (0, None)
        while index < len(self.extents):
            extent = self.extents[index]
            if self.by == "file":
                return extent.path
            if offset is None:
                try:
                    offset = reading.first(extent)
                except (OSError, InputChanged):
                    return extent.path
            if offset is not None:
                return f"{extent.path}, byte {offset}" + (" unpacked" if extent.packed else "")
            index += 1
        return "the end of the input"


def sources(
    paths: str | Path | Iterable[str | Path], by: str, size: int, block: int = BLOCK
) -> list[TextSource]:
    """Give each rank its part of some files.

    Parameters
    ----------
    paths : str or Path, or iterable of these
        As for :func:`expand`.
    by : {"line", "block", "file"}
        What a record is.
    size : int
        Number of ranks.
    block : int
        About how many bytes make a block.

    Returns
    -------
    list of TextSource
        One a rank.
    """
    if block < 1:
        raise UsageError(f"block={shorten(block)}: give a number of bytes, at least 1")
    if by not in KINDS:
        raise UsageError(f"by={shorten(by)}: a record is a 'line', a 'block' or a 'file'")
    return [TextSource(extents, by, block) for extents in plan(expand(paths), by, size)]
