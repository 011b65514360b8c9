"""Any sequence of writes, then any search by words, vector or both, shaped in any way: as plain Python would."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import references
from filter_cases import SCHEMA, filters, rows
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from examples import examples
from nextvec.search import answer, fusion, postings, ranking, store
from nextvec.search.collection import Collection
from nextvec.types import Hits

DIM = 3
POOL = 7
DEPTH = 9
IDS = st.integers(0, 40).map(lambda i: f"id{i}")
# Few values, so that equal scores are common.
VECTORS = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=DIM, max_size=DIM).filter(any)
WORDS = ["sparse", "attention", "model", "models", "the", "GPT-4o", "gpt4o", "Ünï", "a.b", "x"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
BATCH = st.lists(
    st.tuples(IDS, VECTORS, rows, st.none() | TEXTS, st.none() | TEXTS),
    min_size=1,
    max_size=12,
    unique_by=lambda item: item[0],
)
WEIGHTS = st.sampled_from([{"title": 1.0}, {"body": 1.0}, {"title": 2.0, "body": 0.5}])


class HybridMachine(RuleBasedStateMachine):
    """``self.model``: id -> attributes, in insertion order; ``self.vectors``: id -> vector of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.model: dict[str, dict[str, Any]] = {}
        self.vectors: dict[str, np.ndarray] = {}

    def teardown(self) -> None:
        if hasattr(self, "collection"):
            self.collection.close()  # pieces may still be merged in the background
            self.reader.close()
        self.folder.cleanup()

    @initialize(batch=BATCH)
    def create(self, batch: list) -> None:
        self.path = Path(self.folder.name) / "c"
        schema = {**SCHEMA, "title": "string", "body": "string"}
        self.collection = Collection.create(self.path, dim=DIM, schema=schema)
        self.reader = Collection.open(self.path)
        self.upsert(batch)

    @rule(batch=BATCH)
    def upsert(self, batch: list) -> None:
        attributes = [{**row, "title": title, "body": body} for _, _, row, title, body in batch]
        self.collection.upsert([item[0] for item in batch], [item[1] for item in batch], attributes)
        for (name, vector, *_), row in zip(batch, attributes, strict=True):
            self.model.pop(name, None)
            self.model[name] = row
            wide = np.array(vector, np.float32).astype(np.float64)
            self.vectors[name] = (wide / np.sqrt((wide**2).sum())).astype(np.float32)

    @rule(ids=st.lists(IDS, max_size=5))
    def delete(self, ids: list[str]) -> None:
        self.collection.delete(ids)
        for name in ids:
            self.model.pop(name, None)

    @rule()
    def compact(self) -> None:
        self.collection.compact()

    @rule()
    def reopen(self) -> None:
        self.collection.close()
        self.collection = Collection.open(self.path)

    @rule()
    def lose_derived_files(self) -> None:
        for path in self.path.glob("derived/text-*"):
            path.unlink()

    def matching(self, case: tuple | None) -> list[str]:
        return [name for name, row in self.model.items() if case is None or case[1](row) is True]

    def by_vector(self, query: list[float], names: list[str]) -> references.Ranked:
        wide = np.array(query, np.float64)
        wide = (wide / np.sqrt((wide**2).sum())).astype(np.float32).astype(np.float64)
        scored = [(name, float(np.float32(self.vectors[name].astype(np.float64) @ wide))) for name in names]
        return sorted(scored, key=lambda item: -item[1])

    def same(self, hits: Hits, expected: dict[str, float]) -> references.Ranked:
        """The hits are these rows with these scores, best first, equal ones in insertion order."""
        found = list(zip(hits.ids, hits.scores.tolist(), strict=True))
        assert set(hits.ids) == set(expected)
        assert hits.scores.tolist() == pytest.approx([expected[name] for name in hits.ids], rel=1e-5, abs=1e-7)
        place = {name: i for i, name in enumerate(self.model)}
        assert found == sorted(found, key=lambda item: (-item[1], place[item[0]]))
        return found

    @rule(case=st.none() | filters, text=TEXTS, weights=WEIGHTS, k=st.integers(1, 50))
    def words_alone(self, case: tuple | None, text: str, weights: dict[str, float], k: int) -> None:
        where = None if case is None else case[0]
        scores = references.by_words(self.model, weights, text)
        expected = {name: scores[name] for name in self.matching(case) if name in scores}
        whole = self.reader.search(text=text, text_columns=weights, k=50, where=where)
        found = self.same(whole, expected)
        part = self.reader.search(text=text, text_columns=weights, k=k, where=where)
        assert list(zip(part.ids, part.scores.tolist(), strict=True)) == found[:k]

    @rule(
        case=st.none() | filters,
        text=TEXTS,
        query=VECTORS,
        weights=WEIGHTS,
        alpha=st.none() | st.sampled_from([0.0, 0.25, 1.0]),
    )
    def both(self, case: tuple | None, text: str, query: list, weights: dict, alpha: float | None) -> None:
        where = None if case is None else case[0]
        options: dict[str, Any] = {"fusion": "rrf"} if alpha is None else {"fusion": "weighted", "alpha": alpha}
        vector = self.by_vector(query, self.matching(case))[:DEPTH]
        worded = self.reader.search(text=text, text_columns=weights, k=DEPTH, where=where)
        words = list(zip(worded.ids, worded.scores.tolist(), strict=True))
        expected = references.rrf([vector, words]) if alpha is None else references.weighted(vector, words, alpha)
        hits = self.reader.search(query, 50, text=text, text_columns=weights, where=where, **options)
        self.same(hits, expected)
        assert len(hits) >= min(DEPTH, len(self.matching(case)))

    @rule(
        case=st.none() | filters,
        query=st.none() | VECTORS,
        text=st.none() | TEXTS,
        least=st.none() | st.integers(0, 20),
        diversity=st.sampled_from([None, 0.0, 0.3, 1.0]),
        group=st.none() | st.sampled_from([(name, size) for name in ("year", "venue", "score") for size in (1, 3)]),
        k=st.integers(1, 12),
        size=st.integers(1, 5),
    )
    def shaped(
        self, case: Any, query: Any, text: Any, least: Any, diversity: Any, group: Any, k: int, size: int
    ) -> None:
        assume(query is not None or text is not None)
        base: dict[str, Any] = {"vector": query, "where": None if case is None else case[0]}
        if text is not None:
            base |= {"text": text, "text_columns": ["title", "body"]}
        plain = self.reader.search(k=100, **base)
        ranked = list(zip(plain.ids, plain.scores.tolist(), strict=True))
        options: dict[str, Any] = {}
        if least is not None and ranked:
            options["min_score"] = ranked[min(least, len(ranked) - 1)][1]
            ranked = [item for item in ranked if item[1] >= options["min_score"]]
            everything = self.reader.search(k=None, **base, **options)
            assert list(zip(everything.ids, everything.scores.tolist(), strict=True)) == ranked
        if diversity is not None:
            options["diversity"] = diversity
            if diversity:
                ranked = references.mmr(ranked[:POOL], self.vectors, diversity) + ranked[POOL:]
        parts = [[item] for item in ranked]
        if group is not None:
            options |= {"group_by": group[0], "group_size": group[1]}
            parts = references.grouped(ranked, lambda name: self.model[name][group[0]], group[1])
        hits = self.reader.search(k=k, **base, **options)
        found = list(zip(hits.ids, hits.scores.tolist(), strict=True))
        assert found == [item for part in parts[:k] for item in part]
        if group is not None:
            assert hits.groups == [self.model[name][group[0]] for name in hits.ids]
        self.pages(base | options, [item for part in parts for item in part], size)

    def pages(self, asked: dict[str, Any], expected: references.Ranked, size: int) -> None:
        """All pages together are one long search; writes in between change nothing."""
        found: references.Ranked = []
        cursor = None
        reader = Collection.open(self.path)
        for page in range(200):
            hits = (reader if page % 2 else self.reader).search(k=size, cursor=cursor, **asked)
            assert len(hits) or page == 0, "a cursor promises more"
            found += zip(hits.ids, hits.scores.tolist(), strict=True)
            cursor = hits.cursor
            if cursor is None:
                break
            if page == 0:
                self.collection.upsert(["between"], [[1.0, 0.0, 0.0]], [{"title": "sparse attention model"}])
        assert found == expected
        self.collection.delete(["between"])


@pytest.fixture(autouse=True)
def _small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_SMALL_FRAGMENTS", 3)
    monkeypatch.setattr(postings, "SEGMENT_ROWS", 8)
    for module in (ranking, answer):
        monkeypatch.setattr(module, "POOL", POOL)
    for module in (fusion, answer):
        monkeypatch.setattr(module, "DEPTH", DEPTH)


TestHybridMachine = HybridMachine.TestCase
TestHybridMachine.settings = settings(max_examples=examples(8, 30), stateful_step_count=12, deadline=None)
