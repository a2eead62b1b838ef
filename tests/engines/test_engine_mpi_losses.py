"""The classic programs with losses among them, on engines of both kinds."""

from __future__ import annotations

import random
import threading

import pytest
from test_engine_mpi_programs import OURS, PROGRAMS, THEIRS, main

import feliss_nb as feliss

PATIENCE = 60.0


@pytest.mark.slow
@pytest.mark.parametrize("engines", ["local", "mpi"])
def test_every_program_gives_its_output_though_ranks_are_lost(engines: str) -> None:
    """All of them wait for their turn; meanwhile, at random moments, three ranks are killed.

    The first two losses take spares of the start, so with MPI it carries behind them too.
    """
    if engines == "mpi":
        pytest.importorskip("mpi4py", reason="MPI engines need mpi4py")
    rng = random.Random(engines)
    begun = {"workers": 4, "spares": 2, "checkpoint_every": None, "engines": engines}
    with feliss.start(**begun) as session:  # type: ignore[arg-type]
        calm = dict(lines_of(session))
        jobs = [*lines_of(session), *lines_of(session), *lines_of(session)]
        for loss in range(3):
            threading.Event().wait(rng.random() * 0.2)  # the moment is what is random
            running = any(out.job.state == "running" for _, out in jobs)
            session.kill(rng.randrange(4), wait=True)
            assert running or loss
        assert session.epoch == 3
        for name, out in jobs:
            assert out.partitions() == calm[name].partitions(), name


def lines_of(session: feliss.Session) -> list[tuple[str, feliss.Variable]]:
    """Submit every program; its values are the lines of each rank."""
    found = []
    for path in PROGRAMS:
        source = path.read_text("utf-8").replace(THEIRS, OURS)
        found.append((path.stem, session.spmd(main, source, path.name)))
    return found
