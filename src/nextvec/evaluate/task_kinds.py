"""What a task is, and the five kinds there are: from vectors of texts to an outcome, example by example.

A task encodes its texts with whatever it is given, so any function with the signature of ``Encoder.encode`` will do.
Vectors are compared by cosine. Legend: n examples, Q queries, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nextvec.data.catalog import dataset, find, locate, verify
from nextvec.data.labelled import LabelledSplit
from nextvec.data.paraphrases import LabelledPairs
from nextvec.data.relevance import Relevance, read_beir
from nextvec.data.sts import ScoredPairs
from nextvec.evaluate.graded import graded_measures, top_documents
from nextvec.evaluate.labels import classify, cluster
from nextvec.evaluate.outcomes import Outcome
from nextvec.extras import available, require
from nextvec.files import storage_error
from nextvec.types import InputError, Progress

__all__ = [
    "RETRIEVAL_MEASURES",
    "ClassTask",
    "ClusterTask",
    "Encode",
    "FolderTask",
    "PairTask",
    "Ranker",
    "RetrievalTask",
    "ScoreTask",
    "Task",
    "correlate",
    "retrieve",
]

Vectors = NDArray[np.float32]
Data = TypeVar("Data")
RETRIEVAL_MEASURES = ("ndcg@10", "recall@1", "recall@10", "recall@100", "mrr@10", "map@100", "precision@10")


class Encode(Protocol):
    """``Encoder.encode``, or anything that takes texts and a role and gives vectors [n, D]."""

    def __call__(
        self,
        inputs: Sequence[str],
        *,
        role: Literal["query", "document"] | None = None,
        progress: Progress | None = None,
    ) -> NDArray[Any]: ...


@runtime_checkable
class Ranker(Protocol):
    """What ranks documents without vectors: positions [Q, min(k, N)], best first, -1 where a row ends earlier."""

    def rank(
        self, queries: Sequence[str], documents: Sequence[str], k: int, *, own: Sequence[int]
    ) -> NDArray[np.int64]: ...


class Task(Protocol):
    """Something that encoders can be measured on. ``kind``: the group it belongs to; ``main``: the measure to compare
    by; ``slug``: a file name."""

    @property
    def name(self) -> str: ...
    @property
    def slug(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def main(self) -> str: ...

    def missing(self) -> str | None:
        """What keeps this task from running here (data or a package that is absent); None: nothing."""

    def require(self) -> None:
        """NotFoundError or MissingExtraError, with what to do, where something is missing."""

    def fingerprint(self) -> str:
        """Tells whether two results were measured on the same data."""

    def load(self) -> Any:
        """The task's data, to be given to ``run`` several times."""

    def run(
        self, model: Encode | Ranker, *, data: Any = None, limit: int | None = None, progress: Progress | None = None
    ) -> Outcome:
        """Measure ``model`` on at most ``limit`` examples (a fixed random choice; of retrieval, queries)."""


@dataclass(frozen=True, kw_only=True)
class Catalogued(Generic[Data]):
    """A task whose data are catalogued. ``read`` is given the folder of the first of ``sets``, verified by SHA-256."""

    name: str
    kind: str
    title: str
    main: str
    sets: tuple[str, ...]
    read: Callable[[Path], Data]
    package: str | None = None

    @property
    def slug(self) -> str:
        return self.name

    def missing(self) -> str | None:
        absent = next((name for name in self.sets if find(name) is None), None)
        if absent is not None:
            return f"the data set {absent!r} is not on this machine"
        if self.package is not None and not available(self.package):
            return f"the package {self.package!r} is not installed"
        return None

    def require(self) -> None:
        for name in self.sets:
            locate(name)
        if self.package is not None:
            require(self.package, why=f"the task {self.name!r}")

    def fingerprint(self) -> str:
        sums = (file.sha256 for name in self.sets for file in dataset(name).files)
        return hashlib.sha256(" ".join(sums).encode()).hexdigest()[:16]

    def load(self) -> Data:
        folders = [verify(name) for name in self.sets]
        return self.read(folders[0])


