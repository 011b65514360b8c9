"""Search by words: a tokenizer in a few documented rules, and BM25 over title, abstract and names.

Tokenizer: Unicode is folded (NFKD, accents dropped, lower case); a word is a run of letters and digits that may hold
inner hyphens, dots or apostrophes. ``GPT-4o`` gives ``gpt``, ``4o`` and ``gpt4o``, so that GPT-4o, GPT 4o and gpt4o
find each other; ``v1.5`` stays whole, ``github.com`` is split; ``model's`` and ``models`` give ``model``
(plural endings only, no other stemming: meaning is the other half's work). Frequent function words are dropped.

Shapes: N papers, T query tokens.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.files import storage_error
from nextvec.types import Progress, StorageError

__all__ = ["LexicalIndex", "highlighter", "snippet", "tokenize"]

FIELDS = {"title": 2.0, "summary": 1.0, "names": 1.0}
"""Weights: a word in the title counts twice. Each field has its own BM25, with its own lengths."""

_STOP = """
a about also an and are as at be been but by can do does for from had has have how however i if in into
is it its many may more most no not of on only or other our over same such than that the their them then
there these they this those through to under until up use used using very via was we were what when where
which while who why will with within without would you your
"""
STOP_WORDS = frozenset(_STOP.split())

_WORD = re.compile(r"[^\W_]+(?:[-.'’][^\W_]+)*\+*")
_FORMAT = "1"


def tokenize(text: str) -> list[str]:
    """The tokens of ``text``, in order, by the rules above."""
    return [token for word in _WORD.findall(text) for token in _tokens(word)]


@lru_cache(maxsize=200_000)
def _tokens(word: str) -> tuple[str, ...]:
    folded = word.lower()
    if not folded.isascii():
        folded = unicodedata.normalize("NFKD", folded).replace("’", "'")
        folded = "".join(char for char in folded if not unicodedata.combining(char))
    if "'" in folded:
        folded = folded.removesuffix("'s").replace("'", "")
    if not folded or folded in STOP_WORDS:
        return ()
    if folded.isalpha():
        return (_singular(folded),)
    parts = []
    for piece in folded.split("-"):
        dotted = "." in piece and not any(char.isdigit() for char in piece)
        parts += piece.split(".") if dotted else [piece]
    tokens = [_singular(part) for part in parts if part and part not in STOP_WORDS]
    if "-" in folded:
        tokens.append(_singular(folded.replace("-", "")))
    return tuple(dict.fromkeys(tokens))


def _singular(word: str) -> str:
    if len(word) <= 3 or not word.endswith("s") or word.endswith(("ss", "us", "is")) or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes", "sses", "zzes")):
        return word[:-2]
    return word[:-1]


def highlighter(query: str) -> Callable[[str], Markup] | None:
    """A function that escapes text and puts <mark> around the words the query has in common; None without any."""
    wanted = frozenset(tokenize(query))
    if not wanted:
        return None

    def mark(text: str) -> Markup:
        out, at = [], 0
        for match in _WORD.finditer(text):
            if not wanted.isdisjoint(_tokens(match.group())):
                out += [escape(text[at : match.start()]), Markup("<mark>{}</mark>").format(match.group())]
                at = match.end()
        return Markup("").join([*out, escape(text[at:])])

    return mark


def matched_terms(query: str, text: str) -> list[str]:
    """The query's words that occur in ``text``, as the query spells them."""
    present = set(tokenize(text))
    return list(dict.fromkeys(word for word in _WORD.findall(query) if not present.isdisjoint(_tokens(word))))


def snippet(query: str, text: str, *, length: int = 320) -> tuple[str, bool]:
    """The stretch of whole sentences of ``text`` with the most different query words, about ``length`` characters,
    and whether it starts at the beginning."""
    wanted = set(tokenize(query))
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z0-9(])", text)
    found = [wanted.intersection(tokenize(sentence)) for sentence in sentences]
    best, best_value = 0, 0.0
    for start in range(len(sentences)):
        if not found[start]:
            continue
        seen: set[str] = set()
        size = 0
        for sentence, terms in zip(sentences[start:], found[start:], strict=True):
            if size and size + len(sentence) > length:
                break
            size += len(sentence) + 1
            seen |= terms
        value = len(seen) + 0.5 * len(found[start]) - 0.01 * start
        if value > best_value + 1e-9:
            best, best_value = start, value
    return " ".join(sentences[best:]), best == 0


class _Numbering(dict[str, list[int]]):
    """word -> token numbers, worked out at the first sight of a word: most words of a corpus are repeats."""

    def __init__(self) -> None:
        self.vocabulary: dict[str, int] = {}

    def __missing__(self, word: str) -> list[int]:
        vocabulary = self.vocabulary
        numbers = [vocabulary.setdefault(token, len(vocabulary)) for token in _tokens(word)]
        self[word] = numbers
        return numbers


