"""The dashboard: a session's engines, time line, checkpoints and log, with buttons to do harm.

One thread, that of a `Watch`, sets the values of the widgets: ipykernel lets any thread send comm
messages. What a click calls only starts a thread that makes one call of the session.
"""

from __future__ import annotations

import contextvars
import html
import threading
import weakref
from collections import deque
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

from feliss_nb.errors import FelissError, UsageError
from feliss_nb.faults import Fault
from feliss_nb.lab import gantt
from feliss_nb.lab.history import History
from feliss_nb.lab.rows import COLUMNS, STATES, Row, rows, table
from feliss_nb.lab.timeline import timeline
from feliss_nb.notebook.display import Page, Preformatted
from feliss_nb.runtime import Event, Status
from feliss_nb.runtime.cluster import BEAT, MISSES
from feliss_nb.runtime.status import human_bytes, human_seconds
from feliss_nb.runtime.trace import Moment, read_trace
from feliss_nb.state import captures

if TYPE_CHECKING:
    from feliss_nb.models.session import Session

_T = TypeVar("_T")

HANG, SLOW, FACTOR = 3.0, 10.0, 4.0
#: Seconds after which an engine that is stopped counts as lost, where a session started it.
STILL = BEAT * MISSES / 1000

#: What a button of a row does to its engine; its CSS class is ``feliss-`` and its name.
BUTTONS = {
    "kill": "SIGKILL: the process and its memory are gone at once",
    "stop": f"SIGSTOP: it stands still; after {STILL:g} s it counts as lost, and is killed",
    "continue": "SIGCONT: a stopped engine goes on",
    "hang": f"its Python stands still for {HANG:g} s, as in C that keeps the interpreter's lock",
    "slow": f"it runs {FACTOR:g} times slower for {SLOW:g} s",
}

#: What the time line can show, in seconds; none: everything.
WINDOWS = {"last 30 s": 30.0, "last 2 min": 120.0, "last 10 min": 600.0, "all": None}

#: The name of the trace that comes with the package.
SAMPLE = "sample"

_LINES = 12  # of the log
_TALKATIVE = frozenset("mapped busy idle cut saved loaded".split())
_REST = 5.0  # seconds between steps of the time line while nothing happens

#: A state's sign and its colours, back and front; signs and words tell them apart without.
_BADGES = {
    "running": ("▶", "#56B4E9", "#000"),
    "capturing": ("◉", "#0072B2", "#fff"),
    "sending": ("⇄", "#CC79A7", "#000"),
    "loading": ("↻", "#E69F00", "#000"),
    "slow": ("◔", "#009E73", "#fff"),
    "stopped": ("⏸", "#F0E442", "#000"),
    "fenced": ("⊘", "#D55E00", "#fff"),
    "dead": ("✕", "#333", "#fff"),
    "spare": ("○", "#fff", "#000"),
    "ended": ("■", "#999", "#000"),
}
assert _BADGES.keys() == STATES.keys()

_WIDTHS = ("60px", "64px", "96px", "52px", "76px", "84px", "76px")

_STYLE = """<style>
.feliss-dashboard { max-width: 1180px; }
.feliss-cells { display: flex; align-items: center; line-height: 26px; white-space: nowrap; }
.feliss-cells span { overflow: hidden; text-overflow: ellipsis; padding-right: 6px;
  box-sizing: border-box; }
.feliss-badge { border: 1px solid #777; border-radius: 4px; padding: 0 6px !important;
  line-height: 20px; margin-right: 6px; }
.feliss-late { font-weight: bold; text-decoration: underline; }
.feliss-state-dead .feliss-cells { opacity: 0.6; }
.feliss-row button { width: 68px; padding: 0 4px; }
.feliss-log pre { line-height: 1.35; font-size: 12px; margin: 0; overflow-x: auto; }
</style>"""


