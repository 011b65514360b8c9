"""mteb, both ways, offline: our encoder on a task in memory, and a model of mteb's on our retrieval."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mteb", reason="mteb is not installed: pip install 'nextvec[mteb]'")
import mteb

from nextvec.data.relevance import Relevance
from nextvec.encoder import Encoder
from nextvec.evaluate.mteb import MtebModel, mteb_encode, mteb_task
from nextvec.evaluate.task_kinds import retrieve
from nextvec.types import InputError

DOCUMENTS = [
    "Neural machine translation with attention over the source sentence.",
    "A study of word embeddings learned from large corpora.",
    "Graph neural networks for molecules.",
    "Speech recognition with recurrent networks.",
    "Retrieval of documents by dense vectors.",
    "Image classification with convolutional networks.",
]
QUERIES = [
    "translating languages",
    "embeddings of words",
    "dense search",
    "recognising what is said",
    "classify pictures",
]
GAINS = [
    {5: 1},  # no encoder finds that
    {1: 2, 4: 1},
    {4: 1},
    {3: 1},
    {5: 1},
]


@pytest.fixture
def data() -> Relevance:
    ids = [f"d{i}" for i in range(len(DOCUMENTS))]
    return Relevance([f"q{i}" for i in range(5)], QUERIES, ids, DOCUMENTS, GAINS, [-1] * 5)


def test_our_encoder_runs_their_task_and_gets_our_figures(data: Relevance, tmp_path: Path) -> None:
    encoder = Encoder.load("nextvec-mini")
    result = mteb.evaluate(MtebModel(encoder), mteb_task("InMemory", data), cache=None, show_progress_bar=False)
    scores = result.task_results[0].scores["test"][0]
    ours = retrieve(encoder.encode, data, ("ndcg@10", "recall@1", "map@100", "mrr@10")).measures()
    assert 0.3 < ours["ndcg@10"] < 1  # neither nothing nor all: a comparison that could fail
    for theirs, name in (("ndcg_at_10", "ndcg@10"), ("recall_at_1", "recall@1"), ("map_at_100", "map@100")):
        assert scores[theirs] == pytest.approx(ours[name], abs=1e-4)  # mteb rounds to five digits
    assert result.model_name == "nextvec/nextvec-mini"


def test_their_model_runs_our_retrieval(data: Relevance) -> None:
    encoder = Encoder.load("nextvec-mini")
    back = mteb_encode(MtebModel(encoder), batch=2)
    np.testing.assert_allclose(back(QUERIES, role="query"), encoder.encode(QUERIES, role="query"), atol=1e-6)
    seen: list[int] = []
    back(DOCUMENTS, progress=lambda done, total: seen.append(done))
    assert seen == [6]
    ours, theirs = (retrieve(encode, data, ("ndcg@10",)).measures() for encode in (encoder.encode, back))
    assert ours == pytest.approx(theirs)


def test_widths_are_those_asked_for_and_similarity_is_the_cosine(data: Relevance) -> None:
    encoder = Encoder.load("nextvec-mini")
    model = MtebModel(encoder, dim=64, name="me/small")
    made = model.encode([{"text": QUERIES[:3]}, {"text": QUERIES[3:]}])
    assert made.shape == (5, 64)
    assert model.mteb_model_meta.embed_dim == 64
    square = model.similarity(made, 3 * made)
    np.testing.assert_allclose(np.diag(square.numpy()), np.ones(5), atol=1e-6)
    np.testing.assert_allclose(
        model.similarity_pairwise(made, made[::-1]).numpy(), np.diag(square.numpy()[:, ::-1]), atol=1e-6
    )
    with pytest.raises(InputError, match="one like 'owner/name'"):
        MtebModel(encoder, name="small")
