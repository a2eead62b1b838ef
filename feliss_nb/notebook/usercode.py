"""Run what the user wrote, in the user's namespace."""

from __future__ import annotations

import ast
import builtins
import inspect
from types import TracebackType
from typing import TYPE_CHECKING, Any

from feliss_nb.errors import UsageError
from feliss_nb.notebook.arguments import closest

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_FILENAME = "<%feliss>"
_NO_PLAIN_FUNCTION = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def evaluate(shell: InteractiveShell, expression: str) -> Any:
    """Evaluate an expression.

    Parameters
    ----------
    shell : InteractiveShell
        Whose namespace.
    expression : str
        The expression; its syntax was checked.

    Returns
    -------
    object
        Its value.

    Raises
    ------
    UsageError
        When it uses a name that is not defined. What the code it calls raises is raised as it is.
    """
    code = compile(expression, _FILENAME, "eval")
    try:
        return eval(code, shell.user_global_ns, shell.user_ns)  # noqa: S307 (the user's own code)
    except NameError as error:
        # One from inside a function of the user's is the function's: it keeps its traceback.
        if error.name is None or _origin(error.__traceback__) != _FILENAME:
            raise
        hint = closest(error.name, [*shell.user_ns, *vars(builtins)])
        where = f", in {expression!r}" if expression != error.name else ""
        raise UsageError(f"the name {error.name!r} is not defined{hint}{where}") from None


def _origin(traceback: TracebackType | None) -> str:
    """File of the frame that raised."""
    name = ""
    while traceback is not None:
        name, traceback = traceback.tb_frame.f_code.co_filename, traceback.tb_next
    return name


def define(shell: InteractiveShell, cell: str) -> Any:
    """Run a cell and give the function that it defines last, at its top level.

    Parameters
    ----------
    shell : InteractiveShell
        In whose namespace; the cell is kept where tracebacks find their lines.
    cell : str
        The cell.

    Returns
    -------
    callable
        The function, with its decorators.

    Raises
    ------
    UsageError
        When it defines none, or is no Python; the cell was not run then.
    """
    try:
        source = shell.transform_cell(cell)
        name = shell.compile.cache(source, shell.displayhook.prompt_count, raw_code=cell)
        tree = shell.compile.ast_parse(source, filename=name)
    except SyntaxError as error:
        raise UsageError(_where(error)) from None
    assert isinstance(tree, ast.Module)
    functions = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    if not functions:
        raise UsageError("the cell defines no function: write one with def, at its top level")
    if isinstance(functions[-1], ast.AsyncFunctionDef):
        raise UsageError(f"{functions[-1].name} is async: write a plain function, with def")
    code = shell.compile(shell.transform_ast(tree), name, "exec")
    exec(code, shell.user_global_ns, shell.user_ns)  # noqa: S102 (the user's own code)
    return shell.user_ns[functions[-1].name]


def body(shell: InteractiveShell, cell: str) -> Any:
    """Make a cell the body of a function, which returns the value of its last expression.

    Parameters
    ----------
    shell : InteractiveShell
        Whose names the cell sees; what it assigns is its own.
    cell : str
        The cell.

    Returns
    -------
    callable
        The function, without arguments; it did not run.

    Raises
    ------
    UsageError
        When the cell is empty, no Python, or cannot be a function's body.
    """
    try:
        source = shell.transform_cell(cell)
        name = shell.compile.cache(source, shell.displayhook.prompt_count, raw_code=cell)
        tree = shell.compile.ast_parse(source, filename=name)
        assert isinstance(tree, ast.Module)
        tree = shell.transform_ast(tree)
        if not tree.body:
            raise UsageError("the cell is empty: write what shall run")
        last = tree.body[-1]
        if isinstance(last, ast.Expr):
            tree.body[-1] = ast.copy_location(ast.Return(last.value), last)
        function = ast.parse("def cell(): pass").body[0]
        assert isinstance(function, ast.FunctionDef)
        function.body = tree.body
        module: Any = ast.fix_missing_locations(ast.Module([function], []))
        code = shell.compile(module, name, "exec")
    except SyntaxError as error:
        raise UsageError(_where(error)) from None
    found: dict[str, Any] = {}
    exec(code, shell.user_global_ns, found)  # noqa: S102 (it only defines the function)
    if found["cell"].__code__.co_flags & _NO_PLAIN_FUNCTION:
        raise UsageError("a cell that yields or awaits cannot run as a job: write it with def")
    return found["cell"]


def _where(error: SyntaxError) -> str:
    """The place and the reason, without the frames of whoever compiled it."""
    place = f"line {error.lineno} of the cell: {error.msg}"
    if not error.text:
        return place
    text = error.text.rstrip()
    caret = " " * (max(error.offset or 1, 1) - 1) + "^"
    return f"{place}\n    {text}\n    {caret}"
