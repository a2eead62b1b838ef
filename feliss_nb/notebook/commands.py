"""The subcommands of ``%feliss``: one table, from which parsing, help and completion derive."""

from __future__ import annotations

from dataclasses import replace

from feliss_nb.notebook.arguments import Argument, Kind, Subcommand

_SESSION = Argument("session", "NAME", "the session that is meant, if not the last", Kind.WORD)
_OUT = Argument("out", "NAME", "bind the result to this name", Kind.IDENTIFIER)
_WITH_KEY = Argument("with_key", "", "the function gets the key and its values", Kind.FLAG)

_MAP_F = Argument("f", "F", "a function of one record; a generator function gives any number")
_REDUCE_F = Argument("f", "F", "a function of the list of one key's values")
_SOURCE = Argument("source", "SOURCE", "a variable, or anything that can be iterated over")
_PAIRS = Argument("pairs", "PAIRS", "a variable of pairs (key, value)")

_WORKERS = Argument("workers", "N", "engines that host ranks", Kind.WHOLE)
_SPARES = Argument("spares", "N", "engines ready to take a rank over", Kind.WHOLE)
_PLACE = Argument("store", "PLACE", "a directory, or a URL that fsspec knows", Kind.WORD)
_STORED = (
    Argument("name", "NAME", "what the session is called", Kind.WORD),
    Argument("copies", "N", "copies of each snapshot on other engines", Kind.WHOLE),
    Argument(
        "checkpoint_every",
        "SECONDS",
        "seconds of running work between checkpoints; auto: by their cost; None: only on request",
        Kind.INTERVAL,
    ),
    Argument("mtbf", "SECONDS", "for auto: the mean time between losses", Kind.NUMBER),
    Argument("capture", "NAME", "how a rank becomes a snapshot: full, forked, ...", Kind.WORD),
    Argument("keep", "N", "how many checkpoints stay on the store", Kind.WHOLE),
)
_NEW = (
    *_STORED,
    Argument("seed", "N", "seed of the random numbers", Kind.WHOLE),
    Argument("store", "PLACE", "keep checkpoints there too: a directory or a URL", Kind.WORD),
)
_ENGINES = (
    Argument("replace", "", "start a new spare for one that was used", Kind.SWITCH),
    Argument("engines", "KIND", "local, or mpi: all under one mpiexec", Kind.WORD),
)

