"""A digest of a value, the same in every process.

Pickle bytes differ between processes with the order of sets, with the interning of strings and with
which equal objects are one object. This digest depends on values only: on the type and the content
of everything that can be reached, on the order of lists, tuples and dictionaries (two dictionaries
with the same pairs in another order behave differently, so they differ), and on floating-point
numbers by their bits. Functions and classes of ``__main__`` count by their code and what they
captured; importable ones by their name.
"""

from __future__ import annotations

import dataclasses
import enum
import pickle
import struct
import types
from collections import OrderedDict
from collections.abc import Generator
from typing import Any

import numpy as np
import xxhash
from cloudpickle import cloudpickle as cloud

from feliss_nb.state.handle import Handle, Target
from feliss_nb.state.pickler import Pickler, omitted, refresh_dispatch, slots_of

_Walk = Generator[Any, bytes, bytes]
# What differs between two equal definitions of a class, or only repeats other entries.
_CLASS_NOISE = frozenset(
    "__dict__ __weakref__ __doc__ __module__ __slotnames__ _abc_impl __firstlineno__ "
    "__static_attributes__ __annotations_cache__ __annotate_func__".split()
)
_SCALARS = (int, float, complex, str, bytes, bool, type(None), bytearray)


def canonical_digest(obj: object, ordered: bool = True) -> bytes:
    """The digest of a value: equal values give equal digests, in every process.

    Parameters
    ----------
    obj : object
        Anything that can be pickled.
    ordered : bool
        Whether the order of a dictionary counts, whether memory may be written to, and the fields
        of a dataclass that have ``compare=False``; for ``==`` none of them does.

    Returns
    -------
    bytes
        16 bytes.

    Notes
    -----
    Every node's digest is that of its type and its children's digests. A reference back to an
    object that contains it counts as the number of levels up, so cycles end. Slow: for comparing
    states in tests and replays, not for the path of data.
    """
    refresh_dispatch()
    finished: dict[int, bytes] = {}
    kept: list[Any] = []  # temporaries stay alive, so that no identity is used twice
    # One frame is [object, generator, highest level that a reference from inside it points to].
    stack: list[list[Any]] = [[obj, _walk(obj, ordered), 0]]
    open_levels: dict[int, int] = {id(obj): 0}
    answer: bytes | None = None
    while True:
        frame = stack[-1]
        try:
            child = frame[1].send(answer)
        except StopIteration as stop:
            answer = stop.value
            stack.pop()
            level = open_levels.pop(id(frame[0]))
            kept.append(frame[0])
            if not stack:
                assert answer is not None
                return answer
            if frame[2] >= level:  # nothing inside refers above it: the same wherever it stands
                assert answer is not None
                finished[id(frame[0])] = answer
            stack[-1][2] = min(stack[-1][2], frame[2])
            continue
        if type(child) in _SCALARS:
            answer = _scalar(child)
        elif id(child) in open_levels:
            up = open_levels[id(child)]
            frame[2] = min(frame[2], up)
            answer = _hash(b"up", (len(stack) - up).to_bytes(8, "little"))
        elif id(child) in finished:
            answer = finished[id(child)]
        else:
            open_levels[id(child)] = len(stack)
            stack.append([child, _walk(child, ordered), len(stack)])
            answer = None


def _hash(*parts: bytes) -> bytes:
    state = xxhash.xxh3_128()
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def _type_name(kind: type) -> bytes:
    return f"{kind.__module__}.{kind.__qualname__}".encode()


def _scalar(value: Any) -> bytes:
    kind = type(value)
    if kind is int:
        body = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    elif kind is float:
        body = struct.pack("<d", value)
    elif kind is complex:
        body = struct.pack("<dd", value.real, value.imag)
    elif kind is str:
        body = value.encode("utf-8", "surrogatepass")
    elif kind is bool or value is None:
        body = repr(value).encode()
    else:
        body = bytes(value)
    return _hash(kind.__name__.encode(), body)


def _walk(obj: Any, ordered: bool) -> _Walk:
    """Yields the parts of ``obj``, is sent their digests, returns its own."""
    kind = type(obj)
    if kind in _SCALARS:
        return _scalar(obj)
    if kind in (list, tuple):
        return (yield from _sequence(kind.__name__, obj))
    if kind is dict:
        found = []
        for key, value in obj.items():
            found.append((yield key) + (yield value))
        return _hash(b"dict", *(found if ordered else sorted(found)))
    if kind in (set, frozenset):
        parts = []
        for value in obj:
            parts.append((yield value))
        return _hash(kind.__name__.encode(), *sorted(parts))
    if isinstance(obj, (Handle, Target)):
        return _hash(b"target" if isinstance(obj, Target) else b"handle", _scalar(obj.variable))
    if kind is types.FunctionType:
        return (yield from _function(obj))
    if isinstance(obj, type):
        return (yield from _class(obj))
    if kind is types.CodeType:
        return (yield from _code(obj))
    if kind is types.ModuleType:
        return _hash(b"module", obj.__name__.encode())
    if isinstance(obj, (np.ndarray, np.generic)):
        return (yield from _array(obj, ordered))
    if isinstance(obj, (memoryview, pickle.PickleBuffer)):
        view = memoryview(obj)
        about = view.format, view.shape, ordered and view.readonly
        return _hash(b"memory", repr(about).encode(), view.tobytes())
    return (yield from _reduced(obj, ordered))


