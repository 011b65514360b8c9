"""A paper as the site knows it, and the one place where records from outside are checked."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from nextvec.types import InputError, did_you_mean

__all__ = ["FACETS", "Paper", "digest", "parse_record", "parse_records", "safe_url"]

_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff]+")
ID_PATTERN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,62}[A-Za-z0-9])?")
_RESERVED = ("date/", "week/", "month/")
_TAKEN = re.compile(
    r"(?:trending|rising|discussed|new|daily)(?:\.(?:atom|rss|json))?"
)  # pages and feeds under /papers/
_YEARS = range(1900, 9999)  # those that the feed has pages for
_LIMITS = {"title": 1_000, "summary": 20_000}
_SHORT = 300
_MAX_AUTHORS = 5_000
_MAX_CATEGORIES = 50

FIELDS = (
    "id", "title", "summary", "upvotes", "num_comments", "publishedAt", "submittedOnDailyAt", "daily_date",
    "authors", "submitted_by", "githubRepo", "githubStars", "projectPage", "organization", "source",
    "categories", "venue", "booktitle",
)  # fmt: skip

FACETS: dict[str, str] = {
    "year": "int",
    "organization": "string",
    "daily_date": "date",
    "upvotes": "int",
    "has_code": "bool",
}
"""What the vector collection stores beside a vector, so that ``where`` can filter on it: name -> type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """One paper. Times are naive UTC; ``daily_date`` is the feed day (None: not part of the daily feed);
    ``categories``: of arXiv, and venues."""

    id: str
    title: str
    summary: str
    authors: tuple[str, ...] = ()
    upvotes: int = 0
    num_comments: int = 0
    published_at: datetime | None = None
    listed_at: datetime | None = None
    daily_date: date | None = None
    submitted_by: str | None = None
    github_repo: str | None = None
    github_stars: int | None = None
    project_page: str | None = None
    organization: str | None = None
    source: str | None = None
    categories: tuple[str, ...] = ()

    @property
    def has_code(self) -> bool:
        return self.github_repo is not None

    @property
    def is_arxiv(self) -> bool:
        """Whether the id is an arXiv id, new (2405.13729) or old (cs/0112017)."""
        return is_arxiv_id(self.id)

    @property
    def year(self) -> int | None:
        moment = self.published_at or self.daily_date
        return moment.year if moment else None

    def document(self) -> str:
        """The text that is embedded: title, then abstract."""
        return f"{self.title}\n{self.summary}".strip()

    def facets(self) -> dict[str, Any]:
        """The attributes of ``FACETS``."""
        return {
            "year": self.year,
            "organization": self.organization,
            "daily_date": self.daily_date,
            "upvotes": self.upvotes,
            "has_code": self.has_code,
        }

    def text_hash(self) -> str:
        """Changes when the embedded text does."""
        return digest(self.title, self.summary)

    def facet_hash(self) -> str:
        """Changes when anything beside the vector does, including the names that the word index holds."""
        return digest(*(str(value) for value in self.facets().values()), *self.authors)


def digest(*parts: str) -> str:
    """24 hexadecimal digits that change when any part does."""
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:24]


def is_arxiv_id(text: str) -> bool:
    """Whether ``text`` is an arXiv id without version."""
    return bool(re.fullmatch(r"\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7}", text))


def safe_url(value: str | None) -> str | None:
    """``value`` when it is a plain http(s) address with a host, else None (javascript:, data:, garbage)."""
    text = (value or "").strip()
    if re.fullmatch(r"https?://[A-Za-z0-9][^\s\"'<>\\^`{|}\x00-\x20\x7f]*", text) and len(text) <= 2_000:
        return text
    return None


