"""Random sessions in the simulator, each drawn from its seed: a program, a world, and faults.

A session is played twice: once undisturbed, and once under a random fault plan, and with losses,
suspects, failing captures, joining engines and requests for checkpoints at random moments. Both
must show the notebook the same, or the second must end because a rank and all its copies were lost.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from feliss_nb.core import events as ev
from feliss_nb.errors import LossError
from feliss_nb.faults import KINDS as FAULT_KINDS
from feliss_nb.faults import FaultPlan
from feliss_nb.lab.simulated_faults import SKIPPED
from feliss_nb.lab.simulator import Simulation
from feliss_nb.lab.simulator_checks import check_rest

#: More than any of the programs below needs, however often it is set back.
MOST = 60_000

#: What happens besides the plan.
FAULTS = tuple(
    "host host host any two suspect join capture keep send checkpoint checkpoint "
    "master master".split()
)
#: Kinds of faults of random plans.
KINDS = ("kill", "kill", "kill", *(kind for kind in FAULT_KINDS if kind not in SKIPPED))


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a session.

    Attributes
    ----------
    events : int
        How many things happened in the disturbed run.
    faults : Counter of str
        How many of each kind were injected; those of the plan are named ``plan: KIND``.
    equal : bool
        Whether the notebook saw what it sees undisturbed.
    lost : bool
        Whether it ended, with an error, because more was lost than its copies tolerate.
    """

    events: int
    faults: Counter[str]
    equal: bool
    lost: bool


def random_program(rng: random.Random, most: int = 6) -> list[tuple[Any, ...]]:
    """Draw one to `most` calls of `simulated_programs.Notebook`, every third or so a gang."""
    few = rng.randrange
    calls = {
        "gang": lambda: ("gang", few(4), few(7), few(4)),
        "gang_waits": lambda: ("gang_waits", few(4), few(4), few(4)),
        "cancel_gang": lambda: ("cancel_gang", few(4), few(2)),
        "walk": lambda: ("walk", few(4), few(10), few(7)),
        "tree": lambda: ("tree", few(4), few(4), 1 + few(4)),
        "ring": lambda: ("ring", few(4), few(4), few(13)),
        "shuffle": lambda: ("shuffle", few(4), few(5)),
        "fill_and_read": lambda: ("fill_and_read", few(4), few(4)),
        "keep_and_follow": lambda: ("keep_and_follow", few(4), few(6)),
        "loop": lambda: ("loop", few(4), few(3)),
        "fail": lambda: ("fail", few(4)),
        "cancel": lambda: ("cancel", few(2)),
        "checkpoint": lambda: ("checkpoint",),
    }
    names = ["gang", "gang", "gang_waits", *calls]
    return [calls[rng.choice(names)]() for _ in range(1 + few(most))]


def random_world(rng: random.Random) -> dict[str, Any]:
    """Draw the parameters of a `Simulation`, but for its seed."""
    return {
        "workers": rng.randint(1, 4),
        "spares": rng.randint(0, 2),
        "copies": rng.choice([1, 1, 1, 2, 0]),
        "replace": rng.random() < 0.5,
        "replacements": rng.randint(0, 4),
        "delay": rng.choice([0.2, 1.0, 5.0]),
        "detection": rng.choice([0.1, 3.0, 20.0]),
        "checkpoint_every": rng.choice([None, 3.0, 10.0, 30.0]),
    }


def random_plan(rng: random.Random) -> FaultPlan:
    """Draw none to three faults."""
    count = rng.choice([0, 1, 1, 2, 3])
    return FaultPlan.random(rng.getrandbits(32), count, 4.0, KINDS, longest=8.0)


def inject(sim: Simulation, kind: str, which: int) -> None:
    """Let a fault happen.

    Parameters
    ----------
    sim : Simulation
        Where.
    kind : str
        ``host`` kills the engine of a rank, ``any`` any engine, ``two`` both at once; ``suspect``
        lets an engine miss its beats, ``join`` lets a new one join, ``capture`` and ``keep`` let
        the next one fail, ``send`` lets the next who is to send a snapshot have lost it,
        ``checkpoint`` asks for a checkpoint; ``master`` lets another master take the place of this
        one, now or in the middle of what its next event leads to.
    which : int
        Which rank or engine, modulo their number.
    """
    living = sim.living()
    if kind in ("host", "two") and sim.master.routes:
        sim.kill(sim.host(which % sim.size))
    if kind in ("any", "two") and living:
        sim.kill(living[which % len(living)])
    elif kind == "suspect" and living:
        sim.suspect(living[which % len(living)])
    elif kind == "join":
        sim.join()
    elif kind in ("capture", "keep", "send"):
        sim.fail_next(kind)
    elif kind == "checkpoint":
        sim.ask(ev.TakeCheckpoint)
    elif kind == "master":
        sim.replace_master(which // 2 if which % 2 else None)


def undisturbed(workers: int, program: list[Any]) -> list[Any]:
    """Give what the notebook sees when nothing happens."""
    sim = Simulation(0, workers=workers, spares=0, check_every=0)
    sim.submit(program)
    return sim.run(MOST)


def play(seed: int, check_every: int = 10, most: int = 6) -> Played:
    """Play the session of a seed.

    Parameters
    ----------
    seed : int
        Of the program, the world, and the faults.
    check_every : int
        Check every invariant after this many events.
    most : int
        The most calls of a program.

    Returns
    -------
    Played
        What came of it.

    Raises
    ------
    Hang
        When the notebook would wait for ever.
    InternalError
        When an invariant does not hold.
    """
    rng = random.Random(seed)
    program, world = random_program(rng, most), random_world(rng)
    sim = Simulation(seed, **world, check_every=check_every, record=True)
    sim.submit(program)
    faults: Counter[str] = Counter()
    injection = sim.inject(random_plan(rng))
    for _ in range(rng.choice([0, 0, rng.randint(1, 6)])):
        until = sim.events + rng.randint(0, 150)
        sim.run_until(lambda until=until: sim.events >= until, MOST)  # type: ignore[misc]
        kind = rng.choice(FAULTS)
        inject(sim, kind, rng.randrange(8))
        faults[kind] += 1
    lost, seen = False, None
    try:
        seen = sim.run(MOST)
    except LossError:
        lost = True
    faults.update(f"plan: {fault.kind}" for fault in injection.fired)
    sim.settle(MOST)
    check_rest(sim)
    if lost:
        return Played(sim.events, faults, equal=False, lost=True)
    return Played(sim.events, faults, seen == undisturbed(world["workers"], program), lost=False)
