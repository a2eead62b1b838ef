"""What cannot be saved is refused, by the path to it."""

from __future__ import annotations

import collections
import contextvars
import functools
import queue
import socket
import sys
import threading
import types
import weakref

import numpy as np
import pytest

from feliss_nb.errors import UnpicklableError, UsageError
from feliss_nb.state import capture, pack, pack_function, unpack


class Box:
    def __init__(self, inner):
        self.inner = inner


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner):
        self.inner = inner


KEPT = Box(1)
Point = collections.namedtuple("Point", "x y")


@pytest.fixture(params=["generator", "lock", "RLock", "socket", "TextIOWrapper", "BufferedReader"])
def bad(request):
    kind = request.param
    made = {
        "generator": lambda: (i for i in [1]),
        "lock": threading.Lock,
        "RLock": threading.RLock,
        "socket": socket.socket,
        "TextIOWrapper": functools.partial(open, __file__, encoding="utf-8"),
        "BufferedReader": functools.partial(open, __file__, "rb"),
    }[kind]()
    yield kind, made
    if hasattr(made, "close"):
        made.close()


def refusal(obj, **keywords):
    with pytest.raises(UnpicklableError) as caught:
        pack(obj, **keywords)
    error = caught.value
    assert error.path in str(error)
    assert error.type_name in str(error)
    assert error.__cause__ is not None
    assert isinstance(error, UsageError)
    return error.path, error.type_name


def test_itself(bad):
    kind, made = bad
    assert refusal(made) == ("argument", kind)


def test_in_containers(bad):
    kind, made = bad
    assert refusal([1, (2, made)]) == ("argument[1][1]", kind)
    assert refusal({"a": {3: made}}) == ("argument['a'][3]", kind)
    assert refusal(collections.deque([0, made])) == ("argument[1]", kind)
    assert refusal(collections.defaultdict(list, k=made)) == ("argument['k']", kind)
    assert refusal(np.array([None, made], dtype=object)) == ("argument[1]", kind)
    assert refusal(Point(1, made)) == ("argument.y", kind)


def test_in_objects(bad):
    kind, made = bad
    nested = (0, {"lock": Box(made)})
    assert refusal(nested) == ("argument[1]['lock'].inner", kind)
    assert refusal(Slotted(Box(made))) == ("argument.inner.inner", kind)
    assert refusal(functools.partial(print, made)) == ("argument.args[0]", kind)
    assert refusal(functools.partial(print, end=made)) == ("argument.keywords['end']", kind)
    assert refusal(ValueError("x", made)) == ("argument.args[1]", kind)


def test_in_functions(bad, in_main):
    kind, made = bad
    names = in_main(
        """
        def use(): return [shared]
        def outer(): return use()
        def make(x):
            def inner(): return x
            return inner
        def default(a, b=None): pass
        class Method:
            def go(self): return shared
        """
    )
    names["shared"] = made
    assert refusal(names["use"]) == ("argument's global variable 'shared'", kind)
    path = "argument's global variable 'use''s global variable 'shared'"
    assert refusal(names["outer"]) == (path, kind)
    assert refusal([names["make"](made)]) == ("argument[0]'s captured variable 'x'", kind)
    names["default"].__defaults__ = (made,)
    assert refusal(names["default"]) == ("argument's default 'b'", kind)
    path, name = refusal(names["Method"]())
    assert path.endswith("'s global variable 'shared'")
    assert name == kind


def test_a_function_is_called_by_its_name(in_main):
    names = in_main("import threading\nlock = threading.Lock()\ndef visit(): return lock\n")
    with pytest.raises(UnpicklableError) as caught:
        pack_function(names["visit"])
    assert caught.value.path == "visit's global variable 'lock'"


def test_the_label_begins_the_path():
    assert refusal({"gen": (i for i in [])}, label="variable 'ring'")[0] == "variable 'ring'['gen']"


