"""pack and unpack: what they keep, what they do not copy, what they note."""

from __future__ import annotations

import collections
import copy
import datetime
import enum
import functools
import re
import weakref
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feliss_nb.errors import InternalError
from feliss_nb.state import Handle, Target, fresh, pack, unpack
from feliss_nb.state.pickler import IN_BAND


def there_and_back(obj, **keywords):
    packed = pack(obj)
    return unpack(packed.data, fresh(packed.buffers), **keywords)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
values = st.recursive(
    scalars | st.builds(Handle, st.integers()) | st.builds(Target, st.integers()),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(scalars)
        | st.sets(scalars)
    ),
)


@given(values)
def test_what_is_packed_comes_back(value):
    back = there_and_back(value)
    assert back == value
    assert type(back) is type(value)


def test_types_of_the_library_come_back():
    value = {
        "deque": collections.deque([1, 2], maxlen=3),
        "default": collections.defaultdict(list, a=[1]),
        "counter": collections.Counter("abca"),
        "ordered": collections.OrderedDict(b=1, a=2),
        "date": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
        "pattern": re.compile("a+"),
        "range": range(3),
        "slice": slice(1, 2),
        "dots": ...,
        "bytearray": bytearray(b"xy"),
        "type": int,
        "builtin": len,
        "ufunc": np.add,
        "partial": functools.partial(int, base=2).args,
    }
    assert there_and_back(value) == value


def test_large_arrays_are_not_copied_by_pack():
    array = np.arange(IN_BAND, dtype=np.float64)
    packed = pack({"a": array})
    assert len(packed.buffers) == 1
    assert np.shares_memory(np.frombuffer(packed.buffers[0]), array)
    assert packed.buffers[0].format == "B"
    assert packed.buffers[0].ndim == 1
    assert packed.nbytes == len(packed.data) + array.nbytes


def test_small_arrays_stay_in_the_stream_and_are_writable():
    packed = pack([np.arange(5) for _ in range(3)])
    assert packed.buffers == ()
    back = unpack(packed.data)
    back[0][:] = 7
    assert back[1].tolist() == [0, 1, 2, 3, 4]


def test_arrays_live_in_the_buffers_that_were_given():
    array = np.arange(IN_BAND, dtype=np.float64)
    packed = pack(array)
    (memory,) = fresh(packed.buffers)
    back = unpack(packed.data, [memory])
    assert np.shares_memory(back, np.frombuffer(memory))
    assert not np.shares_memory(back, array)
    assert back.flags.writeable
    assert back.ctypes.data % 64 == 0


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 100_001])
def test_fresh_memory_is_aligned_writable_and_its_own(size):
    source = np.arange(size, dtype=np.uint8)
    (copied,) = fresh([source])
    assert bytes(copied) == source.tobytes()
    assert not copied.readonly
    target = np.frombuffer(copied, np.uint8)
    assert not size or target.ctypes.data % 64 == 0
    assert not np.shares_memory(target, source)


def test_fresh_takes_any_contiguous_buffer():
    for source in (b"abc", bytearray(b"abc"), memoryview(b"abc"), np.arange(6.0).reshape(2, 3)):
        (copied,) = fresh([source])
        assert bytes(copied) == memoryview(source).tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(30_000.0).reshape(100, 300)[::2, ::3],
        np.asfortranarray(np.arange(30_000.0).reshape(100, 300)),
        np.arange(30_000.0)[::-1],
        np.array([1, "a", None], dtype=object),
        np.zeros((0, 3)),
        np.array(5),
        np.zeros(3000, dtype=[("a", "i4"), ("b", "f8")]),
        np.ma.masked_array(np.arange(3000), mask=np.arange(3000) % 2),
        np.array(["x", "yy"] * 3000),
        np.array(["2020-01-01"] * 3000, dtype="M8[D]"),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_arrays_of_every_layout(array):
    back = there_and_back(array)
    assert type(back) is type(array)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_memoryviews_stay_memoryviews():
    big = memoryview(bytearray(range(256)) * 100)
    packed = pack({"big": big, "strided": big[::2], "matrix": big.cast("B", (256, 100))})
    back = unpack(packed.data, fresh(packed.buffers))
    assert back["big"] == big
    assert isinstance(back["big"], memoryview)
    assert back["strided"] == big[::2]
    assert back["matrix"].shape == (256, 100)
    assert there_and_back(memoryview(np.arange(4.0))).tolist() == [0, 1, 2, 3]


