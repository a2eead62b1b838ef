"""Equal keys have one rank, on every engine; a key that cannot promise it is refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import os
import subprocess
import sys
import uuid
from collections import namedtuple
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feliss_nb.errors import UsageError
from feliss_nb.models.partition import partition_of, stable_hash

Point = namedtuple("Point", "x y")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Kind(enum.StrEnum):
    WORD = "word"


class Text(str):
    __slots__ = ()


class Folded(str):
    __slots__ = ()

    def __eq__(self, other):
        return self.lower() == other.lower()

    def __hash__(self):
        return hash(self.lower())


@dataclasses.dataclass(frozen=True)
class City:
    name: str
    country: str
    note: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class Loose:
    name: str

    def __eq__(self, other):
        return self.name.lower() == other.name.lower()

    def __hash__(self):
        return hash(self.name.lower())


@dataclasses.dataclass(frozen=True)
class LooseHash:
    name: str

    def __hash__(self):
        return 1


@dataclasses.dataclass
class Open:
    name: str


class Plain:
    pass


UTC = dt.timezone.utc  # noqa: UP017 - an instance like any other
NOON = dt.datetime(2024, 7, 1, 12, 0, 0, 5, tzinfo=UTC)
KEYS = [
    None,
    True,
    7,
    -1,
    2**70,
    1.5,
    float("inf"),
    2 + 3j,
    Decimal("0.1"),
    Fraction(1, 3),
    "word",
    "é\udc80",
    b"bytes",
    ("a", 1, (None, b"x")),
    frozenset({"a", "b", 3}),
    dt.date(2024, 2, 29),
    NOON,
    dt.datetime(2024, 7, 1),
    dt.time(12, 30),
    dt.timedelta(days=-3, seconds=5),
    uuid.UUID(int=5),
    Color.RED,
    Access.READ | Access.WRITE,
    City("Bern", "CH"),
    np.str_("word"),
    np.float32(0.1),
    np.datetime64("2024-02-29"),
    np.timedelta64(3, "M"),
]

PROGRAM = "import test_partition as t; print([t.stable_hash(key) for key in t.KEYS])"


def test_the_hash_does_not_depend_on_the_hash_seed():
    def run(seed):
        path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        command = [sys.executable, "-c", PROGRAM]
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

    assert run("1") == run("2") == f"{[stable_hash(key) for key in KEYS]}\n"


class Upper(dt.tzinfo):
    """A zone of its own class, an hour and a half ahead."""

    def utcoffset(self, when):
        return dt.timedelta(minutes=90)

    def dst(self, when):
        return dt.timedelta(0)


EQUAL = [
    (1, 1.0, True, Decimal(1), Fraction(1), 1 + 0j, Level.LOW),
    (1, np.int64(1), np.uint8(1), np.float64(1), np.bool_(True), np.float16(1)),
    (1, np.longdouble(1), np.complex64(1), np.float32(1)),
    (0.5, Decimal("0.5"), Fraction(1, 2), np.float32(0.5)),
    (0.0, -0.0, 0, False),
    (2**64, float(2**64), Decimal(2**64)),
    ("word", np.str_("word"), Text("word"), Kind.WORD),
    (b"x", np.bytes_(b"x")),
    ((1, 2), Point(1, 2), Point(True, 2.0), (np.int32(1), Decimal(2))),
    (frozenset([1, 2, 300]), frozenset([300, 2.0, True])),
    (
        NOON,
        NOON.astimezone(dt.timezone(dt.timedelta(hours=-7))),
        NOON.astimezone(ZoneInfo("Asia/Tokyo")),
        NOON.astimezone(Upper()),
    ),
    (dt.datetime(2024, 1, 2), np.datetime64("2024-01-02T00:00", "s")),
    (dt.date(2024, 1, 2), np.datetime64("2024-01-02")),
    (np.datetime64("2024-01-02T00:00", "ns"), np.datetime64("2024-01-02")),
    (dt.timedelta(days=7), np.timedelta64(1, "W"), np.timedelta64(168, "h")),
    (np.timedelta64(1, "Y"), np.timedelta64(12, "M")),
    (dt.time(12, tzinfo=UTC), dt.time(13, 30, tzinfo=Upper())),
    (Color.RED, Color("red")),
    (City("Bern", "CH"), City("Bern", "CH", note="capital")),
]


@pytest.mark.parametrize("keys", EQUAL)
def test_equal_keys_meet(keys):
    assert all(key == keys[0] for key in keys)
    assert len({stable_hash(key) for key in keys}) == 1
    assert len({partition_of(key, 7) for key in keys}) == 1


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.floats(allow_nan=False)
)
keys = st.recursive(
    scalars | st.datetimes() | st.timedeltas() | st.uuids() | st.sampled_from([*Color, *Level]),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)


def twins(key):
    """The key in other clothes: equal, and of another type where there is one."""
    if isinstance(key, bool | int) and abs(int(key)) < 2**53:
        return float(key)
    if isinstance(key, float) and key == key and abs(key) != float("inf"):
        return Fraction(key)
    if type(key) is tuple:
        return Point(*(twins(item) for item in key))
    if isinstance(key, frozenset):
        return frozenset(twins(item) for item in sorted(key, key=repr, reverse=True))
    return key


@given(keys, st.integers(1, 50))
def test_equal_keys_of_other_types_meet(key, size):
    twin = twins(key)
    assert twin == key
    assert partition_of(twin, size) == partition_of(key, size)
    assert 0 <= partition_of(key, size) < size


@given(st.datetimes(timezones=st.timezones()), st.timezones())
def test_equal_moments_in_two_zones_meet(moment, zone):
    try:
        other = moment.astimezone(zone)
    except OverflowError:
        return
    if other == moment:  # in a repeated hour Python holds them for different
        assert stable_hash(other) == stable_hash(moment)
    assert stable_hash(moment.replace(fold=1 - moment.fold)) == stable_hash(moment)


@pytest.mark.parametrize("size", [2, 3, 4, 8])
@pytest.mark.parametrize(
    "many",
    [range(0, 8000, 8), [f"key{i}" for i in range(1000)], [(i, "a") for i in range(1000)]],
    ids=["ints", "strs", "tuples"],
)
def test_keys_spread(many, size):
    ranks = [partition_of(key, size) for key in many]
    share = len(many) / size
    assert all(0.7 * share < ranks.count(rank) < 1.3 * share for rank in range(size))


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (Plain(), "type test_partition.Plain"),
        (Folded("x"), "type test_partition.Folded"),
        (Loose("x"), "type test_partition.Loose"),
        (LooseHash("x"), "type test_partition.LooseHash"),
        (int, "type type"),
        (len, "builtin_function"),
        (float("nan"), "NaN"),
        (Decimal("sNaN"), "NaN"),
        (np.float32("nan"), "NaN"),
        (np.datetime64("NaT"), "NaT"),
        (np.timedelta64(1), "without a unit"),
        ((1, Plain()), "test_partition.Plain"),
        ((1, float("nan")), "NaN"),
        (City("x", Plain()), "test_partition.Plain"),
        ([1], r"\[1\] is a list: it is unhashable.*use a tuple"),
        ({1}, "unhashable.*use a frozenset"),
        ({"a": 1}, "unhashable.*a tuple of its items"),
        ((1, [2]), r"\[2\] is a list: it is unhashable.*use a tuple"),
        (Open("x"), "unhashable"),
    ],
)
def test_a_key_that_cannot_promise_is_refused(key, words):
    with pytest.raises(UsageError, match=words):
        stable_hash(key)
    with pytest.raises(UsageError, match=words):  # also the second time
        partition_of(key, 2)


def test_equality_made_anew_in_a_notebook_gives_the_same_hash():
    def make():
        return dataclasses.make_dataclass("Cell", ["a", "b"], frozen=True, slots=True)(1, "x")

    assert stable_hash(make()) == stable_hash(make())
