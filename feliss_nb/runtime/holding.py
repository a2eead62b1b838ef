"""The variables of a session, as far as the notebook knows them."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from feliss_nb.core import events as ev
from feliss_nb.errors import UsageError
from feliss_nb.runtime.driver import Driver
from feliss_nb.runtime.job import Job
from feliss_nb.runtime.variable import Variable

if TYPE_CHECKING:
    from feliss_nb.runtime.session import BaseSession

_numbers = itertools.count(1)  # of all sessions: so that a foreign handle is told from one's own


class Holding:
    """Makes and finds the handles of variables.

    Parameters
    ----------
    session : BaseSession
        Whose variables.
    driver : Driver
        Its master hears of what the notebook holds.

    Attributes
    ----------
    names : dict of str to Variable
        A variable lives as long as it has a name.
    """

    def __init__(self, session: BaseSession, driver: Driver) -> None:
        self.names: dict[str, Variable] = {}
        self._session, self._driver = session, driver
        self._mine: set[int] = set()  # every variable of this session
        self._handles: weakref.WeakValueDictionary[int, Variable] = weakref.WeakValueDictionary()

    def new(self, records: bool, name: str | None) -> Variable:
        """Return a variable that there was not."""
        if name is not None and (not isinstance(name, str) or not name):
            raise UsageError(f"a variable's name is a text, not {name!r}")
        return self._handle(next(_numbers), records, name)

    def _handle(self, number: int, records: bool, name: str | None = None) -> Variable:
        variable = Variable(self._session, number, records, name)
        self._mine.add(number)
        self._handles[number] = variable
        return variable

    def arrived(self, number: int, records: bool) -> Variable:
        """Return the handle of a variable that came with a result."""
        known = self._handles.get(number)
        if known is not None:
            return known
        self._driver.post(ev.Hold(number))
        return self._handle(number, records)

    def adopt(
        self,
        numbers: Collection[int],
        filled: Mapping[int, Job],
        names: Mapping[str, tuple[int, bool]],
        unnamed: Mapping[int, bool],
    ) -> list[Variable]:
        """Hold what another session, or this one in another process, had.

        Parameters
        ----------
        numbers : collection of int
            All of its variables.
        filled : mapping of int to Job
            The jobs that fill them.
        names, unnamed : mapping
            What shall be held, and whether that holds records.

        Returns
        -------
        list of Variable
            Those without a name, which go when nobody holds them.
        """
        global _numbers
        self._mine.update(numbers)
        _numbers = itertools.count(max([next(_numbers), *(n + 1 for n in numbers)]))
        for name, (number, records) in names.items():
            variable = self.names[name] = self._handle(number, records, name)
            variable.job = filled.get(number)
        self._driver.tell_names({number: name for name, (number, _) in names.items()})
        found = []
        for number, records in unnamed.items():
            variable = self._handle(number, records)
            variable.job = filled.get(number)
            found.append(variable)
        return found

    def has(self, numbers: Collection[int]) -> bool:
        """Whether all of these are variables of this session."""
        return self._mine.issuperset(numbers)

    def bind(self, variables: Iterable[Variable]) -> None:
        """Let those with a name have it from now on."""
        self.names |= {each.name: each for each in variables if each.name is not None}

    def bound(self) -> dict[str, tuple[int, bool]]:
        """Return what has a name, and whether it holds records."""
        return {name: (found.variable, found.records) for name, found in self.names.items()}

    def find(self, name: str) -> Variable:
        """Return the variable of a name."""
        try:
            return self.names[name]
        except (KeyError, TypeError):  # a list, say
            known = ", ".join(sorted(self.names)) or "there are none"
            raise UsageError(f"no variable has the name {name!r} (names: {known})") from None

    def drop(self, name: str) -> None:
        """Forget a name; the variable goes when no handle is left."""
        found = self.find(name).name or name
        self._driver.run_soon(lambda: self._driver.forget_name(found))
        del self.names[found]
