"""What the models use of a session, inside a continuation, and of a source of records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from feliss_nb.state.handle import Handle, Target

#: A continuation to begin with: rank, function, arguments.
Start = tuple[int, Callable[..., Any], tuple[Any, ...]]


class Session(Protocol):
    """What a model needs of a session."""

    @property
    def size(self) -> int:
        """Number of ranks."""

    def declare(self, *, records: bool, name: str | None) -> Any:
        """Make an empty variable: a Handle with methods."""

    def submit(self, starts: Sequence[Start], *, outputs: Sequence[Any], label: str) -> Any:
        """Begin a job, atomically; ``outputs`` are the variables that it fills."""


class Here(Protocol):
    """What a model needs inside a continuation."""

    @property
    def rank(self) -> int:
        """This rank."""

    @property
    def size(self) -> int:
        """Number of ranks."""

    @property
    def due(self) -> bool:
        """Whether to put the rest and return."""

    def put(self, f: Callable[..., Any], /, *args: Any, rank: int | None = None) -> None:
        """Put a continuation into a rank's pool; into this rank's own without a copy."""

    def at(self, index: int, label: Callable[[], str] | str, value: Any = None) -> None:
        """Take the identity of a record, ``value``: of this rank in this job the ``index``-th."""

    def phase(self, name: str) -> None:
        """Tell, once, that this rank has come to a phase of the job."""

    def progress(self, done: int, total: int) -> None:
        """Report units of work, of this rank in this job."""

    def mapped(self, n: int) -> None:
        """Report ``n`` more records mapped."""

    def stands_for(self, f: Callable[..., Any], /) -> None:
        """Name the user's function in what is said of an error of this continuation."""

    def gang(self) -> tuple[Any, Any]:
        """Give what carries the messages of the running step of a gang, and writes objects."""

    def then(self, f: Callable[..., Any], /, *args: Any, needs: Iterable[int] = ()) -> None:
        """Make this rank's part of the gang's next step, which waits for ``needs``."""

    def __getitem__(self, variable: Handle) -> Any:
        """Give this rank's partition."""

    def __setitem__(self, variable: Handle | Target, value: Any) -> None:
        """Set this rank's partition."""


@runtime_checkable
class Source(Protocol):
    """A partition that is read record by record, from any position on."""

    def records(self, position: Any = None) -> Iterator[tuple[Any, Any]]:
        """Yield the position behind each record, small and picklable, and the record."""

    def where(self, position: Any = None) -> str:
        """Name the place of the record behind a position."""

    def done(self, position: Any) -> int:
        """Count the units of work before a position."""

    @property
    def total(self) -> int:
        """Count all units of work."""


def current() -> Here:
    """Give what the running continuation may use."""
    # Late: the models are also read where no runtime is, to document or to test them.
    from feliss_nb.runtime.here import here

    return here()


def begin(f: Callable[..., Any] | None = None) -> Here:
    """Give what a continuation that can be cut may use, its slice of time begun.

    ``f`` is the user's function that it calls: an error names that one.

    ``due`` may count from the first time that it is asked; the answer to that is of no interest,
    since each continuation does at least one piece of its work.
    """
    here = current()
    if f is not None:
        here.stands_for(f)
    _ = here.due
    return here
