"""What stands in an address (days, numbers, names) -> typed values, or one clear InputError."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

from nextvec.papers.db import Database, Filters
from nextvec.papers.feed import parse_period
from nextvec.papers.records import check_text, clean
from nextvec.papers.tables import alternatives
from nextvec.search.words import tokenize
from nextvec.types import InputError, NotFoundError

__all__ = [
    "MAX_PAGE",
    "MAX_QUERY",
    "Unknown",
    "check_page",
    "check_query",
    "flag",
    "known_names",
    "read_all_filters",
    "read_category",
    "read_day",
    "read_days",
    "read_filters",
    "read_name",
    "read_page",
    "read_topic",
    "whole_number",
]

MAX_PAGE = 100_000
MAX_QUERY = 250
MAX_CATEGORIES = 20

Unknown = dict[str, str | None]
"""Parameters (org, author, source, category) whose value no paper has -> a known value close to it, or None."""


def whole_number(text: str | None, name: str, *, low: int, high: int) -> int | None:
    """``text`` as a whole number from ``low`` to ``high``; None for nothing."""
    value = clean(text or "")
    if not value:
        return None
    if re.fullmatch(r"[+-]?\d{1,18}", value, re.ASCII) and low <= int(value) <= high:
        return int(value)
    raise InputError(f"{name} is {value[:40]!r}; expected a whole number from {low} to {high}")


def flag(text: str | None, name: str) -> bool:
    """A yes or no."""
    value = clean(text or "").lower()
    if value in ("", "0", "false", "no", "off"):
        return False
    if value in ("1", "true", "yes", "on"):
        return True
    raise InputError(f"{name} is {value[:40]!r}; expected 1 or 0")


def read_page(text: str | None) -> int:
    """The page number, from 1; NotFoundError for one that cannot exist."""
    value = clean(text or "")
    if re.fullmatch(r"\d{1,18}", value, re.ASCII) and int(value) > MAX_PAGE:
        raise NotFoundError(f"page {value} does not exist")
    return whole_number(value, "page", low=1, high=MAX_PAGE) or 1


def check_page(page: int, pages: int) -> None:
    """NotFoundError for a page after the last one."""
    if page > max(pages, 1):
        raise NotFoundError(f"page {page} does not exist; the last one is {max(pages, 1)}")


def known_names(values: Mapping[str, str], db: Database) -> tuple[dict[str, str | None], Unknown]:
    """The values of org, author, source and category as the papers spell them, and those of them that no paper has."""
    names = {name: read_name(values.get(name), name) for name in ("org", "author", "source")}
    unknown: Unknown = {}
    if wanted := names["org"]:
        known = db.find_organization(wanted)
        names["org"] = known or wanted
        if known is None:
            unknown["org"] = db.close_organization(wanted)
    if wanted := names["author"]:
        known = db.find_author(wanted)
        names["author"] = known or wanted
        if known is None:
            unknown["author"] = db.close_author(wanted)
    names["category"] = read_category(values.get("category"))
    if wanted := names["category"]:
        names["category"], close, known_here = db.find_categories(wanted)
        if not known_here:
            unknown["category"] = close
    if (wanted := names["source"]) and wanted not in (sources := [name for name, _ in db.sources()]):
        unknown["source"] = next((name for name in sources if name.lower() == wanted.lower()), None)
    return names, unknown


def read_filters(values: Mapping[str, str], db: Database) -> tuple[Filters, str | None]:
    """The filters of a search, and a known organisation close to one that is not known."""
    filters, unknown = read_all_filters(values, db)
    return filters, unknown.get("org")


def read_all_filters(values: Mapping[str, str], db: Database) -> tuple[Filters, Unknown]:
    """The filters of a search, and what no paper has of the names in them. InputError for what cannot be one."""
    start, end = read_days(values)
    names, unknown = known_names(values, db)
    filters = Filters(
        start=start,
        end=end,
        organization=names["org"],
        votes=whole_number(values.get("votes"), "votes", low=0, high=10**9) or None,
        code=flag(values.get("code"), "code"),
        year=whole_number(values.get("year"), "year", low=1900, high=9998),
        author=names["author"],
        source=names["source"],
        category=names["category"],
        topic=read_topic(values.get("topic", "")),
    )
    return filters, unknown


def read_days(values: Mapping[str, str]) -> tuple[date | None, date | None]:
    """The days ``from`` and ``to``."""
    start, end = read_day(values.get("from"), "from"), read_day(values.get("to"), "to")
    if start and end and start > end:
        raise InputError(f"from is {start}, after to, {end}: exchange them")
    return start, end


def read_topic(text: str) -> str | None:
    """The words of a topic; None for nothing."""
    topic = check_query(text).strip(" ,") or None
    if topic and not tokenize(topic):
        raise InputError(f"topic is {topic[:40]!r}, which has no word to look for; expected words such as world models")
    return topic


def read_category(text: str | None) -> str | None:
    """Venues or categories, separated by commas; None for nothing."""
    names = alternatives(read_name(text, "category") or "")
    if len(names) > MAX_CATEGORIES:
        raise InputError(f"category has {len(names)} names; at most {MAX_CATEGORIES} are accepted")
    return ",".join(names) or None


def check_query(text: str) -> str:
    """The query with whitespace and control characters cleaned. InputError above 250 characters."""
    check_text(text, "the query")
    query = clean(text)
    if len(query) > MAX_QUERY:
        raise InputError(
            f"the query has {len(query)} characters; at most {MAX_QUERY} are accepted: shorten it to its main words"
        )
    return query


def read_name(text: str | None, name: str) -> str | None:
    """The name of an organisation, an author or a source; None for nothing."""
    check_text(text or "", name)
    value = clean(text or "")
    if len(value) > 300:
        raise InputError(f"{name} has {len(value)} characters; at most 300 are accepted")
    return value or None


def read_day(text: str | None, name: str) -> date | None:
    """A day; None for nothing."""
    value = clean(text or "")
    if not value:
        return None
    try:
        return parse_period("day", value).start
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
