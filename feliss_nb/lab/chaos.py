"""Random programs on real engines under random fault plans: what came of each.

A run is drawn from its seed: the program with its sizes, the plan, how ranks are captured, and how
often. Runs share a session while it lives; it is drawn as well (copies, a store or none). A result
is compared with that of the same program in a session where nothing happens.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import feliss_nb as feliss
from feliss_nb.errors import LossError
from feliss_nb.faults import PHASES
from feliss_nb.lab.chaos_programs import PROGRAMS
from feliss_nb.state.canonical import canonical_digest

WORKERS, SPARES = 3, 1
#: Different sizes that a program is run with: each is run once undisturbed.
VARIANTS = 3
#: Runs after which another session is drawn.
RUNS_OF_A_SESSION = 10
#: Seconds: a run that takes longer hangs. The longest takes a few.
PATIENCE = 120.0
#: Seconds for a session to have its engines and copies again before the next run.
RECOVERY = 30.0

KINDS = (
    *("kill",) * 6,
    *("kill-with-nanny",) * 2,
    *("stop", "hang", "slow", "delay", "exhaust-memory"),
    *("flip-bit", "lose-shard", "fill-disk", "drop", "cut"),
)
CAPTURES = (
    "full",
    "full",
    "forked",
    "incremental",
    "incremental+xor",
    "incremental+forked+zstd",
)
#: Seconds: a run goes on with its program until its plan is carried out, or for this long.
LASTS = 4.0
#: Phases that only MapReduce has.
OF_MAPS = ("mapping", "shuffling", "reducing")
#: Phases that only another fault brings.
AFTERWARDS = ("detecting", "loading")
#: Faults that end an engine, or can: more than one at a time may be more than copies tolerate.
DEADLY = frozenset(
    ("kill", "kill-with-nanny", "exhaust-memory", "flip-bit", "lose-shard", "drop", "cut")
)
#: Faults that cost an engine when they are noticed; a run goes on so long for that.
FENCED, NOTICED = ("drop", "cut"), 20.0

_MARK = "FELISS_NB_CHAOS"


@dataclass(frozen=True, slots=True)
class Drawn:
    """One run: everything about it follows from its seed."""

    seed: int
    program: str
    variant: int
    plan: feliss.FaultPlan
    capture: str
    checkpoint_every: float | None

    @classmethod
    def draw(cls, seed: int) -> Drawn:
        """Draw a run."""
        rng = random.Random(seed)
        every = rng.choice([0.2, 0.5, 1.0, None])
        program = rng.choice(sorted(PROGRAMS))
        count = rng.choice([1, 1, 2, 3])
        never = {*(() if program == "words" else OF_MAPS), *(AFTERWARDS if count == 1 else ())}
        phases = [phase for phase in PHASES if phase not in never]
        plan = feliss.FaultPlan.random(seed, count, 2.0, KINDS, phases)
        return cls(seed, program, rng.randrange(VARIANTS), plan, rng.choice(CAPTURES), every)

    def run(self, session: feliss.Session) -> bytes:
        """Run the program; return the digest of what it gave."""
        rng = random.Random(f"{self.program}/{self.variant}")
        return canonical_digest(PROGRAMS[self.program](session, rng))

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.program} {self.variant}, {self.capture}, {self.plan}"


@dataclass
class Outcome:
    """What came of some runs.

    Attributes
    ----------
    runs, equal, lost : int
        All; with the undisturbed result; ended because more was lost than copies tolerate.
    survived : Counter
        Faults of the runs that gave the undisturbed result, by kind.
    wrong, hangs : list of str
        Runs with another result or an error that they should not have; runs that did not end.
    leftovers : list of str
        Processes, files and shared memory that were there when the sessions had stopped.
    """

    runs: int = 0
    equal: int = 0
    lost: int = 0
    survived: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


class Chaos:
    """Plays runs, and keeps a session for them.

    Parameters
    ----------
    folder : Path
        A private directory, in which sessions put all their files.
    say : callable
        Gets a line for each run.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.outcome = Outcome()
        self._folder, self._say = folder, say
        self._session: feliss.Session | None = None
        self._left = self._copies = 0  # runs of the session, and its copies
        self._want: dict[tuple[str, int], bytes] = {}

    # ------------------------------------------------------------ the undisturbed runs

    def undisturbed(self, runs: list[Drawn]) -> None:
        """Find what the programs of these runs give when nothing happens."""
        with feliss.start(workers=WORKERS, checkpoint_every=None) as session:
            for run in runs:
                key = run.program, run.variant
                if key not in self._want:
                    self._want[key] = run.run(session)

    # ------------------------------------------------------------ one run

    def play(self, run: Drawn) -> None:
        """Play a run, and note what came of it."""
        outcome = self.outcome
        session = self._ready(run.seed)
        session.capture = run.capture
        session.checkpoint_every(run.checkpoint_every)
        found: list[Any] = []
        want = self._want[run.program, run.variant]

        begun = time.monotonic()
        injection = session.inject(run.plan)
        assert injection is not None

        def within(seconds: float) -> bool:
            return time.monotonic() < begun + seconds

        def program() -> None:
            try:
                result = run.run(session)
                while result == want and not injection.is_over and within(LASTS):
                    result = run.run(session)
                while result == want and _to_fence(session, injection) and within(NOTICED):
                    result = run.run(session)
                found.append(result)
            except BaseException as error:  # noqa: BLE001 - it is told
                found.append(error)

        thread = threading.Thread(target=program, name="chaos-program", daemon=True)
        thread.start()
        thread.join(PATIENCE)
        took = time.monotonic() - begun
        outcome.runs += 1
        fired = [event.data["fault"] for event in injection.fired]
        text = f"{run} [{', '.join(fired)}]"
        if not found:
            outcome.hangs.append(text)
            self._say(f"HANG  {text}\n{_stacks()}\n{_last(session)}")
            self.end()
            return
        [result] = found
        deadly = sum(kind in DEADLY for kind in fired)
        if _to_fence(session, injection):
            self._left = 0  # what is cut off stays so
        if isinstance(result, LossError) and deadly > self._copies:
            outcome.lost += 1
            self._say(f"lost  {took:5.1f} s  {text}")
            self.end()
        elif isinstance(result, BaseException):
            outcome.wrong.append(f"{text}: {type(result).__name__}: {result}")
            told = "".join(traceback.format_exception(result))
            self._say(f"ERROR {took:5.1f} s  {text}\n{told}\n{_last(session)}")
            self.end()
        elif result != want:
            outcome.wrong.append(text)
            self._say(f"WRONG {took:5.1f} s  {text}\n{_last(session)}")
            self.end()
        else:
            outcome.equal += 1
            outcome.survived.update(fired)
            self._say(f"ok    {took:5.1f} s  {text}")

    def _ready(self, seed: int) -> feliss.Session:
        """Return a session with all its engines and copies."""
        if self._left == 0:
            self.end()
        session = self._session
        if session is not None and session.over:
            self.end()
            session = None
        if session is not None:
            session.inject(None)
            deadline = time.monotonic() + RECOVERY
            while not _is_whole(session):
                if time.monotonic() > deadline or session.over:
                    self._say(f"no whole session in {RECOVERY:g} s\n{_last(session)}")
                    self.end()
                    session = None
                    break
                time.sleep(0.02)
        if session is None:
            rng = random.Random(f"session {seed}")
            store = None
            if rng.random() < 0.5:
                store = self._folder / f"store-{seed}"
            self._copies = rng.choice([1, 1, 2])
            session = feliss.start(
                workers=WORKERS,
                spares=SPARES,
                copies=self._copies,
                store=store,
                checkpoint_every=None,
                timeout=PATIENCE,
            )
            self._session, self._left = session, RUNS_OF_A_SESSION
        self._left -= 1
        return session

    # ------------------------------------------------------------ the end

    def end(self) -> None:
        """Stop the session, and look what it leaves."""
        session, self._session, self._left = self._session, None, 0
        if session is None:
            return
        stopping = threading.Thread(target=session.stop, name="chaos-stop", daemon=True)
        stopping.start()
        stopping.join(PATIENCE)
        if stopping.is_alive():
            self.outcome.hangs.append(f"the end of {session!r}")
        for store in self._folder.glob("store-*"):
            shutil.rmtree(store)
        left = [*_processes(), *(str(path) for path in self._folder.iterdir()), *_shared()]
        self.outcome.leftovers += left
        for path in self._folder.iterdir():
            shutil.rmtree(path, ignore_errors=True)


