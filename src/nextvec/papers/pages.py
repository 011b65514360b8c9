"""The environment of the templates: filters that turn values into what people read, and the static files' names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined, select_autoescape
from jinja2.bccache import Bucket
from markupsafe import Markup

from nextvec.papers import lexical, markup, shown
from nextvec.papers.emblem import draw
from nextvec.papers.records import Paper

__all__ = ["STATIC", "environment", "meter", "rich", "snippet"]

_HERE = Path(__file__).parent
STATIC = _HERE / "static"


class _Compiled(BytecodeCache):
    """The templates' code, kept for the process: its pages, its mails and further sites compile a template once."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if code := self._code.get(bucket.key):
            bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[bucket.key] = bucket.bytecode_to_string()


_COMPILED = _Compiled()


def environment() -> Environment:
    """Jinja with escaping on for everything and errors for names that do not exist."""
    jinja = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        bytecode_cache=_COMPILED,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {
        "rich": rich,
        "plain": markup.plain,
        "teaser": _teaser,
        "host": host,
        **shown.FILTERS,
    }
    jinja.globals |= {
        "static": static_address,
        "emblem": draw,
        "meter": meter,
        "snippet": snippet,
        "links": links,
        "weekdays": shown.weekdays,
    }
    return jinja


def rich(text: str, mark: Callable[[str], Markup] | None = None) -> Markup:
    """A title or an abstract as HTML; ``mark`` highlights words in it."""
    return _unmarked(text) if mark is None else _marked(text, mark)


@lru_cache(maxsize=10_000)
def _unmarked(text: str) -> Markup:
    return markup.html(text)


@lru_cache(maxsize=2_000)
def _marked(text: str, mark: Callable[[str], Markup]) -> Markup:
    # Few, and apart: what is marked is one query's, and would drive out what every page shows.
    return markup.html(text, mark=mark)


@lru_cache(maxsize=10_000)
def _teaser(text: str, length: int = 280) -> str:
    return markup.teaser(text, length)


@lru_cache(maxsize=5_000)
def snippet(query: str, text: str, mark: Callable[[str], Markup] | None) -> Markup:
    """The part of an abstract that holds the query's words, highlighted."""
    part, from_start = lexical.snippet(query, text)
    shown = markup.html(part[:420].rsplit(" ", 1)[0] + " …" if len(part) > 420 else part, mark=mark)
    return shown if from_start else Markup("… {}").format(shown)


def host(address: str) -> str:
    """https://github.com/a/b -> github.com/a/b, cut to 48 characters."""
    text = address.split("://", 1)[-1].removeprefix("www.").rstrip("/")
    return text if len(text) <= 48 else text[:47] + "…"


def meter(share: float, kind: str = "") -> Markup:
    """A small bar, ``share`` of 0 to 1 full. Drawn as SVG: no style attribute, no layout of its own."""
    return _bar(round(100 * min(max(share, 0.0), 1.0)), kind)


@lru_cache(maxsize=1_000)
def _bar(width: int, kind: str) -> Markup:
    return Markup(
        '<svg class="meter {}" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="6" rx="3"/><rect class="fill" width="{}" height="6" rx="3"/></svg>'
    ).format(kind, width)


def links(paper: Paper) -> list[tuple[str, str, str]]:
    """(name, address, what is shown) of everything a paper points to."""
    found = []
    if paper.is_arxiv:
        found.append(("arXiv", f"https://arxiv.org/abs/{paper.id}", f"arxiv.org/abs/{paper.id}"))
        found.append(("PDF", f"https://arxiv.org/pdf/{paper.id}", f"arxiv.org/pdf/{paper.id}"))
    if paper.github_repo:
        found.append(("Code", paper.github_repo, host(paper.github_repo)))
    if paper.project_page:
        found.append(("Project", paper.project_page, host(paper.project_page)))
    return found


@lru_cache(maxsize=100)
def static_address(name: str) -> str:
    """``/static/name?v=...``: the address changes with the content, so browsers may keep it for ever."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:10]
    return f"/static/{name}?v={digest}"
