"""``nextvec papers ingest``, ``sources``, ``queue`` and the commands of a moderator."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from nextvec.cli._papers_site import EncoderOption, HomeOption
from nextvec.cli.console import JsonFlag, emit, note, table
from nextvec.types import ConflictError, InputError

if TYPE_CHECKING:
    from nextvec.papers.ingest import Report
    from nextvec.papers.site import Site
    from nextvec.papers.sources.fetch import Fetcher

__all__ = ["ContactOption", "register", "told"]

queue = typer.Typer(no_args_is_help=True, help="What readers handed in: list, approve, reject, run.")
IdArgument = Annotated[str, typer.Argument(help="The paper's id on the site.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why: kept in the log, and shown to readers.")]
ContactOption = Annotated[
    str | None,
    typer.Option(help="Whom the place may write to: a mail address or page. Default: $NEXTVEC_CONTACT."),
]


def register(app: typer.Typer) -> None:
    """Add these commands to ``nextvec papers``."""
    for command in (ingest, sources, hide, unhide, merge, split, audit):
        app.command()(command)
    app.add_typer(queue, name="queue")


# -- papers in -----------------------------------------------------------------------------------------------------
def ingest(
    file: Annotated[
        Path | None,
        typer.Argument(help="jsonl, csv, parquet, bib or Anthology XML with titles and more.", show_default=False),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Where from: `nextvec papers sources` lists them.", show_default=False)
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="A collection of the data sets at hand: daily, arxiv, acl, all.")
    ] = None,
    start: Annotated[str | None, typer.Option("--from", help="First day, YYYY-MM-DD. Default: what is new.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Last day, YYYY-MM-DD.")] = None,
    set_: Annotated[str | None, typer.Option("--set", help="arxiv: the OAI set, such as cs or cs:cs:CL.")] = None,
    prefix: Annotated[str | None, typer.Option(help="arxiv: arXiv or oai_dc.")] = None,
    query: Annotated[str | None, typer.Option(help="arxiv: a query of its API, such as cat:cs.CL.")] = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="arxiv: an id; may be given again.")] = None,
    address: Annotated[str | None, typer.Option(help="Ask this address instead: a mirror.")] = None,
    contact: ContactOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many records.")] = None,
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
    as_json: JsonFlag = False,
) -> None:
    """Take papers in, or bring them up to date. May be interrupted and run again: it goes on where it was."""
    from nextvec.cli._papers_site import opened, stages

    if file is None and source is None and corpus is None:
        raise InputError("give either a FILE or --source NAME (`nextvec papers sources` lists them) or --corpus all")
    if corpus is not None:
        if file is not None or source is not None:
            raise InputError("--corpus names its files itself: leave FILE and --source out")
        from nextvec.papers.sources.corpus import corpus as run_corpus
        from nextvec.papers.sources.corpus import parts_of

        parts_of(corpus)
        with opened(home, encoder) as site, stages(quiet=as_json) as stage:
            report = run_corpus(site, corpus, limit=limit, stage=stage)
            papers = site.db.count()
        nothing = {"read": 0, "changed": 0, "embedded": 0, "papers": papers}
        text = told(report) if report else f"the corpus {corpus} is in already; the site holds {papers:,}"
        emit(report.as_dict() if report else nothing, as_json=as_json, text=text)
        return
    name = source or _source_of(file)
    days = {"start": _day(start, "--from"), "until": _day(until, "--until")}
    options: dict[str, Any] = {"set": set_, "prefix": prefix, "query": query, "address": address, "limit": limit}
    report = _ingest(name, file, days | options | {"ids": tuple(ids or ())}, contact, home, encoder, as_json)
    emit(report.as_dict(), as_json=as_json, text=told(report))


def _ingest(
    name: str,
    file: Path | None,
    options: dict[str, Any],
    contact: str | None,
    home: Path | None,
    encoder: str,
    as_json: bool,
) -> Report:
    from nextvec.cli._papers_site import opened, stages
    from nextvec.papers.ingest import ingest as store
    from nextvec.papers.ingest import read_file, read_source
    from nextvec.papers.sources.base import Request, only_file, open_source
    from nextvec.papers.sources.harvest import harvest

    known = open_source(name)
    request = Request(file=file, **options)
    if name in ("file", "daily_papers"):  # all of it is checked before a site is opened
        papers = read_file(only_file(name, request)) if name == "file" else read_source(name)
        if name == "daily_papers":
            request.refuse(name)
        with opened(home, encoder) as site, stages(quiet=as_json) as stage:
            return store(site, papers[: request.limit], source=name, stage=stage)
    fetcher = _fetcher(known.hosts, request.address, contact)
    if not known.hosts:
        only_file(name, request)
    with opened(home, encoder) as site, stages(quiet=as_json) as stage:
        return harvest(site, known, request, fetcher=fetcher, stage=stage)


def told(report: Report) -> str:
    """A report as people read it."""
    extra = [
        f"{count:,} {word}"
        for count, word in (
            (report.merged, "joined another by title"),
            (report.deleted, "withdrawn by the source"),
            (report.refused, "refused"),
        )
        if count
    ]
    return (
        f"{report.read:,} papers read, {report.changed:,} new or changed, {report.embedded:,} embedded"
        f"{', ' if extra else ''}{', '.join(extra)}; the site holds {report.papers:,} ({report.seconds:.1f} s)"
    )


def sources(home: HomeOption = None, as_json: JsonFlag = False) -> None:
    """List the sources, and how far each harvest has come."""
    from nextvec.cli._papers_site import asked_database, opened, site_home
    from nextvec.papers.place import find
    from nextvec.papers.sources.base import open_source, source_names
    from nextvec.papers.sources.harvest import harvests

    known = [{"source": name, "about": open_source(name).about} for name in source_names()]
    begun = []
    if find(site_home(home), asked_database()).exists():
        with opened(home, "nextvec-mini", must_exist=True) as site:
            begun = harvests(site.db)
    rows = [
        [one.source, one.scope, f"{one.taken:,}", str(one.since or ""), "interrupted" if one.cursor else "finished"]
        for one in begun
    ]
    text = table(["source", "what"], [[one["source"], one["about"]] for one in known])
    if rows:
        text += "\n\n" + table(["source", "asked for", "taken", "next from", "state"], rows, right=(2,))
    document = {"sources": known, "harvests": [{name: getattr(one, name) for name in one.__slots__} for one in begun]}
    emit(document, as_json=as_json, text=text)


def _source_of(file: Path | None) -> str:
    endings = {".bib": "bibtex", ".xml": "acl"}
    return endings.get(file.suffix.lower(), "file") if file is not None else ""


def _day(text: str | None, option: str) -> date | None:
    from nextvec.papers.params import read_day

    return read_day(text, option)


def _fetcher(hosts: tuple[str, ...], address: str | None, contact: str | None) -> Fetcher:
    """Who may be asked: the source's hosts, and the one that --address names. This machine only where
    NEXTVEC_LOOPBACK=1 says so."""
    from nextvec.papers.sources.fetch import Fetcher

    loopback = os.environ.get("NEXTVEC_LOOPBACK") == "1"
    if address is not None:
        if not hosts:
            raise InputError("this source reads files: leave --address out")
        try:
            host = urlsplit(address).hostname
        except ValueError:
            host = None
        if not host or "?" in address or "#" in address:
            raise InputError(f"--address is {address[:80]!r}; expected https://host/path")
        hosts = (*hosts, host)
    interval = 0.0 if loopback and address is not None else 3.0
    fetcher = Fetcher(hosts, contact=contact or os.environ.get("NEXTVEC_CONTACT"), loopback=loopback, interval=interval)
    if address is not None:
        fetcher.check(address)
    return fetcher


# -- moderation ----------------------------------------------------------------------------------------------------
def hide(
    paper: IdArgument, reason: ReasonOption, home: HomeOption = None, encoder: EncoderOption = "nextvec-mini"
) -> None:
    """Take a paper out of sight: pages, feeds, search, API; its address answers 410."""
    from nextvec.papers.sources import moderation

    with _changing(home, encoder) as site:
        moderation.hide(site.db, paper, reason=reason, actor=_actor())
    emit({}, as_json=False, text=f"{paper} is hidden")


def unhide(paper: IdArgument, home: HomeOption = None, encoder: EncoderOption = "nextvec-mini") -> None:
    """Show a hidden paper again."""
    from nextvec.papers.sources import moderation

    with _changing(home, encoder) as site:
        moderation.unhide(site.db, paper, actor=_actor())
    emit({}, as_json=False, text=f"{paper} is shown again")


def merge(
    kept: IdArgument,
    gone: Annotated[str, typer.Argument(help="The paper that becomes a part of it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why: kept in the log.")] = "",
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
) -> None:
    """Make one paper of two; the second address leads to the first."""
    from nextvec.papers.sources import moderation

    with _changing(home, encoder) as site:
        moderation.merge(site.db, kept, gone, actor=_actor(), reason=reason)
    emit({}, as_json=False, text=f"{gone} is part of {kept} now; `nextvec papers split {gone}` undoes it")


def split(
    paper: IdArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why: kept in the log.")] = "",
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
) -> None:
    """Undo a merge, one's own or one that title and authors made."""
    from nextvec.papers.sources import moderation

    with _changing(home, encoder) as site:
        apart = moderation.split(site.db, paper, actor=_actor(), reason=reason)
    emit({}, as_json=False, text=f"papers of their own again: {', '.join(apart)}")


