"""Bigram subnetworks: the few weights of a language model with which it predicts as a table of neighbours would.

The model is frozen; every weight of its attention and feed-forward layers gets a mask, which is trained so that the
masked model gives the next token the probability that a bigram table gives it, with as few weights as possible:

    w'  = w * sigmoid(beta * m)                 m: trained, from 0; beta: grows with every step
    L   = mean over t of CE( P_bigram(. | x_t), model_{w'}(x_<=t) ) + penalty * mean(sigmoid(beta * m))
    kept afterwards: the weights with m > 0; tables, norms, biases and the head stay as they are

How near the subnetwork is to the table: the correlation of their surprisals. What it is to the model: the loss once its
weights are taken out, beside that of as many others from the same matrices.

    symbol   here                                   shape
    m        masks, a matrix for each of the model's     as those
    P        table(x_t), out "bigram"               [M, V]
    logits   out "logits"                           [M, V]
    mean(.)  out "kept"                             [1]

Source: "Bigram Subnetworks: Mapping to Next Tokens in Transformer Language Models", arXiv 2504.15471. Differences and
own choices: see ``BigramSubnetworks.card``. Legend: M positions that predict a token, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nextvec.data.sources import Source, ragged
from nextvec.data.tokenfile import PackedTokens, TokenFile, build_token_file
from nextvec.engine.engine import Engine, Report, TrainConfig
from nextvec.engine.method import Method
from nextvec.engine.optim import OptimConfig
from nextvec.language_method import texts_of
from nextvec.methods._bigram_parts import BigramTable, Causal, open_causal
from nextvec.nn.backbones.transformer import Transformer, TransformerConfig
from nextvec.objectives.base import Columns, Objective, Outputs, Scope
from nextvec.objectives.next_token import count_predicted, predicted, text_of
from nextvec.types import Batch, Card, Claim, Column, InputError, Ragged, Term


class BigramMatch(Objective):
    """Cross entropy of the model's next tokens with the table's. Reads ``logits`` and ``bigram`` [M, V] (no gradient
    flows into the latter), rows as for ``NextToken``. Logs ``bigram_loss``, in nats."""

    scope: Scope = "example"
    reads = ("logits", "bigram")
    columns = ("text",)

    def count(self, batch: Columns) -> float:
        return float(count_predicted(text_of(batch)[0]))

    def forward(self, out: Outputs, batch: Columns) -> Term:
        logits, table = out["logits"], out["bigram"].detach()
        if logits.ndim != 2 or logits.shape != table.shape:
            raise InputError(f"logits {list(logits.shape)} and a table's rows {list(table.shape)}; expected one shape")
        loss = functional.cross_entropy(logits, table, reduction="sum")
        return Term(loss, float(len(logits)), {"bigram_loss": float(loss.detach()) / max(len(logits), 1)})

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        logits, table = (torch.randn(rows * 4, 7, generator=random, dtype=torch.float64) for _ in range(2))
        ids = torch.zeros(rows * 5, dtype=torch.int64)
        columns: dict[str, Column] = {
            "text": Ragged(ids, torch.full((rows,), 5)),
            "of_4": Ragged(torch.zeros(rows * 4, dtype=torch.int64), torch.full((rows,), 4)),
        }
        return cls(), {"logits": logits.requires_grad_(), "bigram": table.softmax(dim=1)}, columns


class Kept(Objective):
    """The mean of the masks: reads ``kept`` [B], the same for every example. Logs ``kept``."""

    scope: Scope = "example"
    reads = ("kept",)

    def forward(self, out: Outputs, batch: Columns) -> Term:
        kept = out["kept"]
        return Term(kept.sum(), float(len(kept)), {"kept": float(kept.detach().mean())})

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        return cls(), {"kept": torch.rand(rows, generator=random, dtype=torch.float64).requires_grad_()}, {}


class BigramSubnetworks(Method):
    """Masks over a frozen causal model, and the bigram table that they are to follow."""

    beta: Tensor

    card = Card(
        name="bigram_subnetworks",
        title="Bigram subnetworks: mapping to next tokens in transformer language models",
        arxiv="2504.15471",
        year=2025,
        family="input structure",
        claim="A few per cent of a language model's weights predict as a bigram table does (surprisals correlate above"
        " 0.95); most of them are in the first feed-forward layer, and without them the model is far worse than without"
        " as many others.",
        differs=(
            "The table backs off as Witten and Bell's does; the paper's is from counts with back-off.",
            "beta grows by a factor that fits a few hundred steps, and the learning rate is larger; in the paper it is"
            " 1.001 a step, for up to 15,000 steps at 5e-5.",
            "Training goes on for the steps that are asked for; it is not ended once few weights are undecided.",
            "Small models that were trained here, or any causal model on disk.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = (
        "optim.lr=0.03",
        "optim.weight_decay=0.0",
        "steps=600",
        "batch=16",
    )
    direction: ClassVar[Mapping[str, str]] = {"bigram_loss": "down"}

    @dataclass(kw_only=True)
    class Config:
        """model: a run of ours or a folder with a causal model; penalty: weight of the masks' mean; growth: of beta, a
        step; length: tokens of a sequence; field: of a record, the one that holds the text; seed: of the masks that are
        drawn to compare with. shape and pairs are filled in by ``prepare``."""

        model: str = ""
        penalty: float = 10.0
        growth: float = 1.01
        length: int = 128
        field: str = "text"
        seed: int = 0
        pairs: int = 0
        shape: TransformerConfig | None = None

    def __init__(self, config: Any, *, tokenizer: Any = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        if not config.growth >= 1 or not config.penalty >= 0:
            raise InputError(
                f"growth is {config.growth} and penalty {config.penalty}; expected at least 1, and not below 0"
            )
        if config.shape is not None:
            self.model = Causal(Transformer(config.shape))
        elif config.model:
            self.model, _ = open_causal(config.model)
        else:
            raise InputError("name the model to look into: --set model=runs/gpt")
        self.model.requires_grad_(False)
        self.table = BigramTable(self.model.vocab, config.pairs)
        named = dict(self.model.named_parameters())
        self.names = self.model.blocks()
        self.masks = nn.ParameterDict({_key(name): torch.zeros_like(named[name]) for name in self.names})
        self.register_buffer("beta", torch.ones(()))

    def soft(self) -> dict[str, Tensor]:
        """sigmoid(beta * m) by the name of the weight."""
        return {name: torch.sigmoid(self.beta * self.masks[_key(name)]) for name in self.names}

    def hard(self) -> dict[str, Tensor]:
        """Whether m > 0, bool, by the name of the weight."""
        return {name: self.masks[_key(name)] > 0 for name in self.names}

    def logits(self, text: Ragged, rows: Tensor, masks: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits [M, V] after ``rows`` of ``text``, of the model with its weights times ``masks`` (None: as it is)."""
        own = dict(self.model.named_parameters())
        changed = {name: own[name] * mask for name, mask in (masks or {}).items()}
        found: Tensor = torch.func.functional_call(self.model, changed, (text, rows))
        return found

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``logits`` and ``bigram`` [M, V], ``kept`` [B]."""
        text, _ = text_of(batch)
        rows, soft = predicted(text), self.soft()
        count = sum(mask.numel() for mask in soft.values())
        kept = torch.stack([mask.sum() for mask in soft.values()]).sum() / count
        return {
            "logits": self.logits(text, rows, soft),
            "bigram": self.table(text.values[rows]),
            "kept": kept.expand(len(text)),
        }

    def objective(self) -> Objective:
        return BigramMatch() + float(self.config.penalty) * Kept()

    def after_step(self, step: int) -> None:
        self.beta.fill_(math.exp(min(step * math.log(self.config.growth), 14.0)))

    def encoder(self) -> None:
        """No encoder: what is found is a part of a language model, not vectors of texts."""

    @classmethod
    def of(cls, model: Causal, table: BigramTable, config: Any, *, tokenizer: Any = None) -> Self:
        """Masks over ``model``, which is used as it is."""
        shape = model.body.config if isinstance(model.body, Transformer) else None
        method = cls(dataclasses.replace(config, shape=shape, pairs=len(table.others)), tokenizer=tokenizer)
        method.model.load_state_dict(model.state_dict())
        method.table = table
        return method

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight sequences of a cycle of seven tokens, read by a random model of two layers."""
        torch.manual_seed(seed)
        ids = (torch.randint(0, 7, (8, 1)) + torch.arange(9)) % 7
        shape = TransformerConfig(vocab=7, dim=16, layers=2, heads=2, ffn=32, max_length=16)
        model = Causal(Transformer(shape))
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(4)
        table = BigramTable.of(list(ids.numpy()), 7)
        return cls.of(model, table, cls.Config(penalty=0.1)), Batch(
            {"text": Ragged(ids.flatten(), torch.full((8,), 9))}
        )

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: texts, as for every language model here; the tokenizer is that of ``config.model``. A batch has
        ``batch * config.length`` tokens. ``folder`` keeps the tokens."""
        model, tokenizer = open_causal(config.model) if config.model else (None, None)
        if model is None or tokenizer is None:
            raise InputError("name the model to look into: --set model=runs/gpt")
        path = folder / "tokens.bin"
        if not path.is_file():
            build_token_file(path, texts_of(data, config.field), tokenizer)
        file = TokenFile.open(path)
        table = BigramTable.of((file.document(i) for i in range(len(file))), model.vocab)
        source = PackedTokens(file, tokens=batch * config.length, length=config.length, seed=seed)
        return cls.of(model, table, dataclasses.replace(config, seed=seed), tokenizer=tokenizer), source

    @staticmethod
    def claim(scale: str) -> Claim:
        """A small model trained here, and one that was not."""
        from nextvec.methods import _bigram_claim

        return _bigram_claim.claim(scale)

    @torch.no_grad()
    def measure(self, text: Ragged) -> dict[str, float]:
        """What the subnetwork is, on texts that were not learned from.

        r, r_full       correlation of the surprisals of subnetwork and of model with the table's
        active          percent of the weights that are kept; ``undecided``: whose mask is between 0.1 and 0.9
        part_L          percent of the kept weights that are in matrix L, in the order of ``names``
        loss            nats a token of the model; ``loss_without``: of the model without the subnetwork;
                        ``loss_random``: without as many random weights of each matrix
        """
        hard = self.hard()
        random = torch.Generator().manual_seed(self.config.seed)
        removed = {name: ~mask for name, mask in hard.items()}
        others = {name: ~_shuffled(mask, random) for name, mask in hard.items()}
        kinds = {"own": hard, "full": None, "without": removed, "random": others}
        found: dict[str, list[Tensor]] = {name: [] for name in (*kinds, "table")}
        for start in range(0, len(text), 16):  # logits of a large vocabulary fill the memory soon
            part = text.take(start, min(start + 16, len(text)))
            rows = predicted(part)
            before, after = part.values[rows], part.values[rows + 1]
            for name, masks in kinds.items():
                logits = self.logits(part, rows, masks).float()
                found[name].append(functional.cross_entropy(logits, after, reduction="none"))
            found["table"].append(self.table.surprisal(before, after))
        surprisal = {name: torch.cat(parts) for name, parts in found.items()}
        table = surprisal["table"]
        kept = sum(int(mask.sum()) for mask in hard.values())
        total = sum(mask.numel() for mask in hard.values())
        soft = torch.cat([mask.flatten() for mask in self.soft().values()])
        shares = {f"part_{i}": 100 * int(hard[n].sum()) / max(kept, 1) for i, n in enumerate(self.names)}
        return {
            "r": correlation(surprisal["own"], table),
            "r_full": correlation(surprisal["full"], table),
            "active": 100 * kept / total,
            "undecided": 100 * float(((soft > 0.1) & (soft < 0.9)).float().mean()),
            "loss": float(surprisal["full"].mean()),
            "loss_without": float(surprisal["without"].mean()),
            "loss_random": float(surprisal["random"].mean()),
            **shares,
        }


def find_subnetwork(
    name: str,
    data: Path,
    *,
    penalty: float = 10.0,
    steps: int = 600,
    lr: float = 0.03,
    batch: int = 16,
    length: int = 128,
    field: str = "text",
    seed: int = 0,
    device: str = "auto",
    on_step: Callable[[Report], None] | None = None,
) -> tuple[BigramSubnetworks, dict[str, float]]:
    """Masks over the model ``name`` (see ``open_causal``), learned from nine of ten texts of ``data``, and what
    ``measure`` says on the tenth. InputError for texts that are too few or too short."""
    model, tokenizer = open_causal(name)
    texts = list(texts_of(data, field))
    ids = [np.asarray(one, dtype=np.int64) for one in tokenizer.encode(texts, max_length=1 << 30)]
    held = [one[:length] for i, one in enumerate(ids) if i % 10 == 9 and len(one) > 1]
    learned = [one for i, one in enumerate(ids) if i % 10 != 9 and len(one) > 1]
    if not held or sum(len(one) for one in learned) < batch * length:
        raise InputError(
            f"{str(data)!r} holds {len(texts)} texts; expected ten or more, with {batch * length:,} tokens or more"
        )
    config = BigramSubnetworks.Config(model=name, penalty=penalty, growth=200 ** (1 / steps), length=length, seed=seed)
    method = BigramSubnetworks.of(model, BigramTable.of(learned, model.vocab), config, tokenizer=tokenizer)
    engine = Engine(
        method,
        TrainConfig(steps=steps, batch=batch, optim=OptimConfig(lr=lr, weight_decay=0.0), seed=seed),
        device=device,
    )
    engine.fit(PackedTokens(ragged(learned), tokens=batch * length, length=length, seed=seed), on_step=on_step)
    method.eval()
    return method, method.measure(ragged(held[:500]).to(str(next(method.parameters()).device)))


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's, of two lists of numbers; 0 where one is constant."""
    one, other = (x.double() - x.double().mean() for x in (one, other))
    spread = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / spread if spread else 0.0


def _key(name: str) -> str:
    return name.replace(".", "__")


def _shuffled(mask: Tensor, random: torch.Generator) -> Tensor:
    """As many True at random places."""
    order = torch.randperm(mask.numel(), generator=random).to(mask.device)
    return mask.flatten()[order].view_as(mask)
