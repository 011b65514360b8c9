"""Reading papers the same way wherever they are: in a home on this machine (``Here``), or on a site (``remote``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import Literal, Protocol, get_args

from nextvec.papers import api_reader, feed, views
from nextvec.papers.accounts import lists, votes
from nextvec.papers.accounts.readers import LOCAL, local_reader
from nextvec.papers.accounts.tables import READERS
from nextvec.papers.api_queries import find_paper
from nextvec.papers.db import Filters, Order
from nextvec.papers.feed import Period
from nextvec.papers.markdown import markdown
from nextvec.papers.params import Unknown, read_all_filters
from nextvec.papers.records import Paper
from nextvec.papers.search import Mode, paper_id
from nextvec.papers.search import search as search_site
from nextvec.papers.site import Site
from nextvec.papers.tables import fold
from nextvec.types import InputError, NotFoundError, did_you_mean

__all__ = ["FORMS", "VIEWS", "Form", "Found", "Here", "Listed", "Reading", "choose"]

Form = Literal["bibtex", "jsonl"]
VIEWS: tuple[views.Named, ...] = get_args(views.Named)
FORMS: tuple[Form, ...] = ("bibtex", "jsonl")
_KINDS = {
    "org": "of the organisation",
    "author": "by",
    "category": "in the venue or category",
    "source": "of the source",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A paper, and why it is there: for people, None where that is not known."""

    paper: Paper
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A reading list of ``papers`` papers."""

    id: str
    name: str
    papers: int
    shared: bool
    created_at: datetime


class Reading(Protocol):
    """What can be read. Errors are NextvecErrors: InputError, NotFoundError, from elsewhere also OfflineError."""

    def search(self, query: str, values: Mapping[str, str], *, mode: Mode, limit: int) -> list[Found]:
        """The best papers for ``query``. ``values``: filters as they stand in an address (from, to, org, votes ...)."""
        ...

    def similar(self, identifier: str, limit: int) -> list[Found]:
        """The nearest other papers, the nearest first."""
        ...

    def markdown(self, identifier: str) -> str:
        """One paper as text, with similar ones and BibTeX."""
        ...

    def daily(self, period: Period | None, *, sort: Literal["votes", "newest"], limit: int) -> list[Found]:
        """Papers of the feed, of a period or of the newest day."""
        ...

    def view(self, name: views.Named, values: Mapping[str, str], *, limit: int, page: int = 0) -> list[Found]:
        """Papers of a view, in its order, from page 0 on. ``values``: filters, and half, last or days of the view."""
        ...

    def lists(self) -> list[Listed]:
        """The reading lists of whoever asks, the newest first."""
        ...

    def papers_of(self, identifier: str) -> list[Found]:
        """The papers of a list, the last one put in first; the reason is the reader's note."""
        ...

    def text_of(self, identifier: str, form: Form) -> str:
        """The papers of a list as BibTeX or as lines of JSON."""
        ...

    def vote(self, identifier: str, *, up: bool) -> int:
        """Vote for a paper, or take the vote back; how many it has then. Here as the local reader, as all below."""
        ...

    def make_list(self, name: str) -> str:
        """A new, private list; its id. InputError where there is one of this name."""
        ...

    def drop_list(self, identifier: str) -> None:
        """Delete a list with its notes."""
        ...

    def put(self, identifier: str, paper: str, note: str) -> None:
        """Put a paper into a list, or replace its note."""
        ...

    def take_out(self, identifier: str, paper: str) -> None:
        """Take a paper out of a list, whether or not it is in it."""
        ...


def choose(known: list[Listed], word: str) -> Listed:
    """The list with this id or name. NotFoundError; InputError where several have the name, as old ones may."""
    found = [one for one in known if one.id == word] or [one for one in known if one.name == word]
    found = found or [one for one in known if fold(one.name) == fold(word)]
    if not found:
        hint = did_you_mean(word, [one.name for one in known])
        raise NotFoundError(f"there is no list {word[:80]!r}{hint or '; `nextvec papers lists` shows those there are'}")
    if len(found) > 1:
        raise InputError(f"{len(found)} lists are called {word[:80]!r}: name one by its id, {found[0].id} for one")
    return found[0]


