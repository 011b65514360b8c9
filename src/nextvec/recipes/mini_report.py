"""Measure nextvec-mini and its baselines on papers that no training step saw: title -> abstract, questions, STS."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec import __version__
from nextvec.data.readers import read_records
from nextvec.data.titles import Paper
from nextvec.evaluate.lexical import bm25_ranks
from nextvec.evaluate.retrieval import bootstrap, dense_ranks, paired_bootstrap, single_relevant, summarise
from nextvec.evaluate.sts import cosine_spearman
from nextvec.recipes.corpus import Corpus
from nextvec.recipes.mini_steps import Prepared, Recipe, TeacherLike
from nextvec.recipes.static_table import Bags, TokenTable, quantise, unit

__all__ = ["measure"]

STSB = Path("sts/sts/STSBenchmark/sts-test.csv")
_STEPS = (
    ("token distillation", "tokens"),
    ("document distillation", "distilled"),
    ("contrastive, not averaged", "contrastive"),
    ("nextvec-mini 256", "final"),
)
"""The static encoder after each step of the recipe."""
_SAMPLES = 1000
_interval = partial(bootstrap, samples=_SAMPLES)


def measure(
    corpus: Corpus,
    prepared: Prepared,
    stages: dict[int, dict[str, NDArray[np.float32]]],
    recipe: Recipe,
    teacher: TeacherLike,
    work: Path,
    *,
    data: Path,
) -> dict[str, Any]:
    """The whole report as a JSON document; ``stages[seed]`` are the rows after each step, the first seed's model is
    the one that ships. Intervals are 95 % percentile bootstrap over queries."""
    first = next(iter(stages))
    systems = _systems(stages, recipe)
    ranks: dict[str, dict[str, NDArray[np.int64]]] = {}
    for name, pairs in corpus.held_out.items():
        ranks[name] = _set_ranks(pairs, prepared.tokenizer, systems, teacher, work)
    report: dict[str, Any] = {
        "model": "nextvec-mini",
        "task": "title -> abstract: every held-out title looks for its own abstract among all abstracts of its set",
        "version": __version__,
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, CPU only",
        "seeds": list(stages),
        "train_papers": len(corpus.train),
        "sets": {name: len(pairs) for name, pairs in corpus.held_out.items()},
        "interval": f"95 % percentile bootstrap over queries, {_SAMPLES} samples",
        "results": {
            name: {system: summarise(single_relevant(own), interval=_interval) for system, own in rows.items()}
            for name, rows in ranks.items()
        },
        "differences": {name: _differences(rows) for name, rows in ranks.items()},
        "seed_spread": {name: _spread(rows, list(stages)) for name, rows in ranks.items()},
        "questions": _questions(corpus.held_out["daily_papers"], prepared.tokenizer, stages[first], teacher, work),
    }
    if (data / STSB).exists():
        report["stsb_test_spearman"] = _stsb(data / STSB, prepared.tokenizer, stages[first], teacher, work)
    return report


def _systems(
    stages: dict[int, dict[str, NDArray[np.float32]]], recipe: Recipe
) -> dict[str, tuple[NDArray[np.float32], int]]:
    """Static systems by name: rows as they are applied, and the width that is compared."""
    first = next(iter(stages))
    widest = max(recipe.dims)
    systems = {
        "token distillation": (stages[first]["tokens"], widest),
        "document distillation": (stages[first]["distilled"], widest),
        "contrastive, not averaged": (stages[first]["contrastive"], widest),
        "nextvec-mini float32 256": (stages[first]["final"], widest),
    }
    for seed, rows in stages.items():
        stored = _stored(rows["final"])
        if seed == first:
            systems |= {f"nextvec-mini {dim}": (stored, dim) for dim in recipe.dims}
        else:
            systems[f"seed {seed}"] = (stored, widest)
    return systems


def _stored(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows as the shipped file gives them back: through int8."""
    values, scale = quantise(rows)
    return (values.astype(np.float32) * scale[:, None]).astype(np.float32)


def _embed(rows: NDArray[np.float32], bags: Bags, dim: int) -> NDArray[np.float32]:
    return unit(TokenTable(np.ascontiguousarray(rows[:, :dim])).encode(bags))