def _is_whole(session: feliss.Session) -> bool:
    if session.state != "running":
        return False
    status = session.status()
    alive = [engine for engine in status.engines if engine.role != "dead"]
    # Ranks may share an engine, since two losses came close together: that is as good a start.
    return status.protected and len(alive) >= WORKERS + SPARES


def _to_fence(session: feliss.Session, injection: Any) -> set[str]:
    """Return the engines whose messages are lost, and that live."""
    fired = [event.data for event in injection.fired]
    harmed = {data["engine"] for data in fired if data["fault"] in FENCED}
    status = session.status()
    return harmed & {str(engine.engine) for engine in status.engines if engine.role != "dead"}


def _last(session: feliss.Session, lines: int = 60) -> str:
    return "\n".join(repr(event) for event in session.events[-lines:])


def _stacks() -> str:
    """Where the threads of this process are."""
    import sys

    names = {thread.ident: thread.name for thread in threading.enumerate()}
    told = []
    for number, frame in sys._current_frames().items():
        told.append(f"-- {names.get(number, number)}")
        told.append("".join(traceback.format_stack(frame)[-4:]))
    return "\n".join(told)


def _processes() -> list[str]:
    """Living processes that a session of this bench has started."""
    mark = f"{_MARK}={os.environ[_MARK]}".encode()
    deadline = time.monotonic() + 10.0
    while True:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if int(entry.name) != os.getpid() and mark in (entry / "environ").read_bytes():
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if command.strip() and "multiprocessing." not in command:
                        found.append(f"process {entry.name}: {command.strip()}")
            except OSError:  # it ended while we looked
                continue
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def _shared() -> list[str]:
    """Shared memory with a name of a session of this process."""
    folder = Path("/dev/shm")  # noqa: S108 - where it would be
    mine = f"-{os.getpid()}"
    return [str(path) for path in folder.glob("feliss-*") if path.name.endswith(mine)]


def play_all(runs: list[Drawn], say: Callable[[str], None]) -> Outcome:
    """Play runs in a directory and with a mark of their own; return what came of them."""
    folder = Path(tempfile.mkdtemp(prefix="feliss-chaos-"))
    before = tempfile.tempdir
    os.environ[_MARK] = uuid.uuid4().hex
    tempfile.tempdir = str(folder)
    chaos = Chaos(folder, say)
    try:
        chaos.undisturbed(runs)
        for run in runs:
            chaos.play(run)
    finally:
        chaos.end()
        tempfile.tempdir = before
        del os.environ[_MARK]
        shutil.rmtree(folder, ignore_errors=True)
    return chaos.outcome
