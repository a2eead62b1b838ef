"""MapReduce gives what one process gives, however the work is cut and whatever arrives when."""

from __future__ import annotations

import functools
import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest
from fake_session import FakeSession, here
from hypothesis import given
from hypothesis import strategies as st

from feliss_nb.errors import UsageError
from feliss_nb.models import folds
from feliss_nb.models.mapreduce import (
    apply,
    map_,
    mapreduce,
    read_text,
    reduce,
    scatter,
    variable,
)
from feliss_nb.models.partition import partition_of


def words(line):
    for word in line.split():
        yield word, 1


def double(x):
    return x * 2


def divisors(n):
    for i in range(1, n + 1):
        if n % i == 0:
            yield i


class Repeat:
    def __init__(self, times):
        self.times = times

    def __call__(self, x):
        for _ in range(self.times):
            yield x


sessions = st.builds(
    FakeSession,
    size=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    cut=st.sampled_from([0.0, 0.2, 1.0]),
    recover=st.sampled_from([0.0, 0.3]),
)
word = st.sampled_from(["to", "be", "or", "not", "é", "\udc80"])
texts = st.lists(st.lists(word, max_size=6).map(" ".join), max_size=25)


# ------------------------------------------------------------------------------------- map


@given(sessions, st.lists(st.integers(-5, 30), max_size=30))
def test_map_keeps_order_and_yields_any_number(session, data):
    source = scatter(session, data)
    assert map_(session, double, source).collect() == [2 * x for x in data]
    divided = map_(session, divisors, source)
    assert divided.collect() == [d for n in data for d in divisors(n)]
    twice = map_(session, Repeat(2), divided)
    assert twice.collect() == [d for d in divided.collect() for _ in range(2)]
    assert sum(session.mapped.values()) == 2 * len(data) + len(divided.collect())
    assert all(done == total for done, total in session.progress.values())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        ((1, 2), [1, 2]),
        (range(10), list(range(10))),
        (np.arange(5), [0, 1, 2, 3, 4]),
        (iter([3, 1]), [3, 1]),
        ({"a": 1}.items(), [("a", 1)]),
        ([], []),
    ],
)
def test_what_lies_in_the_notebook_is_scattered(data, expected):
    session = FakeSession(3, cut=0.5)
    assert map_(session, _same, data).collect() == expected


def _same(record):
    return record


def test_functions_that_yield_in_other_ways():
    session = FakeSession(2, cut=0.5)
    partial = functools.partial(_several, 3)
    assert map_(session, partial, [1, 2]).collect() == [1, 1, 1, 2, 2, 2]
    inner = map_(session, lambda x: (y for y in range(x)), [2, 1])
    assert inner.collect() == [0, 1, 0]


def _several(times, x):
    for _ in range(times):
        yield x


def test_a_variable_of_values_is_one_record_a_rank():
    session = FakeSession(3, cut=0.5)
    values = variable(session, lambda rank, size: [rank, size])
    assert map_(session, _same, values).collect() == [[0, 3], [1, 3], [2, 3]]


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.3, 1.0]))
def test_how_the_work_is_cut_shows_in_no_random_number(seed, cut):
    def draw(x):
        yield x, here().draw()

    def run(session):
        pairs = map_(session, draw, range(40))
        drawn = mapreduce(session, draw, lambda values: (values, here().draw()), range(40))
        return pairs.collect(), drawn.collect()

    assert run(FakeSession(3, seed, cut)) == run(FakeSession(3, 1, 0.0))


@given(st.integers(0, 1000), st.sampled_from([0.3, 1.0]))
def test_a_map_function_may_change_what_it_reads(seed, cut):
    def run(session):
        data = scatter(session, list(range(12)))
        counts = variable(session, lambda rank, size: [])
        handles = [data, counts]

        def change(x):
            mine = here()
            mine[handles[1]].append(x)
            if x % 3 == 1:
                mine[handles[0]] = [-y for y in mine[handles[0]]]
            elif x % 3 == 2:
                mine[handles[0]].append(100)
            return x

        session.run()
        return map_(session, change, data).collect(), counts.partitions(), data.collect()

    assert run(FakeSession(2, seed, cut, 0.3)) == run(FakeSession(2))


def test_a_map_is_many_continuations():
    session = FakeSession(2, cut=1.0)
    assert map_(session, double, range(10)).collect() == [2 * x for x in range(10)]
    assert session.ran["map_some"] == 12  # one a record, and one a rank that finds the end


class Rows:
    """What this package uses of a DataFrame."""

    ndim = 2

    def __init__(self, rows):
        self.rows = rows
        self.iloc = self

    def __iter__(self):
        return iter(["column names"])

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, some):
        return Rows(self.rows[some])

    def itertuples(self, index, name):
        assert (index, name) == (False, None)
        return iter(self.rows)