def _set_ranks(
    pairs: Sequence[Paper],
    tokenizer: Any,
    systems: dict[str, tuple[NDArray[np.float32], int]],
    teacher: TeacherLike,
    work: Path,
) -> dict[str, NDArray[np.int64]]:
    titles, abstracts = [pair.title for pair in pairs], [pair.abstract for pair in pairs]
    targets = np.arange(len(pairs))
    taught = [unit(teacher.encode_cached(texts, work / "teacher")) for texts in (titles, abstracts)]
    ranks = {"bm25": bm25_ranks(titles, abstracts, targets), "teacher": dense_ranks(taught[0], taught[1], targets)}
    queries, documents = Bags.of(tokenizer, titles), Bags.of(tokenizer, abstracts)
    for name, (rows, dim) in systems.items():
        ranks[name] = dense_ranks(_embed(rows, queries, dim), _embed(rows, documents, dim), targets)
    return ranks


def _differences(ranks: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    """nextvec-mini (256) minus each baseline on the same queries."""
    own = single_relevant(ranks["nextvec-mini 256"])
    result = {}
    for baseline in ("bm25", "teacher", "document distillation", "nextvec-mini float32 256"):
        other = single_relevant(ranks[baseline])
        result[f"minus {baseline}"] = {
            key: paired_bootstrap(own[key], other[key], samples=_SAMPLES).as_dict()
            for key in ("recall@1", "recall@10", "mrr@10")
        }
    return result


def _spread(ranks: dict[str, NDArray[np.int64]], seeds: list[int]) -> dict[str, Any]:
    """Mean and standard deviation over training seeds, at 256 dimensions, int8."""
    names = ["nextvec-mini 256", *(f"seed {seed}" for seed in seeds[1:])]
    values = [single_relevant(ranks[name]) for name in names]
    return {
        key: {
            "mean": round(float(np.mean([v[key].mean() for v in values])), 5),
            "sd": round(float(np.std([v[key].mean() for v in values], ddof=1)), 5) if len(values) > 1 else None,
        }
        for key in ("recall@1", "recall@10", "mrr@10")
    }


def _questions(
    pairs: Sequence[Paper], tokenizer: Any, stages: dict[str, NDArray[np.float32]], teacher: TeacherLike, work: Path
) -> dict[str, Any]:
    """Questions in everyday words, written for this purpose, each with one daily paper that answers it; documents
    are title and abstract. One relevant paper is known per question: others may be as good, so this is a floor."""
    asked = list(read_records(Path(__file__).with_name("questions.jsonl"), fields=("id", "question")))
    place = {pair.id: i for i, pair in enumerate(pairs)}
    texts = [f"{pair.title}. {pair.abstract}" for pair in pairs]
    questions = [record["question"] for record in asked]
    targets = np.array([place[record["id"]] for record in asked])
    queries, documents = Bags.of(tokenizer, questions), Bags.of(tokenizer, texts)
    taught = [unit(teacher.encode_cached(part, work / "teacher")) for part in (questions, texts)]
    ranks = {"bm25": bm25_ranks(questions, texts, targets), "teacher": dense_ranks(taught[0], taught[1], targets)}
    for name, key in _STEPS:
        rows = _stored(stages[key])
        width = rows.shape[1]
        ranks[name] = dense_ranks(_embed(rows, queries, width), _embed(rows, documents, width), targets)
    return {
        "count": len(asked),
        "results": {name: summarise(single_relevant(own), interval=_interval) for name, own in ranks.items()},
    }


def _stsb(
    path: Path, tokenizer: Any, stages: dict[str, NDArray[np.float32]], teacher: TeacherLike, work: Path
) -> dict[str, float]:
    """Spearman correlation with the STS Benchmark's test scores (the data are read locally, never shipped)."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE) if len(row) >= 7]
    gold = np.array([float(row[4]) for row in rows])
    sides = [[row[column] for row in rows] for column in (5, 6)]
    taught = [unit(teacher.encode_cached(side, work / "teacher")) for side in sides]
    result = {"teacher": round(cosine_spearman(taught[0], taught[1], gold), 4)}
    bags = [Bags.of(tokenizer, side) for side in sides]
    for name, key in _STEPS:
        one, two = (_embed(stages[key], bag, stages[key].shape[1]) for bag in bags)
        result[name] = round(cosine_spearman(one, two, gold), 4)
    return result


def markdown(report: dict[str, Any]) -> str:
    """The report's main table for the model card."""
    lines = ["| set | system | recall@1 | recall@10 | MRR@10 |", "|---|---|---|---|---|"]
    for name, systems in report["results"].items():
        for system, values in systems.items():
            if not system.startswith("seed "):
                cells = [
                    f"{values[key]['mean']:.3f} [{values[key]['low']:.3f}, {values[key]['high']:.3f}]"
                    for key in ("recall@1", "recall@10", "mrr@10")
                ]
                lines.append(f"| {name} | {system} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table of a report: ``python -m nextvec.recipes.mini_report FILE``."""
    import sys

    print(markdown(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
