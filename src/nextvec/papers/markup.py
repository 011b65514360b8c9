r"""Titles and abstracts as people wrote them (LaTeX, Markdown remains, addresses) -> safe HTML or plain text.

``parse`` turns text into a small tree (``latex``) and never raises; ``to_html`` escapes every piece of text, so nothing
in the input can become markup. Maths is set with <sup>, <sub> and Unicode, readable without JavaScript: ``$10^{-3}$``,
``\(\alpha \leq 1\)``, ``O(n^2)``. Commands nobody knows fall back to their name (``\method`` -> method).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from markupsafe import Markup

from nextvec.papers import latex, symbols
from nextvec.papers.records import clean
from nextvec.papers.rendering import Node, to_html, to_plain

__all__ = ["html", "parse", "plain", "teaser"]

_LONGEST = 25_000
_SIGN = re.compile(r"[\\^_{}$~`'*]")
_SAYING = ("--", "://", "www.", "times", *symbols.BARE)


@lru_cache(maxsize=4096)
def parse(text: str) -> tuple[Node, ...]:
    """The tree of one title or abstract; neighbouring pieces of text are joined. Never raises."""
    cleaned = clean(text[:_LONGEST])
    if _ordinary(cleaned):
        return (Node("text", cleaned),) if cleaned else ()
    return _merged(latex.read(cleaned))


def _ordinary(text: str) -> bool:
    """Whether nothing in ``text`` means anything but itself: most abstracts, in a tenth of the time of reading them."""
    return _SIGN.search(text) is None and not any(word in text for word in _SAYING)


def _merged(nodes: Iterable[Node]) -> tuple[Node, ...]:
    out: list[Node] = []
    for node in nodes:
        if node.children:
            node = Node(node.kind, node.text, _merged(node.children))
        if out and node.kind == "text" and out[-1].kind == "text":
            out[-1] = Node("text", out[-1].text + node.text)
        else:
            out.append(node)
    return tuple(out)


def html(text: str, *, mark: Callable[[str], Markup] | None = None) -> Markup:
    """``text`` as safe HTML."""
    return to_html(parse(text), mark=mark)


def plain(text: str) -> str:
    """``text`` as plain text."""
    return to_plain(parse(text))


def teaser(text: str, length: int = 300) -> str:
    """The beginning of ``text`` as plain text, at most ``length`` characters, cut at a word."""
    whole = plain(text[: length * 3])
    if len(whole) <= length:
        return whole
    cut = whole[: length - 1].rsplit(" ", 1)[0].rstrip(" ,;:–—-(")
    return f"{cut}…"