def test_a_frame_is_its_rows():
    session = FakeSession(3, cut=0.2)
    rows = [(i % 7, i) for i in range(1000)]
    frame = scatter(session, Rows(rows))
    assert [len(part) for part in frame.partitions()] == [334, 333, 333]
    assert map_(session, _same, frame).collect() == rows
    totals = reduce(session, sum, frame)
    assert dict(totals.collect()) == {k: sum(v for x, v in rows if x == k) for k in range(7)}


# ------------------------------------------------------------------------- reduce, mapreduce


@given(sessions, texts)
def test_words_are_counted(session, lines):
    expected = Counter(word for line in lines for word in line.split())
    counts = mapreduce(session, words, sum, lines)
    assert dict(counts.collect()) == expected
    assert len(counts.collect()) == len(expected)
    for rank, part in enumerate(counts.partitions()):
        assert all(partition_of(word, session.size) == rank for word, _ in part)
    pairs = map_(session, words, lines)
    assert reduce(session, sum, pairs).partitions() == counts.partitions()
    assert mapreduce(session, words, len, lines).partitions() == counts.partitions()


pairs = st.lists(
    st.tuples(
        st.sampled_from([1, 1.0, True, 2, "a", ("a", 1), None]),
        st.floats(-10, 10) | st.integers(-10, 10),
    ),
    max_size=40,
)


def by_key(data, size):
    """The oracle: values by key in record order, keys in order of appearance."""
    found = defaultdict(list)
    for key, value in data:
        found[key].append(value)
    parts = [[] for _ in range(size)]
    for key, values in found.items():
        parts[partition_of(key, size)].append((key, values))
    return parts


def exact(parts):
    return [[(repr(key), repr(value)) for key, value in part] for part in parts]


@given(sessions, pairs)
def test_values_reach_a_reducer_in_the_order_of_their_origin(session, data):
    expected = by_key(data, session.size)
    listed = reduce(session, list, data)
    assert exact(listed.partitions()) == exact(expected)
    keyed = reduce(session, lambda key, values: (key, values), data, with_key=True)
    assert exact(keyed.partitions()) == exact(
        [[(key, (key, values)) for key, values in part] for part in expected]
    )
    for f in (min, max, len):
        wanted = [[(key, f(values)) for key, values in part] for part in expected]
        assert exact(reduce(session, f, data).partitions()) == exact(wanted)
        assert exact(mapreduce(session, _same, f, data).partitions()) == exact(wanted)


@given(sessions, pairs)
def test_sum_adds_in_one_order(session, data):
    chunks = scatter(session, data).partitions()
    expected = []
    for part in by_key(data, session.size):
        expected.append([])
        for key, _ in part:
            total = 0
            for chunk in chunks:
                mine = [value for k, value in chunk if k == key]
                if mine:
                    total = total + functools.reduce(lambda a, b: a + b, mine, 0)
            expected[-1].append((key, total))
    assert exact(reduce(session, sum, data).partitions()) == exact(expected)
    combined = mapreduce(session, _same, sum, data, combine=sum)
    assert exact(combined.partitions()) == exact(expected)


@given(sessions, pairs, st.sampled_from([1 << 16, 3]))
def test_combine_sees_each_value_once(session, data, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folds, "COMBINE_AT", limit)
        chunks = scatter(session, data).partitions()
        got = mapreduce(session, _same, list, data, combine=tuple).collect()
    for key, values in got:
        assert all(type(value) is tuple and value for value in values)
        flat = [value for item in values for value in item]
        assert flat == [value for k, value in data if k == key]
        if limit > len(data):
            per_rank = [tuple(value for k, value in chunk if k == key) for chunk in chunks]
            assert values == [item for item in per_rank if item]
    counted = mapreduce(session, _same, sum, data, combine=len)
    assert dict(counted.collect()) == Counter(key for key, _ in data)
    ranks = mapreduce(session, _same, len, data, combine=len)
    assert all(1 <= count <= session.size for _, count in ranks.collect())
    same = mapreduce(session, _same, list, data, combine=max)
    for key, values in same.collect():
        assert max(values) == max(value for k, value in data if k == key)


def test_combine_and_reduce_run_in_the_order_of_the_keys_appearance():
    session = FakeSession(2, cut=0.7, recover=0.3)
    seen = variable(session, lambda rank, size: [])

    def note(values):
        here()[seen].append(values)
        return values[0]

    session.run()
    mapreduce(session, _same, note, [(c, c) for c in "banana"], combine=note).collect()
    parts = seen.partitions()
    assert parts[0][:3] == [["b"], ["a"], ["n"]]
    assert parts[1][:2] == [["a", "a"], ["n"]]