class View:
    """The widgets, which show what they are given.

    Parameters
    ----------
    act : callable or None
        Called by a click with what to do and the engine (None: to the session); None: no buttons.

    Attributes
    ----------
    widget : ipywidgets.Widget
        All of it.

    Raises
    ------
    UsageError
        If ipywidgets is not installed.
    """

    def __init__(self, act: Callable[[str, Any], None] | None) -> None:
        self._w = w = _ipywidgets()
        self._act = act
        self._rows: dict[int, _RowView] = {}
        self._head = w.HTML()
        self._head.add_class("feliss-head")
        names = "".join(
            f'<span style="width:{width}">{name}</span>'
            for name, width in zip(COLUMNS, _WIDTHS, strict=True)
        )
        self._names = w.HTML(f'<div class="feliss-cells"><b style="display:flex">{names}</b></div>')
        self._box = w.VBox()
        self._box.add_class("feliss-rows")
        self._timeline = w.HTML(layout=w.Layout(width="100%"))
        self._sizes = w.HTML()
        self._log = w.HTML(layout=w.Layout(width="100%"))
        self._log.add_class("feliss-log")
        self._note = w.HTML()
        self._note.add_class("feliss-note")
        self.window = w.Dropdown(
            options=list(WINDOWS), value="last 30 s", layout=w.Layout(width="130px")
        )
        self.window.add_class("feliss-window")
        self.window.tooltip = "what the time line shows"
        tools: list[Any] = [self.window]
        self._capture: Any = None
        self._checkpoint: Any = None
        if act is not None:
            self._checkpoint = w.Button(
                description="Checkpoint now", layout=w.Layout(width="140px")
            )
            self._checkpoint.add_class("feliss-checkpoint")
            self._checkpoint.on_click(lambda button: act("checkpoint", None))
            self._capture = w.Dropdown(
                options=captures.names(),
                description="capture",
                layout=w.Layout(width="280px"),
                style={"description_width": "60px"},
            )
            self._capture.add_class("feliss-capture")
            self._capture.observe(self._captured, "value")
            tools = [self._checkpoint, self._capture, self.window]
        self.widget = w.VBox(
            [
                w.HTML(_STYLE),
                self._head,
                self._names,
                self._box,
                w.HBox(tools),
                self._note,
                self._timeline,
                self._sizes,
                self._log,
            ]
        )
        self.widget.add_class("feliss-dashboard")

    def _captured(self, change: Any) -> None:
        if self._act is not None:
            self._act("capture", change["new"])

    def show(
        self,
        status: Status | None,
        history: History,
        log: str,
        note: str,
        ended: bool,
    ) -> None:
        """Show a moment; what has not changed is not sent."""
        if status is not None:
            self._head.value = _head(status, ended)
            self._show_rows(rows(status, history, ended))
            if self._capture is not None:
                self._capture.value = status.capture
                self._capture.disabled = self._checkpoint.disabled = ended
        end = history.now
        begin = history.begun or 0.0
        seconds = WINDOWS[self.window.value]
        if seconds is not None:
            begin = max(begin, end - seconds)
        self._timeline.value = gantt.svg(history, begin, end)
        self._sizes.value = gantt.sizes_svg(history.commits)
        self._log.value = f"<pre>{html.escape(log)}</pre>"
        self._note.value = html.escape(note).replace("\n", "<br>")

    def _show_rows(self, found: list[Row]) -> None:
        for row in found:
            if row.engine not in self._rows:
                self._rows[row.engine] = _RowView(self._w, row.engine, self._act)
            self._rows[row.engine].show(row)
        children = tuple(self._rows[row.engine].widget for row in found)
        if children != self._box.children:
            self._box.children = children

    def close(self) -> None:
        """Take the widgets off every page."""
        self.widget.close()


class _RowView:
    """The widgets of an engine."""

    def __init__(self, w: Any, engine: int, act: Callable[[str, Any], None] | None) -> None:
        self._cells = w.HTML()
        self._buttons: dict[str, Any] = {}
        if act is not None:
            for name, tooltip in BUTTONS.items():
                button = w.Button(description=name.capitalize(), tooltip=tooltip)
                if name == "kill":
                    button.button_style = "danger"
                button.add_class(f"feliss-{name}")
                button.on_click(lambda _, name=name: act(name, engine))
                self._buttons[name] = button
        self.widget = w.HBox([self._cells, *self._buttons.values()])
        self._classes = ("feliss-row", f"feliss-engine-{engine}")

    def show(self, row: Row) -> None:
        sign, back, front = _BADGES[row.state]
        parts = []
        for name, width, text in zip(COLUMNS, _WIDTHS, row.cells(), strict=True):
            style = f"width:{width}"
            classes = f"feliss-cell-{name.replace(' ', '-')}"
            if name == "state":
                classes += " feliss-badge"
                style = f"width:90px;background:{back};color:{front}"
                text = f"{sign} {text}"
            elif name == "last beat" and row.is_late:
                classes += " feliss-late"
            parts.append(f'<span class="{classes}" style="{style}">{html.escape(text)}</span>')
        self._cells.value = f'<div class="feliss-cells">{"".join(parts)}</div>'
        ranks = tuple(f"feliss-rank-{rank}" for rank in row.ranks)
        classes_now = (*self._classes, f"feliss-state-{row.state}", *ranks)
        if self.widget._dom_classes != classes_now:
            self.widget._dom_classes = classes_now
        lives = row.state not in ("dead", "ended", "fenced")
        usable = {
            "kill": lives,
            "stop": lives and row.state not in ("stopped", "slow"),
            "continue": row.state == "stopped",
            "hang": lives and bool(row.ranks),
            "slow": lives and bool(row.ranks) and row.state != "slow",
        }
        for name, button in self._buttons.items():
            button.disabled = not usable[name]


