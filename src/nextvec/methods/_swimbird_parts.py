"""What the file ``swimbird`` stands on: how thoughts are laid out, and decoding that switches between text and vision.

Legend: B examples, N places end to end, T patches of a picture, P values of a patch, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextvec.data.sources import ragged
from nextvec.types import Batch, Ragged

if TYPE_CHECKING:
    from nextvec.methods.swimbird import SwimBird

__all__ = ["Example", "Said", "lay_out", "patches_of", "respond"]


@dataclass(frozen=True)
class Example:
    """question and thoughts are texts and pictures (uint8 [S, S, 3]) in order; answer is a text."""

    question: tuple[str | NDArray[np.uint8], ...]
    thoughts: tuple[str | NDArray[np.uint8], ...]
    answer: str


def patches_of(picture: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Patches float32 [T, side * side * 3] of a picture uint8 [S, S, 3], row by row, from -1 to 1."""
    rows, columns = (size // side for size in picture.shape[:2])
    cut = picture[: rows * side, : columns * side].reshape(rows, side, columns, side, 3).transpose(0, 2, 1, 3, 4)
    return (cut.reshape(rows * columns, -1) / np.float32(127.5) - 1).astype(np.float32)


def lay_out(method: SwimBird, examples: Sequence[Example]) -> Batch:
    """Examples as a batch.

    tokens   Ragged int64 [N]      question, then thoughts (pictures between START and STOP), ANSWER, answer, END; IMAGE
                                   and LATENT stand where patches of the question's and of the thoughts' pictures do
    patches  Ragged float [., P]   in the order of those places
    labels   Ragged int64 [N]      the next token where it is part of the response, LATENT before a patch, else -100
    latent   Ragged bool [N]       patches of thoughts, whose embeddings are foretold
    """
    tokens, patches, labels = [], [], []
    for example in examples:
        asked, seen = _parts(method, example.question, method.image)
        said, drawn = _parts(method, example.thoughts, method.latent, spans=True)
        said += [method.answer, *method.words(example.answer), method.end]
        tokens.append([*asked, *said])
        labels.append([*[-100] * (len(asked) - 1), *said, -100])
        patches.append(np.concatenate([*seen, *drawn, np.zeros((0, method.values), np.float32)]))
    laid = ragged(tokens)
    lengths = torch.tensor([len(one) for one in patches])
    return Batch(
        {
            "tokens": laid,
            "patches": Ragged(torch.from_numpy(np.concatenate(patches)), lengths),
            "labels": ragged(labels),
            "latent": Ragged(laid.values == method.latent, laid.lengths),
        }
    )


def _parts(
    method: SwimBird, parts: Sequence[str | NDArray[np.uint8]], place: int, *, spans: bool = False
) -> tuple[list[int], list[NDArray[np.float32]]]:
    tokens: list[int] = []
    patches: list[NDArray[np.float32]] = []
    for part in parts:
        if isinstance(part, str):
            tokens += method.words(part)
            continue
        own = patches_of(part, method.config.patch)
        inside = [place] * len(own)
        tokens += [method.start_span, *inside, method.stop_span] if spans else inside
        patches.append(own)
    return tokens, patches


@dataclass
class Said:
    """A response: its tokens (LATENT where the model was in a visual span), the predicted embeddings [D], the answer's
    text (None where there is none), and whether a span or the whole was cut off."""

    tokens: list[int] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)
    answer: str | None = None
    cut: bool = False

    @property
    def spans(self) -> bool:
        """Whether it thought in pictures at all."""
        return bool(self.latents)


@torch.no_grad()
def respond(
    method: SwimBird, questions: Sequence[Sequence[str | NDArray[np.uint8]]], *, most: int, span: int
) -> list[Said]:
    """The likeliest responses. In text, tokens are fed back; after START the states themselves are, until the likeliest
    token is STOP or ``span`` of them were, which closes the span. ``most``: places in all. The question is read
    once."""
    backbone, device = method.backbone, next(method.parameters()).device
    laid = [_parts(method, question, method.image) for question in questions]
    tokens = ragged([ids for ids, _ in laid]).to(device)
    patches = [own for _, seen in laid for own in seen]
    vectors = method.vectors(tokens, torch.from_numpy(np.concatenate(patches)).to(device) if patches else None)
    cache = backbone.new_cache(len(questions), capacity=int(tokens.lengths.max()) + most + 1)
    hidden = backbone.prefill(Ragged(vectors, tokens.lengths), cache)
    states = hidden[tokens.lengths.cumsum(0).to(device) - 1]
    said = [Said() for _ in questions]
    inside = [0] * len(questions)  # latents of the open span, counted from 1; 0: in text
    going = set(range(len(questions)))
    for _ in range(most):
        chosen = backbone.logits(states).argmax(dim=1).tolist()
        feed = torch.zeros(len(questions), backbone.config.dim, device=device)
        for i in sorted(going):
            own, token = said[i], chosen[i]
            if inside[i] and token != method.stop_span and inside[i] <= span:
                own.tokens.append(method.latent)
                own.latents.append(states[i].float().cpu())
                feed[i] = states[i]
                inside[i] += 1
                continue
            if inside[i]:
                own.cut = own.cut or token != method.stop_span
                token = method.stop_span
            inside[i] = 1 if token == method.start_span else 0
            own.tokens.append(token)
            feed[i] = backbone.embed(torch.tensor([token], device=device))[0]
            if token == method.end:
                going.discard(i)
        if not going:
            break
        states = backbone.forward_cached(feed[:, None].to(states.dtype), cache)[:, -1]
    for i, own in enumerate(said):
        own.cut = own.cut or i in going
        if method.answer in own.tokens:
            own.answer = method.text(own.tokens[own.tokens.index(method.answer) + 1 :])
    return said
