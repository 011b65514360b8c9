"""The steps of nextvec-mini's recipe (see ``mini.py``): vocabulary, distillation, contrastive training.

Every costly result is kept in the work folder under a hash of what it depends on: an interrupted run goes on there.
Legend: N texts, V vocabulary, H width of the teacher, D width of the rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nextvec.data.titles import Paper
from nextvec.files import atomic_write
from nextvec.recipes.corpus import halves
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
    all). ``repeat``: how often general texts are counted when the vocabulary is learned: there are few beside the
    papers'. ``blend``: the weight of the contrastive rows in the final average with the distilled ones."""

    vocabulary: int = 32_000
    dims: tuple[int, ...] = (32, 64, 128, 256)
    teacher_papers: int = 20_480
    repeat: int = 3
    distil: Stage = field(default_factory=lambda: Stage(steps=400, batch=2048, general=2048, learning_rate=2e-3))
    contrast: Stage = field(
        default_factory=lambda: Stage(steps=300, batch=2048, general=2048, learning_rate=5e-3, distill_weight=2.0)
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
    papers: Sequence[Paper],
    teacher: TeacherLike,
    recipe: Recipe,
    work: Path,
    *,
    general: Sequence[str] = (),
    report: Reporter = silent,
) -> Prepared:
    """Steps 1 and 2, and the training views. general: texts of general English."""
    titles = [paper.title for paper in papers]
    abstracts = [paper.abstract for paper in papers]
    digest = _digest(
        recipe.vocabulary, recipe.teacher_papers, recipe.repeat, max(recipe.dims), titles, abstracts, list(general)
    )
    texts = [*titles, *abstracts, *list(general) * recipe.repeat]
    tokenizer, counts = _vocabulary(texts, recipe, work / f"vocabulary-{digest}")
    firsts, seconds = zip(*(halves(abstract) for abstract in abstracts), strict=True)

    def teach(what: str, texts: Sequence[str]) -> NDArray[np.float16]:
        return teacher.encode_cached(texts, work / "teacher", progress=report(f"teacher: {what}"))

    teacher_titles = teach("titles", titles)
    teacher_firsts = teach("half abstracts", firsts[: recipe.teacher_papers])
    teacher_general = teach("general texts", general) if general else teacher_firsts[:0]
    known = len(teacher_firsts)
    axes = principal_axes(
        np.concatenate([teacher_titles[:known], teacher_firsts, teacher_general[:known]]), max(recipe.dims)
    )
    rows = initial_table(teach("tokens", surface(tokenizer)), counts, axes)
    views = Views(
        titles=Bags.of(tokenizer, titles),
        abstracts=Bags.of(tokenizer, abstracts),
        firsts=Bags.of(tokenizer, firsts),
        seconds=Bags.of(tokenizer, seconds),
        general=Bags.of(tokenizer, general),
        teacher_titles=_turned(teacher_titles, axes),
        teacher_firsts=_turned(teacher_firsts, axes),
        teacher_general=_turned(teacher_general, axes),
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


def _vocabulary(texts: Sequence[str], recipe: Recipe, folder: Path) -> tuple[Any, NDArray[np.int64]]:
    from tokenizers import Tokenizer

    names = folder / "tokenizer.json", folder / "counts.npy"
    if not all(name.exists() for name in names):
        tokenizer, counts = train_tokenizer(texts, size=recipe.vocabulary)
        with atomic_write(names[0]) as stream:
            stream.write(tokenizer.to_str().encode())
        with atomic_write(names[1]) as stream:
            np.save(stream, counts)
    return Tokenizer.from_file(str(names[0])), np.load(names[1])


def _turned(vectors: NDArray[np.float16], axes: NDArray[np.float32]) -> NDArray[np.float16]:
    """Unit vectors [N, H] on the axes [H, D], block by block."""
    blocks = [unit(vectors[i : i + 8192]) @ axes for i in range(0, max(len(vectors), 1), 8192)]
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
