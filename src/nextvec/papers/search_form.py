"""The search form as an address says it, and the addresses that the page links to: the same text both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from urllib.parse import urlencode

from nextvec.papers.db import Database, Filters
from nextvec.papers.examples import read_examples, read_text
from nextvec.papers.params import Unknown, check_query, read_all_filters
from nextvec.papers.search import Request, check_mode, check_sort, paper_id
from nextvec.papers.shown import dayname

__all__ = ["SearchForm", "filter_names", "read_form"]

Changes = str | int | None | tuple[str, ...]


@dataclass(frozen=True)
class SearchForm:
    """What was asked, checked. ``unknown``: names in the filters that no paper has, each with a close one."""

    request: Request
    unknown: Unknown = field(default_factory=dict)

    @property
    def filters(self) -> Filters:
        return self.request.filters

    @property
    def empty(self) -> bool:
        """Whether nothing is asked for."""
        return not (self.request.asks or self.filters)

    def pairs(self) -> dict[str, Changes]:
        """The parameters that say this form, but for those that have their default."""
        asked = self.request
        return {
            "q": asked.query,
            "text": asked.text,
            "like": asked.like,
            "unlike": asked.unlike,
            "mode": asked.mode if asked.mode != "hybrid" else None,
            "sort": asked.sort if asked.sort != "relevance" else None,
        } | filter_pairs(asked.filters)

    def address(self, filters: Filters | None = None, *, ending: str = "", **changes: Changes) -> str:
        """``/search?...`` for this form, with other filters or parameters, as a page or as a feed (``ending``)."""
        parts = self._parts
        if filters is not None or changes:
            others = changes if filters is None else filter_pairs(filters) | changes
            parts = parts | {name: _part(name, value) for name, value in others.items()}
        said = "&".join(filter(None, parts.values()))
        return f"/search{'.' + ending if ending else ''}{'?' + said if said else ''}"

    @cached_property
    def _parts(self) -> dict[str, str]:
        """Its parameters as they stand in an address, empty for those that are not there: the hundred addresses of a
        page differ in one of them."""
        return {name: _part(name, value) for name, value in self.pairs().items()}

    def with_example(self, identifier: str, *, liked: bool) -> str:
        """The address with one more example; what it was before is forgotten."""
        asked, name = self.request, "like" if liked else "unlike"
        alone = not (liked or asked.query or asked.text or asked.like)
        if alone or identifier in asked.like or identifier in asked.unlike:
            return self._with(identifier, name)
        before, like, unlike, after = self._around_examples
        one = _part(name, (identifier,))
        said = (before, like, one, unlike, after) if liked else (before, like, unlike, one, after)
        return f"/search?{'&'.join(filter(None, said))}"

    @cached_property
    def _around_examples(self) -> tuple[str, str, str, str]:
        """(what an address says before its examples, those liked, those not liked, what it says after them)."""
        names = list(self._parts)
        first, last = names.index("like"), names.index("unlike")
        before, after = names[:first], names[last + 1 :]
        return (
            "&".join(filter(None, map(self._parts.__getitem__, before))),
            self._parts["like"],
            self._parts["unlike"],
            "&".join(filter(None, map(self._parts.__getitem__, after))),
        )

    def without_example(self, identifier: str) -> str:
        """The address without this example."""
        return self._with(identifier, None)

    def _with(self, identifier: str, to: str | None) -> str:
        lists = {
            name: tuple(one for one in getattr(self.request, name) if one != identifier) for name in ("like", "unlike")
        }
        if to:
            lists[to] = (*lists[to], identifier)
        if lists["unlike"] and not (lists["like"] or self.request.query or self.request.text):
            lists["unlike"] = ()  # alone it says nothing
        return self.address(like=lists["like"], unlike=lists["unlike"])


@lru_cache(maxsize=20_000)
def _part(name: str, value: str | int | tuple[str, ...] | None) -> str:
    """``name=value`` as it stands in an address; nothing for a value that is none."""
    return "" if value in (None, "", ()) else urlencode({name: value}, doseq=True)


def filter_pairs(filters: Filters) -> dict[str, Changes]:
    """The filters as parameters of an address."""
    return {
        "topic": filters.topic,
        "org": filters.organization,
        "author": filters.author,
        "source": filters.source,
        "category": filters.category,
        "year": filters.year,
        "votes": filters.votes,
        "code": 1 if filters.code else None,
        "from": filters.start.isoformat() if filters.start else None,
        "to": filters.end.isoformat() if filters.end else None,
    }


def read_form(values: Mapping[str, str], several: Callable[[str], list[str]], db: Database) -> SearchForm:
    """The form of an address, with known names as the papers spell them; ``several``: all values of a parameter.

    InputError for what cannot be one.
    """
    filters, unknown = read_all_filters(values, db)
    text = read_text(values.get("text", ""))
    pasted = paper_id(text)  # the address of a paper in place of its abstract
    like = read_examples([*several("like"), *([pasted] if pasted else [])], "like")
    request = Request(
        query=check_query(values.get("q", "")),
        filters=filters,
        mode=check_mode(values.get("mode") or "hybrid"),
        sort=check_sort(values.get("sort") or "relevance"),
        like=like,
        unlike=tuple(one for one in read_examples(several("unlike"), "unlike") if one not in like),
        text="" if pasted else text,
    )
    if request.unlike and not (request.query or request.text or request.like):
        request = replace(request, unlike=())
    return SearchForm(request, unknown)


def filter_names(filters: Filters) -> dict[str, str]:
    """What people call each part of a filter, by the part's name."""
    return {
        "start": f"from {dayname(filters.start)}" if filters.start else "",
        "end": f"to {dayname(filters.end)}" if filters.end else "",
        "org": filters.organization or "",
        "votes": f"{filters.votes or 0:,}+ votes",
        "code": "has code",
        "year": f"of {filters.year}",
        "author": f"by {filters.author}",
        "source": f"from the source {filters.source}",
        "category": f"in {' or '.join((filters.category or '').split(','))}",
        "topic": f"about {filters.topic}",
    }
