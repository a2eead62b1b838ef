"""The table of layers in ARCHITECTURE.md, held against every import of the package."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "feliss_nb"
NAME = PACKAGE.name
MODULES = sorted(PACKAGE.rglob("*.py"))

#: What the pure layer may import of the standard library: nothing that knows the time, draws a
#: number, starts a thread, opens a socket or a file, or writes a log. (hashlib gives the ids.)
PURE = frozenset(
    "__future__ abc array bisect collections copy dataclasses enum fractions functools hashlib "
    "heapq itertools json math numbers operator re string struct textwrap types typing".split()
)
#: Builtins that reach outside, or that differ between two runs (id; hash, of a string).
IMPURE_CALLS = frozenset("open print input breakpoint exec eval compile __import__ id hash".split())
#: Threads, clocks, sockets and engines: runtime's, and what stands above runtime. (The module
#: threading itself is not here: runtime calls what is below from several threads, so that may hold
#: a lock or a thread's local. It starts no thread.)
RUNTIME_ONLY = frozenset(
    "_thread concurrent asyncio multiprocessing subprocess sched signal time selectors "
    "select socket socketserver ssl http urllib zmq tornado ipyparallel ipykernel jupyter_client "
    "IPython".split()
)
THREADS = frozenset("Thread Timer start_new_thread".split())
#: A module's reason to name one of those below runtime.
EXEMPT: dict[tuple[str, str], str] = {
    ("store/tiered.py", "threading"): "its copier; runtime may give it a thread of its own",
    ("store/memory.py", "concurrent"): "who reads waits for who fills; it starts no thread",
    ("store/slow.py", "time"): "it waits, which is what it is for",
    ("state/forked.py", "select"): "it waits for a child until a deadline",
    ("state/forked.py", "signal"): "it kills a child that is late",
}


@dataclass(frozen=True)
class Import:
    """``module`` is imported at ``line`` of ``path``; ``name`` from it, where one is named."""

    path: Path
    line: int
    module: str
    name: str | None

    def __str__(self) -> str:
        what = f"from {self.module} import {self.name}" if self.name else f"import {self.module}"
        return f"{self.path.relative_to(PACKAGE.parent)}:{self.line}: {what}"


def is_module(dotted: str, package: Path = PACKAGE) -> bool:
    path = package.parent.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(path: Path, source: str | None = None, package: Path = PACKAGE) -> Iterator[Import]:
    """Every import in a file: at its head, inside functions, for types only, by import_module."""
    own = path.relative_to(package.parent).with_suffix("").parts
    for node in ast.walk(ast.parse(source if source is not None else path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, alias.name, None)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*own[: len(own) - node.level], *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if base.split(".")[0] == NAME and is_module(inner, package):
                    yield Import(path, node.lineno, inner, None)
                else:
                    yield Import(path, node.lineno, base, alias.name)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else None
            called = node.func.id if isinstance(node.func, ast.Name) else called
            first = node.args[0]
            if (
                called in ("import_module", "__import__")
                and isinstance(first, ast.Constant)
                and isinstance(first.value, str)
            ):
                yield Import(path, node.lineno, first.value, None)


def layer_of(path: Path, package: Path = PACKAGE) -> str:
    """Folder, or file where it stands at the top: ``core``, ``errors``, ``__init__``."""
    return path.relative_to(package).with_suffix("").parts[0]


def layer_of_module(dotted: str) -> str:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def read_table(text: str) -> dict[str, set[str]]:
    """Who may import whom, from markdown: layers in the first column, whom in the third."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    layers = [[word.removesuffix(".py").rstrip("/") for word in _quoted(row[0])] for row in rows]
    allowed: dict[str, set[str]] = {}
    for index, (row, names) in enumerate(zip(rows, layers, strict=True)):
        whom = row[2]
        below = {name for other in layers[index + 1 :] for name in other}
        named = {word.removesuffix(".py").rstrip("/") for word in _quoted(whom)}
        assert named <= below, f"ARCHITECTURE.md: {row[0]} may import {named - below} above it"
        assert named or whom in ("all below", "nothing"), f"ARCHITECTURE.md: what is {whom!r}?"
        for name in names:
            # the files of one row are one layer
            allowed[name] = set(names) | (below if whom == "all below" else named)
    return allowed


def _quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


TABLE = read_table((ROOT / "ARCHITECTURE.md").read_text("utf-8"))
#: They use the package as a reader of the README does, by the names of ``feliss_nb`` itself.
USERS = {name for name, whom in TABLE.items() if "models" in whom - {name}}


def own_imports() -> Iterator[Import]:
    for path in MODULES:
        for item in imports(path):
            if item.module.split(".")[0] == NAME:
                yield item


def points_up(item: Import, package: Path = PACKAGE) -> bool:
    source = layer_of(item.path, package)
    target = layer_of_module(item.module)
    if source == "__init__":
        return False
    if target == "__init__":
        return source not in USERS
    return source != target and target not in TABLE.get(source, ())


def test_the_table_is_read():
    assert TABLE["errors"] == {"errors"}
    assert TABLE["core"] == {"core", "errors"}
    assert {"runtime", "models", "lab"} <= TABLE["cli"]
    assert "models" not in TABLE["runtime"]
    assert {"algorithms", "lab", "notebook", "cli"} == USERS


def test_every_folder_has_a_row():
    layers = {layer_of(path) for path in MODULES} - {"__init__", "__main__"}
    assert layers <= set(TABLE), f"not in ARCHITECTURE.md's table: {sorted(layers - set(TABLE))}"


