"""Where the thing stands that could not be pickled: looked for only after a failure.

The walk takes every object apart as the pickler would, level by level, so it finds the shortest
path to something that cannot be taken apart.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import pickle
import reprlib
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from cloudpickle import cloudpickle as cloud

from feliss_nb.errors import UnpicklableError
from feliss_nb.state import rebuild
from feliss_nb.state.pickler import Pickler, References

Rename = Callable[[tuple[Any, ...]], "str | None"]

_SCALARS = frozenset({int, float, bool, str, bytes, complex, type(None), bytearray})
# Instances of classes from these hold locks, files or descriptors. To say "a Queue" helps more than
# to name the lock deep inside it.
_HOLDERS = frozenset(
    "threading queue concurrent multiprocessing subprocess socket ssl selectors tempfile sqlite3 "
    "asyncio logging http urllib contextlib zmq".split()
)
_REASONS = {
    "generator": "the place where it stands in its code cannot be written down",
    "coroutine": "the place where it stands in its code cannot be written down",
    "async_generator": "the place where it stands in its code cannot be written down",
    "frame": "it is a part of a running call",
    "lock": "it belongs to the threads of its process",
    "RLock": "it belongs to the threads of its process",
    "socket": "the connection belongs to its process",
}


class Step(NamedTuple):
    """One step down: how it reads after its parent's name, and its key for ``rename``."""

    text: str
    key: Any


class _Node(NamedTuple):
    obj: Any
    parent: int
    step: Step


def explain(
    obj: object,
    label: str,
    error: BaseException,
    namespace: References | None = None,
    rename: Rename | None = None,
) -> UnpicklableError:
    """The error that names what could not be pickled.

    Parameters
    ----------
    obj : object
        What was to be packed.
    label : str
        Its name.
    error : Exception
        What the pickler raised.
    namespace, rename
        As they were given to ``pack``.
    """
    if isinstance(error, pickle.PicklingError) and isinstance(error.__cause__, RecursionError):
        depth = "it is nested too deeply for Python's stack: use a list instead of a chain"
        return UnpicklableError(label, type(obj).__name__, depth)
    nodes, reason = _search(obj, namespace)
    if reason is None:
        return UnpicklableError(_name(nodes, 0, label, rename), type(obj).__name__, str(error))
    at = _blame(nodes)
    name = type(nodes[at].obj).__name__
    if at != len(nodes) - 1:
        reason = f"it holds a {type(nodes[-1].obj).__name__}"
    return UnpicklableError(_name(nodes, at, label, rename), name, _REASONS.get(name, reason))


def _search(root: object, namespace: References | None) -> tuple[list[_Node], str | None]:
    """The chain of nodes from the root to what fails, and why; reason None where nothing does."""
    pickler = Pickler(io.BytesIO(), lambda _: False, namespace)
    nodes = [_Node(root, -1, Step("", None))]
    seen = {id(root)}  # nodes keeps every object, so no id is used twice
    at = 0
    while at < len(nodes):
        try:
            for step, child in _children(nodes[at].obj, pickler):
                if type(child) not in _SCALARS and id(child) not in seen:
                    seen.add(id(child))
                    nodes.append(_Node(child, at, step))
        except Exception as error:  # noqa: BLE001 - whatever the user's __reduce__ raises
            chain = []
            while at >= 0:
                chain.append(nodes[at])
                at = nodes[at].parent
            return chain[::-1], _why(error)
        at += 1
    return nodes[:1], None


def _why(error: BaseException) -> str:
    text = str(error)
    # Python's own words repeat what our sentence says already.
    if isinstance(error, TypeError) and text.startswith(("cannot pickle", "can't pickle")):
        return ""
    if type(error) in (TypeError, pickle.PicklingError):
        return text
    return f"{type(error).__name__}: {text}"


def _blame(chain: list[_Node]) -> int:
    """The outermost object on the way that is a known holder of such things."""
    for at in range(len(chain)):
        classes = type(chain[at].obj).__mro__
        if any(str(c.__module__).partition(".")[0] in _HOLDERS for c in classes):
            return at
    return len(chain) - 1


def _name(chain: list[_Node], at: int, label: str, rename: Rename | None) -> str:
    steps = [node.step for node in chain[1 : at + 1]]
    if rename is not None:
        for used in range(len(steps), -1, -1):
            known = rename(tuple(step.key for step in steps[:used]))
            if known is not None:
                return known + "".join(step.text for step in steps[used:])
    return label + "".join(step.text for step in steps)


def _item(key: object) -> Step:
    return Step(f"[{reprlib.repr(key)}]", key)


def _attribute(name: object) -> Step:
    return Step(f".{name}", name)


