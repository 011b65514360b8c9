"""What the file ``bigram_subnetworks`` stands on: a bigram table, and causal models as one thing.

Legend: V vocabulary, N tokens laid end to end, M positions, K different pairs of neighbours, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nextvec import catalog
from nextvec.data.tokenizers import ByteTokenizer, TextTokenizer, load_tokenizer
from nextvec.engine.method import Method
from nextvec.extras import require
from nextvec.language_method import LanguageMethod
from nextvec.nn.backbones.adapt import Adapted
from nextvec.nn.backbones.hf import LOCAL, opening
from nextvec.nn.backbones.transformer import Transformer
from nextvec.nn.locate import model_folder
from nextvec.types import InputError, Ragged

__all__ = ["BigramTable", "Causal", "open_causal"]


class BigramTable(nn.Module):
    """P(next | token) of a corpus, with back-off to how often the next one is at all (Witten and Bell 1991):

        P(v | u) = c(u, v) / (c(u) + T(u))  +  T(u) / (c(u) + T(u)) * (c(v) + 1) / (N + V)

    c counts neighbours, T(u) the different tokens after u; where u was never seen, the second part is all. Stored as
    the K pairs that were seen, ordered by u."""

    starts: Tensor
    others: Tensor
    seen: Tensor
    rest: Tensor
    alone: Tensor

    def __init__(self, vocab: int, pairs: int) -> None:
        super().__init__()
        sizes = {"starts": vocab + 1, "others": pairs, "seen": pairs, "rest": vocab, "alone": vocab}
        for name, size in sizes.items():
            kind = torch.int64 if name in ("starts", "others") else torch.float32
            self.register_buffer(name, torch.zeros(size, dtype=kind))

    @classmethod
    def of(cls, sequences: Iterable[NDArray[np.int64]], vocab: int) -> BigramTable:
        """The table of some sequences of ids."""
        keys: list[NDArray[np.int64]] = []
        counts = np.ones(vocab)
        for ids in sequences:
            keys.append(ids[:-1].astype(np.int64) * vocab + ids[1:])
            counts += np.bincount(ids, minlength=vocab)
        pairs, times = np.unique(np.concatenate([*keys, np.zeros(0, np.int64)]), return_counts=True)
        if not len(pairs):
            raise InputError("no two tokens follow each other in these texts: longer ones are needed")
        before = pairs // vocab
        total = np.bincount(before, weights=times, minlength=vocab)
        kinds = np.bincount(before, minlength=vocab)
        made = cls(vocab, len(pairs))
        made.starts.copy_(torch.from_numpy(np.searchsorted(pairs, np.arange(vocab + 1) * vocab)))
        made.others.copy_(torch.from_numpy(pairs % vocab))
        made.seen.copy_(torch.from_numpy(times / (total + kinds)[before]))
        made.rest.copy_(torch.from_numpy(np.where(total > 0, kinds / np.maximum(total + kinds, 1), 1.0)))
        made.alone.copy_(torch.from_numpy(counts / counts.sum()))
        return made

    def forward(self, tokens: Tensor) -> Tensor:
        """P(. | token) float32 [M, V] of ``tokens`` int64 [M]."""
        rows = self.rest[tokens][:, None] * self.alone
        begin, sizes = self.starts[tokens], self.starts[tokens + 1] - self.starts[tokens]
        row = torch.repeat_interleave(torch.arange(len(tokens), device=tokens.device), sizes)
        first = torch.repeat_interleave(begin - (sizes.cumsum(0) - sizes), sizes)
        at = torch.arange(len(row), device=tokens.device) + first
        return rows.index_put((row, self.others[at]), self.seen[at], accumulate=True)

    def surprisal(self, before: Tensor, after: Tensor) -> Tensor:
        """-log P(after | before), float32 [M], in nats."""
        rows: Tensor = self(before)
        return -rows.gather(1, after[:, None]).squeeze(1).log()


class Causal(nn.Module):
    """A causal language model, ours or one of Hugging Face's: texts to logits. ``tokenizer``: what reads texts."""

    def __init__(self, body: Transformer | Adapted, head: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.head = body, head

    @property
    def vocab(self) -> int:
        """V."""
        if isinstance(self.body, Transformer):
            return self.body.config.vocab
        return int(cast(nn.Linear, self.head).weight.shape[0])

    def forward(self, text: Ragged, rows: Tensor) -> Tensor:
        """Logits [M, V] after the positions ``rows`` int64 [M] of token ids laid end to end."""
        hidden = self.body(text)[rows]
        if isinstance(self.body, Transformer):
            return self.body.logits(hidden)
        assert self.head is not None
        logits: Tensor = self.head(hidden)
        return logits

    def blocks(self) -> list[str]:
        """Names of the matrices of attention and feed-forward layers, in order: all weights of two dimensions but
        tables, positions and the head."""
        tables = {id(module.weight) for module in self.body.modules() if isinstance(module, nn.Embedding)}
        named = [(n, p) for n, p in self.body.named_parameters() if p.ndim == 2 and id(p) not in tables]
        return [f"body.{name}" for name, _ in named if not name.startswith(("positions.", "head."))]


def open_causal(name: str) -> tuple[Causal, ByteTokenizer | TextTokenizer]:
    """The language model of a run of ours (``OUT`` or ``OUT/model``), or a local folder of Hugging Face's that holds a
    causal model; and its tokenizer.

    NotFoundError where there is none, InputError for a run that is no language model or has no tokenizer.
    """
    folder = Path(name)
    for inner in (folder / "model", folder):
        if (inner / "method.json").is_file():
            method: Method = catalog.find("nextvec.methods", Method.name_in(inner)).load(inner)
            # One whose next token does not follow from its states by the head alone is no such model.
            plain = isinstance(method, LanguageMethod) and type(method).next_logits is LanguageMethod.next_logits
            if not isinstance(method, LanguageMethod) or not plain or method.tokenizer is None:
                raise InputError(f"{name!r} holds a {method.card.name!r}; a language model with a tokenizer is needed")
            return Causal(method.backbone), method.tokenizer
    folder, short = model_folder(name)
    require("transformers", why=f"opening {short!r}")
    with opening(folder) as transformers:
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, dtype="float32", **LOCAL
        )
    return Causal(Adapted(model.base_model.eval()), model.get_output_embeddings()), load_tokenizer(folder)
