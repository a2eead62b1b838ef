"""The errors, one tree, split by who can mend them.

``UsageError``: your call. ``FunctionError``: your function. ``LossError``: an engine was lost
beyond what the copies tolerate. ``StoreError``: the place of the checkpoints fails. ``DataError``:
data is not what it was. ``InternalError``: our bug.
"""

from __future__ import annotations


class FelissError(Exception):
    """Root of every error that this package raises."""


class UsageError(FelissError, ValueError):
    """The call cannot be carried out as it stands; the message says what to do."""


class SessionClosed(UsageError):
    """The session was stopped; start another."""


class SessionTaken(SessionClosed):
    """Another process has taken the session's master's place; this one has no say any more."""


class NotReadyError(UsageError):
    """A continuation reads a variable that has no partition on its rank yet.

    A continuation waits for the variables whose handles it carries as arguments (or captures);
    one that it finds otherwise it does not wait for.
    """


class DeadlockError(UsageError):
    """Every rank of a gang waits for a message, and none is under way."""


class UnpicklableError(UsageError, TypeError):
    """Something has no meaning outside its process (a generator, a lock, an open socket).

    Attributes
    ----------
    path : str
        Where it stands, from a variable's or an argument's name down.
    type_name : str
        The type that cannot be saved.
    """

    def __init__(self, path: str, type_name: str, reason: str = "") -> None:
        self.path, self.type_name, self.reason = path, type_name, reason
        why = f" ({reason})" if reason else ""
        super().__init__(
            f"{path} is a {type_name}, which cannot be saved or sent{why}; "
            "keep what it is made from instead, and make it anew where it is needed"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path, self.type_name, self.reason)


class WaitTimeout(FelissError, TimeoutError):
    """``wait(timeout=)`` ran out; the job goes on."""


class FunctionError(FelissError):
    """A user's function raised; its own traceback is in the message.

    Attributes
    ----------
    rank : int
        The rank it ran on.
    record : str or None
        The record at hand, where a model knows it.
    remote_traceback : str
        The user's frames, as text. The exception itself is the ``__cause__`` where it could travel.
    """

    def __init__(
        self, message: str, rank: int, record: str | None = None, remote_traceback: str = ""
    ) -> None:
        self.message, self.rank, self.record = message, rank, record
        self.remote_traceback = remote_traceback
        super().__init__(message + (f"\n\n{remote_traceback}" if remote_traceback else ""))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.rank, self.record, self.remote_traceback)


class PoisonError(FunctionError):
    """Engines were lost, one after the other, while the same continuation ran: it is set aside.

    Attributes
    ----------
    function : str
        Its name.
    arguments : str
        Its arguments, shortened; ``session.set_aside`` has them whole.
    losses : int
        How many engines were lost with it.
    """

    def __init__(
        self,
        message: str,
        rank: int,
        record: str | None = None,
        function: str = "",
        arguments: str = "",
        losses: int = 0,
    ) -> None:
        super().__init__(message, rank, record)
        self.function, self.arguments, self.losses = function, arguments, losses

    def __reduce__(self) -> tuple[object, ...]:
        told = self.message, self.rank, self.record, self.function, self.arguments, self.losses
        return type(self), told


class JobCancelled(FelissError):
    """The job was cancelled; what it wrote before stays."""


class DependencyError(FelissError):
    """A continuation waited for a variable that its job will never fill."""


class LossError(FelissError):
    """More was lost than the copies tolerate: a rank and every copy of it."""


class StoreError(FelissError):
    """A store of checkpoints cannot be written or read: a full disk, no permission, no network.

    The checkpoints that were committed before stay as they are.
    """


class StoreWarning(UserWarning):
    """Something in a store of checkpoints is damaged or failed; the work goes on without it."""


class DataError(FelissError):
    """Data is not what it was when it was first seen."""


class InputChanged(DataError):
    """An input file changed since it was first read, so a replay would not repeat the run."""


class CorruptSnapshot(DataError):
    """A snapshot does not match its digest."""


class MissingSnapshot(CorruptSnapshot):
    """A snapshot is not where it was put."""


class ReplayDiverged(DataError):
    """A result that was already delivered came out different in the replay after a loss."""


class InternalError(FelissError):
    """A bug of this package: please report it with the text."""


class IllegalTransition(InternalError):
    """An event that the transition table does not allow in this state."""
