"""Text to count words in: seeded, as large as one wants, with the frequencies of a language."""

from __future__ import annotations

from pathlib import Path

import numpy as np

#: Different words; the r-th has a share of 1/r, which is Zipf's law.
WORDS = 50_000
_SHORTEST, _LONGEST = 2, 11  # letters
_LINE = 12  # words
_CHUNK = 1_000_000  # words drawn at a time


def write_text(path: Path, nbytes: int, seed: int = 0) -> None:
    """Write a text file.

    Parameters
    ----------
    path : Path
        The file.
    nbytes : int
        Its size, exactly; the last word may be a stump.
    seed : int
        Equal seeds write equal bytes.
    """
    rng = np.random.default_rng(seed)
    letters, starts, lengths = _vocabulary(rng)
    share = np.cumsum(1.0 / np.arange(1, WORDS + 1))
    share /= share[-1]
    left = nbytes
    with path.open("wb") as file:
        while left > 0:
            drawn = np.searchsorted(share, rng.random(_CHUNK))
            data = _text(letters, starts[drawn], lengths[drawn])
            file.write(data[:left])
            left -= min(left, len(data))


def _vocabulary(
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Letters of all words, each with a space behind it; where a word starts; its length."""
    lengths = rng.integers(_SHORTEST, _LONGEST, WORDS, endpoint=True) + 1
    ends = np.cumsum(lengths)
    letters = rng.integers(ord("a"), ord("z"), int(ends[-1]), dtype=np.uint8, endpoint=True)
    letters[ends - 1] = ord(" ")
    return letters, ends - lengths, lengths


def _text(letters: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> memoryview:
    ends = np.cumsum(lengths)
    where = np.arange(int(ends[-1])) + np.repeat(starts - (ends - lengths), lengths)
    text = letters[where]
    text[ends[_LINE - 1 :: _LINE] - 1] = ord("\n")
    return text.data
