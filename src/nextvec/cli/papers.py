"""``nextvec papers``: the paper-discovery site: take papers in, search them, serve them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextvec.cli._papers_insight import insight
from nextvec.cli._papers_search import search
from nextvec.cli._papers_site import EncoderOption, HomeOption, opened, stages
from nextvec.cli.console import JsonFlag, emit, note
from nextvec.papers.rate import DEFAULT_RATE
from nextvec.types import InputError, NotFoundError

if TYPE_CHECKING:
    from nextvec.papers.site import Site

app = typer.Typer(no_args_is_help=True, help="The paper-discovery site: ingest, search, serve.")
app.command()(search)
app.command()(insight)

HostOption = Annotated[str, typer.Option(help="Address to listen on.")]
PortOption = Annotated[int, typer.Option(min=1, max=65535, help="Port; if it is taken, the next free one is used.")]


@app.command()
def ingest(
    file: Annotated[
        Path | None, typer.Argument(help="jsonl, csv or parquet with id, title, summary and more.", show_default=False)
    ] = None,
    source: Annotated[str | None, typer.Option(help="A bundled source: daily_papers.", show_default=False)] = None,
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
    as_json: JsonFlag = False,
) -> None:
    """Take papers in, or bring them up to date. May be interrupted and run again."""
    from nextvec.papers.ingest import ingest as run
    from nextvec.papers.ingest import read_file, read_source

    if (file is None) == (source is None):
        raise InputError("give either a FILE or --source daily_papers, one of the two")
    papers = read_file(file) if file is not None else read_source(source or "")
    with opened(home, encoder) as site, stages(quiet=as_json) as stage:
        report = run(site, papers, stage=stage)
    text = (
        f"{report.read:,} papers read, {report.changed:,} new or changed, {report.embedded:,} embedded; "
        f"the site holds {report.papers:,} ({report.seconds:.1f} s)"
    )
    emit(report.as_dict(), as_json=as_json, text=text)


@app.command()
def serve(
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    home: HomeOption = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="Where readers reach the site, e.g. https://papers.example.org: the address that feeds give.",
            show_default=False,
        ),
    ] = None,
    encoder: EncoderOption = "nextvec-mini",
    rate: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Requests to /api per minute and client address; 0: any number.")
    ] = DEFAULT_RATE,
    as_json: JsonFlag = False,
) -> None:
    """Serve the site until Ctrl-C."""
    with opened(home, encoder, must_exist=True) as site:
        run_server(site, host, port, url=url, rate=rate, as_json=as_json)


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


def run_server(
    site: Site,
    host: str,
    port: int,
    *,
    url: str | None = None,
    rate: int = DEFAULT_RATE,
    as_json: bool = False,
) -> None:
    """Serve ``site`` on the first free port from ``port`` on, in this process, until Ctrl-C or SIGTERM.

    ``url``: where readers reach it; ``rate``: requests to /api per minute and client address; 0 for any number.
    """
    from nextvec.extras import require

    uvicorn = require("uvicorn", why="the paper-discovery site")
    from nextvec.papers.ingest import is_ready
    from nextvec.papers.web import create_app

    check_index(site)
    if not is_ready(site):
        note("some papers are newer than the search index: run the ingest again to index them")
    application = create_app(site, base=url, rate=rate)
    warm(site)
    with _listen(host, port) as socket:
        taken = socket.getsockname()[1]
        if taken != port:
            note(f"port {port} is taken, using {taken}")
        shown_host = f"[{host}]" if ":" in host else host
        address = f"http://{shown_host}:{taken}/"
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


def _listen(host: str, port: int, *, tries: int = 50) -> Any:
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
