"""What the commands of ``nextvec papers`` have in common: where the site lies, opening it, bars for its steps."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextvec.cli.console import progress
from nextvec.types import Progress

if TYPE_CHECKING:
    from nextvec.papers.ingest import Stage
    from nextvec.papers.site import Site

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of the site. Default: papers/ under $NEXTVEC_HOME.", show_default=False),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="PostgreSQL for the rows: postgresql://user@host/database; the home remembers it. Default: "
        "$NEXTVEC_PAPERS_DATABASE, else a SQLite file in the home.",
        show_default=False,
    ),
]
EncoderOption = Annotated[str, typer.Option("--encoder", help="Model: a bundled name, a folder or a hub id.")]
# Filters of views and of searches.
TopicOption = Annotated[str | None, typer.Option(help="Words of title or abstract.", show_default=False)]
AuthorOption = Annotated[str | None, typer.Option(help="Author, by full name.", show_default=False)]
OrgOption = Annotated[str | None, typer.Option(help="Organisation.", show_default=False)]
SourceOption = Annotated[str | None, typer.Option(help="Source.", show_default=False)]
CategoryOption = Annotated[
    str | None,
    typer.Option(help="Venue or category, such as cs.CL; commas separate alternatives.", show_default=False),
]
VotesOption = Annotated[int | None, typer.Option(min=0, help="At least so many votes.", show_default=False)]
CodeOption = Annotated[bool, typer.Option("--code", help="Only papers with code.")]
FromOption = Annotated[str | None, typer.Option("--from", help="First feed day, YYYY-MM-DD.", show_default=False)]
ToOption = Annotated[str | None, typer.Option("--to", help="Last feed day, YYYY-MM-DD.", show_default=False)]


_asked: ContextVar[str | None] = ContextVar("the database that was asked for", default=None)


def with_database(app: typer.Typer) -> None:
    """Let every command that has --home have --database, too."""
    for command in app.registered_commands:
        if command.callback is not None and "home" in inspect.signature(command.callback).parameters:
            command.callback = _asking(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            with_database(group.typer_instance)


def _asking(command: Callable[..., Any]) -> Callable[..., Any]:
    """``command`` with one more option, which holds while it runs (``asked_database``)."""

    @functools.wraps(command)
    def asks(*, database: str | None = None, **given: Any) -> Any:
        before = _asked.set(database)
        try:
            return command(**given)
        finally:
            _asked.reset(before)

    parameters = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        if parameter.name == "home":
            option = inspect.Parameter("database", parameter.KEYWORD_ONLY, default=None, annotation=DatabaseOption)
            parameters.append(option)
    asks.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    asks.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return asks


def asked_database() -> str | None:
    """What --database said to the command that runs."""
    return _asked.get()


@contextmanager
def opened(home: Path | None, encoder: str, *, must_exist: bool = False) -> Iterator[Site]:
    """The site under ``home``, closed at the end. MissingExtraError without the papers extra."""
    from nextvec.extras import require

    for module in ("sqlalchemy", "jinja2"):
        require(module, why="the paper-discovery site")
    from nextvec.papers.site import Site

    site = Site(site_home(home), encoder=encoder, must_exist=must_exist, database=asked_database())
    try:
        yield site
    finally:
        site.close()


def site_home(home: Path | None) -> Path:
    """The folder asked for, or the default one."""
    from nextvec.files import data_home

    return home.expanduser() if home is not None else data_home() / "papers"


@contextmanager
def stages(*, quiet: bool = False) -> Iterator[Stage]:
    """One progress bar after the other: each named step ends the bar before it."""
    with ExitStack() as stack:
        inner = stack.enter_context(ExitStack())

        def start(name: str) -> Progress:
            inner.close()
            return inner.enter_context(progress(name, quiet=quiet))

        yield start
