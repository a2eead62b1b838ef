"""The way of pairs to the reducers, as continuations of one job.

    gather -> (combine) -> split --one message to each rank--> absorb -> merge -> finish

Each rank folds its pairs into one dict, splits it by key, and sends one message to each rank, an
empty one too. The messages wait in the job's inbox, a hidden variable with a partition a rank; the
last to arrive starts the merge, which takes them by source rank. So a reducer's values come in the
order (source rank, record), and its keys in the order of their first appearance, whatever arrives
when. All that is half done lies in an inbox or in the arguments of a continuation: nothing else is
needed to go on elsewhere.

The functions travel with the messages (the ``Plan``) and not in the inbox: there they would be
saved apart from the job whose globals they share.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import GeneratorType
from typing import Any

from feliss_nb.errors import UsageError
from feliss_nb.models.contracts import Here, begin, current
from feliss_nb.models.folds import Folds, Rule, combined, folds_for, one_value
from feliss_nb.models.naming import name_of, shorten
from feliss_nb.models.partition import partition_of
from feliss_nb.models.views import take, view_of, walk
from feliss_nb.state.handle import Handle, Target

#: Pairs between two looks at the clock: half a millisecond, where values are cheap to fold.
CHUNK = 1024
#: Values of these types are: a thousand sums or comparisons take no time that a checkpoint notices.
_CHEAP = frozenset({int, float, bool, str, bytes, type(None), list})

Items = list[tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reduction is to do.

    Parameters
    ----------
    reduce : callable
        From the list of one key's values (with ``with_key``: from key and values) to one value.
    combine : callable or None
        From a list of values to one value, applied on the ranks that map.
    partition : callable or None
        From key and number of ranks to a rank.
    with_key : bool
        Whether ``reduce`` gets the key.
    origin : str
        What gives the pairs, as an error names it.
    """

    reduce: Callable[..., Any]
    combine: Callable[[list[Any]], Any] | None
    partition: Callable[[Any, int], int] | None
    with_key: bool
    origin: str

    @property
    def rule(self) -> Rule:
        """What the folds need to know."""
        return Rule(self.origin, self.combine, self.partition is not None)

    @property
    def folds(self) -> Folds:
        """How to gather."""
        return folds_for(self.reduce, self.combine)


class Inbox:
    """What has arrived of one job on one rank.

    Parameters
    ----------
    size : int
        Number of ranks, each of which sends one message.
    """

    __slots__ = ("index", "messages", "missing")

    def __init__(self, size: int) -> None:
        self.messages: list[tuple[Sequence[Any], Sequence[Any]]] = [((), ())] * size
        self.missing = size
        self.index = 0  # the next record number of this rank


def open_inbox(inbox: Target) -> None:
    """Make the inbox; messages wait for it, because they carry its handle.

    Parameters
    ----------
    inbox : Target
        The hidden variable.
    """
    here = current()
    here[inbox] = Inbox(here.size)


# ------------------------------------------------------------------------- on the rank that maps


def gather_mapped(
    plan: Plan,
    f: Callable[[Any], Any],
    source: Handle,
    inbox: Handle,
    out: Target,
    title: str,
    index: int,
    position: Any,
    into: dict[Any, Any],
) -> None:
    """Map some records and fold the pairs that come of them."""
    here = begin(f)
    fold, rule = plan.folds.gather, plan.rule

    def each(record: Any) -> None:
        result = f(record)
        pairs: Iterable[Any] = (result,)
        if type(result) is GeneratorType:
            pairs = result
        elif isinstance(result, dict):
            pairs = result.items()  # a Counter of a block, say: no generator in between
        fold(into, pairs, rule)

    index, position, finished = walk(here, each, source, title, index, position)
    if finished:
        _gathered(here, plan, inbox, out, index, into)
    else:
        here.put(gather_mapped, plan, f, source, inbox, out, title, index, position, into)


def gather_pairs(
    plan: Plan,
    source: Handle,
    inbox: Handle,
    out: Target,
    title: str,
    index: int,
    position: Any,
    into: dict[Any, Any],
) -> None:
    """Fold some records, which are pairs."""
    here = begin(plan.reduce)
    fold, rule = plan.folds.gather, plan.rule
    view = view_of(here[source], source.records, title)
    records: list[Any] = []
    failed = 0
    pace = 1  # the first record tells

    def label() -> str:
        return f"record {index + failed} of {title} ({shorten(records[failed])})"

    while True:
        records, behind = take(view, position, pace)
        if not records:
            break
        pace = CHUNK if _is_cheap(records[0]) else 1
        pairs = iter(records)
        try:
            fold(into, pairs, rule)
        except Exception:
            failed = len(records) - operator.length_hint(pairs) - 1
            here.at(index + failed, label)
            raise
        position, index = behind, index + len(records)
        if here.due:
            break
    here.progress(view.done(position), view.total)
    if records:
        here.put(gather_pairs, plan, source, inbox, out, title, index, position, into)
    else:
        _gathered(here, plan, inbox, out, index, into)


def _is_cheap(record: Any) -> bool:
    return isinstance(record, tuple | list) and len(record) == 2 and type(record[1]) in _CHEAP


