"""DSE: a slow model that reads both sentences at once teaches a fast one that reads each alone.

A cross-encoder reads a pair as one text, and is right more often than vectors are; but it reads every pair anew. Here
its logits are made once and kept; the student's sentence vectors are made once per sentence, and a small head compares
two.

    psi(x)   = mean over all tokens but the first of  [h_{L-3}, ..., h_L]                       [4 D]
    z(u, v)  = W_2 relu(W_1 [u, v, u * v, |u - v|] + b_1) + b_2       head "mlp"                 [C]
             = a cos(u, v) + b                                        head "cosine"
    loss     = (1 - alpha) * task(z, y) + alpha * mean over C of (z - z_teacher)^2

The task's loss is the cross entropy of classes, that of yes or no, or the squared error of a score.

    symbol     here                              shape
    x          batch "first", "second"           Ragged ids
    z          out "logits"                      [B, C]
    z_teacher  batch "teacher"                   float [B, C]

Source: Barkan et al. 2020, "Scalable Attentive Sentence-Pair Modeling via Distilled Sentence Embedding" (arXiv
1908.05161).
Legend: B pairs, C logits, D width, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nextvec.data.judged import JudgedPairs, read_judged
from nextvec.data.sources import Shuffled, ragged
from nextvec.data.tokenizers import TextTokenizer
from nextvec.engine.engine import Engine, TrainConfig
from nextvec.engine.optim import OptimConfig
from nextvec.files import atomic_write
from nextvec.methods._dse_parts import CrossEncoder, JudgedConfig, best_constant
from nextvec.nn.pooling.modes import pool
from nextvec.objectives.base import Objective
from nextvec.objectives.distill import DistillVectors
from nextvec.objectives.labels import KINDS, Labels
from nextvec.text_method import TextMethod, encode_all
from nextvec.types import Batch, Card, Claim, InputError, Ragged

if TYPE_CHECKING:
    from nextvec.data.sources import Source
    from nextvec.encoder import Encoder

HEADS = ("mlp", "cosine")
_FITTED = 256  # pairs


class Dse(TextMethod):
    """A sentence encoder and a head that compares two sentences."""

    card = Card(
        name="dse",
        title="DSE: Scalable Attentive Sentence-Pair Modeling via Distilled Sentence Embedding",
        arxiv="1908.05161",
        year=2020,
        family="text embeddings",
        claim="A student that follows a cross-encoder's logits is better than one that learns from the labels alone,"
        " and compares one sentence with many stored ones far faster than the cross-encoder.",
        differs=(
            "Small bases; the paper's teacher and student are BERT-large.",
            "The teacher reads the pair without token types, which our transformer has not.",
            "The teacher is trained by ``prepare`` with AdamW at a constant rate; the paper's schedule is BERT's.",
            "Two-way tasks have one logit; MNLI's three classes three, as in the paper.",
            "Heads begin at the best constant (the cosine's at least squares), and not at random.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=5e-5", "optim.weight_decay=0.01", "schedule.warmup=0.1")
    sample: ClassVar[str] = "judged"
    direction: ClassVar[Mapping[str, str]] = {"labels": "down", "distill_mse": "down"}

    @dataclass(kw_only=True)
    class Config(JudgedConfig):
        """alpha: the teacher's part of the loss (0: labels alone). head: "mlp" or "cosine" (one logit only). last: how
        many layers psi is made of, at most L. hidden: width of the head. teacher_steps, teacher_lr: of the
        cross-encoder's training by ``prepare``. The others are those of every text method (``text_method.py``)."""

        alpha: float = 0.5
        head: str = "mlp"
        last: int = 4
        hidden: int = 512
        teacher_steps: int = 300
        teacher_lr: float = 5e-5

    def __init__(self, config: Any, *, tokenizer: TextTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        shape = self.transformer.config
        if not 0 <= config.alpha <= 1 or config.kind not in KINDS[:3]:
            raise InputError(f"alpha is {config.alpha}, kind {config.kind!r}; expected 0 to 1, one of {KINDS[:3]}")
        if config.head not in HEADS or (config.head == "cosine" and config.outputs != 1):
            raise InputError(f"head is {config.head!r} with {config.outputs} logits; expected mlp, or cosine with one")
        if config.last < 1:
            raise InputError(f"last is {config.last}; expected a number of layers from 1")
        self.last = min(config.last, shape.layers)
        width = 4 * self.last * shape.dim
        if config.head == "mlp":
            self.head: nn.Module = nn.Sequential(
                nn.Linear(width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.outputs)
            )
        else:
            self.head = nn.Linear(1, 1)

    @torch.no_grad()
    def begin(self, pairs: JudgedPairs) -> None:
        """Let the head begin where the labels of ``pairs`` are: its bias at the best constant, and of the cosine both
        numbers by least squares over the first 256 pairs, as the base sees them."""
        if isinstance(self.head, nn.Sequential):
            cast(nn.Linear, self.head[-1]).bias.copy_(best_constant(pairs))
            return
        one, two = (torch.from_numpy(self.encode(texts[:_FITTED])) for texts in (pairs.first, pairs.second))
        cosines = functional.cosine_similarity(one, two, dim=1).double().numpy()
        wanted = pairs.label[:_FITTED].astype(np.float64)
        if pairs.kind == "binary":
            wanted = 4 * wanted - 2  # odds of e**2 to 1
        spread = float(cosines.std()) > 1e-6
        slope, offset = np.polyfit(cosines, wanted, 1) if spread else (1.0, wanted.mean() - cosines.mean())
        head = cast(nn.Linear, self.head)
        head.weight.fill_(float(slope))
        head.bias.fill_(float(offset))

    def vectors(self, texts: Ragged) -> Tensor:
        """psi [B, last * D]; of a text of one token, zeros."""
        lengths = texts.lengths.to(texts.values.device)
        states = self.transformer(texts, all_states=True)[-self.last :]
        return torch.cat([pool(state, lengths, skip=1) for state in states], dim=1)

    def compare(self, one: Tensor, two: Tensor) -> Tensor:
        """logits [B, C] of vectors [B, last * D]."""
        if self.config.head == "cosine":
            features = functional.cosine_similarity(one, two, dim=1)[:, None]
        else:
            features = torch.cat([one, two, one * two, (one - two).abs()], dim=1)
        logits: Tensor = self.head(features)
        return logits

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """logits [B, C], and teacher_logits where the batch has them."""
        columns = [batch.ragged(name) for name in ("first", "second")]
        joined = Ragged(torch.cat([c.values for c in columns]), torch.cat([c.lengths for c in columns]))
        out = {"logits": self.compare(*self.vectors(joined).chunk(2))}
        return out | ({"teacher_logits": batch.tensor("teacher")} if "teacher" in batch else {})

    def objective(self) -> Objective:
        alpha = self.config.alpha
        task, taught = Labels(self.config.kind), DistillVectors(student="logits", teacher="teacher_logits")
        both: Objective = task if not alpha else taught if alpha == 1 else (1 - alpha) * task + alpha * taught
        return both

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """psi of texts, float32 [n, last * D]: made once, to be compared often."""
        ids = self.text_tokenizer().encode(texts, max_length=self.config.max_length)
        return encode_all(self.vectors, ids, str(next(self.parameters()).device))

    def score(self, one: NDArray[np.float32], two: NDArray[np.float32]) -> NDArray[np.float32]:
        """logits [n, C] of vectors that ``encode`` made; one of the two may be a single row [1, last * D]."""
        device = next(self.parameters()).device
        rows = [torch.from_numpy(np.ascontiguousarray(side)).to(device) for side in (one, two)]
        count = max(map(len, rows))
        with torch.inference_mode():
            found: NDArray[np.float32] = self.compare(*(side.expand(count, -1) for side in rows)).float().cpu().numpy()
        return found

    def encoder(self) -> Encoder | None:  # type: ignore[override]
        """None: no model folder's layout holds an encoder that joins the means of several layers. Use ``load_method``,
        ``encode`` and ``score``."""
        return None

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: records with "first" and "second" and a "label" or a "score"; see ``data/judged.py``. The cross-encoder
        is trained first, and its logits are kept in ``folder`` as teacher.npy: a resumed run finds them there."""
        pairs = read_judged(data)
        config = replace(config, seed=seed, kind=pairs.kind, outputs=pairs.outputs)
        taught = None
        if config.alpha:
            path = folder / "teacher.npy"
            if not path.exists():
                teacher = cls.teacher(pairs, config, batch=batch)
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(path) as stream:
                    np.save(stream, teacher.logits(pairs))
            taught = np.load(path, allow_pickle=False)
            if taught.shape != (len(pairs), pairs.outputs):
                raise InputError(f"{str(path)!r} has logits {list(taught.shape)} for {len(pairs)} pairs: remove it")
        method = cls.start(config, [*pairs.first, *pairs.second])
        method.begin(pairs)
        return method, method.judged(pairs, taught, batch=batch, seed=seed)

    @classmethod
    def teacher(cls, pairs: JudgedPairs, config: Any, *, batch: int) -> CrossEncoder:
        """A cross-encoder of the same base, trained on ``pairs``."""
        names = ("base", "depth", "vocab", "dropout", "seed", "kind", "outputs")
        settings = JudgedConfig(max_length=2 * config.max_length, **{name: getattr(config, name) for name in names})
        teacher = CrossEncoder.start(settings, [*pairs.first, *pairs.second])
        with torch.no_grad():
            teacher.head.bias.copy_(best_constant(pairs))
        columns = {"text": ragged(teacher.joined(pairs)), "label": pairs.label}
        optim = OptimConfig(lr=config.teacher_lr, weight_decay=0.01)
        plan = TrainConfig(steps=config.teacher_steps, batch=min(batch, len(pairs)), optim=optim, seed=config.seed)
        Engine(teacher, plan).fit(Shuffled(columns, batch=plan.batch, seed=config.seed))
        return teacher.eval()

    def judged(self, pairs: JudgedPairs, taught: NDArray[np.float32] | None, *, batch: int, seed: int) -> Source:
        """Shuffled batches of ``pairs`` with their labels and the teacher's logits."""
        tokenizer, length = self.text_tokenizer(), self.config.max_length
        columns: dict[str, Any] = {
            "first": ragged(tokenizer.encode(pairs.first, max_length=length)),
            "second": ragged(tokenizer.encode(pairs.second, max_length=length)),
            "label": pairs.label,
        }
        if taught is not None:
            columns["teacher"] = taught
        return Shuffled(columns, batch=min(batch, len(pairs)), seed=seed)

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight pairs of short texts, half of which say the same, and a model of three layers."""
        words = ("red", "small", "fast", "old", "deep", "warm", "loud", "round")
        pairs = JudgedPairs(
            [f"a {word} thing" for word in words],
            [f"it is {words[i if i % 2 else (i + 2) % 8]}" for i in range(8)],
            np.arange(8) % 2,
            "binary",
        )
        method = cls.start(
            cls.Config(depth=2, vocab=300, max_length=16, hidden=32, seed=seed), [*pairs.first, *pairs.second]
        )
        taught = (4.0 * pairs.label - 2.0)[:, None].astype(np.float32)
        return method, method.judged(pairs, taught, batch=8, seed=seed).batch(0)

    @staticmethod
    def claim(scale: str) -> Claim:
        """A cross-encoder and five students."""
        from nextvec.methods._dse_claim import claim

        return claim(scale)
