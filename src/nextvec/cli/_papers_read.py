"""What ``nextvec papers`` reads: similar papers, one paper, reading lists; of a home here or of a site (``--site``)."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextvec.cli._papers_site import EncoderOption, HomeOption, opened
from nextvec.cli.console import JsonFlag, emit, note, table
from nextvec.types import InputError

if TYPE_CHECKING:
    from nextvec.papers.reading import Found, Reading
    from nextvec.papers.records import Paper
    from nextvec.papers.remote import Remote

__all__ = [
    "TOKENLESS",
    "IdArgument",
    "SiteOption",
    "TokenFileOption",
    "add",
    "facts",
    "reading",
    "record",
    "records",
    "remote",
    "search_there",
    "text_of",
]

TOKEN = "NEXTVEC_PAPERS_TOKEN"
TOKENLESS = "--token-file needs --site: the papers of this machine are read without a token"
SiteOption = Annotated[
    str | None,
    typer.Option("--site", help="Ask the site at this address, e.g. https://papers.example.org.", show_default=False),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help=f"With --site: a file with your token (one line). Without it: ${TOKEN}, if set.",
        show_default=False,
    ),
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of a paper, or its arXiv address.")]


def add(app: typer.Typer) -> None:
    """Put the commands into ``nextvec papers``."""
    for command in (similar, show, lists):
        app.command()(command)


# -- where to read -------------------------------------------------------------------------------------------------
@contextmanager
def reading(
    home: Path | None,
    encoder: str,
    site: str | None,
    token_file: Path | None,
    *,
    reader: str | None = None,
) -> Iterator[Reading]:
    """The papers of ``home``, or of the site that --site names. ``reader``: whose lists, by address, here only."""
    if site is not None:
        if home is not None or reader is not None:
            raise InputError("--site asks a site elsewhere: leave --home and --reader out")
        with remote(site, token_file) as there:
            yield there
        return
    if token_file is not None:
        raise InputError(TOKENLESS)
    with opened(home, encoder, must_exist=True) as here:
        from nextvec.papers.reading import Here

        yield Here(here, reader)


@contextmanager
def remote(site: str, token_file: Path | None) -> Iterator[Remote]:
    """The site at an address. InputError for what is none; nothing is asked yet."""
    from nextvec.extras import require

    for module in ("sqlalchemy", "jinja2", "httpx"):
        require(module, why="asking a papers site")
    from nextvec.papers.remote import Remote

    with Remote(site, _token(token_file), wait=_wait) as there:
        yield there


def _token(path: Path | None) -> str | None:
    """The token of a file, else of the environment; never of the command line, which every user of a machine can read.

    No message repeats what was found: it may be a part of a token.
    """
    if path is None:
        text, where = os.environ.get(TOKEN, ""), f"${TOKEN}"
        if not text.strip():
            return None
    else:
        where = f"the file {str(path)!r}"
        try:
            with path.expanduser().open(encoding="utf-8") as file:
                text = file.read(4_096)
                mode = os.fstat(file.fileno()).st_mode
        except (OSError, UnicodeDecodeError) as error:
            said = error.strerror if isinstance(error, OSError) else "it is no text"
            raise InputError(f"{where} cannot be read: {said}; expected one line with a token") from error
        if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
            note(f"{where} can be read by others on this machine: chmod 600 keeps it yours")
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(f"{where} holds no token: expected one line such as nvp_...")
    return token


def _wait(seconds: float) -> None:
    note(f"the site asks to wait {seconds:.0f} s")
    time.sleep(seconds)


# -- commands ------------------------------------------------------------------------------------------------------
def similar(
    paper: IdArgument,
    k: Annotated[int, typer.Option("-k", "--k", min=1, max=100, help="How many papers.")] = 10,
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
    site: SiteOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the papers that are nearest in meaning to one paper."""
    with reading(home, encoder, site, token_file) as papers:
        found = papers.similar(paper, k)
    emit(records(found), as_json=as_json, text=text_of(found, "it has no neighbours: nothing of it could be embedded"))


