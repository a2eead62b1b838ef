"""A session that stands up from a checkpoint on a store, and what a store has to offer."""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feliss_nb.core import events as ev
from feliss_nb.core.placement import spread
from feliss_nb.errors import CorruptSnapshot, LossError, StoreWarning, UsageError
from feliss_nb.runtime.keeping import MasterRecord, read_record
from feliss_nb.runtime.table import Table, human_bytes
from feliss_nb.state.modules import digests_here
from feliss_nb.store import Manifest, MemoryTier, Store, differences, open_store

if TYPE_CHECKING:
    from feliss_nb.runtime.session import BaseSession

Place = str | os.PathLike[str] | Store
"""A directory, a URL that fsspec knows, or a store."""

_METHODS = ("put", "get", "commit", "manifests", "drop", "keep", "numbers", "claim", "release")


@dataclass(frozen=True, slots=True)
class Origin:
    """A checkpoint on a store, for a session to go on from.

    Parameters
    ----------
    store : Store
        Claimed.
    manifest : Manifest
        The checkpoint.
    record : MasterRecord
        The master's share of it.
    older : tuple of Manifest
        What to fall back to, the newest first; none where this checkpoint was asked for.
    newest : int
        The largest number on the store.
    stale : tuple of int
        Numbers above the checkpoint's: what is left of another run, or damaged.
    """

    store: Store
    manifest: Manifest
    record: MasterRecord
    older: tuple[Manifest, ...]
    newest: int
    stale: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of ranks."""
        return self.record.image.size

    def before(self, damage: CorruptSnapshot) -> Origin:
        """Return the checkpoint before this one, which is damaged.

        Raises
        ------
        CorruptSnapshot
            If there is none: the damage.
        """
        if not self.older:
            raise damage
        found = _first_whole(self.store, self.older, damage)
        if found.size != self.size:
            raise UsageError(
                f"checkpoint {found.manifest.checkpoint} is of a session with {found.size} ranks; "
                f"ask for it by its number ({damage})"
            )
        return found


def open_place(place: Place, there: bool = False) -> Store:
    """Return the store that a user names.

    Parameters
    ----------
    place : str, path or Store
    there : bool
        Whether it must exist.

    Raises
    ------
    UsageError
        If it is no such thing, or others could write there.
    """
    if isinstance(place, str | os.PathLike):
        text = os.fspath(place)
        folder = text.removeprefix("file://")
        if not text or "\0" in text:
            raise UsageError(f"a store needs a directory or a URL, not {text!r}")
        if os.path.expanduser(text).startswith("~"):
            raise UsageError(f"{text}: there is no such user; ./{text} is a directory of that name")
        if there and "://" not in folder and not Path(folder).expanduser().is_dir():
            raise UsageError(f"there is no directory {text}: no session kept its checkpoints there")
        return _checked(open_store(text))
    missing = [name for name in _METHODS if not callable(getattr(place, name, None))]
    if missing:
        raise UsageError(
            "a store is a directory, a URL or an object with the methods of feliss_nb.store.Store, "
            f"not a {type(place).__name__} (it has no {', '.join(missing)})"
        )
    return _checked(place)


def _checked(store: Store) -> Store:
    """Refuse what lasts as long as one process only, whatever stands around it."""
    inside: list[Any] = [store]
    while inside:
        each = inside.pop()
        if isinstance(each, MemoryTier) or str(getattr(each, "url", "")).startswith("memory:"):
            raise UsageError(
                f"{each!r} is memory of each process by itself: a session's engines cannot keep "
                "checkpoints there; give a directory or a URL that all of them reach"
            )
        inside += [
            part for name in ("store", "fast", "slow") if (part := getattr(each, name, None))
        ]
    return store


def claim_new(place: Place) -> Store:
    """Return a store for a session that begins anew.

    Raises
    ------
    UsageError
        If another session writes there, or has left checkpoints.
    """
    store = open_place(place)
    store.claim()
    try:
        store.clean()
        found = store.numbers()
        if found:
            raise UsageError(
                f"{place!r} has checkpoints ({_listed(found)}), which a new session would delete: "
                "go on from them with feliss_nb.restore(), or give another place"
            )
    except BaseException:
        store.release()
        raise
    return store


def claim_origin(place: Place, checkpoint: int | None) -> Origin:
    """Return the newest whole checkpoint, or the one that is asked for.

    Raises
    ------
    UsageError
        If there is none, or another version of Python wrote it.
    CorruptSnapshot
        If all are damaged, or the one that is asked for is.
    """
    if checkpoint is not None and (isinstance(checkpoint, bool) or not isinstance(checkpoint, int)):
        raise UsageError(f"checkpoint= takes the number of a checkpoint, not {checkpoint!r}")
    store = open_place(place, there=True)
    nothing = UsageError(f"{place!r} has no checkpoint: none was kept there to its end")
    if not store.numbers():  # may be no store at all: a claim would write into it
        raise nothing
    store.claim()
    try:
        store.clean()
        manifests = store.manifests()
        if not manifests:
            if found := store.numbers():
                raise CorruptSnapshot(
                    f"{place!r} has no whole checkpoint: each one's manifest is damaged "
                    f"({_listed(found)})"
                )
            raise nothing
        if checkpoint is not None:
            asked = [found for found in manifests if found.checkpoint == checkpoint]
            if not asked:
                listed = _listed([found.checkpoint for found in manifests])
                raise UsageError(f"{place!r} has no checkpoint {checkpoint} (there are: {listed})")
            manifests = asked
        return _first_whole(store, manifests, None)
    except BaseException:
        store.release()
        raise


def _first_whole(
    store: Store, manifests: Sequence[Manifest], damage: CorruptSnapshot | None
) -> Origin:
    """Return the first checkpoint whose master's share is whole; the ranks' show when fetched."""
    for place, manifest in enumerate(manifests):
        if damage is not None:
            _warn(f"{damage}; going back to checkpoint {manifest.checkpoint}")
        size = manifest.info.get("ranks")
        if size != len(manifest.shards) - 1:
            raise UsageError(f"checkpoint {manifest.checkpoint} was not written by a session")
        check_python(manifest)
        try:
            record = read_record(store, manifest.checkpoint, size)
        except CorruptSnapshot as error:
            damage = error
            continue
        numbers = store.numbers()
        stale = tuple(number for number in numbers if number > manifest.checkpoint)
        older = tuple(manifests[place + 1 :])
        return Origin(store, manifest, record, older, max(numbers), stale)
    assert damage is not None
    raise damage


def check_python(manifest: Manifest) -> None:
    """Raise UsageError where functions in a checkpoint cannot be loaded by this Python."""
    here = platform.python_version()
    if manifest.python.split(".")[:2] != here.split(".")[:2]:
        raise UsageError(
            f"Python {manifest.python} wrote checkpoint {manifest.checkpoint}, and this is {here}: "
            "its functions cannot be loaded; use the version that wrote it"
        )


def what_differs(manifest: Manifest) -> list[str]:
    """Return what of a checkpoint does not fit this process, a sentence each."""
    return differences(manifest, digests_here(manifest.code))


def stand_up(session: BaseSession, origin: Origin, engines: Sequence[str], workers: int) -> Origin:
    """Bring a checkpoint's shards to engines, and let the session's ranks stand up from it.

    Returns
    -------
    Origin
        The checkpoint that was whole.
    """
    driver, keeper = session._driver, session._driver.keeper
    assert keeper is not None
    while True:
        for text in what_differs(origin.manifest):
            _warn(f"checkpoint {origin.manifest.checkpoint}: {text}")
        routes = spread(origin.size, engines[:workers])
        number = origin.manifest.checkpoint
        done: Future[None] = Future()
        driver.run_soon(partial(keeper.fetch, origin.manifest, routes, done))
        try:
            session._result(done, f"reading checkpoint {number}")
            break
        except CorruptSnapshot as error:
            session.events.add("damaged", checkpoint=number, error=str(error))
            origin = origin.before(error)
    keeper.goes_on_from(origin.manifest, origin.stale)
    image = origin.record.image
    held = frozenset(variable for variable, _ in origin.record.names.values())
    session.adopt(origin.record)
    event = ev.StartFrom(tuple(engines), image, routes, held, origin.newest)

    def start() -> None:
        keeper.names.update(origin.record.names)
        for blob in origin.record.blobs:
            driver.telling.blobs.add(blob)
        data = {"checkpoint": number, "epoch": image.epoch, "ranks": origin.size}
        session.events.add("restoring", **data)
        driver.handle(event)

    driver.run_soon(start)
    return origin


def explain_loss(session: BaseSession, origin: Origin, error: LossError) -> UsageError | LossError:
    """Say why the ranks did not stand, where it was not a loss."""
    failed = session.events.of_kind("restore-failed")
    if not failed:
        return error
    data = failed[0].data
    fits = "".join(f"\n- {text}" for text in what_differs(origin.manifest))
    return UsageError(
        f"checkpoint {origin.manifest.checkpoint} does not fit this session: rank {data['rank']} "
        f"cannot be loaded ({data['error']})" + (f"; what is other here:{fits}" if fits else "")
    )


def list_place(place: Place) -> Table:
    """Return what a store has, as a table; nothing is read but manifests."""
    store = open_place(place, there=True)
    rows = []
    for manifest in store.manifests():
        info: Any = manifest.info
        at = info.get("at")
        when = "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
        names, jobs = tuple(info.get("variables", ())), tuple(info.get("jobs", ()))
        size = human_bytes(manifest.nbytes)
        ranks = info.get("ranks", len(manifest.shards))
        rows.append((manifest.checkpoint, when, info.get("session"), ranks, size, names, jobs))
    columns = ("checkpoint", "written", "session", "ranks", "size", "variables", "running")
    return Table(f"checkpoints on {place}", columns, rows)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _warn(text: str) -> None:
    warnings.warn(StoreWarning(text), stacklevel=2)
