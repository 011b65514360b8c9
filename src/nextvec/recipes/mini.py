"""Train nextvec-mini, the bundled encoder: ``python -m nextvec.recipes.mini --data DIR --teacher DIR --out
DIR``.

1. Vocabulary: WordPiece over the training papers, and the counts of its tokens.
2. Token distillation: the teacher's vector of every token alone, turned onto the principal axes of its
document
   vectors, weighted by frequency.
3. Document distillation: the rows are trained so that mean vectors of titles and half abstracts follow the
teacher. 4. Contrastive training: a title finds its own abstract among those of the batch, at every nested
width, while the
   distillation goes on beside it.
5. The rows of steps 3 and 4 are averaged: titles alone teach the model to expect titles, and the average
keeps
   more of the teacher for other queries (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models",
   arXiv 2109.01903).
6. The rows become int8 with a scale each.

Every costly result is kept in the work folder under a hash of what it depends on: an interrupted run goes on
there. The papers that the evaluation uses (see ``corpus.py``) take part in no step. Legend: V vocabulary, D
width.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nextvec.data.bundled import daily_papers
from nextvec.files import atomic_write, cache_home
from nextvec.recipes.corpus import Corpus, Pair, halves, load_corpus
from nextvec.recipes.package import write_model
from nextvec.recipes.static_table import Bags, initial_table, principal_axes, unit
from nextvec.recipes.training import Stage, Views, contrast, distil
from nextvec.recipes.vocabulary import surface, train_tokenizer
from nextvec.types import Progress

__all__ = ["Prepared", "Recipe", "TeacherLike", "prepare", "train"]

Reporter = Callable[[str], Progress]


class TeacherLike(Protocol):
    """What the recipe needs of a teacher (``Teacher``, or a function of a test)."""

    def encode_cached(
        self, texts: Sequence[str], folder: Path, *, progress: Progress | None = None
    ) -> NDArray[np.float16]:
        """float16 [N, H], kept in ``folder``."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings. ``teacher_papers``: how many papers' half abstracts the teacher encodes (its titles:
    all). ``blend``: the weight of the contrastive rows in the final average with the distilled ones."""

    vocabulary: int = 32_000
    dims: tuple[int, ...] = (32, 64, 128, 256)
    teacher_papers: int = 40_960
    distil: Stage = field(default_factory=lambda: Stage(steps=200, batch=2048, learning_rate=2e-3))
    contrast: Stage = field(
        default_factory=lambda: Stage(steps=300, batch=2048, learning_rate=5e-3, distill_weight=2.0)
    )
    blend: float = 0.7


@dataclass(frozen=True, slots=True)
class Prepared:
    """What all seeds share: the tokenizer, token-distilled rows float32 [V, D], the training views, and a
    hash of everything they were made from."""

    tokenizer: Any
    rows: NDArray[np.float32]
    views: Views
    digest: str


def silent(_: str) -> Progress:
    """A reporter that says nothing."""
    return lambda done, total: None


def prepare(
    papers: Sequence[Pair], teacher: TeacherLike, recipe: Recipe, work: Path, *, report: Reporter = silent
) -> Prepared:
    """Steps 1 and 2, and the training views."""
    titles = [paper.title for paper in papers]
    abstracts = [paper.abstract for paper in papers]
    digest = _digest(recipe.vocabulary, recipe.teacher_papers, max(recipe.dims), titles, abstracts)
    tokenizer, counts = _vocabulary(titles, abstracts, recipe, work / f"vocabulary-{digest}")
    firsts, seconds = zip(*(halves(abstract) for abstract in abstracts), strict=True)

    def teach(what: str, texts: Sequence[str]) -> NDArray[np.float16]:
        return teacher.encode_cached(texts, work / "teacher", progress=report(f"teacher: {what}"))

    teacher_titles = teach("titles", titles)
    teacher_firsts = teach("half abstracts", firsts[: recipe.teacher_papers])
    known = len(teacher_firsts)
    axes = principal_axes(np.concatenate([teacher_titles[:known], teacher_firsts]), max(recipe.dims))
    rows = initial_table(teach("tokens", surface(tokenizer)), counts, axes)
    views = Views(
        titles=Bags.of(tokenizer, titles),
        abstracts=Bags.of(tokenizer, abstracts),
        firsts=Bags.of(tokenizer, firsts),
        seconds=Bags.of(tokenizer, seconds),
        teacher_titles=_turned(teacher_titles, axes),
        teacher_firsts=_turned(teacher_firsts, axes),
    )
    return Prepared(tokenizer, rows, views, _digest(digest, tokenizer.to_str()))


def train(
    prepared: Prepared, recipe: Recipe, work: Path, *, seed: int, report: Reporter = silent
) -> dict[str, NDArray[np.float32]]:
    """Steps 3 to 5: rows [V, D] after each step, "tokens", "distilled", "contrastive", "final"."""
    first = _digest(prepared.digest, asdict(recipe.distil), recipe.dims, seed)
    distilled = _kept(
        work / f"distilled-{first}.npy",
        lambda: distil(
            prepared.rows, prepared.views, recipe.distil, dims=recipe.dims, seed=seed, progress=report("distil")
        ),
    )
    second = _digest(first, asdict(recipe.contrast))
    contrastive = _kept(
        work / f"contrastive-{second}.npy",
        lambda: contrast(
            distilled, prepared.views, recipe.contrast, dims=recipe.dims, seed=seed, progress=report("contrast")
        ),
    )
    final = (recipe.blend * contrastive + (1 - recipe.blend) * distilled).astype(np.float32)
    return {"tokens": prepared.rows, "distilled": distilled, "contrastive": contrastive, "final": final}


def _vocabulary(
    titles: Sequence[str], abstracts: Sequence[str], recipe: Recipe, folder: Path
) -> tuple[Any, NDArray[np.int64]]:
    from tokenizers import Tokenizer

    names = folder / "tokenizer.json", folder / "counts.npy"
    if not all(name.exists() for name in names):
        tokenizer, counts = train_tokenizer([*titles, *abstracts], size=recipe.vocabulary)
        with atomic_write(names[0]) as stream:
            stream.write(tokenizer.to_str().encode())
        with atomic_write(names[1]) as stream:
            np.save(stream, counts)
    return Tokenizer.from_file(str(names[0])), np.load(names[1])


def _turned(vectors: NDArray[np.float16], axes: NDArray[np.float32]) -> NDArray[np.float16]:
    """Unit vectors [N, H] on the axes [H, D], block by block."""
    blocks = [unit(vectors[i : i + 8192]) @ axes for i in range(0, len(vectors), 8192)]
    return np.concatenate(blocks).astype(np.float16)


def _kept(path: Path, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    if not path.exists():
        rows = make()
        with atomic_write(path) as stream:
            np.save(stream, rows)
    loaded: NDArray[np.float32] = np.load(path)
    return loaded


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _said(label: str) -> Progress:
    """Progress as a line on standard error, ten per task."""

    def report(done: int, total: int | None) -> None:
        step = max(1, (total or done) // 10)
        if total and (done == total or done * 10 // total != max(0, done - step) * 10 // total):
            print(f"{label}: {done}/{total}", file=sys.stderr, flush=True)

    return report


def read_corpus(data: Path) -> Corpus:
    """Training papers and evaluation sets: the data folder's, and the bundled daily papers."""
    records = daily_papers(columns=["id", "title", "summary", "source"]).to_pylist()
    return load_corpus(data, (record for record in records if record["source"] == "daily_papers"))


