"""Exact in-batch InfoNCE over very large batches: memory of a step, and time beside sentence-transformers' cached loss.

    python benchmarks/contrastive_memory.py --out benchmarks/out/contrastive_memory.json

The encoder has MiniLM's shape (6 layers, width 384, 22M parameters with its table) and random weights; pairs are
neighbouring sentences of the bundled abstracts, cut to ``--tokens`` tokens. Each measurement is a process of its own:
memory is its peak resident size beyond what it held with the model and the data loaded. The times compare one step
(forward, loss, backward; no optimiser) on the same pairs, micro-batches and threads, in alternation.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from _arms import machine, run, write

os.environ.setdefault("HF_HUB_OFFLINE", "1")

MINILM = {"dim": 384, "layers": 6, "heads": 12, "ffn": 1536}
MICRO = 128


def pairs(count: int, tokens: int) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of ``count`` neighbouring sentences, at most ``tokens`` each."""
    from nextvec import Encoder
    from nextvec.data.bundled import daily_papers

    tokenizer = Encoder.load("nextvec-mini").backbone.tokenizer
    firsts, seconds = [], []
    for abstract in daily_papers(columns=["summary"])["summary"].to_pylist():
        sentences = [s for s in re.split(r"(?<=[.!?])\s+", abstract or "") if len(s) > 20]
        firsts += sentences[:-1]
        seconds += sentences[1:]
    if len(firsts) < count:
        raise SystemExit(f"the bundled abstracts give {len(firsts):,} pairs; --pairs may be at most that")
    encode = tokenizer.encode_batch_fast
    return tuple([e.ids[:tokens] or [0] for e in encode(side[:count])] for side in (firsts, seconds))  # type: ignore[return-value]


def rss() -> int:
    """The resident size of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def measured(step: Any, repeats: int) -> dict[str, Any]:
    """Seconds of each step, and peak memory beyond what is held now."""
    before = rss()
    seconds, processor = [], []
    for _ in range(repeats):
        started, used = time.perf_counter(), time.process_time()
        loss = step()
        seconds.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": seconds,
        "cpu_seconds": processor,
        "memory_beyond_model": peak - before,
        "held_before": before,
        "loss": loss,
    }


def ours(count: int, tokens: int, repeats: int) -> dict[str, Any]:
    """nextvec: ragged micro-batches through the engine's two passes."""
    import torch
    from torch import Tensor, nn

    from nextvec.data.sources import ragged
    from nextvec.engine.accumulate import backward, divide
    from nextvec.engine.parallel import Parallel
    from nextvec.nn.backbones.transformer import Transformer, TransformerConfig
    from nextvec.nn.pooling.modes import pool
    from nextvec.objectives.info_nce import InfoNCE
    from nextvec.types import Batch

    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = Transformer(
                TransformerConfig(
                    vocab=32_000,
                    norm="layer",
                    norm_position="post",
                    activation="gelu",
                    positions="learned",
                    attention="bidirectional",
                    max_length=512,
                    biases=True,
                    embed_norm=True,
                    **MINILM,  # type: ignore[arg-type]
                )
            )

        def forward(self, batch: Batch) -> dict[str, Tensor]:
            found = {}
            for name in ("query", "document"):
                text = batch.ragged(name)
                found[name] = pool(self.backbone(text), text.lengths)
            return found

    torch.manual_seed(0)
    model, objective = Towers().train(), InfoNCE(temperature=0.05, symmetric=False)
    query, document = pairs(count, tokens)
    batch = Batch({"query": ragged(query), "document": ragged(document)})
    parallel = Parallel(model)

    def step() -> float:
        model.zero_grad()
        return backward(parallel, objective, divide(batch, MICRO)).loss

    return measured(step, repeats)


def peer(count: int, tokens: int, repeats: int) -> dict[str, Any]:
    """sentence-transformers: CachedMultipleNegativesRankingLoss on a BertModel of the same shape."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.losses import CachedMultipleNegativesRankingLoss
    from sentence_transformers.models import Pooling
    from sentence_transformers.models import Transformer as Module
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from nextvec import Encoder

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        config = BertConfig(
            vocab_size=32_000,
            hidden_size=MINILM["dim"],
            num_hidden_layers=MINILM["layers"],
            num_attention_heads=MINILM["heads"],
            intermediate_size=MINILM["ffn"],
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        BertModel(config).save_pretrained(folder)
        inner = Encoder.load("nextvec-mini").backbone.tokenizer
        PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[UNK]").save_pretrained(folder)
        module = Module(folder)
        model = SentenceTransformer(modules=[module, Pooling(MINILM["dim"])], device="cpu").train()
    loss = CachedMultipleNegativesRankingLoss(model, scale=20.0, mini_batch_size=MICRO)
    features = []
    for side in pairs(count, tokens):
        width = max(len(ids) for ids in side)
        padded = torch.tensor([ids + [0] * (width - len(ids)) for ids in side])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in side])
        features.append({"input_ids": padded, "attention_mask": mask})

    def step() -> float:
        model.zero_grad()
        value = loss([dict(part) for part in features], None)
        value.backward()
        return float(value.detach())

    return measured(step, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=65_536, help="pairs of the large step (ours alone)")
    parser.add_argument("--both", type=int, default=1024, help="pairs of the step that both arms take")
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arm", choices=["ours", "peer"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.arm:
        function = ours if options.arm == "ours" else peer
        print(json.dumps(function(options.pairs, options.tokens, options.rounds)))
        return
    result: dict[str, Any] = {
        "benchmark": "contrastive_memory",
        "tokens": options.tokens,
        "micro": MICRO,
        "machine": machine(),
    }
    if options.both:
        both = {"pairs": options.both, "tokens": 32, "rounds": 2}
        rounds = [(run(__file__, "ours", **both), run(__file__, "peer", **both)) for _ in range(options.rounds)]
        ratios = [min(b["seconds"]) / min(a["seconds"]) for a, b in rounds]
        processor = [min(b["cpu_seconds"]) / min(a["cpu_seconds"]) for a, b in rounds]
        result["both"] = {
            "pairs": options.both,
            "tokens": 32,
            "speed_ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
            "cpu_time_ratio": {"median": statistics.median(processor), "min": min(processor), "max": max(processor)},
            "seconds": {"ours": [a["seconds"] for a, _ in rounds], "peer": [b["seconds"] for _, b in rounds]},
            "memory_beyond_model": {
                "ours": statistics.median(a["memory_beyond_model"] for a, _ in rounds),
                "peer": statistics.median(b["memory_beyond_model"] for _, b in rounds),
            },
        }
        print(f"{options.both} pairs: {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})")
        print(f"in CPU time: {statistics.median(processor):.2f}x ({min(processor):.2f} to {max(processor):.2f})")
    if options.pairs:
        large = run(__file__, "ours", pairs=options.pairs, tokens=options.tokens, rounds=1)
        result["large"] = {"pairs": options.pairs, **large}
        print(f"{options.pairs:,} pairs: {large['memory_beyond_model'] / 1e9:.2f} GB beyond the model")
    write(result, options.out)


if __name__ == "__main__":
    main()
