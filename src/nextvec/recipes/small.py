"""Train nextvec-small: ``python -m nextvec.recipes.small --data DIR --teacher DIR --out DIR``.

A transformer that follows a large one at every depth and width.

1. Vocabulary: the teacher's word pieces, cut to those that the training texts have most often; everyday English counts
   three times.
2. The transformer begins with some of the teacher's own layers, their feed-forward parts cut too, and a linear map of
   its vectors onto their principal axes; each layer is fitted to end where the teacher's do (see ``small_start.py``).
3. First stage: titles, sentences of abstracts, whole abstracts, everyday prose and what WordNet says of words point
   where the teacher's vectors do, at every width; the full depth alone, since a loss at the smaller depths pulls the
   layers away from what they were.
4. Second stage: the same at every depth.
5. Third stage: a title finds its own abstract among those of the batch, while the distillation goes on beside it.
6. Weights are stored as float16: a folder that Hugging Face's library and sentence-transformers open.

The teacher's vectors and checkpoints are kept in the work folder: an interrupted run goes on there. The papers that the
evaluation uses take part in no step. Legend: n texts, k kinds of text, H width of the teacher, D width of vectors.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextvec import config
from nextvec.data.sources import Shuffled, Source, ragged
from nextvec.data.titles import Paper
from nextvec.data.tokenizers import TextTokenizer
from nextvec.engine.engine import Engine, TrainConfig
from nextvec.engine.optim import OptimConfig
from nextvec.engine.schedule import ScheduleConfig
from nextvec.files import cache_home
from nextvec.nn.save import new_folder
from nextvec.recipes.corpus import general_texts, one_sentence, prose_texts
from nextvec.recipes.mini import read_corpus, said
from nextvec.recipes.mini_steps import Reporter, silent
from nextvec.recipes.small_model import SmallConfig, SmallEmbedder
from nextvec.recipes.small_start import cut_tokenizer, cut_transformer, fit_layers
from nextvec.recipes.static_table import principal_axes, unit
from nextvec.recipes.teacher import Teacher
from nextvec.text_method import open_base
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
    """All settings. pieces: of the vocabulary; layers: numbers of the teacher's; ffn: neurons kept of a layer; fitted:
    texts of each kind on which the layers are fitted to the teacher's before any training; positions: the longest text,
    in tokens; teacher_papers: how many papers' abstracts the teacher reads (titles: all); shallow: weight of the
    smaller depths from the second stage on; weight: of the contrastive loss in the third. A stage of 0 steps is left
    out."""

    pieces: int = 8050
    layers: tuple[int, ...] = (0, 2, 3, 5)
    ffn: int = 512
    fitted: int = 500
    positions: int = 256
    dims: tuple[int, ...] = (64, 128, 256)
    teacher_papers: int = 20_480
    distil: Stage = field(default_factory=lambda: Stage(steps=4000, batch=128, lr=3e-4, length=192))
    depths: Stage = field(default_factory=lambda: Stage(steps=1200, batch=128, lr=1e-4, length=192))
    contrast: Stage = field(default_factory=lambda: Stage(steps=200, batch=64, lr=2e-5, length=192))
    shallow: float = 0.3
    weight: float = 0.2
    precision: str = "bf16"
    seed: int = 0


def train_small(
    papers: Sequence[Paper],
    general: Sequence[str],
    prose: Sequence[str],
    teacher: Teacher,
    recipe: Recipe,
    work: Path,
    *,
    report: Reporter = silent,
) -> SmallEmbedder:
    """Steps 1 to 5; the trained model. general: what WordNet says; prose: everyday sentences."""
    titles, abstracts = [paper.title for paper in papers], [paper.abstract for paper in papers]
    kinds = {
        "titles": titles,
        "abstracts": abstracts[: recipe.teacher_papers],
        "sentences": one_sentence(abstracts, seed=recipe.seed),
        "general": list(general),
        "prose": list(prose),
    }
    taught = {
        name: teacher.encode_cached(texts, work / "teacher", progress=report(f"teacher: {name}"))
        for name, texts in kinds.items()
    }
    known = len(kinds["abstracts"])
    axes = principal_axes(np.concatenate([vectors[:known] for vectors in taught.values()]), max(recipe.dims))
    turned = {name: (unit(vectors) @ axes).astype(np.float16) for name, vectors in taught.items()}
    texts = [text for kind in kinds.values() for text in kind]
    model = _started(teacher, [*titles, *abstracts, *3 * [*general, *prose]], kinds.values(), axes, recipe)
    tokenizer = model.text_tokenizer()
    digest = _digest(recipe, teacher.encoder.fingerprint(), texts)
    read = tokenizer.encode(texts, max_length=recipe.distil.length)
    columns: dict[str, Any] = {"text": read, "teacher": np.concatenate(list(turned.values()))[:, None]}

    def learn(name: str, stage: Stage, source: Source) -> None:
        if stage.steps:
            _train(model, source, stage, recipe, work / f"{name}-{digest}", report(f"stage: {name}"))

    for number, (name, stage, shallow) in enumerate(
        (("distil", recipe.distil, 0.0), ("depths", recipe.depths, recipe.shallow))
    ):
        model.config.shallow = shallow
        learn(name, stage, Shuffled(columns, batch=min(stage.batch, len(texts)), seed=recipe.seed + number))
    model.config.contrast = recipe.weight
    pairs = _pairs(titles, abstracts, texts[len(titles) :], turned, tokenizer, recipe)
    learn("contrast", recipe.contrast, pairs)
    return model


def _pairs(
    titles: Sequence[str],
    abstracts: Sequence[str],
    texts: Sequence[str],
    turned: dict[str, NDArray[np.float16]],
    tokenizer: TextTokenizer,
    recipe: Recipe,
) -> Source:
    """Titles and abstracts, each row with one further text that the teacher read: half of them abstracts."""
    known = len(turned["abstracts"])
    random = np.random.default_rng(recipe.seed)
    pool = np.concatenate([np.arange(known), known + random.permutation(len(texts) - known)[:known]])
    chosen = random.choice(pool, size=known, replace=False)
    taught = np.concatenate([vectors for name, vectors in turned.items() if name != "titles"])
    length = recipe.contrast.length
    return Shuffled(
        {
            "query": tokenizer.encode(titles[:known], max_length=length),
            "document": tokenizer.encode(abstracts[:known], max_length=length),
            "text": tokenizer.encode([texts[i] for i in chosen], max_length=recipe.distil.length),
            "teacher": np.stack([turned["titles"][:known], taught[chosen]], axis=1),
        },
        batch=min(recipe.contrast.batch, known),
        seed=recipe.seed + 2,
    )


def _started(
    teacher: Teacher,
    texts: Sequence[str],
    kinds: Iterable[Sequence[str]],
    axes: NDArray[np.float32],
    recipe: Recipe,
) -> SmallEmbedder:
    """The model before training, of the teacher's own weights; ``texts`` give the vocabulary."""
    whole, _, pooling = open_base(str(teacher.folder))
    tokenizer, pieces = cut_tokenizer(teacher.folder / "tokenizer.json", texts, size=recipe.pieces)
    transformer = cut_transformer(whole, pieces, layers=recipe.layers, ffn=recipe.ffn, positions=recipe.positions)
    fitted = tokenizer.encode(
        [text for kind in kinds for text in kind[: recipe.fitted]], max_length=recipe.distil.length
    )
    fit_layers(transformer, whole, pieces, ragged(fitted), layers=recipe.layers)
    settings = SmallConfig(
        shape=transformer.config,
        max_length=recipe.positions,
        seed=recipe.seed,
        pooling=pooling,
        dims=recipe.dims,
        depths=tuple(range(1, len(recipe.layers) + 1)),
    )
    model = SmallEmbedder(settings, tokenizer=tokenizer)
    model.transformer.load_state_dict(transformer.state_dict())
    with torch.no_grad():
        model.turn.weight.copy_(torch.from_numpy(axes.T))
    return model


