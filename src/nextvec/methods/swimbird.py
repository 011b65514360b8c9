"""SwimBird: one stream of thought that switches between text and vision.

A language model thinks in words, in pictures, or in both by turns, and decides which by writing a tag. Inside a visual
span it foretells the embedding of the next patch, and feeds its own state back; outside it writes tokens.

    x_t = embedding of token t, or of a patch by an encoder that does not learn
    h   = transformer(x), causal
    L   = CE(next token | h_t), where it is part of the response (a tag stands for a patch)
          + w * mean over t before a patch of |h_t - x_{t+1}|^2 / D

There is no head for vision: the state itself is the prediction, and so has to live where the patches do.

    symbol   here                                             shape
    x        vectors(tokens, patches)                         [N, D]
    h        out "hidden"                                     [N, D]
    CE       out "logits", batch "labels"                     [M, V]
    |.|^2    out "pred_1", "target", batch "latent"           [K, D], [N, D], Ragged bool [N]

Source: "SwimBird: Eliciting Switchable Reasoning Mode in Hybrid Autoregressive MLLMs", arXiv 2602.06040. Differences
and own choices: see ``SwimBird.card``. Legend: N places end to end, M labels, K patches of thoughts, D width,
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
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nextvec.data.images import read_image, square
from nextvec.data.readers import read_located
from nextvec.data.sources import Shuffled, Source
from nextvec.data.synthetic.grids import grids
from nextvec.data.tokenizers import ByteTokenizer
from nextvec.language_method import LanguageConfig, LanguageMethod
from nextvec.methods._swimbird_parts import Example, Said, lay_out, respond
from nextvec.objectives.base import Objective
from nextvec.objectives.masked_tokens import MaskedTokens, hidden_rows
from nextvec.objectives.next_embedding import NextEmbedding, foretelling
from nextvec.types import Batch, Card, Claim, InputError, Ragged


class SwimBird(LanguageMethod):
    """A language model of text and patches. ``respond`` asks it."""

    patch_map: Tensor

    card = Card(
        name="swimbird",
        title="SwimBird: switchable reasoning in text, vision, or both",
        arxiv="2602.06040",
        year=2026,
        family="next-embedding prediction",
        claim="On a mixture of questions that want words and questions that want pictures, a model that may switch is"
        " better than one that always thinks in either, and chooses rightly.",
        differs=(
            "Small models from random weights that read bytes; the paper tunes Qwen3-VL-8B.",
            "Patches pass through a frozen random map, scaled so that a patch is as long as a state; the paper's"
            " through a vision tower that is frozen too.",
            "Places before a patch foretell the tag LATENT as well, so that the model learns when a span ends; in the"
            " paper they foretell no token.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=1e-3", "optim.weight_decay=0.01", "batch=32")
    sample: ClassVar[str] = "thoughts"
    direction: ClassVar[Mapping[str, str]] = {"masked_tokens": "down", "next_embedding": "down"}

    @dataclass(kw_only=True)
    class Config(LanguageConfig):
        """size, patch: pixels of a picture that is read from a file, and of a patch; vision: weight w; span: latents of
        one span, at most. The others are those of ``LanguageConfig``; ``length`` bounds the places of an example."""

        size: int = 8
        patch: int = 2
        vision: float = 0.2
        span: int = 32
        tokenizer: str = "bytes"

    def __init__(self, config: Any, *, tokenizer: ByteTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer or ByteTokenizer())
        if config.size % config.patch or config.vision < 0 or config.span < 1:
            raise InputError(
                f"pictures of {config.size} in patches of {config.patch} pixels, vision {config.vision}, span "
                f"{config.span}; expected whole patches, a weight not below 0, and a span of at least 1"
            )
        names = ("image", "latent", "start_span", "stop_span", "answer", "end")
        first = config.vocab - len(names)
        self.image, self.latent, self.start_span, self.stop_span, self.answer, self.end = range(first, config.vocab)
        self.values = 3 * config.patch**2
        random = torch.Generator().manual_seed(2602)
        self.register_buffer("patch_map", torch.randn(self.values, self.backbone.config.dim, generator=random))

    def words(self, text: str) -> list[int]:
        """Ids of a text."""
        assert self.tokenizer is not None
        return self.tokenizer.encode([text], special=False)[0]

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids; tags are left out."""
        assert self.tokenizer is not None
        return self.tokenizer.decode([[i for i in ids if i < self.tokenizer.vocab]])[0]

    def vectors(self, tokens: Ragged, patches: Tensor | None) -> Tensor:
        """What is read, [N, D]: rows of the table, and patches [., P], as long as sqrt(D), at their places."""
        rows = self.backbone.embed(tokens.values)
        at = ((tokens.values == self.image) | (tokens.values == self.latent)).nonzero().squeeze(1)
        count = 0 if patches is None else len(patches)
        if len(at) != count:
            raise InputError(f"{count} patches for {len(at)} places: a visual span does not fit its pictures")
        if patches is None or not count:
            return rows
        seen = patches.to(rows.dtype) @ self.patch_map.to(rows.dtype)
        seen = functional.normalize(seen, dim=-1) * seen.shape[1] ** 0.5
        return rows.index_copy(0, at, seen)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``hidden``, ``logits``, ``target`` and ``pred_1``."""
        tokens = batch.ragged("tokens")
        vectors = self.vectors(tokens, batch.ragged("patches").values)
        hidden = self.backbone(Ragged(vectors, tokens.lengths))
        return {
            "hidden": hidden,
            "logits": self.backbone.logits(hidden[hidden_rows(batch.ragged("labels"))]),
            "target": vectors,
            "pred_1": hidden[foretelling(tokens, batch.ragged("latent"))],
        }

    def objective(self) -> Objective:
        spoken = MaskedTokens()
        if not self.config.vision:
            return spoken
        seen = NextEmbedding(distance="mse", sequence="tokens", mask="latent")
        return spoken + float(self.config.vision) * seen

    def respond(self, questions: Sequence[Sequence[str | NDArray[np.uint8]]], *, most: int = 128) -> list[Said]:
        """Responses to questions, each texts and pictures (uint8 [S, S, 3]) in order. most: places of a response.
        InputError for an empty question, a picture that is not of whole patches, and one that leaves no room."""
        places = [self.places(question) for question in questions]
        if not places or min(places) < 1 or max(places) + most > self.config.length:
            raise InputError(
                f"{len(places)} questions, of at most {max(places, default=0)} places, and {most} for a response; "
                f"expected one or more, none empty, within {self.config.length}"
            )
        return respond(self, questions, most=most, span=self.config.span)

    def places(self, parts: Sequence[str | NDArray[np.uint8]]) -> int:
        """How many places texts and pictures take. InputError for a picture that is not square, or not of whole
        patches."""
        return sum(len(self.words(part)) if isinstance(part, str) else self.patches(part) for part in parts)

    def patches(self, picture: NDArray[np.uint8]) -> int:
        """Patches of a picture uint8 [S, S, 3], of any S that is a multiple of the patch's. InputError for others."""
        patch, side = self.config.patch, picture.shape[0] if picture.ndim else 0
        if picture.shape != (side, side, 3) or not side or side % patch:
            raise InputError(
                f"a picture of shape {list(picture.shape)}; expected [S, S, 3], S a multiple of the patch's {patch}"
            )
        return int(side // patch) ** 2

    def source(self, examples: Sequence[Example], *, batch: int, seed: int) -> Source:
        """Shuffled batches. InputError for an example that is too long or without a question, and for a thought of more
        patches than a span may have."""
        for example in examples:
            drawn = [self.patches(part) for part in example.thoughts if not isinstance(part, str)]
            if max(drawn, default=0) > self.config.span:
                raise InputError(
                    f"a picture of {max(drawn)} patches among the thoughts; a span has {self.config.span} at most, and"
                    " would always be cut: raise span, or the patch"
                )
            spans = 2 * len(drawn)
            answer = len(self.words(example.answer)) + 2
            total = self.places([*example.question, *example.thoughts]) + spans + answer
            if total > self.config.length or not self.places(example.question):
                raise InputError(
                    f"an example of {total} places; this model reads {self.config.length}, and a question of one or"
                    " more: raise length"
                )
        laid = lay_out(self, examples)
        return Shuffled(dict(laid), batch=min(batch, len(examples)), seed=seed)

    @classmethod
    def start(cls, config: Any, *, seed: int) -> Self:
        """A model of bytes from random weights."""
        torch.manual_seed(seed)
        return cls(dataclasses.replace(config, vocab=ByteTokenizer.vocab + 6))

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight questions about grids of 4 x 4, thought of in pictures."""
        method = cls.start(cls.Config(dim=32, layers=2, heads=2, length=96, size=4), seed=seed)
        made = grids(np.random.default_rng(seed), 8, side=4, moves=1)
        examples = [Example((q.text, q.pictures[0]), tuple(q.pictures[1:]), q.answer) for q in made]
        return method, method.source(examples, batch=8, seed=seed).batch(0)

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: JSON lines with "question" and "thoughts", each a text or a list of texts and {"image": "a.png"} (paths
        as seen from the file), and "answer"; pictures are cut to their middle square and scaled to ``config.size``."""
        method = cls.start(config, seed=seed)
        examples = []
        for place, record in read_located(data, fields=("question", "answer")):
            question, thoughts = (
                _read(record.get(name) or [], data.parent, config.size, place) for name in ("question", "thoughts")
            )
            if not question or not isinstance(record["answer"], str):
                raise InputError(f"{place}: a question (texts and images) and an answer (a text) are needed")
            examples.append(Example(question, thoughts, record["answer"]))
        return method, method.source(examples, batch=batch, seed=seed)

    @staticmethod
    def claim(scale: str) -> Claim:
        """A mixture of sums and pictures."""
        from nextvec.methods import _swimbird_claim

        return _swimbird_claim.claim(scale)


def _read(parts: Any, folder: Path, size: int, place: str) -> tuple[str | NDArray[np.uint8], ...]:
    found: list[str | NDArray[np.uint8]] = []
    for part in [parts] if isinstance(parts, str) else parts:
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, dict) and isinstance(part.get("image"), str):
            found.append(square(read_image(folder / part["image"]), size))
        else:
            raise InputError(f"{place}: {part!r:.60} is neither a text nor {{'image': path}}")
    return tuple(found)