_ALL = (
    Subcommand(
        "start",
        "Start engines and a session on them.",
        options=(
            _WORKERS,
            _SPARES,
            *_NEW,
            *_ENGINES,
        ),
        example="start --workers 4 --spares 1",
    ),
    Subcommand(
        "attach",
        "Make a session on the engines of a cluster that runs already.",
        options=(
            Argument("profile", "NAME", "the ipyparallel profile", Kind.WORD),
            Argument("cluster_id", "ID", "the cluster id", Kind.WORD),
            Argument("client", "EXPR", "an ipyparallel Client"),
            _WORKERS,
            _SPARES,
            *_NEW,
        ),
        example="attach --profile slurm --workers 4",
    ),
    Subcommand(
        "restore",
        "Go on from the checkpoints that a session kept on a store; names are bound again.",
        positional=(_PLACE,),
        options=(
            _WORKERS,
            _SPARES,
            Argument("checkpoint", "N", "which one; the newest if not given", Kind.WHOLE),
            *_STORED,
            *_ENGINES,
        ),
        example="restore kept --workers 2",
    ),
    Subcommand(
        "resume",
        "Go on with a named session whose process has ended; its names are bound again.",
        positional=(Argument("name", "NAME", "what start was given as --name", Kind.WORD),),
        options=(
            Argument("force", "", "take it over though its process lives", Kind.FLAG),
            Argument("timeout", "SECONDS", "until its engines must have answered", Kind.NUMBER),
        ),
        example="resume mine",
    ),
    Subcommand(
        "sessions", "Show the named sessions that are alive or can go on, of every process."
    ),
    Subcommand(
        "map",
        "Apply a function to every record; returns at once.",
        positional=(_MAP_F, _SOURCE),
        options=(_OUT,),
        from_cell="f",
        example="map tokenize corpus --out pairs",
    ),
    Subcommand(
        "reduce",
        "Bring the values of each key together and reduce them; returns at once.",
        positional=(_REDUCE_F, _PAIRS),
        options=(_OUT, _WITH_KEY),
        from_cell="f",
        example="reduce sum pairs --out counts",
    ),
    Subcommand(
        "spmd",
        "Run a function of an mpi4py communicator on every rank; returns at once.",
        positional=(Argument("main", "MAIN", "a function of the communicator"),),
        options=(_OUT,),
        from_cell="main",
        example="spmd main --out norms",
    ),
    Subcommand(
        "mapreduce",
        "Map, then reduce what the map gave; returns at once.",
        positional=(
            Argument("map", "MAP", "a function of one record that gives pairs (key, value)"),
            Argument("reduce", "REDUCE", _REDUCE_F.help),
            _SOURCE,
        ),
        options=(
            _OUT,
            Argument("combine", "F", "reduces the values of a key where they arise"),
            _WITH_KEY,
        ),
        example="mapreduce tokenize sum corpus --out counts",
    ),
    Subcommand(
        "run",
        "Run a function, or a whole cell, once on a rank; returns at once, and shows what came.",
        positional=(Argument("f", "F", "a function without arguments"),),
        options=(
            Argument(
                "out", "NAME", "bind the job to this name; its result() waits", Kind.IDENTIFIER
            ),
            Argument("rank", "RANK", "where; 0 if not given", Kind.WHOLE),
        ),
        from_cell="f",
        is_body=True,
        example="run simulate --rank 1 --out job",
    ),
    Subcommand(
        "wait",
        "Wait until every job is done; Ctrl-C ends the wait, not the jobs.",
        options=(Argument("timeout", "SECONDS", "wait no longer than this", Kind.NUMBER),),
        example="wait --timeout 60",
    ),
    Subcommand(
        "checkpoint",
        "Take a checkpoint now, and wait for its commit.",
        options=(Argument("durable", "", "wait until the store has it too", Kind.FLAG),),
    ),
    Subcommand(
        "checkpoints",
        "Show the checkpoints on a store.",
        positional=(_PLACE,),
        example="checkpoints kept",
    ),
    Subcommand(
        "anatomy",
        "Show what the last checkpoint is made of, and why each part is there.",
        options=(Argument("plot", "", "as a treemap", Kind.FLAG),),
        example="anatomy --plot",
    ),
    Subcommand(
        "plot",
        "Measure, in sessions of its own, and draw.",
        positional=(
            Argument(
                "what",
                "WHAT",
                "checkpoints (next to dumps of the whole memory), recovery, overhead, speedup",
                Kind.WORD,
                ("checkpoints", "recovery", "overhead", "speedup"),
            ),
        ),
        options=(
            Argument("megabytes", "SIZES", "sizes of the states, or of the text of speedup"),
            Argument("repeats", "N", "runs of each; 3 if not given", Kind.WHOLE),
            Argument("data", "", "as a pandas.DataFrame", Kind.FLAG),
        ),
        example="plot checkpoints",
    ),
    Subcommand("status", "Show the session, its engines, ranks and jobs."),
    Subcommand(
        "dashboard",
        "Show engines, time line, checkpoints and log, live, with buttons; a table in a terminal.",
        options=(
            Argument(
                "replay", "FILE", "show a trace again; sample: one that comes along", Kind.WORD
            ),
        ),
        example="dashboard",
    ),
    Subcommand(
        "record",
        "Write what happens into a file, for %feliss dashboard --replay; it ends with the session.",
        positional=(Argument("path", "FILE", "lines of JSON", Kind.WORD),),
        example="record run.jsonl",
    ),
    Subcommand(
        "timeline",
        "Draw what each rank did, with checkpoints, losses and recoveries.",
        options=(
            Argument("last", "SECONDS", "only the last of it", Kind.NUMBER),
            Argument("data", "", "as a pandas.DataFrame", Kind.FLAG),
        ),
        example="timeline --last 60",
    ),
    Subcommand(
        "log",
        "Tell what happened, a line each.",
        options=(Argument("last", "N", "how many lines; 50 if not given", Kind.WHOLE),),
        example="log --last 20",
    ),
    Subcommand(
        "explain",
        "Tell the story of a recovery.",
        positional=(
            Argument(
                "which", "WHICH", "last, or its number from 1 on; last if not given", Kind.WORD
            ),
        ),
        optional=True,
        example="explain last",
    ),
    Subcommand(
        "kill",
        "Kill the engine that hosts a rank (SIGKILL), to see the recovery.",
        positional=(Argument("rank", "RANK", "the rank", Kind.WHOLE),),
        options=(
            Argument(
                "wait", "", "until every rank runs, with the copies that can be had", Kind.FLAG
            ),
        ),
        example="kill 2",
    ),
    Subcommand(
        "inject",
        "Carry out a fault plan while jobs run; None calls it off. kill-kernel kills this kernel.",
        positional=(Argument("plan", "PLAN", "a feliss_nb.FaultPlan, a Fault, or None"),),
        example="inject feliss_nb.Fault('stop',rank=1,seconds=2)",
    ),
    Subcommand("stop", "Stop the session and its engines."),
    Subcommand(
        "events",
        "Show the last events of the session's log.",
        options=(Argument("last", "N", "how many; 50 if not given", Kind.WHOLE),),
        example="events --last 20",
    ),
    Subcommand(
        "help",
        "Show the subcommands, or what one of them takes.",
        positional=(Argument("subcommand", "SUBCOMMAND", "one of them", Kind.WORD),),
        optional=True,
        example="help map",
    ),
)


#: Every subcommand by its name, in the order of the help. Each names its session in the same way.
COMMANDS = {
    command.name: replace(command, options=(*command.options, _SESSION)) for command in _ALL
}