def main() -> None:
    """Train with every seed, write the first seed's model, and measure all of them where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the data folder ($NEXTVEC_DATA)")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets the model")
    parser.add_argument("--work", type=Path, default=cache_home() / "recipes" / "nextvec-mini")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, help="steps of the contrastive stage")
    parser.add_argument("--report", type=Path, help="measure on held-out papers and write this JSON file")
    arguments = parser.parse_args()

    from nextvec.recipes.mini_report import measure
    from nextvec.recipes.teacher import Teacher

    recipe = Recipe()
    if arguments.steps:
        recipe = Recipe(contrast=Stage(**{**asdict(recipe.contrast), "steps": arguments.steps}))
    corpus = read_corpus(arguments.data)
    teacher = Teacher(arguments.teacher)
    prepared = prepare(corpus.train, teacher, recipe, arguments.work, report=_said)
    stages = {}
    for seed in arguments.seeds:
        stages[seed] = train(prepared, recipe, arguments.work, seed=seed, report=_said)
    rows = stages[arguments.seeds[0]]["final"]
    size = write_model(arguments.out, prepared.tokenizer, rows, nested_dims=recipe.dims)
    print(f"{arguments.out}: {size:,} bytes")
    if arguments.report:
        results = measure(corpus, prepared, stages, recipe, teacher, arguments.work, data=arguments.data)
        with atomic_write(arguments.report, "w") as stream:
            stream.write(json.dumps(results, indent=1) + "\n")
        print(f"{arguments.report}: written")


if __name__ == "__main__":
    main()
