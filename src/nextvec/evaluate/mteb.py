"""mteb, both ways: an encoder of ours runs mteb's tasks, and a model of mteb's runs ours.

    import mteb
    from nextvec.evaluate.mteb import MtebModel, mteb_encode, mteb_task

    mteb.evaluate(MtebModel(Encoder.load("nextvec-mini")), mteb.get_tasks(["STS12"]))   # theirs, by ours
    mteb.evaluate(MtebModel(encoder), mteb_task("mine", relevance))                     # our data, in mteb
    retrieve(mteb_encode(mteb.get_model("intfloat/e5-small-v2")), relevance, ["ndcg@10"])  # ours, by theirs

Written for mteb 2 (Muennighoff et al. 2022, arXiv 2210.07316). Legend: n texts, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from nextvec.data.relevance import Relevance
from nextvec.encoder import Encoder
from nextvec.extras import require
from nextvec.types import InputError, Progress

__all__ = ["MtebModel", "mteb_encode", "mteb_task"]

_ROLES: Mapping[str, Literal["query", "document"]] = {"query": "query", "document": "document", "passage": "document"}


class MtebModel:
    """``encoder`` as mteb's models are. dim, layers: as for ``Encoder.encode``; name: "owner/name", under which mteb
    keeps results. mteb's queries and documents get the encoder's own prompts, other texts its default one.

    MissingExtraError without mteb.
    """

    def __init__(
        self, encoder: Encoder, *, name: str | None = None, dim: int | None = None, layers: int | None = None
    ) -> None:
        require("mteb", why="evaluating with mteb")
        from mteb.models.model_meta import ModelMeta

        self.encoder, self.dim, self.layers = encoder, dim, layers
        facts = {
            "name": name or f"nextvec/{encoder.name.rpartition('/')[2]}",
            "revision": encoder.fingerprint()[:12],
            "embed_dim": dim or encoder.dim,
            "max_tokens": encoder.max_length,
            "similarity_fn_name": "cosine",
            "framework": ["NumPy"],
        }
        if str(facts["name"]).count("/") != 1:
            raise InputError(f"name is {name!r}; mteb expects one like 'owner/name'")
        self._meta = ModelMeta.create_empty(overwrites=facts)

    @property
    def mteb_model_meta(self) -> Any:
        """mteb's ``ModelMeta``."""
        return self._meta

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Vectors [n, D] of the texts in mteb's batches; of its options none is needed here."""
        texts = [text for batch in inputs for text in batch["text"]]
        role = None if prompt_type is None else _ROLES[str(getattr(prompt_type, "value", prompt_type))]
        made: NDArray[np.float32] = self.encoder.encode(texts, role=role, dim=self.dim, layers=self.layers)
        return made

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines [n, m], as a torch tensor."""
        return _tensor(_unit(embeddings1) @ _unit(embeddings2).T)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines [n] of corresponding rows, as a torch tensor."""
        return _tensor((_unit(embeddings1) * _unit(embeddings2)).sum(1))


def mteb_encode(model: Any, *, batch: int = 64) -> Any:
    """A function like ``Encoder.encode`` that asks ``model`` (of mteb's ``EncoderProtocol``): for ``Task.run`` and
    ``retrieve``. batch: texts per call of the model's own."""
    require("mteb", why="a model of mteb's")
    from mteb.types import PromptType

    types = {"query": PromptType.query, "document": PromptType.document}

    def encode(
        inputs: Sequence[str],
        *,
        role: Literal["query", "document"] | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        from torch.utils.data import DataLoader

        texts = list(inputs)
        loader: Any = DataLoader(cast(Any, _Texts(texts)), batch_size=batch)
        vectors = model.encode(
            loader,
            task_metadata=_metadata("nextvec", "Retrieval" if role else "STS", "ndcg_at_10"),
            hf_split="test",
            hf_subset="default",
            prompt_type=None if role is None else types[role],
            show_progress_bar=False,
        )
        if progress is not None:
            progress(len(texts), len(texts))
        return _dense(vectors)

    return encode


def mteb_task(name: str, data: Relevance, *, language: str = "eng-Latn") -> Any:
    """``data`` as a retrieval task of mteb's, in memory: for ``mteb.evaluate``. Its main score is nDCG@10."""
    require("mteb", why="a task of mteb's")
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    split = {
        "corpus": Dataset.from_dict({"id": data.document_ids, "text": data.documents}),
        "queries": Dataset.from_dict({"id": data.query_ids, "text": data.queries}),
        "relevant_docs": {
            query: {data.document_ids[i]: gain for i, gain in gains.items()}
            for query, gains in zip(data.query_ids, data.gains, strict=True)
        },
        "top_ranked": None,
    }

    class InMemory(AbsTaskRetrieval):  # type: ignore[misc]
        metadata = _metadata(name, "Retrieval", "ndcg_at_10", language)
        ignore_identical_ids = any(place >= 0 for place in data.own)

        def load_data(self, *arguments: Any, **options: Any) -> None:
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return InMemory()


class _Texts:
    """What a ``DataLoader`` reads."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, place: int) -> dict[str, str]:
        return {"text": self.texts[place]}


def _metadata(name: str, kind: str, main: str, language: str = "eng-Latn") -> Any:
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name=name,
        description="Data in memory, evaluated with nextvec.",
        dataset={"path": "in/memory", "revision": "1"},
        type=kind,
        eval_splits=["test"],
        eval_langs=[language],
        main_score=main,
    )


def _dense(vectors: Any) -> NDArray[np.float32]:
    rows = vectors.detach().float().cpu().numpy() if hasattr(vectors, "detach") else vectors
    return np.atleast_2d(np.asarray(rows, dtype=np.float32))


def _unit(vectors: Any) -> NDArray[np.float32]:
    rows = _dense(vectors)
    scaled: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return scaled


def _tensor(values: NDArray[np.float32]) -> Any:
    import torch

    return torch.from_numpy(values)
