"""What the magics return besides the session's own objects: notes, help, events, progress."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from feliss_nb.notebook.arguments import Argument, Subcommand
from feliss_nb.runtime.status import JobStatus, Table, human_seconds, printable

if TYPE_CHECKING:
    from feliss_nb.runtime.events import Event


@dataclasses.dataclass(frozen=True, repr=False)
class Page:
    """Some paragraphs and some tables, as text or as HTML.

    Attributes
    ----------
    parts : tuple of str or Table
        From top to bottom; a paragraph may have several lines.
    """

    parts: tuple[str | Table, ...]

    def __repr__(self) -> str:
        return "\n\n".join(
            repr(part) if isinstance(part, Table) else "\n".join(map(printable, part.split("\n")))
            for part in self.parts
        )

    def _repr_html_(self) -> str:
        return "".join(
            part._repr_html_()
            if isinstance(part, Table | Preformatted)
            else f"<p>{html.escape(part).replace(chr(10), '<br>')}</p>"
            for part in self.parts
        )


def overview(commands: Mapping[str, Subcommand]) -> Page:
    """Give the help of all subcommands.

    Parameters
    ----------
    commands : mapping of str to Subcommand
        The table.

    Returns
    -------
    Page
        What bare ``%feliss`` shows.
    """
    examples = [f"%feliss {c.example}" for c in commands.values() if c.example]
    return Page(
        (
            "%feliss SUBCOMMAND ...: computations on ipyparallel engines that survive their loss.",
            Table("", ("subcommand", ""), [(c.name, c.help) for c in commands.values()]),
            "Arguments are Python expressions; one with blanks in it needs brackets round it.\n"
            "%%feliss map SOURCE --out NAME takes the function from the cell: its last def.\n"
            "%%feliss run takes the whole cell, as a job that goes on in the background.\n"
            "%feliss help SUBCOMMAND shows what one takes.",
            "\n".join(["For example:", *examples]),
        )
    )


def manual(command: Subcommand) -> Page:
    """Give the help of one subcommand.

    Parameters
    ----------
    command : Subcommand
        Its row of the table.

    Returns
    -------
    Page
        Usage, meaning, arguments, options, an example.
    """

    def rows(arguments: Sequence[Argument]) -> list[tuple[str, str]]:
        return [(a.usage if a in command.options else a.metavar, a.help) for a in arguments]

    usage = command.usage()
    if command.from_cell:
        usage += f"\n{command.usage(cell=True)}    ({_cell(command)})"
    parts: list[str | Table] = [usage, command.help]
    if command.positional:
        parts.append(Table("arguments", ("", ""), rows(command.positional)))
    parts.append(Table("options", ("", ""), rows(command.options)))
    if command.example:
        parts.append(f"For example: %feliss {command.example}")
    return Page(tuple(parts))


def _cell(command: Subcommand) -> str:
    name = next(a.metavar for a in command.positional if a.name == command.from_cell)
    return (
        f"the cell is the body of {name}" if command.is_body else f"the cell's last def is {name}"
    )


def events_table(events: Iterable[Event], last: int) -> Table:
    """Give the end of an event log as a table.

    Parameters
    ----------
    events : iterable of Event
        The log.
    last : int
        How many events are shown.

    Returns
    -------
    Table
        One row an event: seconds since the session began, what happened, and what belongs to it.
    """
    log = list(events)
    shown = log[max(len(log) - last, 0) :]
    title = f"the last {len(shown)} of {len(log)} events" if len(shown) < len(log) else "events"
    rows = []
    for event in shown:
        what = ", ".join(f"{name} {printable(value)}" for name, value in event.data.items())
        rows.append((f"{event.at:.3f}", event.kind, what))
    return Table(title, ("seconds", "event", ""), rows)


def log_page(events: Iterable[Event], last: int) -> Page:
    """Give the end of an event log in words.

    Parameters
    ----------
    events : iterable of Event
        The log.
    last : int
        How many lines are shown.

    Returns
    -------
    Page
        Times are seconds since the session began.
    """
    from feliss_nb.lab.timeline import timeline

    head, *lines = timeline(events, begun=0.0).splitlines()
    return Page((Preformatted("\n".join([head, *lines[max(len(lines) - last, 0) :]])),))


class Preformatted(str):
    """A text whose columns stand below each other."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self)}</pre>"


@dataclasses.dataclass(frozen=True, repr=False)
class ProgressView:
    """The progress of the jobs that a wait waits for, at one moment.

    Attributes
    ----------
    waiting_for : str
        What the wait waits for.
    jobs : tuple of JobStatus
        The jobs at work or held.
    seconds : float
        How long it has waited.
    """

    waiting_for: str
    jobs: tuple[JobStatus, ...]
    seconds: float

    def __repr__(self) -> str:
        text = f"waiting for {printable(self.waiting_for)}, {human_seconds(self.seconds)}"
        running = [job for job in self.jobs if job.state == "running"] or list(self.jobs)
        if running:
            # The oldest: the others most often wait for it.
            progress = running[0].progress or running[0].state
            text += f": {printable(running[0].label)} {printable(progress)}"
        if len(self.jobs) > 1:
            more = len(self.jobs) - 1
            text += f", {more} more {'job' if more == 1 else 'jobs'}"
        return text

    def _repr_html_(self) -> str:
        head = html.escape(f"waiting for {printable(self.waiting_for)}")
        rows = "".join(self._row(job) for job in self.jobs)
        return f"<div>{head}, {human_seconds(self.seconds)}<table>{rows}</table></div>"

    @staticmethod
    def _row(job: JobStatus) -> str:
        part = job.fraction
        bar = "<progress></progress>" if job.state == "running" else ""
        if part is not None:
            bar = f'<progress max="1" value="{part:.3f}"></progress>'
        texts = (printable(job.label), job.state, printable(job.progress))
        label, state, words = (html.escape(text) for text in texts)
        return f"<tr><td>{label}</td><td>{bar}</td><td>{words or state}</td></tr>"
