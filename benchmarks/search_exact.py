"""Exact filtered search: ``Collection.search`` beside faiss and beside Lance's own scan, on the same vectors.

    python benchmarks/search_exact.py --rows 100000 --out docs/results/search_exact.json

Engines, all exact, all asked for the 10 best by cosine under ``value < threshold``:
- collection: everything a caller of ``Collection.search`` pays for (parsing, filter, search, ids), filter repeated;
- collection, new filter: the same with a filter never seen before, so that nothing remembered helps;
- faiss, bitmap at hand: IndexFlatIP with an IDSelectorBitmap made before the clock starts;
- faiss, bitmap per query: comparison, packing of the bits and selector on the clock;
- lance: nearest with a prefilter on the collection's table, without an index (it takes one query a call, so it is left
  out of the batches).

Engines take turns in every round, so that a slow moment of the machine hits all of them. The first answer of each is
compared with float64 brute force. Shapes: N rows, D dimensions, Q queries in a batch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import lance
import numpy as np
from numpy.typing import NDArray

from nextvec.files import atomic_write
from nextvec.search.collection import Collection

K = 10
SHARES = (0.001, 0.01, 0.1, 0.5, 1.0)
BATCH = 64
Float32 = NDArray[np.float32]
Answer = tuple[list[list[int]], list[Float32]]
"""Row numbers and scores of each query."""
Engine = Callable[[Float32], Answer]


def data(rows: int, dim: int, seed: int) -> tuple[Float32, Float32, NDArray[np.int64]]:
    """Clustered unit vectors [N, D], 1,024 queries near them, and an attribute whose order is random."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(rows // 500, 1), dim)).astype(np.float32)

    def near(count: int) -> Float32:
        noise = rng.standard_normal((count, dim)).astype(np.float32)
        vectors = centres[rng.integers(0, len(centres), count)] + np.float32(0.8) * noise
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return near(rows), near(1024), rng.permutation(rows)


def collection_engine(collection: Collection, thresholds: Iterator[int]) -> Engine:
    """``thresholds`` gives the bound of ``value`` for each call."""

    def answer(queries: Float32) -> Answer:
        found = collection.search(queries, K, where=f"value < {next(thresholds)}")
        return [[int(name) for name in hits.ids] for hits in found], [hits.scores for hits in found]

    return answer


def faiss_engine(index: Any, values: NDArray[np.int64], threshold: int, *, at_hand: bool) -> Engine:
    def selector() -> tuple[Any, Any]:
        bitmap = np.packbits(values < threshold, bitorder="little")
        return faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap)), bitmap

    made = selector()

    def answer(queries: Float32) -> Answer:
        parameters, _bitmap = made if at_hand else selector()
        scores, rows = index.search(queries, K, params=parameters)
        return [row[row >= 0].tolist() for row in rows], [s[r >= 0] for s, r in zip(scores, rows, strict=True)]

    return answer


def lance_engine(dataset: Any, threshold: int) -> Engine:
    def one(query: Float32) -> tuple[list[int], Float32]:
        nearest = {"column": "vector", "q": query, "k": K, "metric": "cosine", "use_index": False}
        table = dataset.to_table(
            columns=["id", "_distance"], nearest=nearest, filter=f"value < {threshold}", prefilter=True
        )
        return [int(name) for name in table.column("id").to_pylist()], 1 - table.column("_distance").to_numpy()

    def answer(queries: Float32) -> Answer:
        pairs = [one(query) for query in queries]
        return [rows for rows, _ in pairs], [scores for _, scores in pairs]

    return answer


def check(answer: Answer, truth: Answer, *, exact: bool) -> dict[str, Any]:
    """How an answer compares with brute force. The collection must be equal to it, row by row."""
    pairs = list(zip(answer[0], truth[0], strict=True))
    gap = max(float(np.abs(a - b).max(initial=0)) for a, b in zip(answer[1], truth[1], strict=True))
    same = sum(a == b for a, b in pairs) / len(pairs)
    if exact and same < 1:
        raise SystemExit("the collection's answer differs from brute force")
    if any(len(a) != len(b) for a, b in pairs) or gap > 1e-4:
        raise SystemExit(f"an engine's answer is wrong (largest score difference {gap})")
    return {"same_rows_in_order": same, "largest_score_difference": gap}