def _head(status: Status, ended: bool) -> str:
    facts = [("state", "stopped" if ended else status.state), ("epoch", str(status.epoch))]
    if not ended:
        copies = "all in place" if status.protected else "being made anew"
        facts.append(("copies", copies if status.copies else "none"))
    facts.append(("last", str(status.checkpoint) if status.checkpoint else "no checkpoint yet"))
    facts.append(
        (
            "memory of snapshots",
            f"{human_bytes(status.memory_own)} + {human_bytes(status.memory_copies)} of copies",
        )
    )
    if status.pacing is not None:
        facts.append(("checkpoints", f"every {human_seconds(status.pacing.every)}"))
    texts = " · ".join(f"{name} <b>{html.escape(text)}</b>" for name, text in facts)
    return f"<b>session {html.escape(status.session)}</b> &nbsp; {texts}"


class Dashboard:
    """What a session does, live; showing it twice shows the same widgets.

    Parameters
    ----------
    session : Session
        That is shown until it ends, or the dashboard is closed.
    """

    def __init__(self, session: Session) -> None:
        self._session = weakref.ref(session)
        self._history = History()
        self._log: deque[Event] = deque(maxlen=4 * _LINES)
        self._status: Status | None = None
        self._notes: deque[str] = deque(maxlen=3)
        self._view = _of_no_cell(lambda: View(self._click))
        self.widget = self._view.widget
        self._watch = session.watch(self._look)

    @property
    def is_closed(self) -> bool:
        """Whether it shows nothing new any more."""
        return self._watch.is_over

    def close(self) -> None:
        """Take it off every page; the session goes on."""
        self._watch.close()
        self._view.close()

    # On the watch's thread

    def _look(self, events: list[Event], status: Status | None) -> None:
        self._history.add(events)
        self._log.extend(event for event in events if event.kind not in _TALKATIVE)
        ended = status is None
        if status is not None:
            self._status = status
            busy = status.state != "running" or any(rank.pool for rank in status.ranks)
            now = status.at if busy or events else status.at // _REST * _REST
            self._history.look(now)
        log = _log_text(self._log)
        note = "\n".join(self._notes)
        _of_no_cell(lambda: self._view.show(self._status, self._history, log, note, ended))

    # On whichever thread the click comes

    def _click(self, what: str, value: Any) -> None:
        if what == "capture" and (self._status is None or self._status.capture == value):
            return  # the look has set it
        threading.Thread(
            target=self._do, args=(what, value), name="feliss-click", daemon=True
        ).start()

    def _do(self, what: str, value: Any) -> None:
        session = self._session()
        if session is None:
            return
        try:
            note = do(session, what, value)
        except FelissError as error:
            note = f"{what}: {error}"
        except Exception as error:  # noqa: BLE001 (who has clicked hears of it)
            note = f"{what}: {type(error).__name__}: {error}"
        self._notes.append(note)

    # Shown

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)

    def __repr__(self) -> str:
        return "<dashboard>"


def do(session: Session, what: str, value: Any) -> str:
    """Do what a button says; return what to say about it.

    Parameters
    ----------
    session : Session
    what : str
        One of `BUTTONS`, with an engine's id; ``checkpoint``; ``capture``, with its name.
    value : object
        The engine, or the capture.

    Raises
    ------
    FelissError
        If it cannot be done.
    """
    import psutil

    if what == "checkpoint":
        return str(session.checkpoint(timeout=60.0))
    if what == "capture":
        session.capture = value
        return f"capture: {value} from the next checkpoint on"
    if what == "kill":
        session.kill(engine=value)
        return f"engine {value} was killed"
    found = [each for each in session.status().engines if each.engine == value]
    if not found or found[0].role == "dead":
        raise UsageError(f"engine {value} is dead already")
    try:
        if what == "stop":
            psutil.Process(found[0].pid).suspend()
            session.events.add("fault", fault="stop", engine=str(value), rank=None)
            return f"engine {value} stands still: it counts as lost after {STILL:g} s"
        if what == "continue":
            psutil.Process(found[0].pid).resume()
            return f"engine {value} goes on"
    except psutil.Error:
        raise UsageError(f"engine {value} is dead already") from None
    if not found[0].ranks:
        raise UsageError(f"engine {value} is a spare: it hosts no rank that could {what}")
    seconds = HANG if what == "hang" else SLOW
    plan = Fault(what, rank=found[0].ranks[0], seconds=seconds, factor=FACTOR)
    session.inject(plan)
    return f"engine {value}: {what} for {seconds:g} s"


