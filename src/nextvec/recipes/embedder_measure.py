"""What a domain encoder is measured by: pairs that were held out, before and after, with intervals.

Queries look for their documents among those that are held out and up to 4,000 that were learned from (nDCG@10, recall):
among few, everything is found. Of graded pairs, Spearman's correlation of their cosines with the scores. Legend: n
pairs, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nextvec.data.relevance import Relevance
from nextvec.encoder import Encoder
from nextvec.evaluate.embedder import Embedder, Size, vector_bytes
from nextvec.evaluate.lexical import Bm25
from nextvec.evaluate.outcomes import Outcome, differences, intervals
from nextvec.evaluate.task_kinds import correlate, retrieve
from nextvec.extras import available
from nextvec.recipes.embedder_data import Examples

__all__ = ["Held", "Measures", "measure", "report_of"]

RETRIEVAL = ("ndcg@10", "recall@1", "recall@10", "mrr@10")
SAMPLES = 1000
_OTHERS = 4000


@dataclass(frozen=True, slots=True)
class Held:
    """The pairs to measure on, and other documents to search among."""

    pairs: Examples
    others: list[str]

    @classmethod
    def out(cls, pairs: Examples, learned: Examples) -> Held:
        """``pairs``, among a fixed choice of the documents of ``learned``."""
        chosen = np.sort(np.random.default_rng(0).permutation(len(learned))[:_OTHERS])
        return cls(pairs, [learned.second[i] for i in chosen])


@dataclass(frozen=True, slots=True)
class Measures:
    """What was seen of every held-out pair."""

    outcome: Outcome

    @property
    def main(self) -> str:
        """The measure to compare by."""
        return "spearman" if self.outcome.kind == "spearman" else RETRIEVAL[0]


def measure(encoder: Encoder, held: Held, progress: Callable[[int, int | None], None] | None = None) -> Measures:
    """``encoder`` on the held-out pairs."""
    return _measure(Embedder(encoder).at(Size()), held, progress)


def _measure(encode: Any, held: Held, progress: Callable[[int, int | None], None] | None = None) -> Measures:
    pairs = held.pairs
    if pairs.scores is not None:
        return Measures(correlate(encode, pairs.first, pairs.second, pairs.scores, progress=progress))
    return Measures(retrieve(encode, _search(held), RETRIEVAL, progress=progress))


def _search(held: Held) -> Relevance:
    """Each query once, each document once, and which answers which."""
    pairs = held.pairs
    documents = {text: i for i, text in enumerate(dict.fromkeys([*pairs.second, *held.others]))}
    gains: dict[str, dict[int, int]] = {}
    for query, document in zip(pairs.first, pairs.second, strict=True):
        gains.setdefault(query, {})[documents[document]] = 1
    names = [str(i) for i in range(max(len(gains), len(documents)))]
    return Relevance(
        names[: len(gains)],
        list(gains),
        names[: len(documents)],
        list(documents),
        list(gains.values()),
        [-1] * len(gains),
    )


def report_of(encoder: Encoder, held: Held, before: Measures, after: Measures) -> dict[str, Any]:
    """For report.json: before, after and their difference with 95 % bootstrap intervals over the queries (or pairs),
    the same for BM25 where bm25s is installed, and the trained model at every size that it can be cut to."""
    found: dict[str, Any] = {
        "measure": after.main,
        "before": _intervals(before),
        "after": _intervals(after),
        "gain": {n: d.as_dict() for n, d in differences(after.outcome, before.outcome, samples=SAMPLES).items()},
    }
    if held.pairs.scores is None and available("bm25s"):
        found["bm25"] = _intervals(_measure(Bm25(), held))
    found["sizes"] = sizes = []
    embedder = Embedder(encoder)
    depths: list[int | None] = [n for n in encoder.nested_layers if n < encoder.layers]
    for layers, dim in itertools.product([*depths, None], encoder.nested_dims or [encoder.dim]):
        values = _measure(embedder.at(Size(dim=dim, layers=layers)), held).outcome.measures()
        own = {name: round(value, 5) for name, value in values.items()}
        sizes.append({"dim": dim, "layers": layers or encoder.layers, "bytes": vector_bytes(dim, "float32"), **own})
    return found


def _intervals(measures: Measures) -> dict[str, Any]:
    return {name: value.as_dict() for name, value in intervals(measures.outcome, samples=SAMPLES).items()}
