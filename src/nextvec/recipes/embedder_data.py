"""What a domain encoder learns from: a user's records of whatever kind become pairs of texts, some of them held out.

    graded      two texts and a score                      ("first", "second", "score")
    triplets    a query, its document and a wrong one      ("query", "document", "neg")
    pairs       a query and its document                   ("query", "document")
    documents   a title and a body, or a body alone        ("title", "body"; "text")

A document with a title is a pair: title and body. A body alone is cut at its Markdown headings (heading and section),
and where it has none into passages of some 150 words, of which one sentence is to find the rest: the inverse cloze task
of Lee et al. 2019 (arXiv 1906.00300), here always without the sentence. Legend: n pairs.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from nextvec.data.judged import FIRST, SECOND, read_score
from nextvec.data.pairs import DOCUMENTS, NEGATIVES, QUERIES, Pairs
from nextvec.data.readers import Record, read_located
from nextvec.types import InputError

__all__ = ["Examples", "divide", "read_examples"]

TITLES = ("title",)
BODIES = ("body", "text", *(name for name in DOCUMENTS if name != "body"))
_PASSAGE = 150  # words, about: what a small encoder reads at once
_PASSAGES = 32  # of one document, at most: a long book must not be most of what is learned
_QUERY_WORDS = 4  # a shorter sentence, or heading's section, says too little
_MOST_HELD, _HELD_SHARE, _LEAST = 1000, 10, 20
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class Examples:
    """n pairs of texts. kind: what the records were; negatives: per pair a text that is no answer, or None; scores:
    float64 [n] of graded pairs, or None; owners: [n], the record that each comes from; left_out: why records or pairs
    were not used, with their numbers."""

    kind: str
    first: list[str]
    second: list[str]
    owners: list[int]
    negatives: list[str] | None = None
    scores: NDArray[np.float64] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.first)

    def take(self, rows: Sequence[int]) -> Examples:
        """Those with these numbers."""
        return replace(
            self,
            first=[self.first[i] for i in rows],
            second=[self.second[i] for i in rows],
            owners=[self.owners[i] for i in rows],
            negatives=None if self.negatives is None else [self.negatives[i] for i in rows],
            scores=None if self.scores is None else self.scores[list(rows)],
        )

    def pairs(self) -> Pairs:
        """For ``data.pairs.pair_columns``: what comes from one record is no negative of it."""
        return Pairs(self.first, self.second, self.negatives, owners=self.owners)


def read_examples(path: str | os.PathLike[str], *, seed: int = 0) -> Examples:
    """The pairs of a file or folder (see ``data.readers``); its first record says which kind they are.

    seed: of the sentences chosen from passages. Texts without words, pairs of twice the same text and repeated pairs
    are left out and counted. InputError, with file and line, for a record that is not of the kind of the first, and
    where fewer than 20 pairs are left.
    """
    reader: _Reader | None = None
    for number, (place, record) in enumerate(read_located(path)):
        if reader is None:
            reader = _Reader(_kind(record, place), seed)
        reader.read(number, record, place)
    if reader is None:
        raise InputError(f"{os.fspath(path)!r} holds no record: a corpus of at least {_LEAST} documents is needed")
    made = reader.examples()
    if len(made) < _LEAST:
        left = "".join(f"; {count} left out: {why}" for why, count in made.left_out.items())
        raise InputError(
            f"{os.fspath(path)!r} gives {len(made)} pairs of texts; at least {_LEAST} are needed to learn from some and"
            f" measure on others{left}"
        )
    return made


def divide(examples: Examples) -> tuple[Examples, Examples]:
    """(to learn from, held out): a tenth of the records, at most 1,000, by a hash of their texts, so that the same
    records are held out whatever their order. No text that is held out is learned from, as either side of a pair."""
    keys: dict[int, bytes] = {}
    for owner, one, other in zip(examples.owners, examples.first, examples.second, strict=True):
        digest = hashlib.sha256(f"{one}\0{other}".encode("utf-8", "surrogatepass")).digest()
        keys[owner] = min(keys.get(owner, digest), digest)
    count = min(_MOST_HELD, max(2, len(keys) // _HELD_SHARE))
    chosen = set(sorted(keys, key=keys.__getitem__)[:count])
    held = [i for i, owner in enumerate(examples.owners) if owner in chosen]
    known = {text for i in held for text in (examples.first[i], examples.second[i])}
    rest = [
        i
        for i, owner in enumerate(examples.owners)
        if owner not in chosen and examples.first[i] not in known and examples.second[i] not in known
    ]
    if len(rest) < 2:
        raise InputError("all pairs share a text with those that are held out: there is nothing to learn from")
    return examples.take(rest), examples.take(held)


def _kind(record: Record, place: str) -> str:
    def has(names: Sequence[str]) -> bool:
        return any(record.get(name) is not None for name in names)

    if has(FIRST) and has(SECOND):
        if not has(("score",)):
            raise InputError(f"{place}: two texts without a 'score': graded pairs need one each, pairs a 'query'")
        return "graded"
    if has([name for name in QUERIES if name not in TITLES]):
        return "triplets" if has(NEGATIVES) else "pairs"
    if has(BODIES):
        return "documents"
    found = ", ".join(sorted(map(str, record))[:12]) or "none"
    raise InputError(
        f"{place}: expected 'title' and 'body', 'text' alone, 'query' and 'document' (and 'neg'), or 'first', 'second'"
        f" and 'score'; fields found: {found}"
    )


class _Reader:
    """Records of one kind, as they come."""

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.seed = kind, seed
        self.rows: list[tuple[int, str, str, str, float]] = []
        self.known: set[tuple[str, str, str]] = set()
        self.out: Counter[str] = Counter()

    def read(self, number: int, record: Record, place: str) -> None:
        if self.kind == "graded":
            self._add(
                number, _text(record, FIRST, place), _text(record, SECOND, place), score=read_score(record, place)
            )
        elif self.kind == "documents":
            self._document(number, record, place)
        else:
            wrong = _text(record, NEGATIVES, place) if self.kind == "triplets" else ""
            self._add(number, _text(record, QUERIES, place), _text(record, DOCUMENTS, place), wrong)

    def _add(self, owner: int, one: str, other: str, wrong: str = "", score: float = 0.0) -> None:
        key = (one, other, wrong)
        if not one or not other or (self.kind == "triplets" and not wrong):
            self.out["a text without words"] += 1
        elif one == other and self.kind != "graded":
            self.out["a text that is its own answer"] += 1
        elif wrong and wrong in (one, other):
            self.out["a wrong document that is the query or its answer"] += 1
        elif key in self.known:
            self.out["repeated"] += 1
        else:
            self.known.add(key)
            self.rows.append((owner, one, other, wrong, score))

    def _document(self, number: int, record: Record, place: str) -> None:
        title = _text(record, TITLES, place, needed=False)
        name = next((name for name in BODIES if record.get(name) is not None), None)
        body = record[name] if name else ""
        if not isinstance(body, str):
            raise InputError(f"{place}: field {name!r} is {body!r:.40}; expected a text")
        if title and body.strip():
            self._add(number, title, _plain(body))
            return
        before = len(self.rows)
        made = list(_sections(body)) or list(_cropped(body, np.random.default_rng([self.seed, number])))
        for one, other in made:
            self._add(number, one, other)
        if len(self.rows) == before:
            self.out["a document too short to be divided, without a title"] += 1

    def examples(self) -> Examples:
        owners, first, second, wrong, scores = map(list, zip(*self.rows, strict=True)) if self.rows else ([],) * 5
        return Examples(
            self.kind,
            first,
            second,
            owners,
            negatives=wrong if self.kind == "triplets" else None,
            scores=np.array(scores, dtype=np.float64) if self.kind == "graded" else None,
            left_out=dict(self.out),
        )


def _text(record: Record, names: Sequence[str], place: str, *, needed: bool = True) -> str:
    name = next((name for name in names if record.get(name) is not None), None)
    if name is None:
        if not needed:
            return ""
        found = ", ".join(sorted(map(str, record))[:12]) or "none"
        raise InputError(f"{place}: no field {' or '.join(map(repr, names))} (fields found: {found})")
    if not isinstance(record[name], str):
        raise InputError(f"{place}: field {name!r} is {record[name]!r:.40}; expected a text")
    return _plain(record[name])


def _plain(text: str) -> str:
    """Runs of whitespace are single spaces; a text without a letter or digit is none."""
    return " ".join(text.split()) if any(map(str.isalnum, text)) else ""


def _sections(body: str) -> Iterator[tuple[str, str]]:
    """Each Markdown heading with what stands below it, up to the next."""
    found = list(_HEADING.finditer(body))
    for here, after in itertools.zip_longest(found, found[1:]):
        text = _plain(body[here.end() : after.start() if after else len(body)])
        if len(text.split()) >= _QUERY_WORDS:
            yield _plain(here.group(1)), text


def _cropped(body: str, random: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Of each passage, one sentence and the rest; of a passage of one long sentence, its halves."""
    passages = list(_passages(_SENTENCE.split(_plain(body))))
    if len(passages) > _PASSAGES:
        passages = [passages[i] for i in np.sort(random.permutation(len(passages))[:_PASSAGES])]
    for sentences in passages:
        fit = [i for i, sentence in enumerate(sentences) if len(sentence.split()) >= _QUERY_WORDS]
        if len(sentences) > 1 and fit:
            i = int(random.choice(fit))
            yield sentences[i], " ".join(sentences[:i] + sentences[i + 1 :])
        elif len(words := " ".join(sentences).split()) >= 4 * _QUERY_WORDS:
            yield " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])


def _passages(sentences: list[str]) -> Iterator[list[str]]:
    """Runs of sentences of at most about ``_PASSAGE`` words; a longer sentence is cut."""
    held: list[str] = []
    size = 0
    for sentence in sentences:
        words = sentence.split()
        for start in range(0, len(words), _PASSAGE):
            part = words[start : start + _PASSAGE]
            if held and size + len(part) > _PASSAGE:
                yield held
                held, size = [], 0
            held.append(" ".join(part))
            size += len(part)
    if held:
        yield held
