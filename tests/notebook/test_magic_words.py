"""The line behind the magic: words, and what the table makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feliss_nb.errors import UsageError
from feliss_nb.notebook.arguments import parse
from feliss_nb.notebook.commands import COMMANDS
from feliss_nb.notebook.words import split, split_open

_blank = st.text(" \t", min_size=1, max_size=3)
_atoms = st.one_of(
    st.sampled_from(["x", "range", "1.5", "-1", "a.b", "x+1", "é"]),
    st.text(max_size=8).map(repr),  # a string literal, with quotes and brackets inside
    st.text("ab )](['#", max_size=6).map(lambda text: f'"""{text}"""'),
)
_brackets = st.sampled_from(["()", "[]", "{}"])


def _nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    contents = st.lists(inner, max_size=4).flatmap(
        lambda parts: _blank.map(lambda b: b.join(parts))
    )
    return st.tuples(st.sampled_from(["", "f", "lambda"]), _brackets, contents).map(
        lambda parts: f"{parts[0]}{parts[1][0]}{parts[2]}{parts[1][1]}"
    )


_words = st.recursive(_atoms, _nested, max_leaves=8)


@given(st.lists(_words, max_size=6), _blank, st.sampled_from(["", " ", "  "]))
def test_words_with_brackets_and_quotes_split_where_they_were_joined(
    words: list[str], blank: str, edge: str
) -> None:
    assert split(edge + blank.join(words) + edge) == words


@given(st.text("ab ()[]{}'\"\\#", max_size=30))
def test_any_line_is_split_or_refused_and_loses_nothing(line: str) -> None:
    words, problem = split_open(line)
    assert all(words)
    if not problem and "#" not in line:
        assert "".join("".join(words).split()) == "".join(line.split())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("map (lambda x: x + 1) data", ["map", "(lambda x: x + 1)", "data"]),
        ("map f ['a b', \"c)d\"]", ["map", "f", "['a b', \"c)d\"]"]),
        ("kill 2   # and watch", ["kill", "2"]),
        ("map f 'it\\'s # no comment'", ["map", "f", "'it\\'s # no comment'"]),
        ("map f a[0:2][1] {1: (2, 3)}", ["map", "f", "a[0:2][1]", "{1: (2, 3)}"]),
        ("", []),
    ],
)
def test_examples(line: str, words: list[str]) -> None:
    assert split(line) == words


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("map (1, 2", r"'\(' is never closed: \(1, 2"),
        ("map [1, (2]", r"'\]' closes nothing"),
        ("map 1)", r"'\)' closes nothing: 1\)"),
        ("map 'abc", "the quote ' is never closed: 'abc"),
        ('map """a"', 'the quote " is never closed'),
    ],
)
def test_what_has_no_partner_is_refused(line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split(line)


def values(line: str, cell: bool = False, **names: Any) -> dict[str, Any]:
    return parse(split(line), COMMANDS, cell).values(lambda text: eval(text, names))


def test_values_are_those_given_and_no_others() -> None:
    assert values("start --workers 2*n --no-replace --checkpoint-every None", n=2) == {
        "workers": 4,
        "replace": False,
        "checkpoint_every": None,
    }
    assert values("start --replace --name=my-run") == {"replace": True, "name": "my-run"}
    assert values("reduce len pairs --with-key --out 'd'", pairs=[1]) == {
        "f": len,
        "pairs": [1],
        "with_key": True,
        "out": "d",
    }


def test_options_may_stand_anywhere_and_negative_numbers_are_arguments() -> None:
    assert values("kill --wait -1") == {"rank": -1, "wait": True}
    assert values("map --out d str a==1", a=1) == {"out": "d", "f": str, "source": True}


def test_a_cell_defines_the_function() -> None:
    assert values("map range(3) --out d", cell=True) == {"source": range(3), "out": "d"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("strat", r"there is no subcommand 'strat' \(did you mean 'start'\?\); there are: start,"),
        ("start --worker 3", r"start has no option --worker \(did you mean '--workers'"),
        ("start --bogus 3", r"start has no option --bogus; it takes: %feliss start \[--workers N"),
        ("start --workers", "--workers needs a whole number behind it: --workers N"),
        ("start --workers --spares 1", "--workers needs a whole number behind it"),
        ("start --workers=", "--workers needs a whole number"),
        ("start --workers 2.5", "--workers needs a whole number, not 2.5"),
        ("start --workers True", "--workers needs a whole number, not True"),
        ("start --workers '4'", "--workers needs a whole number, not '4'"),
        ("start --workers 1 --workers 2", "--workers is given twice"),
        ("start --replace --no-replace", "--no-replace is given twice"),
        ("start --replace=1", "--replace takes no value, not '1'"),
        ("start 4", "start takes no argument, not '4': %feliss start"),
        ("wait --timeout None", "--timeout needs a number of seconds, not None"),
        ("wait --timeout []", r"--timeout needs a number of seconds, not \[\]"),
        ("map", "map needs F and SOURCE: %feliss map F SOURCE"),
        ("map f", "map needs SOURCE: %feliss map F SOURCE"),
        ("map lambda x: x+1 data", r"F is no Python expression: 'lambda' .*needs brackets round"),
        ("map f a b", "'b' is one argument too many for map.*needs brackets round it"),
        ("map f 1+", "SOURCE is no Python expression: '1\\+'"),
        ("map f (yield)", "SOURCE is no Python expression"),
        ("map f x --out 2x", "--out needs the name of a Python variable, and '2x' is none"),
        ("map f x --out class", "--out needs the name of a Python variable, and 'class' is none"),
        ("kill", "kill needs RANK: %feliss kill RANK"),
        ("kill 'a'", "RANK needs a whole number, not 'a'"),
    ],
)
def test_mistakes_are_named(line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        values(line)


def test_only_some_subcommands_take_a_cell() -> None:
    with pytest.raises(
        UsageError, match=r"status takes no cell \(only map, reduce, spmd, run do\)"
    ):
        values("status", cell=True)