def test_a_partition_function_says_where_keys_go():
    session = FakeSession(3, cut=0.5)
    data = [(i, i) for i in range(10)]
    last = reduce(session, sum, data, partition=lambda key, size: np.int64(size - 1))
    assert [len(part) for part in last.partitions()] == [0, 0, 10]
    own = mapreduce(session, _same, sum, [(Own(1), 2), (Own(1), 3)], partition=lambda k, n: 0)
    assert [value for _, value in own.collect()] == [5]


class Own:
    """A key of an own kind, which only a partition function can place."""

    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return self.x == other.x

    def __hash__(self):
        return self.x


def test_mapreduces_connect_through_memory():
    session = FakeSession(3, cut=0.4, recover=0.2)
    counts = mapreduce(session, words, sum, ["a b a", "b c", "a"], name="counts")
    often = mapreduce(session, lambda pair: (pair[1], pair[0]), sorted, counts)
    assert dict(often.collect()) == {3: ["a"], 2: ["b"], 1: ["c"]}
    assert counts.name == "counts"
    assert session.labels == ["scatter", "mapreduce words, sum", "mapreduce <lambda>, sorted"]


def test_arrays_are_added():
    session = FakeSession(2, cut=0.5, recover=0.3)
    data = [("a", np.arange(3)), ("b", np.ones(2)), ("a", np.ones(3))]
    total = dict(reduce(session, sum, data).collect())
    assert total["a"].tolist() == [1, 2, 3]
    assert total["b"].tolist() == [1, 1]
    assert data[0][1].tolist() == [0, 1, 2]


@given(st.integers(0, 10**6))
def test_text_is_counted_whatever_is_lost(corpus, seed):
    session = FakeSession(4, seed, cut=0.3, recover=0.2)
    for by in ("line", "block", "file"):
        text = read_text(session, corpus, by=by, block=64)
        counts = mapreduce(session, words, sum, text)
        with open(corpus, encoding="utf-8") as file:
            assert dict(counts.collect()) == Counter(file.read().split())
        done = [session.progress[session.jobs, rank] for rank in range(4)]
        assert all(mine == total for mine, total in done)
        assert sum(total for _, total in done) > 1000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_text("".join(f"zeile {i % 7} größe {i % 3}\n" for i in range(100)), "utf-8")
    return path


# ------------------------------------------------------------------- apply, variable, scatter


def test_apply_and_variable():
    session = FakeSession(3)
    start = variable(session, lambda rank, size: rank * 10 + size, name="start")
    assert start.partitions() == start.collect() == [3, 13, 23]
    assert not start.records
    plus = apply(session, lambda handle, n: here()[handle] + n, start, 1, name="plus")
    assert plus.collect() == [4, 14, 24]
    assert (start.name, plus.name) == ("start", "plus")


@given(st.integers(0, 20), st.integers(1, 6))
def test_scatter_cuts_contiguous_even_chunks(n, size):
    session = FakeSession(size)
    parts = scatter(session, range(n)).partitions()
    assert all(type(part) is range for part in parts)
    assert parts == [range(p[0], p[-1] + 1) if len(p) else p for p in parts]
    assert list(itertools.chain(*parts)) == list(range(n))
    arrays = scatter(session, np.arange(n)).partitions()
    split = np.array_split(np.arange(n), size)
    assert [a.tolist() for a in arrays] == [a.tolist() for a in split]
    assert [len(part) for part in parts] == [len(a) for a in arrays]


# ----------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("text", "a str has no records .*read_text"),
        (b"x", "a bytes has no records"),
        ({"a": 1}, r"a dict has no order.*d\.items"),
        (7, "7 has no records"),
        (None, "None has no records"),
        (np.array(3), "has no records"),
    ],
)
def test_what_is_no_source_is_refused_at_once(source, words):
    session = FakeSession(2)
    for call in (
        lambda: map_(session, double, source),
        lambda: reduce(session, sum, source),
        lambda: mapreduce(session, double, sum, source),
        lambda: scatter(session, source),
    ):
        with pytest.raises(UsageError, match=words):
            call()
    assert not session.variables
    assert not session.jobs


async def later(x):
    return x


def test_what_is_no_function_is_refused_at_once():
    session = FakeSession(2)
    calls = [
        (lambda: map_(session, 3, [1]), "the map function is 3"),
        (lambda: map_(session, later, [1]), "later is async"),
        (lambda: mapreduce(session, double, "sum", [1]), "the reduce function is 'sum'"),
        (lambda: mapreduce(session, double, sum, [1], combine=1), "combine is 1"),
        (lambda: reduce(session, sum, [], partition=2), "partition is 2"),
        (lambda: reduce(session, sum, [], with_key=True), "sum takes values only"),
        (lambda: apply(session, None), "the function is None"),
        (lambda: variable(session, 0), "init is 0; give a function of .*scatter"),
        (lambda: scatter(session, scattered), "a variable already"),
    ]
    scattered = scatter(session, [1])
    for call, expected in calls:
        with pytest.raises(UsageError, match=expected):
            call()
    assert session.jobs == 1


