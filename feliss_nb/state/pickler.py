"""The pickler: C's, with functions and classes by value where no name would find them.

cloudpickle's reducers write into the same stream as the data, so what a function refers to keeps
its identity with what the data refers to. Added to it are: handles are noted, functions that the
receiver has are named only, functions made inside importable modules run in the module's globals,
what has no meaning outside its process is refused.
"""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import struct
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from cloudpickle import cloudpickle as cloud

from feliss_nb.state import modules, rebuild
from feliss_nb.state.handle import Handle, Target

#: Smaller buffers stay in the stream: a view, a copy and a frame of their own cost more than they
#: save (measured: break-even near 2 KiB, and nothing is lost by 4).
IN_BAND = 4096


# Classes whose own way of taking instances apart loses something. One look for both: each costs.
_INCOMPLETE = np.ndarray, BaseException


class References(Protocol):
    """The part of a namespace that a pickler needs."""

    def reference(self, obj: object) -> tuple[bytes, str | None] | None:
        """Digest and name of something the receiver has, or None."""

    def origin(self, name: str) -> bytes | None:
        """The digest that brought a global name, or None."""

    def home_globals(self) -> dict[str, Any]:
        """The globals that the namespace's functions share."""


class Pickler(cloud.Pickler):  # type: ignore[misc]
    """Writes one object to one stream, and keeps what was met on the way."""

    def __init__(
        self,
        file: Any,  # whatever can write
        buffer_callback: Callable[[pickle.PickleBuffer], object] | None = None,
        namespace: References | None = None,
        share: bool = False,
    ) -> None:
        refresh_dispatch()
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self.namespace = namespace
        self.share = share
        self.handles: set[int] = set()
        self.targets: set[int] = set()
        self.digests: set[bytes] = set()
        self.modules: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        """How ``obj`` is taken apart; called for all but the plainest builtin types."""
        kind = type(obj)
        if kind is types.FunctionType:
            return self._reduce_function(obj)
        if issubclass(kind, type):
            return self._reduce_class(obj)
        if issubclass(kind, Handle):
            self.handles.add(obj.variable)
            return Handle.__reduce__(obj)
        if issubclass(kind, Target):
            self.targets.add(obj.variable)
            return Target.__reduce__(obj)
        if kind is types.ModuleType:
            self.modules.add(obj.__name__)
        elif issubclass(kind, _INCOMPLETE):
            if issubclass(kind, np.ndarray):
                return self._reduce_array(obj)
            known = self._refer(obj)
            return _reduce_exception(obj) if known is NotImplemented else known
        elif self.namespace is not None:
            return self._refer(obj)
        return NotImplemented

    def _reduce_array(self, array: Any) -> Any:
        if self.namespace is not None:
            known = self._refer(array)
            if known is not NotImplemented:
                return known
        elif self.share and type(array) is np.ndarray:
            view = _reduce_view(array)
            if view is not NotImplemented:
                return view
        return _reduce_with_omitted(array)

    def _refer(self, obj: object) -> Any:
        known = self.namespace.reference(obj) if self.namespace is not None else None
        if known is None:
            return NotImplemented
        self.digests.add(known[0])
        return rebuild.resolve, known

    def _reduce_function(self, function: types.FunctionType) -> Any:
        known = self._refer(function)
        if known is not NotImplemented:
            return known
        module: Any = function.__module__
        if cloud._should_pickle_by_reference(function):
            if module is not None:
                self.modules.add(module)
            return NotImplemented
        if module is not None and _replaced(function, module):
            self.modules.add(module)
            return rebuild.by_name, (module, function.__qualname__)
        namespace = self.namespace
        if namespace is not None and function.__globals__ is namespace.home_globals():
            return self._reduce_home_function(function, namespace)
        owner = _owner(function)
        if owner is not None:
            self.modules.add(owner)
            state = _without_globals(cloud._function_getstate(function))
            newargs = function.__code__, owner, _cells(function)
            return rebuild.make_module_function, newargs, state, None, None, rebuild.set_function
        _, newargs, state, *_ = self._dynamic_function_reduce(function)
        code, skeleton, _, _, closure = newargs
        newargs = code, skeleton, closure
        return rebuild.make_function, newargs, state, None, None, rebuild.set_function

    def _reduce_home_function(self, function: types.FunctionType, namespace: References) -> Any:
        state = _without_globals(cloud._function_getstate(function))
        extra = state[1]["__globals__"]
        for name in cloud._extract_code_globals(function.__code__):
            if name in function.__globals__:
                digest = namespace.origin(name)
                if digest is not None:
                    self.digests.add(digest)
                else:  # made by a continuation, so the receiver may lack it
                    extra[name] = function.__globals__[name]
        newargs = function.__code__, _cells(function)
        return rebuild.make_home_function, newargs, state, None, None, rebuild.set_function

    def _reduce_class(self, cls: Any) -> Any:
        known = self._refer(cls)
        if known is not NotImplemented:
            return known
        module: Any = cls.__module__
        if isinstance(module, str) and _replaced_class(cls, module):
            self.modules.add(module)
            return rebuild.by_name, (module, cls.__qualname__)
        reduced = cloud._class_reduce(cls)
        if reduced is NotImplemented:
            if isinstance(module, str):
                self.modules.add(module)
        elif reduced[0] is cloud._make_skeleton_class:
            # Else it would be a class without slots; a NamedTuple makes its own, and takes none.
            if "__slots__" in vars(cls) and not issubclass(cls, tuple):
                reduced[1][3]["__slots__"] = cls.__slots__
            return rebuild.make_class, *reduced[1:5], rebuild.set_class
        elif reduced[0] is cloud._make_skeleton_enum:
            return rebuild.make_enum, *reduced[1:5], rebuild.set_class
        return reduced


