"""The user's modules run as they are on disk."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from pathlib import Path

import pytest

from feliss_nb.state import Namespace, modules, pack, pack_function, refresh_modules, unpack
from feliss_nb.state.rebuild import by_name


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    before, finders = set(sys.modules), list(sys.meta_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if modules.user_file(name):
            del sys.modules[name]
    sys.meta_path[:] = finders
    modules._imported.clear()
    modules._dropped.clear()


def write(folder: Path, name: str, text: str) -> None:
    folder.joinpath(name).parent.mkdir(exist_ok=True)
    folder.joinpath(name).write_text(text, "utf-8")


def load(blob):
    refresh_modules(blob.modules)
    return Namespace().load(blob.digest, blob.data, blob.buffers)


def test_whose_module_it_is(folder):
    write(folder, "mine_a.py", "x = 1\n")
    importlib.import_module("mine_a")
    assert modules.user_file("mine_a") == str(folder / "mine_a.py")
    for name in ("os", "numpy", "json", "feliss_nb.errors", "__main__", "not_there", "sys"):
        assert modules.user_file(name) is None


def test_a_blob_names_the_users_modules_it_imports(folder):
    write(folder, "mine_b.py", "import mine_c\ndef f(): return mine_c.g()\n")
    write(folder, "mine_c.py", "def g(): return 1\n")
    blob = pack_function(importlib.import_module("mine_b").f)
    assert [name for name, _ in blob.modules] == ["mine_b", "mine_c"]
    assert blob.modules[0][1] == str(folder / "mine_b.py")
    assert len(blob.data) < 100
    assert pack_function(importlib.import_module("mine_b").f).digest == blob.digest
    write(folder, "mine_c.py", "def g(): return 2\n")
    assert pack_function(importlib.import_module("mine_b").f).digest != blob.digest


def test_an_edit_is_seen_even_within_one_second_and_of_the_same_size(folder):
    write(folder, "mine_d.py", "def f(): return 1\n")
    f = importlib.import_module("mine_d").f
    stat = os.stat(folder / "mine_d.py")
    assert load(pack_function(f))() == 1
    for version in (2, 3):
        write(folder, "mine_d.py", f"def f(): return {version}\n")
        os.utime(folder / "mine_d.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert load(pack_function(f))() == version


def test_an_unchanged_module_stays(folder):
    write(folder, "mine_e.py", "def f(): return 1\n")
    module = importlib.import_module("mine_e")
    load(pack_function(module.f))
    assert refresh_modules() == ()
    assert sys.modules["mine_e"] is module


def test_those_that_depend_on_an_edited_module_are_imported_anew(folder):
    write(folder, "pack_f/__init__.py", "")
    write(folder, "pack_f/one.py", "from pack_f.two import value\ndef f(): return value\n")
    write(folder, "pack_f/two.py", "value = 1\n")
    f = importlib.import_module("pack_f.one").f
    blob = pack_function(f)
    assert [name for name, _ in blob.modules] == ["pack_f", "pack_f.one", "pack_f.two"]
    assert load(blob)() == 1
    write(folder, "pack_f/two.py", "value = 2\n")
    assert set(refresh_modules(blob.modules)) >= {"pack_f", "pack_f.one", "pack_f.two"}
    assert load(pack_function(f))() == 2


def test_a_module_edited_before_it_was_first_looked_at(folder, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write(folder, "mine_g.py", "def f(): return 1\n")
    f = importlib.import_module("mine_g").f
    blob = pack_function(f)
    write(folder, "mine_g.py", "def f(): return 22\n")
    assert load(blob)() == 22


def test_a_module_that_is_new_on_disk(folder):
    refresh_modules()
    with pytest.raises(ImportError):
        importlib.import_module("mine_h")
    stat = os.stat(folder)
    write(folder, "mine_h.py", "x = 1\n")
    os.utime(folder, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # Python's listing looks up to date
    refresh_modules([("mine_h", str(folder / "mine_h.py"))])
    assert importlib.import_module("mine_h").x == 1


def test_a_module_that_an_edit_began_to_use(folder):
    write(folder, "mine_m.py", "def f(): return 1\n")
    f = importlib.import_module("mine_m").f
    assert load(pack_function(f))() == 1
    stat = os.stat(folder)
    write(folder, "mine_n.py", "two = 2\n")
    write(folder, "mine_m.py", "from mine_n import two\ndef f(): return two\n")
    os.utime(folder, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load(pack_function(f))() == 2


def test_instances_and_functions_of_an_older_version_go_by_name(folder):
    write(folder, "mine_i.py", "class A:\n    v = 1\ndef f(): return 1\n")
    old = importlib.import_module("mine_i")
    instance = old.A()
    refresh_modules()
    write(folder, "mine_i.py", "class A:\n    v = 2\ndef f(): return 2\n")
    assert "mine_i" in refresh_modules()
    packed = pack([instance, old.f, old.A])
    assert len(packed.data) < 200
    back, f, cls = unpack(packed.data)
    new = sys.modules["mine_i"]
    assert type(back) is cls is new.A
    assert f is new.f
    assert back.v == 2


def test_a_decorated_function_is_not_taken_for_an_older_version(folder):
    write(
        folder,
        "mine_j.py",
        "import functools\n"
        "def deco(f):\n"
        "    @functools.wraps(f)\n"
        "    def wrapper(): return 'wrapped', f()\n"
        "    return wrapper\n"
        "@deco\n"
        "def f(): return 1\n",
    )
    f = importlib.import_module("mine_j").f
    assert load(pack_function(f))() == ("wrapped", 1)
    assert load(pack_function(f.__wrapped__))() == 1


def test_a_function_made_in_a_users_module_runs_in_its_globals(folder):
    write(
        folder,
        "mine_k.py",
        "import threading\nlock = threading.Lock()\n"
        "def make(n):\n    def inner():\n        with lock: return n\n    return inner\n",
    )
    module = importlib.import_module("mine_k")
    blob = pack_function(module.make(5))
    assert blob.modules[0][0] == "mine_k"
    assert load(blob)() == 5


def test_main_functions_that_use_a_users_module(folder, in_main):
    write(folder, "mine_l.py", "def g(): return 1\n")
    names = in_main("import mine_l\nfrom mine_l import g\ndef f(): return mine_l.g() + g()\n")
    blob = pack_function(names["f"])
    assert [name for name, _ in blob.modules] == ["mine_l"]
    assert load(blob)() == 2
    write(folder, "mine_l.py", "def g(): return 2\n")
    again = pack_function(names["f"])
    assert again.digest != blob.digest
    assert load(again)() == 4


def test_a_module_that_another_thread_imports_is_left_alone(tmp_path, monkeypatch):
    """Taken away in the middle of its import, it would fail there with a KeyError."""
    import importlib
    import sys
    import threading

    from feliss_nb.state.modules import refresh_modules

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "state_slow_import.py").write_text(
        "import builtins\nbuiltins._inside.set()\nassert builtins._go.wait(60)\nvalue = 5\n"
    )
    refresh_modules()  # from here on imports are watched
    inside, go = threading.Event(), threading.Event()
    monkeypatch.setattr("builtins._inside", inside, raising=False)
    monkeypatch.setattr("builtins._go", go, raising=False)
    found = []
    thread = threading.Thread(
        target=lambda: found.append(importlib.import_module("state_slow_import"))
    )
    thread.start()
    assert inside.wait(60)
    (tmp_path / "state_slow_import.py").write_text("value = 6\n")
    dropped = refresh_modules()
    go.set()
    thread.join(60)
    assert "state_slow_import" not in dropped
    assert found[0].value == 5
    assert sys.modules["state_slow_import"] is found[0]
    sys.modules.pop("state_slow_import")


def test_a_name_waits_for_the_import_that_another_thread_is_in(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "half_there.py").write_text(
        "import threading\nbegun, go = threading.Event(), threading.Event()\n"
        "begun.set()\ngo.wait(30)\nlast = 'whole'\n"
    )
    first = threading.Thread(target=importlib.import_module, args=("half_there",))
    first.start()
    while "half_there" not in sys.modules or not hasattr(sys.modules["half_there"], "go"):
        pass
    half = sys.modules["half_there"]
    assert half.begun.wait(30)
    found = []
    second = threading.Thread(target=lambda: found.append(by_name("half_there", "last")))
    second.start()
    second.join(0.2)  # it would have failed by now
    half.go.set()
    for thread in (first, second):
        thread.join(30)
    assert found == ["whole"]
    del sys.modules["half_there"]
