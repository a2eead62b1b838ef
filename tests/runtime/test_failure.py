"""How a user's error is told in the notebook."""

from __future__ import annotations

import pytest

from feliss_nb.errors import FelissError, UnpicklableError, UsageError
from feliss_nb.runtime.failure import describe


def told(error: Exception) -> str:
    """What the notebook shows of an error that a function of the user's has raised."""

    def visit() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        visit()
    return str(describe(caught.value, 1, "visit", "record 3").error())


def test_an_error_of_the_users_stands_in_the_first_line() -> None:
    first, *_, last = told(KeyError("lost")).splitlines()
    assert first == "visit raised KeyError: 'lost' on rank 1, record 3"
    assert last == "KeyError: 'lost'"


@pytest.mark.parametrize("error", [UnpicklableError("x", "lock"), UsageError("give another rank")])
def test_what_ours_advise_is_said_once(error: FelissError) -> None:
    text = told(error)
    assert text.count(str(error)) == 1
    assert text.startswith(f"visit raised {type(error).__name__} on rank 1, record 3\n")
    assert "in visit" in text
