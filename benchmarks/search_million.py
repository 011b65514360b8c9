"""A collection of a million vectors: how long it takes to open, how much memory a search needs, how both grow.

    python benchmarks/search_million.py --rows 100000 300000 1000000 2000000 --out docs/results/search_million.json

Clustered random vectors of 384 values with an attribute. For each size a collection is made and indexed (with a graph
only for --graph 1), then opened by a fresh process, which reports
- open_s: ``Collection.open``, and first_s: the first answer with a recall of 0.95, which checks the files;
- search_ms: the median of single searches without a filter, under one of 1 % and exactly;
- own_mb: memory of the process itself above what Python with its imports has; mapped_mb: pages of the files that it has
  read, which the system takes back when it needs them.
No peer: the promises are absolute (open in under a second, under 2 GB). Sizes beyond are told by a line through these.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from _arms import machine, run, write
from nextvec.search.collection import Collection

DIM = 384
_BATCH = 50_000
_PLACE = Path(tempfile.gettempdir()) / "nextvec-million"


def vectors(count: int, seed: int) -> NDArray[np.float32]:
    """Unit vectors [count, D] around 2,000 centres, which are the same for every seed."""
    centres = np.random.default_rng(0).standard_normal((2_000, DIM)).astype(np.float32)
    rng = np.random.default_rng([1, seed])
    made = centres[rng.integers(0, len(centres), count)] + 0.8 * rng.standard_normal((count, DIM), np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def memory() -> dict[str, float]:
    """Megabytes of this process: its own, and mapped from files."""
    text = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if line.endswith(" kB")}
    return {"own": kilobytes["Anonymous"] / 1e3, "mapped": (kilobytes["Rss"] - kilobytes["Anonymous"]) / 1e3}


def build(rows: int, graph: int) -> dict[str, Any]:
    """Make the collection, and its index."""
    shutil.rmtree(_PLACE / str(rows), ignore_errors=True)
    began = time.perf_counter()
    with Collection.create(_PLACE / str(rows), dim=DIM, schema={"share": "float"}) as collection:
        for start in range(0, rows, _BATCH):
            count = min(_BATCH, rows - start)
            share = np.random.default_rng([2, start]).random(count)
            collection.add(
                [str(i) for i in range(start, start + count)], vectors(count, start), {"share": share.tolist()}
            )
        added = time.perf_counter()
        collection.index(graph=bool(graph))
        done = time.perf_counter()
        info = collection.info()
    return {
        "add_s": added - began,
        "index_s": done - added,
        "disk_mb": (info["bytes"] + info["derived_bytes"]) / 1e6,
    }


def look(rows: int, graph: int) -> dict[str, Any]:
    """Open it and search."""
    queries = vectors(200, 10**9)
    before = memory()
    began = time.perf_counter()
    collection = Collection.open(_PLACE / str(rows))
    opened = time.perf_counter()
    collection.search(queries[0], 10, recall=0.95)
    first = time.perf_counter()
    after_first = memory()
    ways: dict[str, dict[str, Any]] = {
        "all": {"recall": 0.95},
        "1 %": {"recall": 0.95, "where": "share < 0.01"},
        "exact": {},
    }
    took = {}
    for name, options in ways.items():
        count = 20 if name == "exact" else 200
        times = []
        for query in queries[:count]:
            start = time.perf_counter()
            collection.search(query, 10, **options)
            times.append(1000 * (time.perf_counter() - start))
        took[name] = float(np.median(times[count // 10 :]))
    truth = [set(collection.search(query, 10).ids) for query in queries[:100]]
    found = [set(collection.search(query, 10, recall=0.95).ids) for query in queries[:100]]
    after = memory()
    return {
        "open_s": opened - began,
        "first_s": first - opened,
        "search_ms": took,
        "recall": float(np.mean([len(a & b) / 10 for a, b in zip(truth, found, strict=True)])),
        "own_mb": {"first search": after_first["own"] - before["own"], "after all": after["own"] - before["own"]},
        "mapped_mb": {
            "first search": after_first["mapped"] - before["mapped"],
            "after all": after["mapped"] - before["mapped"],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--graph", type=int, default=0, help="1: with a graph, which takes minutes")
    parser.add_argument("--arm", choices=["build", "look"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps((build if options.arm == "build" else look)(options.rows[0], options.graph)))
        return
    sizes = {}
    for rows in options.rows:
        numbers = {"rows": rows, "graph": options.graph}
        try:
            sizes[rows] = run(__file__, "build", **numbers) | run(__file__, "look", **numbers)
        finally:
            shutil.rmtree(_PLACE / str(rows), ignore_errors=True)
        print(json.dumps({rows: sizes[rows]}, indent=2), flush=True)
    result: dict[str, Any] = {"benchmark": "search_million", "dim": DIM, "graph": bool(options.graph), "sizes": sizes}
    if len(sizes) > 1:
        counts = np.array(list(sizes), float)
        own = np.array([one["own_mb"]["after all"] for one in sizes.values()])
        slope, start = np.polyfit(counts, own, 1)
        result["own_mb_at_10_million"] = float(start + 1e7 * slope)
    write(result | {"machine": machine()}, options.out)


if __name__ == "__main__":
    main()
