"""Which session a magic means. The runtime is imported when it is first needed.

Loading the extension, its help and its completion must not wait for ipyparallel's import.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

from feliss_nb.errors import UsageError
from feliss_nb.notebook.arguments import closest

if TYPE_CHECKING:
    from feliss_nb.models.session import Session
    from feliss_nb.runtime.table import Table

NO_SESSION = "no session: start one with %feliss start --workers 4"


def start(**options: Any) -> Session:
    """Start a session; see `feliss_nb.start`."""
    import feliss_nb

    session: Session = feliss_nb.start(**options)
    return session


def attach(**options: Any) -> Session:
    """Attach a session to a cluster; see `feliss_nb.attach`."""
    import feliss_nb

    session: Session = feliss_nb.attach(**options)
    return session


def restore(**options: Any) -> Session:
    """Go on from a checkpoint on a store; see `feliss_nb.restore`."""
    import feliss_nb

    session: Session = feliss_nb.restore(**options)
    return session


def resume(**options: Any) -> Session:
    """Go on with a session that outlived its process; see `feliss_nb.resume`."""
    import feliss_nb

    session: Session = feliss_nb.resume(**options)
    return session


def named() -> Table:
    """Give the named sessions that are alive; see `feliss_nb.sessions`."""
    import feliss_nb

    table: Table = feliss_nb.sessions()
    return table


def checkpoints(store: str) -> Table:
    """Give the checkpoints on a store; see `feliss_nb.checkpoints`."""
    import feliss_nb

    table: Table = feliss_nb.checkpoints(store)
    return table


def plot(what: str, **options: Any) -> Any:
    """Measure what is to be drawn; see `feliss_nb.lab.plots`."""
    from feliss_nb.lab.plots import measure

    return measure(what, on_step=print, **options)


def live() -> list[Session]:
    """Give the sessions that were not stopped, however they were started.

    Returns
    -------
    list of Session
        In the order of their start.
    """
    # Not imported yet means that none was started: completion then costs nothing.
    if "feliss_nb.runtime.session" not in sys.modules:
        return []
    from feliss_nb.runtime.session import live_sessions

    return cast("list[Session]", live_sessions())


def find(name: str | None = None) -> Session:
    """Give the session that is meant.

    Parameters
    ----------
    name : str, optional
        Its name; without one, the last started of those that live.

    Returns
    -------
    Session
        A session that was not stopped.

    Raises
    ------
    UsageError
        When there is none.
    """
    sessions = live()
    if not sessions:
        raise UsageError(NO_SESSION)
    if name is None:
        return sessions[-1]
    for session in reversed(sessions):
        if session.name == name:
            return session
    names = [session.name for session in sessions]
    raise UsageError(f"no session {name!r}{closest(name, names)}; there are: {', '.join(names)}")