@dataclass(frozen=True, kw_only=True)
class ScoreTask(Catalogued[ScoredPairs]):
    """Spearman's correlation of the cosines of pairs with people's scores."""

    main: str = "spearman"

    def run(
        self,
        model: Encode | Ranker,
        *,
        data: ScoredPairs | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> Outcome:
        pairs = data or self.load()
        rows = _chosen(len(pairs), limit)
        first, second = ([side[i] for i in rows] for side in (pairs.first, pairs.second))
        return correlate(_encoder(model, self.name), first, second, pairs.scores[rows], progress=progress)


@dataclass(frozen=True, kw_only=True)
class PairTask(Catalogued[LabelledPairs]):
    """Do two texts belong together? Average precision of their cosine, and the best threshold's accuracy and F1."""

    main: str = "ap"

    def run(
        self,
        model: Encode | Ranker,
        *,
        data: LabelledPairs | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> Outcome:
        pairs = data or self.load()
        rows = _chosen(len(pairs), limit)
        first, second = ([side[i] for i in rows] for side in (pairs.first, pairs.second))
        cosines = _cosines(_encoder(model, self.name), first, second, progress)
        return Outcome("binary", {"score": cosines, "label": pairs.labels[rows]})


@dataclass(frozen=True, kw_only=True)
class ClassTask(Catalogued[LabelledSplit]):
    """Accuracy and macro F1 of logistic regression on frozen vectors; ``limit`` bounds the training texts too."""

    main: str = "accuracy"
    package: str | None = "sklearn"

    def run(
        self,
        model: Encode | Ranker,
        *,
        data: LabelledSplit | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> Outcome:
        split = data or self.load()
        encode = _encoder(model, self.name)
        train, test = (_chosen(len(part), limit) for part in (split.train, split.test))
        texts = [split.train.texts[i] for i in train] + [split.test.texts[i] for i in test]
        vectors = _unit(encode(texts, progress=progress))
        predicted = classify(vectors[: len(train)], split.train.labels[train], vectors[len(train) :])
        return Outcome("classes", {"predicted": predicted, "label": split.test.labels[test]})


@dataclass(frozen=True, kw_only=True)
class ClusterTask(Catalogued[LabelledSplit]):
    """The v-measure of as many clusters as there are classes, of the texts that are for measuring."""

    main: str = "v_measure"
    package: str | None = "sklearn"

    def run(
        self,
        model: Encode | Ranker,
        *,
        data: LabelledSplit | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> Outcome:
        texts = (data or self.load()).test
        rows = _chosen(len(texts), limit)
        vectors = _unit(_encoder(model, self.name)([texts.texts[i] for i in rows], progress=progress))
        labels = texts.labels[rows]
        return Outcome("clusters", {"cluster": cluster(vectors, len(np.unique(labels))), "label": labels})


@dataclass(frozen=True, kw_only=True)
class RetrievalTask(Catalogued[Relevance]):
    """Queries look for documents: the measures ``measures`` against graded judgements, per query."""

    main: str = "ndcg@10"
    kind: str = "retrieval"
    measures: tuple[str, ...] = RETRIEVAL_MEASURES

    def run(
        self,
        model: Encode | Ranker,
        *,
        data: Relevance | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> Outcome:
        return retrieve(model, data or self.load(), self.measures, limit=limit, progress=progress)


@dataclass(frozen=True)
class FolderTask:
    """Retrieval on a folder in BEIR's layout."""

    folder: Path
    measures: tuple[str, ...] = field(default=RETRIEVAL_MEASURES, repr=False)
    main: str = "ndcg@10"
    kind: str = "retrieval"

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def slug(self) -> str:
        """The folder's name, and a hash of where it lies: other folders may have the same name."""
        where = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:8]
        return f"beir-{''.join(c if c.isalnum() or c in '-_' else '-' for c in self.name)}-{where}"

    @property
    def title(self) -> str:
        return f"the queries of {self.folder}"

    def missing(self) -> str | None:
        return None

    def require(self) -> None:
        pass

    def fingerprint(self) -> str:
        """Of the names, sizes and times of the folder's files: contents may be too many to read twice."""
        digest = hashlib.sha256()
        try:
            for path in sorted(self.folder.rglob("*")):
                if path.is_file():
                    facts = path.stat()
                    digest.update(f"{path.relative_to(self.folder)} {facts.st_size} {facts.st_mtime_ns}\n".encode())
        except OSError as error:
            raise storage_error(error, self.folder) from error
        return digest.hexdigest()[:16]

    def load(self) -> Relevance:
        return read_beir(self.folder)

    def run(
        self,
        model: Encode | Ranker,
        *,
        data: Relevance | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> Outcome:
        return retrieve(model, data or self.load(), self.measures, limit=limit, progress=progress)


def retrieve(
    model: Encode | Ranker,
    data: Relevance,
    names: Sequence[str],
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """The retrieval measures ``names`` of ``model`` on ``data``, per query; see ``Task.run``."""
    rows = _chosen(len(data), limit)
    queries, own = [data.queries[i] for i in rows], [data.own[i] for i in rows]
    depth = max(int(name.partition("@")[2]) for name in names)
    if isinstance(model, Ranker):
        ranked = model.rank(queries, data.documents, depth, own=own)
    else:
        asked = _unit(model(queries, role="query", progress=progress))
        ranked = top_documents(asked, _unit(model(data.documents, role="document", progress=progress)), depth, own=own)
    return Outcome("means", graded_measures(ranked, [data.gains[i] for i in rows], names))


def correlate(
    encode: Encode,
    first: Sequence[str],
    second: Sequence[str],
    scores: NDArray[np.float64],
    *,
    progress: Progress | None = None,
) -> Outcome:
    """Spearman's correlation of the cosines of pairs of texts with ``scores`` [n]."""
    return Outcome("spearman", {"score": _cosines(encode, first, second, progress), "gold": scores})


def _chosen(n: int, limit: int | None) -> NDArray[np.int64]:
    """All rows, or ``limit`` of them chosen at random, always the same ones, in their order."""
    if limit is not None and limit < 2:
        raise InputError(f"limit is {limit}; expected at least 2 examples")
    if limit is None or limit >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).permutation(n)[:limit])


def _encoder(model: Encode | Ranker, task: str) -> Encode:
    if isinstance(model, Ranker):
        raise InputError(f"the task {task!r} compares vectors, which a lexical ranker has none of: name an encoder")
    return model


def _cosines(
    encode: Encode, first: Sequence[str], second: Sequence[str], progress: Progress | None
) -> NDArray[np.float64]:
    vectors = _unit(encode([*first, *second], progress=progress))
    one, two = vectors[: len(first)], vectors[len(first) :]
    cosines: NDArray[np.float64] = (one.astype(np.float64) * two).sum(1)
    return cosines


def _unit(vectors: NDArray[Any]) -> Vectors:
    """Rows of length 1 (a row of zeros stays one). InputError for what is no matrix of finite numbers."""
    rows = np.asarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise InputError(f"the encoder gave an array of shape {rows.shape}, or values that are not finite")
    scaled: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return scaled
