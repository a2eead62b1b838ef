"""What a benchmark found, and on what machine: one object for a terminal and for a program.

The object is ``{"benchmark", "machine", "figures": [...]}``, a figure ``{"name", "value", "unit"}``
and where there is a target ``"target"`` and ``"ok"``. It holds nothing that tells whose machine it
was: no host name, no user, no path.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, SupportsFloat

from feliss_nb.errors import UsageError

#: The libraries whose version can move a figure.
LIBRARIES = ("feliss_nb", "numpy", "pyzmq", "ipyparallel", "ipykernel", "cloudpickle", "xxhash")

Bound = Literal["at most", "at least"]
_SIGN = {"at most": "<=", "at least": ">="}


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes
    ----------
    name : str
        What was measured.
    value : int or float
        Finite, in ``unit``.
    unit : str
        ``"ms"``, ``"MB"``, ``"1/s"``, ...; ``""`` for a ratio or a count.
    target : int or float or None
        What it should be, in ``unit``; None where nothing was promised.
    bound : str
        On which side of the target a good value lies; the target itself is good.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    bound: Bound = "at most"

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _number(self.name, self.value))
        if self.target is not None:
            object.__setattr__(self, "target", _number(f"target of {self.name}", self.target))

    @property
    def ok(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        if self.bound == "at most":
            return self.value <= self.target
        return self.value >= self.target

    def to_dict(self) -> dict[str, Any]:
        """The figure as the report's object holds it."""
        parts: dict[str, Any] = {"name": self.name, "value": self.value, "unit": self.unit}
        if self.target is not None:
            parts |= {"target": self.target, "ok": self.ok}
        return parts

    def row(self) -> tuple[str, str, str, str]:
        """Name, value with its unit, target and verdict, as a table shows them."""
        value = f"{_short(self.value)} {self.unit}".rstrip()
        if self.target is None:
            return self.name, value, "", ""
        target = f"{_SIGN[self.bound]} {_short(self.target)}"
        return self.name, value, target, "ok" if self.ok else "MISSED"


@dataclass(frozen=True)
class Machine:
    """What the figures were measured on; ``Machine.measure()`` looks.

    Attributes
    ----------
    cores : int
        Cores that this process may use.
    memory : int
        Bytes that it may use: of the machine, or of its control group where that is less.
    cpu, kernel, python : str
        Model of the processor; system and release; implementation and version.
    libraries : dict of str
        Version of each of ``LIBRARIES`` that is installed.
    """

    cores: int
    memory: int
    cpu: str
    kernel: str
    python: str
    libraries: dict[str, str]

    @classmethod
    def measure(cls) -> Machine:
        """Look at the machine that this process runs on."""
        return cls(
            cores=_cores(),
            memory=_memory(),
            cpu=_cpu(),
            kernel=f"{platform.system()} {platform.release()}",
            python=f"{platform.python_implementation()} {platform.python_version()}",
            libraries=_versions(LIBRARIES),
        )

    def to_dict(self) -> dict[str, Any]:
        """The machine as the report's object holds it; memory in bytes."""
        return {
            "cores": self.cores,
            "memory": self.memory,
            "cpu": self.cpu,
            "kernel": self.kernel,
            "python": self.python,
            "libraries": dict(self.libraries),
        }

    def __str__(self) -> str:
        libraries = ", ".join(f"{name} {version}" for name, version in self.libraries.items())
        return (
            f"{self.cores} cores ({self.cpu}), {self.memory / 2**30:.1f} GiB, {self.kernel}\n"
            f"{self.python}; {libraries}"
        )


@dataclass
class Report:
    """The figures of one benchmark.

    >>> report = Report("tasks")
    >>> report.add("continuations on a rank", 61_250, "1/s", at_least=50_000)
    >>> report.print(json=True)  # doctest: +SKIP
    """

    benchmark: str
    machine: Machine = field(default_factory=Machine.measure)
    figures: list[Figure] = field(default_factory=list)

    def add(
        self,
        name: str,
        value: SupportsFloat,
        unit: str,
        *,
        at_most: SupportsFloat | None = None,
        at_least: SupportsFloat | None = None,
    ) -> None:
        """Add one figure, with the side on which its target lies where it has one.

        Raises
        ------
        UsageError
            The name is already there, a number is not finite, or both sides have a target.
        """
        if any(figure.name == name for figure in self.figures):
            raise UsageError(f"the report on {self.benchmark} has a figure {name!r} already")
        if at_most is not None and at_least is not None:
            raise UsageError(f"{name}: a figure has one target, at_most= or at_least=")
        bound: Bound = "at most" if at_least is None else "at least"
        target = at_most if at_least is None else at_least
        number = None if target is None else _number(f"target of {name}", target)
        self.figures.append(Figure(name, _number(name, value), unit, number, bound))

    @property
    def ok(self) -> bool:
        """Whether no figure misses its target."""
        return all(figure.ok is not False for figure in self.figures)

    def to_dict(self) -> dict[str, Any]:
        """The one object, ready for ``json``."""
        return {
            "benchmark": self.benchmark,
            "machine": self.machine.to_dict(),
            "figures": [figure.to_dict() for figure in self.figures],
        }

    def to_json(self) -> str:
        """The one object as text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def table(self) -> str:
        """The figures as a table of plain text, the machine below it."""
        rows = [("figure", "value", "target", ""), *(figure.row() for figure in self.figures)]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            "  ".join((name.ljust(widths[0]), value.rjust(widths[1]), target.ljust(widths[2]), ok))
            for name, value, target, ok in rows
        ]
        lines = [line.rstrip() for line in lines]
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join([self.benchmark, "", *lines, "", str(self.machine)])

    def print(self, json: bool = False) -> None:
        """Print the table, or with ``json`` the one object, on standard output."""
        print(self.to_json() if json else self.table(), file=sys.stdout, flush=True)


def _number(name: str, value: SupportsFloat) -> float:
    """``value`` as Python's int or float: numpy's are no JSON."""
    number = float(value)
    if not math.isfinite(number):
        raise UsageError(f"{name} is {number}, which is no measurement")
    return int(value) if isinstance(value, Integral) else number


def _short(value: float) -> str:
    """Four significant digits, whole thousands apart."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: what taskset or a container left us
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:  # control groups, version 2, as a container sees its own ("max" where there is no limit)
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):
        return total


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":  # x86; ARM's kernel gives none
            return value.strip()
    return platform.processor() or platform.machine()


def _versions(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
