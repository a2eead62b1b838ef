"""Python objects of many kinds, for whatever must write and read all of them."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import itertools
import operator
import pathlib
import random
import re
import struct
import tempfile
import types
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from feliss_nb.state import Handle, Target


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


@dataclasses.dataclass
class Point:
    x: float
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: int
    y: Any = None


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class OfTwo(KeyError, TimeoutError):
    """Its memory is laid out as the second of its bases wants it."""

    def __init__(self, what: str, more: int) -> None:
        super().__init__(what)
        self.more = more


def noted() -> Any:
    array = np.ma.masked_array(np.arange(4.0), [0, 1, 0, 0])
    array.note = ["n"]
    return array


class Refused(Exception):
    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code


class NotThere(FileNotFoundError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "it is not there", path)


class Slots:
    __slots__ = ("a", "b")

    def __init__(self) -> None:
        self.a = [1]


class MyDict(dict):
    pass


class MyOrdered(collections.OrderedDict):
    pass


class MyList(list):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.extra = {"e": 1}


class MyArray(np.ndarray):
    unit: str


Pair = collections.namedtuple("Pair", "left right")


def cycle() -> Any:
    found: list[Any] = [1]
    found.append(found)
    return found


def ring() -> Any:
    a: dict[str, Any] = {"name": "a"}
    b = {"name": "b", "next": a}
    a["next"] = b
    return [a, b]


def aliases() -> Any:
    inner = [1, 2]
    large = np.arange(3000.0)
    return {"one": inner, "two": [inner, inner], "large": large, "again": [large, large[5:50]]}


def views() -> Any:
    base = np.arange(20_000.0).reshape(100, 200)
    return [base, base.T, base[::2, 3:50], base[:, 7], base.view(np.int64)[3]]


def counter() -> Any:
    count = 0

    def bump() -> int:
        nonlocal count
        count += 1
        return count

    bump()
    return bump


def recursive() -> Any:
    def fact(n: int) -> int:
        return 1 if n < 2 else n * fact(n - 1)

    return fact


def decorated() -> Any:
    def twice(f: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(f)
        def wrapper(*args: int) -> int:
            return f(*args) * 2

        return wrapper

    @twice
    @twice
    def add(a: int, b: int = 3) -> int:
        """Add."""
        return a + b

    return add


def local_class() -> Any:
    class Local:
        total = 3

        def __init__(self) -> None:
            self.me = self
            self.data = np.arange(2000)

        @property
        def double(self) -> int:
            return self.total * 2

        @staticmethod
        def still() -> int:
            return 1

        @classmethod
        def made(cls) -> Any:
            return cls()

    return [Local(), Local]


def many_small_arrays() -> Any:
    return {i: np.full(i % 7, float(i)) for i in range(300)}


def vars_set(obj: Any, **attributes: Any) -> Any:
    vars(obj).update(attributes)
    return obj


def fixed(array: Any) -> Any:
    array.flags.writeable = False
    return array


def measured() -> Any:
    found = np.arange(3000.0).view(MyArray)
    found.unit = "m"
    return found


def mapped() -> Any:
    with tempfile.TemporaryFile() as file:
        found = np.memmap(file, np.float64, shape=(3000,))
    found[:] = np.arange(3000.0)
    return found


def exception() -> Any:
    error = ValueError("bad", 3)
    error.add_note("a note")
    return error


#: Of each kind one; called anew wherever it is used.
CORPUS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "bools": lambda: [True, False],
    "ints": lambda: [0, -1, 255, 256, 2**31, -(2**63), 10**40],
    "floats": lambda: [0.0, -0.0, 1e308, float("inf"), 5e-324],
    "complex": lambda: 3 - 4j,
    "text": lambda: ["", "ä€😀", "x" * 10_000, "\ud800"],
    "bytes": lambda: [b"", b"\0" * 9000, bytes(range(256))],
    "bytearray": lambda: bytearray(b"abc" * 3000),
    "memoryview": lambda: memoryview(bytearray(b"xyz" * 3000)),
    "tuple": lambda: (1, (2, (3,)), ()),
    "list": lambda: list(range(5000)),
    "set": lambda: {1, "a", (2, 3)},
    "frozenset": lambda: frozenset({frozenset({1}), 2}),
    "dict": lambda: {"a": 1, 2: "b", (3,): [4], None: {}},
    "large dict": lambda: {i: i * i for i in range(20_000)},
    "nested": lambda: [[[[{"a": [(1, [2])]}]]]],
    "cycle": cycle,
    "ring of dicts": ring,
    "aliases": aliases,
    "range and slice": lambda: [range(3, 30, 4), slice(1, None, 2)],
    "ellipsis": lambda: [..., NotImplemented],
    "deque": lambda: collections.deque([1, 2, 3], maxlen=5),
    "ordered dict": lambda: collections.OrderedDict([("b", 1), ("a", 2)]),
    "default dict": lambda: collections.defaultdict(list, {"a": [1]}),
    "counter": lambda: collections.Counter("abracadabra"),
    "chain map": lambda: collections.ChainMap({"a": 1}, {"b": 2}),
    "named tuple": lambda: Pair(1, [2]),
    "simple namespace": lambda: types.SimpleNamespace(a=1, b=[2]),
    "mapping subclass": lambda: MyDict(a=1),
    "list subclass": lambda: MyList([1, 2]),
    "array.array": lambda: array.array("d", [1.5] * 2000),
    "decimal": lambda: decimal.Decimal("1.10"),
    "fraction": lambda: fractions.Fraction(3, 7),
    "datetime": lambda: datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    "timedelta": lambda: datetime.timedelta(days=3, microseconds=1),
    "path": lambda: pathlib.PurePosixPath("/a/b"),
    "uuid": lambda: uuid.UUID(int=5),
    "pattern": lambda: re.compile("a+(b)", re.I),
    "random": lambda: random.Random(5),
    "exception": exception,
    "exception with slots": lambda: Slotted(3),
    "exception of two builtin classes": lambda: OfTwo("x", 1),
    "exception of numpy with slots or not": lambda: np.exceptions.AxisError(5, 1),
    "masked array with an attribute": noted,
    "exception of a class with an __init__": lambda: Refused(3, "no"),
    "exception of the system's with an __init__": lambda: NotThere("/a"),
    "enum": lambda: [Colour.RED, Colour.BLUE, Colour],
    "flag": lambda: Access.READ | Access.WRITE,
    "dataclass": lambda: Point(1.5, ["a"]),
    "frozen dataclass": lambda: Frozen(1, Frozen(2)),
    "slots, one empty": Slots,
    "struct": lambda: struct.Struct("<id"),
    "iterators": lambda: [iter([1, 2]), itertools.count(3), zip([1], "a", strict=True)],
    "mapping proxy": lambda: types.MappingProxyType({"a": [1]}),
    "partial with an attribute": lambda: vars_set(functools.partial(int, base=2), unit="m"),
    "ordered subclass": lambda: vars_set(MyOrdered(b=1, a=2), extra=[1]),
    "default dict of a lambda": lambda: collections.defaultdict(lambda: [0], {"a": [1]}),
    "exception group": lambda: ExceptionGroup("g", [ValueError(1), Refused(2, "b")]),
    "nullable frame": lambda: pd.DataFrame({"i": pd.array([1, None], dtype="Int64")}),
    "frame of two indices": lambda: pd.DataFrame(
        {"a": range(4)}, index=pd.MultiIndex.from_product([["x", "y"], [1, 2]])
    ),
    "categories and periods": lambda: [
        pd.Categorical(["a", "b"], ordered=True),
        pd.period_range("2020-01", periods=3, freq="M"),
    ],
    "builtin function": lambda: [len, str.upper, operator.itemgetter(1)],
    "partial": lambda: functools.partial(int, base=2),
    "bound method": lambda: Point(2.0).__eq__,
    "lambda": lambda: lambda x, y=[1]: (x, y),
    "closure": counter,
    "recursive function": recursive,
    "decorated function": decorated,
    "local class": local_class,
    "module": lambda: [np.linalg, re],
    "array": lambda: np.arange(100_000.0),
    "small arrays": many_small_arrays,
    "empty arrays": lambda: [np.zeros(0), np.zeros((3, 0, 2))],
    "array of bools": lambda: np.arange(9000) % 3 == 0,
    "fortran array": lambda: np.asfortranarray(np.arange(6000.0).reshape(60, 100)),
    "views of one memory": views,
    "read-only array": lambda: np.frombuffer(bytes(9000), np.int8),
    "big-endian array": lambda: np.arange(3000, dtype=">i4"),
    "text array": lambda: np.array(["a", "bcd"] * 2000),
    "array of objects": lambda: np.array([1, "a", None, [2]], dtype=object),
    "structured array": lambda: np.zeros(1000, dtype=[("a", "i4"), ("b", "f8", 2)]),
    "masked array": lambda: np.ma.masked_array(np.arange(3000), np.arange(3000) % 2, fill_value=-1),
    "masked array, no fill value": lambda: np.ma.masked_array([1.5, 2.5], [0, 1]),
    "masked records": lambda: np.ma.masked_array([(1, "a")], [(0, 1)], dtype="i4, O"),
    "records of objects": lambda: np.array([(1, [2]), (3, None)], dtype=[("a", "i4"), ("b", "O")]),
    "hard mask": lambda: np.ma.masked_array([1.5, 2.5], [0, 1], hard_mask=True),
    "masked": lambda: np.ma.masked,
    "array subclass": lambda: np.arange(3000.0).view(MyArray),
    "array subclass with an attribute": measured,
    "matrix": lambda: np.matrix([[1, 2], [3, 4]]),
    "record array": lambda: np.rec.array([(1, 2.5), (3, 4.5)], dtype="i4, f8"),
    "mapped file": mapped,
    "read-only array of objects": lambda: fixed(np.array([1, "a", [2]], dtype=object)),
    "read-only masked array": lambda: fixed(np.ma.masked_array([1, 2], [0, 1])),
    "read-only array subclass": lambda: fixed(measured()),
    "read-only matrix": lambda: fixed(np.matrix([[1, 2], [3, 4]])),
    "read-only record array": lambda: fixed(np.rec.array([(1, 2.5)], dtype="i4, f8")),
    "read-only mapped file": lambda: fixed(mapped()),
    "read-only strides": lambda: fixed(np.arange(9000.0)[::3]),
    "read-only memoryviews": lambda: [memoryview(bytes(9000)), memoryview(bytes(9000))[::2]],
    "datetimes": lambda: np.arange("2020-01", "2021-01", dtype="datetime64[D]"),
    "numpy scalars": lambda: [np.float32(1.5), np.int8(-3), np.bool_(True)],
    "generator of numbers": lambda: np.random.default_rng(7),
    "data frame": lambda: pd.DataFrame({"a": np.arange(3000), "b": ["x", "y", "z"] * 1000}),
    "series with index": lambda: pd.Series([1.5, 2.5], index=["a", "b"], name="s"),
    "handles": lambda: [Handle(3), Target(4), (Handle(3, True), 1)],
}

#: As a notebook's cell has them: what stands in ``state`` counts.
IN_MAIN = {
    "class": "class Particle:\n    n = 1\n    def move(self): return self.n\nstate = Particle()",
    "class with itself": "class A:\n    pass\nstate = A(); state.me = state; state.cls = A",
    "subclass": "class A:\n    x = 1\nclass B(A):\n    def f(self): return super().x\nstate = B()",
    "function of globals": "N = 3\ndef f(): return N + g()\ndef g(): return N\nstate = [f, g]",
    "mutual recursion": (
        "def a(n): return n and b(n - 1)\ndef b(n): return n and a(n - 1)\nstate = a"
    ),
    "dataclass": "import dataclasses as d\n@d.dataclass\nclass P:\n    x: int\nstate = P(3)",
    "slots": (
        "class S:\n    __slots__ = ('a', 'b')\n"
        "class T(S):\n    __slots__ = ('__dict__', 'c')\n"
        "state = [S(), T()]; state[0].a = 1; state[1].c = state[1].d = 2"
    ),
    "enum": "import enum\nclass C(enum.Enum):\n    A = 1\nstate = [C.A, C]",
    "nested function": "def f(k):\n    def g(x): return x + k\n    return g\nstate = [f(1), f(2)]",
    "decorated": "def d(f):\n def w(): return f()\n return w\n@d\ndef f(): return 1\nstate = f",
    "shared global": "data = [1, 2]\ndef f(): return data\nstate = [data, f]",
}
