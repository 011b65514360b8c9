"""What ``nextvec papers`` changes for a reader: votes and reading lists; and the views, as the pages order them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextvec.cli._papers_read import IdArgument, SiteOption, TokenFileOption, reading, records, text_of
from nextvec.cli._papers_site import (
    AuthorOption,
    CategoryOption,
    CodeOption,
    EncoderOption,
    FromOption,
    HomeOption,
    OrgOption,
    SourceOption,
    ToOption,
    TopicOption,
    VotesOption,
)
from nextvec.cli.console import JsonFlag, emit
from nextvec.types import InputError

if TYPE_CHECKING:
    from nextvec.papers.reading import Listed, Reading

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Put the commands into ``nextvec papers``."""
    for command in (feed, vote, save):
        app.command()(command)


def feed(
    view: Annotated[str, typer.Argument(help="daily, trending, rising, discussed or new.")] = "daily",
    k: Annotated[int, typer.Option("-k", "--k", min=1, max=100, help="How many papers.")] = 20,
    page: Annotated[int, typer.Option(min=1, max=10_000, help="Which page of so many.")] = 1,
    topic: TopicOption = None,
    author: AuthorOption = None,
    org: OrgOption = None,
    source: SourceOption = None,
    category: CategoryOption = None,
    votes: VotesOption = None,
    code: CodeOption = False,
    start: FromOption = None,
    end: ToOption = None,
    half: Annotated[float | None, typer.Option(help="Of trending: half-life in days.", show_default=False)] = None,
    last: Annotated[
        int | None, typer.Option(help="Of rising: votes gained in so many days.", show_default=False)
    ] = None,
    days: Annotated[str | None, typer.Option(help="Of discussed: 7, 30, 365 or all.", show_default=False)] = None,
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
    site: SiteOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the papers of a view, in its order and under its filters."""
    asked: dict[str, Any] = {
        "topic": topic, "author": author, "org": org, "source": source, "category": category, "votes": votes,
        "code": "1" if code else None, "from": start, "to": end, "half": half, "last": last, "days": days,
    }  # fmt: skip
    values = {name: str(value) for name, value in asked.items() if value is not None}
    with reading(home, encoder, site, token_file) as papers:
        from nextvec.papers.reading import VIEWS

        if view not in VIEWS:
            raise InputError(f"there is no view {view[:40]!r}; there are {', '.join(VIEWS)}")
        found = papers.view(view, values, limit=k, page=page - 1)
    emit(records(found), as_json=as_json, text=text_of(found, "no papers"))


def vote(
    paper: IdArgument,
    undo: Annotated[bool, typer.Option("--undo", help="Take the vote back.")] = False,
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
    site: SiteOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Vote for a paper, or take the vote back: as this machine's reader, or with --site as the token's."""
    with reading(home, encoder, site, token_file) as papers:
        count = papers.vote(paper, up=not undo)
    said = f"{count:,} vote{'' if count == 1 else 's'}, {'without' if undo else 'with'} yours"
    emit({"id": paper, "upvotes": count, "voted": not undo}, as_json=as_json, text=said)


def save(
    paper: Annotated[str, typer.Argument(metavar="[ID]", help="Id of a paper, or its arXiv address.")] = "",
    into: Annotated[str, typer.Option("--list", "-l", help="The list, by name or id.")] = "",
    note: Annotated[str, typer.Option(help="A note; of a paper that is in the list it is replaced.")] = "",
    new: Annotated[bool, typer.Option("--new", help="Make the list.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the paper out of the list.")] = False,
    drop: Annotated[bool, typer.Option("--delete-list", help="Delete the list with its notes.")] = False,
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
    site: SiteOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Put a paper into a reading list, or take it out; make a list, or delete it."""
    if not into:
        raise InputError("no list was named: --list NAME; `nextvec papers lists` shows those there are")
    if new + remove + drop > 1 or (drop and paper) or (not paper and not (new or drop)):
        raise InputError(
            "expected ID and --list, with --new or --remove if wanted; or --list and --new or --delete-list"
        )
    with reading(home, encoder, site, token_file) as papers:
        chosen = _made(papers, into) if new else _known(papers, into)
        if drop:
            papers.drop_list(chosen.id)
        elif remove:
            papers.take_out(chosen.id, paper)
        elif paper:
            papers.put(chosen.id, paper, note)
    done = "is deleted" if drop else f"holds {paper} no more" if remove else f"holds {paper}" if paper else "is there"
    document = {"list": chosen.id, "name": chosen.name, "paper": paper or None}
    emit(document, as_json=as_json, text=f"{chosen.name!r} {done}")


def _known(papers: Reading, word: str) -> Listed:
    from nextvec.papers.reading import choose

    return choose(papers.lists(), word)


def _made(papers: Reading, name: str) -> Listed:
    identifier = papers.make_list(name)
    return next(one for one in papers.lists() if one.id == identifier)
