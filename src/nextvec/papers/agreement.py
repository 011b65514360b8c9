"""When vectors and rows last agreed, so that an ingest looks at what changed since and not at all papers.

Noted is a generation of the papers (``changes``) with the version of the collection and the encoder's state. Whatever
else writes to one of them makes the note worthless: another version is another collection, and who forgets what the
collection holds (``Database.forget_indexed``), as each batch of an ingest does before it writes, takes the note away in
the same transaction. Within one ingest the site itself remembers what it touched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nextvec.types import NextvecError

if TYPE_CHECKING:
    from nextvec.papers.site import Site

__all__ = ["NOTE", "Agreed", "note", "suspects"]

NOTE = "agreed"
"""The fact that holds it."""
_MOST = 20_000
"""Of more papers it is less work to look at all of them."""


@dataclass(slots=True)
class Agreed:
    """Of ``generation``, but for the papers ``touched`` since."""

    generation: str
    touched: set[str] = field(default_factory=set)


def suspects(site: Site) -> list[str] | None:
    """The ids that may lie otherwise in the collection than in the rows, in order; None where any may."""
    agreed = site.agreed or _noted(site)
    if agreed is None or site.db.fact("encoder") != site.encoder_state:
        return None
    with site.db.read() as connection:
        changed = site.db.changed(connection, agreed.generation).papers
    if changed is None or len(changed) + len(agreed.touched) > _MOST:
        return None
    return sorted(agreed.touched.union(changed))


def note(site: Site, generation: str) -> None:
    """They agree; ``generation`` is from before that was looked into."""
    site.agreed = Agreed(generation)
    text = f"{generation} {_shape(site)}"
    if site.db.fact(NOTE) != text:
        site.db.set_facts(**{NOTE: text})


def _noted(site: Site) -> Agreed | None:
    try:
        generation, _, shape = (site.db.fact(NOTE) or "").partition(" ")
        return Agreed(generation) if generation and shape == _shape(site) else None
    except NextvecError:  # no collection, or a damaged one
        return None


def _shape(site: Site) -> str:
    # Its ids are read, not only counted: a collection that lost a file is found out here.
    return f"{site.collection.version} {len(site.collection.ids())} {site.encoder_state}"