def parse_records(located: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[Paper]:
    """Check (place, record) pairs one by one; errors name the place and the field. No id may come twice."""
    seen: dict[str, str] = {}
    for place, record in located:
        paper = parse_record(record, where=place)
        if paper.id in seen:
            raise InputError(f"{place}: field 'id' is {paper.id!r} again (first at {seen[paper.id]}); keep one of them")
        seen[paper.id] = place
        yield paper


def parse_record(record: Mapping[str, Any], *, where: str) -> Paper:
    """A checked Paper, or InputError that names ``where``, the field, what came and what was expected."""
    unknown = [name for name in record if name not in FIELDS]
    for field in ("id", "title", "summary"):
        if record.get(field) is None:
            hint = next((f" (the record has {name!r})" for name in unknown if did_you_mean(name, [field])), "")
            raise InputError(f"{where}: field {field!r} is missing{hint}; required are id, title and summary")
    identifier = _string(record, "id", where, limit=64)
    if not identifier or not ID_PATTERN.fullmatch(identifier) or identifier.startswith(_RESERVED):
        raise InputError(
            f"{where}: field 'id' is {identifier!r}; expected 1 to 64 of the characters A-Z a-z 0-9 . _ / -, "
            "such as an arXiv id"
        )
    if _TAKEN.fullmatch(identifier):
        raise InputError(f"{where}: field 'id' is {identifier!r}, the name of a page of the site; choose another")
    if identifier.endswith(".md") or ".." in identifier or "//" in identifier:
        raise InputError(f"{where}: field 'id' is {identifier!r}; it must not contain '..' or '//' or end in '.md'")
    title = _string(record, "title", where, limit=_LIMITS["title"])
    if not title:
        raise InputError(f"{where}: field 'title' is empty; expected the title of the paper")
    return Paper(
        id=identifier,
        title=title,
        summary=_string(record, "summary", where, limit=_LIMITS["summary"]) or "",
        authors=_authors(record.get("authors"), where),
        upvotes=_count(record, "upvotes", where) or 0,
        num_comments=_count(record, "num_comments", where) or 0,
        published_at=_moment(record, "publishedAt", where),
        listed_at=_moment(record, "submittedOnDailyAt", where),
        daily_date=_day(record, "daily_date", where),
        submitted_by=_string(record, "submitted_by", where, limit=_SHORT),
        github_repo=safe_url(_string(record, "githubRepo", where, limit=2_000)),
        github_stars=_count(record, "githubStars", where),
        project_page=safe_url(_string(record, "projectPage", where, limit=2_000)),
        organization=_string(record, "organization", where, limit=_SHORT),
        source=_string(record, "source", where, limit=_SHORT),
        categories=_categories(record, where),
    )


def check_text(text: str, name: str) -> None:
    """InputError where ``text`` was made from bytes that are not UTF-8."""
    if not text.isascii() and re.search("[\ud800-\udfff\ufffd]", text):
        raise InputError(f"{name} holds bytes that are not UTF-8: send it as UTF-8 text")


def read_name(text: str, name: str, *, most: int) -> str:
    """``text`` as a name of 1 to ``most`` characters that a person gives to something. InputError for none."""
    check_text(text, name)
    given = clean(text)
    if not 1 <= len(given) <= most:
        raise InputError(f"{name} has {len(given)} characters; expected 1 to {most}")
    return given


def clean(text: str) -> str:
    """``text`` with runs of whitespace and control characters (they have no meaning here) as one space."""
    if text.isprintable() and "  " not in text:  # of what _BLANK has only the space is printable
        return text.strip()
    return _BLANK.sub(" ", text.encode("utf-8", "replace").decode("utf-8")).strip()


def _string(record: Mapping[str, Any], field: str, where: str, *, limit: int) -> str | None:
    value = record.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InputError(f"{where}: field {field!r} is a {type(value).__name__} ({value!r:.40}); expected a string")
    text = clean(value)
    if len(text) > limit:
        raise InputError(f"{where}: field {field!r} has {len(text)} characters; at most {limit} are accepted")
    return text or None


def _count(record: Mapping[str, Any], field: str, where: str) -> int | None:
    value = record.get(field)
    if value is None or value == "":
        return None
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,10}\s*", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise InputError(f"{where}: field {field!r} is {value!r:.40}; expected a whole number from 0 on")
    return value


def _authors(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):  # csv has no lists
        value = [name for name in re.split(r"\s*;\s*", value) if name]
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{where}: field 'authors' is {value!r:.40}; expected a list of strings")
    if len(value) > _MAX_AUTHORS:
        raise InputError(f"{where}: field 'authors' has {len(value)} names; at most {_MAX_AUTHORS} are accepted")
    return tuple(name for name in (clean(name)[:_SHORT] for name in value) if name)


def _categories(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The words of ``categories`` and the names of ``venue``, or without one of ``booktitle``. A comma is no part of a
    name: in a filter it separates them."""
    venue = "venue" if record.get("venue") else "booktitle"
    found: dict[str, str] = {}
    for field in ("categories", venue):
        value = record.get(field) or []
        if isinstance(value, str):
            value = re.split(r"[;,\s]+", value) if field == "categories" else value.split(";")
        if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
            raise InputError(f"{where}: field {field!r} is {value!r:.40}; expected a string or a list of strings")
        names = (clean(name.replace(",", " "))[:_SHORT] for name in value)
        for name in filter(None, names):
            found.setdefault(name.casefold(), name)
    if len(found) > _MAX_CATEGORIES:
        raise InputError(f"{where}: {len(found)} venues and categories; at most {_MAX_CATEGORIES} are accepted")
    return tuple(found.values())


def _moment(record: Mapping[str, Any], field: str, where: str) -> datetime | None:
    value = record.get(field)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            value = None
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime) or value.year not in _YEARS:
        raise InputError(
            f"{where}: field {field!r} is {record[field]!r:.40}; expected a time such as 2025-02-28T09:30:00Z"
        )
    return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value


def _day(record: Mapping[str, Any], field: str, where: str) -> date | None:
    value = record.get(field)
    if value is None or value == "":
        return None
    day = value.date() if isinstance(value, datetime) else value
    if isinstance(day, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", day.strip()):
        with contextlib.suppress(ValueError):
            day = date.fromisoformat(day.strip())
    if not isinstance(day, date) or day.year not in _YEARS:
        raise InputError(f"{where}: field {field!r} is {value!r:.40}; expected a day such as 2025-02-28")
    return day