def _gathered(
    here: Here, plan: Plan, inbox: Handle, out: Target, index: int, into: dict[Any, Any]
) -> None:
    items = list(into.items())
    into.clear()
    if plan.combine is not None and plan.folds.gather is folds_for(None, None).gather:
        here.put(combine_some, plan, inbox, out, index, items, 0)
    else:
        here.put(split_some, plan, inbox, out, index, items, 0, [[] for _ in range(here.size)])


def combine_some(
    plan: Plan, inbox: Handle, out: Target, index: int, items: Items, done: int
) -> None:
    """Combine the values of some keys, in place."""
    here = begin(plan.combine)
    rule = plan.rule
    key: Any = None

    def label() -> str:
        return f"key {shorten(key)}"

    while done < len(items):
        key, values = items[done]
        here.at(index, label, items[done])
        items[done] = key, combined(values, rule)
        done, index = done + 1, index + 1
        if here.due:
            break
    if done < len(items):
        here.put(combine_some, plan, inbox, out, index, items, done)
    else:
        here.put(split_some, plan, inbox, out, index, items, 0, [[] for _ in range(here.size)])


def split_some(
    plan: Plan,
    inbox: Handle,
    out: Target,
    index: int,
    items: Items,
    done: int,
    parts: list[Items],
) -> None:
    """Find the ranks of some keys; behind the last key, send each rank its part."""
    here = begin(plan.partition)
    here.phase("shuffling")
    size = here.size
    while done < len(items):
        if plan.partition is None:
            stop = min(done + CHUNK, len(items))
            for item in items[done:stop]:
                parts[partition_of(item[0], size)].append(item)
            done = stop
        else:
            key = items[done][0]
            here.at(index, f"key {shorten(key)}", key)
            parts[_asked(plan.partition, key, size)].append(items[done])
            done, index = done + 1, index + 1
        if here.due:
            break
    if done < len(items):
        here.put(split_some, plan, inbox, out, index, items, done, parts)
        return
    items.clear()
    for rank, part in enumerate(parts):
        # Two flat lists: tuples cost half as much again on the way.
        keys, values = [key for key, _ in part], [value for _, value in part]
        part.clear()
        here.put(absorb, plan, inbox, out, here.rank, index, keys, values, rank=rank)


def _asked(partition: Callable[[Any, int], int], key: Any, size: int) -> int:
    answer = partition(key, size)
    try:
        rank = operator.index(answer)
    except TypeError:
        rank = -1
    if not 0 <= rank < size:
        raise UsageError(
            f"{name_of(partition)} gave {shorten(answer)} for the key {shorten(key)}; "
            f"a rank is an int from 0 to {size - 1}"
        )
    return rank


# ---------------------------------------------------------------------- on the rank that reduces


def absorb(
    plan: Plan,
    inbox: Handle,
    out: Target,
    source_rank: int,
    index: int,
    keys: list[Any],
    values: list[Any],
) -> None:
    """Keep one rank's message; the last one starts the merge."""
    here = current()
    box: Inbox = here[inbox]
    box.messages[source_rank] = keys, values
    box.missing -= 1
    if source_rank == here.rank:
        box.index = index
    if box.missing == 0:
        messages, box.messages = box.messages, []
        here.put(merge_some, plan, out, box.index, messages, 0, 0, {})


def merge_some(
    plan: Plan,
    out: Target,
    index: int,
    messages: list[tuple[Sequence[Any], Sequence[Any]]],
    source_rank: int,
    done: int,
    into: dict[Any, Any],
) -> None:
    """Fold some of what the ranks sent, rank by rank."""
    here = begin(plan.reduce)
    here.phase("reducing")
    folds = plan.folds
    rule = Rule(plan.origin, None, any_key=True)  # every key has found its rank
    while source_rank < len(messages):
        keys, values = messages[source_rank]
        while done < len(keys):
            some = values[done : done + CHUNK]
            pace = CHUNK if _CHEAP.issuperset(map(type, some)) else 1
            pairs = zip(keys[done : done + pace], some[:pace], strict=True)
            try:
                folds.merge(into, pairs, rule)
            except Exception:
                # Only now: the merge has no records, and an identity is not to be taken twice.
                here.at(index, f"merging the values of rank {source_rank}")
                raise
            done += pace
            if here.due:
                here.put(merge_some, plan, out, index, messages, source_rank, done, into)
                return
        messages[source_rank] = (), ()
        source_rank, done = source_rank + 1, 0
    items = list(into.items())
    if folds.final:
        here[out] = items
    else:
        into.clear()
        here.put(reduce_some, plan, out, index, items, 0)


def reduce_some(plan: Plan, out: Target, index: int, items: Items, done: int) -> None:
    """Reduce the values of some keys, in place; behind the last key, fill the variable."""
    here = begin(plan.reduce)
    f, with_key = plan.reduce, plan.with_key
    key: Any = None

    def label() -> str:
        return f"key {shorten(key)}"

    while done < len(items):
        key, values = items[done]
        here.at(index, label, items[done])
        items[done] = key, one_value(f, key, values) if with_key else one_value(f, values)
        done, index = done + 1, index + 1
        if here.due:
            break
    if done < len(items):
        here.put(reduce_some, plan, out, index, items, done)
    else:
        here[out] = items
