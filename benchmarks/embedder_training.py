"""Pairs a second of contrastive fine-tuning beside sentence-transformers' trainer: same weights, pairs, loss, batch.

    pip install datasets                 # sentence-transformers' trainer needs it; nothing else here does
    python benchmarks/embedder_training.py --out benchmarks/out/embedder_training.json

MiniLM learns that a title finds its abstract (bundled Daily Papers), InfoNCE with the other documents of the batch,
AdamW, float32. Both sides do all that a user's run does: batches, forward, loss, backward, clipping, optimiser,
schedule. The first steps are not counted. Each measurement is a process of its own, in alternation. The losses of the
first step are printed: they are of the same pairs and must agree. Peak memory at 80,000 negatives:
benchmarks/contrastive_memory.py.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from _arms import machine, run, write

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

WARM = 3


def texts(count: int) -> tuple[list[str], list[str]]:
    """``count`` titles and abstracts."""
    from nextvec.data.bundled import daily_papers

    rows = [r for r in daily_papers(columns=["title", "summary"]).to_pylist() if r["title"] and r["summary"]]
    if len(rows) < count:
        raise SystemExit(f"there are {len(rows):,} bundled papers; {count:,} pairs were asked for")
    return [row["title"] for row in rows[:count]], [row["summary"] for row in rows[:count]]


def ours(batch: int, steps: int, length: int) -> dict[str, Any]:
    """nextvec: the base class of the text methods with InfoNCE."""
    from nextvec.data.pairs import Pairs, pair_columns
    from nextvec.data.sources import Columns
    from nextvec.engine.engine import Engine, Report, TrainConfig
    from nextvec.engine.optim import OptimConfig
    from nextvec.objectives.info_nce import InfoNCE
    from nextvec.text_method import TextConfig, TextMethod, minilm
    from nextvec.types import Batch, Card

    class Plain(TextMethod):
        card = Card(name="plain", title="", arxiv="", year=2026, family="", claim="", differs=())

        def objective(self) -> InfoNCE:
            return InfoNCE(temperature=0.05, symmetric=False)

    class InOrder:
        """The pairs in their order, as the peer is given them."""

        def __init__(self, columns: Columns) -> None:
            self.columns = columns

        def batch(self, step: int, *, part: int = 0, parts: int = 1) -> Batch:
            import numpy as np

            return self.columns(np.arange(step * batch, (step + 1) * batch))

    titles, abstracts = texts(batch * steps)
    method = Plain.start(TextConfig(base=minilm(), max_length=length))
    columns = pair_columns(Pairs(titles, abstracts), method.text_tokenizer(), max_length=length)
    config = TrainConfig(steps=steps, batch=batch, optim=OptimConfig(lr=2e-5, weight_decay=0.01), log_every=1)
    times, losses = [], []

    def on_step(report: Report) -> None:
        times.append(time.perf_counter())
        losses.append(report.loss)

    Engine(method, config, device="cpu").fit(InOrder(columns), on_step=on_step)
    return {"seconds": times[-1] - times[WARM - 1], "first_loss": losses[0]}


def peer(batch: int, steps: int, length: int) -> dict[str, Any]:
    """sentence-transformers: SentenceTransformerTrainer with MultipleNegativesRankingLoss."""
    try:
        from datasets import Dataset
    except ImportError:
        raise SystemExit("sentence-transformers' trainer needs: pip install datasets") from None
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    from nextvec.text_method import minilm

    titles, abstracts = texts(batch * steps)
    model = SentenceTransformer(minilm(), device="cpu")
    model.max_seq_length = length
    for module in model.modules():  # as ours: a small model on few steps gains nothing from dropout
        if type(module).__name__ == "Dropout":
            module.p = 0.0
    times: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if logs and "loss" in logs:
                losses.append(logs["loss"])

    class InOrder(SentenceTransformerTrainer):
        def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> Any:
            from sentence_transformers.sampler import DefaultBatchSampler

            return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)

    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=2e-5,
            weight_decay=0.01,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = InOrder(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({"anchor": titles, "positive": abstracts}),
            loss=MultipleNegativesRankingLoss(model, scale=20.0),
            callbacks=[Clock()],
        )
        trainer.train()
    return {"seconds": times[-1] - times[WARM - 1], "first_loss": losses[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=13, help=f"steps of each run; the first {WARM} are not counted")
    parser.add_argument("--length", type=int, default=256, help="tokens kept per text (the model's own limit)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arm", choices=["ours", "peer"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.arm:
        function = ours if options.arm == "ours" else peer
        print(json.dumps(function(options.batch, options.steps, options.length)))
        return
    numbers = {"batch": options.batch, "steps": options.steps, "length": options.length}
    rounds = [(run(__file__, "ours", **numbers), run(__file__, "peer", **numbers)) for _ in range(options.rounds)]
    counted = options.batch * (options.steps - WARM)
    ratios = [b["seconds"] / a["seconds"] for a, b in rounds]
    result = {
        "benchmark": "embedder_training",
        "batch": options.batch,
        "length": options.length,
        "pairs_per_second": {
            name: [counted / pair[i]["seconds"] for pair in rounds] for i, name in enumerate(("ours", "peer"))
        },
        "speed_ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "first_loss": {name: rounds[0][i]["first_loss"] for i, name in enumerate(("ours", "peer"))},
        "machine": machine(),
    }
    print(json.dumps(result, indent=2))
    write(result, options.out)


if __name__ == "__main__":
    main()