def _train(model: SmallEmbedder, source: Source, stage: Stage, recipe: Recipe, folder: Path, progress: Any) -> None:
    engine = Engine(
        model,
        TrainConfig(
            steps=stage.steps,
            batch=stage.batch,
            optim=OptimConfig(lr=stage.lr, weight_decay=0.01),
            schedule=ScheduleConfig(name="cosine", warmup=0.1),
            precision=recipe.precision,
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
        for path in made.rglob("model.safetensors"):
            halved = {name: value.half().contiguous() for name, value in load_file(path).items()}
            save_file(halved, path, metadata={"format": "pt"})
        settings = json.loads((made / "config.json").read_text(encoding="utf-8"))
        settings["dtype"] = "float16"
        (made / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _digest(recipe: Recipe, teacher: str, texts: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps([asdict(recipe), teacher], sort_keys=True).encode())
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks."""
    recipe = config.override(Recipe(), arguments.changes)
    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise ConflictError(f"{str(arguments.out)!r} exists and is not empty: choose another folder")  # not in an hour
    corpus = read_corpus(arguments.data)
    general = general_texts(arguments.data)
    prose = prose_texts(arguments.data)
    model = train_small(corpus.train, general, prose, Teacher(arguments.teacher), recipe, arguments.work, report=said)
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
