"""Corpora in the manner of LIMIT, of any size, and how an encoder does on them.

Every document is a person who likes things, "Jon Smith likes apples, chess and violins."; every query asks for one
thing, "Who likes chess?", and exactly k people like it. Which k, is the pattern of relevance, over n documents and Q
queries:

    dense      the first Q of all k-subsets, in lexicographic order, of as few documents as have Q of them
    cycle      query i: documents i, i + 1, ..., i + k - 1, counted round                        Q <= n
    disjoint   query i: documents k i, ..., k i + k - 1                                          Q <= n / k
    random     Q different k-subsets of all n documents, drawn alike

The texts are equally easy in all four; what grows from disjoint to dense is the number of subsets that the vectors must
tell apart. Documents outside the pattern, and what documents have too few of, are filled up with things that no query
asks for, so that length and style give nothing away.

Source: Weller et al. 2025 (arXiv 2508.21038): 46 documents, 1,000 of the 1,035 pairs, 45 things each (LIMIT-small);
with 49,954 documents more, LIMIT. Differs: own lists of names and things; every thing is one word until there are more
than 1,600, then a word is put before it ("painted chess") and queries share words; the published lists are not needed.
The paper does not say how cycle goes on for k > 2: here in steps of one.

    python -m nextvec.evaluate.limit_corpus write FOLDER --documents 46 --pattern dense --queries 1000
    python -m nextvec.evaluate.limit_corpus score FOLDER --model nextvec-mini

Legend: n documents, k relevant per query, Q queries, D width of a vector.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.data.relevance import Relevance, read_beir
from nextvec.evaluate.lexical import Bm25
from nextvec.evaluate.retrieval import summarise
from nextvec.evaluate.task_kinds import Encode, Ranker, retrieve
from nextvec.nn.save import new_folder
from nextvec.types import InputError, NextvecError, did_you_mean

__all__ = [
    "PATTERNS",
    "LimitCorpus",
    "judged",
    "make_corpus",
    "pattern_relevance",
    "score",
    "write_corpus",
]

PATTERNS = ("dense", "cycle", "disjoint", "random")
_MOST_QUERIES = 1000
_LEAST_LIKED = 45
_SPARE = 600


@dataclass(frozen=True, slots=True)
class LimitCorpus:
    """documents and queries: id -> text, in order; relevant: query id -> ids of its documents."""

    documents: Mapping[str, str]
    queries: Mapping[str, str]
    relevant: Mapping[str, tuple[str, ...]]


def pattern_relevance(
    pattern: str, documents: int, *, k: int = 2, queries: int | None = None, seed: int = 0
) -> NDArray[np.int64]:
    """The relevant documents of each query: int64 [Q, k], k different numbers below ``documents`` in each row.

    queries: None for as many as the pattern has, 1,000 at most. InputError for an unknown pattern and for more queries
    than it has. Only "random" depends on ``seed``.
    """
    if pattern not in PATTERNS:
        raise InputError(f"unknown pattern {pattern!r}; known: {', '.join(PATTERNS)}{did_you_mean(pattern, PATTERNS)}")
    if not 1 <= k < documents:
        raise InputError(f"{k} relevant of {documents} documents; expected 1 <= k < documents")
    has = {"cycle": documents, "disjoint": documents // k}.get(pattern, math.comb(documents, k))
    wanted = min(has, _MOST_QUERIES) if queries is None else queries
    if not 1 <= wanted <= has:
        raise InputError(f"{wanted} queries; pattern {pattern!r} has 1 to {has} over {documents} documents with k={k}")
    if pattern == "cycle":
        return (np.arange(wanted)[:, None] + np.arange(k)) % documents
    if pattern == "disjoint":
        return np.arange(wanted * k).reshape(wanted, k)
    if pattern == "dense":
        used = next(n for n in itertools.count(k) if math.comb(n, k) >= wanted)
        return np.array(list(itertools.islice(itertools.combinations(range(used), k), wanted)))
    generator = np.random.default_rng(seed)
    if wanted > has // 2:  # drawing until all are different would take long
        every = np.array(list(itertools.combinations(range(documents), k)))
        return every[generator.permutation(len(every))[:wanted]]
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < wanted:
        drawn[tuple(sorted(generator.choice(documents, k, replace=False).tolist()))] = None
    return np.array(list(drawn))


def make_corpus(
    documents: int = 46,
    *,
    pattern: str = "dense",
    k: int = 2,
    queries: int | None = None,
    likes: int | None = None,
    seed: int = 0,
) -> LimitCorpus:
    """A corpus of ``documents`` people with ``likes`` things each; the same arguments give the same corpus.

    likes: None for 45, or as many as the pattern gives its busiest document where that is more. InputError where it is
    too few for that, and where there are not enough names or things.
    """
    relevance = pattern_relevance(pattern, documents, k=k, queries=queries, seed=seed)
    degree = np.bincount(relevance.ravel(), minlength=documents)
    each = max(_LEAST_LIKED, int(degree.max())) if likes is None else likes
    if each < degree.max():
        raise InputError(
            f"likes is {each}, but a document is relevant to {degree.max()} queries; expected at least that"
        )
    generator = np.random.default_rng([seed, 1])
    asked = len(relevance)
    things = _things(asked + max(_SPARE, each), generator)
    names = _names(documents, generator)
    liked: list[list[str]] = [[] for _ in range(documents)]
    for thing, subset in zip(things, relevance, strict=False):
        for document in subset:
            liked[document].append(thing)
    texts = []
    for name, own in zip(names, liked, strict=True):
        spare = generator.choice(len(things) - asked, each - len(own), replace=False) + asked
        every = [*own, *(things[i] for i in spare)]
        order = [every[i] for i in generator.permutation(each)]
        listed = order[0] if each == 1 else f"{', '.join(order[:-1])} and {order[-1]}"
        texts.append(f"{name} likes {listed}.")
    asks = {f"query_{i}": f"Who likes {things[i]}?" for i in range(asked)}
    relevant = {f"query_{i}": tuple(names[j] for j in subset) for i, subset in enumerate(relevance)}
    return LimitCorpus(dict(zip(names, texts, strict=True)), asks, relevant)


@functools.cache
def _words() -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    own: list[str] = []
    for line in Path(__file__).with_name("limit_words.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            own = lists[line.strip("[]")] = []
        elif not line.startswith("#"):
            own += line.split()
    return lists


def _things(count: int, generator: np.random.Generator) -> list[str]:
    words = _words()
    plain, kinds = words["things"], words["kinds"]
    if count > len(plain) * (1 + len(kinds)):
        raise InputError(
            f"{count} different things are needed; there are {len(plain) * (1 + len(kinds))}: ask for less"
        )
    found = [plain[i] for i in generator.permutation(len(plain))[:count]]
    for i in generator.permutation(len(plain) * len(kinds))[: count - len(found)]:
        found.append(f"{kinds[i // len(plain)]} {plain[i % len(plain)]}")
    return found


def _names(count: int, generator: np.random.Generator) -> list[str]:
    words = _words()
    first, last = words["given"], words["family"]
    pairs = len(first) * len(last)
    if count > 27 * pairs:
        raise InputError(f"{count} different names are needed; there are {27 * pairs}: ask for fewer documents")
    found = [(i, "") for i in generator.permutation(pairs)[:count].tolist()]
    found += [(i % pairs, f"{chr(65 + i // pairs)}. ") for i in generator.permutation(26 * pairs)[: count - len(found)]]
    return [f"{first[i % len(first)]} {middle}{last[i // len(first)]}" for i, middle in found]


# ---------------------------------------------------------------- files


def write_corpus(corpus: LimitCorpus, folder: Path) -> Path:
    """Write ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/test.tsv``, as BEIR lays them out; returns the folder.

    The folder appears whole or not at all. ConflictError where it exists and is not empty.
    """
    with new_folder(folder) as temporary:
        (temporary / "qrels").mkdir()
        documents = [{"_id": name, "title": "", "text": text} for name, text in corpus.documents.items()]
        queries = [{"_id": name, "text": text} for name, text in corpus.queries.items()]
        for path, records in (("corpus.jsonl", documents), ("queries.jsonl", queries)):
            lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
            (temporary / path).write_text("".join(lines), encoding="utf-8")
        rows = [f"{query}\t{name}\t1\n" for query, names in corpus.relevant.items() for name in names]
        judged = "".join(["query-id\tcorpus-id\tscore\n", *rows])
        (temporary / "qrels" / "test.tsv").write_text(judged, encoding="utf-8")
    return folder


# ---------------------------------------------------------------- measures


def judged(corpus: LimitCorpus) -> Relevance:
    """``corpus`` as retrieval tasks take it, and as ``read_beir`` reads what ``write_corpus`` wrote."""
    at = {name: i for i, name in enumerate(corpus.documents)}
    return Relevance(
        query_ids=list(corpus.queries),
        queries=list(corpus.queries.values()),
        document_ids=list(corpus.documents),
        documents=list(corpus.documents.values()),
        gains=[{at[name]: 1 for name in corpus.relevant[query]} for query in corpus.queries],
        own=[-1] * len(corpus.queries),
    )


def score(
    model: Encode | Ranker, data: Relevance, *, cutoffs: Sequence[int] = (2, 10, 20, 100)
) -> dict[str, NDArray[np.float64]]:
    """Per query recall@2, @10, @20, @100 and ndcg@10 of exact search by cosine, or of a ranker: name -> [Q].

    Cut-offs that a corpus is too small for (every document is among them) are left out: they would be 1 for anyone.
    The control is ``Bm25()``, for which these corpora are easy.
    """
    names = [f"recall@{k}" for k in cutoffs if k < len(data.documents)]
    return dict(retrieve(model, data, [*names, "ndcg@10"]).columns)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a corpus, or score an encoder (and BM25) on one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="write a generated corpus")
    write.add_argument("folder", type=Path)
    write.add_argument("--documents", type=int, default=46)
    write.add_argument("--pattern", default="dense", help=f"one of {', '.join(PATTERNS)}")
    write.add_argument("--k", type=int, default=2, help="relevant documents per query")
    write.add_argument("--queries", type=int, help="default: as many as the pattern has, 1,000 at most")
    write.add_argument("--likes", type=int, help="things per document (default 45, or more where needed)")
    write.add_argument("--seed", type=int, default=0)
    scored = commands.add_parser("score", help="recall of an encoder and of BM25; prints JSON")
    scored.add_argument("folder", type=Path)
    scored.add_argument("--model", help="a bundled name, folder or hub id; without it only BM25 is scored")
    scored.add_argument("--dim", type=int, help="use only the first values of each vector")
    given = parser.parse_args(arguments)
    try:
        if given.command == "write":
            settings = {name: getattr(given, name) for name in ("pattern", "k", "queries", "likes", "seed")}
            print(write_corpus(make_corpus(given.documents, **settings), given.folder))
        else:
            print(json.dumps(_score(given.folder, given.model, given.dim), indent=1))
    except NextvecError as error:
        raise SystemExit(f"error: {error}") from error


def _score(folder: Path, model: str | None, dim: int | None) -> dict[str, Any]:
    data = read_beir(folder)
    found: dict[str, Any] = {"documents": len(data.documents), "queries": len(data)}
    found["bm25"] = summarise(score(Bm25(), data))
    if model is not None:
        from nextvec.encoder import Encoder

        encoder = Encoder.load(model)
        found[encoder.name] = summarise(score(functools.partial(encoder.encode, dim=dim), data))
    return found


if __name__ == "__main__":
    main()
