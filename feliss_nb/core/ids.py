"""Identities that depend on origin alone, so that a replay draws the same ones."""

from __future__ import annotations

from hashlib import blake2b

NOTEBOOK = -1
"""The source of what the notebook submits; it is no rank and stands outside the cut."""


def submission_id(job: int, ordinal: int) -> bytes:
    """Return the id of a job's `ordinal`-th start; a job's number is its place in the log."""
    return blake2b(b"%d/%d" % (job, ordinal), digest_size=16, person=b"submission").digest()


def child_id(parent: bytes, ordinal: int) -> bytes:
    """Return the id of the `ordinal`-th put of the continuation `parent`."""
    return blake2b(parent + b"%d" % ordinal, digest_size=16).digest()


def record_id(job: int, rank: int, index: int) -> bytes:
    """Return the identity of the `index`-th record of a job on a rank.

    How the work was cut into continuations does not show in it.
    """
    return blake2b(b"%d/%d/%d" % (job, rank, index), digest_size=16, person=b"record").digest()