def _cells(function: types.FunctionType) -> int | None:
    return None if function.__closure__ is None else len(function.__closure__)


def _without_globals(state: Any) -> Any:
    attributes, slots = state
    return attributes, {**slots, "__globals__": {}}


def _owner(function: types.FunctionType) -> str | None:
    """The importable module whose globals a function runs in, None for ``__main__`` and others."""
    name = function.__globals__.get("__name__")
    if not isinstance(name, str) or name in ("__main__", "__mp_main__"):
        return None
    module = sys.modules.get(name)
    if not isinstance(module, types.ModuleType):
        return None
    spec: Any = getattr(module, "__spec__", None)
    if vars(module) is not function.__globals__ or spec is None or spec.origin is None:
        return None
    return name


def _replaced(function: types.FunctionType, module: str) -> bool:
    """Whether a user's module now has another version of this function under its name."""
    if "<" in function.__qualname__ or not modules.is_user_module(module):
        return False
    now = _attribute(module, function.__qualname__)
    # A decorator's wrapper borrows the name of what it wraps, but its code keeps its own.
    return (
        isinstance(now, types.FunctionType)
        and now is not function
        and now.__code__.co_qualname == function.__code__.co_qualname
        and now.__module__ == module
    )


def _replaced_class(cls: type, module: str) -> bool:
    """Whether a user's module now has another version of this class under its name."""
    if "<" in cls.__qualname__ or not modules.is_user_module(module):
        return False
    now = _attribute(module, cls.__qualname__)
    return (
        isinstance(now, type)
        and now is not cls
        and (now.__module__, now.__qualname__) == (module, cls.__qualname__)
    )


def _attribute(module: str, qualname: str) -> object:
    try:
        return rebuild.by_name(module, qualname)
    except (ImportError, AttributeError):
        return None


class _Memory:
    """Bytes at an address, as numpy takes them; keeps their owner."""

    def __init__(self, owner: Any, start: int, size: int) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "data": (start, False),
            "shape": (size,),
            "typestr": "|u1",
            "version": 3,
        }


def _reduce_view(array: Any) -> Any:
    """A strided view as a stretch of its owner's memory; what is contiguous is one already."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    flags = array.flags
    if flags.c_contiguous or flags.f_contiguous or array.dtype.hasobject or owner is array:
        return NotImplemented
    if not (owner.flags.c_contiguous or owner.flags.f_contiguous):
        return NotImplemented  # strides made by hand: what lies between may be nobody's
    start, stop = np.lib.array_utils.byte_bounds(array)
    memory: Any = np.asarray(_Memory(array, start, stop - start))
    offset = array.__array_interface__["data"][0] - start
    layout = array.dtype, array.shape, array.strides, offset, flags.writeable
    return rebuild.make_view, (pickle.PickleBuffer(memory), *layout)


# What numpy itself keeps with a masked array.
_MASKED = frozenset(vars(np.ma.masked_array(0)))


def omitted(array: Any) -> dict[str, Any]:
    """What numpy leaves out when it writes an array in another way than as a buffer."""
    found: dict[str, Any] = {}
    if not array.flags.writeable:
        found["writeable"] = False
    kind: Any = type(array)
    if kind is np.ndarray:
        return found
    attributes: dict[str, Any] = {}
    if isinstance(array, np.ma.MaskedArray):
        if array.hardmask:
            found["hard_mask"] = True
        attributes = {name: value for name, value in vars(array).items() if name not in _MASKED}
    # A memmap's say which file it was, and that stays behind.
    elif kind.__reduce__ is np.ndarray.__reduce__ and not isinstance(array, np.memmap):
        attributes = getattr(array, "__dict__", {})
    if attributes:
        found["attributes"] = attributes
    return found


def _reduce_with_omitted(array: Any) -> Any:
    kind, flags = type(array), array.flags
    if (kind is np.ndarray and flags.writeable) or kind in Pickler.dispatch_table:
        return NotImplemented
    left = omitted(array)
    if not left:
        return NotImplemented
    parts = array.__reduce_ex__(5)
    if not isinstance(parts, tuple) or len(parts) != 3:  # as a buffer, or a way of the user's own
        return parts
    made, args, state = parts
    return made, args, (state, left), None, None, rebuild.set_array


def _reduce_exception(error: BaseException) -> Any:
    """Made in spite of the class's own ``__init__``, if need be, and with its slots."""
    kind: Any = type(error)
    if (
        not isinstance(kind.__init__, types.FunctionType)
        or isinstance(kind.__reduce__, types.FunctionType)
        or kind.__reduce_ex__ is not object.__reduce_ex__
        or kind in Pickler.dispatch_table
    ):
        return NotImplemented
    parts: Any = error.__reduce__()
    state = parts[2] if len(parts) > 2 else None, slots_of(error)
    return rebuild.make_exception, parts[:2], state, None, None, rebuild.set_exception


