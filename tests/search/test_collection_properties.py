"""Any sequence of writes, then any search: the same as a dict and NumPy would give."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filter_cases import SCHEMA, filters, rows
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from examples import examples
from nextvec.search import snapshot, store
from nextvec.search.collection import Collection
from nextvec.types import ConflictError

DIM = 3
PLAIN_TEXT = snapshot._PLAIN_TEXT
IDS = st.integers(0, 30).map(lambda i: f"id{i}")
# Few values, so that equal scores are common.
VECTORS = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=DIM, max_size=DIM).filter(any)
BATCH = st.lists(st.tuples(IDS, VECTORS, rows), min_size=1, max_size=8, unique_by=lambda item: item[0])


class CollectionMachine(RuleBasedStateMachine):
    """``self.model``: id -> (vector of length 1, attributes), in insertion order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.model: dict[str, tuple[np.ndarray, dict[str, Any]]] = {}

    def teardown(self) -> None:
        snapshot._PLAIN_TEXT = PLAIN_TEXT
        if hasattr(self, "collection"):
            self.collection.close()  # pieces may still be merged in the background
            self.reader.close()
        self.folder.cleanup()

    @initialize(metric=st.sampled_from(["cosine", "dot"]), wide=st.booleans())
    def create(self, metric: Any, wide: bool) -> None:
        snapshot._PLAIN_TEXT = -1 if wide else PLAIN_TEXT  # -1: as if there were more than 2 GB of each text
        self.metric = metric
        self.path = Path(self.folder.name) / "c"
        self.collection = Collection.create(self.path, dim=DIM, schema=SCHEMA, metric=metric)
        self.reader = Collection.open(self.path)

    def stored(self, vector: list[float]) -> np.ndarray:
        array = np.array([vector], np.float32)
        if self.metric == "cosine":
            array = (array / np.sqrt((array.astype(np.float64) ** 2).sum(axis=1, keepdims=True))).astype(np.float32)
        return array[0]

    @rule(batch=BATCH)
    def add(self, batch: list) -> None:
        ids = [item[0] for item in batch]
        taken = [identifier for identifier in ids if identifier in self.model]
        arguments = (ids, [item[1] for item in batch], [item[2] for item in batch])
        if taken:
            with pytest.raises(ConflictError, match=f"'{taken[0]}' exists"):
                self.collection.add(*arguments)
        else:
            self.collection.add(*arguments)
            self.model.update({name: (self.stored(vector), row) for name, vector, row in batch})

    @rule(batch=BATCH)
    def upsert(self, batch: list) -> None:
        columns = {name: [item[2][name] for item in batch] for name in SCHEMA}
        self.collection.upsert([item[0] for item in batch], [item[1] for item in batch], columns)
        for name, vector, row in batch:
            self.model.pop(name, None)
            self.model[name] = (self.stored(vector), row)

    @rule(ids=st.lists(IDS, max_size=5))
    def delete(self, ids: list[str]) -> None:
        gone = {name for name in ids if name in self.model}
        assert self.collection.delete(ids) == len(gone)
        for name in gone:
            del self.model[name]

    @rule(case=filters)
    def delete_where(self, case: tuple) -> None:
        where, truth = case
        gone = [name for name, (_, row) in self.model.items() if truth(row) is True]
        assert self.collection.delete(where=where) == len(gone)
        for name in gone:
            del self.model[name]

    @rule()
    def reopen(self) -> None:
        self.collection.close()
        self.collection = Collection.open(self.path)

    @rule()
    def compact(self) -> None:
        self.collection.compact()

    @rule(case=st.none() | filters, query=VECTORS, k=st.integers(1, 40))
    def search(self, case: tuple | None, query: list[float], k: int) -> None:
        where = None if case is None else case[0]
        names = [name for name, (_, row) in self.model.items() if case is None or case[1](row) is True]
        wide = self.stored(query).astype(np.float64)
        scores = np.array([np.float32(self.model[name][0].astype(np.float64) @ wide) for name in names], np.float32)
        order = np.argsort(-scores, kind="stable")[:k]
        assert self.collection.count(where) == len(names)
        hits = self.reader.search(query, k, where=where, columns=list(SCHEMA))
        assert hits.ids == [names[i] for i in order]
        assert hits.scores.tolist() == scores[order].tolist()
        assert list(hits.attributes) == [self.model[name][1] for name in hits.ids]

    @invariant()
    def same_rows(self) -> None:
        if not hasattr(self, "collection"):
            return
        assert self.collection.ids() == list(self.model)


@pytest.fixture(autouse=True)
def _merge_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_SMALL_FRAGMENTS", 3)


TestCollectionMachine = CollectionMachine.TestCase
TestCollectionMachine.settings = settings(max_examples=examples(15, 60), stateful_step_count=20, deadline=None)
