"""``nextvec demo``: the bundled papers, embedded, indexed, asked one question, and served."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from nextvec.cli._papers_accounts import LocalReaderOption
from nextvec.cli._papers_search import as_record, shown
from nextvec.cli._papers_site import HomeOption, opened, site_home, stages
from nextvec.cli.console import JsonFlag, emit, note
from nextvec.cli.papers import HostOption, PortOption, run_server
from nextvec.nn.locate import bundled_models

QUESTION = "Can a language model plan ahead in latent space instead of one token at a time?"


def command(
    once: Annotated[bool, typer.Option("--once", help="Stop after the sample question.")] = False,
    port: PortOption = 8000,
    host: HostOption = "127.0.0.1",
    home: HomeOption = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", help="mini, small, or the folder or hub id of another model: all but mini take minutes."
        ),
    ] = "mini",
    local_reader: LocalReaderOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Set up the paper-discovery site on the bundled papers and open it.

    The first run embeds and indexes them (seconds); later ones open what was built. May be interrupted and run again.
    """
    from nextvec.extras import require

    require("fastapi", why="the paper-discovery site")
    if local_reader:
        from nextvec.papers.accounts.guard import check_loopback

        check_loopback(host)
    began = time.perf_counter()
    _set_damaged_aside(home)
    with opened(home, f"nextvec-{model}" if f"nextvec-{model}" in bundled_models() else model) as site:
        from nextvec.papers.ingest import prepare
        from nextvec.papers.search import search

        with stages(quiet=as_json) as stage:
            report = prepare(site, stage=stage)
        prepared = time.perf_counter()
        results = search(site, QUESTION, size=3)
        asked = time.perf_counter()
        what = (
            f"{report.papers:,} papers embedded and indexed" if report else f"{site.db.count():,} papers, built before"
        )
        lines = [f"{what} ({prepared - began:.1f} s).", "", QUESTION, ""]
        lines += [shown(match, place) for place, match in enumerate(results.matches, start=1)]
        lines += ["", f"Answered in {(asked - prepared) * 1000:.0f} ms."]
        document = {
            "papers": site.db.count(),
            "built": report is not None,
            "prepare_seconds": round(prepared - began, 3),
            "question": QUESTION,
            "search_seconds": round(asked - prepared, 4),
            "results": [as_record(match) for match in results.matches],
        }
        emit(document, as_json=as_json, text="\n".join(lines))
        if not once:
            run_server(site, host, port, local_reader=local_reader, as_json=as_json)


def _set_damaged_aside(home: Path | None) -> None:
    """The demo's data can be made again: a damaged database is moved away, not lamented."""
    from nextvec.papers.db import DamagedDatabaseError, Database

    path = site_home(home) / "papers.sqlite"
    if not path.exists():
        return
    try:
        with Database(path) as db:
            db.count()
    except DamagedDatabaseError:
        aside = path.with_name(f"papers.sqlite.damaged-{int(time.time())}")
        path.rename(aside)
        for extra in ("-wal", "-shm"):
            path.with_name(path.name + extra).unlink(missing_ok=True)
        note(f"the paper database was damaged: moved to {str(aside)!r}, building it again")
