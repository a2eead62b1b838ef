"""Functions as blobs, and the namespace that they live in."""

from __future__ import annotations

import functools
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feliss_nb.errors import InternalError
from feliss_nb.state import (
    FunctionBlob,
    Handle,
    Namespace,
    capture,
    fresh,
    pack,
    pack_function,
    restore,
    unpack,
)


def load(namespace: Namespace, blob: FunctionBlob):
    return namespace.load(blob.digest, blob.data, blob.buffers)


def send(obj, source: Namespace, target: Namespace):
    packed = pack(obj, source)
    assert all(target.has(d) for d in packed.digests)
    return unpack(packed.data, fresh(packed.buffers), target), packed


SOURCE = """
    import functools
    import numpy as np

    table = {"k": 1}
    big = np.zeros(100_000)

    def fact(n):
        return n * fact(n - 1) if n else 1

    def even(n):
        return True if n == 0 else odd(n - 1)

    def odd(n):
        return False if n == 0 else even(n - 1)

    def scale(x):
        return x * table["k"] + big[0]

    def adder(n):
        total = [n]
        def add(x):
            total[0] += x
            return total[0]
        return add

    def logged(f):
        @functools.wraps(f)
        def wrapper(*args):
            return ("logged", f(*args))
        return wrapper

    @logged
    def double(x):
        return 2 * x

    @functools.cache
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    @functools.singledispatch
    def show(x): return "any"
    @show.register
    def _(x: int): return "int"

    class Base:
        limit = 3
        def __init__(self, x): self.x = x
        def get(self): return self.x + table["k"]
        @classmethod
        def make(cls, x): return cls(x)
        @staticmethod
        def twice(x): return 2 * x
        @property
        def square(self): return self.x ** 2
        @functools.cached_property
        def slow(self): return self.x + 100
        def __call__(self, y): return self.x + y

    class Child(Base):
        def get(self): return super().get() * 10

    def is_child(x): return isinstance(x, Child)
    def make_child(x): return Child(x)
    def count():
        global counter
        counter = counter + 1
        return counter
    counter = 0
    def use_all(x): return scale(x), even(x), make_child(x).get()
"""


@pytest.fixture
def names(in_main):
    return in_main(SOURCE)


@pytest.mark.parametrize(
    ("pick", "args", "answer"),
    [
        (lambda n: n["fact"], (5,), 120),
        (lambda n: n["even"], (7,), False),
        (lambda n: n["scale"], (4,), 4),
        (lambda n: n["adder"](10), (1,), 11),
        (lambda n: n["double"], (4,), ("logged", 8)),
        (lambda n: n["fib"], (30,), 832040),
        (lambda n: n["show"], (1,), "int"),
        (lambda n: functools.partial(n["scale"], 4), (), 4),
        (lambda n: n["Child"](2).get, (), 30),
        (lambda n: n["Child"].make(5).get, (), 60),
        (lambda n: n["Base"].twice, (4,), 8),
        (lambda n: n["Base"](4), (5,), 9),
        (lambda n: n["use_all"], (2,), (2.0, True, 30)),
        (lambda n: len, ("abc",), 3),
        (lambda n: operator.add, (1, 2), 3),
        (lambda n: np.add, (1, 2), 3),
        (lambda n: str.upper, ("a",), "A"),
        (lambda n: "abc".upper, (), "ABC"),
        (lambda n: operator.itemgetter(1), ("abc",), "b"),
        (lambda n: eval("lambda x: table['k'] + x", n), (1,), 2),
        (lambda n: functools.lru_cache(len), ("abc",), 3),
    ],
)
def test_every_kind_of_callable(names, pick, args, answer):
    function = pick(names)
    blob = pack_function(function)
    there = load(Namespace(), blob)
    assert there(*args) == answer
    assert pack_function(pick(names)).name == blob.name


def test_members_that_descriptors_make(names):
    there = load(Namespace(), pack_function(names["make_child"]))(3)
    assert (there.square, there.slow, there.twice(4), there.limit) == (9, 103, 8, 3)