def _sequence(tag: str, values: Any) -> _Walk:
    parts = []
    for value in values:
        parts.append((yield value))
    return _hash(tag.encode(), *parts)


def _array(array: Any, ordered: bool) -> _Walk:
    kind = (yield type(array)) + (yield array.dtype)
    fixed = ordered and isinstance(array, np.ndarray) and not array.flags.writeable
    about = repr((array.shape, fixed)).encode()
    if isinstance(array, np.void) and array.dtype.names:
        content = yield [array[name] for name in array.dtype.names]  # its flat gives itself again
    elif array.dtype.hasobject:
        content = yield list(np.asarray(array).flat)
    else:
        content = _hash(np.ascontiguousarray(array).tobytes())
    if type(array) in (np.ndarray, np.memmap) or not isinstance(array, np.ndarray):
        return _hash(b"array", kind, about, content)
    if isinstance(array, np.ma.MaskedArray) and array is not np.ma.masked:
        # The fill value of a view: to ask for it is to set it.
        fill = np.asarray(array.view().fill_value)
        more: Any = [np.ma.getmaskarray(array), fill, array.hardmask]
    else:  # a subclass has a state of its own
        more = [array.__reduce_ex__(2)[2:]]
    more.append(omitted(array).get("attributes"))
    return _hash(b"array", kind, about, content, (yield more))


def _function(function: types.FunctionType) -> _Walk:
    if cloud._should_pickle_by_reference(function):
        return _hash(b"name", f"{function.__module__}.{function.__qualname__}".encode())
    names = cloud._extract_code_globals(function.__code__)
    used = {n: function.__globals__[n] for n in sorted(names) if n in function.__globals__}
    cells = [cloud._get_cell_contents(cell) for cell in function.__closure__ or ()]
    return (
        yield from _sequence(
            "function",
            [
                function.__code__,
                function.__qualname__,
                function.__defaults__,
                function.__kwdefaults__,
                function.__dict__,
                ["" if cell is cloud._empty_cell_value else [cell] for cell in cells],
                used,
            ],
        )
    )


def _code(code: types.CodeType) -> _Walk:
    # Without file, lines and positions: the same text in another cell is the same function.
    return (
        yield from _sequence(
            "code",
            [
                code.co_name,
                code.co_code,
                code.co_consts,
                code.co_names,
                code.co_varnames,
                code.co_freevars,
                code.co_cellvars,
                code.co_flags,
                (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
                code.co_exceptiontable,
            ],
        )
    )


def _class(cls: type) -> _Walk:
    if cls in cloud._BUILTIN_TYPE_NAMES or cloud._should_pickle_by_reference(cls):
        return _hash(b"name", _type_name(cls))
    state = cloud._enum_getstate if isinstance(cls, enum.EnumMeta) else cloud._class_getstate
    members = {n: v for n, v in sorted(state(cls)[0].items()) if n not in _CLASS_NOISE}
    return (yield from _sequence("class", [cls.__qualname__, type(cls), cls.__bases__, members]))


def _pairs(obj: Any, pairs: Any) -> Any:
    if pairs is None:
        return None
    if isinstance(obj, dict) and not isinstance(obj, OrderedDict):
        return dict(pairs)
    return [list(pair) for pair in pairs]


def _compared(obj: Any, state: Any) -> Any:
    """Leave out of a dataclass's state the fields that do not count for its ``==``."""
    if isinstance(state, tuple):
        return tuple(_compared(obj, part) for part in state)
    fields = dataclasses.fields(obj)
    if isinstance(state, dict):
        left = {field.name for field in fields if not field.compare}
        return {name: value for name, value in state.items() if name not in left}
    if isinstance(state, list):  # frozen, with slots
        return [value for field, value in zip(fields, state, strict=False) if field.compare]
    return state


def _reduced(obj: Any, ordered: bool) -> _Walk:
    reducer = Pickler.dispatch_table.get(type(obj))
    parts = reducer(obj) if reducer is not None else obj.__reduce_ex__(4)
    if isinstance(parts, str):
        return _hash(b"name", _type_name(type(obj)), parts.encode())
    made, args, state, items, pairs = (tuple(parts) + (None,) * 4)[:5]
    if isinstance(obj, BaseException):
        state = state, slots_of(obj)
    elif not ordered and dataclasses.is_dataclass(obj):
        state = _compared(obj, state)
    return (
        yield from _sequence(
            "object",
            [
                type(obj),
                made,
                args,
                state,
                list(items) if items is not None else None,
                _pairs(obj, pairs),
            ],
        )
    )
