"""``%feliss`` and ``%%feliss``: each is one call of the Python API.

Every subcommand returns an object that shows itself. What the table in `commands` says, nothing
here repeats: a method gets the values that were given, by the keywords of the API, and passes them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from feliss_nb.errors import FelissError, InternalError, UsageError
from feliss_nb.notebook import complete, sessions, usercode
from feliss_nb.notebook.arguments import closest, parse
from feliss_nb.notebook.commands import COMMANDS
from feliss_nb.notebook.display import Page, events_table, log_page, manual, overview
from feliss_nb.notebook.words import split
from feliss_nb.runtime.status import Table
from feliss_nb.runtime.variable import Variable

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from feliss_nb.models.session import Session

_LAST_EVENTS = 50
_WITHOUT_SESSION = (
    "start",
    "attach",
    "restore",
    "resume",
    "sessions",
    "checkpoints",
    "plot",
    "help",
    "dashboard",
)


@magics_class
class FelissMagics(Magics):
    """The magics of one shell."""

    shell: InteractiveShell

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._bound: Any = None

    @no_var_expand
    @line_cell_magic
    def feliss(self, line: str, cell: str | None = None) -> Any:
        """Run a subcommand; the help replaces this text when the extension is loaded."""
        try:
            return self._do(line, cell)
        except InternalError:
            raise
        except FelissError as error:
            # The exception is raised to a script that runs the magic; for a person the frames
            # between the cell and here say nothing, and the user's own are in the message.
            # IPython asks an exception for this method.
            vars(error)["_render_traceback_"] = partial(_brief, error)
            raise

    def _do(self, line: str, cell: str | None) -> Any:
        words = split(line)
        if "--help" in words:
            words = ["help", *[word for word in words if word in COMMANDS][:1]]
            cell = None
        if not words:
            return overview(COMMANDS)
        parsed = parse(words, COMMANDS, cell is not None)
        name = parsed.command.name
        # Before the user's code runs, what is refused without it is refused.
        session = None
        if name not in _WITHOUT_SESSION:
            chosen = [word for argument, word in parsed.words.items() if argument.name == "session"]
            session = sessions.find(*chosen)
        given: dict[str, Any] = {}
        if cell is not None:
            make = usercode.body if parsed.command.is_body else usercode.define
            given[parsed.command.from_cell] = make(self.shell, cell)
        given |= parsed.values(partial(usercode.evaluate, self.shell))
        if session is None:
            new: Callable[..., Any] = getattr(self, f"_{name}")
            return new(**given)
        given.pop("session", None)
        run: Callable[..., Any] = getattr(self, f"_{name}")
        return run(session, **given)

    # Without a session

    def _help(self, subcommand: str | None = None, session: str | None = None) -> Page:
        if subcommand is None:
            return overview(COMMANDS)
        if subcommand not in COMMANDS:
            hint = closest(subcommand, COMMANDS)
            names = ", ".join(COMMANDS)
            raise UsageError(f"there is no subcommand {subcommand!r}{hint}; there are: {names}")
        return manual(COMMANDS[subcommand])

    def _start(self, **given: Any) -> Session:
        return self._ready(sessions.start(**_named(given)))

    def _attach(self, **given: Any) -> Session:
        return self._ready(sessions.attach(**_named(given)))

    def _restore(self, **given: Any) -> Session:
        return self._ready_with_names(sessions.restore(**_named(given)))

    def _resume(self, **given: Any) -> Session:
        return self._ready_with_names(sessions.resume(**_named(given)))

    def _sessions(self, session: str | None = None) -> Table:
        return sessions.named()

    def _ready_with_names(self, session: Session) -> Session:
        """Bind the names of a session that goes on, where they are free."""
        for name, variable in session.variables.items():
            # A variable of a session that has ended says nothing any more, and has the name.
            old = self.shell.user_ns.get(name)
            free = name not in self.shell.user_ns or (isinstance(old, Variable) and old.over)
            if name.isidentifier() and free:
                self.shell.push({name: variable})
        return self._ready(session)

    def _plot(self, what: str, session: str | None = None, data: bool = False, **given: Any) -> Any:
        found = sessions.plot(what, **given)
        return found.data if data else found

    def _dashboard(self, session: str | None = None, replay: str | None = None) -> Any:
        # Shown at once, and not by being returned: the cell may go on for long.
        from feliss_nb.notebook import dashboard

        if getattr(self.shell, "kernel", None) is None:
            return dashboard.text(None if replay else sessions.find(session), replay)
        from IPython.display import display

        display(dashboard.replay(replay) if replay else dashboard.of(sessions.find(session)))
        return None

    def _checkpoints(self, store: str, session: str | None = None) -> Table:
        return sessions.checkpoints(store)

    # With a session

    def _map(self, session: Session, f: Any, source: Any, out: str | None = None) -> Any:
        return self._bind(session.map(f, source, name=out), out)

    def _reduce(
        self, session: Session, f: Any, pairs: Any, out: str | None = None, with_key: bool = False
    ) -> Any:
        return self._bind(session.reduce(f, pairs, name=out, with_key=with_key), out)

    def _spmd(self, session: Session, main: Any, out: str | None = None) -> Any:
        return self._bind(session.spmd(main, name=out), out)

    def _mapreduce(
        self,
        session: Session,
        map: Any,
        reduce: Any,
        source: Any,
        out: str | None = None,
        **options: Any,
    ) -> Any:
        return self._bind(session.mapreduce(map, reduce, source, name=out, **options), out)

    def _wait(self, session: Session, timeout: float | None = None) -> Page:
        session.wait(timeout=timeout)
        return Page((f"session {session.name}: nothing is left to run",))

    def _checkpoint(self, session: Session, durable: bool = False) -> Any:
        return session.checkpoint(durable=durable)

    def _anatomy(self, session: Session, plot: bool = False) -> Any:
        anatomy = session.anatomy()
        return anatomy.plot() if plot else anatomy

    def _run(self, session: Session, f: Any, out: str | None = None, rank: int = 0) -> None:
        from feliss_nb.notebook.running import Running

        job = session.run(f, rank=rank, quiet=True)
        if out is not None:
            self.shell.push({out: job})
        Running(session, job).show()

    def _record(self, session: Session, path: str) -> Any:
        return session.record_trace(path)

    def _timeline(self, session: Session, last: float | None = None, data: bool = False) -> Any:
        from feliss_nb.lab.figures import Timeline

        found = Timeline(_history(session), last, f"session {session.name}")
        return found.data if data else found

    def _log(self, session: Session, last: int = _LAST_EVENTS) -> Page:
        return log_page(session.events, last)

    def _explain(self, session: Session, which: str = "last") -> Any:
        from feliss_nb.lab.explain import explain

        return explain(_history(session), which)

    def _status(self, session: Session) -> Any:
        return session.status()

    def _kill(self, session: Session, rank: int, wait: bool = False) -> Any:
        session.kill(rank, wait=wait)
        done = "every rank runs, with the copies that can be had" if wait else "see %feliss status"
        return Page((f"killed the engine of rank {rank}; {done}",))

    def _inject(self, session: Session, plan: Any) -> Any:
        return session.inject(plan)

    def _stop(self, session: Session) -> Page:
        session.stop()
        left = sessions.live()
        if not left:
            return Page((f"session {session.name} is stopped",))
        self._ready(left[-1])
        return Page((f"session {session.name} is stopped; {left[-1].name} is meant from now on",))

    def _events(self, session: Session, last: int = _LAST_EVENTS) -> Table:
        return events_table(session.events, last)

    # What they share

    def _ready(self, session: Session) -> Session:
        """Let ``%px`` run on the session's engines, those that come later included."""
        from IPython import get_ipython

        if get_ipython() is not self.shell:
            return session  # ipyparallel would register its magics elsewhere
        try:
            # Not client[:], which is the list of the engines of this moment: after a loss, %px
            # would address a dead one.
            view = session.client.direct_view("all")
            view.block = True  # %px shows what the engines print
            view.activate()
        except Exception as error:  # noqa: BLE001 (the session works without %px)
            warnings.warn(f"%px is not set up: {error}", stacklevel=2)
        return session

    def _bind(self, handle: Any, name: str | None) -> Any:
        """Bind a handle to a name of the user's."""
        if name is not None:
            self.shell.push({name: handle})
            self._bound = handle
        return handle

    def forget_output(self, result: Any) -> None:
        """Take a handle that has a name out of IPython's history of outputs.

        There (``Out``, ``_``, ``_7``) it would live as long as the notebook, and so would its
        partitions on the engines and in every checkpoint, though the cell has bound its name anew.

        Parameters
        ----------
        result : ExecutionResult
            Of the cell that has just run.
        """
        bound, self._bound = self._bound, None
        if bound is None or result.result is not bound:
            return
        hook, names = self.shell.displayhook, self.shell.user_ns
        for count in [key for key, value in names["_oh"].items() if value is bound]:
            del names["_oh"][count]
            self.shell.drop_by_id({f"_{count}": bound})
        if hook._ is bound:
            shown = names.get("_") is bound
            hook._, hook.__, hook.___ = hook.__, hook.___, ""
            if shown:
                kept = {"_": hook._, "__": hook.__, "___": hook.___}
                self.shell.push(kept, interactive=False)


