"""``nextvec``: the command line's entrance. Every module of this folder with an ``app`` or ``command`` joins it."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Annotated

import typer

from nextvec import catalog
from nextvec.types import InputError, NextvecError

_NOT_COMMANDS = {"main", "console"}
_MAX_MESSAGE = 1_000  # characters: a value that came in must not fill the screen


def _version(value: bool) -> None:
    if value:
        from nextvec import __version__

        print(f"nextvec {__version__}")
        raise typer.Exit


def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Embeddings end to end, and a paper-discovery site on top.

    Exit codes: 0 done, 1 could not be done, 2 wrong usage, 130 interrupted.
    """


def build() -> typer.Typer:
    """The whole command tree, from the files of this folder in alphabetical order."""
    top = typer.Typer(name="nextvec", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
    top.callback()(_top)
    for name in catalog.names("nextvec.cli"):
        if name in _NOT_COMMANDS:
            continue
        module = catalog.load("nextvec.cli", name)
        if hasattr(module, "app"):
            top.add_typer(module.app, name=name)
        else:
            top.command(name=name)(module.command)
    return top


def _fail(error: NextvecError) -> int:
    message = str(error)
    if len(message) > _MAX_MESSAGE:
        message = f"{message[: _MAX_MESSAGE // 2]} ... {message[-_MAX_MESSAGE // 2 :]}"
    if "--json" in sys.argv:
        print(json.dumps({"error": {"type": type(error).__name__, "message": message}}))
    else:
        # One line, and nothing in it that a terminal would obey.
        shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in message)
        print(f"nextvec: {shown}", file=sys.stderr)
    return 1


def _interrupted() -> int:
    print("nextvec: interrupted; what was acknowledged is kept, run it again to go on", file=sys.stderr)
    return 130


def main() -> None:
    """Run the command line and exit with the documented code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        build()()
    except NextvecError as error:
        sys.exit(_fail(error))
    except BrokenPipeError:
        # The reader (head, less) went away: not an error, and Python must not complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # of a part that does not tell its own
        from nextvec.files import storage_error

        sys.exit(_fail(storage_error(error, error.filename or "a file")))
    except RuntimeError as error:
        if "home directory" not in str(error):
            raise
        sys.exit(_fail(InputError("the folder that ~ stands for is not known: give the whole path, or set HOME")))
    except KeyboardInterrupt:  # before Typer was ready to catch it
        sys.exit(_interrupted())
    except SystemExit as stop:
        # Typer ends every run this way, one that Ctrl-C ended with code 130 and no word.
        if stop.code == 130:
            _interrupted()
        raise


if __name__ == "__main__":
    main()
