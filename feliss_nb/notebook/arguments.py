"""The words behind ``%feliss``: read by a table, turned into values.

A word is a Python expression or a plain name. Everything that can be refused without running the
user's code is refused first, in `parse`; the expressions run afterwards, in `Parsed.values`.
"""

from __future__ import annotations

import ast
import difflib
import enum
import keyword
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from feliss_nb.errors import UsageError


class Kind(enum.Enum):
    """What a word stands for."""

    EXPRESSION = "a Python expression"
    WHOLE = "a whole number"
    NUMBER = "a number of seconds"
    INTERVAL = "a number of seconds, auto, or None"
    WORD = "a name"
    IDENTIFIER = "the name of a Python variable"
    FLAG = "given or not"
    SWITCH = "--name or --no-name"


@dataclass(frozen=True)
class Argument:
    """One argument of a subcommand.

    Attributes
    ----------
    name : str
        The keyword of the Python API (``checkpoint_every``); an option is spelled from it.
    metavar : str
        What the help calls its value.
    help : str
        One line.
    kind : Kind
        What its word stands for.
    choices : tuple of str
        Of a name: those there are; none: any.
    """

    name: str
    metavar: str
    help: str
    kind: Kind = Kind.EXPRESSION
    choices: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """How it is spelled as an option."""
        flag = "--" + self.name.replace("_", "-")
        return (flag, "--no-" + flag[2:]) if self.kind is Kind.SWITCH else (flag,)

    @property
    def takes_value(self) -> bool:
        """A word follows the option."""
        return self.kind not in (Kind.FLAG, Kind.SWITCH)

    @property
    def usage(self) -> str:
        """The option as the help writes it."""
        return "/".join(self.flags) + (f" {self.metavar}" if self.takes_value else "")


@dataclass(frozen=True)
class Subcommand:
    """One subcommand: parsing, help and completion read nothing else.

    Attributes
    ----------
    name : str
        Its name.
    help : str
        One line.
    positional, options : tuple of Argument
        Its arguments, and its options.
    from_cell : str
        The argument that the cell defines in ``%%feliss``; empty if there is no such form.
    is_body : bool
        Whether the whole cell is the body of that function, not its last def.
    optional : bool
        The positional arguments may be left out.
    example : str
        A line that shows it.
    """

    name: str
    help: str
    positional: tuple[Argument, ...] = ()
    options: tuple[Argument, ...] = ()
    from_cell: str = ""
    is_body: bool = False
    optional: bool = False
    example: str = ""

    def arguments(self, cell: bool) -> tuple[Argument, ...]:
        """Give the positional arguments that stand in the line.

        Parameters
        ----------
        cell : bool
            The form with a cell, which defines one of them.

        Returns
        -------
        tuple of Argument
            In their order.
        """
        return tuple(a for a in self.positional if not (cell and a.name == self.from_cell))

    def usage(self, cell: bool = False) -> str:
        """Give the line that the help shows.

        Parameters
        ----------
        cell : bool
            The form with a cell.

        Returns
        -------
        str
            As the user types it.
        """
        words = [a.metavar for a in self.arguments(cell)]
        if self.optional:
            words = [f"[{word}]" for word in words]
        words += [f"[{option.usage}]" for option in self.options]
        return " ".join([("%%" if cell else "%") + "feliss", self.name, *words])


def closest(name: str, names: Iterable[str]) -> str:
    """Say which name may have been meant.

    Parameters
    ----------
    name : str
        What was written.
    names : iterable of str
        What there is.

    Returns
    -------
    str
        `` (did you mean 'map'?)`` or nothing.
    """
    found = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


@dataclass(frozen=True)
class Parsed:
    """A line whose form is right; its expressions have not run yet.

    Attributes
    ----------
    command : Subcommand
        The subcommand.
    words : dict of Argument to str
        The words of the arguments that were given; of a switch, the flag.
    """

    command: Subcommand
    words: dict[Argument, str] = field(default_factory=dict)

    def values(self, evaluate: Callable[[str], Any]) -> dict[str, Any]:
        """Turn the words into values, in the order they were written.

        Parameters
        ----------
        evaluate : callable
            Runs an expression in the user's namespace.

        Returns
        -------
        dict of str to object
            Keywords of the Python API; what was not given is not among them.

        Raises
        ------
        UsageError
            When a value is not of its kind, or a name is not defined.
        """
        return {a.name: _value(self, a, word, evaluate) for a, word in self.words.items()}


