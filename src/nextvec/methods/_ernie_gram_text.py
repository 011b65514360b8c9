"""The second part of ERNIE-Gram's claim: abstracts of arXiv, their categories as the probe.

Legend: n texts.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nextvec.data.labelled import LabelledSplit, arxiv_categories
from nextvec.data.tokenizers import TextTokenizer, load_tokenizer, train_bpe
from nextvec.files import atomic_write
from nextvec.language_claims import abstracts
from nextvec.methods._ernie_gram_parts import Lexicon

__all__ = ["Abstracts", "write_abstracts"]

_MINED = (
    10_000  # abstracts that the lexicon is mined from: n-grams that are rarer than these show are not among the best
)


class Abstracts:
    """What ``write_abstracts`` made, as tokens: ``learned``, pieces to learn from; ``fit`` and ``held``, the first
    piece of abstracts that are not among those, with ``fit_labels`` and ``held_labels``, int [n]; ``grams``."""

    def __init__(self, shared: Path, length: int) -> None:
        tokenizer = load_tokenizer(shared / "tokenizer")
        assert isinstance(tokenizer, TextTokenizer) and tokenizer.mask is not None
        self.tokenizer, self.mask = tokenizer, tokenizer.mask
        made: Mapping[str, Any] = json.loads((shared / "abstracts.json").read_text(encoding="utf-8"))
        self.learned = [
            text[i : i + length]
            for text in tokenizer.encode(made["learned"], special=False)
            for i in range(0, len(text), length)
        ]
        self.fit, self.held = (
            [text[:length] for text in tokenizer.encode(made[part], special=False)] for part in ("fit", "held")
        )
        self.fit_labels, self.held_labels = (list(map(int, made[f"{part}_labels"])) for part in ("fit", "held"))
        self.grams = tuple(tuple(gram) for gram in made["grams"])


def write_abstracts(
    shared: Path, *, count: int, vocab: int, pairs: int, triples: int, categories: LabelledSplit | None = None
) -> None:
    """Make abstracts.json and the tokenizer: ``count`` abstracts to learn from, less those of the papers whose
    categories are to be told; a BPE of ``vocab`` tokens and a lexicon, both of what is learned from.

    categories: texts "title\\nabstract" with their classes (None: ``arxiv_categories``). NotFoundError where that set
    is not on this machine.
    """
    split = categories or arxiv_categories()
    fit, held = ([_abstract(text) for text in part.texts] for part in (split.train, split.test))
    apart = {*fit, *held}
    learned = [text for text in abstracts(count) if text not in apart]
    tokenizer = train_bpe(learned, vocab=vocab)
    tokenizer.save(shared / "tokenizer")
    mined = tokenizer.encode(list(itertools.islice(learned, _MINED)), special=False)
    made: dict[str, Sequence[Any]] = {
        "learned": learned,
        "fit": fit,
        "held": held,
        "fit_labels": split.train.labels.tolist(),
        "held_labels": split.test.labels.tolist(),
        "grams": Lexicon.mine(mined, tokenizer.vocab, pairs=pairs, triples=triples).grams,
    }
    with atomic_write(shared / "abstracts.json", "w") as stream:
        json.dump(made, stream, ensure_ascii=False)


def _abstract(text: str) -> str:
    return text.partition("\n")[2]
