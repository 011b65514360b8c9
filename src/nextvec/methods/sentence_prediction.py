"""Let's predict sentence by sentence: a language model that thinks in sentence embeddings.

An autoencoder turns sentences into vectors that can be decoded again. A reasoner, which has read the question,
foretells the vector of the next sentence, and the next; the frozen decoder says what it means.

    h_i  = last state of A(given)                          A: the autoencoder, a causal transformer
           given: s_i ("semantic"), or the question and s_1 .. s_{i-1}: what comes next ("context"), also with InfoNCE
           to the semantic vector of s_i ("contrast")
    restoration:  L = CE( s_i | A reads h_i as its first input )
    reasoning:    g_i = leave( T(question, enter(h_1), ..., enter(h_{i-1})) )       T: the reasoner
                  L = CE( s_i | frozen A reads g_i )  +  w * InfoNCE(g_i, h_i)  +  BCE(stop_i, "s_i is the answer")

Three runs, one after the other: ``stage`` "tokens" (T as a plain language model of questions and chains, also the
baseline), "embed", "latent". At inference g is fed back as it is (continuous), or decoded and read again.

    symbol   here                                     shape
    h        batch "states"                           Ragged [R_all, D], made before training
    g        out "pred_0"                             [R_all, D]
    CE       out "logits", batch "said"               [M, V], Ragged ids of sentences, each with its end
    stop     out "stop"                               [R_all]

Source: "Let's Predict Sentence by Sentence", arXiv 2505.22202. Differences and own choices: see
``SentencePrediction.card``. Legend: B questions, R sentences of a chain (R_all of all), M tokens, D width,
V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nextvec.data.reasoning import Chain, read_chains
from nextvec.data.sources import Shuffled, Source, ragged
from nextvec.data.synthetic.arithmetic import arithmetic
from nextvec.data.tokenizers import ByteTokenizer
from nextvec.engine.method import Method
from nextvec.language_method import LanguageConfig
from nextvec.methods._sentence_parts import Solution, check_lengths, sentences_of, solve
from nextvec.nn.backbones.transformer import Transformer
from nextvec.objectives.base import Columns, Objective, Outputs, Scope
from nextvec.objectives.info_nce import InfoNCE
from nextvec.objectives.masked_tokens import MaskedTokens
from nextvec.objectives.next_embedding import NextEmbedding
from nextvec.objectives.next_token import NextToken, predicted, text_of
from nextvec.types import Batch, Card, Claim, Column, InputError, Ragged, Term

STAGES = ("tokens", "embed", "latent")
KINDS = ("semantic", "context", "contrast")


class Stops(Objective):
    """Whether a sentence is the last: binary cross entropy of the logits ``stop`` [R_all], one per row of the column
    ``states``. Logs ``stop_right``, the share that is decided rightly."""

    scope: Scope = "example"
    reads = ("stop",)
    columns = ("states",)

    def forward(self, out: Outputs, batch: Columns) -> Term:
        lengths = cast(Ragged, batch["states"]).lengths
        logits = out["stop"]
        wanted = torch.zeros_like(logits)
        wanted[(lengths.cumsum(0) - 1).to(logits.device)] = 1
        loss = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        right = float(((logits.detach() > 0) == (wanted > 0)).float().mean())
        return Term(loss, float(len(logits)), {"stop_right": right})

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        logits = torch.randn(rows * 3, generator=random, dtype=torch.float64).requires_grad_()
        return cls(), {"stop": logits}, {"states": Ragged(torch.zeros(rows * 3, 2), torch.full((rows,), 3))}


class SentencePrediction(Method):
    """An autoencoder of sentences, a reasoner among its vectors, and a head that says when to stop."""

    card = Card(
        name="sentence_prediction",
        title="Let's predict sentence by sentence: latent reasoning over sentence embeddings",
        arxiv="2505.22202",
        year=2025,
        family="next-embedding prediction",
        claim="With contextual embeddings a language model reasons in sentence space about as well as in tokens, at"
        " about half the operations; semantic embeddings are worse; intermediate states decode to sentences.",
        differs=(
            "Small models from random weights that read bytes; the paper's are GPT-2 and larger.",
            "InfoNCE of the reasoner is among the sentences of its own chain, with weight 0.5 and temperature 0.1; the"
            " paper's weight and temperature are not known to us.",
            "The answer is the last sentence of the chain, 'answer ...'.",
            "The stopping head, an MLP of 192 and 48 values, reads the reasoner's state and is trained along with it.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=1e-3", "optim.weight_decay=0.01", "batch=64")
    sample: ClassVar[str] = "chains"
    begins: ClassVar[tuple[str, ...]] = ("stage=tokens",)
    direction: ClassVar[Mapping[str, str]] = {"masked_tokens": "down"}

    @dataclass(kw_only=True)
    class Config(LanguageConfig):
        """stage: "tokens", "embed" or "latent"; kind: "semantic", "context" or "contrast"; start_from: the run of the
        stage before. contrast: weight of InfoNCE; chains=False: no chains in "tokens" (a control). The others are those
        of ``LanguageConfig``; ``length`` bounds the tokens of a question with its chain."""

        stage: str = "latent"
        kind: str = "contrast"
        start_from: str = ""
        contrast: float = 0.5
        chains: bool = True
        tokenizer: str = "bytes"

    def __init__(self, config: Any, *, tokenizer: ByteTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer or ByteTokenizer())
        if config.stage not in STAGES or config.kind not in KINDS or config.contrast < 0:
            raise InputError(
                f"stage {config.stage!r}, kind {config.kind!r}, contrast {config.contrast}; expected one of "
                f"{', '.join(STAGES)}, one of {', '.join(KINDS)}, and not below 0"
            )
        # The last two ids of the vocabulary: the end of a sentence, which the encoder reads last; and what ends the
        # answer of a chain in tokens, so that a plain language model knows when to stop.
        self.end, self.close = config.vocab - 2, config.vocab - 1
        self.autoencoder, self.reasoner = Transformer(config.model()), Transformer(config.model())
        dim = self.reasoner.config.dim
        self.enter, self.leave = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.stop = nn.Sequential(nn.Linear(dim, 192), nn.GELU(), nn.Linear(192, 48), nn.GELU(), nn.Linear(48, 1))
        self.autoencoder.requires_grad_(config.stage == "embed")
        for module in (self.reasoner, self.enter, self.leave, self.stop):
            module.requires_grad_(config.stage == "latent" or (config.stage == "tokens" and module is self.reasoner))

    # ------------------------------------------------------------------ texts and vectors

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts, each with its end."""
        assert self.tokenizer is not None
        return [[*ids, self.end] for ids in self.tokenizer.encode(list(texts), special=False)]

    def texts(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The texts of ids."""
        assert self.tokenizer is not None
        return self.tokenizer.decode([[i for i in one if i < self.tokenizer.vocab] for one in ids])

    def encode(self, given: Ragged) -> Tensor:
        """Embeddings [B, D] of what the encoder is given, ids laid end to end."""
        hidden: Tensor = self.autoencoder(given)
        return hidden[given.lengths.cumsum(0).to(hidden.device) - 1]

    def given(self, texts: Sequence[Sequence[str]]) -> list[list[int]]:
        """What the encoder reads for the last sentence of each of texts [B], a question with sentences: ids. The
        semantic kind reads that one alone, contextual ones read all of it but that one."""
        if self.config.kind == "semantic":
            return self.ids([own[-1] for own in texts])
        return [_flat(self.ids(own[:-1])) for own in texts]

    @torch.no_grad()
    def embed(self, texts: Sequence[Sequence[str]]) -> Tensor:
        """Embeddings [B, D] of the last sentences of texts [B] (see ``given``)."""
        device = next(self.parameters()).device
        rows = self.given(texts)
        parts = [rows[i : i + 256] for i in range(0, len(rows), 256)]
        return torch.cat([self.encode(ragged(part).to(device)) for part in parts])

    def restored(self, vectors: Tensor, said: Ragged) -> Tensor:
        """Logits [M, V] of sentences' tokens after their embeddings [R_all, D]; the tokens are told one by one."""
        told = self.autoencoder.embed(said.values)
        first = (said.lengths.cumsum(0) - said.lengths).to(told.device)
        shifted = torch.cat([told[:1], told[:-1]]).index_copy(0, first, vectors.to(told.dtype))
        return self.autoencoder.logits(self.autoencoder(Ragged(shifted, said.lengths)))

    # ------------------------------------------------------------------ training

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """By stage: ``logits``; ``logits``, ``context``, ``alone`` [B, D]; ``logits``, ``pred_0``, ``target``,
        ``stop``."""
        if self.config.stage == "tokens":
            text, prompt = text_of(batch)
            return {"logits": self.reasoner.logits(self.reasoner(text)[predicted(text, prompt)])}
        if self.config.stage == "embed":
            vectors = self.encode(batch.ragged("given"))
            out = {"context": vectors, "logits": self.restored(vectors, batch.ragged("said"))}
            return out | ({"alone": self.encode(batch.ragged("alone"))} if self.config.kind == "contrast" else {})
        states = self._thought(batch)
        predictions = self.leave(states)
        lengths = batch.ragged("sizes").values.cpu()
        said = Ragged(batch.ragged("said").values, lengths)
        return {
            "logits": self.restored(predictions, said),
            "pred_0": predictions,
            "target": batch.ragged("states").values,
            "stop": self.stop(states).squeeze(1),
        }

    def _thought(self, batch: Batch) -> Tensor:
        """The reasoner's states before each sentence, [R_all, D]."""
        question, known = batch.ragged("question"), batch.ragged("states")
        words = torch.split(self.reasoner.embed(question.values), question.lengths.tolist())
        fed = torch.split(self.enter(known.values.to(words[0].dtype)), known.lengths.tolist())
        rows = [torch.cat([one, other[:-1]]) for one, other in zip(words, fed, strict=True)]
        lengths = torch.tensor([len(row) for row in rows])
        hidden = self.reasoner(Ragged(torch.cat(rows), lengths))
        kept = [
            part[-count:]
            for part, count in zip(torch.split(hidden, lengths.tolist()), known.lengths.tolist(), strict=True)
        ]
        return torch.cat(kept)

    def objective(self) -> Objective:
        config = self.config
        if config.stage == "tokens":
            return NextToken(name="masked_tokens")
        restored = MaskedTokens(labels="said")
        if config.stage == "embed":
            named = InfoNCE(query="context", document="alone", temperature=0.1)
            return restored + float(config.contrast) * named if config.kind == "contrast" else restored
        near = NextEmbedding(distance="contrastive", ahead=(0,), sequence="states")
        return restored + float(config.contrast) * near + 0.1 * Stops() if config.contrast else restored + 0.1 * Stops()

    def encoder(self) -> None:
        """No encoder of texts at large: these vectors are of the steps of a chain (``embed``)."""

    def solve(
        self, questions: Sequence[str], *, continuous: bool = True, budget: int = 16, most: int = 48
    ) -> list[Solution]:
        """Solutions of questions (see ``_sentence_parts.solve``). budget: sentences; most: tokens of one. InputError
        for an empty question, or one that leaves no room."""
        longest = max((len(ids) for ids in self.ids(questions)), default=0)
        if not questions or not all(text.strip() for text in questions) or longest + budget > self.config.length:
            raise InputError(
                f"{len(questions)} questions, the longest of {longest} tokens, and a budget of {budget} sentences; "
                f"expected one or more, none empty, within {self.config.length} places"
            )
        return solve(self, questions, continuous=continuous, budget=budget, most=most)

    # ------------------------------------------------------------------ data

    def columns(self, chains: Sequence[Chain]) -> dict[str, Any]:
        """What the stage learns from, by column. InputError for an empty sentence and for a chain that is too long."""
        said = [sentences_of(chain) for chain in chains]
        check_lengths(said)
        questions = self.ids([chain.question for chain in chains])
        sentences = [self.ids(texts) for texts in said]
        for chain, question, own in zip(chains, questions, sentences, strict=True):
            total = len(question) + sum(map(len, own))
            if total > self.config.length:
                raise InputError(
                    f"{chain.question[:40]!r} has {total} tokens with its chain; this model reads "
                    f"{self.config.length}: raise length"
                )
        if self.config.stage == "tokens":
            kept = [own if self.config.chains else own[-1:] for own in sentences]
            texts = [[*question, *_flat(own)[:-1], self.close] for question, own in zip(questions, kept, strict=True)]
            return {"text": texts, "prompt": np.array([len(question) for question in questions])}
        if self.config.stage == "embed":
            rows = [
                (question, own, i) for question, own in zip(questions, sentences, strict=True) for i in range(len(own))
            ]
            before = [[*question, *_flat(own[:i])] for question, own, i in rows]
            alone = [own[i] for _, own, i in rows]
            semantic = self.config.kind == "semantic"
            columns: dict[str, Any] = {"given": alone if semantic else before, "said": alone}
            return columns | ({"alone": alone} if self.config.kind == "contrast" else {})
        given = [
            [chain.question, *texts[: i + 1]]
            for chain, texts in zip(chains, said, strict=True)
            for i in range(len(texts))
        ]
        states = self.embed(given).float().cpu()
        return {
            "question": questions,
            "said": [_flat(own) for own in sentences],
            "sizes": [[len(one) for one in own] for own in sentences],
            "states": Ragged(states, torch.tensor([len(own) for own in sentences])),
        }

    def source(self, chains: Sequence[Chain], *, batch: int, seed: int) -> Source:
        """Shuffled batches of what the stage learns from."""
        columns = self.columns(chains)
        return Shuffled(columns, batch=min(batch, len(next(iter(columns.values())))), seed=seed)

    @classmethod
    def start(cls, config: Any, *, seed: int) -> Self:
        """A model of bytes from random weights, or with those of the run ``config.start_from``."""
        torch.manual_seed(seed)
        method = cls(dataclasses.replace(config, vocab=ByteTokenizer.vocab + 2))
        if config.start_from:
            method.go_on_from(config.start_from)
            if config.stage == "embed":  # both begin with what the plain language model has learned
                method.autoencoder.load_state_dict(method.reasoner.state_dict())
        return method

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """The sentences of four questions, for the autoencoder: a frozen one of random weights could say nothing."""
        chains = arithmetic(np.random.default_rng(seed), 4, least=1, most=2)
        method = cls.start(cls.Config(stage="embed", dim=32, layers=2, heads=2, length=64), seed=seed)
        return method, method.source(chains, batch=16, seed=seed).batch(0)

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: records with "question", "steps" (a list of sentences) and "answer"; see ``data/reasoning.py``."""
        if config.stage != "tokens" and not config.start_from:
            before = STAGES[STAGES.index(config.stage) - 1]
            raise InputError(f"stage {config.stage!r} goes on from a run of {before!r}: --set start_from=runs/...")
        method = cls.start(config, seed=seed)
        return method, method.source(read_chains(data), batch=batch, seed=seed)

    @staticmethod
    def claim(scale: str) -> Claim:
        """Chained arithmetic, in tokens and in sentence embeddings of three kinds."""
        from nextvec.methods import _sentence_claim

        return _sentence_claim.claim(scale)


def _flat(lists: Sequence[Sequence[int]]) -> list[int]:
    return [i for one in lists for i in one]
