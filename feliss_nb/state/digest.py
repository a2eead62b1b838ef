"""Digests: of bytes, fast; of values, canonical."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import xxhash

from feliss_nb.state.canonical import canonical_digest

__all__ = ["DIGEST_SIZE", "canonical_digest", "digest"]

#: Bytes in every digest of this package (xxh3, 128 bits).
DIGEST_SIZE = 16


def digest(data: Any, buffers: Iterable[Any] = ()) -> bytes:
    """The xxh3-128 of a stream and its buffers.

    Their lengths count too, so that moving a byte from one buffer to the next shows.

    Parameters
    ----------
    data : bytes-like
    buffers : iterable of bytes-like
        Contiguous.

    Returns
    -------
    bytes
        16 bytes. Not cryptographic: it tells damage, not malice.
    """
    state = xxhash.xxh3_128()
    for part in (data, *buffers):
        view = memoryview(part)
        state.update(view.nbytes.to_bytes(8, "little"))
        if view.nbytes:
            state.update(view)
    return state.digest()
