"""Search by words: BM25 over title, abstract and names, and the words to show people.

Shapes: N papers, T query tokens.
"""

from __future__ import annotations

import bisect
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from nextvec.files import storage_error
from nextvec.search.postings import Bm25, Builder, Segment, Shape
from nextvec.search.words import RULES, WORD, tokenize, tokens_of
from nextvec.types import Progress, StorageError

__all__ = ["LexicalIndex", "highlighter", "matched_terms", "snippet"]

FIELDS = {"title": 2.0, "summary": 1.0, "names": 1.0}
"""Weights: a word in the title counts twice. Each field has its own BM25, with its own lengths."""

_FORMAT = "2"
_WITHIN = "-.'’+"
_RUN = re.compile(rf"(?:[^\W_]|[{_WITHIN}])+")
_FOREIGN = re.compile(r"[^\W_a-zA-Z0-9]|’")
_BREAK = re.compile(r"[.!?]\s+(?=[A-Z0-9(])")


class _Sought:
    """The words of a query, to be found in texts."""

    def __init__(self, query: str) -> None:
        self.words = tuple(dict.fromkeys(WORD.findall(query)))
        self.tokens = frozenset(token for word in self.words for token in tokens_of(word))
        # A word of ASCII that has a token has this in it, up to case, unless something stands inside the word.
        self._stems = {token.removesuffix("y") or token for token in self.tokens if token.isascii()} | {"-", "'"}

    def places(self, text: str) -> list[tuple[int, int, frozenset[str]]]:
        """(begin, end, what it shares with the query) of each word of ``text`` that shares a token, in order."""
        found = []
        for begin, end in self._runs(text):
            for match in WORD.finditer(text, begin, end):
                tokens = tokens_of(match.group())
                if not self.tokens.isdisjoint(tokens):
                    found.append((match.start(), match.end(), self.tokens.intersection(tokens)))
        return found

    def _runs(self, text: str) -> list[tuple[int, int]]:
        """Where words can be that share a token: a few look-ups, as most words of a text share nothing."""
        lower = text.lower()
        if len(lower) != len(text):
            return [(0, len(text))]
        runs: dict[int, int] = {}
        if not text.isascii():
            self._add(text, (match.start() for match in _FOREIGN.finditer(text)), runs)
        for stem in self._stems:
            at = lower.find(stem)
            while at >= 0:
                end = self._add(text, (at,), runs)
                at = lower.find(stem, max(end, at + 1))
        return sorted(runs.items())

    def _add(self, text: str, places: Iterable[int], runs: dict[int, int]) -> int:
        """Note the runs around ``places``, which ascend; the end of the last."""
        end = -1
        for at in places:
            if at < end:
                continue
            begin = at
            while begin and ((char := text[begin - 1]).isalnum() or char in _WITHIN):
                begin -= 1
            match = _RUN.match(text, begin)
            runs[begin] = end = match.end() if match else at + 1
        return end


_sought = lru_cache(maxsize=256)(_Sought)


@lru_cache(maxsize=256)
def highlighter(query: str) -> Callable[[str], Markup] | None:
    """A function that escapes text and puts <mark> around the words the query has in common; None without any.

    The same one for the same query, so that what it marked can be kept.
    """
    sought = _sought(query)
    if not sought.tokens:
        return None

    def mark(text: str) -> Markup:
        out: list[str] = []
        at = 0
        for begin, end, _ in sought.places(text):
            out += [escape(text[at:begin]), "<mark>", escape(text[begin:end]), "</mark>"]
            at = end
        return Markup("".join([*out, escape(text[at:])]))

    return mark


def matched_terms(query: str, text: str) -> list[str]:
    """The query's words that occur in ``text``, as the query spells them."""
    sought = _sought(query)
    present = {token for _, _, tokens in sought.places(text) for token in tokens}
    return [word for word in sought.words if not present.isdisjoint(tokens_of(word))]


