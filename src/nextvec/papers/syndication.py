"""Papers as feeds that programs read: Atom 1.0 (RFC 4287), RSS 2.0 and JSON Feed 1.1, from the same entries.

Ids do not depend on where the site is served. An arXiv paper is its arXiv address, which is the same in every feed of
every site; another paper, and each feed, is a ``urn:uuid`` made from the name that the database gave itself.

``published`` is when the paper came to the site (its listing, else its publication): feed readers sort by it, and a
paper listed today that was on arXiv last year would otherwise go under. ``updated`` is later where its title or
abstract was changed since. Votes are not in a feed: they would make every entry new every day.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from email.utils import format_datetime
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from nextvec.papers import markup
from nextvec.papers.db import Stored
from nextvec.papers.pages import links
from nextvec.papers.records import Paper
from nextvec.papers.shown import dayname

__all__ = ["FORMATS", "MOST", "Entry", "Feed", "Format", "atom", "entries", "json_feed", "rss", "stable_id"]

MOST = 100
"""Entries of a feed at most."""
_NAMES = 200
_ATOM = "http://www.w3.org/2005/Atom"
_DUBLIN = "http://purl.org/dc/elements/1.1/"
_RSS_RULES = "https://www.rssboard.org/rss-specification"
_JSON_RULES = "https://jsonfeed.org/version/1.1"
_GENERATOR = "nextvec papers"
# What XML 1.0 cannot hold, not even as a character reference; non-characters; half of a surrogate pair.
_UNSPEAKABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One paper. Times are aware UTC, ``updated`` not before ``published``; texts are plain, ``html`` is safe HTML.

    ``link`` is its page on the site, ``related`` what it points to, (name, address).
    """

    id: str
    title: str
    link: str
    published: datetime
    updated: datetime
    summary: str
    html: str
    authors: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    related: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """``link``: the page; ``address``: the feed itself. Both are whole addresses. ``updated``: aware UTC."""

    id: str
    title: str
    subtitle: str
    link: str
    address: str
    icon: str
    updated: datetime
    entries: Sequence[Entry]


def stable_id(site: str, what: str) -> str:
    """``urn:uuid:...`` of ``what`` (a path, a paper) on the site that calls itself ``site``, a UUID."""
    return f"urn:uuid:{uuid.uuid5(uuid.UUID(site), what)}"


def entries(papers: Sequence[Stored], revised: Mapping[str, datetime], *, site: str, base: str) -> list[Entry]:
    """The entries of papers that have a time. ``revised``: when texts last changed (naive UTC), by id; ``base``: the
    address of the site without a slash at its end."""
    return [
        _entry(stored.paper, moment, revised.get(stored.paper.id), site, base)
        for stored in papers
        if (moment := _moment(stored.paper)) is not None
    ]


def _moment(paper: Paper) -> datetime | None:
    day = datetime.combine(paper.daily_date, time()) if paper.daily_date else None
    return paper.listed_at or paper.published_at or day


def _entry(paper: Paper, moment: datetime, revised: datetime | None, site: str, base: str) -> Entry:
    published = moment.replace(tzinfo=UTC, microsecond=0)
    updated = max(published, revised.replace(tzinfo=UTC, microsecond=0)) if revised else published
    names = tuple(filter(None, map(_speakable, paper.authors[:_NAMES])))
    categories = [paper.organization, paper.source, *paper.categories, "has code" if paper.has_code else None]
    summary = _speakable(markup.plain(paper.summary))
    return Entry(
        id=f"https://arxiv.org/abs/{paper.id}" if paper.is_arxiv else stable_id(site, f"paper {paper.id}"),
        title=_speakable(markup.plain(paper.title)) or paper.id,
        link=f"{base}/papers/{paper.id}",
        published=published,
        updated=updated,
        summary=summary,
        html=_speakable(_html(paper)),
        authors=names,
        categories=tuple(filter(None, (_speakable(name or "") for name in categories))),
        related=tuple((name, address) for name, address, _ in links(paper)),
    )


def _html(paper: Paper) -> str:
    """The abstract, then one line of facts and links."""
    facts: list[str] = []
    if paper.organization:
        facts.append(Markup("{}").format(paper.organization))
    if paper.published_at:
        facts.append(Markup("published {}").format(dayname(paper.published_at)))
    facts += [Markup('<a href="{}">{}</a>').format(address, name) for name, address, _ in links(paper)]
    abstract = Markup("<p>{}</p>").format(markup.html(paper.summary)) if paper.summary else Markup("")
    return str(abstract + (Markup("<p>{}</p>").format(Markup(" · ").join(facts)) if facts else Markup("")))


def _speakable(text: str) -> str:
    return _UNSPEAKABLE.sub("", text)


