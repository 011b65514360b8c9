"""Frozen glyphs: a language model whose table of tokens is made of pictures of them, and never trained.

    picture(v)  = the text of token v drawn with a font, S x S pixels, no two alike
    e(v)        = PCA(picture(v)), scaled to length 1                frozen
    the rest is a causal transformer with a head of its own, trained on the next token

If such a model is as good as one whose table is trained, meaning is made in the layers and not in the table. Controls:
the same pictures given to the wrong tokens, random vectors, and the bits of the token's number.

    symbol   here                            shape
    picture  nn/inputs/glyphs.py, render     uint8 [V, S, S]
    e        backbone.tokens.weight          [V, D], without gradient

Source: "Emergent Semantics Beyond Token Embeddings: Transformer LMs with Frozen Visual Unicode Representations", arXiv
2507.04886. Differences and own choices: see ``FrozenGlyphs.card``. Legend: V tokens, S side in pixels, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from nextvec.data.sources import Source
from nextvec.data.tokenizers import ByteTokenizer, TextTokenizer
from nextvec.language_method import LanguageConfig, LanguageMethod
from nextvec.nn.inputs.glyphs import code_table, glyph_table, render
from nextvec.types import Batch, Card, Claim, InputError, Ragged

_logger = getLogger(__name__)
_NAMELESS = 0xF0000  # characters for private use, which no font draws: each is a pattern of its own
TABLES = ("glyph", "shuffled", "random", "code", "trained")


class FrozenGlyphs(LanguageMethod):
    """A causal language model with a table of tokens that is not trained (``table``)."""

    card = Card(
        name="frozen_glyphs",
        title="Emergent semantics beyond token embeddings: frozen visual Unicode representations",
        arxiv="2507.04886",
        year=2025,
        family="input structure",
        claim="A transformer whose token embeddings are frozen pictures of the tokens learns language about as well as"
        " one that trains its table: meaning emerges in the layers.",
        differs=(
            "DejaVu Sans, or a font that is named; the paper uses GNU Unifont. Pictures are not turned or blurred at"
            " random, and pixels are taken in rows; after the PCA their order makes no difference.",
            "Cells of 16 x 16 pixels (the paper: 32 x 32, and 64 x 64), and as many components as the model is wide.",
            "A tokenizer of bytes, or a BPE learned from the texts; the paper's has 65,536 tokens.",
            "A character that has no glyph or cannot be printed, and a special token, get a random pattern of their"
            " own; the space is blank.",
            "Texts of several characters are squeezed in grey, not in black and white; where two tokens would still"
            " have one picture, an eighth of the pixels of the longer one's are inverted.",
            "Loss is compared, not MMLU: the paper's figures there are at or below chance.",
        ),
    )
    direction: ClassVar[Mapping[str, str]] = {"next_token": "down"}

    @dataclass(kw_only=True)
    class Config(LanguageConfig):
        """table: "glyph", or a control: "shuffled" (pictures of other tokens), "random" (vectors), "code" (bits of the
        token's number), "trained" (the usual table). side: S; font: a font's file ("": DejaVu Sans). The others are
        those of ``LanguageConfig``; the head is its own."""

        table: str = "glyph"
        side: int = 16
        font: str = ""
        tied: bool = False

    def __init__(self, config: Any, *, tokenizer: ByteTokenizer | TextTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        if config.table not in TABLES:
            raise InputError(f"table is {config.table!r}; expected one of {', '.join(TABLES)}")
        if config.tied and config.table != "trained":
            raise InputError("tied=true would make the frozen table the head: leave it false")
        assert self.backbone.tokens is not None
        self.backbone.tokens.weight.requires_grad_(config.table == "trained")

    def fill(self, texts: Sequence[str], *, seed: int) -> Self:
        """Make the table for tokens with these ``texts``, in the order of their ids."""
        config, dim = self.config, self.backbone.config.dim
        if config.table == "trained":
            return self
        random = np.random.default_rng([seed, 2507])
        rows: NDArray[np.float32]
        if config.table == "random":
            rows = random.normal(size=(len(texts), dim)).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        elif config.table == "code":
            rows = code_table(len(texts), dim)
        else:
            drawn = render(texts, size=config.side, font=Path(config.font) if config.font else None)
            _logger.info(
                "%d tokens: %d characters without a glyph, %d tokens marked, which would have looked like others",
                len(texts), drawn.patterned, drawn.marked,
            )  # fmt: skip
            rows = glyph_table(drawn.pixels, dim)
            if config.table == "shuffled":
                rows = rows[random.permutation(len(rows))]
        assert self.backbone.tokens is not None
        with torch.no_grad():
            self.backbone.tokens.weight.copy_(torch.from_numpy(rows))
        return self

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight sequences of seven tokens in a cycle; the table is of random vectors, which need no font."""
        torch.manual_seed(seed)
        ids = (torch.randint(0, 7, (8, 1)) + torch.arange(9)) % 7
        config = cls.Config(table="random", dim=16, layers=2, heads=2, vocab=7, length=9)
        method = cls(config).fill(list("abcdefg"), seed=seed)
        return method, Batch({"text": Ragged(ids.flatten(), torch.full((8,), 9))})

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """Texts, as for every language model here (see ``LanguageMethod.prepare``)."""
        method, source = super().prepare(data, config, batch=batch, seed=seed, folder=folder)
        assert method.tokenizer is not None
        return method.fill(token_texts(method.tokenizer), seed=seed), source

    @staticmethod
    def claim(scale: str) -> Claim:
        """Loss and neighbours with every table."""
        from nextvec.methods import _glyphs_claim

        return _glyphs_claim.claim(scale)


def token_texts(tokenizer: ByteTokenizer | TextTokenizer) -> list[str]:
    """What every token is a picture of, in the order of ids: its text; for bytes above 127, which are parts of a
    character, the Latin-1 character of that number. Special tokens, and ids without a token, have none: they get
    characters for private use, one each."""
    texts = []
    for i in range(tokenizer.vocab):
        if i in tokenizer.specials:
            text = ""
        elif isinstance(tokenizer, ByteTokenizer):
            text = chr(i)
        else:
            text = tokenizer.decode([[i]])[0]
            text = tokenizer.spelling(i) if "\ufffd" in text else text
        texts.append(text)
    nameless = [i for i, text in enumerate(texts) if not text]
    for k, i in enumerate(nameless):
        texts[i] = chr(_NAMELESS + k % 0x10000)
    return texts
