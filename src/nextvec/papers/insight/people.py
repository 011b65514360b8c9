"""Who works on similar things: authors and organisations by the mean of their papers' embeddings, and by co-authorship.

A centre is the mean of the unit vectors of at least three papers, of at most the 20,000 names with the most papers.
Names are not people: two who are called the same have one centre.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from nextvec.files import atomic_write
from nextvec.papers.insight.topics import units, vectors_of_all
from nextvec.papers.site import Site
from nextvec.papers.tables import AUTHORS, PAPERS, fold

__all__ = ["People", "Related", "build_people", "coauthors", "load_people", "people_path"]

FEWEST = 3
_MOST = 20_000
_A = AUTHORS.c


@dataclass(frozen=True, slots=True)
class Related:
    """``papers``: how many in all, or of co-authors how many together. ``cosine``: to what was asked about."""

    name: str
    papers: int
    cosine: float = 0.0


@dataclass(frozen=True)
class People:
    """For authors and organisations: names, how many papers, float16 [n, D] centres of unit length."""

    encoder: str
    names: dict[str, list[str]]
    papers: dict[str, NDArray[np.int32]]
    centres: dict[str, NDArray[np.float16]]

    def near(self, kind: str, vector: NDArray[np.float32], without: Collection[str], most: int = 6) -> list[Related]:
        """The nearest of ``kind`` (author, organisation) to a vector of unit length, but for some (folded names)."""
        names = self.names[kind]
        likeness = self.centres[kind].astype(np.float32) @ vector
        found = []
        for i in np.argsort(-likeness, kind="stable")[: most + len(without)]:
            if fold(names[i]) not in without:
                found.append(Related(names[i], int(self.papers[kind][i]), float(likeness[i])))
        return found[:most]


def people_path(site: Site) -> Path:
    """Where the centres lie."""
    return site.home / "insight" / "people.npz"


def build_people(site: Site) -> People:
    """Make the centres anew. The caller holds ``Site.writing``."""
    ids, vectors = vectors_of_all(site)
    row = {identifier: i for i, identifier in enumerate(ids)}
    with site.db.read() as connection:
        written = connection.execute(sa.select(_A.paper, _A.name, _A.folded)).all()
        owned = connection.execute(
            sa.select(PAPERS.c.id, PAPERS.c.organization).where(PAPERS.c.organization.is_not(None))
        ).all()
    authors: defaultdict[str, set[int]] = defaultdict(set)
    spelt: dict[str, str] = {}
    for paper, name, folded in written:
        if paper in row:
            authors[folded].add(row[paper])
            spelt.setdefault(folded, name)
    organizations: defaultdict[str, set[int]] = defaultdict(set)
    for paper, name in owned:
        if paper in row:
            organizations[name].add(row[paper])
    made = People(site.encoder_state, {}, {}, {})
    for kind, found, shown in (("author", authors, spelt), ("organisation", organizations, {})):
        _add(made, kind, found, shown, vectors)
    _write(people_path(site), made)
    return made


def _add(
    made: People, kind: str, found: Mapping[str, set[int]], shown: Mapping[str, str], vectors: NDArray[np.float32]
) -> None:
    chosen = sorted(
        (name for name, rows in found.items() if len(rows) >= FEWEST), key=lambda name: (-len(found[name]), name)
    )
    chosen = chosen[:_MOST]
    centres = [vectors[sorted(found[name])].mean(axis=0) for name in chosen]
    made.names[kind] = [shown.get(name, name) for name in chosen]
    made.papers[kind] = np.array([len(found[name]) for name in chosen], np.int32)
    stacked = np.array(centres, np.float32).reshape(len(chosen), vectors.shape[1])
    made.centres[kind] = units(stacked).astype(np.float16)


def load_people(site: Site) -> People | None:
    """The centres as they were last made; None where they were not, are damaged or of another encoder."""
    path = people_path(site)
    try:
        stat = path.stat()
    except OSError:
        return None
    key = ("people", stat.st_mtime_ns, stat.st_size)
    found: People | None = site.kept.get(key)
    if found is None:
        found = _read(path)
        if found is not None:
            site.kept.put(key, found, weight=10_000)
    return found if found is not None and found.encoder == site.encoder_state else None


def coauthors(site: Site, names: Sequence[str], most: int = 6) -> list[Related]:
    """Those who wrote most papers together with any of ``names``, without these themselves."""
    folded = {fold(name) for name in names}
    with site.db.read() as connection:
        theirs = sa.select(_A.paper).where(_A.folded.in_(folded))
        together = sa.func.count(sa.distinct(_A.paper))
        query = sa.select(sa.func.max(_A.name), together).where(_A.paper.in_(theirs), _A.folded.not_in(folded))
        query = query.group_by(_A.folded).having(together > 1).order_by(together.desc(), _A.folded).limit(most)
        return [Related(name, int(count)) for name, count in connection.execute(query)]


def _write(path: Path, made: People) -> None:
    header = json.dumps({"encoder": made.encoder, "names": made.names}).encode()
    arrays: dict[str, NDArray[Any]] = {f"papers {kind}": made.papers[kind] for kind in made.names}
    arrays |= {f"centres {kind}": made.centres[kind] for kind in made.names}
    body = io.BytesIO()
    np.savez_compressed(body, header=np.frombuffer(header, np.uint8), **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path, "wb") as stream:
        stream.write(body.getvalue())


def _read(path: Path) -> People | None:
    try:
        with np.load(path, allow_pickle=False) as held:
            header = json.loads(held["header"].tobytes())
            names: dict[str, list[str]] = header["names"]
            papers = {kind: held[f"papers {kind}"] for kind in names}
            centres = {kind: held[f"centres {kind}"] for kind in names}
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    whole = all(len(names[kind]) == len(papers[kind]) == len(centres[kind]) for kind in names)
    return People(header["encoder"], names, papers, centres) if whole else None