def test_imports_point_down():
    wrong = [str(item) for item in own_imports() if points_up(item)]
    assert not wrong, "\n".join(["imports that point up:", *wrong])


@pytest.mark.parametrize(
    ("where", "source", "up"),
    [
        ("core/x.py", "from feliss_nb.errors import DataError", False),
        ("core/x.py", "from feliss_nb import errors", False),
        ("core/x.py", "from ..errors import DataError", False),
        ("core/x.py", "from .ids import a", False),
        ("core/x.py", "from feliss_nb.state.codec import pack", True),
        ("core/x.py", "from ..state import codec", True),
        ("core/x.py", "def f():\n    import feliss_nb.runtime", True),
        ("core/x.py", "import importlib\nimportlib.import_module('feliss_nb.runtime')", True),
        ("state/x.py", "from feliss_nb import here", True),
        ("runtime/x.py", "if TYPE_CHECKING:\n    from feliss_nb.models import rdd", True),
        ("models/x.py", "from feliss_nb.store import memory", True),
        ("lab/x.py", "import feliss_nb as feliss", False),
        ("cli.py", "from feliss_nb.lab import demo", False),
        ("errors.py", "from feliss_nb.core import ids", True),
    ],
)
def test_an_import_that_points_up_is_seen(where, source, up):
    found = [
        points_up(item)
        for item in imports(PACKAGE / where, source)
        if item.module.split(".")[0] == NAME
    ]
    assert found == [up]


def public_names(package: Path) -> set[str]:
    """``__all__`` of a package, or what its head imports and defines without an underscore."""
    tree = ast.parse((package / "__init__.py").read_text("utf-8"))
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if node.targets[0].id == "__all__":
                return set(ast.literal_eval(node.value))
            names.add(node.targets[0].id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return {name for name in names if not name.startswith("_")}


def test_models_use_the_public_names_of_runtime():
    """A model is ordinary code over a Session: it could stand in a user's own module."""
    used = [
        item
        for item in own_imports()
        if layer_of(item.path) in ("models", "algorithms")
        and layer_of_module(item.module) == "runtime"
    ]
    public = public_names(PACKAGE / "runtime") if used else set()
    wrong = [str(item) for item in used if item.name not in public]
    assert not wrong, "\n".join([f"runtime's public names are {sorted(public)}, but:", *wrong])


def test_core_is_pure():
    wrong = []
    for path in (PACKAGE / "core").glob("**/*.py"):
        for item in imports(path):
            top = item.module.split(".")[0]
            if top != NAME and top not in PURE:
                wrong.append(str(item))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in IMPURE_CALLS
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.func.id}(...)")
    assert not wrong, "\n".join(["core/ is pure, but:", *wrong])
    assert sys.stdlib_module_names >= PURE


def test_threads_clocks_sockets_and_engines_are_runtimes():
    below = {"errors", *TABLE["runtime"], "models"} - {"runtime"}
    found = {}
    for path in MODULES:
        if layer_of(path) not in below:
            continue
        where = str(path.relative_to(PACKAGE))
        for item in imports(path):
            top = item.module.split(".")[0]
            if top in RUNTIME_ONLY or (top == "threading" and item.name in THREADS):
                found[where, top] = str(item)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Attribute)
                and node.attr in THREADS
                and ast.unparse(node.value) == "threading"
            ):
                found[where, "threading"] = f"{where}:{node.lineno}: threading.{node.attr}"
    wrong = [text for key, text in found.items() if key not in EXEMPT]
    assert not wrong, "\n".join(["only runtime/ has threads, clocks and sockets, but:", *wrong])
    assert set(EXEMPT) <= set(found), f"exempt for nothing: {set(EXEMPT) - set(found)}"


def undocumented(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Public functions and classes, and public methods of public classes, without a docstring."""
    scopes: list[tuple[str, ast.Module | ast.ClassDef]] = [("", tree)]
    while scopes:
        prefix, scope = scopes.pop()
        for node in scope.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
            if node.name.startswith("_") or marks & {"overload", "override", "setter", "deleter"}:
                continue
            if ast.get_docstring(node) is None:
                yield node.lineno, prefix + node.name
            if isinstance(node, ast.ClassDef):
                scopes.append((f"{prefix}{node.name}.", node))


def test_every_public_thing_has_a_docstring():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in MODULES
        for line, name in undocumented(ast.parse(path.read_text("utf-8")))
    ]
    wrong += [
        f"{path.relative_to(ROOT)}: the module"
        for path in MODULES
        if ast.get_docstring(ast.parse(path.read_text("utf-8"))) is None
    ]
    assert not wrong, "\n".join(["no docstring:", *wrong])


#: The kernel's own folders are the same everywhere; another absolute path is somebody's machine.
ABSOLUTE = re.compile(
    r"(?<![\w.:/~}>])/(?:bin|etc|home|media|mnt|opt|root|srv|tmp|usr|var|work|Users)\b"
)


def test_the_package_names_no_absolute_path():
    texts = [*MODULES, ROOT / "pyproject.toml", ROOT / "README.md", ROOT / ".ci" / "run"]
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if ABSOLUTE.search(line) and not line.startswith("#!")
    ]
    assert not wrong, "\n".join(["absolute paths:", *wrong])


def test_the_readme_sets_up_in_two_lines():
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    first, second = (block.strip() for block in blocks[:2])
    assert "\n" not in first + second
    assert first.endswith("feliss-nb demo")
    assert "pytest" in second
    for line in (first, second):  # each starts from nothing but python3
        assert line.startswith("python3 -m venv ")
