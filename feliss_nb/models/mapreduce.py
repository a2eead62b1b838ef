"""MapReduce, and what else fills a variable: each function submits one job and returns at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import GeneratorType
from typing import Any

import numpy as np

from feliss_nb.errors import UsageError
from feliss_nb.models import shuffle, text
from feliss_nb.models.contracts import Session, Start, begin, current
from feliss_nb.models.folds import folds_for, one_value
from feliss_nb.models.naming import name_of, shorten
from feliss_nb.models.views import walk
from feliss_nb.state.handle import Handle, Target


def map_(session: Session, f: Callable[[Any], Any], source: Any, name: str | None = None) -> Any:
    """Apply a function to every record.

    Parameters
    ----------
    session : Session
        Where.
    f : callable
        From a record to a record; one that yields gives any number of them. Inside it
        ``feliss_nb.here()`` reaches every variable.
    source : Variable or iterable
        Records; a variable of values is one record a rank; a sequence, an array, a DataFrame (its
        rows as tuples) or another iterable is scattered first.
    name : str, optional
        Of the result.

    Returns
    -------
    Variable
        The records, in the order of those that they were made from.

    Raises
    ------
    UsageError
        When ``f`` cannot be called or ``source`` has no records.
    """
    _check_function(f, "the map function")
    handle, title = _source(session, source)
    out = session.declare(records=True, name=name)
    starts: list[Start] = [
        (rank, map_some, (f, handle, Target(out.variable), title, 0, None, []))
        for rank in range(session.size)
    ]
    session.submit(starts, outputs=[out], label=f"map {name_of(f)}")
    return out


def map_some(
    f: Callable[[Any], Any],
    source: Handle,
    out: Target,
    title: str,
    index: int,
    position: Any,
    records: list[Any],
) -> None:
    """Map some records; behind the last one, fill the variable. The continuation of a map."""
    here = begin(f)

    def each(record: Any) -> None:
        result = f(record)
        if type(result) is GeneratorType:
            records.extend(result)
        else:
            records.append(result)

    index, position, finished = walk(here, each, source, title, index, position)
    if finished:
        here[out] = records
    else:
        here.put(map_some, f, source, out, title, index, position, records)


def reduce(
    session: Session,
    f: Callable[..., Any],
    pairs: Any,
    name: str | None = None,
    with_key: bool = False,
    partition: Callable[[Any, int], int] | None = None,
) -> Any:
    """Bring the values of each key together and reduce them.

    Parameters
    ----------
    session : Session
        Where.
    f : callable
        From the list of one key's values to one value. The values are in the order of their
        records. ``sum``, ``min``, ``max`` and ``len`` are applied on the way: to the values of each
        source rank from the left, then to what that gave, in rank order (``sum`` from 0, each time
        by ``+``). It is the same as over the whole list wherever the operation is associative: for
        floats, whose sums round, it is one fixed order of adding.
    pairs : Variable or iterable
        Records ``(key, value)``.
    name : str, optional
        Of the result.
    with_key : bool
        Whether ``f`` gets the key and the values.
    partition : callable, optional
        From a key and the number of ranks to the rank where it is reduced; equal keys must get
        equal ranks. Default: :func:`feliss_nb.models.partition.partition_of`.

    Returns
    -------
    Variable
        Records ``(key, f(values))``, on each rank in the order in which the keys appear.

    Raises
    ------
    UsageError
        As :func:`mapreduce`.
    """
    plan, title = _plan(f, None, partition, with_key, ""), ""
    handle, title = _source(session, pairs)
    plan = _plan(f, None, partition, with_key, title)
    return _shuffle(session, plan, shuffle.gather_pairs, (), handle, title, name, "reduce")


def mapreduce(
    session: Session,
    map: Callable[[Any], Any],
    reduce: Callable[..., Any],
    source: Any,
    combine: Callable[[list[Any]], Any] | None = None,
    partition: Callable[[Any, int], int] | None = None,
    name: str | None = None,
    with_key: bool = False,
) -> Any:
    """Map records to pairs and reduce the values of each key.

    Parameters
    ----------
    session : Session
        Where.
    map : callable
        From a record to a pair ``(key, value)``; one that yields gives any number of them.
    reduce : callable
        As for :func:`reduce`.
    source : Variable or iterable
        As for :func:`map_`.
    combine : callable, optional
        From a list of values of one key to one value, applied on the ranks that map. ``reduce``
        then gets the combined values, in rank order: one a rank, or several where a rank has more
        than 65536 values of the key. It never gets its own results.
    partition : callable, optional
        As for :func:`reduce`.
    name : str, optional
        Of the result.
    with_key : bool
        Whether ``reduce`` gets the key and the values.

    Returns
    -------
    Variable
        Records ``(key, value)``, as of :func:`reduce`.

    Raises
    ------
    UsageError
        When a function cannot be called or ``source`` has no records. In the job: when ``map``
        gives what is no pair, or a key that is unhashable or cannot promise that equal keys meet.
    """
    _check_function(map, "the map function")
    plan = _plan(reduce, combine, partition, with_key, name_of(map))
    handle, title = _source(session, source)
    label = f"mapreduce {name_of(map)},"
    return _shuffle(session, plan, shuffle.gather_mapped, (map,), handle, title, name, label)


def _plan(f: Any, combine: Any, partition: Any, with_key: bool, origin: str) -> shuffle.Plan:
    _check_function(f, "the reduce function")
    if combine is not None:
        _check_function(combine, "combine")
    if partition is not None:
        _check_function(partition, "partition")
    if with_key and folds_for(f, None).final:
        raise UsageError(f"with_key=True: {name_of(f)} takes values only; leave with_key out")
    return shuffle.Plan(f, combine, partition, bool(with_key), origin)


def _shuffle(
    session: Session,
    plan: shuffle.Plan,
    gather: Callable[..., None],
    functions: tuple[Any, ...],
    source: Handle,
    title: str,
    name: str | None,
    label: str,
) -> Any:
    out = session.declare(records=True, name=name)
    inbox = session.declare(records=False, name=None)
    target = Target(out.variable)
    starts: list[Start] = []
    for rank in range(session.size):
        starts.append((rank, shuffle.open_inbox, (Target(inbox.variable),)))
        starts.append((rank, gather, (plan, *functions, source, inbox, target, title, 0, None, {})))
    session.submit(starts, outputs=[out, inbox], label=f"{label} {name_of(plan.reduce)}")
    return out


def apply(session: Session, f: Callable[..., Any], *args: Any, name: str | None = None) -> Any:
    """Call a function once on every rank.

    Parameters
    ----------
    session : Session
        Where.
    f : callable
        Called with ``args``.
    *args : object
        Handles of variables among them are waited for.
    name : str, optional
        Of the result.

    Returns
    -------
    Variable
        Of values: what ``f`` returned on each rank.
    """
    _check_function(f, "the function")
    out = session.declare(records=False, name=name)
    starts: list[Start] = [
        (rank, apply_here, (Target(out.variable), f, *args)) for rank in range(session.size)
    ]
    session.submit(starts, outputs=[out], label=f"apply {name_of(f)}")
    return out


def apply_here(out: Target, f: Callable[..., Any], *args: Any) -> None:
    """Call a function and keep what it returns. The continuation of :func:`apply`."""
    here = current()
    here.stands_for(f)
    here[out] = one_value(f, *args)


def variable(session: Session, init: Callable[[int, int], Any], name: str | None = None) -> Any:
    """Make a variable of values.

    Parameters
    ----------
    session : Session
        Where.
    init : callable
        Called on every rank with the rank and the number of ranks; returns the rank's value.
    name : str, optional
        Of the variable.

    Returns
    -------
    Variable
        Of values.

    Raises
    ------
    UsageError
        When ``init`` cannot be called.
    """
    if not callable(init):
        raise UsageError(
            f"init is {shorten(init)}; give a function of (rank, size) that makes each rank's "
            "value, such as lambda rank, size: 0 (to spread data over the ranks: scatter)"
        )
    _check_function(init, "init")
    out = session.declare(records=False, name=name)
    starts: list[Start] = [
        (rank, init_here, (Target(out.variable), init)) for rank in range(session.size)
    ]
    session.submit(starts, outputs=[out], label=f"variable {name_of(init)}")
    return out


def init_here(out: Target, init: Callable[[int, int], Any]) -> None:
    """Make this rank's value. The continuation of :func:`variable`."""
    here = current()
    here.stands_for(init)
    here[out] = one_value(init, here.rank, here.size)


