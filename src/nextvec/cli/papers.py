"""``nextvec papers``: the paper-discovery site: take papers in, search them, serve them."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextvec.cli import _papers_backup, _papers_beside, _papers_mail, _papers_own, _papers_read, _papers_sources
from nextvec.cli._papers_accounts import LocalReaderOption, role
from nextvec.cli._papers_insight import insight
from nextvec.cli._papers_mail import MailFromOption, MailOption
from nextvec.cli._papers_search import search
from nextvec.cli._papers_site import EncoderOption, HomeOption, opened, with_database
from nextvec.cli._papers_watch import LogOption, MetricsOption, ends_in_order, gives_metrics, logs_lines, say, write_log
from nextvec.cli.console import JsonFlag, emit
from nextvec.papers.rate import DEFAULT_RATE, DEFAULT_TOKEN_RATE
from nextvec.types import InputError, NotFoundError

if TYPE_CHECKING:
    from nextvec.papers.mail.transport import TracedMailer
    from nextvec.papers.site import Site

app = typer.Typer(no_args_is_help=True, help="The paper-discovery site: ingest, search, serve.")
_papers_mail.add(app)
_papers_backup.add(app)
app.command()(role)
app.command()(search)
_papers_read.add(app)
_papers_own.add(app)
app.command()(insight)

HostOption = Annotated[str, typer.Option(help="Address to listen on.")]
PortOption = Annotated[int, typer.Option(min=1, max=65535, help="Port; if it is taken, the next free one is used.")]


_papers_sources.register(app)


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
    token_rate: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Requests to /api per minute and token that may read; 0: any.")
    ] = DEFAULT_TOKEN_RATE,
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
    metrics: MetricsOption = None,
    log: LogOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Serve the site until Ctrl-C. With --mail it takes subscriptions and sends digests, too."""
    write_log(log)
    mailer = _papers_mail.serving_mailer(mail, mail_from, url or f"http://{host}/", given=url is not None)
    if corpus is not None:
        _papers_beside.ensure_corpus(corpus, home, encoder, limit=limit, quiet=as_json)
    with (
        opened(home, encoder, must_exist=True) as site,
        _papers_beside.beside(site, every, source or [], home, encoder, contact),
    ):
        run_server(
            site,
            host,
            port,
            url=url,
            rate=rate,
            token_rate=token_rate,
            mailer=mailer,
            local_reader=local_reader,
            metrics=gives_metrics(metrics, host, url),
            as_json=as_json,
        )


@app.command()
def mcp(
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
    site: _papers_read.SiteOption = None,
    token_file: _papers_read.TokenFileOption = None,
) -> None:
    """Offer the papers to a language model as tools (MCP), over standard input and output.

    Programs that speak the Model Context Protocol start this command themselves.
    """
    from nextvec.extras import require

    require("mcp", why="offering the papers as tools")
    with _papers_read.reading(home, encoder, site, token_file) as papers:
        from nextvec.papers.mcp_server import create_server
        from nextvec.papers.reading import Here

        if isinstance(papers, Here):
            check_index(papers.site)
        create_server(papers).run("stdio")


with_database(app)


def run_server(
    site: Site,
    host: str,
    port: int,
    *,
    url: str | None = None,
    rate: int = DEFAULT_RATE,
    token_rate: int = DEFAULT_TOKEN_RATE,
    mailer: TracedMailer | None = None,
    local_reader: bool = False,
    metrics: bool = False,
    as_json: bool = False,
) -> None:
    """Serve ``site`` on the first free port from ``port`` on, in this process, until Ctrl-C or SIGTERM.

    ``url``: where readers reach it; ``rate``, ``token_rate``: requests to /api per minute and client address, and per
    minute and token that may read; 0 for any number. ``mailer``: what sends digests, from a thread of this process, and
    the links that readers sign in with; ``local_reader``: one reader without mail, only where nothing but this machine
    can reach the site (InputError elsewhere). ``metrics``: figures at /metrics.
    """
    from nextvec.extras import require

    uvicorn = require("uvicorn", why="the paper-discovery site")
    require("babel", why="the paper-discovery site")
    from nextvec.papers.accounts.guard import check_loopback
    from nextvec.papers.ingest import is_ready
    from nextvec.papers.operations.memory import share_heaps
    from nextvec.papers.warmth import Warmth
    from nextvec.papers.web import create_app

    share_heaps()
    if local_reader:
        check_loopback(host)
    check_index(site)
    if not is_ready(site):
        say("some papers are newer than the search index: run the ingest again to index them")
    warm(site)
    with listen(host, port) as socket:
        taken = socket.getsockname()[1]
        if taken != port:
            say(f"port {port} is taken, using {taken}")
        shown_host = f"[{host}]" if ":" in host else host
        address = f"http://{shown_host}:{taken}/"
        # Links in mails need an address; without one that was given, where the site listens.
        base = url or (address.rstrip("/") if mailer is not None else None)
        application = create_app(
            site,
            base=base,
            rate=rate,
            token_rate=token_rate,
            mailer=mailer,
            local_reader=local_reader,
            metrics=metrics,
        )
        application.state.warmth = warmth = Warmth(site, application)
        emit({"address": address, "papers": site.db.count()}, as_json=as_json, text=f"{address}  (Ctrl-C to stop)")
        sys.stdout.flush()
        config = uvicorn.Config(
            application,
            **({"log_config": None} if logs_lines() else {}),  # then its lines go where ours do
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=3,
        )
        server = uvicorn.Server(config)
        with _papers_mail.mailing(site, mailer, url or address), ends_in_order(), contextlib.closing(warmth):
            warmth.start()
            server.run(sockets=[socket])
    say("stopped")


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
