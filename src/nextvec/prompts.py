"""Vectors of texts from any causal language model, without training: prompts, and which of its states to take.

    prompt_eol   asks for the text "in one word": the state of the prompt's last token, from which the model would write
                 that word, stands for the text (Jiang et al. 2023, arXiv 2307.16645)
    meta_eol     asks so for several purposes (topic, feeling, kind, ...) and averages the states (Lei et al. 2024,
                 arXiv 2402.18458; the paper's eight prompts are not at hand: these are ours)
    echo         has the text twice and averages over the second copy, whose tokens have seen all of it although the
                 model only looks back (Springer et al. 2024, arXiv 2402.15449)
    mean, last   the baselines without a prompt: the mean of all states, and the last one

    encoder = PromptEncoder(Adapted.load(folder), "echo")
    vectors = encoder.encode(["a text", "another"])                      # float32 [2, D], of length 1

``PromptEncoder.encode`` has the signature of ``Encoder.encode``'s core, so that every task of ``nextvec.evaluate`` runs
on it. ``layer`` chooses the state: late layers that are not the last are often better (MetaEOL).

The parts of a prompt are tokenised apart and laid end to end: so it is exact which tokens are the text's.
Legend: n texts, P prompts of a recipe, N tokens end to end, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextvec.nn.backbones.adapt import Adapted
from nextvec.nn.pooling.modes import pool
from nextvec.nn.pooling.spans import pool_kept, span
from nextvec.types import InputError, NotFoundError, Progress, Ragged, did_you_mean

__all__ = ["RECIPES", "Prompt", "PromptEncoder"]

_BATCH = 32  # prompts encoded at a time


@dataclass(frozen=True, slots=True)
class Prompt:
    """``template`` with "{text}" once or twice. take: "last" (the prompt's last token), "text" (the mean over the text,
    the second copy where there are two) or "all" (the mean of everything)."""

    template: str
    take: Literal["last", "text", "all"] = "last"

    def __post_init__(self) -> None:
        if self.template.count("{text}") not in (1, 2):
            raise InputError(f"template {self.template!r:.80} has no '{{text}}', or more than two; expected one or two")
        if self.take not in ("last", "text", "all"):
            raise InputError(f"take is {self.take!r}; expected 'last', 'text' or 'all'")

    def parts(self) -> list[str]:
        """What stands before, between and after the texts. A blank before a text belongs to the text, as byte-pair
        vocabularies have it."""
        *before, last = self.template.split("{text}")
        return [*(part.removesuffix(" ") for part in before), last]


_ONE_WORD = "{start} “{{text}}” {asked} in one word: “"
_PURPOSES = (
    ("The text", "is about this topic,"),
    ("The text", "expresses this feeling,"),
    ("The text", "is of this kind,"),
    ("The text", "says, when put as shortly as possible,"),
)
RECIPES: Mapping[str, tuple[Prompt, ...]] = {
    "prompt_eol": (Prompt(_ONE_WORD.format(start="This sentence:", asked="means")),),
    "meta_eol": tuple(Prompt(_ONE_WORD.format(start=start, asked=asked)) for start, asked in _PURPOSES),
    "echo": (Prompt("Rewrite the sentence: {text}, rewritten sentence: {text}", take="text"),),
    "mean": (Prompt("{text}", take="all"),),
    "last": (Prompt("{text}"),),
}


class PromptEncoder:
    """Encodes texts with ``backbone`` and prompts.

    recipe: a name of ``RECIPES``, or prompts of your own, over which vectors are averaged; layer: which state, from 0
    (the embeddings) to L or counted from the end; max_length: tokens of a whole prompt, to which the text is cut. The
    backbone is used as it is: causal, unless it was loaded with ``bidirectional=True``.

    NotFoundError for an unknown recipe; InputError for a backbone without tokenizer, a layer that there is not, and a
    prompt that leaves no room for a text.
    """

    def __init__(
        self, backbone: Adapted, recipe: str | Sequence[Prompt], *, layer: int = -1, max_length: int = 256
    ) -> None:
        if isinstance(recipe, str):
            if recipe not in RECIPES:
                hint = did_you_mean(recipe, RECIPES)
                raise NotFoundError(f"no recipe {recipe!r}; there are {', '.join(RECIPES)}{hint}")
            recipe = RECIPES[recipe]
        if not recipe:
            raise InputError("a recipe needs at least one prompt")
        if backbone.tokenizer is None:
            raise InputError("the backbone has no tokenizer: its folder lacks a tokenizer.json")
        self.backbone, self.prompts, self.layer, self.max_length = backbone.eval(), tuple(recipe), layer, max_length
        self._parts = [[self._ids(part) for part in prompt.parts()] for prompt in self.prompts]
        bos = getattr(backbone.tokenizer, "bos_token_id", None)
        self._begin = [] if bos is None else [int(bos)]
        for prompt, parts in zip(self.prompts, self._parts, strict=True):
            if self._room(parts) < 1:
                raise InputError(
                    f"prompt {prompt.template!r:.60} leaves no room for a text in {max_length} tokens: raise max_length"
                )
        states = int(backbone.model.config.num_hidden_layers) + 1
        if not -states <= layer < states:
            raise InputError(f"layer is {layer}; there are states 0 (the embeddings) to {states - 1}")

    @property
    def dim(self) -> int:
        """The width D."""
        return self.backbone.dim

    def encode(
        self,
        inputs: Sequence[str],
        *,
        role: Literal["query", "document"] | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """float32 [n, D], rows of length 1: of each text the mean over the prompts. role: makes no difference here. A
        text without tokens gets a row of zeros."""
        texts = list(inputs)
        made = np.zeros((len(texts), self.dim), dtype=np.float32)
        ids = [self._ids(f" {text.strip()}") if text.strip() else [] for text in texts]
        # Texts of similar lengths together: the backbone pads.
        order = sorted((i for i in range(len(texts)) if ids[i]), key=lambda i: len(ids[i]))
        for start in range(0, len(order), _BATCH):
            some = order[start : start + _BATCH]
            vectors = torch.stack([self._vectors([ids[i] for i in some], p) for p in range(len(self.prompts))]).mean(0)
            made[some] = torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy()
            if progress is not None:
                progress(min(start + _BATCH, len(order)), len(order))
        return made

    @torch.inference_mode()
    def _vectors(self, texts: Sequence[list[int]], number: int) -> Tensor:
        """[n, D] of texts (as ids) in one prompt."""
        prompt, parts = self.prompts[number], self._parts[number]
        room = self._room(parts)
        filled, begins, sizes = [], [], []
        for text in texts:
            own = text[:room]
            ids = [*self._begin, *parts[0]]
            for part in parts[1:]:
                begins_at = len(ids)
                ids += [*own, *part]
            filled.append(ids)
            begins.append(begins_at)
            sizes.append(len(own))
        lengths = torch.tensor([len(ids) for ids in filled])
        values = torch.tensor([i for ids in filled for i in ids])
        device = next(self.backbone.parameters()).device
        batch = Ragged(values, lengths).to(device)
        hidden = self.backbone(batch, all_states=True)[self.layer].float()
        lengths = lengths.to(device)
        if prompt.take != "text":
            return pool(hidden, lengths, modes=("lasttoken" if prompt.take == "last" else "mean",))
        begin = torch.tensor(begins, device=device)
        return pool_kept(hidden, lengths, span(lengths, begin, begin + torch.tensor(sizes, device=device)))

    def _room(self, parts: Sequence[list[int]]) -> int:
        """Tokens that each copy of a text may have."""
        used = len(self._begin) + sum(map(len, parts))
        return (self.max_length - used) // (len(parts) - 1)

    def _ids(self, text: str) -> list[int]:
        tokenizer: Any = self.backbone.tokenizer
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found
