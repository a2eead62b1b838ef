"""What continuations print, line by line, without an engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from feliss_nb.runtime.output import MOST_LINES, Printer


@pytest.fixture
def printer() -> Iterator[Printer]:
    engine: Any = SimpleNamespace(runners={}, lock=threading.RLock())
    printer = Printer(engine)
    yield printer
    printer.close()


def test_a_line_that_comes_in_many_pieces_is_one_line(printer: Printer) -> None:
    """So many that joining them at each one would be seen by who waits."""
    for _ in range(200_000):
        printer.write(0, 1, "stdout", ".")
    printer.write(0, 1, "stdout", "end\nnext")
    printer.write(0, 1, "stderr", "other")
    assert printer.take(lambda rank, job: False) == [(0, 1, "stdout", "." * 200_000 + "end")]
    assert printer.take(lambda rank, job: True) == [
        (0, 1, "stdout", "next"),
        (0, 1, "stderr", "other"),
    ]


def test_a_flood_is_cut_and_says_so(printer: Printer) -> None:
    printer.write(2, 1, "stdout", "x\n" * (MOST_LINES + 7))
    lines = printer.take(lambda rank, job: False)
    assert lines[:-1] == [(2, 1, "stdout", "x")] * MOST_LINES
    assert lines[-1] == (2, 1, "stdout", "... 7 more lines not shown")
