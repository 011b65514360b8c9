"""What the killed writers do: a list of writes that follows from a seed alone, so that the test knows it as well.

python killed_writer.py FOLDER SEED FIRST      does the writes from FIRST on, and prints the number of each
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

DIM = 16
SCHEMA = {"n": "int", "words": "string"}
WORDS = ["red", "green", "blue", "small", "large"]
Model = dict[str, tuple[np.ndarray, int, str]]
Write = tuple[Callable[[Any], Any], Callable[[Model], None]]
"""To a collection, and to what it should hold then: id to (vector, n, words), in insertion order."""


def writes(seed: int) -> Iterator[Write]:
    """Without end: adds, upserts, deletes by id and by filter, compactions, and searches, which append to the derived
    files and swap them."""
    rng = np.random.default_rng(seed)
    number = 0
    while True:
        number += 1
        kind = rng.choice(
            ["add", "upsert", "delete", "delete where", "compact", "search"], p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1]
        )
        first, rows = int(rng.integers(0, 400)), int(rng.integers(1, 40))
        vectors = rng.standard_normal((rows, DIM)).astype(np.float32)
        if kind in ("add", "upsert"):
            ids = [f"new{number}-{i}" if kind == "add" else f"id{first + i}" for i in range(rows)]
            yield _put(kind, ids, vectors, number)
        elif kind == "delete":
            yield _delete([f"id{first + i}" for i in range(rows)])
        elif kind == "delete where":
            yield _delete_where(number - int(rng.integers(1, 12)))
        elif kind == "compact":
            yield (lambda collection: collection.compact()), (lambda model: None)
        else:
            yield _search(vectors[0]), (lambda model: None)


def _put(kind: str, ids: list[str], vectors: np.ndarray, number: int) -> Write:
    words = [f"{WORDS[number % 5]} {WORDS[i % 5]}" for i in range(len(ids))]

    def model(held: Model) -> None:
        for name, vector, text in zip(ids, vectors, words, strict=True):
            held.pop(name, None)
            held[name] = vector, number, text

    return (lambda to: getattr(to, kind)(ids, vectors, {"n": [number] * len(ids), "words": words})), model


def _delete(ids: list[str]) -> Write:
    def model(held: Model) -> None:
        for name in ids:
            held.pop(name, None)

    return (lambda collection: collection.delete(ids)), model


def _delete_where(number: int) -> Write:
    def model(held: Model) -> None:
        for name in [name for name, row in held.items() if row[1] == number]:
            del held[name]

    return (lambda collection: collection.delete(where=f"n = {number}")), model


def _search(vector: np.ndarray) -> Callable[[Any], None]:
    def search(collection: Any) -> None:
        collection.search(vector, 5)
        collection.search(text="red small", text_columns=["words"])

    return search


def main() -> None:
    from nextvec.search import derived, store, text_index
    from nextvec.search.collection import Collection

    # So that pieces are merged, and derived files made anew, every few writes.
    store.MAX_SMALL_FRAGMENTS = 4
    for module in (derived, text_index):
        module._GARBAGE_ROWS = 60  # type: ignore[attr-defined]
    collection = Collection.open(sys.argv[1])
    print("ready", flush=True)
    for number, (write, _) in enumerate(writes(int(sys.argv[2]))):
        if number >= int(sys.argv[3]):
            write(collection)
            print(number, flush=True)


if __name__ == "__main__":
    main()
