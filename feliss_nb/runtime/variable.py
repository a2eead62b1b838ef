"""A distributed variable as the notebook holds it."""

from __future__ import annotations

import functools
import html
import json
import os
import pickle
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feliss_nb.errors import UsageError
from feliss_nb.runtime.failure import name_of
from feliss_nb.runtime.here import here
from feliss_nb.state.handle import Handle

if TYPE_CHECKING:
    from feliss_nb.runtime.job import Job
    from feliss_nb.runtime.session import BaseSession


class Variable(Handle):
    """The handle of a distributed variable: one partition on each rank.

    It is a future: calls that need the content wait for it. When the last handle is dropped by
    the notebook and by every pool, the partitions go.

    Attributes
    ----------
    name : str or None
        Its name in the session; a named variable lives until the name is bound anew.
    job : Job or None
        The job that fills it.
    """

    __slots__ = ("_session", "job", "name")

    def __init__(
        self, session: BaseSession, variable: int, records: bool, name: str | None = None
    ) -> None:
        super().__init__(variable, records)
        self._session = session
        self.name = name
        self.job: Job | None = None
        weakref.finalize(self, session.released, variable).atexit = False

    # ------------------------------------------------------------ content

    @property
    def over(self) -> bool:
        """Whether its session has ended, so that nobody can read it any more."""
        return self._session.over

    def partitions(self) -> list[Any]:
        """Return a copy of each rank's partition, in rank order."""
        return self._session.fetch(self, None)

    def collect(self) -> Any:
        """Return the content: records concatenated in rank order; values as `partitions` does.

        Partitions that are all arrays give one array.
        """
        parts = self.partitions()
        return _concatenate(parts) if self.records else parts

    def reduce(self, op: Callable[[Any, Any], Any]) -> Any:
        """Return what `collect` gives, folded from the left with `op`.

        Raises
        ------
        UsageError
            If there is nothing to fold.
        """
        if not callable(op):
            raise UsageError(f"reduce() takes a function of two arguments, not {op!r}")
        content = self.collect()
        if len(content) == 0:
            raise UsageError(f"{self!r} is empty: there is nothing to reduce")
        return functools.reduce(op, content)

    def __len__(self) -> int:
        """Return the number of records, or of values (one a rank)."""
        if not self.records:
            return self._session.size
        return sum(self._session.fetch(self, len))

    def __bool__(self) -> bool:
        return True  # a handle is something, whatever the variable holds

    def wait(self, timeout: float | None = None) -> Variable:
        """Wait for the job that fills it; raise its error if it failed."""
        if self.job is not None:
            self.job.wait(timeout)
        return self

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the content to a file; its ending says how.

        ``.txt``: one record a line; ``.json``: a list; ``.npy``: an array; ``.pkl``: a pickle. The
        file is whole or as it was before.

        Raises
        ------
        UsageError
            If the ending is another, or the folder does not exist.
        """
        target = Path(path)
        writer = _WRITERS.get(target.suffix)
        if writer is None:
            endings = ", ".join(_WRITERS)
            raise UsageError(f"save() knows the endings {endings}, not {target.suffix!r}")
        if not target.parent.is_dir():
            raise UsageError(f"the folder {target.parent} does not exist: make it first")
        data = writer(self.collect())
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
        return target

    # ------------------------------------------------------------ display

    def __repr__(self) -> str:
        what = "records" if self.records else "values"
        name = f" {self.name!r}" if self.name else ""
        state = f", {self.job.state}" if self.job is not None else ""
        return f"<variable{name} ({what} on {self._session.size} ranks{state})>"

    def _repr_html_(self) -> str:
        return f"<code>{html.escape(repr(self))}</code>"


def give(variable: Handle, function: Callable[[Any], Any] | None, label: str) -> None:
    """Send this rank's partition, or what a function makes of it, to the notebook."""
    at = here()
    part = at[variable]
    at.function = function
    at._runner.give(part if function is None else function(part), label)


def give_result(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Call a function and send what it returns to the notebook."""
    at = here()
    at.function = function
    at._runner.give(function(*args), f"what {name_of(function)} returned")


def _concatenate(parts: list[Any]) -> Any:
    if parts and all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    first = type(parts[0]) if parts else list
    if first.__module__.partition(".")[0] == "pandas" and all(type(p) is first for p in parts):
        import pandas

        return pandas.concat(parts)
    return [record for part in parts for record in part]


def _text(content: Any) -> bytes:
    return "".join(f"{record}\n" for record in content).encode()


def _json(content: Any) -> bytes:
    if isinstance(content, np.ndarray):
        content = content.tolist()
    return json.dumps(content).encode()


def _npy(content: Any) -> bytes:
    import io

    file = io.BytesIO()
    np.save(file, np.asarray(content), allow_pickle=False)
    return file.getvalue()


_WRITERS: dict[str, Callable[[Any], bytes]] = {
    ".txt": _text,
    ".json": _json,
    ".npy": _npy,
    ".pkl": lambda content: pickle.dumps(content, protocol=5),
}