def _history(session: Session) -> Any:
    from feliss_nb.lab.history import History

    history = History(session.events)
    history.look(session.events.now)
    return history


def _brief(error: FelissError) -> list[str]:
    return [f"{type(error).__name__}: {error}"]


def _named(given: dict[str, Any]) -> dict[str, Any]:
    """``--session`` names a session, and a new one has no other name than ``--name``."""
    name = given.pop("session", None)
    if name is not None and given.setdefault("name", name) != name:
        raise UsageError(f"a new session has one name: --session {name} or --name {given['name']}")
    return given


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics and their completion; run by ``%load_ext feliss_nb``.

    Parameters
    ----------
    shell : InteractiveShell
        The shell.
    """
    unload_ipython_extension(shell)
    magics = FelissMagics(shell)
    shell.register_magics(magics)
    shell.events.register("post_run_cell", magics.forget_output)
    shell.Completer.custom_matchers.append(complete.matcher)
    shell.set_hook("complete_command", complete.hook, str_key="%feliss")


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take the magics and their completion away; sessions go on.

    Parameters
    ----------
    shell : InteractiveShell
        The shell.
    """
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("feliss", None)
    magics = shell.magics_manager.registry.pop(FelissMagics.__name__, None)
    if magics is not None:
        shell.events.unregister("post_run_cell", magics.forget_output)
    matchers = shell.Completer.custom_matchers
    matchers[:] = [matcher for matcher in matchers if matcher is not complete.matcher]
    shell.strdispatchers["complete_command"].strs.pop("%feliss", None)


FelissMagics.feliss.__doc__ = repr(overview(COMMANDS))