def _check_known(values: Mapping[str, str], unknown: Unknown) -> None:
    """NotFoundError for a name that no paper has, where there is one close to it."""
    for name, said in _KINDS.items():
        if close := unknown.get(name):
            raise NotFoundError(f"no paper is {said} {values[name][:80]!r}; did you mean {close!r}?")


class Here:
    """The papers of an open ``Site``. ``reader``: the address of whose lists are meant; None: the local reader's."""

    def __init__(self, site: Site, reader: str | None = None) -> None:
        self.site = site
        self.reader = reader

    def search(self, query: str, values: Mapping[str, str], *, mode: Mode, limit: int) -> list[Found]:
        filters, unknown = read_all_filters(values, self.site.db)
        _check_known(values, unknown)
        results = search_site(self.site, query, filters, mode=mode, size=limit)
        return [Found(match.stored.paper, match.why()) for match in results.matches]

    def similar(self, identifier: str, limit: int) -> list[Found]:
        found = self.site.similar(self._paper(identifier).id, limit)
        return [Found(stored.paper, f"cosine {cosine:.2f}") for stored, cosine in found]

    def markdown(self, identifier: str) -> str:
        paper = self._paper(identifier)
        return markdown(paper, self.site.similar(paper.id, 8))

    def daily(self, period: Period | None, *, sort: Literal["votes", "newest"], limit: int) -> list[Found]:
        if period is None:
            days = self.site.db.day_counts()
            if not days:
                return []
            period = feed.day(max(days))
        order: Order = sort
        found = self.site.db.select(Filters(start=period.start, end=period.end), order=order, limit=limit)
        return [Found(stored.paper) for stored in found]

    def view(self, name: views.Named, values: Mapping[str, str], *, limit: int, page: int = 0) -> list[Found]:
        chosen, unknown = views.read_view(name, "", values, self.site)
        _check_known(values, unknown)
        listed = views.listing(self.site, chosen, views.clock(self.site)[0], limit=limit, offset=page * limit)
        scores = [f"score {one.shown}" for one in listed.trends] or [f"+{gain:,} votes" for gain in listed.gains]
        return [Found(one.paper, why) for one, why in zip_longest(listed.papers, scores)]

    def lists(self) -> list[Listed]:
        mine = lists.of_reader(self.site.db, self._reader())
        return [Listed(one.id, one.name, one.size, one.address is not None, one.created_at) for one in mine]

    def papers_of(self, identifier: str) -> list[Found]:
        return [Found(entry.stored.paper, entry.note or None) for entry in lists.entries(self.site.db, identifier)]

    def text_of(self, identifier: str, form: Form) -> str:
        entries = lists.entries(self.site.db, identifier)
        return lists.as_bibtex(entries) if form == "bibtex" else api_reader.as_lines(entries).decode()

    def vote(self, identifier: str, *, up: bool) -> int:
        paper = self._paper(identifier).id
        (votes.give if up else votes.take_back)(self.site.db, self._writer(), paper)
        return self._paper(paper).upvotes

    def make_list(self, name: str) -> str:
        return lists.create(self.site.db, self._writer(), name)

    def drop_list(self, identifier: str) -> None:
        lists.delete(self.site.db, self._writer(), identifier)

    def put(self, identifier: str, paper: str, note: str) -> None:
        lists.add(self.site.db, self._writer(), identifier, self._paper(paper).id, note=note)

    def take_out(self, identifier: str, paper: str) -> None:
        lists.remove(self.site.db, self._writer(), identifier, paper_id(paper) or paper)

    def _writer(self) -> str:
        """The local reader. In anybody else's name only their own token writes, on the site."""
        if self.reader is not None:
            raise InputError("--reader is for reading: what somebody else votes for or keeps is theirs to change")
        return local_reader(self.site.db).id

    def _paper(self, identifier: str) -> Paper:
        return find_paper(self.site, paper_id(identifier) or identifier).paper

    def _reader(self) -> str:
        address = None if self.reader is None else self.reader.strip().lower()
        mine = READERS.c.id == LOCAL if address is None else READERS.c.email == address
        with self.site.db.read() as connection:
            identifier = connection.execute(READERS.select().where(mine)).scalar()
        if identifier is None and address is not None:
            raise NotFoundError(f"nobody with the address {address[:80]!r} has signed in to this site")
        return str(identifier or LOCAL)
