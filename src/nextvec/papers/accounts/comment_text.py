"""The text of comments: a small part of Markdown, as HTML that cannot do anything.

Two walls: markdown-it reads it with raw HTML off, and without images and headings; nh3 then lets through only the
elements that are left, links to http(s) only, each marked as somebody else's word.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from markupsafe import Markup

from nextvec.extras import require

__all__ = ["html"]

_TAGS = {"p", "br", "em", "strong", "code", "pre", "blockquote", "ul", "ol", "li", "a", "hr"}
_OFF = ["image", "heading", "lheading", "html_block", "html_inline", "reference"]
_WHY = "comments on papers"


@lru_cache(maxsize=2_000)
def html(text: str) -> Markup:
    """``text`` as safe HTML."""
    return Markup(_cleaned(_reader().render(text)))


def _cleaned(markup: str) -> str:
    """What may stand in a comment of any HTML."""
    nh3 = require("nh3", why=_WHY)
    return str(
        nh3.clean(
            markup,
            tags=_TAGS,
            attributes={"*": set(), "a": {"href"}, "ol": {"start"}},
            attribute_filter=_kept,
            url_schemes={"http", "https"},
            link_rel="nofollow ugc noopener",
        )
    )


def _kept(tag: str, attribute: str, value: str) -> str | None:
    """Addresses that begin with their scheme: "//host" and "/account" would be read as a part of this site's page."""
    return value if attribute != "href" or value.startswith(("http://", "https://")) else None


@cache
def _reader() -> Any:
    markdown_it = require("markdown_it", why=_WHY)
    reader = markdown_it.MarkdownIt("commonmark", {"html": False, "maxNesting": 20, "breaks": True})
    return reader.disable(_OFF)