class LexicalIndex:
    """BM25 (Lucene's variant, k1 1.2, b 0.75) of N papers; ids in the order of its scores."""

    def __init__(self, ids: Sequence[str], engines: dict[str, Any], stamp: str) -> None:
        self.ids = list(ids)
        self.stamp = stamp
        self._engines = engines
        self._place = {identifier: i for i, identifier in enumerate(self.ids)}

    @classmethod
    def build(
        cls,
        rows: Iterable[tuple[str, str, str, Sequence[str], str | None]],
        *,
        stamp: str,
        progress: Progress | None = None,
        total: int | None = None,
    ) -> LexicalIndex:
        """From rows (id, title, summary, authors, organisation). ``stamp`` says which state of the data this is."""
        ids: list[str] = []
        tokens: dict[str, list[list[int]]] = {field: [] for field in FIELDS}
        numberings = {field: _Numbering() for field in FIELDS}
        for identifier, title, summary, authors, organization in rows:
            ids.append(identifier)
            texts = {"title": title, "summary": summary, "names": " ".join([*authors, organization or ""])}
            for field, text in texts.items():
                number = numberings[field].__getitem__
                tokens[field].append(list(chain.from_iterable(map(number, _WORD.findall(text)))))
            if progress and len(ids) % 500 == 0:
                progress(len(ids), total)
        bm25s = require("bm25s", why="the paper-discovery site")
        engines = {}
        for field in FIELDS:
            if not any(tokens[field]):
                continue
            engine = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
            engine.index((tokens[field], numberings[field].vocabulary), show_progress=False)
            engines[field] = engine
        if progress:
            progress(len(ids), total)
        return cls(ids, engines, stamp)

    def scores(self, query: str) -> NDArray[np.float32]:
        """float32 [N]: the weighted sum over the fields; 0 for papers without any query word."""
        total = np.zeros(len(self.ids), np.float32)
        tokens = list(dict.fromkeys(tokenize(query)))
        for field, engine in self._engines.items():
            known = [token for token in tokens if token in engine.vocab_dict]
            if known:
                total += FIELDS[field] * engine.get_scores(known)
        return total

    def search(
        self, query: str, k: int, *, allowed: Collection[str] | None = None
    ) -> tuple[list[str], list[float], int]:
        """The best ``k`` ids with scores, and how many papers match at all; ``allowed`` restricts both exactly."""
        scores = self.scores(query)
        if allowed is not None:
            mask = np.zeros(len(self.ids), bool)
            mask[[self._place[identifier] for identifier in allowed if identifier in self._place]] = True
            scores[~mask] = 0.0
        matches = np.flatnonzero(scores > 0)
        if len(matches) > k:
            matches = matches[np.argpartition(-scores[matches], k - 1)[:k]]
        order = matches[np.lexsort((matches, -scores[matches]))]
        total = int(np.count_nonzero(scores > 0))
        return [self.ids[i] for i in order], [float(scores[i]) for i in order], total

    # -- on disk: a folder that appears whole or not at all -------------------------------------------------------
    def save(self, folder: Path) -> None:
        """Write to ``folder``, replacing what is there. Raises StorageError when the disk refuses."""
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            try:
                for field, engine in self._engines.items():
                    engine.save(temporary / field, show_progress=False)
                header = {"format": _FORMAT, "stamp": self.stamp, "ids": self.ids, "fields": list(self._engines)}
                (temporary / "index.json").write_text(json.dumps(header), encoding="utf-8")
                temporary.chmod(0o755)
                old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
                if folder.exists():
                    folder.rename(old / "old")
                temporary.rename(folder)
                shutil.rmtree(old, ignore_errors=True)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            raise storage_error(error, folder) from error

    @classmethod
    def load(cls, folder: Path) -> LexicalIndex:
        """Read what ``save`` wrote; StorageError where it is missing or damaged (build it again then)."""
        bm25s = require("bm25s", why="the paper-discovery site")
        try:
            header = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if header["format"] != _FORMAT:
                raise ValueError("another format")
            names = [field for field in FIELDS if field in header["fields"]]
            engines = {field: bm25s.BM25.load(folder / field, show_progress=False) for field in names}
            for engine in engines.values():
                if engine.scores["num_docs"] != len(header["ids"]):
                    raise ValueError("parts of different size")
            return cls(header["ids"], engines, header["stamp"])
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise StorageError(f"the word index at {str(folder)!r} is missing or damaged: {error}") from error
