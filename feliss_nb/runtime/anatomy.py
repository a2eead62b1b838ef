"""What a checkpoint is made of: bytes of each part, and why each is there.

Each rank stands its snapshot up once more, beside the state that it works with, and writes the
parts of it one behind the other to nowhere. So the figures are those of the checkpoint, not of what
the rank has become since.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feliss_nb.errors import UsageError
from feliss_nb.runtime.failure import name_of
from feliss_nb.runtime.here import here
from feliss_nb.runtime.shard import split
from feliss_nb.runtime.table import Table, human_bytes, new_frame
from feliss_nb.runtime.wire import Parcel
from feliss_nb.state.codec import total, unpack
from feliss_nb.state.functions import Namespace
from feliss_nb.state.handle import Handle, Target
from feliss_nb.state.sizes import sizes
from feliss_nb.state.snapshot import from_frames, restore

if TYPE_CHECKING:
    import pandas

    from feliss_nb.runtime.session import BaseSession
    from feliss_nb.runtime.treemap import Picture

# Kind and name of a part: ("variable", 3), ("argument", "count[0]"), ("global", "model"), ...
Key = tuple[str, Any]


@dataclass(slots=True)
class Dissection:
    """One rank's share of an anatomy.

    Parameters
    ----------
    rank : int
    parts : dict
        Bytes by kind and name.
    carriers : dict of int to dict of str to int
        For each variable, how many continuations of which function carry its handle.
    shard : int
        Bytes of the rank's snapshot.
    pid : int
        Of the engine.
    dirty : int
        Bytes of memory that only the engine has and has written to: what a dump would save.
    kept : dict of int to int
        Bytes of the snapshots in the engine's memory, by rank.
    """

    rank: int
    parts: dict[Key, int]
    carriers: dict[int, dict[str, int]]
    shard: int
    # Measured where the rank happens to be: behind a loss another engine gives other figures.
    pid: int = field(compare=False)
    dirty: int = field(compare=False)
    kept: dict[int, int] = field(compare=False)


# ---------------------------------------------------------------- on a rank


def dissect(checkpoint: int, label: str) -> None:
    """Send the anatomy of this rank's snapshot to the notebook: a continuation."""
    at = here()
    at._runner.give(_dissect(at._runner, checkpoint), label)


def _dissect(runner: Any, checkpoint: int) -> Dissection | None:
    rank, engine = runner.rank.rank, runner.engine
    try:
        shard = engine.store.get((checkpoint, rank))
    except KeyError:
        return None  # a later one has been committed
    main, channel = split(shard)
    content: Any = restore(from_frames(main))
    messages: Any = restore(from_frames(channel))
    carriers: dict[int, dict[str, int]] = {}

    def parts() -> Iterator[tuple[Key, object]]:
        for variable, partition in content["partitions"].items():
            yield ("variable", variable), partition
        for (_, job, needs, _), work in zip(content["image"].pool, content["pool"], strict=True):
            yield from _work(job, needs, work)
        for _, message in messages:
            yield from _work(message.job, message.needs, message.work)
        for space in content["namespaces"].values():
            for name, value in space.content():
                yield ("global", name), value
        for call in content["parked"].values():
            yield ("waits for a reply", name_of(call.function)), call
        yield ("bookkeeping", ""), (content["image"], content["namespaces"])

    def _work(job: int, needs: Iterable[int], work: Any) -> Iterator[tuple[Key, object]]:
        function, args, reaches = _opened(engine, content["namespaces"], job, work)
        for variable in {*needs, *reaches}:
            functions = carriers.setdefault(variable, {})
            functions[function] = functions.get(function, 0) + 1
        for index, value in enumerate(args):
            yield ("argument", f"{function}()[{index}]"), value

    found: Any = sizes(parts())
    kept = {r: n for (number, r), n in engine.store.nbytes().items() if number == checkpoint}
    return Dissection(rank, found, carriers, total(shard), os.getpid(), _dirty(), kept)


def _opened(
    engine: Any, namespaces: Mapping[int, Namespace], job: int, work: Any
) -> tuple[str, Iterable[Any], Iterable[int]]:
    """Give a continuation's function by name, its arguments, and the variables that it reaches."""
    if type(work) is not Parcel:
        function, args = work
        return name_of(function), args, (a.variable for a in args if isinstance(a, Handle | Target))
    name = str(work.root[1] or "a function") if work.root is not None else "a function"
    space = namespaces.get(job) or Namespace()
    try:
        for digest in work.digests:
            if not space.has(digest):
                blob = engine.functions.get(digest)
                space.load(digest, blob.data, blob.buffers)
        value: Any = unpack(work.data, work.buffers, space)
        if work.root is None:
            function, value = value
            name = name_of(function)
        elif not isinstance(work.root[0], str):
            name = name_of(space.resolve(*work.root))
    except Exception:  # noqa: BLE001 - its function is gone: as bytes then
        value = ([work.data, *work.buffers],)
    return name, value, work.reaches


def _dirty() -> int:
    """Bytes of this process's memory that no other one shares and that a file does not hold."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    )
    return sum(int(fields[name].split()[0]) * 1024 for name in ("Private_Dirty", "Swap"))


# ---------------------------------------------------------------- in the notebook


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a checkpoint, over all ranks.

    Attributes
    ----------
    kind : str
        ``variable``, ``argument``, ``global``, ``waits for a reply`` or ``bookkeeping``.
    name : str
        Of a variable its name or number; ``f()[0]`` is the first argument of continuations of f.
    bytes : int
        What parts share counts for the first of them, variables before all others.
    ranks : dict of int to int
        Bytes on each rank.
    why : str
        What keeps it alive.
    """

    kind: str
    name: str
    bytes: int
    ranks: dict[int, int] = field(repr=False)
    why: str


