"""``feliss-nb``: the commands of a terminal.

A command is a function ``f(json: bool) -> int | None`` that prints what it found (with ``json``,
one object on standard output and nothing else there) and returns the exit code. ``lab``, which
finds nothing, takes no ``json``. A command is imported only when it is asked for, so that
``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib import metadata

from feliss_nb.errors import FelissError, InternalError

Command = Callable[..., "int | None"]

#: What ``bench NAME`` measures; the function of that name in ``feliss_nb.lab.bench`` does it.
BENCHMARKS = {
    "tasks": "continuations a second, a hop between engines, arrays between engines",
    "mpi": "messages and collectives of SPMD programs, next to plain mpi4py",
    "recovery": "from SIGKILL to the last rank running again, with small and with large state",
    "checkpoint": "checkpoints next to dumps of the whole memory: time, pause, bytes",
    "overhead": "by how much checkpoints delay a job at the interval that a session chooses",
    "lu": "LU factorization, next to scipy's and to the same under mpi4py (the algorithms extra)",
    "wordcount": "word count, protection on, next to multiprocessing.Pool",
    "chaos": "random programs on real engines under random fault plans: what came of them",
    "kills": "an iteration under which an engine is killed every few seconds",
    "simulate": "random sessions with faults in the simulator: what came of them, events a second",
}


def version() -> str:
    """Version of the installed package, or a word that it is run from its source."""
    try:
        return metadata.version("feliss_nb")
    except metadata.PackageNotFoundError:
        return "(not installed: run from its source)"


def make_parser() -> argparse.ArgumentParser:
    """Build the parser; what is chosen lands in ``target``, as ``module:function``."""
    parser = argparse.ArgumentParser(
        prog="feliss-nb",
        description="Parallel computations that survive the loss of their workers.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"feliss_nb {version()}")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")

    def leaf(
        into: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, target: str
    ) -> argparse.ArgumentParser:
        command = into.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.add_argument("--json", action="store_true", help="print the figures as one object")
        command.set_defaults(target=target)
        return command

    demo = leaf(
        commands,
        "demo",
        "count words, lose a worker in the middle, recover, compare",
        "feliss_nb.lab.demo:main",
    )
    demo.add_argument("--picture", metavar="FILE", help="draw the time line (.svg or .png)")
    where = "feliss_nb.notebook.terminal"
    text = "list the named sessions that are alive or can go on"
    leaf(commands, "sessions", text, f"{where}:sessions")
    text = "kill the engine that hosts a rank of a named session (SIGKILL), also from outside"
    kill = leaf(commands, "kill", text, f"{where}:kill")
    kill.add_argument("name", metavar="NAME", help="the session")
    kill.add_argument("rank", metavar="RANK", type=int, help="the rank")
    text = "end a named session whose process is gone"
    end = leaf(commands, "stop", text, f"{where}:stop")
    end.add_argument("name", metavar="NAME", help="the session")
    text = "remove what ended sessions have left behind"
    leaf(commands, "clean", text, f"{where}:clean")
    text = "start JupyterLab on a copy of the notebooks, which is yours to change"
    lab = commands.add_parser("lab", help=text, description=text, allow_abbrev=False)
    lab.set_defaults(target="feliss_nb.lab.lessons:main")
    text = "where the copy goes (feliss-lessons); notebooks that are there stay as they are"
    lab.add_argument("directory", nargs="?", metavar="DIRECTORY", help=text)
    lab.add_argument("--port", type=int, metavar="N", help="of the server (8888 or the next free)")
    lab.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    lab.add_argument("--allow-root", action="store_true", help="start it as root all the same")
    text = "measure, with a target where there is one"
    bench = commands.add_parser("bench", help=text, description=text, allow_abbrev=False)
    names = bench.add_subparsers(metavar="BENCHMARK", title="benchmarks", required=True)
    for name, text in BENCHMARKS.items():
        command = leaf(names, name, text, f"feliss_nb.lab.bench:{name}")
        if name == "chaos":
            command.add_argument("--runs", type=int, metavar="N", help="how many (30)")
            command.add_argument("--seed", type=int, metavar="S", help="of the first (0)")
        if name == "kills":
            text = "of the job, undisturbed (60)"
            command.add_argument("--seconds", type=float, metavar="T", help=text)
            command.add_argument("--every", type=float, metavar="T", help="seconds (3)")
            command.add_argument("--seed", type=int, metavar="S", help="of graph and victims (0)")
        if name == "simulate":
            command.add_argument("--runs", type=int, metavar="N", help="how many sessions (1000)")
            command.add_argument("--seed", type=int, metavar="S", help="of the first (0)")
            command.add_argument("--workers", type=int, metavar="W", help="of a large one (2000)")
            command.add_argument("--calls", type=int, metavar="C", help="most of a program (6)")
        if name == "checkpoint":
            command.add_argument("--repeats", type=int, metavar="N", help="of each (5)")
            text = "one of: paper, slow, pause, disk, restore, memory, others (all)"
            command.add_argument("--part", metavar="PART", help=text)
        if name == "overhead":
            command.add_argument("--runs", type=int, metavar="N", help="pairs of runs (10)")
            command.add_argument("--capture", metavar="NAME", help="how ranks are captured")
        if name == "mpi":
            command.add_argument("--workers", type=int, metavar="N", help="ranks (2)")
    return parser


def load(target: str) -> Command:
    """Import the function that ``module:function`` names."""
    module, _, name = target.partition(":")
    command: Command = getattr(importlib.import_module(module), name)
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (2, from argparse, for a line that makes no sense)."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if "target" not in options:
        parser.print_help()
        return 0
    try:
        given = {k: v for k, v in vars(options).items() if k != "target" and v is not None}
        return load(options.target)(**given) or 0
    except InternalError:
        raise  # our bug: the traceback is what a report needs
    except FelissError as error:
        print(f"feliss-nb: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("feliss-nb: interrupted", file=sys.stderr)
        return 130  # 128 + SIGINT, as a shell says it


if __name__ == "__main__":
    sys.exit(main())
