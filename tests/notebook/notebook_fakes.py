"""A session that only remembers what it was told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from feliss_nb.runtime.anatomy import Anatomy, Part
from feliss_nb.runtime.events import Event
from feliss_nb.runtime.status import Checkpoint, Status


class FakeVariable:
    def __init__(self, name: str | None) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<variable {self.name}>"


class FakeLog(list[Event]):
    now = 30.0


class FakeJob:
    """It runs until a test says how it ended."""

    def __init__(self) -> None:
        self.id, self.label, self.state = 7, "cell", "running"
        self.lines: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.reported = False
        self.value: Any = None

    def result(self, timeout: float) -> Any:
        return self.value


class FakeWatch:
    is_over = False

    def close(self) -> None:
        self.is_over = True


@dataclass
class FakeSession:
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    stopped: bool = False
    size: int = 3
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.events = FakeLog(
            Event("commit", n / 4, {"rank": n, "detail": "<b>"}) for n in range(8)
        )
        self.watches: list[Callable[..., None]] = []
        self.job = FakeJob()
        self.activated = 0
        self.client = SimpleNamespace(direct_view=self._view)

    def _view(self, targets: str) -> SimpleNamespace:
        def activate() -> None:
            self.activated += 1
            if self.error is not None:
                raise self.error

        assert targets == "all"
        return SimpleNamespace(activate=activate)

    def _called(self, *call: Any) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    def map(self, f: Any, source: Any, name: str | None = None) -> FakeVariable:
        self._called("map", f, source, name)
        return FakeVariable(name)

    def reduce(
        self, f: Any, pairs: Any, name: str | None = None, with_key: bool = False
    ) -> FakeVariable:
        self._called("reduce", f, pairs, name, with_key)
        return FakeVariable(name)

    def mapreduce(
        self, map: Any, reduce: Any, source: Any, name: str | None = None, **options: Any
    ) -> FakeVariable:
        self._called("mapreduce", map, reduce, source, name, options)
        return FakeVariable(name)

    def spmd(self, main: Any, name: str | None = None) -> FakeVariable:
        self._called("spmd", main, name)
        return FakeVariable(name)

    def run(self, f: Any, rank: int = 0, quiet: bool = False) -> FakeJob:
        self._called("run", f, rank, quiet)
        return self.job

    def watch(self, look: Callable[..., None]) -> FakeWatch:
        self._called("watch")
        self.watches.append(look)
        return FakeWatch()

    def record_trace(self, path: str) -> str:
        self._called("record_trace", path)
        return path

    over = False

    @property
    def variables(self) -> dict[str, FakeVariable]:
        return {name: FakeVariable(name) for name in ("counts", "taken", "not a name")}

    def checkpoint(self, durable: bool = False) -> Checkpoint:
        self._called("checkpoint", durable)
        return Checkpoint(3, 1, 12_345_678, 0.0451, 0.0031, 0.0)

    def anatomy(self) -> Anatomy:
        self._called("anatomy")
        part = Part("variable", "counts", 900, {0: 900}, "its name 'counts'")
        return Anatomy(3, (part,), 1000, 50_000, 2000)

    def status(self) -> Status:
        self._called("status")
        return Status(self.name, "running", 1, 1, True, (), (), ())

    def kill(self, rank: int, wait: bool = False) -> None:
        self._called("kill", rank, wait)

    def wait(self, timeout: float | None = None) -> None:
        self._called("wait", timeout)

    def stop(self) -> None:
        self._called("stop")
        self.stopped = True
