"""Functions as content-addressed blobs, and the namespace that a job's functions live in."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cloudpickle import cloudpickle as cloud

from feliss_nb.errors import InternalError
from feliss_nb.state import arrival
from feliss_nb.state.codec import fresh, pack
from feliss_nb.state.digest import digest as digest_of
from feliss_nb.state.modules import closure, file_digest, refresh_modules, user_file
from feliss_nb.state.pickler import References

__all__ = ["FunctionBlob", "Namespace", "is_users", "pack_function", "refresh_modules"]


@dataclass(frozen=True, slots=True)
class FunctionBlob:
    """A callable as bytes, named by what it is.

    Attributes
    ----------
    digest : bytes
        Of the stream, the buffers and the source of the user's modules it imports.
    data : bytes
    buffers : tuple of memoryview
        Views of live memory, as in ``Packed``.
    handles, targets : frozenset of int
        The variables it captured.
    modules : tuple of (str, str)
        Name and file of the user's modules it imports, and of those that they import.
    name : str
        What to call it.
    digests : frozenset of bytes
        Blobs to load before it (only if it was packed with a namespace).
    """

    digest: bytes
    data: bytes
    buffers: tuple[Any, ...]
    handles: frozenset[int]
    targets: frozenset[int]
    modules: tuple[tuple[str, str], ...]
    name: str
    digests: frozenset[bytes] = frozenset()

    @property
    def nbytes(self) -> int:
        """Bytes of the stream and the buffers."""
        return len(self.data) + sum(memoryview(b).nbytes for b in self.buffers)


def pack_function(
    function: Callable[..., Any], namespace: References | None = None
) -> FunctionBlob:
    """Write a callable to bytes, with all it captured.

    Functions and classes of ``__main__``, and those made inside a function, go by value; the rest
    goes by name and runs as it is on the receiver's disk.

    Parameters
    ----------
    function : callable
    namespace : Namespace, optional
        On a rank: globals and functions that the job's other ranks have are named, not written.

    Raises
    ------
    UnpicklableError
        It captured something that has no meaning outside this process.
    """
    name = _name(function)
    packed = pack(function, namespace, label=name)
    modules = closure(module for module, _ in packed.modules)
    sources = b"".join(file_digest(file) for _, file in modules)
    digest = digest_of(packed.data, (*packed.buffers, sources))
    return FunctionBlob(
        digest,
        packed.data,
        packed.buffers,
        packed.handles,
        packed.targets,
        modules,
        name,
        packed.digests,
    )


def _name(function: Any) -> str:
    for inner in (function, getattr(function, "func", None)):
        name = getattr(inner, "__name__", None)
        if isinstance(name, str):
            return name
    return type(function).__name__


#: By identity, and only functions that a module holds under their names: few, and for ever.
_names: dict[Callable[..., Any], tuple[str, str]] = {}


def name_in_module(function: Callable[..., Any]) -> tuple[str, str] | None:
    """The module and the name by which every engine finds a function; None for all other."""
    if type(function) is not types.FunctionType:
        return None
    name = _names.get(function)
    if name is None and cloud._should_pickle_by_reference(function):
        name = _names[function] = function.__module__, function.__qualname__
    return name


class Namespace:
    """The functions of one job on one rank, with one copy of the globals they share.

    A global that several blobs bring is there as the first brought it and as the job's
    continuations have left it since. One thread at a time.
    """

    def __init__(self) -> None:
        self._roots: dict[bytes, Any] = {}
        self._home: dict[str, Any] = {}
        # Any function that runs in the home globals: what brings them through a snapshot.
        self._anchored: types.FunctionType | None = None
        self._origins: dict[str, bytes] = {}
        # By identity; the object is kept with it so that its id is not used again.
        self._index: dict[int, tuple[object, bytes, str | None]] | None = {}

    def load(self, digest: bytes, data: Any, buffers: Iterable[Any] = ()) -> Any:
        """The callable of a blob, made on the first call and the same one on each later.

        Parameters
        ----------
        digest, data, buffers
            Of a ``FunctionBlob``. The buffers are copied.
        """
        if digest in self._roots:
            return self._roots[digest]
        stream = arrival.Arrival(self, renew_classes=True)
        before = set(self._home)
        with arrival.reading(stream):
            root = pickle.loads(data, buffers=fresh(buffers))
        brought = [n for n in self._home if n not in before and n != "__builtins__"]
        for name in brought:
            self._origins[name] = digest
        for earlier in self._roots.values():
            name = getattr(earlier, "__name__", "")
            if name in brought and _same(earlier, self._home[name], self._home):
                self._home[name] = earlier
        root = self._roots[digest] = self._settle(root)
        self._enter(digest, root, brought)
        return root

    def get(self, digest: bytes) -> Any:
        """The callable of a blob that was loaded.

        Raises
        ------
        InternalError
            It was not.
        """
        return self.resolve(digest, None)

    def has(self, digest: bytes) -> bool:
        """Whether the blob was loaded."""
        return digest in self._roots

    def digests(self) -> frozenset[bytes]:
        """All that was loaded."""
        return frozenset(self._roots)

    def reference(self, obj: object) -> tuple[bytes, str | None] | None:
        """How another rank that loaded the same blobs finds ``obj``: digest and global name.

        None for what is not a function or class that came with a blob.
        """
        if self._index is None:
            self._index = {}
            for digest, root in self._roots.items():
                names = [n for n, brought in self._origins.items() if brought == digest]
                self._enter(digest, root, names)
        found = self._index.get(id(obj))
        if found is None:
            return None
        _, digest, name = found
        if name is not None and self._home.get(name) is not obj:
            return None  # a continuation gave the name to something else
        return digest, name

    def resolve(self, digest: bytes, name: str | None = None) -> Any:
        """What ``reference`` named.

        Raises
        ------
        InternalError
            The blob was not loaded here, or has no such name.
        """
        if digest not in self._roots:
            raise InternalError(f"function {digest.hex()} ({name or 'root'}) was not loaded here")
        if name is None:
            return self._roots[digest]
        if name not in self._home:
            raise InternalError(f"function {digest.hex()} has no global {name!r}")
        return self._home[name]

    def origin(self, name: str) -> bytes | None:
        """The blob that brought a global name."""
        return self._origins.get(name)

    def home_globals(self) -> dict[str, Any]:
        """The globals that the functions of ``__main__`` share here."""
        return self._home

    def content(self) -> Iterator[tuple[str, object]]:
        """What it holds, with names for people: data first, then functions, which reach it."""
        names = [name for name in self._home if not name.startswith("__")]
        for is_code in (False, True):
            for name in names:
                if isinstance(self._home[name], (type, types.FunctionType)) is is_code:
                    yield name, self._home[name]
        for root in self._roots.values():
            yield _name(root), root

    def adopt(self, skeleton: dict[str, Any], stream: arrival.Arrival) -> dict[str, Any]:
        """The globals that a function which arrives in ``stream`` shall run in."""
        if stream.skeleton is None and skeleton.get("__name__") == "__main__":
            stream.skeleton = skeleton
            for name, value in skeleton.items():
                self._home.setdefault(name, value)
        return self._home if skeleton is stream.skeleton else skeleton

    def anchor(self, function: types.FunctionType) -> None:
        """Take note of a function that runs in the home globals."""
        if self._anchored is None:
            self._anchored = function

    def _settle(self, root: Any) -> Any:
        """The function that an earlier blob brought as a global, if ``root`` is that function."""
        known = self._home.get(getattr(root, "__name__", ""))
        return known if _same(root, known, self._home) else root

    def _enter(self, digest: bytes, root: Any, names: Iterable[str]) -> None:
        index = self._index
        if index is None:
            return
        for name in names:
            value = self._home.get(name)
            if _by_value(value) and (
                not isinstance(value, types.FunctionType) or value.__globals__ is self._home
            ):
                index.setdefault(id(value), (value, digest, name))
        if not isinstance(root, (type, types.FunctionType, types.BuiltinFunctionType)) or _by_value(
            root
        ):
            index.setdefault(id(root), (root, digest, None))

    def __getstate__(self) -> dict[str, Any]:
        # Which of the home's names a function uses is all that it brings along itself; a reference
        # on its way may name any of them.
        names = {n: v for n, v in self._home.items() if n != "__builtins__"}
        return {
            "roots": self._roots,
            "anchor": self._anchored,
            "names": names if self._anchored is not None else {},
            "origins": self._origins,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._roots = state["roots"]
        self._anchored = state["anchor"]
        self._home = self._anchored.__globals__ if self._anchored is not None else {}
        self._home.update(state["names"])
        self._origins = state["origins"]
        self._index = None  # what it would hold may not be complete yet


def _same(one: object, other: object, home: dict[str, Any]) -> bool:
    """Whether two blobs brought the same function of ``__main__``."""
    return (
        isinstance(one, types.FunctionType)
        and isinstance(other, types.FunctionType)
        and one.__globals__ is home is other.__globals__
        and one.__closure__ is None
        and one.__code__ == other.__code__
        and _defaults(one) == _defaults(other)
    )


def _defaults(function: types.FunctionType) -> bytes:
    return pack((function.__defaults__, function.__kwdefaults__), in_band=sys.maxsize).data


def is_users(obj: Any) -> bool:
    """Whether a function or class is the user's.

    Made in ``__main__``, in a function, or in a module that is neither the standard library's nor
    an installed package's.
    """
    return _by_value(obj) or user_file(getattr(obj, "__module__", None) or "") is not None


def _by_value(obj: object) -> bool:
    return isinstance(obj, (type, types.FunctionType)) and not cloud._should_pickle_by_reference(
        obj
    )
