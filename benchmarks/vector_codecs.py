"""How much of the exact answer is left when vectors are made small: recall@10 against bytes a vector, beside faiss.

    python benchmarks/vector_codecs.py --out docs/results/vector_codecs.json

Vectors: the abstracts of the bundled daily papers by nextvec-mini, 256 values, of length 1. Queries: the titles of some
of them. The right answer of a query are its 10 best abstracts by float32 vectors, scored in float64. Every codec, and
every quantiser of faiss beside it, learns from all the abstracts ("half": from every second one) and answers

- alone: the 10 best by the codes;
- re-ranked: the 40 best by the codes, scored again with the float32 vectors;
- re-ranked by int8: the same with int8 codes in place of the vectors.

What is reported is the mean recall over the queries with its 95 % bootstrap interval, and for each pair of the same
size ours minus faiss's on the same queries. Fitting is told in seconds of CPU time of one thread (set
OMP_NUM_THREADS=1), which other work on the machine disturbs little. Shapes: N vectors, Q queries.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

import _arms
from nextvec import Encoder
from nextvec.compress.vectors import fit, top_k
from nextvec.data.bundled import daily_papers
from nextvec.evaluate.retrieval import bootstrap, paired_bootstrap

K = 10
CANDIDATES = 4 * K
MODEL = "nextvec-mini"
OURS = (
    "float32",
    "float16",
    "bf16",
    "int8:vector",
    "rotate,int8:vector",
    "int8",
    "truncate128,int8",
    "pca128,int8",
    "truncate64,int8",
    "pca64,int8",
    "pq64",
    "pq64:opq",
    "binary",
    "rotate,binary",
    "pca256,rotate,binary",
    "pq32",
    "rotate,pq32",
    "pca128,pq32",
    "pq32:opq",
    "pca128,rotate,binary",
    "pq16",
    "pq16:opq",
)
HALF = ("int8", "pca128,int8", "rotate,binary", "pq32", "pq32:opq")
# "np": without the polysemous training, which costs minutes and does not change these answers.
PEERS = {
    "SQfp16": "float16",
    "SQbf16": "bf16",
    "SQ8": "int8",
    "PQ64np": "pq64",
    "PQ32np": "pq32",
    "OPQ32,PQ32np": "pq32:opq",
    "PQ16np": "pq16",
    "OPQ16,PQ16np": "pq16:opq",
}
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
PerQuery = dict[str, NDArray[np.float64]]


class Data(NamedTuple):
    """vectors [N, D] and queries [Q, D] of length 1; truth [Q, 10]: the right rows."""

    vectors: Float32
    queries: Float32
    truth: Int64


def data(queries: int, seed: int) -> Data:
    papers = [row for row in daily_papers().to_pylist() if row["source"] == "daily_papers"]
    encoder = Encoder.load(MODEL)
    vectors = encoder.encode_document([row["summary"] for row in papers])
    asked = np.sort(np.random.default_rng(seed).choice(len(papers), min(queries, len(papers)), replace=False))
    titles = encoder.encode_query([papers[i]["title"] for i in asked])
    every = np.broadcast_to(np.arange(len(vectors)), (len(titles), len(vectors)))
    return Data(vectors, titles, rescored(vectors, titles, every))


def rescored(vectors: Float32, queries: Float32, rows: Int64) -> Int64:
    """The 10 best of each query's rows by float64 scores."""
    best = np.empty((len(queries), K), np.int64)
    for i, query in enumerate(queries.astype(np.float64)):
        own = np.sort(rows[i])
        best[i] = own[np.argsort(-(vectors[own].astype(np.float64) @ query), kind="stable")[:K]]
    return best


def recall(rows: Int64, truth: Int64) -> NDArray[np.float64]:
    """For each query the share of its right rows that were found."""
    return np.array([len(set(own) & set(right)) / K for own, right in zip(rows.tolist(), truth.tolist(), strict=True)])


