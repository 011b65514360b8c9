"""Title and abstract pairs for training and evaluation, with a split that no paper crosses.

Sources: arXiv metadata (CC0), ACL Anthology from 2016 on (CC BY 4.0), and Daily Papers, which is used for
evaluation only: none of its papers is trained on, whatever set it also appears in.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextvec.data.readers import read_records

__all__ = ["Corpus", "Pair", "halves", "load_corpus", "normalised_title", "split"]

ARXIV = "papers/arxiv_daily/arxiv_cs_2025-03_2026-03.jsonl.xz"
ACL = (
    "papers/acl_anthology_2025/acl_anthology_2025-11.jsonl.xz",
    "papers/acl_anthology_2025/acl_anthology_2025.findings_partial.jsonl.xz",
)
ACL_FIRST_CC_BY_YEAR = 2016
MIN_ABSTRACT_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Pair:
    """One paper: its id, title and abstract with whitespace runs collapsed to single spaces."""

    id: str
    title: str
    abstract: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """Training pairs and the evaluation sets, by name; disjoint by id and by normalised title."""

    train: list[Pair]
    held_out: dict[str, list[Pair]]


def normalised_title(title: str) -> str:
    """Letters and digits only, lower case: the same paper in two sets compares equal."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", title).casefold())


def pairs_of(records: Iterable[dict[str, Any]], *, abstract: str) -> list[Pair]:
    """The records with a title and an abstract of at least 200 characters, once per normalised title."""
    seen: set[str] = set()
    result = []
    for record in records:
        title = " ".join((record.get("title") or "").split())
        text = " ".join((record.get(abstract) or "").split())
        key = normalised_title(title)
        if len(text) >= MIN_ABSTRACT_CHARACTERS and len(key) >= 8 and key not in seen:
            seen.add(key)
            result.append(Pair(str(record["id"]), title, text))
    return result


def split(sources: dict[str, list[Pair]], daily: list[Pair], *, sizes: dict[str, int]) -> Corpus:
    """Hold out, per source, the ``sizes[name]`` papers whose hashed id is smallest; train on the rest.

    Daily papers are held out whole. A training paper that shares its id or its normalised title with any
    held-out paper, or its title with an earlier training paper, is dropped.
    """
    daily_ids = {pair.id for pair in daily}
    daily_titles = {normalised_title(pair.title) for pair in daily}
    held_out = {"daily_papers": daily}
    rest: list[Pair] = []
    for name, pairs in sources.items():
        fresh = [p for p in pairs if p.id not in daily_ids and normalised_title(p.title) not in daily_titles]
        fresh.sort(key=lambda pair: hashlib.sha256(pair.id.encode()).digest())
        held_out[name] = fresh[: sizes[name]]
        rest += fresh[sizes[name] :]
    held_ids = {pair.id for pairs in held_out.values() for pair in pairs}
    titles = {normalised_title(pair.title) for pairs in held_out.values() for pair in pairs}
    train = []
    for pair in rest:
        key = normalised_title(pair.title)
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
        if int(record["year"]) >= ACL_FIRST_CC_BY_YEAR
    )
    sources = {
        "arxiv": pairs_of(read_records(data / ARXIV, fields=("id", "title")), abstract="summary"),
        "acl": pairs_of(acl_records, abstract="abstract"),
    }
    return split(sources, pairs_of(daily, abstract="summary"), sizes={"arxiv": arxiv, "acl": acl})


def halves(text: str) -> tuple[str, str]:
    """The text cut in two at the sentence end nearest to its middle (at a space where there is none)."""
    middle = len(text) // 2
    ends: Sequence[int] = [match.end() for match in re.finditer(r"[.!?]\s", text)]
    ends = ends or [match.end() for match in re.finditer(r"\s", text)] or [middle]
    cut = min(ends, key=lambda end: abs(end - middle))
    return text[:cut].strip(), text[cut:].strip()
