"""Search by words, fusion and shaping over again, in plain Python: lists of (id, score), best first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nextvec.search.words import tokenize

Ranked = list[tuple[str, float]]


def bm25(texts: dict[str, str | None], query: str) -> dict[str, float]:
    """id -> score of the texts that share a word with the query: Lucene's BM25, k1 1.2, b 0.75."""
    tokens = {name: tokenize(text or "") for name, text in texts.items()}
    filled = {name: words for name, words in tokens.items() if words}
    scores: dict[str, float] = {}
    if not filled:
        return scores
    average = sum(map(len, filled.values())) / len(filled)
    for token in set(tokenize(query)):
        holding = [name for name, words in filled.items() if token in words]
        idf = math.log(1 + (len(filled) - len(holding) + 0.5) / (len(holding) + 0.5))
        for name in holding:
            tf = filled[name].count(token)
            share = tf / (tf + 1.2 * (1 - 0.75 + 0.75 * len(filled[name]) / average))
            scores[name] = scores.get(name, 0.0) + idf * share
    return scores


def by_words(rows: dict[str, dict[str, Any]], weights: dict[str, float], query: str) -> dict[str, float]:
    """The same over several attributes."""
    total: dict[str, float] = {}
    for column, weight in weights.items():
        for name, score in bm25({name: row[column] for name, row in rows.items()}, query).items():
            total[name] = total.get(name, 0.0) + weight * score
    return total


def rrf(sides: Sequence[Ranked]) -> dict[str, float]:
    """Reciprocal rank fusion with shared ranks."""
    total: dict[str, float] = {}
    for side in sides:
        for name, score in side:
            rank = 1 + sum(other > score for _, other in side)
            total[name] = total.get(name, 0.0) + 1 / (60 + rank)
    return total


def weighted(vector: Ranked, words: Ranked, alpha: float) -> dict[str, float]:
    """The weighted sum of scores between 0 and 1."""
    total: dict[str, float] = {}
    for name, score in vector:
        low, high = vector[-1][1], vector[0][1]
        total[name] = alpha * ((score - low) / (high - low) if high > low else 1.0)
    for name, score in words:
        total[name] = total.get(name, 0.0) + (1 - alpha) * score / words[0][1]
    return total


def mmr(ranked: Ranked, vectors: dict[str, np.ndarray], diversity: float) -> Ranked:
    """Maximal marginal relevance, one by one."""
    if not ranked:
        return []
    low, high = ranked[-1][1], ranked[0][1]
    relevance = [(score - low) / (high - low) if high > low else 1.0 for _, score in ranked]
    left = list(range(len(ranked)))
    chosen: list[int] = []

    def value(i: int) -> float:
        near = max((float(vectors[ranked[i][0]] @ vectors[ranked[j][0]]) for j in chosen), default=0.0)
        return (1 - diversity) * relevance[i] - diversity * near

    while left:
        best = max(left, key=lambda i: (round(value(i), 6), -i))
        left.remove(best)
        chosen.append(best)
    return [ranked[i] for i in chosen]


def grouped(ranked: Ranked, group: Callable[[str], Any], size: int) -> list[Ranked]:
    """Groups by their best hit, each with its best ``size`` hits."""
    groups: dict[Any, Ranked] = {}
    for name, score in ranked:
        groups.setdefault(group(name), []).append((name, score))
    return [hits[:size] for hits in groups.values()]
