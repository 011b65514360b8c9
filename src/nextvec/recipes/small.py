"""Train nextvec-small: ``python -m nextvec.recipes.small --data DIR --teacher DIR --out DIR``.

A transformer that follows a large one at every depth and width.

1. A table of token vectors, as nextvec-mini is made (``mini.py``), with a smaller vocabulary.
2. The transformer starts as that table: its blocks add nothing yet, and its norms let lengths through (see
   ``small_model.start_from``).
3. First stage: titles, first halves of abstracts and general texts point where the teacher's vectors do, at every width
   and every depth.
4. Second stage: a title finds its own abstract among those of the batch, while the distillation goes on beside it.
5. Weights are stored as float16: a folder that Hugging Face's library and sentence-transformers open.

The teacher's vectors and checkpoints are kept in the work folder: an interrupted run goes on there. The papers that the
evaluation uses take part in no step. Legend: n texts, k kinds of text, V vocabulary, D width.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextvec import config
from nextvec.data.sources import Shuffled, Source
from nextvec.data.titles import Paper
from nextvec.data.tokenizers import TextTokenizer
from nextvec.engine.engine import Engine, TrainConfig
from nextvec.engine.optim import OptimConfig
from nextvec.engine.schedule import ScheduleConfig
from nextvec.files import cache_home
from nextvec.nn.save import new_folder
from nextvec.recipes.corpus import general_texts, halves
from nextvec.recipes.mini import read_corpus, said
from nextvec.recipes.mini_steps import Recipe as TableRecipe
from nextvec.recipes.mini_steps import Reporter, TeacherLike, prepare, silent
from nextvec.recipes.mini_steps import train as train_table
from nextvec.recipes.small_model import SmallConfig, SmallEmbedder, shape_of, start_from
from nextvec.recipes.teacher import Teacher
from nextvec.recipes.training import Views
from nextvec.types import ConflictError, NextvecError

__all__ = ["Recipe", "train_small"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training: AdamW with warm-up over a tenth of the steps and cosine decay. length: tokens of a text."""

    steps: int
    batch: int
    lr: float
    length: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings. table: how the table is made that the model starts as; weight: of the contrastive loss in the
    second stage; positions: the longest text, in tokens."""

    table: TableRecipe = field(default_factory=lambda: TableRecipe(vocabulary=20_000, dims=(64, 128, 256)))
    layers: int = 3
    heads: int = 4
    ffn: int = 768
    positions: int = 256
    distil: Stage = field(default_factory=lambda: Stage(steps=6000, batch=128, lr=1e-3, length=96))
    contrast: Stage = field(default_factory=lambda: Stage(steps=200, batch=64, lr=3e-4, length=160))
    weight: float = 0.2
    seed: int = 0


def train_small(
    papers: Sequence[Paper],
    general: Sequence[str],
    teacher: TeacherLike,
    recipe: Recipe,
    work: Path,
    *,
    report: Reporter = silent,
) -> SmallEmbedder:
    """Steps 1 to 4; the trained model."""
    prepared = prepare(papers, teacher, recipe.table, work, general=general, report=report)
    rows = train_table(prepared, recipe.table, work, seed=recipe.seed, report=report)["final"]
    tokenizer, views = _tokenizer(prepared.tokenizer), prepared.views
    model = _started(tokenizer, recipe, rows)

    titles, abstracts = [paper.title for paper in papers], [paper.abstract for paper in papers]
    firsts = [halves(abstract)[0] for abstract in abstracts[: len(views.teacher_firsts)]]
    taught = np.concatenate([views.teacher_titles, views.teacher_firsts, views.teacher_general])
    texts = [*titles, *firsts, *general]
    digest = _digest(recipe, prepared.digest)
    first = Shuffled(
        {"text": tokenizer.encode(texts, max_length=recipe.distil.length), "teacher": taught[:, None]},
        batch=min(recipe.distil.batch, len(texts)),
        seed=recipe.seed,
    )
    _train(model, first, recipe.distil, recipe, work / f"distil-{digest}", report("first stage"))
    if recipe.contrast.steps:
        model.config.contrast = recipe.weight
        second = _pairs(titles, abstracts, [*firsts, *general], views, tokenizer, recipe)
        _train(model, second, recipe.contrast, recipe, work / f"contrast-{digest}", report("second stage"))
    return model


def _pairs(
    titles: Sequence[str],
    abstracts: Sequence[str],
    texts: Sequence[str],
    views: Views,
    tokenizer: TextTokenizer,
    recipe: Recipe,
) -> Source:
    """Titles and abstracts, each row with one further text that the teacher read: half of them first halves."""
    known = len(views.teacher_firsts)
    random = np.random.default_rng(recipe.seed)
    pool = np.concatenate([np.arange(known), known + random.permutation(len(texts) - known)[:known]])
    chosen = random.choice(pool, size=known, replace=False)
    taught = np.concatenate([views.teacher_firsts, views.teacher_general])
    length = recipe.contrast.length
    return Shuffled(
        {
            "query": tokenizer.encode(titles[:known], max_length=length),
            "document": tokenizer.encode(abstracts[:known], max_length=length),
            "text": tokenizer.encode([texts[i] for i in chosen], max_length=recipe.distil.length),
            "teacher": np.stack([views.teacher_titles[:known], taught[chosen]], axis=1),
        },
        batch=min(recipe.contrast.batch, known),
        seed=recipe.seed + 1,
    )


def _tokenizer(table: Any) -> TextTokenizer:
    """The table's tokenizer with a token that stands before every text, so that one without words is read too."""
    from tokenizers import Tokenizer, processors

    inner = Tokenizer.from_str(table.to_str())
    inner.add_special_tokens(["[CLS]", "[PAD]"])
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A $B", special_tokens=[("[CLS]", inner.token_to_id("[CLS]"))]
    )
    return TextTokenizer(inner, roles={"pad": "[PAD]"})