def snippet(query: str, text: str, *, length: int = 320) -> tuple[str, bool]:
    """The stretch of whole sentences of ``text`` with the most different query words, about ``length`` characters,
    and whether it starts at the beginning."""
    breaks = list(_BREAK.finditer(text))
    begins = [0, *(one.end() for one in breaks)]
    ends = [*(one.start() + 1 for one in breaks), len(text)]
    sentences = [text[begin:end] for begin, end in zip(begins, ends, strict=True)]
    found: list[set[str]] = [set() for _ in sentences]
    for begin, _, tokens in _sought(query).places(text):
        found[bisect.bisect_right(begins, begin) - 1] |= tokens
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


def _ways(word: str) -> list[list[str]]:
    """The sets of tokens any of which stands for ``word``: all its parts, or the whole written in one."""
    tokens = list(tokens_of(word))
    if "-" in word and len(tokens) > 1:
        return [tokens[:-1], tokens[-1:]]
    return [tokens] if tokens else []


class LexicalIndex:
    """BM25 of N papers; ids in the order of its scores. ``fields``: the segments of each field."""

    def __init__(self, ids: Sequence[str], fields: dict[str, list[Segment]], stamp: str) -> None:
        self.ids = list(ids)
        self.stamp = stamp
        self._fields = {field: Bm25(parts, np.arange(len(self.ids))) for field, parts in fields.items()}
        self._place = {identifier: i for i, identifier in enumerate(self.ids)}
        self._masks: list[tuple[frozenset[str], NDArray[np.bool_]]] = []

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
        builders = {field: Builder() for field in FIELDS}
        made: dict[str, list[Segment | None]] = {field: [] for field in FIELDS}
        for identifier, title, summary, authors, organization in rows:
            texts = {"title": title, "summary": summary, "names": " ".join([*authors, organization or ""])}
            for field, text in texts.items():
                made[field].append(builders[field].add(len(ids), text))
            ids.append(identifier)
            if progress and len(ids) % 500 == 0:
                progress(len(ids), total)
        fields = {
            field: [part for part in [*made[field], builders[field].rest()] if part is not None] for field in FIELDS
        }
        if progress:
            progress(len(ids), total)
        return cls(ids, fields, stamp)

    def scores(self, query: str) -> NDArray[np.float32]:
        """float32 [N]: the weighted sum over the fields; 0 for papers without any query word."""
        total = np.zeros(len(self.ids))
        tokens = tokenize(query)
        for field, words in self._fields.items():
            words.add_scores(tokens, FIELDS[field], total)
        return total.astype(np.float32)

    def search(
        self, query: str, k: int, *, allowed: Collection[str] | None = None
    ) -> tuple[list[str], list[float], int]:
        """The best ``k`` ids with scores, and how many papers match at all; ``allowed`` restricts both exactly."""
        scores = self.scores(query)
        if allowed is not None:
            scores[~self._mask(allowed)] = 0.0
        matches = np.flatnonzero(scores > 0)
        if len(matches) > k:
            matches = matches[np.argpartition(-scores[matches], k - 1)[:k]]
        order = matches[np.lexsort((matches, -scores[matches]))]
        total = int(np.count_nonzero(scores > 0))
        return [self.ids[i] for i in order], [float(scores[i]) for i in order], total

    def _mask(self, allowed: Collection[str]) -> NDArray[np.bool_]:
        """bool [N]: which papers are in ``allowed``. Of sets that cannot change the last ones are remembered."""
        for known, mask in self._masks:
            if known is allowed:
                return mask
        mask = np.zeros(len(self.ids), bool)
        mask[[self._place[identifier] for identifier in allowed if identifier in self._place]] = True
        if isinstance(allowed, frozenset):
            self._masks = [(allowed, mask), *self._masks[:15]]
        return mask

    def terms(self, query: str, identifiers: Sequence[str]) -> dict[str, list[str]]:
        """``matched_terms`` of these papers as they were indexed, by id; only of those that are here."""
        places = {name: self._place[name] for name in identifiers if name in self._place}
        at = np.fromiter(places.values(), np.int64, len(places))
        words = dict.fromkeys(WORD.findall(query))
        there = {token: self._among(token, at) for word in words for token in tokens_of(word)}
        return {
            name: [word for word in words if any(there[token][i] for token in tokens_of(word))]
            for i, name in enumerate(places)
        }

    def _among(self, token: str, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool [len(places)]: which of these papers have ``token`` in some field."""
        found = np.zeros(len(places), bool)
        for words in self._fields.values():
            for segment in words.segments:
                rows, _ = segment.find(token.encode())
                if len(rows):
                    wanted = places - segment.sequence[0]  # the numbers of a segment follow each other
                    here = np.flatnonzero((wanted >= 0) & (wanted < len(segment)))
                    sought = wanted[here].astype(rows.dtype)  # of another type, all rows would be copied
                    near = np.minimum(np.searchsorted(rows, sought), len(rows) - 1)
                    found[here[rows[near] == sought]] = True
        return found

    def holding(self, topic: str) -> list[str]:
        """The ids of the papers with every word of ``topic`` in title or abstract; commas separate alternatives.

        Words are compared by the rules of the search; of a word with a hyphen (``multi-modal``) the paper may have
        its parts or the whole (``multimodal``).
        """
        there = np.zeros(len(self.ids), bool)
        for alternative in topic.split(","):
            words = [ways for ways in map(_ways, WORD.findall(alternative)) if ways]
            if words:
                there |= np.logical_and.reduce([self._any(ways) for ways in words])
        return [self.ids[i] for i in np.flatnonzero(there)]

    def sharing(self, text: str) -> list[str]:
        """The ids of the papers that have every token of ``text`` in some field; all of them for a text without any."""
        there = np.ones(len(self.ids), bool)
        for token in set(tokenize(text)):
            there &= self._with(token, tuple(FIELDS))
        return [self.ids[i] for i in np.flatnonzero(there)]

    def knows(self, token: str) -> bool:
        """Whether any paper has ``token``."""
        wanted = token.encode()
        return any(len(segment.find(wanted)[0]) for words in self._fields.values() for segment in words.segments)

    def _any(self, ways: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
        """bool [N]: which papers have all tokens of one of ``ways`` in title or abstract."""
        found: NDArray[np.bool_] = np.zeros(len(self.ids), bool)
        for tokens in ways:
            found |= np.logical_and.reduce([self._with(token) for token in tokens])
        return found

    def _with(self, token: str, fields: Sequence[str] = ("title", "summary")) -> NDArray[np.bool_]:
        """bool [N]: which papers have ``token`` in one of ``fields``."""
        found: NDArray[np.bool_] = np.zeros(len(self.ids), bool)
        for field in fields:
            for segment in self._fields[field].segments:
                rows, _ = segment.find(token.encode())
                found[segment.sequence[rows]] = True
        return found

    # -- on disk: a folder that appears whole or not at all -------------------------------------------------------
    def save(self, folder: Path) -> None:
        """Write to ``folder``, replacing what is there. Raises StorageError when the disk refuses."""
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            try:
                parts: dict[str, list[tuple[Shape, int]]] = {}
                for field, words in self._fields.items():
                    parts[field] = []
                    for i, segment in enumerate(words.segments):
                        with (temporary / f"{field}-{i}.postings").open("wb") as stream:
                            parts[field].append((segment.shape, segment.write(stream)))
                header = {"format": _FORMAT, "rules": RULES, "stamp": self.stamp, "ids": self.ids, "fields": parts}
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
        try:
            header = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if (header["format"], header["rules"]) != (_FORMAT, RULES):
                raise ValueError("another format")
            fields = {
                field: [
                    Segment.open(folder / f"{field}-{i}.postings", shape, crc)
                    for i, (shape, crc) in enumerate(header["fields"][field])
                ]
                for field in FIELDS
            }
            if any(sum(map(len, parts)) != len(header["ids"]) for parts in fields.values()):
                raise ValueError("parts of different size")
            return cls(header["ids"], fields, header["stamp"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"the word index at {str(folder)!r} is missing or damaged: {error}") from error