class Replay:
    """A trace, shown again; no engine is needed, and no thread runs.

    Parameters
    ----------
    moments : list of Moment
        Of `read_trace`.
    name : str
        What is replayed.
    """

    def __init__(self, moments: list[Moment], name: str) -> None:
        self._moments, self._name = moments, name
        self._view = View(None)
        self._view.window.value = "all"
        w = self._view._w
        last = len(moments) - 1
        self.play = w.Play(min=0, max=last, value=0, interval=250)
        self.slider = w.IntSlider(min=0, max=last, value=0, readout=False)
        self.play.add_class("feliss-play")
        self.slider.add_class("feliss-slider")
        w.jslink((self.play, "value"), (self.slider, "value"))
        self.slider.observe(lambda change: self._show(change["new"]), "value")
        self._view.window.observe(lambda change: self._show(self._at), "value")
        self._start()
        self._show(0)
        self.widget = w.VBox([w.HBox([self.play, self.slider]), self._view.widget])

    def _start(self) -> None:
        self._history = History()
        self._log: deque[Event] = deque(maxlen=4 * _LINES)
        self._status: Status | None = None
        self._at: int = -1

    def _show(self, number: int) -> None:
        if number < self._at:
            self._start()
        ended = False
        for events, status in self._moments[self._at + 1 : number + 1]:
            self._history.add(events)
            self._log.extend(event for event in events if event.kind not in _TALKATIVE)
            self._status = status or self._status
            ended = status is None
            if status is not None:
                self._history.look(status.at)
        if number == self._at:
            ended = self._moments[number][1] is None
        self._at = number
        note = f"replayed from {self._name}: nothing here is running"
        log = _log_text(self._log)
        self._view.show(self._status, self._history, log, note, ended)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)

    def __repr__(self) -> str:
        return f"<replay of {self._name}>"


def _log_text(events: deque[Event]) -> str:
    lines = timeline(events, begun=0.0).splitlines()
    return "\n".join([lines[0], *lines[1:][-_LINES:]])


def text(session: Session | None, replay: str | None = None) -> Page:
    """Give the dashboard of a terminal: the same rows and lines, of this moment.

    Parameters
    ----------
    session : Session or None
    replay : str, optional
        Instead of a session: a trace, of which the end is shown.
    """
    ended = session is None
    if session is not None:
        status, log = session.status(), list(session.events)
    else:
        moments = _moments(replay or SAMPLE)
        status = [status for _, status in moments if status is not None][-1]
        log = [event for events, _ in moments for event in events]
    history = History(log)
    shown = deque((event for event in log if event.kind not in _TALKATIVE), maxlen=4 * _LINES)
    title = f"session {status.session}: {'ended' if ended else status.state}, epoch {status.epoch}"
    last = str(status.checkpoint) if status.checkpoint else "no checkpoint yet"
    return Page((table(title, rows(status, history, ended)), last, Preformatted(_log_text(shown))))


def replay(path: str) -> Replay:
    """Give a dashboard of a trace.

    Parameters
    ----------
    path : str
        What ``session.record_trace`` or ``%feliss record`` wrote; ``sample``: the package's own.

    Raises
    ------
    UsageError
        If it is no trace.
    """
    return Replay(_moments(path), path)


def _moments(path: str) -> list[Moment]:
    if path != SAMPLE:
        found = read_trace(path)
    else:
        with resources.as_file(resources.files("feliss_nb.lab") / "sample_trace.jsonl") as file:
            found = read_trace(file)
    if not any(status is not None for _, status in found):
        raise UsageError(f"the trace {path} is empty: it was ended before its first look")
    return found


_of: weakref.WeakKeyDictionary[Any, Dashboard] = weakref.WeakKeyDictionary()


def of(session: Session) -> Dashboard:
    """Give the dashboard of a session: the one there is, or a new one."""
    found = _of.get(session)
    if found is None or (found.is_closed and not session.over):
        found = _of[session] = Dashboard(session)
    return found


#: What ipykernel 7's kernel calls the context variable of the message that it answers.
_PARENT = "_shell_parent"


def _of_no_cell(act: Callable[[], _T]) -> _T:
    """Let widgets talk to their pages as if no cell had sent for it.

    ipykernel (7.4) delivers what a page says to a widget where the widget last spoke from: to the
    main thread, if a cell made it, which hears nothing while a cell runs. Without such a cell the
    page chooses, and JupyterLab has a thread for widgets. There is no public way to say so: the
    kernel's `set_parent` changes where the output of the cell goes as well, and a comm asks its
    kernel and nobody else. Where this one is missing, clicks are heard when the cell has ended.
    """
    from IPython import get_ipython

    parent = getattr(getattr(get_ipython(), "kernel", None), _PARENT, None)
    if not isinstance(parent, contextvars.ContextVar):
        return act()

    def aside() -> _T:
        parent.set({})
        return act()

    return contextvars.copy_context().run(aside)


def _ipywidgets() -> Any:
    try:
        import ipywidgets
    except ImportError:
        raise UsageError("a dashboard needs ipywidgets: pip install 'feliss_nb[lab]'") from None
    return ipywidgets
