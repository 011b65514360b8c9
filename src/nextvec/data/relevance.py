"""Queries, documents and judgements of which document answers which query: BEIR folders, Cranfield, LIMIT.

Legend: Q queries, N documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nextvec.data.catalog import locate
from nextvec.data.lines import number, read_lines
from nextvec.data.readers import read_located
from nextvec.types import InputError, NotFoundError, did_you_mean

__all__ = ["Relevance", "cranfield", "is_beir", "limit_small", "read_beir", "relevance_of_pairs"]

_MAX_GAIN = 1_000_000
_RECORD = re.compile(r"^\.I[ \t]+(\d+)[ \t]*\r?$", re.MULTILINE)
_CRANFIELD_BEST = 5  # a code c of 1 to 4 is worth 5 - c


@dataclass(frozen=True, slots=True)
class Relevance:
    """Q queries and N documents with their ids, and for each query its relevant documents.

    gains: per query, position of a document -> gain (at least 1; documents that are not listed have 0). Queries
    without any relevant document are left out, since every ranking is as good for them; ``left_out`` counts them.
    own: per query, the position of the document that is the query itself, which is no answer (-1: none).
    """

    query_ids: list[str]
    queries: list[str]
    document_ids: list[str]
    documents: list[str]
    gains: list[dict[int, int]]
    own: list[int]
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.queries)


def is_beir(folder: Path) -> bool:
    """Whether ``folder`` has the three parts of a BEIR set (corpus, queries, qrels)."""
    return bool(_part(folder, "corpus") and _part(folder, "queries") and (_part(folder, "qrels") or _splits(folder)))


def read_beir(folder: Path, *, split: str | None = None) -> Relevance:
    """A folder in BEIR's layout (Thakur et al. 2021, arXiv 2104.08663): corpus.jsonl (``_id``, ``title``, ``text``),
    queries.jsonl (``_id``, ``text``), both also as .gz, .xz or .zst, and qrels/SPLIT.tsv or, as LIMIT has it,
    qrels.jsonl (``query-id``, ``corpus-id``, ``score``).

    split: which file of qrels/ (None: "test", or the only one). A document's text is its title, a space and its text. A
    document with the id of a query that it is not judged relevant for is that query itself (as in ArguAna and Quora)
    and is not searched for it. NotFoundError for a part that is absent; InputError, with file and line, for an id that
    comes twice or that no part knows, a score that is no whole number, and a set without any relevant document.
    """
    paths = {name: _part(folder, name) for name in ("corpus", "queries")}
    for name, path in paths.items():
        if path is None:
            raise NotFoundError(f"{str(folder)!r} has no {name}.jsonl: expected corpus.jsonl, queries.jsonl and qrels/")
    documents = _texts(paths["corpus"])
    queries = _texts(paths["queries"])
    places = {identifier: i for i, identifier in enumerate(documents)}
    judged: dict[str, dict[int, int]] = {}
    for place, query, document, score in _judgements(folder, split):
        if query not in queries:
            raise InputError(f"{place}: no query {query!r:.60} in queries.jsonl: add it, or remove the judgement")
        if document not in places:
            raise InputError(f"{place}: no document {document!r:.60} in corpus.jsonl: add it, or remove the judgement")
        own = judged.setdefault(query, {})
        if places[document] in own:
            raise InputError(f"{place}: query {query!r:.60} and document {document!r:.60} are judged twice")
        own[places[document]] = score
    return _relevance(folder, {name: queries[name] for name in judged}, documents, judged, same_ids=True)


def cranfield(*, folder: Path | None = None) -> Relevance:
    """Cranfield 1400: 225 questions on aerodynamics and 1,400 abstracts with graded judgements.

    Codes in the file go from 1 (a complete answer) to 4 (of minimum interest); the gain is 5 - code. The one document
    per query coded -1 is not counted as relevant, as in the copy's own binary file; tools that read the codes upwards
    (4 the best) give another nDCG, while measures that do not use grades are the same. Queries are numbered by their
    order, not by the numbers in cran.qry. Two abstracts are empty. Source: Cleverdon 1967, "The Cranfield tests on
    index language devices". folder: where cran.* lie (None: the catalogued set).
    """
    place = folder or locate("cranfield")
    documents = dict(_cranfield_texts(place / "cran.all.1400"))
    queries = {str(i): text for i, (_, text) in enumerate(_cranfield_texts(place / "cran.qry"), 1)}
    places = {identifier: i for i, identifier in enumerate(documents)}
    judged: dict[str, dict[int, int]] = {}
    for where, line in read_lines(place / "cranqrel"):
        fields = line.split()
        if len(fields) != 3 or fields[0] not in queries or fields[1] not in places:
            raise InputError(f"{where}: expected the numbers of a query and a document that exist, and a code")
        code = int(number(fields[2], where, "code", -1, 4))
        judged.setdefault(fields[0], {})[places[fields[1]]] = _CRANFIELD_BEST - code if code > 0 else 0
    return _relevance(place, queries, documents, judged, same_ids=False)


def limit_small(*, folder: Path | None = None) -> Relevance:
    """LIMIT-small: 46 people with what they like, 1,000 questions who likes it, two answers each. Made so that vectors
    of few values cannot solve it. Source: Weller et al. 2025 (arXiv 2508.21038). folder: where limit-small/ lies."""
    return read_beir((folder or locate("limit")) / "limit-small")


def _part(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}.jsonl{ending}" for ending in ("", ".gz", ".xz", ".zst"))
    return next((path for path in paths if path.is_file()), None)


def _splits(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted((folder / "qrels").glob("*.tsv"))}


def _texts(path: Path | None) -> dict[str, str]:
    """Id -> text, in the file's order."""
    assert path is not None
    found: dict[str, str] = {}
    for place, record in read_located(path):
        identifier, title, text = (record.get(name) for name in ("_id", "title", "text"))
        if not isinstance(identifier, str | int) or isinstance(identifier, bool) or str(identifier) == "":
            raise InputError(f"{place}: the field '_id' is {identifier!r:.40}; expected a text or number")
        if not isinstance(text, str) or not isinstance(title, str | None):
            raise InputError(f"{place}: 'text' (and 'title', where there is one) must be texts")
        if str(identifier) in found:
            raise InputError(f"{place}: the id {str(identifier)!r:.60} comes twice")
        found[str(identifier)] = f"{title or ''} {text}".strip()
    if not found:
        raise InputError(f"{str(path)!r} holds no record")
    return found


