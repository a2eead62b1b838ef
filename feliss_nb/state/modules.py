"""The user's own modules: told from libraries, digested, and imported anew when their file changed.

What is imported by name runs as it is on disk. A notebook's user edits `mine.py` and submits again;
the engine, which lives on, must not answer with what it imported an hour ago.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import os
import site
import sys
import sysconfig
import types
from collections.abc import Iterable, Sequence
from typing import Any

import xxhash

_PACKAGE = __name__.partition(".")[0]

# Digest of the source that each user module was imported from, by module name.
_imported: dict[str, bytes] = {}
# Names that were dropped here: what was made from them is older than what a name gives now.
_dropped: set[str] = set()


@functools.cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    found = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    found |= {paths[k] for k in ("stdlib", "platstdlib", "purelib", "platlib") if k in paths}
    found |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple({os.path.join(os.path.realpath(p), "") for p in found if p and p != os.sep})


@functools.lru_cache(maxsize=8192)
def is_user_file(file: str) -> bool:
    """Whether a source file is the user's: Python source outside every library folder."""
    if not file.endswith(".py"):
        return False
    real = os.path.realpath(file)
    if {"site-packages", "dist-packages"} & set(real.split(os.sep)):
        return False
    return not real.startswith(_library_folders())


def user_file(name: str) -> str | None:
    """The source file of a loaded module of the user's, None for any other module."""
    if name in ("__main__", "__mp_main__") or name.partition(".")[0] == _PACKAGE:
        return None
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None) if isinstance(module, types.ModuleType) else None
    return file if isinstance(file, str) and is_user_file(file) else None


def is_user_module(name: str) -> bool:
    """Whether ``name`` is, or was before its file changed, a module of the user's."""
    return name in _dropped or user_file(name) is not None


def file_digest(file: str) -> bytes:
    """Digest of a source file as it is now; empty where it cannot be read."""
    # Always of the content: a second edit of the same size can share the first one's mtime.
    try:
        with open(file, "rb") as source:
            return xxhash.xxh3_128_digest(source.read())
    except OSError:
        return b""


def files(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The modules of the user's among ``names``, as sorted ``(name, file)``."""
    found = [(name, user_file(name)) for name in names]
    return tuple(sorted((name, file) for name, file in found if file is not None))


def digests() -> dict[str, str]:
    """Digests of the user's modules that this process has imported, by name, in hexadecimal."""
    found = files(list(sys.modules))
    return {name: file_digest(file).hex() for name, file in found}


def digests_here(names: Iterable[str]) -> dict[str, str]:
    """Digests of those of the user's modules that this process could import, or has.

    Nothing is imported, but for the packages in which they lie.
    """
    found = {}
    for name in names:
        try:
            spec = importlib.util.find_spec(name)
        except Exception:  # noqa: BLE001, S112  (a package's own code may raise anything)
            continue
        if spec is not None and spec.origin is not None:
            found[name] = file_digest(spec.origin).hex()
    return found


def closure(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """User modules among ``names`` and the user modules they use, as sorted ``(name, file)``."""
    found: dict[str, str] = {}
    queue = list(names)
    while queue:
        name = queue.pop()
        file = user_file(name)
        if file is None or name in found:
            continue
        found[name] = file
        queue.append(name.rpartition(".")[0])
        for value in list(vars(sys.modules[name]).values()):
            if isinstance(value, types.ModuleType):
                queue.append(value.__name__)
            elif isinstance(value, (type, types.FunctionType)):
                owner: object = value.__module__  # anything may stand there
                if isinstance(owner, str):
                    queue.append(owner)
    return tuple(sorted(found.items()))


def import_module(name: str) -> types.ModuleType:
    """The module of that name, imported if need be."""
    module = sys.modules.get(name)
    if module is not None and not _is_being_imported(name):
        return module
    return importlib.import_module(name)  # waits, where another thread is in the middle of it


def refresh_modules(modules: Iterable[tuple[str, str]] = ()) -> tuple[str, ...]:
    """Make imports see the user's files as they are on disk now.

    If the file of any loaded user module changed since it was imported here, all user modules are
    dropped (so those that depend on it are imported anew too). Call it on an engine before a
    function is loaded, from one thread at a time.

    Parameters
    ----------
    modules : iterable of (name, file)
        What the function to be loaded imports, ``FunctionBlob.modules``.

    Returns
    -------
    tuple of str
        The names that were dropped.
    """
    _install_finder()
    loaded = {
        name: file
        for name in list(sys.modules)
        if (file := user_file(name)) is not None and not _is_being_imported(name)
    }
    changed = False
    for name, file in loaded.items():
        now = file_digest(file)
        before = _imported.setdefault(name, now if _compiled_now(name, file) else b"")
        changed = changed or before != now
    if not changed:
        if any(name not in loaded for name, _ in modules):
            importlib.invalidate_caches()  # a file written just now may not be listed yet
        return ()
    for name in loaded:
        sys.modules.pop(name, None)
        _imported.pop(name, None)
        _dropped.add(name)
    importlib.invalidate_caches()
    return tuple(sorted(loaded))


def _is_being_imported(name: str) -> bool:
    """Whether another thread is in the middle of it: it is new, and must not be taken away."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _compiled_now(name: str, file: str) -> bool:
    """Whether a module that was imported before we watched is still like its file.

    The header of its bytecode tells what was read when it was imported; where there is none, the
    module is taken to be new.
    """
    cached = getattr(sys.modules.get(name), "__cached__", None)
    if not isinstance(cached, str):
        return True
    try:
        with open(cached, "rb") as bytecode:
            header = bytecode.read(16)
        state = os.stat(file)
    except OSError:
        return True
    if len(header) < 16 or header[4:8] != bytes(4):  # checked by hash, not by time
        return True
    stamp = (int(state.st_mtime) & 0xFFFFFFFF, state.st_size & 0xFFFFFFFF)
    return stamp == (
        int.from_bytes(header[8:12], "little"),
        int.from_bytes(header[12:16], "little"),
    )


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Compiles from source and notes what it read.

    Python's bytecode cache compares seconds and sizes: it would give the old code for an edit of
    the same size within one second.
    """

    def get_code(self, fullname: str) -> types.CodeType:
        path = self.get_filename(fullname)
        source = self.get_data(path)
        _imported[fullname] = xxhash.xxh3_128_digest(source)
        code: types.CodeType = self.source_to_code(source, path)
        return code


class _UserFinder:
    """Finds what Python's path finder finds, and has user files read by ``_SourceLoader``."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The specification of a user module; None leaves the name to the finders after this."""
        if name.partition(".")[0] in sys.stdlib_module_names or name.startswith(_PACKAGE + "."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or type(spec.loader) is not importlib.machinery.SourceFileLoader:
            return None
        if spec.origin is None or not is_user_file(spec.origin):
            return None
        return importlib.util.spec_from_file_location(
            name,
            spec.origin,
            loader=_SourceLoader(name, spec.origin),
            submodule_search_locations=spec.submodule_search_locations,
        )


def _install_finder() -> None:
    # Only where functions are loaded (engines), and only just before the path finder: whoever
    # comes earlier (built-ins, an assertion rewriter) keeps its right.
    finders: list[Any] = sys.meta_path
    if _UserFinder in finders:
        return
    at = next(
        (i for i, f in enumerate(finders) if f is importlib.machinery.PathFinder), len(finders)
    )
    finders.insert(at, _UserFinder)
