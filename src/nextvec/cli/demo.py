"""``nextvec demo``: the bundled papers, embedded, indexed, asked one question, and served."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nextvec.cli._papers_search import as_record, shown
from nextvec.cli._papers_site import HomeOption, opened, site_home, stages
from nextvec.cli.console import JsonFlag, emit, note
from nextvec.cli.papers import HostOption, PortOption, run_server
from nextvec.nn.locate import bundled_models

if TYPE_CHECKING:
    from nextvec.papers.site import Site

_SENDER = "nextvec papers <papers@example.org>"
_NICE = ["nice"] if shutil.which("nice") else []  # readers come first
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
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Nobody is signed in: the site as a visitor sees it.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Set up the paper-discovery site on the bundled papers and open it.

    The first run embeds and indexes them (seconds); later ones open what was built. May be interrupted and run again.
    Whoever opens the site on this machine is signed in as its one reader; mails are written into a folder. Keywords,
    summary lines and the map of topics are worked out while the site runs, the first time.
    """
    from nextvec.extras import require

    require("fastapi", why="the paper-discovery site")
    if not anonymous:
        from nextvec.papers.accounts.guard import check_loopback

        check_loopback(host, otherwise="leave --host at 127.0.0.1, or pass --anonymous")
    began = time.perf_counter()
    _set_damaged_aside(home)
    encoder = f"nextvec-{model}" if f"nextvec-{model}" in bundled_models() else model
    with opened(home, encoder) as site:
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
        if once:
            return
        mailer = None
        if not anonymous and not site.db.read_only:
            from nextvec.papers.mail.transport import FolderMailer

            mailer = FolderMailer(site.home / "mail", sender=_SENDER)
            note(f"mails are written into {str(mailer.folder)!r}")
        with _understanding(site, encoder):
            run_server(site, host, port, mailer=mailer, local_reader=not anonymous, as_json=as_json)


@contextmanager
def _understanding(site: Site, encoder: str) -> Iterator[None]:
    """While the block runs: ``nextvec papers insight`` in a process of its own, where the collection has never seen it.

    It ends with the block; what it has done by then stays, and the next demo goes on.
    """
    from nextvec.papers.insight.build import missing_insights
    from nextvec.papers.insight.topics import load_topics

    drawable = find_spec("sklearn") is not None
    if site.db.read_only or not (missing_insights(site) or (drawable and load_topics(site) is None)):
        yield
        return
    command = [sys.executable, "-m", "nextvec.cli.main", "papers", "insight", "--home", str(site.home)]
    command += ["--encoder", encoder, *([] if drawable else ["--no-map"])]
    silent = subprocess.DEVNULL
    worker = subprocess.Popen(_NICE + command, stdin=silent, stdout=silent, stderr=silent, start_new_session=True)
    what = "keywords, summary lines" + (" and the map of topics" if drawable else "")
    note(f"{what} are being worked out beside: a few minutes, the first time")
    try:
        yield
    finally:
        worker.terminate()
        worker.wait()


def _set_damaged_aside(home: Path | None) -> None:
    """The demo's data can be made again: a damaged database is moved away, not lamented."""
    from nextvec.papers.db import DamagedDatabaseError, Database
    from nextvec.papers.place import find

    place = find(site_home(home))
    path = place.file
    if place.address is not None or not path.exists():
        return
    try:
        with Database(path) as db:
            db.count()
    except DamagedDatabaseError:
        aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
        path.rename(aside)
        for extra in ("-wal", "-shm"):
            path.with_name(path.name + extra).unlink(missing_ok=True)
        note(f"the paper database was damaged: moved to {str(aside)!r}, building it again")
