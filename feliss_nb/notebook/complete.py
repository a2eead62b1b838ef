"""Tab behind ``%feliss``: subcommands, options, names of sessions, and ranks to kill."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from feliss_nb.errors import UsageError
from feliss_nb.notebook import sessions
from feliss_nb.notebook.arguments import Subcommand
from feliss_nb.notebook.commands import COMMANDS
from feliss_nb.notebook.words import split_open

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext, SimpleMatcherResult

#: ``%feliss ...``, ``%%feliss ...``, ``x = %feliss ...``; the rest is what follows.
_MAGIC = re.compile(r"(?:[^#'\"%]*=)?\s*%%?feliss\s+(?P<rest>.*)", re.DOTALL)
#: With IPython's automagic the percent sign may be left out, at the start of a line.
_AUTOMAGIC = re.compile(r"\s*(?:%%?)?feliss\s+(?P<rest>[^=].*|)", re.DOTALL)


def candidates(rest: str, cell: bool = False) -> list[str]:
    """Give what may follow.

    Parameters
    ----------
    rest : str
        The line between the magic's name and the cursor.
    cell : bool
        The form with a cell.

    Returns
    -------
    list of str
        Whole words that begin with the word at the cursor; none where an expression stands, which
        IPython completes better.
    """
    words, open_end = split_open(rest)
    if open_end:
        return []
    word = "" if not rest or rest[-1].isspace() or not words else words.pop()
    if not words or (words == ["help"] and not word.startswith("-")):
        names = [name for name, command in COMMANDS.items() if command.from_cell or not cell]
        return [name for name in names if name.startswith(word)]
    command = COMMANDS.get(words[0])
    if command is None:
        return []
    if words[-1] == "--session":
        found = _session_names()
    elif (chosen := _choices(command, words, word)) is not None:
        found = chosen
    elif words == ["kill"] and not word.startswith("-"):
        found = _ranks()
    elif words == ["explain"] and not word.startswith("-"):
        found = ["last"]
    elif words[-1] == "--replay":
        found = ["sample"]
    else:
        found = _flags(command, words, word, cell)
    return [name for name in found if name.startswith(word)]


def _session_names() -> list[str]:
    try:
        return [session.name for session in sessions.live()]
    except UsageError:
        return []


def _ranks() -> list[str]:
    try:
        return [str(rank) for rank in range(sessions.find().size)]
    except UsageError:
        return []


def _choices(command: Subcommand, words: list[str], word: str) -> list[str] | None:
    """What the argument at the cursor can be, if there is a list of it."""
    options = {flag: option for option in command.options for flag in option.flags}
    last = options.get(words[-1])
    if last is not None and last.choices:
        return list(last.choices)
    first = command.positional[:1]
    if len(words) == 1 and first and first[0].choices and not word.startswith("-"):
        return list(first[0].choices)
    return None


def _flags(command: Subcommand, words: list[str], word: str, cell: bool) -> list[str]:
    """Options that are not given yet, where one may stand."""
    options = {flag: option for option in command.options for flag in option.flags}
    last = options.get(words[-1])
    if last is not None and last.takes_value:
        return []
    given = {options[flag].name for flag in words if flag in options}
    values = sum(1 for flag in words if flag in options and options[flag].takes_value)
    positional = sum(1 for flag in words[1:] if not flag.startswith("--")) - values
    if not word.startswith("-") and positional < len(command.arguments(cell)):
        return []
    return [flag for flag, option in options.items() if option.name not in given]


def matcher(context: CompletionContext) -> SimpleMatcherResult:
    """Complete as one of IPython's matchers.

    Parameters
    ----------
    context : CompletionContext
        The line and the cursor.

    Returns
    -------
    dict
        The candidates; where there are some, no other matcher (files, names) is asked.
    """
    from IPython.core.completer import SimpleCompletion

    line = context.text_until_cursor
    match = _MAGIC.fullmatch(line)
    found = candidates(match["rest"], "%%feliss" in line) if match else []
    # A token is what IPython replaces: only the part behind its last delimiter.
    found = [name for name in found if name.startswith(context.token)]
    return {
        "completions": [SimpleCompletion(name, type="magic") for name in found],
        "suppress": bool(found),
        "ordered": True,
    }


matcher.matcher_api_version = 2  # type: ignore[attr-defined]
matcher.matcher_identifier = "feliss_nb"  # type: ignore[attr-defined]


def hook(shell: Any, event: Any) -> list[str]:
    """Complete as a ``complete_command`` hook, which alone sees a line without a percent sign.

    Parameters
    ----------
    shell : InteractiveShell
        The shell, which binds the hook.
    event : object
        Its ``text_until_cursor`` is the line.

    Returns
    -------
    list of str
        The candidates.
    """
    match = _AUTOMAGIC.fullmatch(event.text_until_cursor)
    return candidates(match["rest"], "%%feliss" in event.text_until_cursor) if match else []
