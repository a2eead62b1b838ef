"""A user's exception on its way to the notebook: the user's frames, the rank, the record."""

from __future__ import annotations

import functools
import linecache
import os
import pickle
import traceback
from dataclasses import dataclass
from types import TracebackType

from feliss_nb.errors import FelissError, FunctionError
from feliss_nb.runtime.here import StopContinuation

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


@dataclass(frozen=True, slots=True)
class Failure:
    """What a continuation raised.

    Parameters
    ----------
    rank : int
        Where it ran.
    function : str
        The name of the continuation's function.
    summary : str
        The exception's type and text, as at the end of a traceback.
    frames : tuple of (str, int, str, str)
        File, line, function and text of the user's frames, outermost first.
    record : str or None
        The record at hand.
    exception : bytes
        The pickled exception; empty if it cannot travel.
    """

    rank: int
    function: str
    summary: str
    frames: tuple[tuple[str, int, str, str], ...]
    record: str | None
    exception: bytes

    def error(self) -> FelissError:
        """Return the error to raise in the notebook; our own errors stay what they are."""
        cause: BaseException | None = None
        if self.exception:
            try:
                cause = pickle.loads(self.exception)
            except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001
                cause = None  # its class may not exist here, or refuse: the text tells all
            if not isinstance(cause, BaseException):  # a class may say that it is made otherwise
                cause = None
        if isinstance(cause, FelissError) and not self.frames:
            return self._ours(cause)
        at = f", {self.record}" if self.record else ""
        # What our errors advise is said once, where the traceback ends.
        what = type(cause).__name__ if isinstance(cause, FelissError) else self.summary
        text = f"{self.function} raised {what} on rank {self.rank}{at}"
        error = FunctionError(text, self.rank, self.record, self._traceback())
        error.__cause__ = cause
        return error

    def _ours(self, error: FelissError) -> FelissError:
        """Say where an error of ours arose; its type stays, since users catch by it."""
        at = f" (rank {self.rank}{', ' + self.record if self.record else ''})"
        if len(error.args) == 1 and "__init__" not in vars(type(error)):
            return type(error)(f"{error.args[0]}{at}")
        error.add_note(at.strip(" ()"))
        return error

    def _traceback(self) -> str:
        lines = ["Traceback (most recent call last):"]
        for file, number, name, text in self.frames:
            lines.append(f'  File "{file}", line {number}, in {name}')
            # A notebook cell's text is known to the notebook's linecache, not to the engine.
            text = text or linecache.getline(file, number).strip()
            if text:
                lines.append(f"    {text}")
        return "\n".join([*lines, self.summary]) if self.frames else ""


def describe(error: BaseException, rank: int, function: str, record: str | None) -> Failure:
    """Return what `error` tells, without this package's frames."""
    frames = tuple(
        (frame.filename, frame.lineno or 0, frame.name, frame.line or "")
        for frame in _users(error.__traceback__)
    )
    summary = "".join(traceback.format_exception_only(error)).strip()
    try:
        bare = BaseException.with_traceback(error, None)
        bare.__context__ = None
        exception = pickle.dumps(bare)
        pickle.loads(exception)
    except StopContinuation:
        raise
    except BaseException:  # noqa: BLE001 - a user's exception may refuse in any way
        exception = b""
    return Failure(rank, function, summary, frames, record, exception)


def _users(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(trace)
    return [frame for frame in frames if not is_ours(frame.filename)]


def is_ours(file: str) -> bool:
    """Tell whether a frame of this file is this package's."""
    return file.startswith(_OURS)


def name_of(function: object) -> str:
    """Return what to call a function in a message."""
    while isinstance(function, functools.partial):  # a mock has any attribute, without end
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__name__
    return str(name).replace("<locals>.", "")
