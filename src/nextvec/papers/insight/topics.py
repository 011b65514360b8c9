"""Topics: clusters of the papers' embeddings with names, and a place for each paper on a plane.

1. k-means on the unit vectors (scikit-learn, seeded): k = sqrt(n) / 2.5, from 4 to 60.
2. A name: the keyword with the highest class-based tf-idf, tf(term, topic) * ln(1 + A / f(term)), A the mean number of
   keywords of a topic, f over all topics (Grootendorst 2022); no two topics have the same.
3. The plane: t-SNE (van der Maaten and Hinton 2008, scikit-learn, seeded, begun from principal components) of at most
   3,000 papers, the same share of each topic; every other paper stands at the mean of its five nearest of them.

Papers that come later get the topic of the nearest centre and a place by 3., so that topics and their addresses stay
as they are; they are made anew when a fifth more papers have come, with another encoder, or when asked for.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.files import atomic_write
from nextvec.papers.insight import store
from nextvec.papers.insight.candidates import normal_form
from nextvec.papers.site import Site
from nextvec.types import InputError, Progress

__all__ = [
    "Topic",
    "Topics",
    "build_topics",
    "load_topics",
    "place_new",
    "topics_path",
    "units",
    "vectors_of_all",
]

_SAMPLE = 3_000
_NEAR = 5
_GROWTH = 1.2
_FORMAT = 1
_TERMS = 8
_OWN = 0.12  # share of a name among the papers that have it as a keyword that lies in its topic
Stage = Callable[[str], Progress | None]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Topic:
    """``slug``: its name in addresses; ``terms``: what it is about, the most telling first; ``papers``: how many."""

    number: int
    slug: str
    label: str
    terms: list[str]
    papers: int


@dataclass(frozen=True)
class Topics:
    """``ids`` of n papers with ``of`` int32 [n], their topic, and ``places`` float32 [n, 2] in 0 to 1; ``centres``
    float32 [k, D] of unit length; ``held``: which papers of them were on the plane first, bool [n]."""

    encoder: str
    topics: list[Topic]
    ids: list[str]
    of: NDArray[np.int32]
    places: Floats
    centres: Floats
    held: NDArray[np.bool_]

    @cached_property
    def by_slug(self) -> dict[str, Topic]:
        return {topic.slug: topic for topic in self.topics}

    @cached_property
    def of_paper(self) -> dict[str, int]:
        """The number of a paper's topic."""
        return dict(zip(self.ids, (int(number) for number in self.of), strict=True))

    def members(self, topic: Topic) -> list[str]:
        """The ids of its papers."""
        return [self.ids[i] for i in np.flatnonzero(self.of == topic.number)]


def topics_path(site: Site) -> Path:
    """Where they lie."""
    return site.home / "insight" / "topics.npz"


