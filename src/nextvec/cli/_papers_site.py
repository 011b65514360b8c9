"""What the commands of ``nextvec papers`` have in common: where the site lies, opening it, bars for its steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
EncoderOption = Annotated[str, typer.Option("--encoder", help="Model: a bundled name, a folder or a hub id.")]


@contextmanager
def opened(home: Path | None, encoder: str, *, must_exist: bool = False) -> Iterator[Site]:
    """The site under ``home``, closed at the end. MissingExtraError without the papers extra."""
    from nextvec.extras import require

    for module in ("sqlalchemy", "jinja2"):
        require(module, why="the paper-discovery site")
    from nextvec.papers.site import Site

    site = Site(site_home(home), encoder=encoder, must_exist=must_exist)
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