def test_rename_names_the_longest_prefix_it_knows():
    names = {
        (): "everything",
        ("partitions", 3): "variable 'ring'",
        ("pool", 0, 1, 2): "argument 2 of visit",
    }
    state = {"partitions": {3: {"visits": [threading.Lock()]}}, "pool": [], "more": None}
    with pytest.raises(UnpicklableError) as caught:
        capture(state, rename=names.get)
    assert caught.value.path == "variable 'ring'['visits'][0]"
    state = {"partitions": {}, "pool": [("visit", (0, 1, Box(i for i in [])))]}
    with pytest.raises(UnpicklableError) as caught:
        capture(state, rename=names.get)
    assert caught.value.path == "argument 2 of visit.inner"
    with pytest.raises(UnpicklableError) as caught:
        capture([threading.Lock()], rename=names.get)
    assert caught.value.path == "everything[0]"
    with pytest.raises(UnpicklableError) as caught:
        capture([threading.Lock()], rename=lambda keys: None)
    assert caught.value.path == "rank[0]"


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: threading.Thread(), "Thread"),
        (lambda: threading.Event(), "Event"),
        (lambda: queue.Queue(), "Queue"),
        (lambda: sys._getframe(), "frame"),
        (lambda: weakref.ref(Box(1)), "ReferenceType"),
        (lambda: weakref.finalize(KEPT, print), "finalize"),
        (lambda: weakref.proxy(test_itself), "CallableProxyType"),
        (lambda: weakref.proxy(KEPT), "ProxyType"),
        (lambda: contextvars.copy_context(), "Context"),
        (lambda: threading.local(), "_local"),
    ],
)
def test_other_things_of_one_process(make, name):
    path, kind = refusal([make()])
    assert path == "argument[0]"
    assert kind == name


def test_a_holder_is_named_rather_than_the_lock_within():
    class Worker(threading.Thread):
        pass

    with pytest.raises(UnpicklableError, match=r"it holds a") as caught:
        pack({"w": Box(Worker())})
    assert (caught.value.path, caught.value.type_name) == ("argument['w'].inner", "Worker")


def test_coroutines():
    async def go():
        pass

    coroutine = go()
    try:
        assert refusal([coroutine]) == ("argument[0]", "coroutine")
    finally:
        coroutine.close()


class Breaks:
    def __reduce__(self):
        raise ZeroDivisionError("mine")


class BreaksLater:
    def __getstate__(self):
        raise ZeroDivisionError("mine")


@pytest.mark.parametrize("kind", [Breaks, BreaksLater])
def test_the_users_own_exception_is_chained(kind):
    with pytest.raises(UnpicklableError, match="ZeroDivisionError: mine") as caught:
        pack({"a": [kind()]})
    assert caught.value.path == "argument['a'][0]"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def deep(levels):
    return levels and deep(levels - 1)


def test_deeper_than_pythons_limit():
    chain = None
    for i in range(1000):
        chain = Box([i, chain])
    before = sys.getrecursionlimit()
    back = unpack(pack(chain).data)
    assert sys.getrecursionlimit() == before
    for i in reversed(range(1000)):
        assert back.inner[0] == i
        back = back.inner[1]


def test_too_deep_is_told():
    chain = None
    for _ in range(100_000):
        chain = [chain]
    with pytest.raises(UnpicklableError, match="nested too deeply"):
        pack(chain)
    with pytest.raises(RecursionError):
        deep(sys.getrecursionlimit())
    while chain:  # else the interpreter frees it by recursion
        chain = chain[0]


def test_standard_output_is_the_receivers(capsys):
    with capsys.disabled():
        if type(sys.stdout).__name__ != "TextIOWrapper":
            pytest.skip("no plain standard output here")
        assert unpack(pack([sys.stdout]).data)[0] is sys.stdout


def test_a_cycle_does_not_stop_the_search():
    loop: list = []
    loop.append(loop)
    loop.append(types.SimpleNamespace(deep=[loop, threading.Lock()]))
    assert refusal(loop) == ("argument[1].deep[1]", "lock")


def test_shared_parts_are_searched_once():
    wide: list = [0]
    deep: list = [threading.Lock()]
    for _ in range(60):
        wide = [wide, wide]
        deep = [deep]
    assert refusal([wide, deep]) == ("argument[1]" + 61 * "[0]", "lock")


def test_keys_and_elements():
    key = (i for i in [])
    path, kind = refusal({key: 1})
    assert kind == "generator"
    assert path.startswith("argument's key <generator")
    assert refusal({key})[0].startswith("argument's element <generator")
