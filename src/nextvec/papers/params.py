"""What stands in an address (days, numbers, names) -> typed values, or one clear InputError."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from urllib.parse import urlencode

from nextvec.papers.db import Database, Filters
from nextvec.papers.feed import parse_period
from nextvec.papers.records import check_text, clean
from nextvec.types import InputError, NotFoundError

__all__ = ["MAX_PAGE", "SearchForm", "check_page", "flag", "read_day", "read_name", "read_page", "whole_number"]

MAX_PAGE = 100_000


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


@dataclass(frozen=True, slots=True)
class SearchForm:
    """The search form as it was sent, checked. ``suggestion``: a known organisation close to an unknown one."""

    query: str
    filters: Filters
    mode: str
    suggestion: str | None = None

    def address(self, filters: Filters | None = None, **changes: str | int) -> str:
        """``/search?...`` for this form, with other filters or parameters."""
        chosen = self.filters if filters is None else filters
        values: dict[str, str | int | None] = {
            "q": self.query,
            "from": chosen.start.isoformat() if chosen.start else None,
            "to": chosen.end.isoformat() if chosen.end else None,
            "org": chosen.organization,
            "votes": chosen.votes,
            "code": 1 if chosen.code else None,
            "mode": self.mode if self.mode != "hybrid" else None,
        }
        values |= changes
        return "/search?" + urlencode({name: value for name, value in values.items() if value not in (None, "")})


def read_filters(values: Mapping[str, str], db: Database) -> tuple[Filters, str | None]:
    """The filters of a search, and a known organisation close to one that is not known."""
    start, end = read_day(values.get("from"), "from"), read_day(values.get("to"), "to")
    if start and end and start > end:
        raise InputError(f"from is {start}, after to, {end}: exchange them")
    votes = whole_number(values.get("votes"), "votes", low=0, high=10**9) or None
    organization = read_name(values.get("org"), "org")
    suggestion = None
    if organization:
        known = db.find_organization(organization)
        if known is None:
            suggestion = db.close_organization(organization)
        organization = known or organization
    code = flag(values.get("code"), "code")
    return Filters(start=start, end=end, organization=organization, votes=votes, code=code), suggestion


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
