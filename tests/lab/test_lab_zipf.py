"""The generated text: its size, its seed, its frequencies."""

from __future__ import annotations

from collections import Counter

import pytest

from feliss_nb.lab.zipf import write_text


@pytest.fixture
def make(tmp_path):
    def make(nbytes, seed=0):
        path = tmp_path / "text"
        write_text(path, nbytes, seed)
        return path.read_bytes()

    return make


@pytest.mark.parametrize("nbytes", [0, 1, 1000, 2_000_003])
def test_the_size_is_exact(make, nbytes):
    assert len(make(nbytes)) == nbytes


def test_equal_seeds_write_equal_bytes(make):
    assert make(100_000, seed=3) == make(100_000, seed=3)
    assert make(100_000, seed=3) != make(100_000, seed=4)


def test_it_is_lines_of_words_with_zipfs_frequencies(make):
    data = make(5_000_000).decode("ascii")
    lines = data.splitlines()
    assert {len(line.split()) for line in lines[:-1]} == {12}
    counts = [count for _, count in Counter(data.split()).most_common(20)]
    assert 1.7 < counts[0] / counts[1] < 2.3
    assert 8 < counts[0] / counts[9] < 12
