"""Float32 products of training: ``nextvec.nn.linear`` beside PyTorch's own, forward and backward.

    python benchmarks/linear.py --out benchmarks/out/linear.json

Both take turns on the same arrays, one thread. The ratio is that of the medians, above 1 where ours is faster; the
least product that is worth oneDNN's call (``_WORTH``) follows from the first rows. On processors where PyTorch's
products are left alone (Intel's, or no oneDNN) all ratios are 1.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from _arms import machine, write
from nextvec.nn import linear as ours

SHAPES = [(64, 128, 128), (128, 128, 128), (256, 128, 128), (512, 128, 512), (3072, 128, 4096), (8192, 384, 1536)]


def ratio(rows: int, inputs: int, outputs: int, rounds: int) -> dict[str, Any]:
    """Medians in milliseconds for x [rows, inputs] and weights [outputs, inputs]."""
    x, weight, bias = (
        torch.randn(size, requires_grad=True) for size in ((rows, inputs), (outputs, inputs), (outputs,))
    )
    pull = torch.randn(rows, outputs)
    taken: dict[str, list[float]] = {"torch": [], "nextvec": []}
    for turn in range(rounds + 2):
        for name, product in (("torch", F.linear), ("nextvec", ours.linear)):
            began = time.perf_counter()
            torch.autograd.grad(product(x, weight, bias), (x, weight, bias), pull)
            if turn >= 2:
                taken[name].append(1000 * (time.perf_counter() - began))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    return {"shape": [rows, inputs, outputs], "ms": medians, "ratio": medians["torch"] / medians["nextvec"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours._WORTH = 1  # small products too, to see from where on it pays
    results = [ratio(*shape, options.rounds) for shape in SHAPES]
    for result in results:
        torchs, own = result["ms"]["torch"], result["ms"]["nextvec"]
        print(f"{result['shape']}  {torchs:.2f} ms, {own:.2f} ms  {result['ratio']:.2f}x")
    used = ours.onednn_is_faster()
    write({"benchmark": "linear", "onednn": used, "results": results, "machine": machine()}, options.out)


if __name__ == "__main__":
    main()