def test_aliases_and_cycles_survive():
    array = np.arange(IN_BAND, dtype=np.float64)
    loop = [array, {"again": array}]
    loop.append(loop)
    back = there_and_back(loop)
    assert back[0] is back[1]["again"]
    assert back[2] is back


def test_a_function_shares_its_globals_with_the_data(in_main):
    names = in_main("table = [1]\ndef grow():\n    table.append(2)\n    return table\n")
    back = there_and_back({"f": names["grow"], "data": names["table"]})
    assert back["f"]() is back["data"]
    assert back["data"] == [1, 2]
    assert names["table"] == [1]


class Variable(Handle):
    """As the notebook has it: with a session behind it."""

    def __init__(self, variable, session):
        super().__init__(variable, True)
        self.session = session


def test_a_subclass_of_handle_travels_as_a_plain_one():
    generator = (i for i in ())  # must not be looked at
    for obj in ((Variable(4, generator), 1), [Variable(4, generator)], Variable(4, generator)):
        packed = pack(obj)
        assert packed.handles == {4}
        back = unpack(packed.data)
        handle = back[0] if isinstance(back, (tuple, list)) else back
        assert type(handle) is Handle
        assert (handle.variable, handle.records) == (4, True)


def test_handles_equal_by_variable():
    assert Handle(1) == Variable(1, None)
    assert len({Handle(1), Variable(1, None), Handle(2), Target(1)}) == 3
    assert Handle(1) != Target(1)
    assert "1" in repr(Handle(1))
    variable = Variable(1, None)
    assert copy.copy(variable) is variable
    assert copy.deepcopy([variable])[0] is variable
    assert weakref.ref(variable)() is variable


def test_handles_and_targets_are_noted_wherever_they_stand(in_main):
    names = in_main(
        """
        from feliss_nb.state import Handle, Target
        outer = Handle(1)
        class Box:
            def __init__(self, what): self.what = what
        def make(h):
            def inner(x=Target(8)): return h, outer, x
            return inner
        """
    )
    packed = pack([names["make"](Handle(2)), {3: names["Box"](Handle(3))}, {Handle(4), Target(9)}])
    assert packed.handles == {1, 2, 3, 4}
    assert packed.targets == {8, 9}
    assert pack((1, Handle(5), Handle(6))).handles == {5, 6}
    assert pack((1, Target(5))).targets == {5}


def test_make_handle_replaces_handles():
    packed = pack([Handle(5, True), Handle(6)])
    assert unpack(packed.data, make_handle=lambda v, r: (v, r)) == [(5, True), (6, False)]


def test_make_handle_is_of_one_stream_only():
    class Nested:
        def __init__(self, data):
            self.data = data

        def __setstate__(self, state):
            self.inner = unpack(state["data"])

    packed = pack([Nested(pack([Handle(1)]).data), Handle(2)])
    inner, outer = unpack(packed.data, make_handle=lambda v, r: "bound")
    assert inner.inner == [Handle(1)]
    assert outer == "bound"
    assert unpack(packed.data)[1] == Handle(2)


def test_a_reference_without_a_namespace_is_our_bug():
    from feliss_nb.state import rebuild

    class Reference:
        def __reduce__(self):
            return rebuild.resolve, (b"x" * 16, None)

    with pytest.raises(InternalError):
        unpack(pack(Reference()).data)


@dataclass(frozen=True, slots=True)
class Slots:
    a: int
    b: list = field(default_factory=list)


class Old:
    __slots__ = ("x",)


class Colour(enum.Enum):
    RED = 1


def test_instances():
    old = Old()
    old.x = [1]
    slots, colour, back = there_and_back([Slots(1, [2]), Colour.RED, old])
    assert slots == Slots(1, [2])
    assert colour is Colour.RED
    assert back.x == [1]


def test_copyreg_is_heeded_whenever_it_was_filled():
    import copyreg

    class Late:
        pass

    assert isinstance(there_and_back(Late()), object)
    copyreg.pickle(Late, lambda late: (str, ("late",)))
    try:
        assert there_and_back([Late()]) == ["late"]
    finally:
        del copyreg.dispatch_table[Late]


def test_weak_dictionaries_and_sets():
    class Key:
        pass

    key = Key()
    back = there_and_back([key, weakref.WeakKeyDictionary({key: 1}), weakref.WeakSet([key])])
    assert back[1][back[0]] == 1
    assert back[0] in back[2]
