"""CoLaR: a chain of thought in latents, as compressed as one asks.

The steps to an answer are cut into blocks of c tokens, and each block becomes one embedding. A language model is
trained to foretell the next block's embedding, and one of its tokens; c is drawn anew for every batch and stands in the
prompt, so that one model thinks at any speed. Then, rewarded for right answers, it finds shorter chains itself.

    z_j  = (sum of the embeddings of block j) / sqrt(number of its tokens)       unrelated vectors keep their variance
    mu, log s = latent_head(h_j)                        a Gaussian of the next block's embedding, in units of the
                                                        table's standard deviation
    L    = CE(a token of block j + 1, drawn at random | h_j)  +  w * d(mu, s; sg[z_{j+1} / scale])
           and CE of separator and answer
    d    = (mu - e)^2 + s^2 (soft MSE), or the Gaussian's negative log likelihood

At inference latents are fed back, times the scale, until the model says the separator; then it writes the answer.
GRPO: ``Colar.reinforce``.

    symbol   here                                          shape
    z        merged embeddings, one per place              [N', D]
    h        out "hidden"                                  [N', D]
    e        out "target"                                  [N', D]
    mu, s    out "pred_1", "pred_1_log_scale"              [K, D], places before a block
    labels   batch "labels", see ``_colar_parts.collate``  Ragged int64 [N']

Source: "Think Silently, Think Fast: Dynamic Latent Compression of LLM Reasoning Chains", arXiv 2505.16552. Differences
and own choices: see ``Colar.card``. Legend: N tokens end to end, N' places after compression, K blocks, D width,
V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from nextvec.data.reasoning import Chain, read_chains
from nextvec.data.sources import Changed, Shuffled, Source
from nextvec.data.synthetic.arithmetic import arithmetic
from nextvec.data.tokenizers import ByteTokenizer, TextTokenizer
from nextvec.language_method import LanguageConfig, LanguageMethod
from nextvec.methods._colar_parts import Thought, collate, reinforce, think
from nextvec.objectives.base import Objective
from nextvec.objectives.masked_tokens import MaskedTokens, hidden_rows
from nextvec.objectives.next_embedding import NextEmbedding, foretelling
from nextvec.types import Batch, Card, Claim, InputError, Ragged

MERGES = ("sqrt", "mean")
DISTANCES = ("soft_mse", "gaussian", "mse")


class _LatentHead(nn.Module):
    """States [..., D] to the mean and the log of the scale of the next embedding, [..., D] each."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim), nn.LayerNorm(dim))
        self.mean, self.scale = nn.Linear(dim, dim), nn.Linear(dim, dim)
        nn.init.constant_(self.scale.bias, -1.0)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        read = self.body(states)
        return self.mean(read), self.scale(read).clamp(-6, 2)


