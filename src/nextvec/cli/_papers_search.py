"""``nextvec papers search``: by meaning, by word and by example, under filters."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextvec.cli._papers_read import TOKENLESS, SiteOption, TokenFileOption, facts, record, search_there
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
    opened,
)
from nextvec.cli.console import JsonFlag, emit, note
from nextvec.types import InputError

if TYPE_CHECKING:
    from nextvec.papers.facets import Facet
    from nextvec.papers.params import Unknown
    from nextvec.papers.search import Match, Request, Results
    from nextvec.papers.site import Site

Names = Annotated[
    list[str] | None, typer.Option(help="A paper's id or arXiv address; several times.", show_default=False)
]


def search(
    query: Annotated[str, typer.Argument(help="A question, words, a name or an arXiv id.")] = "",
    k: Annotated[int, typer.Option("-k", "--k", min=1, max=200, help="How many results.")] = 10,
    where: Annotated[
        str | None,
        typer.Option(help='Filter, e.g. "year >= 2025 AND has_code = true".', show_default=False),
    ] = None,
    start: FromOption = None,
    end: ToOption = None,
    org: OrgOption = None,
    author: AuthorOption = None,
    source: SourceOption = None,
    category: CategoryOption = None,
    topic: TopicOption = None,
    year: Annotated[int | None, typer.Option(help="Year of the publication.", show_default=False)] = None,
    votes: VotesOption = None,
    code: CodeOption = False,
    mode: Annotated[str, typer.Option(help="hybrid, semantic, keyword or phrase.")] = "hybrid",
    sort: Annotated[str, typer.Option(help="relevance, newest or votes.")] = "relevance",
    like: Names = None,
    unlike: Names = None,
    text: Annotated[
        Path | None, typer.Option(help="A file with a text, such as an abstract, to find papers like it.")
    ] = None,
    with_facets: Annotated[bool, typer.Option("--facets", help="Count organisations, authors, years ... too.")] = False,
    home: HomeOption = None,
    encoder: EncoderOption = "nextvec-mini",
    site: SiteOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Search the papers by meaning, by word and by example, under filters. "Quoted words" must be there as they are."""
    from nextvec.papers.search import Request, check_mode, check_query, check_sort

    request = Request(
        query=check_query(query),
        mode=check_mode(mode),
        sort=check_sort(sort),
        like=_examples(like, "--like"),
        unlike=_examples(unlike, "--unlike"),
        text=_pasted(text),
        where=where,
    )
    if not request.asks:
        raise InputError("the query is empty: say what to look for")
    values = {
        "from": start, "to": end, "org": org, "author": author, "source": source, "topic": topic,
        "category": category,
        "year": str(year) if year else None, "votes": str(votes) if votes else None, "code": str(int(code)),
    }  # fmt: skip
    if site is not None:
        if where or text or home:
            raise InputError(
                "--where, --text and --home are for the papers of this machine: leave them out with --site"
            )
        params = values | {"q": request.query, "mode": request.mode, "sort": request.sort, "limit": k}
        params |= {"like": request.like, "unlike": request.unlike}
        search_there(site, token_file, params, counted=with_facets, as_json=as_json)
        return
    if token_file is not None:
        raise InputError(TOKENLESS)
    _search_here(home, encoder, query, request, values, k, counted=with_facets, as_json=as_json)


def _search_here(
    home: Path | None,
    encoder: str,
    query: str,
    request: Request,
    values: dict[str, str | None],
    k: int,
    *,
    counted: bool,
    as_json: bool,
) -> None:
    """Search the papers of ``home``. ``query``: as it was typed; ``values``: filters; ``counted``: facets, too."""
    from nextvec.papers.facets import facets
    from nextvec.papers.search import answer, paper_id

    with opened(home, encoder, must_exist=True) as here:
        request, unknown = _filtered(here, request, values)
        identifier = paper_id(query)
        if identifier and here.db.get(identifier) is None:
            note(f"there is no paper {identifier} here: searching its digits as words")
        began = time.perf_counter()
        results = answer(here, request, size=k)
        seconds = time.perf_counter() - began
        found = facets(here, request, results.ranking) if counted else []
        _hint(here, request.query)
    document = {
        "query": query,
        "mode": request.mode,
        "candidates": results.candidates,
        "with_words": results.with_words,
        "seconds": round(seconds, 4),
        "results": [as_record(match) for match in results.matches],
    }
    if counted:
        document["facets"] = {one.name: {count.value: count.papers for count in one.counts} for one in found}
    emit(document, as_json=as_json, text=_text(results, unknown, found))


def _filtered(site: Site, request: Request, values: dict[str, str | None]) -> tuple[Request, Unknown]:
    """``request`` under its filters, once the examples are known to be there."""
    from dataclasses import replace

    from nextvec.papers.examples import missing
    from nextvec.papers.params import read_all_filters

    if absent := missing(site, request):
        raise InputError(f"{absent[0]} is not in this collection: pass its abstract with --text instead")
    filters, unknown = read_all_filters({name: value for name, value in values.items() if value}, site.db)
    return replace(request, filters=filters), unknown


def _examples(values: list[str] | None, name: str) -> tuple[str, ...]:
    from nextvec.papers.examples import read_examples

    return read_examples(values or [], name)


def _pasted(path: Path | None) -> str:
    from nextvec.papers.examples import read_text

    if path is None:
        return ""
    try:
        return read_text(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--text {str(path)!r} cannot be read: {error}; expected a UTF-8 text file") from error


def _hint(site: Site, query: str) -> None:
    from nextvec.papers.spelling import meant

    for one in meant(site, query):
        note(f"did you mean {one.text!r}{f' ({one.kind})' if one.kind != 'words' else ''}?")


def _text(results: Results, unknown: Unknown, counted: list[Facet]) -> str:
    """The answer for people."""
    if not results.matches:
        kinds = {"org": "organisation"}
        close = [f"the {kinds.get(name, name)} {value!r}" for name, value in unknown.items() if value]
        hint = f"; did you mean {' and '.join(close)}?" if close else ""
        return f"nothing found among {results.candidates:,} papers that satisfy the filter{hint}"
    lines = [shown(match, place) for place, match in enumerate(results.matches, start=1)]
    for facet in counted:
        lines.append(f"{facet.title}: " + ", ".join(f"{one.value} {one.papers:,}" for one in facet.counts))
    return "\n".join(lines)


def as_record(match: Match) -> dict[str, Any]:
    """A result as JSON holds it."""
    return record(match.stored.paper) | {
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
    return f"{place:>2}. {plain(paper.title)}\n    {facts(paper)}\n    score {match.score:.4f}: {match.why()}"