def parse(words: list[str], commands: Mapping[str, Subcommand], cell: bool = False) -> Parsed:
    """Read the words of a line.

    Parameters
    ----------
    words : list of str
        The subcommand, its arguments and its options, in any order behind the subcommand.
    commands : mapping of str to Subcommand
        The table.
    cell : bool
        The form with a cell.

    Returns
    -------
    Parsed
        The words, each with its argument.

    Raises
    ------
    UsageError
        Says what is wrong, and with which word.
    """
    command = _subcommand(words[0], commands, cell)
    options = {flag: option for option in command.options for flag in option.flags}
    waiting = list(command.arguments(cell))
    parsed = Parsed(command)
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("--"):
            if not waiting:
                raise _too_many(command, words[1:], word, cell)
            _put(parsed, waiting.pop(0), word, word)
            continue
        flag, equals, value = word.partition("=")
        option = options.get(flag)
        if option is None:
            raise UsageError(
                f"{command.name} has no option {flag}{closest(flag, options)}; "
                f"it takes: {command.usage(cell)}"
            )
        if option.takes_value and not equals:
            value = next(rest, "")
        elif equals and not option.takes_value:
            raise UsageError(f"{flag} takes no value, not {value!r}")
        if option.takes_value and (not value or value.split("=")[0] in options):
            raise UsageError(f"{flag} needs {option.kind.value} behind it: {option.usage}")
        _put(parsed, option, value if option.takes_value else flag, flag)
    if waiting and not command.optional:
        names = " and ".join(argument.metavar for argument in waiting)
        raise UsageError(f"{command.name} needs {names}: {command.usage(cell)}")
    return parsed


def _subcommand(name: str, commands: Mapping[str, Subcommand], cell: bool) -> Subcommand:
    if name not in commands:
        raise UsageError(
            f"there is no subcommand {name!r}{closest(name, commands)}; "
            f"there are: {', '.join(commands)}"
        )
    if cell and not commands[name].from_cell:
        takers = ", ".join(c.name for c in commands.values() if c.from_cell)
        raise UsageError(f"{name} takes no cell (only {takers} do); write: %feliss {name}")
    return commands[name]


def _put(parsed: Parsed, argument: Argument, word: str, spelled: str) -> None:
    """Give `argument` its word, after the checks that need no value."""
    if argument in parsed.words:
        raise UsageError(f"{spelled} is given twice")
    if argument.kind in (Kind.WORD, Kind.IDENTIFIER):
        word = _unquote(word)
        if argument.choices and word not in argument.choices:
            known = ", ".join(argument.choices)
            hint = closest(word, argument.choices)
            raise UsageError(f"there is no {argument.metavar} {word!r}{hint}; there are: {known}")
    elif argument.takes_value:
        _check_syntax(argument, word)
    if argument.kind is Kind.IDENTIFIER and (not word.isidentifier() or keyword.iskeyword(word)):
        raise UsageError(f"{spelled} needs {argument.kind.value}, and {word!r} is none")
    parsed.words[argument] = word


def _unquote(word: str) -> str:
    """Take the quotes off a name that somebody put in quotes."""
    try:
        value = ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
    return value if isinstance(value, str) else word


def _check_syntax(argument: Argument, word: str) -> None:
    try:
        compile(word, "<%feliss>", "eval")
    except (SyntaxError, ValueError) as error:  # ValueError: a null character
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UsageError(
            f"{argument.metavar} is no Python expression: {word!r} ({reason}); "
            "one with blanks in it needs brackets round it"
        ) from None


def _too_many(command: Subcommand, words: list[str], word: str, cell: bool) -> UsageError:
    arguments = command.arguments(cell)
    if not arguments:
        return UsageError(f"{command.name} takes no argument, not {word!r}: {command.usage(cell)}")
    hint = "; an expression with blanks in it needs brackets round it"
    return UsageError(
        f"{word!r} is one argument too many for {command.name}: {command.usage(cell)}"
        + ("" if word.startswith("-") and len(words) == 1 else hint)
    )


def _value(parsed: Parsed, argument: Argument, word: str, evaluate: Callable[[str], Any]) -> object:
    kind = argument.kind
    if kind in (Kind.WORD, Kind.IDENTIFIER):
        return word
    if not argument.takes_value:
        return word == argument.flags[0]
    if kind is Kind.EXPRESSION:
        return evaluate(word)
    if kind is Kind.INTERVAL and _unquote(word) == "auto":
        return "auto"
    spelled = argument.metavar if argument in parsed.command.positional else argument.flags[0]
    try:
        value = evaluate(word)
    except UsageError as error:
        raise UsageError(f"{spelled} needs {kind.value}: {error}") from None
    if value is None and kind is Kind.INTERVAL:
        return None
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        return operator.index(value) if kind is Kind.WHOLE else float(value)
    except (TypeError, ValueError):
        raise UsageError(f"{spelled} needs {kind.value}, not {value!r}") from None
