"""The claim of DefSent+ on WordNet: a small masked language model learns sentences from definitions.

The base is trained as a masked language model on the definitions, once for all arms and seeds: it has seen the texts
and no sentence vector.

untrained     the base as it is
tokens        DefSent: definitions predict words that are one token
one, two      DefSent+: definitions predict all entries; the second round has the first one's encoder make their vectors
components    one round with entries turned into independent components

sts      Spearman on the STS Benchmark's test, times 100
words    held-out definitions that find their entry among the first ten, by cosine, in percent
alike    the mean cosine of two different entries' vectors, times 100: smaller is more isotropic
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nextvec.data.catalog import locate
from nextvec.data.dictionary import Dictionary, read_dictionary
from nextvec.data.sources import Shuffled
from nextvec.evaluate.retrieval import dense_ranks
from nextvec.files import atomic_write
from nextvec.methods.defsent_plus import DefsentPlus, means
from nextvec.methods.starbucks import Starbucks
from nextvec.text_claims import Measured, TextScale, read_texts, scale_named, train, write_texts
from nextvec.text_method import TextMethod, encode_all
from nextvec.types import Check, Claim, Run

_BASE_SEED = 2405
ARMS: Mapping[str, Mapping[str, Any]] = {
    "untrained": {"rounds": 0},
    "tokens": {"rounds": 1, "target": "tokens"},
    "one": {"rounds": 1},
    "two": {"rounds": 2},
    "components": {"rounds": 1, "isotropy": "ica"},
}


@dataclass(frozen=True, kw_only=True)
class Scale(TextScale):
    """depth, vocab: of the base; masked: its steps of pre-training; entries: how many are taken, each of two or more
    definitions, one of which is held out; dictionary: "wordnet", or a stand-in made of the "titles"."""

    depth: int = 2
    vocab: int = 600
    masked: int = 3
    entries: int = 150
    dictionary: str = "titles"


_CPU = Scale(
    depth=4,
    vocab=8192,
    masked=600,
    entries=6000,
    dictionary="wordnet",
    steps=400,
    batch=64,
    lr=5e-4,
    train_length=40,
    eval_length=64,
    held=400,
    sts="benchmark",
)
SCALES = {
    "smoke": replace(Scale(), depth=1),  # narrower than it has entries, so that components are found
    "cpu": _CPU,
    "gpu": replace(_CPU, depth=8, vocab=30_000, masked=50_000, entries=27_000, steps=2000, device="auto"),
}


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    return Claim(
        statement="Definitions that predict all entries of a dictionary make better sentence vectors than those that"
        " predict words of one token, and both better ones than no training; a second round helps again.",
        arms={arm: partial(_arm, arm=arm, scale=scale) for arm in ARMS},
        checks=(
            Check(says="words of one token help", better="tokens.sts", worse="untrained.sts"),
            Check(says="all entries help more", better="one.sts", worse="tokens.sts"),
            Check(says="a second round helps again", better="two.sts", worse="one.sts"),
            Check(says="entries' vectors spread out", better="untrained.alike", worse="one.alike"),
            Check(says="and more so after a second round", better="one.alike", worse="two.alike"),
            Check(says="new definitions find their entries more often", better="one.words", worse="untrained.words"),
            Check(says="independent components help", better="components.sts", worse="one.sts"),
        ),
        # DefSent's own averages over seven STS sets with BERT-base and mean pooling; DefSent+'s are not at hand.
        paper={"tokens.sts": 75.44},
        prepare=partial(_prepare, scale=scale),
        config=asdict(scale),
    )


def _prepare(shared: Path, *, scale: Scale) -> None:
    """texts.json, dictionary.json and the base."""
    write_texts(shared, scale=scale)
    if scale.dictionary == "wordnet":
        (package,) = locate("wordnet").glob("wordnet-base*.deb")
        whole = read_dictionary(package)
    else:
        whole = _stand_in(read_texts(shared)["train"])
    counts = np.bincount(whole.owner, minlength=len(whole))
    random = np.random.default_rng(_BASE_SEED)
    several = random.permutation(np.flatnonzero(counts >= 2))[: scale.entries]
    chosen = whole.take(sorted(several.tolist()))
    with atomic_write(shared / "dictionary.json", "w") as stream:
        json.dump(asdict(chosen), stream, ensure_ascii=False)
    settings = Starbucks.Config(
        base="tiny", depth=scale.depth, vocab=scale.vocab, stage="smae", max_length=scale.train_length, seed=_BASE_SEED
    )
    whole_model = f"{scale.depth}x{64 * scale.depth}"
    method = Starbucks.start(replace(settings, sizes=(whole_model,)), chosen.definitions)
    run = Run(seed=_BASE_SEED, shared=shared, folder=shared, progress=lambda done, total: None)
    source = method.masked(chosen.definitions, batch=scale.batch, seed=_BASE_SEED)
    train(method, source, replace(scale, steps=scale.masked), run, name="masked")
    method.encoder().save(shared / "base")


def _stand_in(pairs: Sequence[tuple[str, str]]) -> Dictionary:
    """Words of titles, "defined" by the first sentences of their papers: where there is no WordNet."""
    number: dict[str, int] = {}
    found = [(word, sentence) for title, sentence in pairs for word in title.lower().split() if word.isalpha()]
    owner = [number.setdefault(word, len(number)) for word, _ in found]
    return Dictionary(list(number), [sentence for _, sentence in found], owner)


def _arm(run: Run, *, arm: str, scale: Scale) -> Mapping[str, float]:
    learned, held = divide(Dictionary(**json.loads((run.shared / "dictionary.json").read_text(encoding="utf-8"))))
    own = dict(ARMS[arm])
    rounds = own.pop("rounds")
    config = DefsentPlus.Config(base=str(run.shared / "base"), max_length=scale.train_length, seed=run.seed, **own)
    method = DefsentPlus.of(learned, config)
    for number in range(rounds):
        source = Shuffled(method.columns(learned), batch=scale.batch, seed=run.seed)
        done = number * scale.steps
        train(method, source, scale, run, name=f"round{number}", done=done, total=rounds * scale.steps)
        if number + 1 < rounds:
            teacher = run.folder / f"teacher{number}"
            if not teacher.exists():
                method.encoder().save(teacher)
            method = DefsentPlus.of(learned, replace(config, teacher=str(teacher)))
    return {
        **Measured(method.vectors, method.text_tokenizer(), read_texts(run.shared), scale).points(),
        **_found(method, learned, held),
    }


def divide(dictionary: Dictionary) -> tuple[Dictionary, Dictionary]:
    """All entries with all definitions but the last, and with the last alone."""
    last = {own: i for i, own in enumerate(dictionary.owner)}
    held = set(last.values())
    parts = [[i for i in range(len(dictionary.owner)) if (i in held) == wanted] for wanted in (False, True)]
    learned, kept = (
        Dictionary(dictionary.entries, [dictionary.definitions[i] for i in part], [dictionary.owner[i] for i in part])
        for part in parts
    )
    return learned, kept


def _found(method: TextMethod, learned: Dictionary, held: Dictionary) -> dict[str, float]:
    """``words`` and ``alike``."""
    device = str(next(method.parameters()).device)
    made = []
    for part in (learned, held):
        ids = method.text_tokenizer().encode(part.definitions, max_length=method.config.max_length)
        made.append(encode_all(method.vectors, ids, device))
    entries = means(made[0], learned)
    entries, asked = (
        rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (entries, made[1])
    )
    ranks = dense_ranks(asked, entries, np.array(held.owner))
    count = len(entries)
    alike = (float(np.square(entries.sum(0)).sum()) - count) / (count * (count - 1))
    return {"words": 100 * float((ranks <= 10).mean()), "alike": 100 * alike}