def test_same_digest_for_an_unchanged_function(names):
    for name in ("fact", "scale", "use_all", "double", "Child", "fib"):
        first = pack_function(names[name])
        assert pack_function(names[name]).digest == first.digest
        assert len(first.digest) == 16


def test_the_digest_sees_a_captured_global(names):
    first = pack_function(names["scale"]).digest
    names["big"][77_777] = 1
    second = pack_function(names["scale"]).digest
    names["table"]["k"] = 2
    third = pack_function(names["scale"]).digest
    names["unrelated"] = 1
    assert len({first, second, third}) == 3
    assert pack_function(names["scale"]).digest == third


def test_a_blob_tells_what_it_captured(names):
    names["table"]["h"] = Handle(7)
    blob = pack_function(names["scale"])
    assert blob.handles == {7}
    assert blob.name == "scale"
    assert blob.nbytes > names["big"].nbytes
    assert len(blob.buffers) == 1
    assert np.shares_memory(np.frombuffer(blob.buffers[0]), names["big"])
    assert pack_function(functools.partial(names["scale"], 1)).name == "scale"
    assert pack_function(names["Base"](1)).name == "Base"


def test_a_loaded_global_is_writable_and_its_own(names):
    names.update(big=np.ones(10_000))
    there = load(Namespace(), pack_function(names["scale"]))
    there.__globals__["big"][0] = 5
    assert there(1) == 6
    assert names["scale"](1) == 2


def test_load_gives_one_object_per_digest(names):
    namespace = Namespace()
    blob = pack_function(names["fact"])
    assert not namespace.has(blob.digest)
    there = load(namespace, blob)
    assert load(namespace, blob) is there
    assert namespace.get(blob.digest) is there
    assert namespace.resolve(blob.digest) is there
    assert namespace.digests() == {blob.digest}
    with pytest.raises(InternalError, match="not loaded"):
        namespace.get(b"0" * 16)
    with pytest.raises(InternalError, match="no global"):
        namespace.resolve(blob.digest, "nothing")


def test_a_root_that_is_no_function_is_made_once(names):
    namespace = Namespace()
    blob = pack_function(functools.partial(names["scale"], 2))
    assert load(namespace, blob) is load(namespace, blob)


def test_methods_are_their_classes_own(names):
    get = load(Namespace(), pack_function(names["Child"](1).get))
    assert get.__func__ is type(get.__self__).get


@pytest.mark.parametrize(
    ("first", "second", "answers"),
    [
        ("def f(): return 1", "\ndef f(): return 2", (1, 2)),
        ("def f(x=1): return x", "def f(x=2): return x", (1, 2)),
    ],
)
def test_a_function_that_was_defined_again_is_another(in_main, first, second, answers):
    for order in (0, 1):
        names = in_main(first)
        old = names["f"]
        exec(compile(second, "<cell>", "exec"), names)
        exec("def use(): return f()", names)
        blobs = [pack_function(old), pack_function(names["use"]), pack_function(names["f"])]
        namespace = Namespace()
        loaded = [load(namespace, blob) for blob in (blobs if order else blobs[::-1])]
        found = [f() for f in (loaded if order else loaded[::-1])]
        assert found == [answers[0], answers[1], answers[1]]


def test_recursion_reaches_the_same_object(names):
    namespace = Namespace()
    fact = load(namespace, pack_function(names["fact"]))
    assert fact.__globals__["fact"] is fact
    assert send(fact, namespace, namespace)[0] is fact
    even = load(namespace, pack_function(names["even"]))
    odd = even.__globals__["odd"]
    assert odd.__globals__["even"] is even
    assert send([odd], namespace, namespace)[0] == [odd]


@given(st.permutations(["even", "odd", "fact", "use_all", "scale"]))
def test_blobs_share_one_copy_of_the_globals(order):
    import textwrap

    names = {"__name__": "__main__"}
    exec(textwrap.dedent(SOURCE), names)
    namespace = Namespace()
    loaded = {name: load(namespace, pack_function(names[name])) for name in order}
    home = namespace.home_globals()
    for name, function in loaded.items():
        assert function.__globals__ is home
        assert home.get(name, function) is function
    assert set(loaded) - set(home) == {"use_all"}
    loaded["scale"].__globals__["table"]["k"] = 5
    assert loaded["use_all"](2)[0] == 10


