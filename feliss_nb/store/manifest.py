"""What makes shards a checkpoint: which they are, their digests, and what wrote them."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any

import xxhash

from feliss_nb.errors import CorruptSnapshot, UsageError

#: Counts the changes after which older programs cannot read what newer ones write.
FORMAT = 2
#: The libraries whose objects, or whose pickles, a snapshot may hold.
LIBRARIES = ("feliss_nb", "cloudpickle", "numpy")
_HEX = 32


@dataclass(frozen=True, slots=True)
class Record:
    """One shard.

    Attributes
    ----------
    rank : int
    nbytes : int
        Of the shard, its frames' sizes included.
    digest : str
        xxh3-128 of all its bytes, in hexadecimal: it tells accidents, not malice.
    bases : tuple of int
        Where it holds only what has changed: the checkpoints whose shards of the same rank come
        before it, a whole one first.
    """

    rank: int
    nbytes: int
    digest: str
    bases: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A committed checkpoint.

    Attributes
    ----------
    checkpoint : int
    shards : tuple of Record
        One for each rank, by rank.
    python : str
        The version of Python that wrote it.
    libraries : dict of str to str
        Versions of libraries whose objects may be in it.
    code : dict of str to str
        Digests of the user's modules that it imports, by name.
    info : dict
        What else the master wants to find again; JSON.
    format : int
    """

    checkpoint: int
    shards: tuple[Record, ...]
    python: str
    libraries: Mapping[str, str]
    code: Mapping[str, str] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def nbytes(self) -> int:
        """Bytes of all shards."""
        return sum(record.nbytes for record in self.shards)

    @property
    def bases(self) -> frozenset[int]:
        """The checkpoints without which this one cannot be read."""
        return frozenset(number for record in self.shards for number in record.bases)

    def shard(self, rank: int) -> Record:
        """Return the record of a rank.

        Raises
        ------
        UsageError
            The checkpoint has no such rank.
        """
        if not 0 <= rank < len(self.shards):
            raise UsageError(
                f"checkpoint {self.checkpoint} has ranks 0 to {len(self.shards) - 1}, not {rank}"
            )
        return self.shards[rank]

    def to_json(self) -> bytes:
        """Write it as JSON with sorted keys and its own digest."""
        fields = {
            "checkpoint": self.checkpoint,
            "shards": [[r.rank, r.nbytes, r.digest, list(r.bases)] for r in self.shards],
            "python": self.python,
            "libraries": dict(self.libraries),
            "code": dict(self.code),
            "info": dict(self.info),
            "format": self.format,
        }
        fields["digest"] = _digest(fields)
        return json.dumps(fields, sort_keys=True, indent=1).encode()


def make(
    checkpoint: int,
    records: Iterable[Record],
    libraries: Iterable[str] = (),
    code: Mapping[str, str] | None = None,
    info: Mapping[str, Any] | None = None,
) -> Manifest:
    """The manifest of shards that this process, or others with the same libraries, have put.

    Parameters
    ----------
    checkpoint : int
    records : iterable of Record
        One for each of the ranks 0, 1, ...; in any order.
    libraries : iterable of str
        Distributions, besides those of this package, whose versions matter.
    code : mapping of str to str, optional
        Digests of the user's modules, by name.
    info : mapping, optional
        Anything that JSON can hold.
    """
    shards = tuple(sorted(records, key=lambda record: record.rank))
    if [record.rank for record in shards] != list(range(len(shards))):
        raise UsageError(
            f"checkpoint {checkpoint} needs one shard for each rank from 0 on, "
            f"not for {[record.rank for record in shards]}"
        )
    versions = installed([*LIBRARIES, *libraries])
    return Manifest(
        checkpoint, shards, platform.python_version(), versions, dict(code or {}), dict(info or {})
    )


def from_json(raw: bytes, name: str) -> Manifest:
    """Read a manifest.

    Parameters
    ----------
    raw : bytes
    name : str
        What an error calls it.

    Raises
    ------
    CorruptSnapshot
        It is not what was written.
    UsageError
        A newer version of this package wrote it.
    """
    try:
        fields = json.loads(raw)
        mark = fields.pop("digest")
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError) as error:
        raise CorruptSnapshot(f"{name} is damaged: it cannot be read as a manifest") from error
    if mark != _digest(fields):
        raise CorruptSnapshot(f"{name} is damaged: it does not match its digest")
    if fields.get("format") != FORMAT:
        raise UsageError(
            f"{name} has format {fields.get('format')}, and this version of feliss_nb reads "
            f"format {FORMAT}: use the version that wrote it "
            f"({fields.get('libraries', {}).get('feliss_nb', 'unknown')})"
        )
    try:
        fields["shards"] = tuple(
            Record(int(rank), int(nbytes), str(mark), tuple(int(n) for n in bases))
            for rank, nbytes, mark, bases in fields["shards"]
        )
        manifest = Manifest(**fields)
    except (TypeError, ValueError, KeyError) as error:
        raise CorruptSnapshot(f"{name} is damaged: it lacks an entry") from error
    if any(r.rank != i or len(r.digest) != _HEX for i, r in enumerate(manifest.shards)):
        raise CorruptSnapshot(f"{name} is damaged: its shards are not one for each rank")
    return manifest


def installed(names: Iterable[str]) -> dict[str, str]:
    """Versions of the distributions among ``names`` that are installed."""
    found = {name: _version(name) for name in sorted(set(names))}
    return {name: version for name, version in found.items() if version is not None}


@cache  # what was imported stays, whatever is installed meanwhile
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def differences(manifest: Manifest, code: Mapping[str, str] | None = None) -> list[str]:
    """What of a checkpoint does not fit this process, a sentence each; empty when all fits.

    Parameters
    ----------
    manifest : Manifest
    code : mapping of str to str, optional
        Digests of the user's modules as they are here, by name. A module that is not in it cannot
        be found here.
    """
    found = []
    here = platform.python_version()
    if manifest.python.split(".")[:2] != here.split(".")[:2]:
        found.append(
            f"Python {manifest.python} wrote it and this is {here}: "
            "functions in it cannot be loaded; use the version that wrote it"
        )
    versions = installed(manifest.libraries)
    for name, version in sorted(manifest.libraries.items()):
        if name not in versions:
            found.append(f"{name} {version} was installed where it was written, and is not here")
        elif versions[name] != version:
            found.append(f"{name} {version} was used to write it, and here is {versions[name]}")
    for name, mark in sorted(manifest.code.items()):
        if code is None or name not in code:
            found.append(f"it uses your module {name!r}, which is not found here")
        elif code[name] != mark:
            found.append(f"your module {name!r} is not the one that it was written with")
    return found


def _digest(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode())