class Colar(LanguageMethod):
    """A language model that thinks in latents. ``answer`` asks it."""

    embedding_scale: Tensor

    card = Card(
        name="colar",
        title="CoLaR: dynamic latent compression of reasoning chains",
        arxiv="2505.16552",
        year=2025,
        family="next-embedding prediction",
        claim="Accuracy falls from explicit chains over c = 2 to c = 5 and stays above no chain at all, at a chain's"
        " length divided by c; dividing sums by sqrt(c) beats the mean; reinforcement shortens chains further.",
        differs=(
            "Small models from random weights with a tokenizer of bytes; the paper tunes Llama-3.2-1B with LoRA.",
            "The soft MSE is its expectation, mean squared error plus variance, in place of one sample.",
            "The separator is a token of its own, and never part of a block.",
            "GRPO makes one update per draw, so that no ratio has to be clipped.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=1e-3", "optim.weight_decay=0.01", "batch=64")
    sample: ClassVar[str] = "chains"
    direction: ClassVar[Mapping[str, str]] = {"masked_tokens": "down", "next_embedding": "down"}

    @dataclass(kw_only=True)
    class Config(LanguageConfig):
        """most: the largest c; 1 and latent=0 train explicit chains, with which to begin. latent: weight w of the
        latents' loss; distance: "soft_mse", "gaussian" or "mse"; entropy: of soft_mse; merge: "sqrt", or "mean" (a
        control). hidden: width of the latent head (None: twice D). start_from: a run whose weights go on. The others
        are those of ``LanguageConfig``; ``length`` bounds tokens, and longer examples are refused."""

        most: int = 5
        latent: float = 1.0
        distance: str = "soft_mse"
        entropy: float = 0.0
        merge: str = "sqrt"
        hidden: int | None = None
        start_from: str = ""
        tokenizer: str = "bytes"

    def __init__(self, config: Any, *, tokenizer: ByteTokenizer | TextTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        if config.merge not in MERGES or config.distance not in DISTANCES or config.most < 1 or config.latent < 0:
            raise InputError(
                f"merge {config.merge!r}, distance {config.distance!r}, most {config.most}, latent {config.latent}; "
                f"expected one of {', '.join(MERGES)}, one of {', '.join(DISTANCES)}, at least 1, and not below 0"
            )
        dim = self.backbone.config.dim
        # The last two ids of the vocabulary: between question, steps and answer, and at the end.
        self.separator, self.end = config.vocab - 2, config.vocab - 1
        self.latent_head = _LatentHead(dim, config.hidden or 2 * dim)
        self.register_buffer("embedding_scale", torch.ones(()))
        self.measure_scale()

    @torch.no_grad()
    def measure_scale(self) -> None:
        """Take the table's standard deviation as the unit of latents."""
        self.embedding_scale.copy_(self.backbone.head_weight().std())

    def after_step(self, step: int) -> None:
        self.measure_scale()

    def merged(self, batch: Batch) -> Ragged:
        """Embeddings of places, [N', D]."""
        tokens, place, labels = (batch.ragged(name) for name in ("tokens", "place", "labels"))
        device = tokens.values.device
        before = (labels.lengths.cumsum(0) - labels.lengths).to(device)
        owner = torch.repeat_interleave(torch.arange(len(tokens), device=device), tokens.lengths.to(device))
        at = place.values + before[owner]
        count = torch.bincount(at, minlength=len(labels.values))
        rows = self.backbone.embed(tokens.values)
        total = rows.new_zeros(len(labels.values), rows.shape[1]).index_add(0, at, rows)
        divisor = count.to(rows).sqrt() if self.config.merge == "sqrt" else count.to(rows)
        return Ragged(total / divisor[:, None], labels.lengths)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``hidden``, ``logits`` (a row per label), ``target``, ``pred_1`` and its scale."""
        vectors = self.merged(batch)
        hidden = self.backbone(vectors)
        out = {"hidden": hidden, "logits": self.backbone.logits(hidden[hidden_rows(batch.ragged("labels"))])}
        if self.config.latent:
            before = foretelling(batch.ragged("labels"), batch.ragged("latent"))
            out["target"] = vectors.values / self.embedding_scale
            out["pred_1"], out["pred_1_log_scale"] = self.latent_head(hidden[before])
        return out

    def objective(self) -> Objective:
        config, spoken = self.config, MaskedTokens()
        if not config.latent:
            return spoken
        latent = NextEmbedding(distance=config.distance, sequence="labels", mask="latent", entropy=config.entropy)
        return spoken + float(config.latent) * latent

    # ------------------------------------------------------------------ asking

    def prompt(self, question: str, factor: int) -> list[int]:
        """The ids of a question and of the speed that is asked for."""
        if not 1 <= factor <= self.config.most:
            raise InputError(f"factor is {factor}; this model was trained with 1 to {self.config.most}")
        assert self.tokenizer is not None
        return self.tokenizer.encode([f"{question} (speed {factor})"], special=False)[0]

    def answer(
        self, questions: Sequence[str], *, factor: int = 2, budget: int = 64, answer: int = 16
    ) -> tuple[list[str], list[Thought]]:
        """Answers, and how each was found: means of latents, the likeliest tokens. factor: c; budget: latents at most.
        InputError for a factor beyond those of training, and for a question that leaves no room."""
        prompts = [self.prompt(question, factor) for question in questions]
        longest = max((len(prompt) for prompt in prompts), default=0)
        if not prompts or longest + budget + answer + 2 > self.config.length:
            raise InputError(
                f"{len(prompts)} questions, the longest of {longest} tokens, with {budget} latents and {answer} tokens "
                f"of answer; expected one or more, within the {self.config.length} tokens of this model"
            )
        assert self.tokenizer is not None
        thoughts = think(self, prompts, most=budget, answer=answer)
        kept = [[i for i in thought.answer if i < self.tokenizer.vocab] for thought in thoughts]
        return self.tokenizer.decode(kept), thoughts

    def reinforce(self, chains: Sequence[Chain], *, factor: int = 2, **options: Any) -> None:
        """GRPO on questions and their answers at one factor; ``options`` are those of ``_colar_parts.reinforce``:
        steps, questions, group, lr, most, answer, average, seed, on_step."""
        rows = self.rows(chains, factor)
        reinforce(self, [(prompt, answer) for prompt, _, answer in rows], **options)

    # ------------------------------------------------------------------ data

    def places(self, chain: Chain) -> int:
        """Tokens of a question with its steps and answer, as it is learned from; more than ``length`` are refused."""
        assert self.tokenizer is not None
        texts = [text for text in ("".join(chain.steps), chain.answer) if text]
        return len(self.prompt(chain.question, 1)) + sum(map(len, self.tokenizer.encode(texts, special=False))) + 3

    def rows(self, chains: Sequence[Chain], factor: int, *, steps: bool = True) -> list[tuple[list[int], ...]]:
        """Ids of prompt, steps and answer. steps=False: no chain (a control). InputError for one that is too long."""
        assert self.tokenizer is not None
        made = []
        for chain in chains:
            texts = ["".join(chain.steps) if steps else "", chain.answer]
            written = [self.tokenizer.encode([text], special=False)[0] if text else [] for text in texts]
            row = (self.prompt(chain.question, factor), *written)
            if sum(map(len, row)) + 3 > self.config.length:
                raise InputError(
                    f"{chain.question[:40]!r} has {sum(map(len, row)) + 3} tokens with its steps and answer; this "
                    f"model reads {self.config.length}: raise length"
                )
            made.append(row)
        return made

    def source(self, chains: Sequence[Chain], *, batch: int, seed: int, steps: bool = True) -> Source:
        """Shuffled batches, a factor drawn for each."""
        by_factor = {c: self.rows(chains, c, steps=steps) for c in range(1, self.config.most + 1)}

        def laid_out(drawn: Batch, rng: np.random.Generator) -> Batch:
            factor = int(rng.integers(1, self.config.most + 1))
            chosen: Any = [by_factor[factor][i] for i in drawn.tensor("row").tolist()]
            return collate(chosen, factor=factor, separator=self.separator, end=self.end, rng=rng)

        rows = Shuffled({"row": np.arange(len(chains))}, batch=min(batch, len(chains)), seed=seed)
        return Changed(rows, laid_out, seed=seed)

    @classmethod
    def start(cls, config: Any, *, seed: int) -> Self:
        """A model of bytes from random weights, or with those of the run ``config.start_from``."""
        tokenizer = ByteTokenizer()
        torch.manual_seed(seed)
        method = cls(dataclasses.replace(config, vocab=tokenizer.vocab + 2), tokenizer=tokenizer)
        if config.start_from:
            method.go_on_from(config.start_from)
            method.measure_scale()
        return method

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight questions of two operations."""
        chains = arithmetic(np.random.default_rng(seed), 8, least=2, most=2)
        method = cls.start(cls.Config(dim=32, layers=2, heads=2, length=64), seed=seed)
        rows: Any = method.rows(chains, 3)
        rng = np.random.default_rng(seed)
        return method, collate(rows, factor=3, separator=method.separator, end=method.end, rng=rng)

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: records with "question", "steps" (a list, or one text) and "answer"; see ``data/reasoning.py``."""
        if config.tokenizer != "bytes":
            raise InputError(f"tokenizer is {config.tokenizer!r}; this method reads bytes")
        method = cls.start(config, seed=seed)
        return method, method.source(read_chains(data), batch=batch, seed=seed)

    @staticmethod
    def claim(scale: str) -> Claim:
        """Chained arithmetic at several speeds."""
        from nextvec.methods import _colar_claim

        return _colar_claim.claim(scale)
