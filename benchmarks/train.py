"""Training speed of a 20M-parameter causal model: nextvec's engine beside Hugging Face's Trainer, on real abstracts.

    python benchmarks/train.py --out benchmarks/out/train.json

Both train the same shape of model (pre-norm, RMS norm, rotary positions, SwiGLU, tied head), in float32, with fused
AdamW, gradient clipping and the same token ids, in one process and in alternation. Three comparisons, each a ratio of
real tokens per second in the same round (median and range over rounds):

- full rows: every sequence as long as the next, so that no padding is in play;
- abstracts: whole abstracts of different lengths; the peer pads a batch to its longest (as its collator does), ours
  lays them end to end;
- NextLat: our engine with next-latent prediction at horizon 1, against our engine with next-token prediction alone.

``--clock cpu`` counts the process's CPU seconds instead of wall time: for a machine that others use at the same time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from nextvec.data.bundled import daily_papers
from nextvec.data.sources import ragged
from nextvec.data.tokenizers import train_bpe
from nextvec.engine.engine import Engine, TrainConfig
from nextvec.engine.optim import OptimConfig
from nextvec.engine.schedule import ScheduleConfig
from nextvec.methods.nextlat import NextLat
from nextvec.types import Batch

SHAPE = {"dim": 384, "layers": 10, "heads": 6}
FFN = 1024  # what NextLat makes of width 384
VOCAB = 8192
CLOCK = time.perf_counter
Batches = list[list[list[int]]]


def batches(rows: int, length: int, count: int) -> tuple[Batches, Batches]:
    """``count`` batches of full rows [rows, length], and ``count`` of ``rows`` whole abstracts each."""
    texts = daily_papers(columns=["summary"])["summary"].to_pylist()
    tokenizer = train_bpe(texts[:4000], vocab=VOCAB)
    documents = tokenizer.encode(texts[: rows * count * 3], max_length=512)
    flat = [token for ids in documents for token in ids]
    each = rows * length
    full = [[flat[i * each + r * length :][:length] for r in range(rows)] for i in range(count)]
    return full, [documents[i * rows : (i + 1) * rows] for i in range(count)]


class Fixed:
    """A source that gives prepared batches in turn."""

    def __init__(self, prepared: Batches) -> None:
        self.prepared = [Batch({"text": ragged(rows)}) for rows in prepared]

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> Batch:
        return self.prepared[step % len(self.prepared)]


def ours(*, latent: bool) -> Callable[[Batches], float]:
    """A function from batches to seconds for all but the first step."""
    torch.manual_seed(0)
    config = NextLat.Config(vocab=VOCAB, horizon=int(latent), **SHAPE)
    method = NextLat(config)

    def run(prepared: Batches) -> float:
        engine = Engine(
            method,
            TrainConfig(
                steps=len(prepared),
                batch=len(prepared[0]),
                optim=OptimConfig(lr=1e-4),
                schedule=ScheduleConfig(name="constant", warmup=0),
                log_every=1_000_000,
            ),
            device="cpu",
        )
        times: list[float] = []
        engine.fit(Fixed(prepared), on_step=lambda report: times.append(CLOCK()))
        return times[-1] - times[0]

    return run


def peer() -> Callable[[Batches], float]:
    """The same with transformers.Trainer and a LlamaForCausalLM of the same shape."""
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=SHAPE["dim"],
            num_hidden_layers=SHAPE["layers"],
            num_attention_heads=SHAPE["heads"],
            intermediate_size=FFN,
            tie_word_embeddings=True,
            use_cache=False,
        )
    )

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.times.append(CLOCK())

    def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            own = torch.tensor(row["input_ids"])
            ids[i, : len(own)], mask[i, : len(own)] = own, 1
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}

    def run(prepared: Batches) -> float:
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=len(prepared),
                per_device_train_batch_size=len(prepared[0]),
                learning_rate=1e-4,
                lr_scheduler_type="constant",
                weight_decay=0.1,
                max_grad_norm=1.0,
                optim="adamw_torch_fused",
                use_cpu=True,
                report_to=[],
                logging_strategy="no",
                save_strategy="no",
                disable_tqdm=True,
                remove_unused_columns=False,
                train_sampling_strategy="sequential",
            )
            rows = [{"input_ids": ids} for batch in prepared for ids in batch]
            trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[clock])
            trainer.train()
        return clock.times[-1] - clock.times[0]

    return run


def tokens(prepared: Batches) -> int:
    """Real tokens of all batches but the first, which warms up."""
    return sum(len(ids) for batch in prepared[1:] for ids in batch)


def summary(ratios: list[float]) -> dict[str, float]:
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each arm in a round")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    options = parser.parse_args()
    if options.clock == "cpu":
        globals()["CLOCK"] = time.process_time
    full, abstracts = batches(options.rows, options.length, options.steps + 1)
    runs = {"nextvec": ours(latent=False), "Trainer": peer(), "NextLat": ours(latent=True)}
    speeds: dict[str, list[float]] = {}
    for number in range(options.rounds):
        names = list(runs)
        for name in names[number % 3 :] + names[: number % 3]:
            for what, prepared in (("full rows", full), ("abstracts", abstracts)):
                speeds.setdefault(f"{name}, {what}", []).append(tokens(prepared) / runs[name](prepared))
    ratio = {
        "full rows: nextvec / Trainer": _ratios(speeds, "nextvec, full rows", "Trainer, full rows"),
        "abstracts: nextvec end to end / Trainer padded": _ratios(speeds, "nextvec, abstracts", "Trainer, abstracts"),
        "cost of NextLat, full rows": _ratios(speeds, "nextvec, full rows", "NextLat, full rows"),
    }
    padded = sum(len(batch) * max(map(len, batch)) for batch in abstracts[1:])
    result = {
        "benchmark": "train",
        "clock": options.clock,
        "parameters": sum(p.numel() for p in NextLat(NextLat.Config(vocab=VOCAB, **SHAPE)).backbone.parameters()),
        "padding_share_of_peer": 1 - tokens(abstracts) / padded,
        "ratios": ratio,
        "tokens_per_second": speeds,
        "machine": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
    }
    for name, figures in ratio.items():
        print(f"{name}: {figures['median']:.2f} ({figures['min']:.2f} to {figures['max']:.2f})")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _ratios(speeds: dict[str, list[float]], one: str, other: str) -> dict[str, float]:
    return summary([a / b for a, b in zip(speeds[one], speeds[other], strict=True)])


if __name__ == "__main__":
    main()