def brute_force(vectors: Float32, values: NDArray[np.int64], queries: Float32, threshold: int) -> Answer:
    rows = np.flatnonzero(values < threshold)
    wide = vectors[rows].astype(np.float64)
    answers, scores = [], []
    for query in queries:
        # einsum sums every row in the same order, so that rounding to float32 is reproducible.
        every = np.einsum("ij,j->i", wide, query.astype(np.float64)).astype(np.float32)
        order = np.argsort(-every, kind="stable")[:K]
        answers.append(rows[order].tolist())
        scores.append(every[order])
    return answers, scores


def measure(engines: dict[str, Engine], batches: list[Float32], rounds: int, calls: int) -> dict[str, dict[str, float]]:
    """Median, p10 and p90 of milliseconds per call. In each round every engine, in an order that rotates, makes one
    call off the clock (to find its data in the caches) and then ``calls`` timed ones with different queries."""
    taken: dict[str, list[float]] = {name: [] for name in engines}
    names = list(engines)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            engine = engines[name]
            engine(batches[(i * calls - 1) % len(batches)])
            for call in range(calls):
                batch = batches[(i * calls + call) % len(batches)]
                began = time.perf_counter()
                engine(batch)
                taken[name].append((time.perf_counter() - began) * 1000)
    return {
        name: {
            "median_ms": float(np.median(times)),
            "p10_ms": float(np.percentile(times, 10)),
            "p90_ms": float(np.percentile(times, 90)),
            "calls": len(times),
        }
        for name, times in taken.items()
    }


def normalised(vectors: Float32) -> Float32:
    """As the collection does at its door, so that brute force and engines see the very same numbers."""
    return (vectors / np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))[:, None]).astype(np.float32)


def run(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    vectors, queries, values = data(options.rows, options.dim, options.seed)
    vectors, queries = normalised(normalised(vectors)), normalised(normalised(queries))
    collection = Collection.create(folder / "c", dim=options.dim, schema={"value": "int"})
    collection.add([str(i) for i in range(options.rows)], vectors, {"value": values})
    stored = np.concatenate([batch for _, batch in collection._current().vectors_after(-1)])
    index = faiss.IndexFlatIP(options.dim)
    index.add(stored)
    dataset = lance.dataset(folder / "c" / "data.lance")
    results = []
    for share in SHARES:
        threshold = max(int(options.rows * share), 1)
        for size in (1, BATCH):
            fresh = itertools.count(threshold)  # one row more each time: a new filter, the same work
            engines = {
                "collection": collection_engine(collection, itertools.repeat(threshold)),
                "collection, new filter": collection_engine(collection, fresh),
                "faiss, bitmap at hand": faiss_engine(index, values, threshold, at_hand=True),
                "faiss, bitmap per query": faiss_engine(index, values, threshold, at_hand=False),
            }
            if size == 1:
                engines["lance"] = lance_engine(dataset, threshold)
            batches = [queries[start : start + size] for start in range(0, 1024 - size + 1, size)]
            truth = brute_force(stored, values, batches[0], threshold)
            checks = {
                name: check(engine(batches[0]), truth, exact=name == "collection") for name, engine in engines.items()
            }
            times = measure(engines, batches, options.rounds, options.calls if size == 1 else 2)
            for name in engines:
                results.append({"share": share, "queries": size, "engine": name, **times[name], **checks[name]})
            show([row for row in results if row["share"] == share and row["queries"] == size])
    return results


def show(rows: list[dict[str, Any]]) -> None:
    ours = rows[0]["median_ms"]
    print(f"\nmatching {rows[0]['share']:.1%}, {rows[0]['queries']} quer{'y' if rows[0]['queries'] == 1 else 'ies'}")
    print(f"  {'engine':26}{'median ms':>11}{'p10':>9}{'p90':>9}{'calls':>7}{'vs first':>10}{'same rows':>11}")
    for row in rows:
        print(
            f"  {row['engine']:26}{row['median_ms']:11.3f}{row['p10_ms']:9.3f}{row['p90_ms']:9.3f}{row['calls']:7d}"
            f"{row['median_ms'] / ours:9.2f}x{row['same_rows_in_order']:11.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=10, help="rounds for each selectivity and batch size")
    parser.add_argument("--calls", type=int, default=10, help="timed calls of each engine in a round")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nextvec-bench-") as folder:
        results = run(options, Path(folder))
    document = {
        "benchmark": "search_exact",
        "rows": options.rows,
        "dim": options.dim,
        "k": K,
        "seed": options.seed,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"numpy": np.__version__, "faiss": faiss.__version__, "lance": lance.__version__},
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "results": results,
    }
    if options.out:
        with atomic_write(options.out, "w") as stream:
            json.dump(document, stream, indent=1)
        print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
