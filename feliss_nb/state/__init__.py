"""A rank's state to bytes and back: pickling, functions, snapshots, digests. No network."""

from __future__ import annotations

from feliss_nb.state.codec import Packed, fresh, pack, unpack
from feliss_nb.state.digest import canonical_digest, digest
from feliss_nb.state.functions import FunctionBlob, Namespace, pack_function, refresh_modules
from feliss_nb.state.handle import Handle, Target
from feliss_nb.state.snapshot import Snapshot, capture, frames, from_frames, restore

__all__ = [
    "FunctionBlob",
    "Handle",
    "Namespace",
    "Packed",
    "Snapshot",
    "Target",
    "canonical_digest",
    "capture",
    "digest",
    "frames",
    "fresh",
    "from_frames",
    "pack",
    "pack_function",
    "refresh_modules",
    "restore",
    "unpack",
]
