"""``feliss-nb lab``: JupyterLab on a copy of the notebooks that the reader may change."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from pathlib import Path

import feliss_nb
from feliss_nb.errors import UsageError

#: Where the copy goes, unless told otherwise.
FOLDER = "feliss-lessons"
FIRST = "00-quick-start.ipynb"


def main(
    directory: str | None = None,
    port: int | None = None,
    no_browser: bool = False,
    allow_root: bool = False,
) -> None:
    """Copy the notebooks, and let JupyterLab take this process's place.

    So Ctrl-C goes to it alone; it ends its kernels, and they their engines.

    Parameters
    ----------
    directory : str, optional
        Where the copy goes; what is there already stays as it is.
    port : int, optional
        The port of the server. Default: 8888, or the next one that is free.
    no_browser : bool
        Print the address and open no browser.
    allow_root : bool
        Start it as root, which Jupyter refuses otherwise.

    Raises
    ------
    UsageError
        If JupyterLab is not installed, the notebooks are not there, the port is taken, or the
        directory cannot be written to.
    """
    check(port, allow_root)
    place = Path(directory or FOLDER).absolute()
    copied = copy(source(), place)
    print(f"{copied} notebooks copied to {place}; those that were there stay as they are.")
    print("Ctrl-C ends JupyterLab, its kernels and their engines.", flush=True)
    argv = command(place, port, no_browser, allow_root)
    os.execv(argv[0], argv)  # noqa: S606 - no shell is the point


def check(port: int | None, allow_root: bool) -> None:
    """Raise UsageError if JupyterLab could not start."""
    missing = [
        name for name in ("jupyterlab", "ipywidgets") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise UsageError(
            f"{' and '.join(missing)} not installed for {sys.executable}: "
            "pip install 'feliss_nb[lab]'"
        )
    if os.geteuid() == 0 and not allow_root:
        raise UsageError(
            "JupyterLab refuses to run as root, who may do anything here: start it as another "
            "user, or with --allow-root"
        )
    if port is None:
        return
    if not 0 < port < 65536:
        raise UsageError(f"--port takes a number from 1 to 65535, not {port}")
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(
                f"port {port} cannot be used: {error.strerror}; give another, or none"
            ) from None


def source() -> Path:
    """Find the notebooks: beside the package in a checkout, inside it in an installed wheel.

    Raises
    ------
    UsageError
        If they are in neither place.
    """
    package = Path(feliss_nb.__file__).parent
    for place in (package.parent / "notebooks", package / "lessons"):
        if (place / FIRST).is_file():
            return place
    raise UsageError(
        f"the notebooks are not in {package} and not beside it: this installation left them out; "
        "install a wheel (pip install feliss_nb), or take the folder notebooks/ of the repository"
    )


def copy(notebooks: Path, place: Path) -> int:
    """Copy the notebooks that a directory does not have yet, and trust them; return how many.

    Raises
    ------
    UsageError
        If it cannot be written to.
    """
    copied = 0
    try:
        place.mkdir(parents=True, exist_ok=True)
        for notebook in sorted(notebooks.glob("*.ipynb")):
            if not (place / notebook.name).exists():
                # Whole or not at all: half a notebook would stay for ever.
                half = place / f".{notebook.name}.{os.getpid()}"
                try:
                    half.write_bytes(notebook.read_bytes())
                    half.rename(place / notebook.name)
                finally:
                    half.unlink(missing_ok=True)
                trust(place / notebook.name)
                copied += 1
    except OSError as error:
        raise UsageError(
            f"no notebooks can be written to {place}: {error.strerror}; give another directory: "
            "feliss-nb lab DIRECTORY"
        ) from None
    return copied


def trust(notebook: Path) -> None:
    """Sign a notebook for Jupyter, as ``jupyter trust`` does.

    One with outputs that nobody signed shows them as plain text, and what its reader runs too, when
    the page is loaded again: tables without lines, and no dashboard.
    """
    import nbformat
    from nbformat.sign import NotebookNotary

    NotebookNotary().sign(nbformat.read(notebook, as_version=4))


def command(place: Path, port: int | None, no_browser: bool, allow_root: bool) -> list[str]:
    """Give the command line of JupyterLab."""
    argv = [sys.executable, "-m", "jupyterlab"]
    argv += [f"--ServerApp.root_dir={place}", f"--LabApp.default_url=/lab/tree/{FIRST}"]
    argv += ["--ServerApp.answer_yes=True"]  # one Ctrl-C ends it, without a question
    if port is not None:
        argv += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if no_browser:
        argv.append("--no-browser")
    if allow_root:
        argv.append("--allow-root")
    return argv
