"""The report of a benchmark: its one object, its table, and what it must not tell."""

from __future__ import annotations

import getpass
import json
import math
import platform

import numpy as np
import pytest

from feliss_nb.errors import UsageError
from feliss_nb.lab.report import Figure, Machine, Report

MACHINE = Machine(2, 3 * 2**30, "Abacus 9", "Linux 6", "CPython 3.11.7", {"numpy": "2.0"})


def sample() -> Report:
    report = Report("tasks", MACHINE)
    report.add("continuations", 61250.4, "1/s", at_least=50_000)
    report.add("hop", np.float64(312.5), "us", at_most=np.int64(300))
    report.add("kills", np.int64(10), "")
    return report


def test_the_object():
    found = json.loads(sample().to_json())
    assert list(found) == ["benchmark", "machine", "figures"]
    assert found["benchmark"] == "tasks"
    assert found["figures"] == [
        {"name": "continuations", "value": 61250.4, "unit": "1/s", "target": 50000, "ok": True},
        {"name": "hop", "value": 312.5, "unit": "us", "target": 300, "ok": False},
        {"name": "kills", "value": 10, "unit": ""},
    ]
    assert found["machine"]["memory"] == 3 * 2**30


@pytest.mark.parametrize(
    ("value", "bound", "ok"),
    [
        (1.0, "at most", True),
        (1.001, "at most", False),
        (1.0, "at least", True),
        (0.999, "at least", False),
    ],
)
def test_a_target_has_a_side_and_is_good_itself(value, bound, ok):
    assert Figure("x", value, "s", 1.0, bound).ok is ok


def test_a_report_is_ok_when_no_figure_misses():
    assert not sample().ok
    report = Report("empty", MACHINE)
    report.add("no target", 1, "s")
    assert report.ok


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(value):
    report = Report("tasks", MACHINE)
    with pytest.raises(UsageError, match=r"hop is .*no measurement"):
        report.add("hop", value, "us")
    with pytest.raises(UsageError, match="target of hop"):
        report.add("hop", 1, "us", at_most=value)
    assert report.figures == []


def test_a_name_is_given_once_and_a_target_has_one_side():
    report = sample()
    with pytest.raises(UsageError, match="'kills' already"):
        report.add("kills", 11, "")
    with pytest.raises(UsageError, match="one target"):
        report.add("both", 1, "", at_most=2, at_least=0)


def test_the_table(capsys):
    sample().print()
    assert capsys.readouterr().out == (
        "tasks\n"
        "\n"
        "figure              value  target\n"
        "--------------------------------------------\n"
        "continuations  61,250 1/s  >= 50,000  ok\n"
        "hop              312.5 us  <= 300     MISSED\n"
        "kills                  10\n"
        "\n"
        "2 cores (Abacus 9), 3.0 GiB, Linux 6\n"
        "CPython 3.11.7; numpy 2.0\n"
    )


def test_json_is_all_that_is_printed(capsys):
    sample().print(json=True)
    assert json.loads(capsys.readouterr().out) == sample().to_dict()


def test_a_machine_is_measured():
    machine = Machine.measure()
    assert machine.cores >= 1
    assert machine.memory > 2**26
    assert machine.cpu
    assert machine.kernel
    assert machine.python.endswith(platform.python_version())
    assert machine.libraries["numpy"] == np.__version__


def test_a_machine_is_not_identified():
    text = json.dumps(Machine.measure().to_dict())
    assert platform.node() not in text
    assert "/" not in text
    assert len(getpass.getuser()) < 3 or getpass.getuser() not in text