def _children(obj: Any, pickler: Pickler) -> Iterator[tuple[Step, Any]]:
    """The parts that ``obj`` is pickled from; raises what the pickler would raise."""
    kind = type(obj)
    if kind is list or kind is tuple:
        for index, value in enumerate(obj):
            yield _item(index), value
    elif kind is dict:
        for key, value in obj.items():
            yield _item(key), value
            yield Step(f"'s key {reprlib.repr(key)}", key), key
    elif kind is set or kind is frozenset:
        for value in obj:
            yield Step(f"'s element {reprlib.repr(value)}", value), value
    elif isinstance(obj, np.ndarray) and obj.dtype.hasobject:
        for place in np.ndindex(obj.shape):
            yield Step(str([*place]), place[0] if len(place) == 1 else place), obj[place]
    else:
        yield from _reduced(obj, pickler)


def _reduced(obj: Any, pickler: Pickler) -> Iterator[tuple[Step, Any]]:
    if isinstance(obj, pickle.PickleBuffer):
        obj.raw()
        return
    parts = pickler.reducer_override(obj)
    if parts is NotImplemented:
        reducer = Pickler.dispatch_table.get(type(obj))
        if reducer is not None:
            parts = reducer(obj)
        elif isinstance(obj, (type, types.FunctionType)):
            parts = ""
        else:
            parts = obj.__reduce_ex__(5)
    if isinstance(parts, str):
        pickle.dumps(obj, 5)  # by name: it succeeds or says why not
    elif parts[0] is rebuild.resolve or parts[0] is rebuild.by_name:
        return
    elif isinstance(obj, types.FunctionType):
        yield from _function(obj, parts)
    elif isinstance(obj, types.MethodType):
        yield Step(".__self__", "__self__"), obj.__self__
        yield Step(".__func__", "__func__"), obj.__func__
    elif isinstance(obj, functools.partial):
        for name in ("func", "args", "keywords"):
            yield _attribute(name), getattr(obj, name)
        yield from _state(obj, vars(obj))
    elif isinstance(obj, BaseException):
        yield _attribute("args"), obj.args
        yield from _state(obj, vars(obj))
    else:
        yield from _generic(obj, parts)


def _function(function: types.FunctionType, parts: Any) -> Iterator[tuple[Step, Any]]:
    def named(kind: str, name: str) -> Step:
        return Step(f"'s {kind} {name!r}", name)

    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        value = cloud._get_cell_contents(cell)
        if value is not cloud._empty_cell_value:
            yield named("captured variable", name), value
    for name, value in parts[2][1]["__globals__"].items():
        yield named("global variable", name), value
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    for name, value in zip(positional[len(positional) - len(defaults) :], defaults, strict=True):
        yield named("default", name), value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield named("default", name), value
    yield from _state(function, function.__dict__)
    yield named("annotation", "__annotations__"), function.__annotations__


def _generic(obj: Any, parts: Any) -> Iterator[tuple[Step, Any]]:
    _, args, state, items, pairs = (tuple(parts) + (None,) * 4)[:5]
    fields = getattr(type(obj), "_fields", None)
    own = _names(obj)
    first = 1 if args and isinstance(args[0], type) and isinstance(obj, args[0]) else 0
    for index, value in enumerate(args):
        if index < first:
            yield Step("'s class", "__class__"), value
        elif isinstance(fields, tuple) and isinstance(obj, tuple) and index - first < len(fields):
            yield _attribute(fields[index - first]), value
        elif id(value) in own:
            yield _attribute(own[id(value)]), value
        else:
            yield Step(f"'s part {index - first}", index - first), value
    if state is not None:
        yield from _state(obj, state)
    for index, value in enumerate(items or ()):
        yield _item(index), value
    for key, value in pairs or ():
        yield _item(key), value
        yield Step(f"'s key {reprlib.repr(key)}", key), key


def _state(obj: Any, state: Any) -> Iterator[tuple[Step, Any]]:
    if isinstance(state, dict):
        for name, value in state.items():
            yield _attribute(name), value
    elif isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        yield from _state(obj, state[0] or {})
        yield from _state(obj, state[1])
    else:
        own = _names(obj)
        if isinstance(state, list) and dataclasses.is_dataclass(obj):  # frozen, with slots
            names = [field.name for field in dataclasses.fields(obj)]
            own = {id(value): name for name, value in zip(names, state, strict=False)}
        parts = enumerate(state) if isinstance(state, (list, tuple)) else [(0, state)]
        for index, value in parts:
            name = own.get(id(value))
            yield (_attribute(name) if name else Step(f"'s state {index}", index)), value


def _names(obj: Any) -> dict[int, str]:
    """Attribute names by the identity of their values."""
    return {id(value): name for name, value in getattr(obj, "__dict__", {}).items()}