def _started(tokenizer: TextTokenizer, recipe: Recipe, rows: NDArray[np.float32]) -> SmallEmbedder:
    """The model before training; ``rows`` [V', D] are the table's, the first of its own."""
    dims = recipe.table.dims
    shape = shape_of(
        tokenizer.vocab,
        dim=max(dims),
        layers=recipe.layers,
        heads=recipe.heads,
        ffn=recipe.ffn,
        length=recipe.positions,
    )
    torch.manual_seed(recipe.seed)
    settings = SmallConfig(
        shape=shape,
        max_length=recipe.positions,
        seed=recipe.seed,
        dims=dims,
        depths=tuple(range(1, recipe.layers + 1)),
    )
    model = SmallEmbedder(settings, tokenizer=tokenizer)
    start_from(model.transformer, rows)
    return model


def _train(model: SmallEmbedder, source: Source, stage: Stage, recipe: Recipe, folder: Path, progress: Any) -> None:
    engine = Engine(
        model,
        TrainConfig(
            steps=stage.steps,
            batch=stage.batch,
            optim=OptimConfig(lr=stage.lr, weight_decay=0.01),
            schedule=ScheduleConfig(name="cosine", warmup=0.1),
            seed=recipe.seed,
            save_every=max(stage.steps // 10, 50),
            keep=1,
        ),
        device="cpu",
    )
    engine.fit(source, folder=folder, on_step=lambda state: progress(state.step, state.steps))
    model.eval()


def write_small(model: SmallEmbedder, folder: Path) -> int:
    """Write the model's folder, weights in float16; its size in bytes."""
    from safetensors.torch import load_file, save_file

    encoder = model.encoder()
    with new_folder(folder) as made:
        encoder.save(made / "model")
        for path in (made / "model").iterdir():
            path.rename(made / path.name)
        (made / "model").rmdir()
        weights = load_file(made / "model.safetensors")
        halved = {name: value.half().contiguous() for name, value in weights.items()}
        save_file(halved, made / "model.safetensors", metadata={"format": "pt"})
        settings = json.loads((made / "config.json").read_text(encoding="utf-8"))
        settings["dtype"] = "float16"
        (made / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _digest(recipe: Recipe, prepared: str) -> str:
    return hashlib.sha256(json.dumps([asdict(recipe), prepared], sort_keys=True).encode()).hexdigest()[:16]


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks."""
    recipe = config.override(Recipe(), arguments.changes)
    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise ConflictError(f"{str(arguments.out)!r} exists and is not empty: choose another folder")  # not in an hour
    corpus = read_corpus(arguments.data)
    general = general_texts(arguments.data)
    model = train_small(corpus.train, general, Teacher(arguments.teacher), recipe, arguments.work, report=said)
    print(f"{arguments.out}: {write_small(model, arguments.out):,} bytes")


def main() -> None:
    """Train and write the model; ``nextvec evaluate --model OUT`` measures it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the data folder ($NEXTVEC_DATA)")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets the model")
    parser.add_argument("--work", type=Path, default=cache_home() / "recipes" / "nextvec-small")
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="e.g. distil.steps=4800"
    )
    try:
        run(parser.parse_args())
    except NextvecError as error:
        raise SystemExit(f"nextvec.recipes.small: {error}") from error


if __name__ == "__main__":
    main()
