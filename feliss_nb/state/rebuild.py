"""What a stream calls to put functions, classes and views of memory together again.

The names here are in every stream and in every snapshot: they keep their meaning.
"""

from __future__ import annotations

import functools
import types
from typing import Any
from weakref import WeakSet

import numpy as np
from cloudpickle import cloudpickle as cloud

from feliss_nb.errors import InternalError
from feliss_nb.state import arrival
from feliss_nb.state.modules import import_module

# Classes that were built here from a stream. Any other class has its definition in this process
# (the notebook), and what an engine sends back must not be written over it.
_arrived: WeakSet[type] = WeakSet()


def resolve(digest: bytes, name: str | None) -> object:
    """A function or class that the namespace of the stream's reader already has."""
    stream = arrival.current()
    if stream is None or stream.namespace is None:
        raise InternalError(f"a reference to function {digest.hex()} was read without a namespace")
    return stream.namespace.resolve(digest, name)


def by_name(module: str, qualname: str) -> object:
    """What a module of the user's calls so now, however it has changed since."""
    found: object = import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def make_function(
    code: types.CodeType, skeleton: dict[str, Any], closure: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    """A function that came by value, globals too."""
    stream = arrival.current()
    namespace = stream.namespace if stream is not None else None
    if stream is None or namespace is None:
        return _plain(code, skeleton, closure)
    shared = namespace.adopt(skeleton, stream)
    function = _plain(code, shared, closure)
    if shared is not skeleton:
        namespace.anchor(function)
    return function


def _plain(
    code: types.CodeType, names: dict[str, Any], closure: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    made: types.FunctionType = cloud._make_function(code, names, None, None, closure)
    return made


def make_home_function(code: types.CodeType, cells: int | None) -> types.FunctionType:
    """A function that came by value, but for the globals: those of the reader's namespace."""
    stream = arrival.current()
    if stream is None or stream.namespace is None:
        raise InternalError(f"function {code.co_name} was read without the namespace it runs in")
    return types.FunctionType(code, stream.namespace.home_globals(), None, None, _cells(cells))


def make_module_function(
    code: types.CodeType, module: str, cells: int | None
) -> types.FunctionType:
    """A function defined inside a function of an importable module, which runs in its globals."""
    return types.FunctionType(code, vars(import_module(module)), None, None, _cells(cells))


def _cells(count: int | None) -> tuple[types.CellType, ...] | None:
    return None if count is None else tuple(types.CellType() for _ in range(count))


def set_function(
    function: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """Fill in a function once everything it refers to, itself included, exists."""
    attributes, slots = state
    function.__dict__.update(attributes)
    slots = dict(slots)
    slots.pop("_cloudpickle_submodules", None)  # to read them was to import them
    used = slots.pop("__globals__", {})
    shared = function.__globals__
    stream = arrival.current()
    home = stream.namespace.home_globals() if stream is not None and stream.namespace else None
    if shared is home:
        # What a job's functions have shared on this rank stays as they left it: a stream that
        # comes later brings only the names that are not there yet.
        for name, value in used.items():
            shared.setdefault(name, value)
    else:
        shared.update(used)
    for cell, filled in zip(
        function.__closure__ or (), slots.pop("__closure__", None) or (), strict=True
    ):
        try:
            cell.cell_contents = filled.cell_contents
        except ValueError:  # empty there too
            continue
    for name, value in slots.items():
        setattr(function, name, value)


def make_class(*args: Any) -> Any:
    """A class that came by value, or the one that came before it under the same identity."""
    return _tracked(cloud._make_skeleton_class, args, args[4])


def make_enum(*args: Any) -> Any:
    """An enumeration that came by value, or the one that came before it."""
    return _tracked(cloud._make_skeleton_enum, args, args[5])


def _tracked(make: Any, args: tuple[Any, ...], identity: str | None) -> Any:
    known = cloud._DYNAMIC_CLASS_TRACKER_BY_ID.get(identity) if identity is not None else None
    if known is not None:
        return known
    made = make(*args)
    _arrived.add(made)
    _fresh.add(made)
    return made


# Of a class that was made by a class statement (Py_TPFLAGS_HEAPTYPE).
_HEAP_TYPE = 1 << 9

# Classes that exist but have no members yet.
_fresh: WeakSet[type] = WeakSet()


def set_class(made: type, state: tuple[dict[str, Any], dict[str, Any]]) -> type:
    """Fill in a class that is new here, or renew one where its definition is loaded again."""
    stream = arrival.current()
    renew = stream is not None and stream.renew_classes and made in _arrived
    if made in _fresh or renew:
        _fresh.discard(made)
        cloud._class_setstate(made, state)
    return made


def make_cache(function: Any, parameters: dict[str, Any]) -> Any:
    """A function under ``functools.lru_cache``; what it has cached stays behind."""
    return functools.lru_cache(**parameters)(function)


def make_cached_property(function: Any, name: str | None) -> functools.cached_property[Any]:
    """A ``functools.cached_property`` with a lock of its own."""
    made: functools.cached_property[Any] = functools.cached_property(function)
    if name is not None:
        made.__set_name__(object, name)
    return made


def make_memoryview(buffer: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    """A view of memory that came as a buffer."""
    flat = memoryview(buffer).cast("B")
    return flat if form == "B" and len(shape) == 1 else flat.cast(form, shape)  # type: ignore[call-overload]


def make_view(
    buffer: Any,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
    writeable: bool,
) -> np.ndarray[Any, Any]:
    """An array that strides through memory which others may see too."""
    view: np.ndarray[Any, Any] = np.ndarray(shape, dtype, buffer, offset, strides)
    if not writeable:
        view.flags.writeable = False
    return view


def set_array(array: Any, state: tuple[Any, dict[str, Any]]) -> None:
    """Fill in an array as numpy does, then with what numpy leaves out of a stream."""
    content, left = state
    if content is not None:
        array.__setstate__(content)
    if "attributes" in left:
        array.__dict__.update(left["attributes"])
    if "hard_mask" in left:
        array.harden_mask()
    if "writeable" in left:
        array.flags.writeable = False


def make_exception(kind: Any, args: tuple[Any, ...]) -> BaseException:
    """An exception as pickle makes it, or without its class's own ``__init__`` if that refuses.

    Nobody knows what that was given besides ``args``; the attributes come later.
    """
    try:
        made: BaseException = kind(*args)
    except Exception:  # noqa: BLE001 - whatever it says of arguments that it was not given
        builtin: Any = kind
        while builtin.__flags__ & _HEAP_TYPE:
            builtin = builtin.__base__  # not along the MRO: Python allows this one's __new__ only
        made = builtin.__new__(kind, *args)
        builtin.__init__(made, *args)
    return made


def set_exception(
    error: BaseException, state: tuple[dict[str, Any] | None, dict[str, Any]]
) -> None:
    """Fill in an exception's attributes, and its slots."""
    attributes, slots = state
    if attributes:
        error.__setstate__(attributes)
    for name, value in slots.items():
        setattr(error, name, value)
