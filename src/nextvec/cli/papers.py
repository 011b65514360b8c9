"""``nextvec papers``: the paper-discovery site: take papers in, search them, serve them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextvec.cli import _papers_beside, _papers_mail, _papers_sources
from nextvec.cli._papers_accounts import LocalReaderOption, role
from nextvec.cli._papers_mail import MailFromOption, MailOption
from nextvec.cli.console import JsonFlag, emit, note, progress
from nextvec.papers.rate import DEFAULT_RATE
from nextvec.types import InputError, NotFoundError, Progress

if TYPE_CHECKING:
    from nextvec.papers.ingest import Stage
    from nextvec.papers.mail.transport import TracedMailer
    from nextvec.papers.search import Match
    from nextvec.papers.site import Site

app = typer.Typer(no_args_is_help=True, help="The paper-discovery site: ingest, search, serve.")
_papers_mail.add(app)
app.command()(role)

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of the site. Default: papers/ under $NEXTVEC_HOME.", show_default=False),
]
EncoderOption = Annotated[str, typer.Option("--encoder", help="Model: a bundled name, a folder or a hub id.")]
HostOption = Annotated[str, typer.Option(help="Address to listen on.")]
PortOption = Annotated[int, typer.Option(min=1, max=65535, help="Port; if it is taken, the next free one is used.")]


_papers_sources.register(app)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="A question, words, a name or an arXiv id.")],
    k: Annotated[int, typer.Option("-k", "--k", min=1, max=200, help="How many results.")] = 10,
    where: Annotated[
        str | None,
        typer.Option(help='Filter, e.g. "year >= 2025 AND has_code = true".', show_default=False),
    ] = None,
    start: Annotated[str | None, typer.Option("--from", help="First feed day, YYYY-MM-DD.", show_default=False)] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last feed day, YYYY-MM-DD.", show_default=False)] = None,
    org: Annotated[str | None, typer.Option(help="Organisation.", show_default=False)] = None,
    votes: Annotated[int | None, typer.Option(min=0, help="At least so many votes.", show_default=False)] = None,
    code: Annotated[bool, typer.Option("--code", help="Only papers with code.")] = False,
    mode: Annotated[str, typer.Option(help="hybrid, semantic or keyword.")] = "hybrid",
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
    as_json: JsonFlag = False,
) -> None:
    """Search the papers by meaning and by word, under filters."""
    from nextvec.papers.params import read_filters
    from nextvec.papers.search import check_mode, check_query, paper_id
    from nextvec.papers.search import search as run

    chosen = check_mode(mode)
    if not check_query(query):
        raise InputError("the query is empty: say what to look for")
    values = {"from": start, "to": end, "org": org, "votes": str(votes) if votes else None, "code": str(int(code))}
    with opened(home, encoder, must_exist=True) as site:
        filters, suggestion = read_filters({name: value for name, value in values.items() if value}, site.db)
        identifier = paper_id(query)
        if identifier and site.db.get(identifier) is None:
            note(f"there is no paper {identifier} here: searching its digits as words")
        began = time.perf_counter()
        results = run(site, query, filters, mode=chosen, size=k, where=where)
        seconds = time.perf_counter() - began
    document = {
        "query": query,
        "mode": chosen,
        "candidates": results.candidates,
        "with_words": results.with_words,
        "seconds": round(seconds, 4),
        "results": [as_record(match) for match in results.matches],
    }
    if results.matches:
        text = "\n".join(shown(match, place) for place, match in enumerate(results.matches, start=1))
    else:
        hint = f"; did you mean the organisation {suggestion!r}?" if suggestion else ""
        text = f"nothing found among {results.candidates:,} papers that satisfy the filter{hint}"
    emit(document, as_json=as_json, text=text)


@app.command()
def serve(
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    home: HomeOption = None,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="NEXTVEC_SITE_URL",
            help="Where readers reach the site, e.g. https://papers.example.org: the address that feeds give.",
            show_default=False,
        ),
    ] = None,
    encoder: EncoderOption = "nextvec-mini",
    rate: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Requests to /api per minute and client address; 0: any number.")
    ] = DEFAULT_RATE,
    mail: MailOption = None,
    mail_from: MailFromOption = None,
    local_reader: LocalReaderOption = False,
    corpus: Annotated[
        str | None, typer.Option(help="First take in a collection of the data sets at hand: daily, arxiv, acl, all.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many records of each part of --corpus.")] = None,
    every: Annotated[str | None, typer.Option(help="How often --source is asked for new papers, such as 6h.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="With --every: where from; may be given again.")] = None,
    contact: _papers_sources.ContactOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Serve the site until Ctrl-C. With --mail it takes subscriptions and sends digests, too."""
    mailer = _papers_mail.serving_mailer(mail, mail_from, url or f"http://{host}/", given=url is not None)
    if corpus is not None:
        _papers_beside.ensure_corpus(corpus, home, encoder, limit=limit, quiet=as_json)
    with (
        opened(home, encoder, must_exist=True) as site,
        _papers_beside.beside(site, every, source or [], home, encoder, contact),
    ):
        run_server(site, host, port, url=url, rate=rate, mailer=mailer, local_reader=local_reader, as_json=as_json)


