"""What fewer layers save: encoding with the first 1 to L layers of MiniLM beside all L, on real abstracts.

    python benchmarks/layers.py --out benchmarks/out/layers.json

Runs in one process and in alternation (a round runs every depth once, in an order that rotates), so that a drift of the
machine's speed meets all depths alike. What is reported is the ratio of a depth's speed to that of all layers in the
same round: median and range over the rounds. Tokenising, pooling and the token table are part of every depth.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from encode import minilm_folder
from nextvec import Encoder
from nextvec.data.bundled import daily_papers


def measure(encoder: Encoder, texts: list[str], rounds: int) -> dict[int, dict[str, Any]]:
    """By number of layers: documents per second, and the ratio to all layers of the same round."""
    depths = list(range(1, encoder.layers + 1))
    for depth in depths:  # warm-up
        encoder.encode(texts[:32], layers=depth, precision="fp32")
    speeds: dict[int, list[float]] = {depth: [] for depth in depths}
    for i in range(rounds):
        for depth in depths[i % len(depths) :] + depths[: i % len(depths)]:
            start = time.perf_counter()
            encoder.encode(texts, layers=depth, precision="fp32")
            speeds[depth].append(len(texts) / (time.perf_counter() - start))
    whole = speeds[encoder.layers]
    return {
        depth: {
            "docs_per_s": _spread(values),
            "ratio_to_all": _spread([value / all_layers for value, all_layers in zip(values, whole, strict=True)]),
        }
        for depth, values in speeds.items()
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    """Parse arguments, run, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--model", type=Path, help="a transformer's folder (default: the MiniLM package's)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    import torch

    papers = daily_papers(columns=["title", "summary"])
    step = max(1, papers.num_rows // options.docs)
    rows = papers.to_pylist()[::step][: options.docs]
    texts = [f"{row['title']}. {row['summary']}" for row in rows]
    encoder = Encoder.load(options.model or minilm_folder(), device="cpu")
    report = {
        "model": encoder.name,
        "docs": len(texts),
        "rounds": options.rounds,
        "machine": {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "layers": measure(encoder, texts, options.rounds),
    }
    print(f"{len(texts)} abstracts, {options.rounds} rounds, {report['machine']['threads']} threads")
    print(f"{'layers':>6} {'docs/s':>9} {'x all layers':>13} {'(min .. max)':>15}")
    for depth, row in report["layers"].items():
        ratio = row["ratio_to_all"]
        print(
            f"{depth:6} {row['docs_per_s']['median']:9.1f} {ratio['median']:13.2f} "
            f"{ratio['min']:7.2f} .. {ratio['max']:4.2f}"
        )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
