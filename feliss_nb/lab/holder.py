"""A process that holds a state and does nothing, to be dumped.

``python -m feliss_nb.lab.holder KIND MEGABYTES`` makes the state, prints ``ready``, and ends with
its standard input.
"""

from __future__ import annotations

import sys

from feliss_nb.lab.states import make


def main(kind: str, megabytes: str) -> None:
    """Hold it."""
    state = make(kind, float(megabytes))
    print("ready", flush=True)
    sys.stdin.read()
    del state


if __name__ == "__main__":
    main(*sys.argv[1:])
