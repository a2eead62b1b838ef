"""Thresholds so low that small arrays on few ranks reach every algorithm of the collectives."""

from __future__ import annotations

import pytest

from feliss_nb.models.mpi import moving, reducing


@pytest.fixture(autouse=True)
def every_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "STRETCH", 200_000)
    monkeypatch.setattr(moving, "LONG_BROADCAST", 300_000)
    monkeypatch.setattr(moving, "FEW_RANKS", 4)
    monkeypatch.setattr(moving, "SHORT_ALLGATHER", 64 * 1024)
    monkeypatch.setattr(reducing, "LONG_REDUCTION", 64 * 1024)
