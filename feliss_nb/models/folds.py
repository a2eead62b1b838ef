"""How the values of one key are gathered: one dict, one loop a kind, nothing called for a pair.

Each fold takes pairs in record order and leaves in ``into``, for each key in the order of its first
appearance, either the list of its values or one value that stands for them. A pair's shape, and a
new key's type, are looked at where it costs nothing: on the way that is rarely taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import GeneratorType
from typing import Any

from feliss_nb.errors import UsageError
from feliss_nb.models.naming import name_of, shorten
from feliss_nb.models.partition import stable_hash, unhashable

Fold = Callable[[dict[Any, Any], Iterable[Any], "Rule"], None]

#: Keys of these types always have a rank.
_SURE = frozenset({str, int, bytes, bool, type(None)})

#: How many values of a key a rank holds before they are combined. It counts values, so that it
#: comes at the same ones in every run.
COMBINE_AT = 1 << 16


@dataclass(frozen=True, slots=True)
class Rule:
    """What a fold needs to know beside the pairs.

    Parameters
    ----------
    origin : str
        What yields the pairs, as an error names it.
    combine : callable, optional
        From the list of a key's values to one value.
    any_key : bool
        Whether the user says where keys belong, so that any hashable key will do.
    """

    origin: str
    combine: Callable[[list[Any]], Any] | None = None
    any_key: bool = False

    def pair(self, record: Any) -> tuple[Any, Any] | list[Any]:
        """Let a pair pass.

        Parameters
        ----------
        record : object
            Not a tuple itself.

        Returns
        -------
        tuple or list
            The record, of two items.

        Raises
        ------
        UsageError
            When it is no tuple or list of two.
        """
        if isinstance(record, tuple | list) and len(record) == 2:
            return record
        raise UsageError(
            f"{self.origin} gave {shorten(record)}, which is no pair; "
            "a pair is a tuple (key, value), or a list of two"
        )

    def admit(self, key: Any) -> None:
        """Refuse a key that has no rank of its own, before a whole map is done for nothing.

        Parameters
        ----------
        key : object
            Seen for the first time.
        """
        if not self.any_key:
            stable_hash(key)

    def explain(self, pair: Any, error: Exception) -> None:
        """Raise a better error where the pair is to blame.

        Parameters
        ----------
        pair : tuple or list
            The pair at hand.
        error : Exception
            What happened with it.

        Raises
        ------
        UsageError
            When it is no pair, or its key cannot be one.
        """
        key, _ = self.pair(pair)
        try:
            hash(key)
        except TypeError:
            raise UsageError(f"in a pair of {self.origin}, {unhashable(key)}") from error
        if isinstance(error, UsageError):
            raise UsageError(f"{self.origin} gave {error}") from error


def fold_sum(into: dict[Any, Any], pairs: Iterable[Any], rule: Rule) -> None:
    """Add up each key's values, from the left and from 0, as the builtin does.

    Always by ``+``: newer Pythons' ``sum`` rounds floats otherwise.
    """
    for pair in pairs:
        if type(pair) is not tuple:
            pair = rule.pair(pair)
        try:
            key, value = pair
            if key in into:
                into[key] = into[key] + value
            else:
                if type(key) not in _SURE:
                    rule.admit(key)
                into[key] = 0 + value
        except Exception as error:
            rule.explain(pair, error)
            raise


def fold_len(into: dict[Any, Any], pairs: Iterable[Any], rule: Rule) -> None:
    """Count each key's values."""
    for pair in pairs:
        if type(pair) is not tuple:
            pair = rule.pair(pair)
        try:
            key, _ = pair
            if key in into:
                into[key] += 1
            else:
                if type(key) not in _SURE:
                    rule.admit(key)
                into[key] = 1
        except Exception as error:
            rule.explain(pair, error)
            raise


def fold_min(into: dict[Any, Any], pairs: Iterable[Any], rule: Rule) -> None:
    """Keep each key's least value, of equal ones the first."""
    for pair in pairs:
        if type(pair) is not tuple:
            pair = rule.pair(pair)
        try:
            key, value = pair
            if key in into:
                if value < into[key]:
                    into[key] = value
            else:
                if type(key) not in _SURE:
                    rule.admit(key)
                into[key] = value
        except Exception as error:
            rule.explain(pair, error)
            raise