def ours(spec: str, given: Data, sample: Float32, second: Any) -> tuple[dict[str, Any], PerQuery]:
    began = time.process_time()
    codec = fit(spec, sample)
    seconds = time.process_time() - began
    codes = codec.encode(given.vectors)
    answers = {
        "alone": top_k(codec, given.queries, codes, K),
        "reranked": top_k(codec, given.queries, codes, K, rerank=given.vectors, candidates=CANDIDATES),
        "reranked_int8": top_k(codec, given.queries, codes, K, rerank=second, candidates=CANDIDATES),
    }
    facts = {"codec": spec, "bytes": codec.bytes_per_vector, "fit_cpu_s": round(seconds, 2)}
    return facts, {name: recall(found.rows, given.truth) for name, found in answers.items()}


def theirs(factory: str, given: Data) -> tuple[dict[str, Any], PerQuery]:
    began = time.process_time()
    index = faiss.index_factory(given.vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(given.vectors)
    seconds = time.process_time() - began
    index.add(given.vectors)
    rows = index.search(given.queries, CANDIDATES)[1]
    answers = {"alone": rows[:, :K], "reranked": rescored(given.vectors, given.queries, rows)}
    facts = {"codec": f"faiss {factory}", "bytes": index.sa_code_size(), "fit_cpu_s": round(seconds, 2)}
    return facts, {name: recall(found, given.truth) for name, found in answers.items()}


def row(facts: dict[str, Any], values: PerQuery) -> dict[str, Any]:
    return {**facts, **{name: bootstrap(own).as_dict() for name, own in values.items()}}


def cell(interval: dict[str, float] | None) -> str:
    return "" if interval is None else f"{interval['mean']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


def show(result: dict[str, Any]) -> None:
    named = result["codec"] + (" (half)" if result.get("fitted_on") == "half" else "")
    cells = [cell(result.get(name)) for name in ("alone", "reranked", "reranked_int8")]
    print(f"{named:28}{result['bytes']:6}{result['fit_cpu_s']:9.2f}  " + "".join(f"{c:25}" for c in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    given = data(options.queries, options.seed)
    finer = fit("int8", given.vectors)
    second = (finer, finer.encode(given.vectors))
    print(f"{len(given.vectors)} vectors x {given.vectors.shape[1]}, {len(given.queries)} queries; recall@{K} (95 %)\n")
    print(f"{'codec':28}{'bytes':>6}{'fit CPU s':>9}  {'alone':25}{'re-ranked':25}{'re-ranked by int8':25}")
    results, kept = [], {}
    for spec in OURS:
        facts, kept[spec] = ours(spec, given, given.vectors, second)
        results.append(row(facts, kept[spec]))
        show(results[-1])
    for spec in HALF:
        facts, values = ours(spec, given, given.vectors[::2], second)
        results.append(row({**facts, "fitted_on": "half"}, values))
        show(results[-1])
    pairs = []
    for factory, spec in PEERS.items():
        facts, values = theirs(factory, given)
        results.append(row(facts, values))
        show(results[-1])
        gaps = {name: paired_bootstrap(kept[spec][name], values[name]).as_dict() for name in values}
        pairs.append({"ours": spec, "theirs": facts["codec"], "bytes": facts["bytes"], **gaps})
    print("\nours minus faiss's, same queries")
    for pair in pairs:
        print(f"{pair['ours']:12}{pair['theirs']:22}{cell(pair['alone']):27}{cell(pair['reranked'])}")
    document = {
        "benchmark": "vector_codecs",
        "model": MODEL,
        "rows": len(given.vectors),
        "dim": given.vectors.shape[1],
        "queries": len(given.queries),
        "k": K,
        "candidates": CANDIDATES,
        "seed": options.seed,
        "machine": _arms.machine(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "faiss": faiss.__version__},
        "results": results,
        "pairs": pairs,
    }
    _arms.write(document, options.out)


if __name__ == "__main__":
    main()
