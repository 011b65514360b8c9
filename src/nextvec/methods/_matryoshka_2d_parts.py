"""The claim of the file ``matryoshka_2d``: its scales, its checks and its grid of measures.

Legend: L layers, D width, d a nested width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nextvec.data.tokenizers import TextTokenizer
from nextvec.text_claims import Measured, Texts, TextScale
from nextvec.types import Check, Ragged


@dataclass(frozen=True, kw_only=True)
class Size(TextScale):
    """One scale of the claim. layers: of the base; small: of them, those that count as few; dims: widths to cut to."""

    layers: int = 2
    small: int = 1
    dims: tuple[int, ...] = (32, 128)


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
    held=400,
    sts="benchmark",
)
SIZES = {
    "smoke": Size(),
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


def grid(states: Callable[[Ragged], Tensor], tokenizer: TextTokenizer, texts: Texts, size: Size) -> dict[str, float]:
    """All measures, in points, from one pass over the texts: ``sts_lN@d`` and ``ndcg_lN@d`` for every number of layers
    and width, their means over few layers (``_small``) and the whole model's (``_full``)."""
    measured = Measured(states, tokenizer, texts, size)
    measures: dict[str, float] = {}
    for n in range(1, size.layers + 1):
        for d in size.dims:
            points = measured.points(partial(_cut, layer=n, dim=d))
            measures |= {f"{task}_l{n}@{d}": value for task, value in points.items()}
    for task in ("sts", "ndcg"):
        few = [measures[f"{task}_l{n}@{d}"] for n in range(1, size.small + 1) for d in size.dims]
        measures[f"{task}_small"] = float(np.mean(few))
        measures[f"{task}_full"] = measures[f"{task}_l{size.layers}@{max(size.dims)}"]
    return measures


def _cut(rows: NDArray[np.float32], *, layer: int, dim: int) -> NDArray[np.float32]:
    return rows[:, layer - 1, :dim]
