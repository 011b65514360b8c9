"""What ``nextvec papers serve`` does beside serving: a corpus first, sources again and again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nextvec.cli._papers_sources import told
from nextvec.cli._papers_watch import say
from nextvec.cli.console import note
from nextvec.types import InputError

if TYPE_CHECKING:
    from nextvec.papers.site import Site

__all__ = ["beside", "ensure_corpus"]


def ensure_corpus(name: str, home: Path | None, encoder: str, *, limit: int | None, quiet: bool) -> None:
    """Take a corpus in before the site is served; one that is in costs nothing."""
    from nextvec.cli._papers_site import opened, stages
    from nextvec.papers.sources.corpus import corpus, parts_of

    parts_of(name)
    with opened(home, encoder) as site, stages(quiet=quiet) as stage:
        report = corpus(site, name, limit=limit, stage=stage)
    if report:
        note(told(report))


@contextmanager
def beside(
    site: Site, every: str | None, names: list[str], home: Path | None, encoder: str, contact: str | None
) -> Iterator[None]:
    """While the block runs: each source again and again, and the queue with them."""
    from nextvec.papers.sources.base import open_source
    from nextvec.papers.sources.harvest import last_finished
    from nextvec.papers.sources.schedule import Scheduler, read_every

    if every is None:
        if names:
            raise InputError("--source needs --every: say how often, such as --every 6h")
        yield
        return
    if not names:
        raise InputError("--every needs --source: say where from, such as --source arxiv")
    seconds = read_every(every)
    for name in names:
        if not open_source(name).hosts:
            raise InputError(f"source {name!r} reads files: it has nothing new by itself")
    shared = [
        "--encoder",
        encoder,
        *(["--home", str(home)] if home else []),
        *(["--contact", contact] if contact else []),
    ]
    commands = [["papers", "ingest", "--source", name, *shared] for name in names]
    commands.append(["papers", "queue", "run", *shared])
    times = [last_finished(site.db, name) for name in names]
    oldest = None if None in times else min(time for time in times if time)
    scheduler = Scheduler(commands, seconds, last=lambda: oldest, say=say)
    scheduler.start()
    try:
        yield
    finally:
        scheduler.stop()
