"""Title and abstract pairs for training and evaluation, with a split that no paper crosses.

Sources: arXiv metadata (CC0), ACL Anthology from 2016 on (CC BY 4.0), and Daily Papers, which is used for
evaluation only: none of its papers is trained on, whatever set it also appears in. Texts of general English are
WordNet's (its own licence, which asks for its notice); everyday prose are reviews of films (movie_reviews of NLTK's
data, CC BY 4.0) and speeches of presidents (state_union and inaugural there, public domain).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nextvec.data.readers import read_records
from nextvec.data.titles import FIRST_ACL_YEAR, Paper, in_order, papers_of, title_key
from nextvec.data.wordnet import read_wordnet
from nextvec.types import InputError

__all__ = ["Corpus", "general_texts", "halves", "load_corpus", "one_sentence", "prose_texts", "sentences", "split"]

ARXIV = "papers/arxiv_daily/arxiv_cs_2025-03_2026-03.jsonl.xz"
WORDNET = "words/wordnet"
PROSE = tuple(f"text/nltk_data/{name}.zip" for name in ("movie_reviews", "state_union", "inaugural"))
_LARGEST = 1 << 20  # bytes of one text in these archives; the longest speech has a fifth of it
ACL = (
    "papers/acl_anthology_2025/acl_anthology_2025-11.jsonl.xz",
    "papers/acl_anthology_2025/acl_anthology_2025.findings_partial.jsonl.xz",
)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Training pairs and the evaluation sets, by name; disjoint by id and by normalised title."""

    train: list[Paper]
    held_out: dict[str, list[Paper]]


def split(sources: dict[str, list[Paper]], daily: list[Paper], *, sizes: dict[str, int]) -> Corpus:
    """Hold out, per source, the ``sizes[name]`` papers whose hashed id is smallest; train on the rest.

    Daily papers are held out whole. A training paper that shares its id or its normalised title with any
    held-out paper, or its title with an earlier training paper, is dropped.
    """
    held_out = {"daily_papers": daily}
    rest: list[Paper] = []
    for name, pairs in sources.items():
        fresh = in_order(pairs, besides=daily)
        held_out[name] = fresh[: sizes[name]]
        rest += fresh[sizes[name] :]
    held_ids = {pair.id for pairs in held_out.values() for pair in pairs}
    titles = {title_key(pair.title) for pairs in held_out.values() for pair in pairs}
    train = []
    for pair in rest:
        key = title_key(pair.title)
        if pair.id not in held_ids and key not in titles:
            titles.add(key)
            train.append(pair)
    return Corpus(train, held_out)


def load_corpus(data: Path, daily: Iterable[dict[str, Any]], *, arxiv: int = 5000, acl: int = 2000) -> Corpus:
    """The real corpus from the data folder ``data`` and the records of the daily papers."""
    acl_records = (
        record
        for path in ACL
        for record in read_records(data / path, fields=("id", "title", "year"))
        if int(record["year"]) >= FIRST_ACL_YEAR
    )
    sources = {
        "arxiv": papers_of(read_records(data / ARXIV, fields=("id", "title")), "summary"),
        "acl": papers_of(acl_records, "abstract"),
    }
    return split(sources, papers_of(daily, "summary"), sizes={"arxiv": arxiv, "acl": acl})


def halves(text: str) -> tuple[str, str]:
    """The text cut in two at the sentence end nearest to its middle (at a space where there is none)."""
    middle = len(text) // 2
    ends: Sequence[int] = [match.end() for match in re.finditer(r"[.!?]\s", text)]
    ends = ends or [match.end() for match in re.finditer(r"\s", text)] or [middle]
    cut = min(ends, key=lambda end: abs(end - middle))
    return text[:cut].strip(), text[cut:].strip()


def sentences(text: str) -> list[str]:
    """Those of 40 to 400 characters, in order; lines are joined first."""
    return [part for part in re.split(r"(?<=[.!?])\s+", " ".join(text.split())) if 40 <= len(part) <= 400]


def one_sentence(texts: Sequence[str], *, seed: int = 0) -> list[str]:
    """Of every text one of its ``sentences``, at random; nothing of a text that has none."""
    random = np.random.default_rng(seed)
    found = [sentences(text) for text in texts]
    return [own[random.integers(len(own))] for own in found if own]


def prose_texts(data: Path) -> list[str]:
    """Sentences of everyday prose, in a fixed random order. data: the data folder. InputError for an archive with a
    text that is far too long."""
    found: list[str] = []
    for path in PROSE:
        with zipfile.ZipFile(data / path) as archive:
            for entry in sorted(archive.infolist(), key=lambda one: one.filename):
                if not entry.filename.endswith(".txt"):
                    continue
                if entry.file_size > _LARGEST:
                    raise InputError(f"{path}: {entry.filename} has {entry.file_size:,} bytes, above {_LARGEST:,}")
                found += sentences(archive.read(entry).decode("utf-8", errors="replace"))
    order = np.random.default_rng(3001).permutation(len(found))
    return [found[i] for i in order]


def general_texts(data: Path) -> list[str]:
    """Texts of general English, in a fixed random order: of every synset of WordNet its words and what they mean, and
    the sentences that show their use. data: the data folder; WordNet may also be where ``read_wordnet`` looks."""
    texts: list[str] = []
    for synset in read_wordnet(next((data / WORDNET).glob("wordnet-base*.deb"), None)):
        texts += [f"{', '.join(synset.words)}: {synset.definition}", *synset.examples]
    order = np.random.default_rng(3000).permutation(len(texts))
    return [texts[i] for i in order]
