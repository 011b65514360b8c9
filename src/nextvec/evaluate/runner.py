"""Measure models on tasks at several sizes, keep every result as soon as it is there, and compare models in pairs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextvec import __version__
from nextvec.encoder import Encoder
from nextvec.evaluate.embedder import Embedder, Size, vector_bytes
from nextvec.evaluate.lexical import Bm25
from nextvec.evaluate.outcomes import SAMPLES, Difference, Outcome, differences, intervals
from nextvec.evaluate.records import SCHEMA, read_record, record_path, safe_name, write_record
from nextvec.evaluate.task_kinds import Task
from nextvec.types import InputError

__all__ = ["BM25", "Model", "Result", "compare", "evaluate", "load_model"]

BM25 = "bm25"
Report = Callable[[int, int | None, str], None]
"""Called with results done, results in all, and a few words."""


@dataclass(frozen=True)
class Model:
    """A model under its name; ``engine`` encodes or ranks, ``weights`` (of BM25 "") tells it from others, and from
    itself with another pooling, prompt or length."""

    name: str
    engine: Encoder | Bm25
    weights: str

    @property
    def folder(self) -> str:
        """The name of its folder of results."""
        return safe_name(self.name) if isinstance(self.engine, Bm25) else f"{safe_name(self.name)}-{self.weights[:8]}"


@dataclass(frozen=True)
class Result:
    """One model on one task at one size: ``record`` is the JSON document, ``outcome`` the examples; ``kept``: it was
    there already."""

    task: Task
    size: Size
    record: Mapping[str, Any]
    outcome: Outcome
    kept: bool


def load_model(name: str, **options: Any) -> Model:
    """ "bm25", or an encoder by bundled name, folder or hub id; ``options`` and errors as of ``Encoder.load``."""
    if name == BM25:
        return Model(BM25, Bm25(), "")
    encoder = Encoder.load(name, **options)
    layout = encoder.layout
    facts: list[Any] = [
        encoder.fingerprint(),
        sorted(layout.prompts.items()),
        layout.default_prompt,
        layout.include_prompt,
    ]
    facts += [layout.pooling, encoder.max_length, encoder.dim, encoder.full_dim]
    return Model(_label(name), encoder, hashlib.sha256(repr(facts).encode()).hexdigest()[:16])


def _label(name: str) -> str:
    """``runs/a/model`` -> ``a/model``: the end of a path says enough, and nothing of the machine."""
    path = Path(name).expanduser()
    return "/".join(path.resolve().parts[-2:]).lstrip("/") if path.is_dir() else name


def evaluate(
    model: Model,
    tasks: Sequence[Task],
    *,
    sizes: Sequence[Size] = (Size(),),
    out: Path | None = None,
    limit: int | None = None,
    again: bool = False,
    samples: int = SAMPLES,
    report: Report | None = None,
) -> list[Result]:
    """``model`` on every task at every size, in this order; BM25 has no sizes and runs on retrieval alone.

    out: folder that keeps every result as it comes; what is there of the same data, weights and settings is not
    measured again unless ``again`` (None: nothing is kept); limit: at most so many examples of a task; samples: of the
    bootstrap. InputError for a size that the model cannot give, before anything runs.
    """
    if limit is not None and limit < 2:
        raise InputError(f"limit is {limit}; expected at least 2 examples")
    if isinstance(model.engine, Bm25):
        sizes, tasks = [Size()], [task for task in tasks if task.kind == "retrieval"]
    else:
        sizes = list(dict.fromkeys(size.check(model.engine) for size in sizes))
    embedder = None if isinstance(model.engine, Bm25) else Embedder(model.engine)
    results: list[Result] = []
    # By layers first, so that texts are encoded once for all widths of one depth.
    order = sorted(sizes, key=lambda size: size.layers or 0)
    for task in tasks:
        data = None
        for size in order:
            done, total = len(results), len(tasks) * len(sizes)
            words = f"{model.name} on {task.name}"
            if report is not None:
                report(done, total, words)
            settings = _settings(model, task, size, limit, samples)
            path = record_path(out, model.folder, task.slug, size, limit) if out is not None else None
            found = read_record(path, settings) if path is not None and not again else None
            if found is not None:
                results.append(Result(task, size, *found, kept=True))
                continue
            if data is None:
                data = task.load()
            outcome, seconds = _run(embedder, model, task, size, data, limit, report, (done, total, words))
            record = _record(model, task, size, settings, outcome, seconds, samples)
            if path is not None:
                write_record(path, record, outcome)
            results.append(Result(task, size, record, outcome, kept=False))
        if embedder is not None:
            embedder.forget()
    if report is not None:
        report(len(results), len(results), "")
    places = {(task.slug, size): i for i, (task, size) in enumerate((t, s) for t in tasks for s in sizes)}
    return sorted(results, key=lambda result: places[result.task.slug, result.size])


def compare(
    first: Sequence[Result], second: Sequence[Result], *, samples: int = SAMPLES
) -> list[tuple[Result, Result, dict[str, Difference]]]:
    """First minus second for every task that both were measured on, resampled together.

    Results of one task are paired by size, in the order given, as far as both models have as many; a model with one
    size of a task (as BM25) is compared with all sizes of the other.
    """
    pairs = []
    for slug in dict.fromkeys(result.task.slug for result in first):
        ours, theirs = ([one for one in side if one.task.slug == slug] for side in (first, second))
        if not theirs:
            continue
        wide = max(len(ours), len(theirs))
        ours, theirs = (side * wide if len(side) == 1 else side for side in (ours, theirs))
        for one, two in zip(ours, theirs, strict=False):
            pairs.append((one, two, differences(one.outcome, two.outcome, samples=samples)))
    return pairs


def _run(
    embedder: Embedder | None,
    model: Model,
    task: Task,
    size: Size,
    data: Any,
    limit: int | None,
    report: Report | None,
    place: tuple[int, int, str],
) -> tuple[Outcome, float]:
    """The outcome, and the seconds it took: those of the model, as if nothing had been kept, and the task's own."""
    done, total, words = place

    def progress(texts: int, of: int | None) -> None:
        if report is not None:
            report(done, total, f"{words}: {texts:,}{f'/{of:,}' if of else ''} texts")

    started = time.perf_counter()
    if embedder is None:
        assert isinstance(model.engine, Bm25)
        outcome = task.run(model.engine, data=data, limit=limit, progress=progress)
        return outcome, time.perf_counter() - started
    before, fresh = embedder.seconds, embedder.fresh_seconds
    outcome = task.run(embedder.at(size), data=data, limit=limit, progress=progress)
    own = time.perf_counter() - started - (embedder.fresh_seconds - fresh)
    return outcome, own + embedder.seconds - before


def _settings(model: Model, task: Task, size: Size, limit: int | None, samples: int) -> dict[str, Any]:
    """What a result depends on; a result with other settings is another result."""
    return {
        "schema": SCHEMA,
        "weights": model.weights,
        "data": task.fingerprint(),
        "limit": limit,
        "dim": size.dim,
        "layers": size.layers,
        "dtype": size.dtype,
        "samples": samples,
    }


def _record(
    model: Model,
    task: Task,
    size: Size,
    settings: dict[str, Any],
    outcome: Outcome,
    seconds: float,
    samples: int,
) -> dict[str, Any]:
    measured = intervals(outcome, samples=samples)
    return {
        "model": model.name,
        "task": {"name": task.name, "kind": task.kind, "title": task.title, "main": task.main},
        "measures": {name: value.as_dict() for name, value in measured.items()},
        "examples": len(outcome),
        "dim": size.dim,
        "layers": size.layers,
        "dtype": size.dtype if size.dim is not None else None,
        "bytes": vector_bytes(size.dim, size.dtype) if size.dim is not None else None,
        "seconds": round(seconds, 3),
        "interval": f"95 % percentile bootstrap over examples, {samples} samples",
        "version": __version__,
        "outcome": outcome.kind,
        "settings": settings,
    }
