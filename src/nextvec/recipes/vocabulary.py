"""The vocabulary of a static encoder: lower-case WordPiece learned from the training papers, fast to apply.

V tokens.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["count_tokens", "surface", "train_tokenizer"]

UNKNOWN = "[UNK]"
PREFIX = "##"


def train_tokenizer(texts: Sequence[str], *, size: int, alphabet: int = 200) -> tuple[Any, NDArray[np.int64]]:
    """A tokenizer of at most ``size`` tokens and how often each occurs in ``texts``: int64 [V].

    Lower case; runs of letters and digits are words (what lies between them is dropped: a mean of token vectors has
    no use for it, and it costs a fifth of the time); WordPiece inside words. ``alphabet`` bounds the single
    characters that are kept. Ids are given by descending count, then alphabetically: training twice gives the same
    file, and frequent rows lie together in memory.
    """
    from tokenizers import trainers

    # The trainer breaks ties by character ids, which it hands out in an order that differs from run to run, and so
    # does its choice among equally frequent characters: both are fixed here.
    kept = _frequent_characters(texts, alphabet)
    learned = _tokenizer({UNKNOWN: 0})
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=3,
        initial_alphabet=kept,
        limit_alphabet=len(kept),
        special_tokens=[UNKNOWN, *(PREFIX + character for character in kept)],
        continuing_subword_prefix=PREFIX,
        show_progress=False,
    )
    learned.train_from_iterator(texts, trainer)
    counts = count_tokens(learned, texts)
    tokens = {learned.id_to_token(i): int(count) for i, count in enumerate(counts)}
    ordered = sorted(tokens, key=lambda token: (token != UNKNOWN, -tokens[token], token))
    return (
        _tokenizer({token: i for i, token in enumerate(ordered)}),
        np.array([tokens[token] for token in ordered], dtype=np.int64),
    )


def _frequent_characters(texts: Sequence[str], count: int) -> list[str]:
    found: Counter[str] = Counter()
    for text in texts:
        found.update(text.lower())
    characters = sorted((c for c in found if c.isalnum()), key=lambda c: (-found[c], c))
    return characters[:count]


def _tokenizer(vocabulary: dict[str, int]) -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    model = models.WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=60)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\p{L}\p{N}]+"), "removed")
    return tokenizer


def surface(tokenizer: Any) -> list[str]:
    """The text of each token in id order, V strings, without the continuation prefix."""
    return [tokenizer.id_to_token(i).removeprefix(PREFIX) for i in range(tokenizer.get_vocab_size())]


def count_tokens(tokenizer: Any, texts: Sequence[str], *, chunk: int = 4096) -> NDArray[np.int64]:
    """How often each token occurs in ``texts``: int64 [V]."""
    size = tokenizer.get_vocab_size()
    counts = np.zeros(size, dtype=np.int64)
    for start in range(0, len(texts), chunk):
        encodings = tokenizer.encode_batch_fast(list(texts[start : start + chunk]), add_special_tokens=False)
        ids = np.fromiter(itertools.chain.from_iterable(e.ids for e in encodings), np.int64)
        counts += np.bincount(ids, minlength=size)
    return counts
