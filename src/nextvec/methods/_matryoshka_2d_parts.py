"""The claim of the file ``matryoshka_2d``: its data and its grid of measures.

Legend: n texts, L layers, D width, d a nested width.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextvec.data.bundled import daily_papers
from nextvec.data.catalog import locate
from nextvec.data.readers import read_records
from nextvec.data.sources import ragged
from nextvec.data.sts import sts_benchmark
from nextvec.data.tokenizers import TextTokenizer
from nextvec.engine.engine import TrainConfig
from nextvec.engine.optim import OptimConfig
from nextvec.engine.schedule import ScheduleConfig
from nextvec.evaluate.retrieval import dense_ranks, single_relevant
from nextvec.evaluate.sts import cosine_spearman
from nextvec.files import atomic_write
from nextvec.types import Check, Ragged

Texts = Mapping[str, Any]
"""train: pairs of texts; sts: first, second, score; papers: title, abstract."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """One scale of the claim. papers: where titles and abstracts come from, "daily" (bundled) or "arxiv"; document:
    what a title is trained to find, its abstract's first "sentence" or the "abstract"; held: papers held out for
    retrieval; sts: "benchmark" (STS-B test) or "overlap" (a stand-in without data); small: layers that count as few."""

    base: str
    layers: int
    small: int
    dims: tuple[int, ...]
    steps: int
    batch: int
    lr: float
    train_length: int
    eval_length: int
    papers: str = "daily"
    document: str = "sentence"
    held: int = 400
    sts: str = "benchmark"
    device: str = "cpu"


_CPU = Size(
    base="all-MiniLM-L6-v2",
    layers=6,
    small=3,
    dims=(32, 64, 128, 256, 384),
    steps=100,
    batch=32,
    lr=1e-4,
    train_length=32,
    eval_length=64,
)
SIZES = {
    "smoke": Size(
        base="tiny",
        layers=2,
        small=1,
        dims=(32, 128),
        steps=3,
        batch=8,
        lr=1e-3,
        train_length=24,
        eval_length=24,
        held=16,
        sts="overlap",
    ),
    "cpu": _CPU,
    "gpu": replace(
        _CPU,
        steps=2000,
        batch=128,
        train_length=128,
        eval_length=256,
        papers="arxiv",
        document="abstract",
        held=2000,
        device="auto",
    ),
}

PAPER = {"plain.sts_full": 81.0, "2dmse.sts_full": 79.6, "plain.sts_small": 58.9, "2dmse.sts_small": 70.3}
PAPER_IS = (
    "not the papers' own figures (not at hand) but a replication with BERT-base on AllNLI by Zhuang et al. (README of "
    "ielab/Starbucks, arXiv 2410.13230): Spearman, mean of seven STS sets; small is the mean of (2 layers, 32 values), "
    "(4, 64) and (6, 128) of 12 layers and 768 values"
)


def described(size: Size) -> dict[str, Any]:
    """The settings to keep with a result."""
    return {**asdict(size), "paper": PAPER_IS}


def checks(arm: str) -> tuple[Check, ...]:
    """What must hold of a nested arm. Measures are in points: Spearman's correlation and nDCG@10 times 100."""
    rows = (
        ("is far better than plain training at few layers (STS)", "sts_small", "plain", 5.0),
        ("is far better than plain training at few layers (retrieval)", "ndcg_small", "plain", 5.0),
        ("is better than nested widths alone at few layers (STS)", "sts_small", "mrl", 0.0),
        ("loses less than 1.5 points to plain training at full size (STS)", "sts_full", "plain", -1.5),
        ("loses less than 1.5 points to plain training at full size (retrieval)", "ndcg_full", "plain", -1.5),
    )
    return tuple(
        Check(says=f"{arm} {says}", better=f"{arm}.{measure}", worse=f"{other}.{measure}", margin=margin)
        for says, measure, other, margin in rows
    )