@dataclass(frozen=True, repr=False)
class Anatomy:
    """What a checkpoint is made of.

    Attributes
    ----------
    checkpoint : int
        Its number.
    parts : tuple of Part
        The largest first.
    bytes : int
        The snapshots of all ranks.
    dump : int
        Memory of the engines that host ranks, as a dump of them would have saved it: what they have
        written to and share with no other process.
    copies : int
        In it, snapshots of this checkpoint, own ones and copies for others.
    """

    checkpoint: int
    parts: tuple[Part, ...]
    bytes: int
    dump: int
    copies: int

    @property
    def besides(self) -> int:
        """Bytes that a dump would save besides the state: the interpreter, libraries, dead memory.

        The snapshots that are kept in memory are not in it.
        """
        return max(self.dump - self.copies - self.bytes, 0)

    def frame(self) -> pandas.DataFrame:
        """Give a row for each part and rank: kind, name, rank, bytes, why.

        Raises
        ------
        UsageError
            If pandas is not installed.
        """
        rows = [
            (part.kind, part.name, rank, size, part.why)
            for part in self.parts
            for rank, size in sorted(part.ranks.items())
        ]
        return new_frame(rows, ["kind", "name", "rank", "bytes", "why"])

    def table(self) -> Table:
        """Give the parts as a table."""
        whole = max(sum(part.bytes for part in self.parts), 1)
        rows = [
            (p.kind, p.name, human_bytes(p.bytes), f"{100 * p.bytes / whole:.0f} %", p.why)
            for p in self.parts
        ]
        return Table(self._title(), ("part", "name", "size", "", "alive since"), rows)

    def _title(self) -> str:
        return (
            f"checkpoint {self.checkpoint}: {human_bytes(self.bytes)}; a dump of the engines: "
            f"{human_bytes(self.dump)}, of which {human_bytes(self.copies)} are snapshots and "
            f"{human_bytes(self.besides)} nothing that matters"
        )

    def plot(self) -> Picture:
        """Draw a treemap: the area of a part is its bytes; in grey what a dump adds.

        Raises
        ------
        UsageError
            If matplotlib or squarify is not installed.
        """
        from feliss_nb.runtime.treemap import treemap

        sizes = [(f"{part.kind} {part.name}".rstrip(), part.bytes) for part in self.parts]
        besides = [("snapshots in memory", self.copies), ("nothing that matters", self.besides)]
        return treemap(self._title(), sizes, besides)

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def anatomy_of(session: BaseSession, checkpoint: int | None) -> Anatomy:
    """Ask every rank of a session: see ``Session.anatomy``."""
    master = session._driver.master
    while True:
        number = checkpoint or master.committed.id or session.checkpoint().id
        label = f"anatomy of checkpoint {number}"
        starts = [(rank, dissect, (number, label)) for rank in range(session.size)]
        job = session.submit(starts, label=label, internal=True)
        session.wait_for_jobs((job.id,), None, label)
        if job.error is not None:
            raise job.error
        found = [session._open(job.results[rank].body) for rank in range(session.size)]
        if None not in found:
            break
        if checkpoint is not None:
            raise UsageError(
                f"checkpoint {checkpoint} is not in memory any more: a later one has been "
                "committed; session.anatomy() looks at the last"
            )
    names = {variable.variable: name for name, variable in session.variables.items()}
    return assemble(number, found, names, frozenset(master.held))


def assemble(
    checkpoint: int, found: list[Dissection], names: Mapping[int, str], held: Iterable[int]
) -> Anatomy:
    """Put the ranks' shares together.

    Parameters
    ----------
    checkpoint : int
    found : list of Dissection
        Of each rank.
    names : mapping of int to str
        What variables are called.
    held : iterable of int
        The variables that the notebook holds, by name or by handle.
    """
    ranks: dict[Key, dict[int, int]] = {}
    carriers: dict[int, dict[str, int]] = {}
    for each in found:
        for key, size in each.parts.items():
            ranks.setdefault(key, {})[each.rank] = size
        for variable, functions in each.carriers.items():
            into = carriers.setdefault(variable, {})
            for function, count in functions.items():
                into[function] = into.get(function, 0) + count
    parts = [
        Part(
            kind,
            str(names.get(name, name)) if kind == "variable" else str(name),
            sum(by_rank.values()),
            by_rank,
            _why(kind, name, names, set(held), carriers),
        )
        for (kind, name), by_rank in ranks.items()
    ]
    parts.sort(key=lambda part: -part.bytes)
    engines = {each.pid: each for each in found}
    return Anatomy(
        checkpoint,
        tuple(parts),
        sum(each.shard for each in found),
        sum(each.dirty for each in engines.values()),
        sum(sum(each.kept.values()) for each in engines.values()),
    )


_REASONS = {
    "argument": "a continuation in a pool",
    "global": "functions of jobs that run",
    "waits for a reply": "a call that is not answered yet",
    "bookkeeping": "functions' code, counts of messages",
}


def _why(
    kind: str,
    name: Any,
    names: Mapping[int, str],
    held: set[int],
    carriers: Mapping[int, Mapping[str, int]],
) -> str:
    if kind != "variable":
        return _REASONS[kind]
    reasons = []
    if name in names:
        reasons.append(f"its name {names[name]!r}")
    elif name in held:
        reasons.append("a handle in the notebook")
    for function, count in carriers.get(name, {}).items():
        times = f"{count} continuations" if count > 1 else "a continuation"
        reasons.append(f"{times} of {function}")
    return ", ".join(reasons) or "a handle in another part, or in a job since the checkpoint"
