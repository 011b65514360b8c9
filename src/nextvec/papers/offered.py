"""What the forms offer while one types, without a script: the names that most papers have, read once for each state of
the site."""

from __future__ import annotations

from dataclasses import dataclass

from nextvec.papers.site import Site

__all__ = ["Offered", "offered"]

_ORGANIZATIONS, _CATEGORIES = 300, 200


@dataclass(frozen=True, slots=True)
class Offered:
    """The most papers first. ``organizations`` and ``categories`` (venues too): with how many papers."""

    organizations: list[tuple[str, int]]
    categories: list[tuple[str, int]]
    sources: list[str]


def offered(site: Site) -> Offered:
    """What the forms of ``site`` offer."""
    made: Offered = site.kept.made((site.stamp, "offered"), lambda: _offered(site), weight=500)
    return made


def _offered(site: Site) -> Offered:
    return Offered(
        site.db.organizations(limit=_ORGANIZATIONS),
        site.db.categories(limit=_CATEGORIES),
        [name for name, _ in site.db.sources()],
    )