def train_config(size: Size, seed: int) -> TrainConfig:
    """The engine's settings of one arm."""
    return TrainConfig(
        steps=size.steps,
        batch=size.batch,
        optim=OptimConfig(lr=size.lr, weight_decay=0.01),
        schedule=ScheduleConfig(name="cosine", warmup=0.1),
        seed=seed,
        save_every=max(size.steps // 4, 1),
        keep=1,
    )


def write_texts(shared: Path, *, size: Size) -> None:
    """Make texts.json: training pairs, held-out papers (a fixed choice, never trained on), scored sentences."""
    papers = [(title, abstract) for title, abstract in _papers(size.papers) if len(abstract) >= 100]
    order = np.random.default_rng(2402).permutation(len(papers))
    held = [papers[i] for i in order[: size.held]]
    train = [papers[i] for i in order[size.held :]]
    if size.document == "sentence":
        train = [(title, re.split(r"(?<=[.!?])\s", abstract, maxsplit=1)[0]) for title, abstract in train]
    if size.sts == "benchmark":
        scored = sts_benchmark("test")
        sts = [list(row) for row in zip(scored.first, scored.second, scored.scores.tolist(), strict=True)]
    else:
        titles = [title for title, _ in train[: 2 * size.held]]
        sts = [[one, two, _overlap(one, two)] for one, two in zip(titles[::2], titles[1::2], strict=True)]
        train = train[:200]
    with atomic_write(shared / "texts.json", "w") as stream:
        json.dump({"train": train, "papers": held, "sts": sts}, stream, ensure_ascii=False)


def read_texts(shared: Path) -> Texts:
    """What ``write_texts`` made."""
    texts: Texts = json.loads((shared / "texts.json").read_text(encoding="utf-8"))
    return texts


def _papers(source: str) -> Iterator[tuple[str, str]]:
    """Titles and abstracts with whitespace runs collapsed."""
    records: Iterator[Mapping[str, Any]]
    if source == "daily":
        records = iter(daily_papers(columns=["title", "summary"]).to_pylist())
    else:
        (path,) = locate("arxiv_daily").glob("*.jsonl.xz")
        records = read_records(path, fields=("title", "summary"))
    for record in records:
        yield " ".join(record["title"].split()), " ".join(record["summary"].split())


def _overlap(one: str, two: str) -> float:
    first, second = set(one.lower().split()), set(two.lower().split())
    return len(first & second) / len(first | second) + abs(len(one) - len(two)) / 1000


def grid(states: Callable[[Ragged], Tensor], tokenizer: TextTokenizer, texts: Texts, size: Size) -> dict[str, float]:
    """All measures, in points, from one pass over the texts: ``sts_lN@d`` and ``ndcg_lN@d`` for every number of layers
    and width, their means over few layers (``_small``) and the whole model's (``_full``)."""
    device = "cuda" if size.device == "auto" and torch.cuda.is_available() else "cpu"

    def encode(column: Sequence[str]) -> NDArray[np.float32]:
        return _all_layers(states, tokenizer.encode(column, max_length=size.eval_length), device)

    first, second, scores = zip(*texts["sts"], strict=True)
    titles, abstracts = zip(*texts["papers"], strict=True)
    one, two, queries, documents = (encode(column) for column in (first, second, titles, abstracts))
    measures: dict[str, float] = {}
    for n in range(1, size.layers + 1):
        for d in size.dims:
            own, other = (_unit(x[:, n - 1, :d]) for x in (queries, documents))
            ranks = dense_ranks(own, other, np.arange(len(own)))
            measures[f"sts_l{n}@{d}"] = 100 * cosine_spearman(one[:, n - 1, :d], two[:, n - 1, :d], scores)
            measures[f"ndcg_l{n}@{d}"] = 100 * float(single_relevant(ranks)["ndcg@10"].mean())
    for task in ("sts", "ndcg"):
        few = [measures[f"{task}_l{n}@{d}"] for n in range(1, size.small + 1) for d in size.dims]
        measures[f"{task}_small"] = float(np.mean(few))
        measures[f"{task}_full"] = measures[f"{task}_l{size.layers}@{max(size.dims)}"]
    return measures


@torch.inference_mode()
def _all_layers(states: Callable[[Ragged], Tensor], ids: Sequence[Sequence[int]], device: str) -> NDArray[np.float32]:
    """float32 [n, L, D] of token ids, texts of similar lengths together."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    parts = [order[start : start + 64] for start in range(0, len(order), 64)]
    rows = torch.cat([states(ragged([ids[i] for i in part]).to(device)).float().cpu() for part in parts])
    found = torch.empty_like(rows)
    found[torch.tensor(order)] = rows
    return found.numpy()


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = vectors / np.maximum(norms, np.float32(1e-12))
    return scaled