def test_references_instead_of_functions(names):
    here, there = Namespace(), Namespace()
    blob = pack_function(names["use_all"])
    local, remote = load(here, blob), load(there, blob)
    scale = local.__globals__["scale"]
    (root, inner, twice), packed = send((local, {"f": scale}, scale), here, there)
    assert root is remote
    assert inner["f"] is twice is remote.__globals__["scale"]
    assert packed.digests == {blob.digest}
    assert packed.nbytes < 300
    assert here.reference(local) == (blob.digest, "use_all") or here.reference(local) == (
        blob.digest,
        None,
    )
    assert here.reference(scale) == (blob.digest, "scale")
    assert here.reference(names["scale"]) is None
    assert here.reference(len) is None


def test_roots_that_are_no_functions_are_referred_to(names):
    here, there = Namespace(), Namespace()
    for root in (functools.partial(names["scale"], 2), names["Base"](1)):
        blob = pack_function(root)
        local, remote = load(here, blob), load(there, blob)
        back, packed = send([local], here, there)
        assert back[0] is remote
        assert packed.digests == {blob.digest}
    for builtin in (len, int):
        blob = pack_function(builtin)
        local = load(here, blob)
        assert pack([local], here).digests == frozenset()


def test_instances_of_a_class_of_the_blob(names):
    here, there = Namespace(), Namespace()
    blob = pack_function(names["use_all"])
    local, remote = load(here, blob), load(there, blob)
    child = local.__globals__["Child"](3)
    back, packed = send([child] * 3, here, there)
    assert type(back[0]) is remote.__globals__["Child"]
    assert packed.digests == {blob.digest}
    assert packed.nbytes < 300


def test_a_nested_function_runs_in_the_receivers_globals(names):
    here, there = Namespace(), Namespace()
    blob = pack_function(names["adder"])
    scale = pack_function(names["scale"])
    for namespace in (here, there):
        load(namespace, blob)
        load(namespace, scale)
    home = here.home_globals()
    exec("def nest(n):\n    return lambda x: (table['k'], n + x, made)\nmade = 'here'", home)
    there.home_globals()["table"]["k"] = 9
    (back,), packed = send([home["nest"](1)], here, there)
    assert back.__globals__ is there.home_globals()
    assert back(2) == (9, 3, "here")  # what the receiver lacked came along
    assert packed.digests == {scale.digest}
    assert len(packed.buffers) == 0


def test_a_function_made_on_a_rank_can_be_a_blob(names):
    here, there = Namespace(), Namespace()
    blob = pack_function(names["adder"])
    local = load(here, blob)
    made = pack_function(local(5), here)
    assert made.digests <= {blob.digest}
    load(there, blob)
    assert load(there, made)(1) == 6
    assert load(Namespace(), pack_function(local(5)))(1) == 6


def test_a_name_given_to_something_else_is_no_reference(names):
    namespace = Namespace()
    use_all = load(namespace, pack_function(names["use_all"]))
    old = use_all.__globals__["scale"]
    assert namespace.reference(old) is not None
    use_all.__globals__["scale"] = lambda x: -x
    assert namespace.reference(old) is None
    packed = pack(old, namespace)
    assert unpack(packed.data, fresh(packed.buffers), namespace)(4) == 4


def test_a_namespace_in_a_snapshot(names):
    namespace = Namespace()
    count = load(namespace, pack_function(names["count"]))
    use_all = load(namespace, pack_function(names["use_all"]))
    blobs = namespace.digests()
    assert [count(), count()] == [1, 2]
    namespace.home_globals()["table"]["k"] = 4
    child = use_all.__globals__["Child"](1)
    state = {
        "pool": [(count, child), functools.partial(use_all, 1)],
        "namespaces": {1: namespace},
        "table": use_all.__globals__["table"],
    }
    snapshot = capture(state)
    count()
    use_all.__globals__["table"]["k"] = 0
    for _ in range(2):
        back = restore(snapshot)
        restored = back["namespaces"][1]
        assert restored.digests() == blobs
        assert back["pool"][0][0]() == 3
        assert back["pool"][1]()[0] == 4
        home = restored.home_globals()
        assert home["table"] is back["table"]
        assert type(back["pool"][0][1]) is home["Child"]
        for name in ("scale", "Child"):
            digest, known = namespace.reference(namespace.home_globals()[name])
            assert restored.reference(home[name]) == (digest, known)
            assert restored.resolve(digest, known) is home[name]
        digest, known = namespace.reference(count)
        assert restored.resolve(digest, known) is back["pool"][0][0]
        # a message that was on its way finds what it names
        scale = namespace.home_globals()["scale"]
        assert send(scale, namespace, restored)[0] is home["scale"]


