"""New filters: the rows that they take from the indexes of the columns, beside a pass over the columns by Arrow.

    python benchmarks/search_filters.py --out docs/results/search_filters.json

Rows with attributes as papers have them (year, venue, topics, authors, a flag; drawn at random). Every filter is
answered anew by both, in alternation, and both answers are compared row by row. What is reported is the median and the
spread of the rounds in microseconds and the ratio of the medians; a lone time tells nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import _arms
from nextvec.search import filters
from nextvec.search.column_index import index_of
from nextvec.search.resolve import resolve
from nextvec.search.where import parse

SCHEMA = {"year": "int", "venue": "string", "topics": "list[string]", "authors": "int", "code": "bool"}
WHERE = (
    "year = 2025",
    "year IN (2018, 2019, 2020)",
    "year IN (2016, 2018, 2020, 2022, 2024)",
    "venue = 'v1' AND year >= 2024",
    "'t1' IN topics AND year >= 2020",
    "'t1' IN topics OR 't2' IN topics",
    "NOT venue = 'v1'",
    "authors >= 10 AND code = true",
    "(year = 2024 OR year = 2025) AND venue = 'v2' AND authors > 2",
)


def columns(rows: int, seed: int) -> dict[str, pa.Array]:
    """The attributes of so many rows."""
    rng = np.random.default_rng(seed)
    drawn = {
        "year": rng.integers(2000, 2027, rows).tolist(),
        "venue": [f"v{number}" for number in rng.zipf(1.5, rows) % 500],
        "topics": [[f"t{number}" for number in numbers] for numbers in rng.zipf(1.5, (rows, 3)) % 300],
        "authors": np.minimum(rng.geometric(0.2, rows), 60).tolist(),
        "code": (rng.random(rows) < 0.3).tolist(),
    }
    return {name: pa.array(values) for name, values in drawn.items()}


def measured(where: str, held: dict[str, pa.Array], indexes: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Both ways on one filter."""
    tree, total = parse(where, SCHEMA), len(held["year"])

    def ours() -> NDArray[np.uint8]:
        return resolve(tree, total, indexes.get, held.__getitem__).bits

    def arrow() -> NDArray[np.uint8]:
        return np.packbits(filters.mask(tree, held.__getitem__), bitorder="little")

    if not np.array_equal(ours(), arrow()):
        raise AssertionError(f"different rows satisfy {where}")
    taken: dict[str, list[float]] = {"nextvec": [], "arrow": []}
    ways: list[tuple[str, Callable[[], object]]] = [("nextvec", ours), ("arrow", arrow)]
    for turn in range(rounds):
        for name, run in ways[:: 1 if turn % 2 else -1]:
            began = time.perf_counter()
            run()
            taken[name].append((time.perf_counter() - began) * 1e6)
    told = {
        name: {"median_us": statistics.median(times), "low_us": min(times), "high_us": max(times)}
        for name, times in taken.items()
    }
    matches = resolve(tree, total, indexes.get, held.__getitem__).count
    ratio = told["arrow"]["median_us"] / told["nextvec"]["median_us"]
    return {"where": where, "matches": matches, **told, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=113_829)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    held = columns(options.rows, options.seed)
    indexes = {name: index_of(held[name], kind) for name, kind in SCHEMA.items()}
    cases = [measured(where, held, indexes, options.rounds) for where in WHERE]
    for case in cases:
        both = " ".join(f"{name} {case[name]['median_us']:8.0f} us" for name in ("nextvec", "arrow"))
        print(f"{case['ratio']:6.1f}x  {both}  {case['matches']:7,}  {case['where']}")
    of = {"machine": _arms.machine(), "rows": options.rows, "rounds": options.rounds}
    _arms.write({"benchmark": "search_filters", **of, "cases": cases}, options.out)


if __name__ == "__main__":
    main()