def _judgements(folder: Path, split: str | None) -> Iterator[tuple[str, str, str, int]]:
    """(place, query, document, score) of every judgement."""
    splits = _splits(folder)
    if split is None and not splits and (path := _part(folder, "qrels")):
        for place, record in read_located(path, fields=("query-id", "corpus-id", "score")):
            yield place, str(record["query-id"]), str(record["corpus-id"]), _score(str(record["score"]), place)
        return
    if split is None:
        split = next(iter(splits)) if len(splits) == 1 else "test"
    if split not in splits:
        known = ", ".join(splits) or "none"
        raise NotFoundError(
            f"{str(folder / 'qrels')!r} has no {split}.tsv (found: {known}){did_you_mean(split, splits)}"
        )
    for i, (place, line) in enumerate(read_lines(splits[split])):
        fields = line.split("\t")
        if i == 0 and fields[-1].strip() == "score":
            continue
        if len(fields) != 3:
            raise InputError(f"{place}: {len(fields)} fields; expected query-id, corpus-id and score divided by tabs")
        yield place, fields[0], fields[1], _score(fields[2], place)


def _score(text: str, place: str) -> int:
    value = number(text, place, "score", -_MAX_GAIN, _MAX_GAIN)
    if value != int(value):
        raise InputError(f"{place}: the score is {value}; expected a whole number")
    return int(value)


def _cranfield_texts(path: Path) -> Iterator[tuple[str, str]]:
    """(number, the text after .W) of every record."""
    text = "\n".join(line for _, line in read_lines(path))
    starts = list(_RECORD.finditer(text))
    if not starts or text[: starts[0].start()].strip():
        raise InputError(f"{path.name}: expected records that begin with .I and a number")
    seen: set[str] = set()
    for start, end in zip(starts, [*(other.start() for other in starts[1:]), len(text)], strict=True):
        identifier, (_, mark, body) = start[1], text[start.end() : end].partition("\n.W")
        if not mark or identifier in seen:
            raise InputError(f"{path.name}: record {identifier} comes twice or has no text (.W): the file is damaged")
        seen.add(identifier)
        yield identifier, " ".join(body.split())


def _relevance(
    place: Path,
    queries: dict[str, str],
    documents: dict[str, str],
    judged: dict[str, dict[int, int]],
    *,
    same_ids: bool,
) -> Relevance:
    kept = {name: _positive(judged.get(name, {})) for name in queries}
    names = [name for name, gains in kept.items() if gains]
    if not names:
        raise InputError(f"{str(place)!r} judges no document relevant for any query: there is nothing to measure")
    places = {identifier: i for i, identifier in enumerate(documents)} if same_ids else {}
    own = [places.get(name, -1) for name in names]
    return Relevance(
        query_ids=names,
        queries=[queries[name] for name in names],
        document_ids=list(documents),
        documents=list(documents.values()),
        gains=[kept[name] for name in names],
        own=[-1 if i in kept[name] else i for i, name in zip(own, names, strict=True)],
        left_out=len(queries) - len(names),
    )


def _positive(gains: dict[int, int]) -> dict[int, int]:
    return {i: gain for i, gain in gains.items() if gain > 0}


def relevance_of_pairs(ids: Iterable[str], queries: Iterable[str], documents: Iterable[str]) -> Relevance:
    """Query i looks for document i, and nothing else answers it."""
    names = list(ids)
    gains = [{i: 1} for i in range(len(names))]
    return Relevance(names, list(queries), names, list(documents), gains, [-1] * len(names))
