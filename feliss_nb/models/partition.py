"""Which rank a key belongs to: the same on every engine, and the same for equal keys.

Python's ``hash`` keeps the second promise and not the first: that of strings, bytes and dates
depends on PYTHONHASHSEED, that of None and of plain objects on an address. Numbers hash alike
everywhere, and equal numbers of different types alike (1, 1.0, True, Decimal(1)), so for them it is
used as it is; so is the hash of a tuple or a frozenset *of integers*, which combines the hashes of
the elements. Engines of another Python version, where this might differ, are not attached.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import uuid
import weakref
from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np

from feliss_nb.errors import UsageError
from feliss_nb.models.naming import shorten

Hasher = Callable[[Any], int]

#: 2**64 divided by the golden ratio (Knuth, TAOCP 3, 6.4): neighbours, and multiples of the number
#: of ranks, spread evenly. A small integer is its own hash, so ``hash % size`` would not spread.
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1

_NONE = 0x6E6F6E65
_ATTO = 10**12  # attoseconds, numpy's finest unit, in a microsecond
_DAY = 24 * 3600 * 10**6  # in microseconds
_UNITS = {  # in attoseconds
    "W": 7 * _DAY * _ATTO,
    "D": _DAY * _ATTO,
    "h": 3600 * 10**6 * _ATTO,
    "m": 60 * 10**6 * _ATTO,
    "s": 10**6 * _ATTO,
    "ms": 1000 * _ATTO,
    "us": _ATTO,
    "ns": 10**9,
    "ps": 10**6,
    "fs": 10**3,
    "as": 1,
}


def stable_hash(key: Any) -> int:
    """Hash a key alike on every engine, and alike for keys that are equal.

    Parameters
    ----------
    key : object
        None, a number, str, bytes, date, time, timedelta, UUID, an enum's member, a numpy scalar,
        or a tuple, namedtuple, frozenset or frozen dataclass of these.

    Returns
    -------
    int
        Of 64 bits, signed.

    Raises
    ------
    UsageError
        When the key's type cannot promise this, or the key is not hashable at all.
    """
    hasher = _EXACT.get(type(key))
    return hasher(key) if hasher is not None else _hasher_of(key)(key)


def partition_of(key: Any, size: int) -> int:
    """Give the rank that a key belongs to.

    Parameters
    ----------
    key : object
        As for :func:`stable_hash`.
    size : int
        Number of ranks.

    Returns
    -------
    int
        From 0 to ``size - 1``.
    """
    if type(key) is str:  # by far the most frequent
        spread = crc32(key.encode("utf-8", "surrogatepass")) * _GOLDEN
    else:
        spread = stable_hash(key) * _GOLDEN
    return ((spread & _MASK) >> 32) % size


# ----------------------------------------------------------------------- one function for each type


def _of_none(key: None) -> int:
    return _NONE


def _of_str(key: str) -> int:
    # Text that came through errors="surrogateescape" holds lone surrogates.
    return crc32(str.encode(key, "utf-8", "surrogatepass"))


def _of_number(key: Any) -> int:
    if key != key:
        raise UsageError(_not_equal_to_itself(key))
    return hash(key)


def _of_decimal(key: decimal.Decimal) -> int:
    if key.is_nan():  # comparing a signalling one raises
        raise UsageError(_not_equal_to_itself(key))
    return hash(key)


def _not_equal_to_itself(key: Any) -> str:
    return (
        f"NaN or NaT cannot be a key ({shorten(key)}): it does not equal itself, so its values "
        "never meet; replace it in the map function, by None for instance"
    )


def _of_tuple(key: tuple[Any, ...]) -> int:
    return hash(tuple([stable_hash(item) for item in tuple.__iter__(key)]))


def _of_frozenset(key: frozenset[Any]) -> int:
    return hash(frozenset([stable_hash(item) for item in frozenset.__iter__(key)]))


def _of_date(key: datetime.date) -> int:
    return hash(key.toordinal() * _DAY * _ATTO)


def _of_datetime(key: datetime.datetime) -> int:
    # fold=0: Python compares and hashes so, since fields that are equal in one zone are equal.
    offset = key.replace(fold=0).utcoffset()
    local = key.toordinal() * _DAY + _of_day(key)
    return hash((local - _micros(offset)) * _ATTO)


def _of_time(key: datetime.time) -> int:
    return hash(_of_day(key) - _micros(key.replace(fold=0).utcoffset()))


def _of_timedelta(key: datetime.timedelta) -> int:
    return hash(_micros(key) * _ATTO)


def _of_day(key: Any) -> int:
    """Microseconds since midnight, by the clock on the wall."""
    return ((key.hour * 60 + key.minute) * 60 + key.second) * 10**6 + int(key.microsecond)


def _micros(span: datetime.timedelta | None) -> int:
    if span is None:
        return 0
    return span.days * _DAY + span.seconds * 10**6 + span.microseconds


def _of_uuid(key: uuid.UUID) -> int:
    return hash(key.int)


def _of_numpy_time(key: Any) -> int:
    """Of a datetime64 or timedelta64, which equals a datetime, a date or a timedelta."""
    if np.isnat(key):
        raise UsageError(_not_equal_to_itself(key))
    unit, count = np.datetime_data(key.dtype)
    if unit == "generic":
        raise UsageError("a timedelta64 without a unit cannot be a key; use an int")
    moment = isinstance(key, np.datetime64)
    if unit in ("Y", "M"):
        if not moment:  # months have no length: they equal nothing but months
            return hash(int(key.astype("timedelta64[M]").astype("int64")))
        key, unit, count = key.astype("datetime64[D]"), "D", 1
    span = int(key.astype("int64")) * count * _UNITS[unit]
    return hash(span + (_EPOCH if moment else 0))


_EPOCH = datetime.date(1970, 1, 1).toordinal() * _DAY * _ATTO


def _of_enum(key: enum.Enum) -> int:
    kind = type(key)
    # A combination of flags has no name of its own in every Python version.
    name = key.value if isinstance(key, enum.Flag) else key.name
    return hash((_of_class(kind), stable_hash(name)))


def _of_class(kind: type) -> int:
    return _of_str(f"{kind.__module__}.{kind.__qualname__}")


_EXACT: dict[type, Hasher] = {
    type(None): _of_none,
    str: _of_str,
    bytes: crc32,
    bool: hash,
    int: hash,
    float: _of_number,
    complex: _of_number,
    decimal.Decimal: _of_decimal,
    fractions.Fraction: hash,
    tuple: _of_tuple,
    frozenset: _of_frozenset,
    datetime.date: _of_date,
    datetime.datetime: _of_datetime,
    datetime.time: _of_time,
    datetime.timedelta: _of_timedelta,
    uuid.UUID: _of_uuid,
    np.str_: _of_str,
    np.bytes_: crc32,
    np.datetime64: _of_numpy_time,
    np.timedelta64: _of_numpy_time,
}
_EXACT.update(
    # timedelta64 is among numpy's numbers; it has its own
    (kind, _EXACT.get(kind, _of_number))
    for kind in np.sctypeDict.values()
    if issubclass(kind, np.number | np.bool_)
)

# ------------------------------------------------------------------------------------- other types

#: Weak: a class of a notebook is made anew at each run of its cell, and holds its globals.
_found: weakref.WeakKeyDictionary[type, Hasher] = weakref.WeakKeyDictionary()


def _hasher_of(key: Any) -> Hasher:
    kind = type(key)
    hasher = _found.get(kind)
    if hasher is None:
        hasher = _inherited(kind) or _generated(kind)
        if hasher is None:
            raise UsageError(_refusal(key))
        _found[kind] = hasher
    return hasher


def _inherited(kind: Any) -> Hasher | None:
    """Of a namedtuple, an enum, a subclass of str: what compares and hashes as its base does."""
    for base in kind.__mro__[1:]:
        hasher = _EXACT.get(base)
        if base is enum.Enum and kind.__eq__ is object.__eq__:
            hasher = _of_enum
        if hasher is not None:
            same = kind.__hash__ is base.__hash__ and kind.__eq__ is base.__eq__
            return hasher if same else None
    return None


def _generated(kind: Any) -> Hasher | None:
    """Of a frozen dataclass whose comparison and hash are those that dataclasses write.

    They are compared with what dataclasses write for a class of the same fields: nothing else says
    that a class has not a comparison of its own (it may ignore case, for instance).
    """
    params = kind.__dict__.get("__dataclass_params__")
    if params is None or not (params.eq and params.frozen):
        return None
    if kind.__getattribute__ is not object.__getattribute__:
        return None
    fields = dataclasses.fields(kind)
    model = dataclasses.make_dataclass(
        "Model",
        [(f.name, Any, dataclasses.field(compare=f.compare, hash=f.hash)) for f in fields],
        frozen=True,
    )
    for method in ("__eq__", "__hash__"):
        if _code(kind, method) is None or _code(kind, method) != _code(model, method):
            return None
    # A field that is compared and not hashed may stay out; one hashed and not compared must.
    names = [f.name for f in fields if f.compare and f.hash in (None, True)]
    return functools.partial(_of_dataclass, _of_class(kind), names)


def _code(kind: type, method: str) -> tuple[Any, ...] | None:
    code = getattr(kind.__dict__.get(method), "__code__", None)
    if code is None:
        return None
    constants = tuple(c for c in code.co_consts if not isinstance(c, str))
    return code.co_code, code.co_names, constants, code.co_varnames


def _of_dataclass(kind: int, names: list[str], key: Any) -> int:
    return hash((kind, *[stable_hash(getattr(key, name)) for name in names]))


def _refusal(key: Any) -> str:
    try:
        hash(key)
    except TypeError:
        return unhashable(key)
    kind = type(key)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    return (
        f"a key of type {name} ({shorten(key)}) cannot promise that equal keys meet in one "
        "reducer on every engine; use a str, a number, bytes, a date, a UUID, an enum's member, "
        "or a tuple, frozenset or frozen dataclass of these"
    )


def unhashable(key: Any) -> str:
    """Say what is wrong with a key that has no hash, and what to use instead.

    Parameters
    ----------
    key : object
        The key.

    Returns
    -------
    str
        A sentence without its end.
    """
    instead: dict[type, str] = {
        list: "a tuple",
        set: "a frozenset",
        dict: "a tuple of its items",
        bytearray: "bytes",
    }
    kind = type(key)
    inside = ""
    if isinstance(key, tuple):
        inner = next((item for item in key if not _hashable(item)), None)
        inside, kind = f", which holds a {type(inner).__name__}", type(inner)
    how = instead.get(kind, "a str or a tuple")
    return (
        f"the key {shorten(key)} is a {type(key).__name__}{inside}: it is unhashable, so it cannot "
        f"be a key; use {how} instead"
    )


def _hashable(item: Any) -> bool:
    try:
        hash(item)
    except TypeError:
        return False
    return True