def audit(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many lines.")] = 50,
    home: HomeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """What moderators did, the latest first."""
    from nextvec.cli._papers_site import opened
    from nextvec.papers.sources import moderation

    with opened(home, "nextvec-mini", must_exist=True) as site:
        acts = moderation.audit(site.db, limit=limit)
    rows = [[f"{one.at:%Y-%m-%d %H:%M}", one.actor, one.action, one.paper, one.reason] for one in acts]
    text = table(["when (UTC)", "who", "what", "paper", "why"], rows) if rows else "nothing was moderated yet"
    emit([{name: getattr(one, name) for name in one.__slots__} for one in acts], as_json=as_json, text=text)


@contextmanager
def _changing(home: Path | None, encoder: str) -> Iterator[Site]:
    """An open site; what is changed is brought into the search index at the end, by this or by a running ingest."""
    from nextvec.cli._papers_site import opened
    from nextvec.papers.ingest import finish

    with opened(home, encoder, must_exist=True) as site:
        yield site
        try:
            with site.writing():
                finish(site, lambda name: None)
        except ConflictError:
            note("an ingest is running: it brings the search index up to date when it ends")


def _actor() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user
        return "unknown"


# -- the queue -----------------------------------------------------------------------------------------------------
@queue.command("list")
def queue_list(
    state: Annotated[
        list[str] | None, typer.Option(help="Only these: waiting, approved, done, failed, rejected.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 100,
    home: HomeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """What readers handed in, the latest change first."""
    from typing import cast, get_args

    from nextvec.cli._papers_site import opened
    from nextvec.papers.sources.queue import State, listed

    for word in state or ():
        if word not in get_args(State):
            raise InputError(f"state is {word[:40]!r}; expected one of {', '.join(get_args(State))}")
    with opened(home, "nextvec-mini", must_exist=True) as site:
        found = listed(site.db, *(cast(State, word) for word in state or ()), limit=limit)
    rows = [[one.id, one.state, f"{one.at:%Y-%m-%d %H:%M}", one.note] for one in found]
    text = table(["paper", "state", "handed in (UTC)", "note"], rows) if rows else "the queue is empty"
    emit([{name: getattr(one, name) for name in one.__slots__} for one in found], as_json=as_json, text=text)


@queue.command("approve")
def queue_approve(paper: IdArgument, home: HomeOption = None) -> None:
    """Let a submission be fetched by `queue run --approved`."""
    _decide(paper, "approved", "", home)


@queue.command("reject")
def queue_reject(paper: IdArgument, reason: ReasonOption, home: HomeOption = None) -> None:
    """Refuse a submission, for good."""
    _decide(paper, "rejected", reason, home)


def _decide(paper: str, state: Any, reason: str, home: Path | None) -> None:
    from nextvec.cli._papers_site import opened
    from nextvec.papers.sources.queue import decide

    with opened(home, "nextvec-mini", must_exist=True) as site:
        decide(site.db, paper, state, actor=_actor(), reason=reason)
    emit({}, as_json=False, text=f"{paper} is {state}")


@queue.command("run")
def queue_run(
    approved: Annotated[bool, typer.Option("--approved", help="Only what was approved.")] = False,
    address: Annotated[str | None, typer.Option(help="Ask this address instead: a mirror.")] = None,
    contact: ContactOption = None,
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
    as_json: JsonFlag = False,
) -> None:
    """Fetch what is in the queue from arXiv. For cron: exits with 0 when all of it was asked for, 1 when not."""
    from nextvec.cli._papers_site import opened, stages
    from nextvec.papers.sources.base import open_source
    from nextvec.papers.sources.queue import run

    fetcher = _fetcher(open_source("arxiv").hosts, address, contact)
    with opened(home, encoder, must_exist=True) as site, stages(quiet=as_json) as stage:
        done, failed, report = run(site, approved_only=approved, address=address, fetcher=fetcher, stage=stage)
    text = f"{done:,} papers of the queue are in, {failed:,} failed" if report else "the queue is empty"
    emit({"done": done, "failed": failed, "report": report and report.as_dict()}, as_json=as_json, text=text)
