"""Where snapshots are kept: memory, a local disk, any file system of fsspec; they compose.

A store holds *shards* (one rank's frames at one checkpoint) and *manifests*. A checkpoint is there
when its manifest is, and the manifest is written last. So whatever fails in between, the checkpoint
before is as it was.
"""

from __future__ import annotations

import os
from typing import Any

from feliss_nb.store.base import Store, verify
from feliss_nb.store.files import FileStore
from feliss_nb.store.fsspecs import FsspecStore
from feliss_nb.store.manifest import Manifest, Record, differences
from feliss_nb.store.memory import MemoryStore, MemoryTier
from feliss_nb.store.slow import SlowStore
from feliss_nb.store.tiered import TieredStore

__all__ = [
    "FileStore",
    "FsspecStore",
    "Manifest",
    "MemoryStore",
    "MemoryTier",
    "Record",
    "SlowStore",
    "Store",
    "TieredStore",
    "differences",
    "open_store",
    "verify",
]


def open_store(place: str | os.PathLike[str], **options: Any) -> FileStore | FsspecStore:
    """The store at a directory or at a URL.

    Parameters
    ----------
    place : str or path
        A directory, ``file://`` and a directory, or a URL that fsspec knows (``s3://``, ...).
    **options
        For fsspec's file system.
    """
    text = os.fspath(place)
    if "://" not in text:
        return FileStore(text)
    if text.startswith("file://"):
        return FileStore(text.removeprefix("file://"))
    return FsspecStore(text, **options)