def scatter(session: Session, data: Any, name: str | None = None) -> Any:
    """Spread records over the ranks.

    Parameters
    ----------
    session : Session
        Where.
    data : sequence, array, DataFrame or iterable
        Cut into contiguous chunks of equal length, give or take one, in rank order.
    name : str, optional
        Of the variable.

    Returns
    -------
    Variable
        Of records.

    Raises
    ------
    UsageError
        When ``data`` is a str, a dict, a number or something else that is no row of records.
    """
    if isinstance(data, Handle):
        raise UsageError("this is a variable already: it lies on the ranks")
    return _set_all(session, _chunks(data, session.size), name, "scatter")


def read_text(
    session: Session,
    paths: Any,
    by: str = "line",
    name: str | None = None,
    block: int = text.BLOCK,
) -> Any:
    """Read text files, on the ranks themselves and when they are needed.

    Parameters
    ----------
    session : Session
        Where.
    paths : str or Path, or iterable of these
        Files and globs; what ends with ``.gz`` is unpacked.
    by : {"line", "block", "file"}
        What a record is: a line without its end, some whole lines as one string, a file's content.
    name : str, optional
        Of the variable.
    block : int
        About how many bytes make a block.

    Returns
    -------
    Variable
        Of records. Files are split by bytes at line ends; concatenating the ranks gives file order.
        Bytes that are not UTF-8 are replaced.

    Raises
    ------
    UsageError
        When a file does not exist, is a directory or cannot be read, or a glob matches nothing.
    """
    parts = text.sources(paths, by, session.size, block)
    return _set_all(session, parts, name, "read_text")


