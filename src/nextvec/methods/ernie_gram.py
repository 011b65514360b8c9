"""ERNIE-Gram: n-grams are hidden and foretold whole, and their tokens from the same context.

Where the tokens of "New York" are hidden one by one, each is foretold from the other. Here a lexicon of n-grams, mined
by t-statistic, says what belongs together, and

    contiguous      n masks, each foretells its token                                         (the baseline)
    explicit        one mask foretells which n-gram it was
    comprehensive   and n queries behind the text, which see it and are not seen by it, foretell the tokens
    relation        and a small generator puts n-grams that it finds likely in place of the masks: the model restores
                    what was there, and says of every place whether it was replaced

    L = CE(n-gram | mask) + CE(token | query) + CE of the generator + r * BCE(replaced | place)

    symbol   here                                  shape
    text     batch "ids", "at", "query"            Ragged int64 [N'], see ``_ernie_gram_parts.Masker``
    n-gram   out "coarse_logits"                   [M, V + G]
    token    out "fine_logits"                     [K, V]
    replaced out "replaced"                        [N'']

Source: "ERNIE-Gram", arXiv 2010.12148. Differences and own choices: see ``ErnieGram.card``. Legend: N' places, of text
and queries (N'' of text), M hidden n-grams, K hidden tokens, V vocabulary, G n-grams, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from nextvec.data.sources import Changed, Shuffled, Source
from nextvec.data.tokenizers import TextTokenizer, load_tokenizer, train_bpe
from nextvec.engine.method import Method
from nextvec.language_method import texts_of
from nextvec.methods._ernie_gram_parts import Lexicon, Masker, rows_of
from nextvec.nn.backbones.transformer import Transformer, TransformerConfig
from nextvec.nn.linear import linear
from nextvec.objectives.base import Columns, Objective, Outputs, Scope
from nextvec.objectives.masked_tokens import MaskedTokens
from nextvec.types import Batch, Card, Claim, Column, InputError, Ragged, Term

KINDS = ("contiguous", "explicit", "comprehensive", "relation")


class Replaced(Objective):
    """Whether a place was replaced: binary cross entropy of the logits ``replaced`` against ``was_replaced``, both
    [N''] (no gradient flows into the latter). Logs ``replaced_right``."""

    scope: Scope = "example"
    reads = ("replaced", "was_replaced")

    def forward(self, out: Outputs, batch: Columns) -> Term:
        logits, wanted = out["replaced"], out["was_replaced"].detach().to(out["replaced"].dtype)
        loss = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        right = float(((logits.detach() > 0) == (wanted > 0)).float().mean())
        return Term(loss, float(len(logits)), {"replaced_right": right})

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        logits = torch.randn(rows, generator=random, dtype=torch.float64).requires_grad_()
        return cls(), {"replaced": logits, "was_replaced": (torch.arange(rows) % 2).double()}, {}


class _Reader(nn.Module):
    """Identities at places, to states; queries (blocks of 1) are seen by queries alone."""

    def __init__(self, size: int, shape: TransformerConfig, length: int) -> None:
        super().__init__()
        self.table = nn.Embedding(size, shape.dim)
        self.place_table = nn.Parameter(torch.empty(length, shape.dim))
        self.transformer = Transformer(shape)
        for weight in (self.table.weight, self.place_table):
            nn.init.normal_(weight, std=0.02)

    def forward(self, ids: Tensor, at: Tensor, query: Tensor, lengths: Tensor) -> Tensor:
        states: Tensor = self.transformer(Ragged(self.table(ids) + self.place_table[at], lengths), blocks=query)
        return states


class ErnieGram(Method):
    """A masked language model of n-grams. ``kind``: how much of the paper's method."""

    card = Card(
        name="ernie_gram",
        title="ERNIE-Gram: pre-training with explicitly n-gram masked language modelling",
        arxiv="2010.12148",
        year=2020,
        family="input structure",
        claim="Foretelling n-grams whole teaches an encoder more than foretelling their tokens side by side;"
        " foretelling both from one context more still, and a generator's n-grams more again.",
        differs=(
            "A unit keeps the place of its first token, and what follows its own; queries see each other: they hold no"
            " token.",
            "Learned places in place of relative positions; the heads over n-grams and over tokens are the table that"
            " reads them.",
            "The lexicon has as many pairs and triples as are asked for, of at least five occurrences (the paper's is"
            " larger). The weights of the four losses are not known to us: 1 each.",
            "The generator is half as deep.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=1e-3", "optim.weight_decay=0.01", "batch=32")
    direction: ClassVar[Mapping[str, str]] = {"coarse": "down", "fine": "down"}

    @dataclass(kw_only=True)
    class Config:
        """kind: "contiguous", "explicit", "comprehensive" or "relation". depth: the size dial, layers of width 64 *
        depth. pairs, triples: of the lexicon, at most; share: of the units that are hidden; replaced: weight r.
        length: tokens of a text, at most; longer ones are cut into several. vocab: tokens of the BPE that is learned;
        field: of a record, the one that holds the text; grams: the lexicon, filled in by ``prepare``."""

        kind: str = "comprehensive"
        depth: int = 4
        dim: int | None = None
        layers: int | None = None
        heads: int | None = None
        pairs: int = 10_000
        triples: int = 5_000
        share: float = 0.15
        replaced: float = 1.0
        length: int = 128
        vocab: int = 8192
        mask: int = 0
        field: str = "text"
        grams: tuple[tuple[int, ...], ...] = ()

        def model(self, layers: int | None = None) -> TransformerConfig:
            """The transformer's settings."""
            given = {name: value for name in ("dim", "layers", "heads") if (value := getattr(self, name)) is not None}
            if layers is not None:
                given["layers"] = layers
            return TransformerConfig.sized(
                self.depth,
                vocab=0,
                max_length=2 * self.length,
                positions="none",
                attention="block_causal",
                norm="layer",
                activation="gelu",
                biases=True,
                **given,
            )

    def __init__(self, config: Any, *, tokenizer: TextTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        if config.kind not in KINDS or not 0 < config.share < 1:
            raise InputError(
                f"kind is {config.kind!r} and share {config.share}; expected one of {', '.join(KINDS)}, and a share"
                " between 0 and 1"
            )
        self.lexicon = Lexicon(config.vocab, tuple(tuple(gram) for gram in config.grams))
        shape = config.model()
        self.reader = _Reader(self.lexicon.size, shape, config.length)
        self.fine_bias = nn.Parameter(torch.zeros(config.vocab))
        self.coarse_bias = nn.Parameter(torch.zeros(self.lexicon.size))
        self.generator = self.replaced_head = None
        if config.kind == "relation":
            self.generator = _Reader(self.lexicon.size, config.model(max(shape.layers // 2, 1)), config.length)
            self.replaced_head = nn.Linear(shape.dim, 1)

    def masker(self) -> Masker:
        """How texts are masked."""
        kind = self.config.kind
        specials = frozenset() if self.tokenizer is None else self.tokenizer.specials
        return Masker(
            self.lexicon,
            self.config.mask,
            "contiguous" if kind == "contiguous" else "explicit",
            kind in ("comprehensive", "relation"),
            self.config.share,
            specials,
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``hidden`` [N', D], and by kind ``fine_logits``, ``coarse_logits``, ``generator_logits``, ``replaced`` and
        ``was_replaced``."""
        ids, at, query = (batch.ragged(name) for name in ("ids", "at", "query"))
        hide = rows_of(batch.ragged("coarse"))
        out: dict[str, Tensor] = {}
        values = ids.values
        if self.generator is not None:
            # The generator sees masks and no queries of its own; they are there, and nothing reads them.
            guessed = self.generator(values, at.values, query.values, ids.lengths)[hide]
            out["generator_logits"] = linear(guessed, self.generator.table.weight)
            values = values.index_copy(0, hide, self._draw(out["generator_logits"].detach(), batch, hide))
        hidden = self.reader(values, at.values, query.values, ids.lengths)
        out["hidden"] = hidden
        if self.config.kind != "contiguous":
            out["coarse_logits"] = linear(hidden[hide], self.reader.table.weight, self.coarse_bias)
        if self.config.kind != "explicit":
            shown = hidden[rows_of(batch.ragged("fine"))]
            out["fine_logits"] = linear(shown, self.reader.table.weight[: self.config.vocab], self.fine_bias)
        if self.replaced_head is not None:
            text = (query.values == 0).nonzero().squeeze(1)
            out["replaced"] = self.replaced_head(hidden[text]).squeeze(1)
            truth = torch.where(batch.ragged("coarse").values >= 0, batch.ragged("coarse").values, ids.values)
            out["was_replaced"] = (values != truth)[text].to(hidden.dtype)
        return out

    @staticmethod
    def _draw(logits: Tensor, batch: Batch, hide: Tensor) -> Tensor:
        """Identities drawn from the generator, int64 [M]: what is drawn for a text is its own ``seed``'s."""
        lengths = batch.ragged("ids").lengths
        owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths)[hide.cpu()]
        counts = torch.bincount(owner, minlength=len(lengths)).tolist()
        noise = [
            torch.rand(count, logits.shape[1], generator=torch.Generator().manual_seed(seed))
            for count, seed in zip(counts, batch.tensor("seed").tolist(), strict=True)
        ]
        gumbel = -torch.log(-torch.log(torch.cat(noise).clamp(1e-9, 1 - 1e-7)))
        return (logits.float() + gumbel.to(logits.device)).argmax(dim=1)

    def objective(self) -> Objective:
        fine = MaskedTokens(logits="fine_logits", labels="fine", name="fine")
        coarse = MaskedTokens(logits="coarse_logits", labels="coarse", name="coarse")
        if self.config.kind == "contiguous":
            return fine
        if self.config.kind == "explicit":
            return coarse
        if self.config.kind == "comprehensive":
            return coarse + fine
        guessed = MaskedTokens(logits="generator_logits", labels="coarse", name="generator")
        return coarse + fine + guessed + float(self.config.replaced) * Replaced()

    @torch.no_grad()
    def states(self, texts: Ragged) -> Tensor:
        """States [N, D] of texts as they are, ids laid end to end."""
        at = torch.cat([torch.arange(length) for length in texts.lengths.tolist()]).to(texts.values.device)
        found: Tensor = self.reader(texts.values, at, torch.zeros_like(at), texts.lengths)
        return found

    def encoder(self) -> None:
        """No encoder: pre-training alone is here (``states``); what is made of it afterwards is another method's."""

    def source(self, texts: Sequence[Sequence[int]], *, batch: int, seed: int) -> Source:
        """Shuffled batches of texts, masked anew every time."""
        rows = [list(text) for text in texts]
        return Changed(Shuffled({"text": rows}, batch=min(batch, len(rows)), seed=seed), self.masker(), seed=seed)

    @classmethod
    def start(
        cls, texts: Sequence[Sequence[int]], config: Any, *, mask: int, tokenizer: TextTokenizer | None = None
    ) -> Self:
        """A model whose lexicon is mined from ``texts``."""
        lexicon = Lexicon.mine(texts, config.vocab, pairs=config.pairs, triples=config.triples)
        return cls(dataclasses.replace(config, grams=lexicon.grams, mask=mask), tokenizer=tokenizer)

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight texts of nine tokens with a pair that always stands together."""
        torch.manual_seed(seed)
        texts = [[1, 2, 3 + i % 4, 1, 2, 3 + (i + 1) % 4, 7, 1, 2] for i in range(8)]
        config = cls.Config(dim=32, layers=2, heads=2, vocab=9, length=12, pairs=2, triples=0, share=0.3)
        method = cls.start(texts, config, mask=8)
        return method, method.source(texts, batch=8, seed=seed).batch(0)

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: texts, as for the language models here. ``folder`` keeps the tokenizer that is learned from them."""
        kept = folder / "tokenizer"
        texts = list(texts_of(data, config.field))
        if not (kept / "tokenizer_config.json").is_file():
            train_bpe(texts, vocab=config.vocab).save(kept)
        tokenizer = load_tokenizer(kept)
        assert isinstance(tokenizer, TextTokenizer) and tokenizer.mask is not None
        ids = tokenizer.encode(texts, special=False)
        pieces = [one[i : i + config.length] for one in ids for i in range(0, len(one), config.length)]
        if not pieces:
            raise InputError(f"{str(data)!r} holds no text")
        torch.manual_seed(seed)
        config = dataclasses.replace(config, vocab=tokenizer.vocab)
        method = cls.start(pieces, config, mask=tokenizer.mask, tokenizer=tokenizer)
        return method, method.source(pieces, batch=batch, seed=seed)

    @staticmethod
    def claim(scale: str) -> Claim:
        """A language of collocations that depend on the topic, and abstracts by their category."""
        from nextvec.methods import _ernie_gram_claim

        return _ernie_gram_claim.claim(scale)