def fails(x):
    if x == 17:
        raise ZeroDivisionError("seventeen")
    return x, x


def test_an_error_names_the_record(tmp_path):
    session = FakeSession(1, cut=0.5)
    data = scatter(session, range(100), name="numbers")
    with pytest.raises(ZeroDivisionError, match=r"rank 0: record 17 of 'numbers' \(17\)"):
        map_(session, fails, data).collect()

    session = FakeSession(1, cut=0.5)
    path = tmp_path / "a.txt"
    path.write_text("ok\nbad\n")
    lines = read_text(session, path)
    with pytest.raises(ValueError, match=r"record 1 of variable 1 \(.*a\.txt, byte 3\)"):
        map_(session, lambda line: int(line) if line == "bad" else 0, lines).collect()

    session = FakeSession(1, cut=0.5)
    with pytest.raises(ValueError, match="rank 0: key 'b'"):
        reduce(session, lambda v: v.index(0), [("a", 0), ("b", 1)]).collect()


@pytest.mark.parametrize("cut", [0.0, 1.0])
@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (7, "gave 7, which is no pair"),
        ("ab", "gave 'ab', which is no pair"),
        ((1,), r"gave \(1,\), which is no pair"),
        ((1, 2, 3), r"gave \(1, 2, 3\), which is no pair"),
        ([1, 2, 3], r"gave \[1, 2, 3\], which is no pair"),
        ({1, 2}, r"gave \{1, 2\}, which is no pair"),
        ("x" * 10_000, r"gave 'x{20,50}\.\.\.x{20,50}', which is no pair"),
        (([1], 2), r"the key \[1\] is a list: it is unhashable"),
        (((1, [2]), 2), r"is a tuple, which holds a list: it is unhashable"),
        ((float("nan"), 2), "NaN"),
        ((object(), 2), "gave a key of type object"),
    ],
)
@pytest.mark.parametrize("f", [sum, len, min, max, list])
def test_what_is_no_pair_is_refused(f, bad, expected, cut):
    data = [("a", 1), ["b", 2], bad, ("c", 3)]

    def giver(record):
        yield record

    session = FakeSession(1, cut=cut)
    with pytest.raises(UsageError, match=f"giver.*{expected}"):
        mapreduce(session, giver, f, data).collect()
    session = FakeSession(1, cut=cut)
    with pytest.raises(UsageError, match=f"(?s)the list.*{expected}.*record 2 of the list"):
        reduce(session, f, data).collect()


def test_other_errors_of_a_fold_stay_what_they_are():
    session = FakeSession(2)
    with pytest.raises(TypeError, match=r"(?s)unsupported operand.*record 1 of the list"):
        reduce(session, sum, [("a", 1), ("b", "x"), ("c", 1)] + [("d", 1)] * 3).collect()
    session = FakeSession(2)  # found only where the ranks meet
    with pytest.raises(TypeError, match=r"(?s)not supported.*merging the values of rank 1"):
        reduce(session, min, [("a", 1), ("a", "x")]).collect()


@pytest.mark.parametrize("answer", [2, -1, None, "0", 0.5])
def test_a_partition_function_out_of_range_is_refused(answer):
    session = FakeSession(2)
    with pytest.raises(UsageError, match=r"place gave .* for the key 'a'; a rank is an int from 0"):
        reduce(session, sum, [("a", 1)], partition=_place(answer)).collect()


def _place(answer):
    def place(key, size):
        return answer

    return place


def test_a_function_that_is_to_give_one_value_may_not_yield():
    for submit in (
        lambda session: reduce(session, divisors_of, [("a", 1)]),
        lambda session: mapreduce(session, _same, sum, [("a", 1)], combine=divisors_of),
        lambda session: apply(session, divisors_of, 1),
        lambda session: variable(session, divisors_of),
    ):
        session = FakeSession(2)
        with pytest.raises(UsageError, match="divisors_of gives a generator"):
            submit(session).collect()


def divisors_of(*args):
    yield 1


def test_records_without_an_order_are_refused():
    session = FakeSession(1)
    data = scatter(session, [1], name="data")
    session.run()
    session.ranks[0].partitions[data.variable] = {1, 2}
    with pytest.raises(UsageError, match="the partition of 'data' on this rank is a set"):
        map_(session, double, data).collect()


def test_a_mapper_may_return_a_dict_of_pairs():
    blocks = ["to be or not to be", "that is the question", ""]
    session = FakeSession(2, cut=0.5)
    out = mapreduce(session, lambda block: Counter(block.split()), sum, blocks)
    assert dict(out.collect()) == Counter(" ".join(blocks).split())