def slots_of(error: BaseException) -> dict[str, Any]:
    """What an exception's slots hold: its own way of being pickled leaves them out."""
    names: list[str] = copyreg._slotnames(type(error))  # type: ignore[attr-defined]
    return {name: getattr(error, name) for name in names if hasattr(error, name)}


def _reduce_method(method: types.MethodType) -> Any:
    # By name where that finds it: then the method is the class's own there too.
    name = method.__func__.__name__
    if getattr(method.__self__, name, None) == method:
        return getattr, (method.__self__, name)
    return types.MethodType, (method.__func__, method.__self__)


def _reduce_memoryview(view: memoryview) -> Any:
    if view.c_contiguous and view.ndim:
        return rebuild.make_memoryview, (pickle.PickleBuffer(view), view.format, view.shape)
    content = view.tobytes()
    buffer = content if view.readonly else bytearray(content)
    return rebuild.make_memoryview, (buffer, view.format, view.shape)


def _reduce_file(file: io.TextIOWrapper) -> Any:
    for name in ("stdout", "stderr"):
        if file is getattr(sys, name):
            return getattr, (sys, name)
    raise TypeError("an open file belongs to the process that opened it")


def _reduce_cache(cached: Any) -> Any:
    """A function under lru_cache: functools names it, which for ``__main__`` finds nothing."""
    module, name = cached.__module__, cached.__qualname__
    if module != "__main__" and _attribute(module, name) is cached:
        return cached.__reduce__()
    return rebuild.make_cache, (cached.__wrapped__, cached.cache_parameters()), vars(cached)


def _reduce_cached_property(member: Any) -> Any:
    # Python 3.11's holds a lock.
    return rebuild.make_cached_property, (member.func, member.attrname)


def _reduce_weak_dict(weak: Any) -> Any:
    return type(weak), (dict(weak),)


def _reduce_struct(form: struct.Struct) -> Any:
    return struct.Struct, (form.format,)


def _refuse(obj: object) -> Any:
    raise TypeError(f"cannot pickle {type(obj).__name__!r} object")


_OURS: dict[type, Callable[[Any], Any]] = {
    **cloud.Pickler._dispatch_table,
    io.TextIOWrapper: _reduce_file,
    memoryview: _reduce_memoryview,
    types.MethodType: _reduce_method,
    weakref.WeakKeyDictionary: _reduce_weak_dict,
    weakref.WeakValueDictionary: _reduce_weak_dict,
    functools.cached_property: _reduce_cached_property,
    type(functools.lru_cache(len)): _reduce_cache,
    struct.Struct: _reduce_struct,
    # It would arrive as one that has been called already.
    weakref.finalize: _refuse,
    # They pretend to be what they refer to, and would arrive as a copy of it.
    weakref.ProxyType: _refuse,
    weakref.CallableProxyType: _refuse,
}
_seen: dict[type, Any] = {}


def refresh_dispatch() -> None:
    """Heed what was registered with ``copyreg`` since the last time."""
    # One plain dict: a ChainMap costs a call of Python code for every object that is met.
    if copyreg.dispatch_table != _seen:
        _seen.clear()
        _seen.update(copyreg.dispatch_table)
        Pickler.dispatch_table = {**_seen, **_OURS}


Pickler.dispatch_table = dict(_OURS)
