"""What the forms offer while one types, without a script: the names that most papers have, read once for each state of
the site."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from nextvec.papers.site import Site

__all__ = ["Offered", "offered"]

_ORGANIZATIONS, _CATEGORIES = 300, 200


@dataclass(frozen=True, slots=True)
class Offered:
    """The most papers first. ``organizations`` and ``categories`` (venues too): with how many papers; ``lists``: the
    options of both, written once for all pages."""

    organizations: list[tuple[str, int]]
    categories: list[tuple[str, int]]
    sources: list[str]
    lists: Markup


def offered(site: Site, *, fresh: bool = False) -> Offered:
    """What the forms of ``site`` offer. fresh: of the papers as they are, which may have to be waited for."""
    made: Offered = site.steady("offered", lambda: _offered(site), weight=lambda made: 500, fresh=fresh)
    return made


def _offered(site: Site) -> Offered:
    organizations = site.db.organizations(limit=_ORGANIZATIONS)
    categories = site.db.categories(limit=_CATEGORIES)
    lists = _options("organizations", organizations) + _options("categories", categories)
    return Offered(organizations, categories, [name for name, _ in site.db.sources()], lists)


def _options(name: str, counted: list[tuple[str, int]]) -> Markup:
    options = Markup("").join(Markup('<option value="{}">').format(value) for value, _ in counted)
    return Markup('<datalist id="{}">{}</datalist>').format(name, options)
