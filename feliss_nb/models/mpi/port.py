"""What the communicator needs of whoever carries its messages, and how it reports a deadlock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Deliver", "Port", "Wait", "explain_deadlock"]

#: ``deliver(source, head, buffers)``.
Deliver = Callable[[int, tuple[Any, ...], Sequence[Any]], None]

#: What a rank waits for: the call, the communicator's name, the ranks of the gang any of which
#: could end the wait, and the tag (None for any, and for a collective).
Wait = tuple[str, str, tuple[int, ...], int | None]


class Port(Protocol):
    """The messages of one rank in one step of a gang, used by that rank's thread alone.

    A port over a real MPI may have an attribute ``native`` besides: see ``faster``.

    It keeps these promises:

    - Messages from one rank to another arrive once each, in the order of their sends; none is
      lost while the epoch lasts.
    - ``send`` does not block and does not call ``deliver``. When it returns, the buffers belong to
      the caller again: the port has copied them.
    - ``deliver`` is called on the rank's own thread, from within ``wait`` and ``poll`` and from
      nowhere else. It may call ``send``. It does not raise.
    - The buffers that are delivered belong to the receiver: nobody else writes to them, and they
      stay as long as they are referred to. Where they are writable and aligned to 64 bytes, arrays
      are used where they lie; otherwise they are copied.
    - ``wait`` calls ``arrived`` at its start and after each delivery (or each batch of them), and
      returns when it gives true. ``arrived`` may send, and may raise: the error leaves ``wait``.
    - What ``freeze`` gave is nobody's to write to: it is sent again and again without a copy, and
      its receivers get memory that is read-only.
    - The rank itself is no destination: the communicator keeps such messages.

    Attributes
    ----------
    rank, size : int
        The rank in the gang, and how many there are.
    deliver : callable
        Set by the communicator before it sends or waits.
    """

    rank: int
    size: int
    deliver: Deliver

    def send(
        self,
        destination: int,
        head: tuple[Any, ...],
        buffers: Sequence[Any],
        frozen: bool = False,
    ) -> None:
        """Send a message: a picklable tuple of plain values, and flat contiguous buffers.

        With ``frozen`` all of the buffers are from ``freeze``.
        """

    def freeze(self, buffers: Sequence[Any]) -> Sequence[Any]:
        """Copy buffers, to send them to several ranks."""

    def shares_memory(self, ranks: Sequence[int]) -> bool:
        """Whether these ranks read large frozen buffers where they lie: each more costs little."""

    def wait(self, arrived: Callable[[], bool], what: Callable[[], list[Wait]]) -> None:
        """Deliver messages until ``arrived()``; ``what()`` tells what the rank waits for."""

    def poll(self) -> None:
        """Deliver what has arrived, without waiting."""

    def clock(self) -> float:
        """Give seconds since some moment, the same for all calls on this rank."""


def explain_deadlock(waits: Mapping[int, Sequence[Wait]]) -> str:
    """Say who waits for whom.

    Parameters
    ----------
    waits : mapping of int to sequence of Wait
        For each rank of the gang that waits, what its ``wait`` was given. A rank that is not named
        has ended its step.

    Returns
    -------
    str
        One line a rank, and the cycle where there is one.
    """
    lines = ["deadlock: no message is under way, and every rank waits or has ended"]
    for rank in sorted(waits):
        lines += [f"  rank {rank} waits in {_phrase(rank, wait, waits)}" for wait in waits[rank]]
        if not waits[rank]:
            lines.append(f"  rank {rank} waits")
    cycle = _cycle({rank: _targets(rank, wanted) for rank, wanted in waits.items()})
    if cycle:
        lines.append("  cycle: " + " -> ".join(f"rank {rank}" for rank in [*cycle, cycle[0]]))
    return "\n".join(lines)


def _targets(rank: int, wanted: Sequence[Wait]) -> list[int]:
    return sorted({source for wait in wanted for source in wait[2]})


def _phrase(rank: int, wait: Wait, waits: Mapping[int, Sequence[Wait]]) -> str:
    call, communicator, sources, tag = wait
    names = []
    for source in sources:
        ended = "" if source in waits else ", which has ended its step"
        names.append(f"rank {source}{ended}" if source != rank else "itself")
    if len(names) > 4 and all(source in waits for source in sources):
        whom = f"any of {len(names)} ranks"
    else:
        whom = " or ".join(names) or "nobody: no other rank could send it"
    tagged = "" if tag is None else f", tag {tag}"
    return f"{call} on {communicator}{tagged}, for {whom}"


def _cycle(edges: Mapping[int, Sequence[int]]) -> list[int]:
    """Find a cycle, from its smallest rank; empty if there is none."""
    settled: set[int] = set()
    for start in sorted(edges):
        trail: list[int] = []
        at: dict[int, int] = {}
        stack = [(start, 0)]
        while stack:
            rank, depth = stack.pop()
            for gone in trail[depth:]:
                del at[gone]
                settled.add(gone)
            del trail[depth:]
            if rank in at:
                found = trail[at[rank] :]
                first = found.index(min(found))
                return found[first:] + found[:first]
            if rank in settled or rank not in edges:
                continue
            at[rank] = depth
            trail.append(rank)
            stack += [(target, depth + 1) for target in reversed(edges[rank])]
    return []