def show(
    paper: IdArgument,
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
    site: SiteOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Print one paper as Markdown: facts, abstract, links, similar papers, BibTeX."""
    with reading(home, encoder, site, token_file) as papers:
        text = papers.markdown(paper)
    emit(None, as_json=False, text=text.rstrip("\n"))


def lists(
    chosen: Annotated[
        str | None, typer.Argument(metavar="[LIST]", help="A list, by name or id; without it: which there are.")
    ] = None,
    form: Annotated[str | None, typer.Option("--format", help="bibtex or jsonl.", show_default=False)] = None,
    reader: Annotated[
        str | None,
        typer.Option(help="Whose lists, by address. Default: those of the local reader.", show_default=False),
    ] = None,
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
    site: SiteOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show reading lists, or the papers of one: as text, BibTeX or JSON lines. With --site: of the token's owner."""
    kind = None if form is None else _form(form)
    if chosen is None and kind:
        raise InputError("--format is for the papers of a list: name one")
    if kind and as_json:
        raise InputError("give either --format or --json, one of the two")
    with reading(home, encoder, site, token_file, reader=reader) as papers:
        from nextvec.papers.reading import choose

        known = papers.lists()
        if chosen is None:
            rows = [[one.id, one.name, f"{one.papers:,}", "shared" if one.shared else ""] for one in known]
            text = table(["id", "name", "papers", ""], rows, right=(2,)) if rows else "there are no lists yet"
            document = [{name: getattr(one, name) for name in one.__slots__} for one in known]
            emit(document, as_json=as_json, text=text)
            return
        one = choose(known, chosen)
        if kind:
            emit(None, as_json=False, text=papers.text_of(one.id, kind).rstrip("\n"))
            return
        found = papers.papers_of(one.id)
    emit(records(found, why="note"), as_json=as_json, text=text_of(found, f"{one.name!r} holds no papers"))


def _form(text: str) -> Any:
    from nextvec.papers.reading import FORMS

    if text not in FORMS:
        raise InputError(f"--format is {text[:40]!r}; expected {' or '.join(FORMS)}")
    return text


# -- search on a site ----------------------------------------------------------------------------------------------
def search_there(site: str, token_file: Path | None, params: dict[str, Any], *, counted: bool, as_json: bool) -> None:
    """``nextvec papers search --site``: ``params`` as the interface takes them; empty ones are left out."""
    wanted = {name: value for name, value in params.items() if value not in (None, "", ())}
    with remote(site, token_file) as there:
        found = there.find(wanted)
        narrowing = {name: value for name, value in wanted.items() if name not in ("limit", "sort")}
        facets = there.facets(narrowing) if counted else {}
    document = {"query": params.get("q", ""), "mode": params["mode"], "results": [record(one.paper) for one in found]}
    if counted:
        document["facets"] = facets
    lines = [text_of(found, "nothing found")]
    for name, counts in facets.items():
        lines.append(f"{name}: " + ", ".join(f"{value} {papers:,}" for value, papers in counts.items()))
    emit(document, as_json=as_json, text="\n".join(lines))


# -- papers as text and as records -----------------------------------------------------------------------------------
def record(paper: Paper) -> dict[str, Any]:
    """A paper as JSON holds it."""
    return {
        "id": paper.id,
        "title": paper.title,
        "organization": paper.organization,
        "daily_date": paper.daily_date,
        "votes": paper.upvotes,
        "code": paper.github_repo,
    }


def records(found: list[Found], *, why: str = "why") -> list[dict[str, Any]]:
    """Papers as JSON holds them, each with why it is there."""
    return [record(one.paper) | {why: one.why} for one in found]


def text_of(found: list[Found], nothing: str) -> str:
    """Papers as people read them; ``nothing`` for none."""
    from nextvec.papers.markup import plain

    lines = []
    for place, one in enumerate(found, start=1):
        lines.append(f"{place:>2}. {plain(one.paper.title)}\n    {facts(one.paper)}")
        if one.why:
            lines.append(f"    {one.why}")
    return "\n".join(lines) or nothing


def facts(paper: Paper) -> str:
    """Id, day, votes, organisation and whether there is code, in a line."""
    day = paper.daily_date or (paper.published_at.date() if paper.published_at else None)
    parts = [paper.id, str(day) if day else "", f"{paper.upvotes} vote{'' if paper.upvotes == 1 else 's'}"]
    return " · ".join(part for part in (*parts, paper.organization or "", "code" if paper.has_code else "") if part)
