"""A domain encoder from a user's own documents: ``nextvec train embedder``.

OUT/run.yaml       data and every setting, resolved
OUT/teacher.npy    the teacher's vectors, where there is one
OUT/first/         checkpoints and log of the first stage, until it is over
OUT/negatives.npy  for every pair a document that the first stage's model finds and that is no answer
OUT/second/        checkpoints and log of the second stage, which learns to tell those apart
OUT/encoder/       the model, its card (README.md) and report.json: what was measured before and after

Every part appears only when it is whole, and a run that is begun again goes on at the first that is missing.
Legend: n pairs, D width.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from nextvec import config as configs
from nextvec.data.mining import mine_pairs
from nextvec.data.pairs import Pairs, pair_columns
from nextvec.data.sources import Columns, Shuffled
from nextvec.encoder import Encoder
from nextvec.engine.engine import Engine, TrainConfig
from nextvec.engine.optim import OptimConfig
from nextvec.engine.schedule import ScheduleConfig
from nextvec.files import atomic_write
from nextvec.recipes.embedder_card import write_card
from nextvec.recipes.embedder_data import Examples, divide, read_examples
from nextvec.recipes.embedder_measure import Held, Measures, measure, report_of
from nextvec.recipes.embedder_model import EmbedderConfig, StaticEmbedder, TransformerEmbedder, open_model
from nextvec.resumable import write_vectors
from nextvec.types import ConflictError, InputError

__all__ = ["EmbedderSettings", "train_embedder"]

Say = Callable[[str, int, int | None], None]
"""What is being done, how far it is, and of how much."""

_DEFAULTS = {"pretrained": (1e-4, 32, 1.0), "scratch": (5e-4, 64, 10.0), "static": (2e-3, 256, 10.0)}
"""Learning rate, pairs of a batch and epochs, by kind of base."""
_LEAST_STEPS = 20


@dataclass(kw_only=True)
class EmbedderSettings:
    """base: "nextvec-mini", a folder or hub id, or "scratch" (random weights of ``depth`` layers, 64 * depth wide, and
    a tokenizer of ``vocab`` tokens learned from the data). teacher: a model whose similarities are learned too, with
    ``teacher_weight``. nested, layers: widths and numbers of layers to which the model can be cut afterwards. mined:
    whether the second half of training has hard negatives. lr, batch, epochs: None: what suits the base. seed: of
    order, random weights and chosen sentences."""

    base: str = "nextvec-mini"
    teacher: str | None = None
    teacher_weight: float = 1.0
    nested: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    mined: bool = True
    lr: float | None = None
    batch: int | None = None
    epochs: float | None = None
    max_length: int = 128
    temperature: float = 0.05
    depth: int = 4
    vocab: int = 8192
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("lr", "batch", "epochs", "max_length", "temperature", "depth", "vocab"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value}; expected a positive number")
        if not 0 <= self.teacher_weight < math.inf or self.seed < 0:
            raise InputError(f"teacher_weight {self.teacher_weight} and seed {self.seed} must not be negative")


def train_embedder(
    data: str | Path,
    *,
    out: str | Path,
    settings: EmbedderSettings | None = None,
    resume: bool = False,
    device: str = "auto",
    say: Say | None = None,
) -> dict[str, Any]:
    """Train an encoder on the records of ``data`` (see ``embedder_data``) into ``out``; returns report.json.

    device: "auto", "cpu" or "cuda". ConflictError where ``out`` holds a run and ``resume`` is false, InputError for
    data, a base or settings that cannot be used, and where a resumed run would not be the one that was begun.
    """
    settings, folder = settings or EmbedderSettings(), Path(out)
    say = say or (lambda words, done, total: None)
    say("reading the data", 0, None)
    examples = read_examples(data, seed=settings.seed)
    parts = divide(examples)
    new = _claim(folder, data, settings, examples, resume=resume)
    finished = folder / "encoder" / "report.json"
    if finished.is_file():
        found: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
        return found
    try:
        run = _Run(folder, settings, *parts, device, say)
    except BaseException:
        if new:  # with another base or other settings, it would be in the way
            (folder / "run.yaml").unlink()
            folder.rmdir()
        raise
    return run.go(Path(data).name)


def _claim(folder: Path, data: str | Path, settings: EmbedderSettings, examples: Examples, *, resume: bool) -> bool:
    """Write run.yaml (then True), or make sure that the run in ``folder`` is this one."""
    digest = hashlib.sha256(repr((examples.first, examples.second, examples.negatives)).encode()).hexdigest()[:16]
    now = configs.to_mapping(settings)
    wanted = {"recipe": "embedder", "data": str(data), "texts": digest, "settings": now}
    path = folder / "run.yaml"
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConflictError(f"{str(folder)!r} exists and is not empty: choose another folder")
        with atomic_write(path, "w") as stream:
            yaml.safe_dump(wanted, stream, sort_keys=False, allow_unicode=True)
        return True
    if not resume:
        raise ConflictError(f"{str(folder)!r} holds a run: go on with --resume, or choose another folder")
    try:
        kept = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from error
    if not isinstance(kept, dict) or kept.get("recipe") != "embedder":
        raise ConflictError(f"{str(path)!r} is not a run of this recipe: choose another folder")
    if kept.get("texts") != digest:
        raise InputError(f"the texts of {str(data)!r} are not those that the run in {str(folder)!r} began with")
    before = kept.get("settings") or {}
    changed = [name for name, value in now.items() if before.get(name) != value]
    if changed:
        name = changed[0]
        raise InputError(
            f"{str(path)!r}: {name} was {before.get(name)!r} and is now {now[name]!r}; a run goes on with the settings "
            "it began with: drop the change, or choose another folder"
        )
    return False


class _Run:
    """One run, its parts in order."""

    def __init__(
        self, folder: Path, settings: EmbedderSettings, train: Examples, held: Examples, device: str, say: Say
    ) -> None:
        self.folder, self.settings, self.say = folder, settings, say
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.texts = list(dict.fromkeys([*train.first, *train.second, *(train.negatives or ())]))
        say("opening the base", 0, None)
        config = EmbedderConfig(
            base="tiny" if settings.base == "scratch" else settings.base,
            depth=settings.depth,
            vocab=settings.vocab,
            max_length=settings.max_length,
            seed=settings.seed,
            graded=train.kind == "graded",
            negatives=train.negatives is not None,
            nested=tuple(settings.nested),
            layers=tuple(settings.layers),
            teacher=settings.teacher_weight if settings.teacher else 0.0,
            temperature=settings.temperature,
        )
        self.model: TransformerEmbedder | StaticEmbedder = open_model(config, self.texts)
        self.train = self._readable(train)
        self.held = Held.out(self._readable(held), self.train)

    def go(self, source: str) -> dict[str, Any]:
        """All parts; the report."""
        before = measure(self.model.encoder(), self.held, self._counted("measuring the base"))
        teacher = self._teacher()
        mined = self.settings.mined and self.train.negatives is None and self.train.scores is None
        steps = self._steps()
        if mined:
            first = self._stage("first", self.train.pairs(), None, teacher, max(steps // 2, 1))
            chosen = self._negatives()
            hard = replace(self.train.pairs(), negatives=[self.train.second[i] for i in chosen.tolist()])
            self.model.config.negatives = True
            second = self._stage("second", hard, chosen, teacher, max(steps - steps // 2, 1))
            losses = [first, second]
        else:
            losses = [self._stage("first", self.train.pairs(), None, teacher, steps)]
        return self._finish(source, before, steps, losses)

    # ------------------------------------------------------------------ settings that suit the base

    def _suits(self) -> tuple[float, int, float]:
        """Learning rate, batch and epochs."""
        kind = "static" if isinstance(self.model, StaticEmbedder) else "pretrained"
        lr, batch, epochs = _DEFAULTS["scratch" if self.settings.base == "scratch" else kind]
        given = self.settings
        return given.lr or lr, min(given.batch or batch, len(self.train)), given.epochs or epochs

    def _steps(self) -> int:
        _, batch, epochs = self._suits()
        return max(_LEAST_STEPS, round(epochs * len(self.train) / batch))

    def _readable(self, examples: Examples) -> Examples:
        """Those of which the tokenizer leaves something; the others (another script, say) are counted."""
        tokenizer = self.model.tokenizer
        assert tokenizer is not None
        sides = [examples.first, examples.second, *([examples.negatives] if examples.negatives else [])]
        empty = {
            i
            for side in sides
            for i, ids in enumerate(tokenizer.encode(side, max_length=self.settings.max_length))
            if not ids
        }
        if not empty:
            return examples
        left_out = {**examples.left_out, "a text without a token that the base knows": len(empty)}
        kept = examples.take([i for i in range(len(examples)) if i not in empty])
        if len(kept) < 2:
            raise InputError("the base's tokenizer knows almost none of these texts: choose a base for their language")
        return replace(kept, left_out=left_out)

    # ------------------------------------------------------------------ parts

    def _teacher(self) -> dict[str, NDArray[np.float32]] | None:
        """The teacher's vectors of the training texts, by column: [n, E] each."""
        name = self.settings.teacher
        if name is None:
            return None
        teacher = Encoder.load(name, device=self.device)
        vectors = write_vectors(
            self.folder / "teacher.npy",
            self.texts,
            lambda texts: teacher.encode(texts),
            shape=(len(self.texts), teacher.dim),
            dtype=np.float32,
            settings={"teacher": teacher.fingerprint()},
            window=1024,
            progress=self._counted("encoding with the teacher"),
        )
        place = {text: i for i, text in enumerate(self.texts)}
        columns = {"query": self.train.first, "document": self.train.second}
        if self.train.negatives is not None:
            columns["neg0"] = self.train.negatives
        return {name: vectors[[place[text] for text in texts]] for name, texts in columns.items()}

    def _stage(
        self,
        name: str,
        pairs: Pairs,
        chosen: NDArray[np.int64] | None,
        teacher: dict[str, NDArray[np.float32]] | None,
        steps: int,
    ) -> float:
        """Train for ``steps``; the last loss. chosen: the rows of the documents that are the mined negatives."""
        lr, batch, _ = self._suits()
        assert self.model.tokenizer is not None
        source = Shuffled(
            self._columns(pairs, chosen, teacher), batch=batch, seed=self.settings.seed + (name == "second")
        )
        engine = Engine(
            self.model,
            TrainConfig(
                steps=steps,
                batch=batch,
                optim=OptimConfig(lr=lr, weight_decay=0.01),
                schedule=ScheduleConfig(name="cosine", warmup=0.1),
                seed=self.settings.seed,
                save_every=max(steps // 10, 50),
                keep=1,
            ),
            device=self.device,
        )
        words = f"training, {name} stage"
        report = engine.fit(
            source,
            folder=self.folder / name,
            on_step=lambda state: self.say(f"{words}, loss {state.loss:.3f}", state.step, state.steps),
        )
        self.model.eval()
        return report.loss

    def _columns(
        self, pairs: Pairs, chosen: NDArray[np.int64] | None, teacher: dict[str, NDArray[np.float32]] | None
    ) -> Columns:
        tokenizer = self.model.tokenizer
        assert tokenizer is not None
        extra: dict[str, Any] = {}
        if self.train.scores is not None:
            extra["score"] = self.train.scores.astype(np.float32)
        if teacher is not None:
            extra |= {f"teacher_{name}": vectors for name, vectors in teacher.items()}
            if chosen is not None:
                extra["teacher_neg0"] = teacher["document"][chosen]
        return pair_columns(pairs, tokenizer, max_length=self.settings.max_length, extra=extra)

    def _negatives(self) -> NDArray[np.int64]:
        """int64 [n]: for every pair the row of a document that its query finds and that does not answer it."""
        path = self.folder / "negatives.npy"
        with contextlib.suppress(OSError, ValueError):
            found: NDArray[np.int64] = np.load(path, allow_pickle=False)
            if found.shape == (len(self.train),):
                return found
        encoder = self.model.encoder()
        counted = self._counted("encoding, to mine hard negatives")
        queries = encoder.encode(self.train.first, role="query", progress=counted)
        documents = encoder.encode(self.train.second, role="document", progress=counted)
        mined = mine_pairs(
            queries,
            documents,
            self.train.pairs(),
            1,
            seed=self.settings.seed,
            progress=self._counted("mining hard negatives"),
        )
        chosen = mined[:, 0]
        with atomic_write(path) as stream:
            np.save(stream, chosen)
        return chosen

    def _finish(self, source: str, before: Measures, steps: int, losses: list[float]) -> dict[str, Any]:
        """Measure, write the model with its card and report, and drop what only a resumed run needs."""
        encoder = self.model.encoder()
        after = measure(encoder, self.held, self._counted("measuring the model"))
        lr, batch, epochs = self._suits()
        report = {
            "kind": "domain encoder",
            "data": {
                "name": source,
                "records are": self.train.kind,
                "pairs learned from": len(self.train),
                "pairs held out": len(self.held.pairs),
                "left out": dict(self.train.left_out),
            },
            "base": self.settings.base,
            "settings": configs.to_mapping(self.settings) | {"lr": lr, "batch": batch, "epochs": epochs},
            "steps": steps,
            "losses": [round(loss, 4) for loss in losses if math.isfinite(loss)],
            **report_of(encoder, self.held, before, after),
        }
        temporary = self.folder / "encoder.part"
        shutil.rmtree(temporary, ignore_errors=True)
        encoder.save(temporary)
        write_card(temporary / "README.md", report, encoder)
        with atomic_write(temporary / "report.json", "w") as stream:
            json.dump(report, stream, indent=1, allow_nan=False, ensure_ascii=False)
        temporary.rename(self.folder / "encoder")
        for name in ("first", "second"):
            for checkpoint in (self.folder / name).glob("step-*"):
                shutil.rmtree(checkpoint)
        return report

    def _counted(self, words: str) -> Callable[[int, int | None], None]:
        return lambda done, total: self.say(words, done, total)
