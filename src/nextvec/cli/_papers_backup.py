"""``nextvec papers backup`` and ``restore``: a site into one file while it serves, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nextvec.cli._papers_site import EncoderOption, HomeOption, asked_database, opened, site_home, stages
from nextvec.cli.console import JsonFlag, emit, note
from nextvec.files import human_bytes

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Put the commands into ``nextvec papers``."""
    app.command()(backup)
    app.command()(restore)


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it, e.g. papers-2026-03-01.zip.")],
    with_secret: Annotated[
        bool,
        typer.Option("--with-secret", help="Also what links and cookies are signed with: keep the file as safe as it."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE once the new one was checked.")] = False,
    home: HomeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Copy a site into one file, also while it serves and takes papers in. The copy is read back before it counts."""
    _require()
    from nextvec.papers.operations.backup import backup as write

    database = asked_database()
    done = write(site_home(home), file.expanduser(), with_secret=with_secret, force=force, database=database)
    rows = sum(done.tables.values())
    text = f"{done.file}: {human_bytes(done.bytes)}, {done.tables['papers']:,} papers, {rows:,} rows in all, "
    text += "with the secret" if done.secret else "without the secret"
    emit(done.as_dict(), as_json=as_json, text=text)


def restore(
    file: Annotated[Path, typer.Argument(help="What `nextvec papers backup` wrote.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the site that is in the home.")] = False,
    index: Annotated[
        bool, typer.Option("--index/--no-index", help="Make the search index now, or leave it to the next ingest.")
    ] = True,
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
    as_json: JsonFlag = False,
) -> None:
    """Make a home from a backup, of this nextvec or an older one. Mails that waited in it are not sent."""
    _require()
    from nextvec.papers.operations.backup import restore as read

    done = read(file.expanduser(), site_home(home), force=force, database=asked_database())
    if done.aside:
        note(f"the damaged database that was there lies in {done.aside}")
    if done.encoder and done.encoder.partition(" ")[0] != encoder:
        note(f"the site had the encoder {done.encoder.partition(' ')[0]!r}; --encoder names the one to index with")
    if index:
        from nextvec.papers.ingest import ingest

        with opened(home, encoder, must_exist=True) as site, stages(quiet=as_json) as stage:
            ingest(site, [], stage=stage)
    text = f"{done.home}: {done.tables['papers']:,} papers as of {done.made}"
    text += f", brought up from schema {done.migrated}" if done.migrated else ""
    text += f"; {done.held:,} mails that waited are not sent" if done.held else ""
    text += "; without a secret: readers sign in again, links in old mails end" if done.secret == "none" else ""
    emit(done.as_dict() | {"indexed": index}, as_json=as_json, text=text)


def _require() -> None:
    from nextvec.extras import require

    require("sqlalchemy", why="the paper-discovery site")