# -- Atom ----------------------------------------------------------------------------------------------------------
def atom(feed: Feed) -> bytes:
    """An Atom 1.0 document, UTF-8."""
    root = Element("feed", {"xmlns": _ATOM, "xml:lang": "en"})
    _text(root, "id", feed.id)
    _text(root, "title", feed.title)
    _text(root, "subtitle", feed.subtitle)
    _text(root, "updated", _rfc3339(feed.updated))
    _text(root, "generator", _GENERATOR)
    _text(root, "icon", feed.icon)
    SubElement(root, "link", {"rel": "self", "type": "application/atom+xml", "href": feed.address})
    SubElement(root, "link", {"rel": "alternate", "type": "text/html", "href": feed.link})
    _text(SubElement(root, "author"), "name", _GENERATOR)  # of entries without authors
    for entry in feed.entries:
        node = SubElement(root, "entry")
        _text(node, "id", entry.id)
        _text(node, "title", entry.title)
        _text(node, "updated", _rfc3339(entry.updated))
        _text(node, "published", _rfc3339(entry.published))
        SubElement(node, "link", {"rel": "alternate", "type": "text/html", "href": entry.link})
        for name, address in entry.related:
            SubElement(node, "link", {"rel": "related", "title": name, "href": address})
        for name in entry.authors:
            _text(SubElement(node, "author"), "name", name)
        for name in entry.categories:
            SubElement(node, "category", {"term": name})
        if entry.summary:
            _text(node, "summary", entry.summary)
        _text(node, "content", entry.html, type="html")
    return _document(root)


# -- RSS -----------------------------------------------------------------------------------------------------------
def rss(feed: Feed) -> bytes:
    """An RSS 2.0 document, UTF-8."""
    root = Element("rss", {"version": "2.0", "xmlns:atom": _ATOM, "xmlns:dc": _DUBLIN})
    channel = SubElement(root, "channel")
    _text(channel, "title", feed.title)
    _text(channel, "link", feed.link)
    _text(channel, "description", feed.subtitle)
    _text(channel, "language", "en")
    _text(channel, "lastBuildDate", format_datetime(feed.updated, usegmt=True))
    _text(channel, "generator", _GENERATOR)
    _text(channel, "docs", _RSS_RULES)
    SubElement(channel, "atom:link", {"rel": "self", "type": "application/rss+xml", "href": feed.address})
    for entry in feed.entries:
        node = SubElement(channel, "item")
        _text(node, "title", entry.title)
        _text(node, "link", entry.link)
        _text(node, "guid", entry.id, isPermaLink="false")  # the link may move with the site, this does not
        _text(node, "pubDate", format_datetime(entry.published, usegmt=True))
        if entry.updated != entry.published:
            _text(node, "atom:updated", _rfc3339(entry.updated))
        for name in entry.authors:
            _text(node, "dc:creator", name)
        for name in entry.categories:
            _text(node, "category", name)
        _text(node, "description", entry.html)
    return _document(root)


# -- JSON Feed -----------------------------------------------------------------------------------------------------
def json_feed(feed: Feed) -> bytes:
    """A JSON Feed 1.1 document, UTF-8."""
    document: dict[str, Any] = {
        "version": _JSON_RULES,
        "title": feed.title,
        "home_page_url": feed.link,
        "feed_url": feed.address,
        "description": feed.subtitle,
        "favicon": feed.icon,
        "language": "en",
        "items": [_item(entry) for entry in feed.entries],
    }
    return json.dumps(document, ensure_ascii=False, indent=1).encode()


def _item(entry: Entry) -> dict[str, Any]:
    item: dict[str, Any] = {
        "id": entry.id,
        "url": entry.link,
        "external_url": entry.related[0][1] if entry.related else None,
        "title": entry.title,
        "content_html": entry.html,
        "summary": entry.summary,
        "date_published": _rfc3339(entry.published),
        "date_modified": _rfc3339(entry.updated),
        "authors": [{"name": name} for name in entry.authors],
        "tags": list(entry.categories),
    }
    # An empty value is left out, but for the content: an item needs one.
    return {name: value for name, value in item.items() if value or name == "content_html"}


def _text(parent: Element, name: str, text: str, **attributes: str) -> None:
    SubElement(parent, name, attributes).text = text


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _document(root: Element) -> bytes:
    return bytes(tostring(root, encoding="utf-8", xml_declaration=True))


@dataclass(frozen=True, slots=True)
class Format:
    """How one of the three is called, served and written."""

    name: str
    media_type: str
    write: Callable[[Feed], bytes]


FORMATS = {
    "atom": Format("Atom", "application/atom+xml", atom),
    "rss": Format("RSS", "application/rss+xml", rss),
    "json": Format("JSON Feed", "application/feed+json", json_feed),
}
"""By the ending of an address."""
