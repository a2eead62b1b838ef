"""Each line is read once, whatever the files hold and wherever they are cut."""

from __future__ import annotations

import gzip
import itertools
import os
import pickle
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feliss_nb.errors import DataError, InputChanged, UsageError
from feliss_nb.models import reading
from feliss_nb.models.text import TextSource, expand, plan, sources

pieces = st.sampled_from(
    [b"\n", b"\r\n", b"\r", b"a", b"word ", "é".encode(), "語".encode(), "😀".encode(), b"\xff"] * 2
    + [b"\xe8\xaa", b"\x00", "\u2028".encode(), b"x" * 30]
)
contents = st.lists(pieces, max_size=60).map(b"".join)


def lines_of(content: bytes) -> list[str]:
    """The oracle, by another way: on the text, not on the bytes."""
    text = content.decode("utf-8", "replace")
    found, line = [], ""
    for char in text:
        if char == "\n":
            found.append(line.removesuffix("\r"))
            line = ""
        else:
            line += char
    return [*found, line] if line else found


def write(folder, files):
    """Files a0, a1, ... ; a ``True`` beside the content packs it."""
    paths = []
    for number, (content, packed) in enumerate(files):
        path = Path(folder, f"a{number}.txt" + ".gz" * packed)
        path.write_bytes(gzip.compress(content) if packed else content)
        paths.append(str(path))
    return paths


@given(
    st.lists(st.tuples(contents, st.booleans()), min_size=1, max_size=4),
    st.integers(1, 6),
    st.sampled_from([1, 7, 64, 1 << 20]),
    st.sampled_from([3, 50, 1 << 18]),
)
def test_each_line_is_read_once_and_in_order(files, size, block, chunk):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "CHUNK", chunk)
        paths = write(folder, files)
        expected = [line for content, _ in files for line in lines_of(content)]
        parts = sources(paths, "line", size)
        assert list(itertools.chain.from_iterable(parts)) == expected
        assert [len(part) for part in parts] == [len(list(part)) for part in parts]
        assert sum(part.total for part in parts) == sum(map(os.path.getsize, paths))

        blocks = sources(paths, "block", size, block)
        text = "".join(content.decode("utf-8", "replace") for content, _ in files)
        assert "".join(itertools.chain.from_iterable(blocks)) == text
        for record in list(itertools.chain.from_iterable(blocks)):
            assert record
            assert record.endswith("\n") or any(
                content.decode("utf-8", "replace").endswith(record) for content, _ in files
            )

        whole = sources(paths, "file", size)
        texts = [content.decode("utf-8", "replace") for content, _ in files]
        assert list(itertools.chain.from_iterable(whole)) == texts


@given(
    st.lists(st.tuples(contents, st.booleans()), min_size=1, max_size=3),
    st.integers(1, 3),
    st.sampled_from(["line", "block", "file"]),
    st.sampled_from([3, 50]),
    st.data(),
)
def test_reading_goes_on_from_any_record(files, size, by, chunk, data):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "CHUNK", chunk)
        paths = write(folder, files)
        for part in sources(paths, by, size, 20):
            expected = list(part.records())
            seen, position = [], None
            while True:
                count = data.draw(st.integers(1, 5))
                copy = pickle.loads(pickle.dumps(part))
                some = list(itertools.islice(copy.records(position), count))
                seen += some
                if some:
                    position = some[-1][0]
                assert 0 <= part.done(position) <= part.total
                if len(some) < count:
                    break
                if data.draw(st.booleans()):
                    reading._kept.clear()  # another engine
            assert seen == expected
        for kept in reading._kept.values():
            kept._raw.close()
        reading._kept.clear()


def test_a_long_line_over_several_extents_is_read_once(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"short\n" + b"x" * 10_000 + b"\nlast")
    parts = [list(part) for part in sources(path, "line", 8)]
    assert [line for part in parts for line in part] == ["short", "x" * 10_000, "last"]
    assert parts[1:7] == [[]] * 6


def test_files_that_are_not_split_are_balanced_in_order(tmp_path):
    paths = write(tmp_path, [(b"x" * 100, False)] * 8)
    parts = plan(paths, "file", 4)
    assert [[extent.path for extent in part] for part in parts] == [
        paths[0:2],
        paths[2:4],
        paths[4:6],
        paths[6:8],
    ]
    empty = write(tmp_path, [(b"", False)] * 4)
    assert [len(part) for part in plan(empty, "file", 4)] == [1, 1, 1, 1]
    packed = write(tmp_path, [(b"x\n" * 1000, True)] * 2)
    assert [len(part) for part in plan(packed, "line", 2)] == [1, 1]


def test_one_large_file_is_spread_over_all_ranks(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"line\n" * 4000)
    assert [len(part) for part in sources(path, "line", 4)] == [1000] * 4


def test_a_source_is_small_and_holds_no_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"word\n" * 100_000)
    (source,) = sources(path, "line", 1)
    list(source)
    assert len(pickle.dumps(source)) < 500
    assert pickle.loads(pickle.dumps(source)) == source
    assert "1 files, 500000 bytes" in repr(source)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("by", ["line", "block", "file"])
