"""The search over HTTP: its page, its feeds, and what the field suggests while somebody types."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from nextvec.papers import examples
from nextvec.papers.cards import cards
from nextvec.papers.facets import facets
from nextvec.papers.insight.about import best_sentences
from nextvec.papers.offered import offered
from nextvec.papers.params import check_page, check_query, read_page
from nextvec.papers.ranking import papers_in
from nextvec.papers.responses import page, site_of
from nextvec.papers.search import MODES, Results, answer, loosened, paper_id, without_each
from nextvec.papers.search_form import SearchForm, filter_names, read_form
from nextvec.papers.site import Site
from nextvec.papers.spelling import meant
from nextvec.papers.suggest import suggestions
from nextvec.papers.syndication import FORMATS, MOST
from nextvec.papers.web_feeds import changed_at, feed_of, links_of
from nextvec.types import InputError

__all__ = ["EXAMPLES", "router"]

SIZE = 20
EXAMPLES = (
    "a model that thinks in latent space instead of words",
    "making small language models reason better",
    "video generation that obeys physics",
    "robots that learn from human videos",
    "is my benchmark contaminated?",
    "GUI agents",
)
_MODES = {"hybrid": "Both", "semantic": "Meaning", "keyword": "Words", "phrase": "Exact phrase"}
_SORTS = {"relevance": "Relevance", "newest": "Newest", "votes": "Most votes"}
_GET = ["GET", "HEAD"]
router = APIRouter()


@router.api_route("/search", methods=_GET)
def search_page(request: Request) -> Response:
    """The form, and what answers it."""
    site = site_of(request)
    with site.db.snapshot_held():
        return _search_page(request, site)


def _search_page(request: Request, site: Site) -> Response:
    values = request.query_params
    form = read_form(values, values.getlist, site.db)
    number = read_page(values.get("page"))
    identifier = paper_id(form.request.query)
    scripted = "hx-request" in request.headers
    if identifier and site.db.get(identifier) and not (form.request.like or form.request.unlike):
        if scripted:  # a script asked: the page itself has to move, not its results
            return Response(headers={"HX-Redirect": f"/papers/{identifier}"})
        return RedirectResponse(f"/papers/{identifier}", status_code=303)
    after = values.get("after")
    # A form sends its empty fields too; the address that is kept and passed on has none.
    address = form.address(after=after, page=number if number > 1 else None)
    if not scripted and any(not value for _, value in values.multi_items()):
        return RedirectResponse(address, status_code=303)
    known = offered(site)
    context: dict[str, Any] = {
        "active": "search",
        "form": form,
        "query": form.request.query,
        "modes": {name: _MODES[name] for name in MODES},
        "sorts": {name: shown for name, shown in _SORTS.items() if form.request.asks or name != "relevance"},
        "sort": form.request.sort if form.request.asks or form.request.sort == "newest" else "votes",
        "examples": EXAMPLES,
        "most_text": examples.MAX_TEXT,
        "unknown_id": identifier,
        "offered": known,
        "top_organizations": known.organizations[:24],
        "papers": papers_in(site),
        "results": None,
        "feeds": [],
    }
    if not form.empty:
        results = answer(site, form.request, page=number, size=SIZE, after=after)
        check_page(number, results.pages)
        context |= _answered(site, form, results)
    response = page(request, "search.html", context)
    if scripted:
        response.headers["HX-Replace-Url"] = address
    return response


def _answered(site: Site, form: SearchForm, results: Results) -> dict[str, Any]:
    """What the page shows of an answer."""
    asked = form.request
    named = {stored.paper.id: stored for stored in site.db.get_many([*asked.like, *asked.unlike])}
    counted = facets(site, asked, results.ranking)
    without = without_each(asked.filters)
    return {
        "results": results,
        "cards": cards(form, results.matches, _sentences(site, form, results)) if asked.asks else [],
        "facets": [(facet, [(one, form.address(one.filters)) for one in facet.counts]) for facet in counted],
        "meant": meant(site, asked.query) if asked.query and results.page == 1 else [],
        "named_papers": named,
        "missing": examples.missing(site, asked),
        "options": loosened(site, asked.filters) if not results.total and asked.filters else (True, []),
        "without": without,
        "several": sum(loose != asked.filters for name, loose in without.items() if name != "all") > 1,
        "named": filter_names(asked.filters),
        "most_votes": max((match.stored.paper.upvotes for match in results.matches), default=0),
        "feeds": links_of(form.address),
    }


def _sentences(site: Site, form: SearchForm, results: Results) -> dict[str, str]:
    """By id: the sentence that says best why a paper is there that shares no word with the query."""
    meant_only = [match.stored for match in results.matches if match.meaning_rank is not None and not match.terms]
    vector = examples.direction(site, form.request) if meant_only else None
    return best_sentences(site, meant_only, vector) if vector is not None else {}


@router.api_route("/search/suggest", methods=_GET)
def suggest(request: Request) -> Response:
    """The options under the field, as a piece of the page; nothing where nothing begins like that."""
    text = check_query(request.query_params.get("q", ""))
    return page(request, "suggest.html", {"suggestions": suggestions(site_of(request), text)})


# -- feeds ---------------------------------------------------------------------------------------------------------
def _feed(request: Request, ending: str) -> Response:
    site = site_of(request)
    with site.db.snapshot_held():
        return _held_feed(request, site, ending)


def _held_feed(request: Request, site: Site, ending: str) -> Response:
    values = request.query_params
    form = read_form(values, values.getlist, site.db)
    if form.empty:
        raise InputError("a feed of a search needs something to look for: give q, like or a filter")
    results = answer(site, form.request, size=MOST)
    return feed_of(
        request,
        ending,
        [match.stored for match in results.matches],
        max(changed_at(site), site.words_changed()),  # the indexes follow the papers a moment later
        address=lambda end: form.address(ending=end),
        title=_said(form),
        subtitle=f"The first {MOST} papers of a search, by {_SORTS[form.request.sort].lower()}.",
    )


def _said(form: SearchForm) -> str:
    """The search in one line."""
    asked = form.request
    parts = [asked.query and f"“{asked.query}”", asked.text and f"like “{asked.text[:60]}…”"]
    parts += [f"like {', '.join(asked.like)}" if asked.like else ""]
    parts += [f"not like {', '.join(asked.unlike)}" if asked.unlike else ""]
    loose = without_each(asked.filters)
    parts += [shown for name, shown in filter_names(asked.filters).items() if loose[name] != asked.filters]
    return "Search: " + ", ".join(part for part in parts if part)


def _add(ending: str) -> None:
    def endpoint(request: Request) -> Response:
        return _feed(request, ending)

    router.add_api_route(f"/search.{ending}", endpoint, methods=_GET, response_class=Response)


for _ending in FORMATS:
    _add(_ending)