def set_here(out: Target, partition: Any) -> None:
    """Set this rank's partition. The continuation of :func:`scatter`."""
    current()[out] = partition


def _set_all(session: Session, partitions: list[Any], name: str | None, label: str) -> Any:
    out = session.declare(records=True, name=name)
    starts: list[Start] = [
        (rank, set_here, (Target(out.variable), part)) for rank, part in enumerate(partitions)
    ]
    session.submit(starts, outputs=[out], label=label)
    return out


def _chunks(data: Any, size: int) -> list[Any]:
    if isinstance(data, str | bytes | bytearray):
        raise UsageError(
            f"a {type(data).__name__} has no records ({shorten(data)}); put it into a list, split "
            "it, or use read_text if it names a file"
        )
    if isinstance(data, Mapping):
        raise UsageError("a dict has no order of records; give its list(d.items())")
    if not hasattr(data, "__iter__") or getattr(data, "shape", None) == ():
        raise UsageError(f"{shorten(data)} has no records; give a list, an array or a variable")
    cut: Any = data
    if hasattr(data, "iloc"):
        cut = data.iloc
    elif not isinstance(data, list | tuple | range | np.ndarray):
        cut = data = list(data)
    short, long = divmod(len(data), size)
    starts = [rank * short + min(rank, long) for rank in range(size + 1)]
    return [cut[starts[rank] : starts[rank + 1]] for rank in range(size)]


def _source(session: Session, source: Any) -> tuple[Handle, str]:
    """The variable to read, and what errors call it."""
    if isinstance(source, Handle):
        name = getattr(source, "name", None)
        return source, repr(name) if name else f"variable {source.variable}"
    parts = _chunks(source, session.size)
    return _set_all(session, parts, None, "scatter"), f"the {type(source).__name__}"


def _check_function(f: Any, what: str) -> None:
    if not callable(f):
        raise UsageError(f"{what} is {shorten(f)}, which cannot be called; give a function")
    if inspect.iscoroutinefunction(f):
        raise UsageError(f"{what} {name_of(f)} is async; give an ordinary function")