def test_a_file_that_changed_is_refused(tmp_path, by, packed):
    (path,) = write(tmp_path, [(b"one\ntwo\n", packed)])
    (source,) = sources(path, by, 1)
    assert len(list(source)) in (1, 2)
    os.utime(path, ns=(0, 0))
    with pytest.raises(InputChanged, match=r"a0\.txt.* changed \(its time of modification\)"):
        list(source)
    Path(path).write_bytes(b"other")
    with pytest.raises(InputChanged, match="to 5 bytes"):
        list(source)
    os.unlink(path)
    with pytest.raises(InputChanged, match="is gone"):
        list(source)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    (path,) = write(tmp_path, [(b"one\n" * 100, False)])
    (source,) = sources(path, "block", 1, 100)
    records = source.records()
    next(records)
    with open(path, "ab") as file:
        file.write(b"more\n")
    with pytest.raises(InputChanged):
        next(records)


@pytest.mark.parametrize(
    "content",
    [b"no gzip at all", gzip.compress(b"x\n" * 9999)[:-20]],
    ids=["no gzip", "cut short"],  # what gzip writes has the time in it, and names stay the same
)
def test_a_damaged_packed_file_is_named(tmp_path, content):
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    (source,) = sources(path, "line", 1)
    with pytest.raises(DataError, match=r"a\.gz is damaged behind byte"):
        list(source)


def test_an_open_packed_file_is_kept_between_continuations(tmp_path, monkeypatch):
    (path,) = write(tmp_path, [(b"".join(b"%d\n" % i for i in range(1000)), True)])
    (source,) = sources(path, "line", 1)
    opened = []
    init = reading._Packed.__init__
    monkeypatch.setattr(
        reading._Packed, "__init__", lambda self, *args: (opened.append(1), init(self, *args))[1]
    )
    position, seen = None, []
    for _ in range(1000):
        ((position, line),) = itertools.islice(source.records(position), 1)
        seen.append(int(line))
    assert seen == list(range(1000))
    assert len(opened) == 1
    assert not reading._kept  # closed at its end


def test_few_packed_files_are_kept_open(tmp_path):
    paths = write(tmp_path, [(b"a\nb\n", True)] * 20)
    for path in paths:
        (source,) = sources(path, "line", 1)
        next(source.records())
    assert len(reading._kept) <= 8
    for kept in reading._kept.values():
        kept._raw.close()
    reading._kept.clear()


def test_where_names_the_file_and_the_byte(tmp_path):
    paths = write(
        tmp_path, [(b"one\ntwo\n", False), (b"", False), (b"x\ny\n", True), (b"z", False)]
    )
    (source,) = sources(paths, "line", 1)
    places, position = [], None
    for behind, line in source.records():
        places.append((line, source.where(position).replace(str(tmp_path) + os.sep, "")))
        position = behind
    assert places == [
        ("one", "a0.txt, byte 0"),
        ("two", "a0.txt, byte 4"),
        ("x", "a2.txt.gz, byte 0 unpacked"),
        ("y", "a2.txt.gz, byte 2 unpacked"),
        ("z", "a3.txt, byte 0"),
    ]
    assert source.where(position) == "the end of the input"
    assert TextSource(source.extents, "file").where((2, None)) == paths[3]
    second = sources(paths[0], "line", 2)[1]
    assert second.where(None) == f"{paths[0]}, byte 4"


def test_expand(tmp_path, monkeypatch):
    for name in ("b.txt", "a.txt", "sub/c.txt", "odd[1].txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def names(paths):
        found = expand(paths)
        assert all(os.path.isabs(path) for path in found)
        return [os.path.relpath(path, tmp_path) for path in found]

    assert names("b.txt") == names(tmp_path / "b.txt") == names("~/b.txt") == ["b.txt"]
    assert names(["b.txt", Path("a.txt")]) == ["b.txt", "a.txt"]
    assert names("?.txt") == ["a.txt", "b.txt"]
    assert names("**/*.txt") == ["a.txt", "b.txt", "odd[1].txt", "sub/c.txt"]
    assert names("odd[1].txt") == ["odd[1].txt"]


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ("missing.txt", r"missing\.txt does not exist"),
        (["a.txt", "missing.txt"], r"missing\.txt does not exist"),
        (".", r"is a directory; name its files, by a glob such as '.*\*'"),
        ("*.csv", r"no file matches '\*\.csv'"),
        ("s*", r"no file matches 's\*'"),
        ([], "list of paths is empty"),
        (7, "paths is 7"),
        (None, "paths is None"),
        (b"a.txt", "give a str"),
        ([b"a.txt"], "is no path"),
        ([3], "3 is no path"),
        (os.devnull, "no regular file"),
    ],
)
def test_what_cannot_be_read_is_refused_at_once(tmp_path, monkeypatch, paths, words):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("x")
    Path("sub").mkdir()
    with pytest.raises(UsageError, match=words):
        expand(paths)


@pytest.mark.parametrize(("by", "block"), [("word", 10), (None, 10), ("line", 0)])
def test_a_wrong_kind_of_record_is_refused(tmp_path, by, block):
    (path,) = write(tmp_path, [(b"x", False)])
    with pytest.raises(UsageError, match=r"by=|block="):
        sources(path, by, 1, block)