@app.command()
def mcp(home: HomeOption = None, encoder: EncoderOption = "nextvec-mini") -> None:
    """Offer the papers to a language model as tools (MCP), over standard input and output.

    Programs that speak the Model Context Protocol start this command themselves.
    """
    from nextvec.extras import require

    require("mcp", why="offering the papers as tools")
    with opened(home, encoder, must_exist=True) as site:
        from nextvec.papers.mcp_server import create_server

        check_index(site)
        create_server(site).run("stdio")


# -- shared with `nextvec demo` ------------------------------------------------------------------------------------
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


def as_record(match: Match) -> dict[str, Any]:
    """A result as JSON holds it."""
    paper = match.stored.paper
    return {
        "id": paper.id,
        "title": paper.title,
        "organization": paper.organization,
        "daily_date": paper.daily_date,
        "votes": paper.upvotes,
        "code": paper.github_repo,
        "score": round(match.score, 6),
        "word_rank": match.word_rank,
        "meaning_rank": match.meaning_rank,
        "cosine": round(match.meaning_score, 4) if match.meaning_score is not None else None,
        "terms": match.terms,
        "exact_title": match.exact_title,
        "exact_id": match.exact_id,
    }


def shown(match: Match, place: int) -> str:
    """A result as people read it."""
    from nextvec.papers.markup import plain

    paper = match.stored.paper
    day = paper.daily_date or (paper.published_at.date() if paper.published_at else None)
    facts = [paper.id, str(day) if day else "", f"{paper.upvotes} vote{'' if paper.upvotes == 1 else 's'}"]
    facts += [paper.organization or "", "code" if paper.has_code else ""]
    line = " · ".join(fact for fact in facts if fact)
    return f"{place:>2}. {plain(paper.title)}\n    {line}\n    score {match.score:.4f}: {match.why()}"


def run_server(
    site: Site,
    host: str,
    port: int,
    *,
    url: str | None = None,
    rate: int = DEFAULT_RATE,
    mailer: TracedMailer | None = None,
    local_reader: bool = False,
    as_json: bool = False,
) -> None:
    """Serve ``site`` on the first free port from ``port`` on, in this process, until Ctrl-C or SIGTERM.

    ``url``: where readers reach it; ``rate``: requests to /api per minute and client address; 0 for any number.
    ``mailer``: what sends digests, from a thread of this process, and the links that readers sign in with;
    ``local_reader``: one reader without mail, only where nothing but this machine can reach the site (InputError
    elsewhere).
    """
    from nextvec.extras import require

    uvicorn = require("uvicorn", why="the paper-discovery site")
    from nextvec.papers.accounts.guard import check_loopback
    from nextvec.papers.ingest import is_ready
    from nextvec.papers.web import create_app

    if local_reader:
        check_loopback(host)
    check_index(site)
    if not is_ready(site):
        note("some papers are newer than the search index: run the ingest again to index them")
    warm(site)
    with listen(host, port) as socket:
        taken = socket.getsockname()[1]
        if taken != port:
            note(f"port {port} is taken, using {taken}")
        shown_host = f"[{host}]" if ":" in host else host
        address = f"http://{shown_host}:{taken}/"
        # Links in mails need an address; without one that was given, where the site listens.
        base = url or (address.rstrip("/") if mailer is not None else None)
        application = create_app(site, base=base, rate=rate, mailer=mailer, local_reader=local_reader)
        emit({"address": address, "papers": site.db.count()}, as_json=as_json, text=f"{address}  (Ctrl-C to stop)")
        sys.stdout.flush()
        config = uvicorn.Config(
            application,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=3,
        )
        server = uvicorn.Server(config)
        with _papers_mail.mailing(site, mailer, url or address):
            server.run(sockets=[socket])
    note("stopped")


def check_index(site: Site) -> None:
    """NotFoundError where there is nothing to search in."""
    if site.usable_collection() is None:
        raise NotFoundError(
            f"the search index in {str(site.home)!r} is missing, damaged or of another encoder: "
            "make it anew with `nextvec papers ingest --source daily_papers` (or with your file)"
        )


def warm(site: Site) -> None:
    """Make the first search as fast as the following ones."""
    vector = site.query_vector("warm up")
    site.words()
    if vector is not None:
        site.collection.search(vector, 1)


def listen(host: str, port: int, *, tries: int = 50) -> Any:
    """A bound socket on the first free port of ``tries`` from ``port`` on."""
    import errno
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, min(port + tries, 65_536)):
        # With the protocol named, asyncio turns off Nagle's algorithm; without, every answer waits 40 ms for an ACK.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(128)
            return listener
        except OSError as error:
            listener.close()
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                continue
            raise InputError(
                f"cannot listen on {host!r}: {error.strerror or error}; choose an address of this machine with --host"
            ) from error
    raise InputError(f"no free port from {port} to {min(port + tries, 65_536) - 1}: choose another with --port")
