"""Partitions as records, whatever they are made of, and the walk over them that can be cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from feliss_nb.errors import UsageError
from feliss_nb.models.contracts import Here, Source
from feliss_nb.models.naming import shorten
from feliss_nb.state.handle import Handle


class Items:
    """The items of a list, tuple, range or array, as they are when they are reached.

    A map function may change the very partition that it is mapped over; looking each item up, and
    the length too, shows the change the same way however the work is cut.
    """

    def __init__(self, items: Any) -> None:
        self._items = items

    def records(self, position: int | None = None) -> Iterator[tuple[int, Any]]:
        """Yield each item with the index behind it."""
        items, index = self._items, position or 0
        while index < len(items):
            item = items[index]
            index += 1
            yield index, item

    def slice(self, index: int, count: int) -> list[Any]:
        """Copy some items."""
        return list(self._items[index : index + count])

    def where(self, position: int | None = None) -> str:
        """Show the item itself: it has no other place than its number."""
        index = position or 0
        return shorten(self._items[index]) if index < len(self._items) else "the end"

    def done(self, position: int | None) -> int:
        """Count the items before a position."""
        return position or 0

    @property
    def total(self) -> int:
        """Count the items."""
        return len(self._items)


class _Rows(Items):
    """The rows of a DataFrame, as tuples (pandas' own type of row cannot be pickled).

    They are taken out some at a time: one by one it is a hundred times slower.
    """

    def records(self, position: int | None = None) -> Iterator[tuple[int, Any]]:
        index = position or 0
        for begin in range(index, len(self._items), _ROWS):
            some = self._items.iloc[begin : begin + _ROWS]
            for row in some.itertuples(index=False, name=None):
                index += 1
                yield index, row

    def where(self, position: int | None = None) -> str:
        return f"row {position or 0} on this rank"


_ROWS = 256


def view_of(partition: Any, records: bool, title: str) -> Source:
    """Give a partition as a source of records.

    Parameters
    ----------
    partition : object
        What a variable holds on this rank.
    records : bool
        Whether it holds records; a value is one record.
    title : str
        The variable, as an error names it.

    Returns
    -------
    Source
        The records, and where they are.

    Raises
    ------
    UsageError
        When the partition of a variable of records has no order or no items.
    """
    if not records:
        return Items([partition])
    if hasattr(partition, "iloc"):
        return _Rows(partition) if partition.ndim == 2 else Items(partition.array)
    if is_sequence(partition):
        return Items(partition)
    if isinstance(partition, Source):
        return partition
    raise UsageError(
        f"the partition of {title} on this rank is a {type(partition).__name__}; records are the "
        "items of a list, a tuple, a range, an array or a DataFrame"
    )


def is_sequence(data: Any) -> bool:
    """Say whether the items of ``data`` are records: it has an order, and is no text.

    Parameters
    ----------
    data : object
        Anything.

    Returns
    -------
    bool
        True for lists, tuples, ranges, arrays and what behaves like them.
    """
    if isinstance(data, str | bytes | bytearray | Mapping) or getattr(data, "shape", None) == ():
        return False
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def walk(
    here: Here,
    each: Callable[[Any], object],
    source: Handle,
    title: str,
    index: int,
    position: Any,
) -> tuple[int, Any, bool]:
    """Call ``each`` with the records behind a position, until the slice of time is used up.

    Parameters
    ----------
    here : Here
        Of the running continuation.
    each : callable
        Called with each record, under the record's identity.
    source : Handle
        The variable.
    title : str
        The variable, as an error names it.
    index : int
        The number of the first record.
    position : object
        Where it is; None: at the start.

    Returns
    -------
    index : int
        The number of the next record.
    position : object
        Where it is.
    finished : bool
        Whether there is none.
    """
    begin = index
    partition = here[source]
    view = view_of(partition, source.records, title)

    def label() -> str:  # called only for an error, and for the record that is then at hand
        return f"record {index} of {title} ({view.where(position)})"

    at = here.at
    finished = due = False
    while not (finished or due):
        for behind, record in view.records(position):
            at(index, label, record)
            each(record)
            index += 1
            position = behind
            if here[source] is not partition:
                # The function bound the variable anew: it reads the new one from the next record
                # on, as it would if the next record were another continuation's.
                partition = here[source]
                view = view_of(partition, source.records, title)
                position = take(view, None, index)[1]
                break
            # At each record, which may take a second: asking costs no more than counting.
            if here.due:
                due = True
                break
        else:
            finished = True
    here.mapped(index - begin)
    here.progress(view.total if finished else view.done(position), view.total)
    return index, position, finished


def take(view: Source, position: Any, count: int) -> tuple[list[Any], Any]:
    """Take the next records behind a position.

    Parameters
    ----------
    view : Source
        The records.
    position : object
        Where to begin.
    count : int
        How many at most.

    Returns
    -------
    records : list
        The records; fewer than ``count`` only at the end.
    position : object
        Behind them.
    """
    if type(view) is Items:
        some = view.slice(position or 0, count)
        return some, (position or 0) + len(some)
    found = list(islice(view.records(position), count))
    return [record for _, record in found], found[-1][0] if found else position
