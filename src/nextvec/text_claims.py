"""What the claims of the text-embedding methods have in common: texts at hand, a training, and two measures.

Titles are to find their papers (nDCG@10 among those held out), and sentences to be as alike as people said (Spearman on
STS-B). Both are in points: times 100.

Legend: n texts, L layers, D width.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextvec.arms import arm_config, fit_arm
from nextvec.data.bundled import daily_papers
from nextvec.data.catalog import locate
from nextvec.data.pairs import Pairs
from nextvec.data.readers import read_records
from nextvec.data.sources import Source
from nextvec.data.sts import sts_benchmark
from nextvec.data.tokenizers import TextTokenizer
from nextvec.engine.method import Method
from nextvec.evaluate.retrieval import dense_ranks, single_relevant
from nextvec.evaluate.sts import cosine_spearman
from nextvec.files import atomic_write
from nextvec.text_method import encode_all, minilm
from nextvec.types import InputError, Ragged, Run

S = TypeVar("S")
Texts = Mapping[str, Any]
"""train: pairs of texts; sts: first, second, score; papers: title, abstract."""


@dataclass(frozen=True, kw_only=True)
class TextScale:
    """One scale of a claim. base: "tiny" or "all-MiniLM-L6-v2". papers: where titles and abstracts
    come from, "daily" (bundled) or "arxiv"; document: what a title is trained to find, its abstract's first "sentence"
    or the "abstract"; held: papers held out for retrieval; sts: "benchmark" (STS-B test) or "overlap" (a stand-in
    without data).
    train_length, eval_length: tokens kept per text. The defaults are those of smoke scale."""

    base: str = "tiny"
    steps: int = 3
    batch: int = 8
    lr: float = 1e-3
    train_length: int = 24
    eval_length: int = 24
    papers: str = "daily"
    document: str = "sentence"
    held: int = 16
    sts: str = "overlap"
    device: str = "cpu"

    def folder(self) -> str:
        """The base as ``TextMethod.start`` takes it. NotFoundError where its package is not installed."""
        return self.base if self.base == "tiny" else minilm()


def scale_named(scales: Mapping[str, S], name: str) -> S:
    """The scale ``name`` of a claim. InputError where it has none of that name."""
    if name not in scales:
        raise InputError(f"scale is {name!r}; expected one of {', '.join(scales)}")
    return scales[name]


def train(
    method: Method,
    source: Source,
    scale: TextScale,
    run: Run,
    *,
    name: str = "training",
    done: int = 0,
    total: int = 0,
    after: Callable[[int], None] | None = None,
) -> None:
    """``scale.steps`` steps of ``method`` (see ``arms.fit_arm``)."""
    config = arm_config(steps=scale.steps, batch=scale.batch, lr=scale.lr, seed=run.seed, weight_decay=0.01)
    fit_arm(method, source, config, run, device=scale.device, name=name, done=done, total=total, after=after)


def write_texts(shared: Path, *, scale: TextScale) -> None:
    """Make texts.json: training pairs, held-out papers (a fixed choice, never trained on), scored sentences."""
    papers = [(title, abstract) for title, abstract in _papers(scale.papers) if len(abstract) >= 100]
    order = np.random.default_rng(2402).permutation(len(papers))
    held = [papers[i] for i in order[: scale.held]]
    pairs = [papers[i] for i in order[scale.held :]]
    if scale.document == "sentence":
        pairs = [(title, re.split(r"(?<=[.!?])\s", abstract, maxsplit=1)[0]) for title, abstract in pairs]
    if scale.sts == "benchmark":
        scored = sts_benchmark("test")
        sts = [list(row) for row in zip(scored.first, scored.second, scored.scores.tolist(), strict=True)]
    else:
        titles = [title for title, _ in pairs[: 2 * scale.held]]
        sts = [[one, two, _overlap(one, two)] for one, two in zip(titles[::2], titles[1::2], strict=True)]
        pairs = pairs[:200]
    with atomic_write(shared / "texts.json", "w") as stream:
        json.dump({"train": pairs, "papers": held, "sts": sts}, stream, ensure_ascii=False)


def read_texts(shared: Path) -> Texts:
    """What ``write_texts`` made."""
    texts: Texts = json.loads((shared / "texts.json").read_text(encoding="utf-8"))
    return texts


def training_pairs(texts: Texts) -> Pairs:
    """Titles and what each is trained to find."""
    queries, documents = zip(*texts["train"], strict=True)
    return Pairs(list(queries), list(documents))


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


class Measured:
    """The texts to measure on, encoded once by ``encode`` (token ids end to end to [n, ...] of a batch), and cut as
    often as one likes."""

    def __init__(
        self, encode: Callable[[Ragged], Tensor], tokenizer: TextTokenizer, texts: Texts, scale: TextScale
    ) -> None:
        first, second, self.scores = zip(*texts["sts"], strict=True)
        titles, abstracts = zip(*texts["papers"], strict=True)
        device = "cuda" if scale.device == "auto" and torch.cuda.is_available() else "cpu"
        ids = [tokenizer.encode(column, max_length=scale.eval_length) for column in (first, second, titles, abstracts)]
        self._made = [encode_all(encode, column, device) for column in ids]

    @classmethod
    def beside(cls, several: Sequence[Measured]) -> Measured:
        """The vectors of several models side by side, each of length 1: the ensemble of their cosines."""
        made = cls.__new__(cls)
        made.scores = several[0].scores
        made._made = [
            np.concatenate([unit(one) for one in sides], axis=1)
            for sides in zip(*(measured._made for measured in several), strict=True)
        ]
        return made

    def points(self, cut: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None) -> dict[str, float]:
        """``sts`` and ``ndcg``, of vectors [n, D] that ``cut`` makes of what ``encode`` gave."""
        one, two, titles, abstracts = (cut(made) if cut else made for made in self._made)
        ranks = dense_ranks(unit(titles), unit(abstracts), np.arange(len(titles)))
        return {
            "sts": 100 * cosine_spearman(one, two, self.scores),
            "ndcg": 100 * float(single_relevant(ranks)["ndcg@10"].mean()),
        }


def unit(vectors: NDArray[Any]) -> NDArray[Any]:
    """Rows scaled to length 1 (zero rows stay zero), in their own precision."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[Any] = vectors / np.maximum(norms, np.float32(1e-12))
    return scaled