def fold_max(into: dict[Any, Any], pairs: Iterable[Any], rule: Rule) -> None:
    """Keep each key's greatest value, of equal ones the first."""
    for pair in pairs:
        if type(pair) is not tuple:
            pair = rule.pair(pair)
        try:
            key, value = pair
            if key in into:
                if value > into[key]:
                    into[key] = value
            else:
                if type(key) not in _SURE:
                    rule.admit(key)
                into[key] = value
        except Exception as error:
            rule.explain(pair, error)
            raise


def fold_list(into: dict[Any, Any], pairs: Iterable[Any], rule: Rule) -> None:
    """List each key's values; combine a long list."""
    limit = COMBINE_AT if rule.combine is not None else None
    for pair in pairs:
        if type(pair) is not tuple:
            pair = rule.pair(pair)
        try:
            key, value = pair
            if key in into:
                values = into[key]
                values.append(value)
            else:
                if type(key) not in _SURE:
                    rule.admit(key)
                into[key] = [value]
                continue
        except Exception as error:
            rule.explain(pair, error)
            raise
        if limit is not None and len(values) >= limit:
            combine(values, rule)


def fold_lists(into: dict[Any, Any], pairs: Iterable[Any], rule: Rule) -> None:
    """Join the lists of each key's values."""
    for key, values in pairs:
        if key in into:
            into[key].extend(values)
        else:
            into[key] = values


@dataclass(frozen=True, slots=True)
class _Combined:
    """A combined value at the head of a list, so that it is not taken for one to combine."""

    value: Any


def combine(values: list[Any], rule: Rule) -> None:
    """Combine the values of a list that are not combined yet, in place.

    The combining function sees each value once and never its own results, so these may be of
    another kind than the values.

    Parameters
    ----------
    values : list
        Combined ones, then others.
    rule : Rule
        With the combining function.
    """
    assert rule.combine is not None
    done = 0
    while done < len(values) and type(values[done]) is _Combined:
        done += 1
    if done < len(values):
        values[done:] = [_Combined(one_value(rule.combine, values[done:]))]


def combined(values: list[Any], rule: Rule) -> list[Any]:
    """Combine what is left of a list of values.

    Parameters
    ----------
    values : list
        As :func:`fold_list` leaves it.
    rule : Rule
        With the combining function.

    Returns
    -------
    list
        The combined values, in order; one, unless there were very many values.
    """
    combine(values, rule)
    return [item.value for item in values]


def one_value(f: Callable[..., Any], *args: Any) -> Any:
    """Call a function that is to give one value.

    Parameters
    ----------
    f : callable
        The user's.
    *args : object
        What it gets.

    Returns
    -------
    object
        What it returns.

    Raises
    ------
    UsageError
        When that is a generator, which has no place in memory that can be saved.
    """
    value = f(*args)
    if type(value) is GeneratorType:
        raise UsageError(
            f"{name_of(f)} gives a generator, but it is to give one value; "
            "return a list of its items"
        )
    return value


@dataclass(frozen=True, slots=True)
class Folds:
    """How a reduction gathers: on the rank that maps, and on the rank that reduces.

    Parameters
    ----------
    gather : Fold
        For the pairs of a source rank.
    merge : Fold
        For what the source ranks gathered, rank by rank.
    final : bool
        Whether what is merged is the result; else it is the list that the reduce function gets.
    """

    gather: Fold
    merge: Fold
    final: bool


def _append(into: dict[Any, Any], pairs: Iterable[Any], rule: Rule) -> None:
    for key, value in pairs:
        if key in into:
            into[key].append(value)
        else:
            into[key] = [value]


_LISTS = Folds(fold_list, fold_lists, False)

#: Of these a rank keeps one value a key, and what the ranks keep is folded again.
_BUILTIN: dict[Any, Folds] = {
    sum: Folds(fold_sum, fold_sum, True),
    len: Folds(fold_len, fold_sum, True),
    min: Folds(fold_min, fold_min, True),
    max: Folds(fold_max, fold_max, True),
}
#: The combiners that a reduction by a builtin has anyway.
_SAME = ((sum, sum), (len, sum), (min, min), (max, max))


def folds_for(reduce: Any, combine: Any) -> Folds:
    """Choose how to gather.

    Parameters
    ----------
    reduce, combine : callable or None
        What the user gave.

    Returns
    -------
    Folds
        The fastest that gives the same.
    """
    if combine is None:
        return _builtin(reduce) or _LISTS
    known = _builtin(combine)
    if known is None:
        return _LISTS
    if any(combine is first and reduce is second for first, second in _SAME):
        return known
    return Folds(known.gather, _append, False)


def _builtin(f: Any) -> Folds | None:
    try:
        return _BUILTIN.get(f)
    except TypeError:  # a callable object that is not hashable
        return None
