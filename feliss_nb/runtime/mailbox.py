"""The messages of gangs for one rank: kept until its steps receive them, whatever carries them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from feliss_nb.runtime.mpi_link import LONGEST_NAP, NAP, SPIN, Mail, MpiLink

if TYPE_CHECKING:
    from feliss_nb.runtime.runner import Runner

# A message of a gang: its source, and the head and the buffers that the sender gave.
Letter = tuple[int, tuple[Any, ...], Sequence[Any]]


class Mailbox:
    """The mail of one rank in one epoch; its thread takes, the engine's threads post.

    Parameters
    ----------
    runner : Runner
        Of the rank.

    Attributes
    ----------
    waits : bool
        Whether the rank's thread is in user code, between messages: it looks itself whether it is
        to stop.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.waits = False
        self._mail: dict[tuple[int, int], deque[Letter]] = {}  # by step of a gang; some come early
        self._gangs: set[int] = set()  # that have run or got mail here
        self._over: set[int] = set()  # gangs that have ended: what still comes for them is dropped

    def expect(self, gang: int) -> None:
        """Take note of a gang that runs here."""
        self._gangs.add(gang)

    def forget(self, gang: int) -> None:
        """Drop what is there of a gang that has ended, and what will still come. The lock is held.

        A job that was no gang has nothing here.
        """
        if gang in self._gangs:
            self._gangs.discard(gang)
            self._over.add(gang)
            for step in [step for step in self._mail if step[0] == gang]:
                del self._mail[step]

    def post(self, gang: int, step: int, letter: Letter) -> None:
        """Keep a message until the step receives it. The lock is held."""
        if gang not in self._over:
            self._gangs.add(gang)
            self._mail.setdefault((gang, step), deque()).append(letter)
            if self.waits:
                self._runner.bell.ring()

    def take(self, step: tuple[int, int], patience: float) -> list[Letter]:
        """Return the messages of a step that have come; wait `patience` seconds for the first.

        Raises
        ------
        StopContinuation
            If the rank's epoch or the job is over.
        """
        deadline = perf_counter() + patience
        while True:
            with self._runner.engine.lock:
                self._end_wait()
                self._runner.check_stop()
                left = deadline - perf_counter()
                if step in self._mail or left <= 0:
                    return list(self._mail.pop(step, ()))
                self._begin_wait()
            self._runner.bell.wait(left)

    def _begin_wait(self) -> None:
        if not self.waits:
            self.waits = True
            self._runner.slot.pause()

    def _end_wait(self) -> None:
        if self.waits:
            self.waits = False
            self._runner.slot.go_on()

    def link(self) -> MpiLink | None:
        """Return what carries the epoch's messages of gangs, once that is decided; None: the peers.

        Raises
        ------
        StopContinuation
            If the rank's epoch or the job is over.
        """
        while True:
            with self._runner.engine.lock:
                self._end_wait()
                self._runner.check_stop()
                if not self._runner.engine.link_is_open:
                    return self._runner.engine.link
                self._begin_wait()
            self._runner.bell.wait()

    def send_by(
        self,
        link: MpiLink,
        destination: int,
        step: tuple[int, int],
        head: tuple[Any, ...],
        buffers: Sequence[Any],
    ) -> None:
        """Send a message of a step, all of it: a request to stop is heard before or behind.

        Raises
        ------
        StopContinuation
            If the rank's epoch or the job is over.
        """
        with self._runner.engine.lock:
            self._runner.check_stop()
            self._begin_wait()
        try:
            link.send(destination, *step, head, buffers)
        finally:
            with self._runner.engine.lock:
                self._end_wait()
                self._runner.check_stop()

    def take_from(
        self,
        link: MpiLink,
        step: tuple[int, int],
        patience: float | None,
        ready: Callable[[], bool] | None = None,
    ) -> list[Letter]:
        """Return the messages of a step that have come by MPI: see `take`.

        With `ready`, return when that gives true as well; without `patience`, only then.

        Raises
        ------
        StopContinuation
            If the rank's epoch or the job is over.
        """
        begun = perf_counter()
        found: list[Mail] = []
        looked = False
        while True:
            with self._runner.engine.lock:
                self._end_wait()
                for gang, number, source, head, buffers in found:
                    self.post(gang, number, (source, head, buffers))
                self._runner.check_stop()
                waited = perf_counter() - begun
                is_late = patience is not None and waited >= patience
                if step in self._mail or (looked and is_late):
                    return list(self._mail.pop(step, ()))
                self._begin_wait()
            if ready is not None and ready():
                patience = 0.0
            elif looked:
                self._rest(waited)
            found, looked = link.take(), True

    def _rest(self, waited: float) -> None:
        if waited < SPIN:
            os.sched_yield()
        else:
            self._runner.bell.wait(min(waited * NAP, LONGEST_NAP))
