"""How good the site's keywords and lines are, beside those that a language model wrote for the Daily Papers.

    python benchmarks/papers_keywords.py --data $NEXTVEC_DATA --out benchmarks/out/papers_keywords.json

Reference: ``ai_keywords`` and ``ai_summary`` of the Daily Papers (read from the data folder, not part of this project).
The weights of ``insight/keywords.py`` were fitted on the papers with even numbers in that file; measured is a sample of
those with odd numbers. A keyword counts where it is the same as one of the reference up to case, accents, plural
endings and hyphens. Beside it: the same phrases ranked by tf-idf, and by the cosine with the paper alone (as KeyBERT
ranks, with this project's encoder). Lines are compared by the words that they share with the reference (F1) and by the
cosine, with the first sentence and with the sentence nearest to the abstract beside them. Means with 95 % bootstrap
intervals.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from _arms import tell
from nextvec.encoder import Encoder
from nextvec.evaluate.retrieval import bootstrap
from nextvec.papers import markup
from nextvec.papers.insight import candidates, keywords, sentences, summary
from nextvec.papers.insight.build import work_out
from nextvec.papers.insight.candidates import Candidate, Counts, bucket, normal_form
from nextvec.papers.records import Paper
from nextvec.search.words import tokenize

FILE = "papers/hf_daily_papers/hf_daily_papers_2404589803.jsonl.xz"
Row = dict[str, Any]


def read(data: Path) -> list[Row]:
    """Every record of the reference."""
    with lzma.open(data / FILE, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def phrases_of(row: Row) -> list[Candidate]:
    return candidates.candidates(markup.plain(row["title"]), markup.plain(row["summary"]))


def distinct(ranked: Sequence[str], most: int = keywords.KEPT) -> list[str]:
    """The first ``most`` normal forms of which none is part of another."""
    kept: list[str] = []
    for key in ranked:
        if not any(f" {key} " in f" {other} " or f" {other} " in f" {key} " for other in kept):
            kept.append(key)
            if len(kept) == most:
                break
    return kept


def by_tfidf(rows: Sequence[Row], counts: Counts) -> list[list[str]]:
    def score(one: Candidate) -> float:
        return one.times * float(np.log(counts.papers / max(int(counts.having[bucket(one.key)]), 1)))

    return [distinct([one.key for one in sorted(phrases_of(row), key=lambda one: -score(one))]) for row in rows]


def by_cosine(rows: Sequence[Row], encoder: Encoder) -> list[list[str]]:
    found = []
    for row in rows:
        listed = phrases_of(row)
        vectors = encoder.encode_document([f"{row['title']}\n{row['summary']}", *(one.text for one in listed)])
        order = np.argsort(-(vectors[1:] @ vectors[0]), kind="stable")
        found.append(distinct([listed[i].key for i in order]))
    return found


def f1_at_5(found: Sequence[str], wanted: set[str]) -> float:
    right = len(set(found[:5]) & wanted)
    return 2 * right / (5 + len(wanted)) if right else 0.0


def recall_at_10(found: Sequence[str], wanted: set[str]) -> float:
    return len(set(found[:10]) & wanted) / len(wanted)


def told(values: Sequence[float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in bootstrap(values).as_dict().items()}


def measure_keywords(rows: Sequence[Row], encoder: Encoder, counts: Counts, papers: Sequence[Paper]) -> dict[str, Any]:
    wanted = [{normal_form(word) for word in row["ai_keywords"]} for row in rows]
    ours = [[normal_form(word) for word in one.keywords] for one in work_out(papers, counts, encoder)]
    systems = {"ours": ours, "tf-idf": by_tfidf(rows, counts), "cosine alone": by_cosine(rows, encoder)}
    measures: dict[str, Callable[[Sequence[str], set[str]], float]] = {"f1@5": f1_at_5, "recall@10": recall_at_10}
    return {
        name: {
            measure: told([function(one, them) for one, them in zip(found, wanted, strict=True)])
            for measure, function in measures.items()
        }
        for name, found in systems.items()
    }


def shared(one: str, other: str) -> float:
    """F1 of the words of two texts."""
    a, b = Counter(tokenize(one)), Counter(tokenize(other))
    return 2 * (a & b).total() / max(a.total() + b.total(), 1)


def measure_lines(rows: Sequence[Row], encoder: Encoder) -> dict[str, Any]:
    picked: dict[str, list[str]] = {"ours": [], "ours, shortened": [], "first sentence": [], "nearest sentence": []}
    chosen = [(row, found) for row in rows if row.get("ai_summary") and (found := sentences.sentences(row["summary"]))]
    for row, found in chosen:
        vectors = encoder.encode_document([row["summary"], *found])
        place = summary.choose(found, vectors[1:], vectors[0])
        picked["ours"].append(found[place])
        picked["ours, shortened"].append(summary.shorten(found[place]))
        picked["first sentence"].append(found[0])
        picked["nearest sentence"].append(found[int(np.argmax(vectors[1:] @ vectors[0]))])
    reference = [row["ai_summary"] for row, _ in chosen]
    meant = encoder.encode_document(reference)
    return {
        name: {
            "words f1": told([shared(one, other) for one, other in zip(texts, reference, strict=True)]),
            "cosine": told([float(value) for value in np.sum(encoder.encode_document(texts) * meant, axis=1)]),
        }
        for name, texts in picked.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder ($NEXTVEC_DATA)")
    parser.add_argument("--papers", type=int, default=1_500)
    parser.add_argument("--encoder", default="nextvec-mini")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    every = read(arguments.data)
    encoder = Encoder.load(arguments.encoder)
    counts = candidates.count(phrases_of(row) for row in every)
    test = [row for i, row in enumerate(every) if i % 2 and row.get("ai_keywords")]
    rows = random.Random(0).sample(test, min(arguments.papers, len(test)))
    papers = [Paper(id=row["id"], title=row["title"], summary=row["summary"]) for row in rows]
    document = {
        "what": "keywords and lines beside those of a language model, on papers whose keywords no weight was fitted on",
        "papers": len(rows),
        "encoder": encoder.name,
        "keywords": measure_keywords(rows, encoder, counts, papers),
        "lines": measure_lines(rows, encoder),
    }
    tell(document, arguments.out)


if __name__ == "__main__":
    main()
