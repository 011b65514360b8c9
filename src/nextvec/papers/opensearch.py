"""The site as a search engine of the browser: OpenSearch 1.1, with suggestions as browsers read them.

https://github.com/dewitt/opensearch: the description; the extension "Suggestions" says what /search/suggest.json gives.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, tostring

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from nextvec.papers.params import check_query
from nextvec.papers.responses import base_of, site_of
from nextvec.papers.shown import plural
from nextvec.papers.suggest import Suggestion, suggestions

__all__ = ["router"]

_NAME = "nextvec papers"  # at most 16 characters
_ABOUT = "Machine-learning papers, by meaning and by word"
_SPACE = "http://a9.com/-/spec/opensearch/1.1/"
_DESCRIPTION = "application/opensearchdescription+xml"
_SUGGESTIONS = "application/x-suggestions+json"
_GET = ["GET", "HEAD"]
router = APIRouter()


@router.api_route("/opensearch.xml", methods=_GET)
def description(request: Request) -> Response:
    """What a browser keeps when its reader adds the site to its search engines."""
    base, configured = base_of(request)
    root = Element("OpenSearchDescription", {"xmlns": _SPACE})
    for name, text in [("ShortName", _NAME), ("Description", _ABOUT), ("InputEncoding", "UTF-8"), ("Language", "en")]:
        SubElement(root, name).text = text
    SubElement(root, "Image", {"type": "image/svg+xml"}).text = f"{base}/static/favicon.svg"
    for rel, kind, path in [
        ("results", "text/html", "/search?q={searchTerms}"),
        ("results", "application/atom+xml", "/search.atom?q={searchTerms}"),
        ("suggestions", _SUGGESTIONS, "/search/suggest.json?q={searchTerms}"),
        ("self", _DESCRIPTION, "/opensearch.xml"),
    ]:
        SubElement(root, "Url", {"rel": rel, "type": kind, "template": base + path})
    body = tostring(root, encoding="utf-8", xml_declaration=True)
    kept = f"{'public' if configured else 'private'}, max-age=86400"
    return Response(body, media_type=_DESCRIPTION, headers={"Cache-Control": kept})


@router.api_route("/search/suggest.json", methods=_GET)
def suggest(request: Request) -> Response:
    """[what was typed, texts, what each is, where each leads], for the address bar."""
    text = check_query(request.query_params.get("q", ""))
    found = suggestions(site_of(request), text)
    base, _ = base_of(request)
    answer = [text, [one.text for one in found], [_said(one) for one in found], [base + one.address for one in found]]
    return JSONResponse(answer, media_type=_SUGGESTIONS, headers={"Cache-Control": "no-cache"})


def _said(one: Suggestion) -> str:
    if one.kind == "title":
        return "paper"
    return f"{one.kind}, {plural(one.papers, 'paper')}"
