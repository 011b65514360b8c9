"""DefSent+: a definition finds its word among all entries of a dictionary, whose vectors are made of definitions.

A dictionary says in a sentence what a word means: an encoder whose vector of the definition predicts the word learns
sentences without labels. DefSent asks for the word's row in the encoder's own table of tokens, so that it can use words
of one token only. DefSent+ gives every entry a vector of its own: the mean of its definitions' vectors, by the encoder
before training.

    E_e  = mean over the definitions x of e of  pool(enc_0(x))                 no gradient
    loss = -log softmax( E g(pool(enc(x))) )[e],     g(v) = tanh(W v + b), used in training alone

Progressive separate training: the encoder of one round makes E for the next, which starts from the first encoder again.
The entries' vectors may be turned into independent components (ICA) before that.

    symbol   here                       shape
    x        batch "text"               Ragged ids
    e        batch "label"              int64 [B]
    E        ``entries``                [K, D]
    logits   out "logits"               [B, K]

Source: "DefSent+", 2024 (arXiv 2405.16153); its parent is DefSent, 2021 (arXiv 2105.04339).
Legend: B definitions, K entries, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nextvec.data.dictionary import Dictionary, read_dictionary
from nextvec.data.sources import Columns, Shuffled
from nextvec.data.tokenizers import TextTokenizer
from nextvec.extras import require
from nextvec.objectives.base import Objective
from nextvec.objectives.labels import Labels
from nextvec.text_method import TextConfig, TextMethod, encode_all
from nextvec.types import Batch, Card, Claim, InputError, did_you_mean

if TYPE_CHECKING:
    from nextvec.data.sources import Source

TARGETS = ("entries", "tokens")
_TOY = {
    "dog": ("an animal that barks", "a beast that guards a house"),
    "rain": ("water that falls from clouds",),
    "to run": ("move fast on foot", "go at a great pace"),
    "old": ("of great age",),
    "a red house": ("a home the colour of blood",),
    "salt": ("a white stuff that seasons food",),
}


class DefsentPlus(TextMethod):
    """A text encoder learned from a dictionary."""

    card = Card(
        name="defsent_plus",
        title="DefSent+: Improving Sentence Embeddings of Language Models by Projecting Definition Sentences",
        arxiv="2405.16153",
        year=2024,
        family="text embeddings",
        claim="Definitions that predict all entries of a dictionary make better sentence vectors than those that"
        " predict words of one token, and both better ones than no training; a second round helps again.",
        differs=(
            "Bases are small; WordNet alone is the dictionary, the paper adds Oxford's.",
            "g starts from random weights, the paper's from the model's own pooler or the head of its masked language"
            " model.",
            "The baseline DefSent (target=tokens) predicts a row of a frozen copy of the table of tokens; its paper"
            " freezes the model's own table and uses its masked language model's head.",
            "The factor on the independent components is 1; the paper's code multiplies them by 100.",
            "A round is a run: the next is given the one before as teacher, and starts from the base.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=5e-5", "optim.weight_decay=0.0", "schedule.warmup=0.0")
    sample: ClassVar[str] = "words"
    direction: ClassVar[Mapping[str, str]] = {"labels": "down", "labels_accuracy": "up"}

    @dataclass(kw_only=True)
    class Config(TextConfig):
        """target: what a definition predicts, its "entries" vector (DefSent+) or "tokens", the row of a word of one
        token (DefSent). teacher: the encoder that makes the entries' vectors, a folder or hub id; "": the base itself
        (the first round). isotropy: "none", or "ica" (needs scikit-learn). entries: K, filled in by ``prepare``. The
        others are those of every text method (``text_method.py``)."""

        target: str = "entries"
        teacher: str = ""
        isotropy: str = "none"
        entries: int = 0

    entries: Tensor

    def __init__(self, config: Any, *, tokenizer: TextTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        for name, known in (("target", TARGETS), ("isotropy", ("none", "ica"))):
            value = getattr(config, name)
            if value not in known:
                close = did_you_mean(value, known)
                raise InputError(f"{name} is {value!r}; expected one of {', '.join(known)}{close}")
        dim = self.transformer.config.dim
        self.project = nn.Linear(dim, dim)
        self.register_buffer("entries", torch.zeros(config.entries, dim))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """logits [B, K] of definitions."""
        vectors = torch.tanh(self.project(self.vectors(batch.ragged("text"))))
        return {"logits": vectors @ self.entries.T}

    def objective(self) -> Objective:
        return Labels()

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: records with "entry" and "definition", or WordNet's package; see ``data/dictionary.py``."""
        dictionary = read_dictionary(data)
        method = cls.of(dictionary, replace(config, seed=seed))
        return method, Shuffled(method.columns(dictionary), batch=min(batch, len(dictionary)), seed=seed)

    @classmethod
    def of(cls, dictionary: Dictionary, config: Any) -> Self:
        """The method with its base's weights and the entries' vectors."""
        base = cls.start(replace(config, entries=0), [*dictionary.entries, *dictionary.definitions])
        if config.target == "tokens":
            rows = base.transformer.head_weight().detach().clone()
        else:
            rows = torch.from_numpy(isotropic(base.entry_vectors(dictionary), config.isotropy, seed=config.seed))
        method = cls(replace(base.config, entries=len(rows)), tokenizer=base.text_tokenizer())
        method.transformer.load_state_dict(base.transformer.state_dict())
        method.entries.copy_(rows)
        return method

    def entry_vectors(self, dictionary: Dictionary) -> NDArray[np.float32]:
        """float32 [K, D]: the mean of its definitions' vectors for every entry, by ``teacher``, or by this model."""
        if self.config.teacher:
            from nextvec.encoder import Encoder

            encoder = Encoder.load(self.config.teacher, max_length=self.config.max_length)
            rows = np.asarray(encoder.encode(dictionary.definitions, normalize=False), np.float32)
        else:
            self.eval()
            ids = self.text_tokenizer().encode(dictionary.definitions, max_length=self.config.max_length)
            rows = encode_all(self.vectors, ids, str(next(self.parameters()).device))
        if rows.shape[1] != self.transformer.config.dim:
            width = self.transformer.config.dim
            raise InputError(f"the teacher's vectors are {rows.shape[1]} wide, the base's {width}: they must be alike")
        return means(rows, dictionary)

    def columns(self, dictionary: Dictionary) -> Columns:
        """ "text" and "label" of all definitions; of the target "tokens", those of words of one token."""
        tokenizer, length = self.text_tokenizer(), self.config.max_length
        label, kept = dictionary.owner, range(len(dictionary.owner))
        if self.config.target == "tokens":
            # A byte-level vocabulary has the token of a word with the space before it; others pass over the space.
            spelled = tokenizer.encode([f" {entry}" for entry in dictionary.entries], special=False)
            single = {i: ids[0] for i, ids in enumerate(spelled) if len(ids) == 1}
            chosen = [i for i in kept if dictionary.owner[i] in single]
            if len({dictionary.owner[i] for i in chosen}) < 2:
                raise InputError("the target 'tokens' needs words that are one token each; take 'entries' instead")
            texts, label = [dictionary.definitions[i] for i in chosen], [single[dictionary.owner[i]] for i in chosen]
        else:
            texts = dictionary.definitions
        return Columns({"text": tokenizer.encode(texts, max_length=length), "label": label})

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Six entries with eight definitions, and a model of two layers."""
        entries = list(_TOY)
        owner = [i for i, entry in enumerate(entries) for _ in _TOY[entry]]
        dictionary = Dictionary(entries, [text for entry in entries for text in _TOY[entry]], owner)
        method = cls.of(dictionary, cls.Config(depth=2, vocab=300, max_length=24, seed=seed))
        return method, Shuffled(method.columns(dictionary), batch=len(owner), seed=seed).batch(0)

    @staticmethod
    def claim(scale: str) -> Claim:
        """Untrained, DefSent, and one and two rounds of DefSent+ on WordNet."""
        from nextvec.methods._defsent_plus_claim import claim

        return claim(scale)


def means(rows: NDArray[np.float32], dictionary: Dictionary) -> NDArray[np.float32]:
    """[n, D] to [K, D]: the mean of the rows of every entry's definitions."""
    total = np.zeros((len(dictionary), rows.shape[1]))
    np.add.at(total, dictionary.owner, rows)
    counts = np.bincount(dictionary.owner, minlength=len(dictionary))
    return (total / np.maximum(counts, 1)[:, None]).astype(np.float32)


def isotropic(rows: NDArray[np.float32], how: str, *, seed: int) -> NDArray[np.float32]:
    """The rows [K, D] as they are ("none"), or standardised and turned into D independent components ("ica")."""
    if how == "none":
        return rows
    decomposition = require("sklearn.decomposition", why="isotropy='ica'")
    if len(rows) <= rows.shape[1]:
        raise InputError(
            f"ICA of {len(rows)} entries in {rows.shape[1]} dimensions; more entries than those are needed"
        )
    scaled = (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-6)
    ica = decomposition.FastICA(whiten="unit-variance", tol=1e-4, max_iter=1000, random_state=seed)
    return np.asarray(ica.fit_transform(scaled), np.float32)
