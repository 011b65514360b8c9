"""The claim of frozen glyphs on real text, byte by byte.

trained, glyph, shuffled, random, code      the table of tokens; all else is the same

nats        cross entropy of the next byte of abstracts that were not learned from
rows        of letters, digits and marks: how often the nearest other one, by their rows of the table, is of the same
            kind (vowel, consonant, capital, digit, mark), in percent
states      the same by the mean state of every character after half of the layers
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nextvec.data.tokenizers import ByteTokenizer
from nextvec.language_claims import LanguageScale, packed, pieces, token_losses, train, write_tokens
from nextvec.methods.frozen_glyphs import TABLES, FrozenGlyphs, token_texts
from nextvec.text_claims import scale_named
from nextvec.types import Check, Claim, Ragged, Run


@dataclass(frozen=True, kw_only=True)
class Scale(LanguageScale):
    """vocab: 0, bytes; tests: pieces to measure on, at most."""

    vocab: int = 0
    tests: int = 20


_CPU = Scale(abstracts=8000, length=128, dim=96, layers=4, heads=4, steps=600, batch=32, lr=2e-3, tests=300)
SCALES = {
    "smoke": Scale(),
    "cpu": _CPU,
    "gpu": replace(
        _CPU, abstracts=50_000, length=512, dim=512, layers=8, heads=8, steps=20_000, batch=64, device="auto"
    ),
}


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    return Claim(
        statement="With frozen pictures of the tokens a language model learns about as well as with a trained table;"
        " whose pictures they are makes no difference; kinds of characters come apart in the layers.",
        arms={table: partial(_arm, table=table, scale=scale) for table in TABLES},
        checks=(
            Check(
                says="frozen glyphs lose 0.05 nats or less to a trained table",
                better="trained.nats",
                worse="glyph.nats",
                margin=-0.05,
            ),
            Check(
                says="that the pictures are the right ones gains less than 0.02 nats (control)",
                better="glyph.nats",
                worse="shuffled.nats",
                margin=-0.02,
            ),
            Check(
                says="random vectors lose 0.05 nats or less, too (control)",
                better="trained.nats",
                worse="random.nats",
                margin=-0.05,
            ),
            Check(says="states tell kinds apart where random rows do not", better="random.states", worse="random.rows"),
        ),
        prepare=partial(_prepare, scale=scale),
        config=asdict(scale),
    )


def _prepare(shared: Path, *, scale: Scale) -> None:
    write_tokens(shared, count=scale.abstracts, vocab=scale.vocab)


def _arm(run: Run, *, table: str, scale: Scale) -> Mapping[str, float]:
    tokenizer = ByteTokenizer()
    torch.manual_seed(run.seed)
    config = FrozenGlyphs.Config(vocab=tokenizer.vocab, table=table, activation="gelu", **scale.shape())
    method = FrozenGlyphs(config).fill(token_texts(tokenizer), seed=run.seed)
    train(method, packed(run.shared, scale, run.seed), scale, run)
    ids = pieces(run.shared, scale.length, most=scale.tests)
    assert method.backbone.tokens is not None
    rows = method.backbone.tokens.weight.detach().float().cpu().numpy()
    return {
        "nats": float(token_losses(method, ids).mean()),
        "rows": _same_kind(rows, ids),
        "states": _same_kind(_states(method, ids), ids),
    }


@torch.no_grad()
def _states(method: FrozenGlyphs, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean state after half of the layers, by token, float32 [V, D]."""
    text = torch.from_numpy(ids).flatten().to(next(method.parameters()).device)
    states = method.backbone(Ragged(text, torch.full((len(ids),), ids.shape[1])), all_states=True)
    state = states[len(states) // 2].float()
    total = torch.zeros(method.backbone.config.vocab, state.shape[1], device=state.device).index_add(0, text, state)
    counts = torch.bincount(text, minlength=len(total)).clamp(min=1)
    found: NDArray[np.float32] = (total / counts[:, None]).cpu().numpy()
    return found


def _same_kind(vectors: NDArray[np.float32], ids: NDArray[np.int64]) -> float:
    """Percent of the characters in ``ids`` whose nearest other one, by the cosine of centred vectors, is of its
    kind."""
    seen = [i for i in np.unique(ids).tolist() if 32 < i < 127]
    chosen = vectors[seen] - vectors[seen].mean(axis=0)
    unit = chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-9)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -np.inf)
    kinds = [_kind(chr(i)) for i in seen]
    return 100 * float(np.mean([kinds[i] == kinds[j] for i, j in enumerate(scores.argmax(axis=1))]))


def _kind(character: str) -> str:
    if character.isdigit():
        return "digit"
    if character.isupper():
        return "capital"
    if character.isalpha():
        return "vowel" if character in "aeiou" else "consonant"
    return "mark"