def load_topics(site: Site) -> Topics | None:
    """The topics of ``site`` as they were last made; None where they were not, or are damaged."""
    path = topics_path(site)
    try:
        stat = path.stat()
    except OSError:
        return None
    key = ("topics", stat.st_mtime_ns, stat.st_size)
    found: Topics | None = site.kept.get(key)
    if found is None:
        found = _read(path)
        if found is not None:
            site.kept.put(key, found, weight=len(found.ids) // 4 + 1)
    return found


def build_topics(site: Site, *, count: int | None = None, again: bool = False, stage: Stage | None = None) -> Topics:
    """Make the topics, or where they still fit, place what is new among them. ``count``: how many, made anew.

    The caller holds ``Site.writing``. MissingExtraError without scikit-learn, InputError for too few papers.
    """
    known = None if again or count else load_topics(site)
    if known is not None and known.encoder == site.encoder_state and site.db.count() <= _GROWTH * len(known.ids):
        return place_new(site) or known
    say = stage or (lambda name: None)
    ids, vectors = vectors_of_all(site)
    if len(ids) < 10:
        raise InputError(f"{len(ids)} papers have embeddings; topics need at least 10")
    say("finding topics")
    number = count or min(max(round(math.sqrt(len(ids)) / 2.5), 4), 60)
    of, centres = _clusters(vectors, min(number, len(ids) // 2))
    say("drawing the map")
    places, held = _plane(vectors, of)
    made = Topics(site.encoder_state, _named(site, ids, of), ids, of, places, centres, held)
    _write(topics_path(site), made)
    return made


def place_new(site: Site) -> Topics | None:
    """Give papers that came since a topic and a place, and let go of those that went; None where nothing changed."""
    known = load_topics(site)
    if known is None or known.encoder != site.encoder_state:
        return None
    there = set(site.collection.ids())
    new = sorted(there.difference(known.ids))
    kept = np.array([identifier in there for identifier in known.ids], bool)
    if not new and kept.all():
        return None
    of, places, held = known.of[kept], known.places[kept], known.held[kept]
    ids = [identifier for identifier, stays in zip(known.ids, kept, strict=True) if stays]
    if new:
        vectors = units(_taken(site, new))
        anchors = np.flatnonzero(held)
        around = units(_taken(site, [ids[i] for i in anchors]))
        of = np.concatenate([of, np.argmax(vectors @ known.centres.T, axis=1).astype(np.int32)])
        places = np.concatenate([places, _between(vectors, around, places[anchors])])
        held = np.concatenate([held, np.zeros(len(new), bool)])
    sizes = np.bincount(of, minlength=len(known.topics))
    topics = [Topic(one.number, one.slug, one.label, one.terms, int(sizes[one.number])) for one in known.topics]
    made = Topics(known.encoder, topics, [*ids, *new], of, places, known.centres, held)
    _write(topics_path(site), made)
    return made


def vectors_of_all(site: Site) -> tuple[list[str], Floats]:
    """(ids in order, float32 [n, D] of unit length)."""
    ids = sorted(site.collection.ids())
    return ids, units(_taken(site, ids))


def _taken(site: Site, ids: Sequence[str]) -> Floats:
    parts = [
        np.array(
            [row["vector"] for row in site.collection.get(list(ids[i : i + 5_000]), vectors=True) if row], np.float32
        )
        for i in range(0, len(ids), 5_000)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, site.encoder.dim), np.float32)


def units(vectors: Floats) -> Floats:
    """Rows of unit length; what has none stays zero."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


def _clusters(vectors: Floats, k: int) -> tuple[NDArray[np.int32], Floats]:
    """(int32 [n], float32 [k, D]): topics by size, the largest first, and their centres."""
    cluster = require("sklearn.cluster", why="finding topics")
    kind = cluster.KMeans if len(vectors) <= 20_000 else cluster.MiniBatchKMeans
    found = kind(n_clusters=k, n_init=3, random_state=0).fit(vectors).labels_
    sizes = np.bincount(found, minlength=k)
    order = np.argsort(-sizes, kind="stable")
    number = np.empty(k, np.int32)
    number[order] = np.arange(k)
    of = number[found]
    centres = np.stack([vectors[of == i].sum(axis=0) for i in range(k)])
    return of, units(centres)


# -- the plane -----------------------------------------------------------------------------------------------------
def _plane(vectors: Floats, of: NDArray[np.int32]) -> tuple[Floats, NDArray[np.bool_]]:
    """(float32 [n, 2] in 0 to 1, bool [n] which papers t-SNE placed itself)."""
    held = np.zeros(len(vectors), bool)
    step = max(len(vectors) / _SAMPLE, 1.0)
    by_topic = np.argsort(of, kind="stable")
    held[by_topic[np.arange(0, len(vectors), step).astype(np.int64)]] = True
    chosen = vectors[held]
    decomposition = require("sklearn.decomposition", why="drawing the map of topics")
    manifold = require("sklearn.manifold", why="drawing the map of topics")
    parts = min(40, *chosen.shape)
    reduced = decomposition.PCA(parts, random_state=0).fit_transform(chosen)
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    flat = manifold.TSNE(2, perplexity=perplexity, init="pca", random_state=0, max_iter=600).fit_transform(reduced)
    flat = _fitted(np.asarray(flat, np.float32))
    places = np.zeros((len(vectors), 2), np.float32)
    places[held] = flat
    if not held.all():
        places[~held] = _between(vectors[~held], chosen, flat)
    return places, held


def _fitted(flat: Floats) -> Floats:
    """The same in 0 to 1, along its longer side from left to right; what lies far out is drawn in to the edge."""
    centred = flat - np.median(flat, axis=0)
    _, axes = np.linalg.eigh(np.cov(centred.T))
    turned = centred @ axes[:, ::-1]
    low, high = np.percentile(turned, 0.5, axis=0), np.percentile(turned, 99.5, axis=0)
    return np.asarray(np.clip((turned - low) / np.maximum(high - low, 1e-9), 0, 1), np.float32)


def _between(vectors: Floats, around: Floats, places: Floats) -> Floats:
    """float32 [n, 2]: the mean place of the five nearest of ``around``, the nearer the heavier."""
    found = np.empty((len(vectors), 2), np.float32)
    near = min(_NEAR, len(around))
    for start in range(0, len(vectors), 2_000):
        likeness = vectors[start : start + 2_000] @ around.T
        best = np.argpartition(-likeness, near - 1, axis=1)[:, :near]
        weights = np.maximum(np.take_along_axis(likeness, best, axis=1), 1e-3) ** 4
        weights /= weights.sum(axis=1, keepdims=True)
        found[start : start + 2_000] = (places[best] * weights[:, :, None]).sum(axis=1)
    return found


# -- names ---------------------------------------------------------------------------------------------------------
def _named(site: Site, ids: Sequence[str], of: NDArray[np.int32]) -> list[Topic]:
    """The topics with names from the keywords of their papers."""
    number = dict(zip(ids, (int(one) for one in of), strict=True))
    k = int(of.max()) + 1
    counts: list[Counter[str]] = [Counter() for _ in range(k)]
    written: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for identifier, words in store.keyword_rows(site.db):
        if identifier in number:
            for word in words:
                key = normal_form(word)
                counts[number[identifier]][key] += 1
                written[key][word] += 1
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    mean = sum(total.values()) / max(k, 1)
    sizes = np.bincount(of, minlength=k)
    taken: set[str] = set()
    topics: list[Topic] = []
    for i in range(k):
        terms = _telling(counts[i], total, mean, int(sizes[i]))
        own = [term for term in terms if counts[i][term] >= _OWN * total[term]] or terms
        label = next((term for term in own if _free(term, taken)), own[0] if own else f"topic {i + 1}")
        taken.add(label)
        shown = [written[term].most_common(1)[0][0] if term in written else term for term in [label, *terms]]
        slug = _slug(label, {topic.slug for topic in topics})
        topics.append(Topic(i, slug, _capital(shown[0]), list(dict.fromkeys(shown))[:_TERMS], int(sizes[i])))
    return topics


def _telling(counts: Counter[str], total: Counter[str], mean: float, size: int) -> list[str]:
    """The terms of a topic by class-based tf-idf; only those that several of its papers have, if there are any."""
    enough = [term for term, times in counts.items() if times >= max(2, size // 200)] or list(counts)
    scores = {term: counts[term] * math.log(1 + mean / total[term]) * (1.25 if " " in term else 1.0) for term in enough}
    return sorted(scores, key=lambda term: (-scores[term], term))[: 3 * _TERMS]


def _free(term: str, taken: Iterable[str]) -> bool:
    """Whether a name says something that no other name says already."""
    words = set(term.split())
    return not any(words <= set(other.split()) or set(other.split()) <= words for other in taken)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _slug(label: str, taken: set[str]) -> str:
    base = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") or "topic"
    slug, i = base, 2
    while slug in taken:
        slug, i = f"{base}-{i}", i + 1
    return slug


# -- on disk -------------------------------------------------------------------------------------------------------
def _write(path: Path, made: Topics) -> None:
    header = {"format": _FORMAT, "encoder": made.encoder, "topics": [asdict(topic) for topic in made.topics]}
    body = io.BytesIO()
    np.savez_compressed(
        body,
        header=np.frombuffer(json.dumps(header).encode(), np.uint8),
        ids=np.frombuffer("\n".join(made.ids).encode(), np.uint8),
        of=made.of,
        places=made.places,
        centres=made.centres,
        held=made.held,
    )
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path, "wb") as stream:
        stream.write(body.getvalue())


def _read(path: Path) -> Topics | None:
    try:
        with np.load(path, allow_pickle=False) as held:
            header: dict[str, Any] = json.loads(held["header"].tobytes())
            if header["format"] != _FORMAT:
                return None
            topics = [Topic(**topic) for topic in header["topics"]]
            ids = held["ids"].tobytes().decode().split("\n")
            made = Topics(header["encoder"], topics, ids, held["of"], held["places"], held["centres"], held["held"])
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    whole = len(ids) == len(made.of) == len(made.places) == len(made.held) and len(made.centres) == len(topics)
    return made if whole else None