def test_a_name_that_nothing_reaches_any_more_is_kept_for_messages(in_main):
    names = in_main(
        """
        def helper(): return 1
        def handler(): return helper()
        handlers = [handler]
        def root(): return [h() for h in handlers]
        """
    )
    here, there = Namespace(), Namespace()
    blob = pack_function(names["root"])
    helper = load(here, blob).__globals__["helper"]
    load(there, blob).__globals__["handlers"].clear()
    back = restore(capture({"n": there}))["n"]
    assert send(helper, here, back)[0]() == 1


def test_an_empty_namespace_in_a_snapshot():
    back = restore(capture({"n": Namespace()}))["n"]
    assert back.digests() == frozenset()
    assert back.reference(len) is None


def test_snapshots_of_two_jobs_keep_their_globals_apart(names):
    first, second = Namespace(), Namespace()
    blob = pack_function(names["count"])
    load(first, blob)()
    load(second, blob)
    back = restore(capture([first, second]))
    assert [n.get(blob.digest)() for n in back] == [2, 1]


def test_classes_keep_their_identity_across_blobs(names):
    first, second = Namespace(), Namespace()
    child = load(first, pack_function(names["make_child"]))(1)
    assert load(second, pack_function(names["is_child"]))(child)
    packed = pack(names["Child"](1))
    assert load(second, pack_function(names["is_child"]))(unpack(packed.data))


ENGINE = """
    import sys
    from pathlib import Path
    from feliss_nb.state import Namespace, pack, unpack, pack_function
    side, folder = sys.argv[1], Path(sys.argv[2])
    if side == "notebook":
        class Base:
            seen = []
            def name(self): return type(self).__name__
        class Child(Base):
            def name(self): return "child of " + super().name()
        def check(x): return isinstance(x, Child), isinstance(x, Base), x.name()
        def make(): return Child()
        for i, f in enumerate((check, make)):
            folder.joinpath(f"{i}").write_bytes(pack_function(f).data)
        folder.joinpath("2").write_bytes(pack(Child()).data)
    elif side == "engine":
        read = [folder.joinpath(f"{i}").read_bytes() for i in range(3)]
        job, other = Namespace(), Namespace()
        check = job.load(b"check", read[0])
        arrived = unpack(read[2])
        print(check(other.load(b"make", read[1])()), check(arrived))
        cls = type(arrived)
        cls.__mro__[1].seen.append(1)
        unpack(read[2])
        print(cls.__mro__[1].seen)
"""


def test_class_hierarchies_of_main_on_an_engine(script, tmp_path):
    script(ENGINE, "notebook", tmp_path)
    lines = script(ENGINE, "engine", tmp_path).splitlines()
    answer = (True, True, "child of Child")
    assert lines[0] == f"{answer} {answer}"
    # an instance that arrives does not undo what the class has seen
    assert lines[1] == "[1]"


def test_the_notebooks_own_class_is_left_alone(names):
    namespace = Namespace()
    make = load(namespace, pack_function(names["make_child"]))
    get = names["Child"].get
    unpack(pack([make(1)]).data)
    assert names["Child"].get is get
    assert get.__globals__ is names


def test_functions_of_importable_modules_run_in_the_modules_globals():
    import textwrap

    wrapped = textwrap.dedent
    inner = functools.singledispatch(wrapped)  # a function made inside functools
    back = unpack(pack(inner).data)
    assert back.__globals__ is vars(functools)
    assert back.__wrapped__ is wrapped
    assert back("  a") == "a"
