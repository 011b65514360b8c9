"""The claim of sentence-level reasoning on chained arithmetic, and on graphs told in sentences.

none         the answer alone (control)
tokens       the chain in tokens: what the others begin with
semantic, context, contrast      the three kinds of sentence embeddings
none_graph, tokens_graph, contrast_graph      the same on graphs, where guessing is right half of the time

right            answers that are right, in percent; of the embeddings: continuous, and ``discrete``
places           that all transformers together read for a question; ``places_discrete``
passes           of all transformers, with their caches, for a question; ``passes_discrete``
mflops           millions of operations of these; ``mflops_discrete``
ms               time of a question, all asked together; ``ms_discrete``
lens             of the sentences that the reasoner predicts on the way, how many decode to the right step, in percent
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nextvec.data.reasoning import Chain
from nextvec.data.synthetic import graphs
from nextvec.data.synthetic.arithmetic import fresh_split
from nextvec.generate import generate
from nextvec.language_claims import LanguageScale, train
from nextvec.methods._sentence_parts import decode, flops, sentences_of
from nextvec.methods.sentence_prediction import KINDS, SentencePrediction
from nextvec.nn.backbones.flops import reading_flops
from nextvec.text_claims import scale_named
from nextvec.types import Check, Claim, Run

_SENTENCE = 12  # tokens of one, at most


@dataclass(frozen=True, kw_only=True)
class Scale(LanguageScale):
    """data: "arithmetic" or "graphs"; count: questions to learn from; tests: to measure on; least, operations: of a
    question (of graphs: how far away the answer is); extra: edges of a graph beside its two chains; begin, restore:
    steps of the first two stages (``steps``: of the third)."""

    data: str = "arithmetic"
    count: int = 60
    tests: int = 20
    least: int = 2
    operations: int = 3
    extra: int = 1
    begin: int = 4
    restore: int = 4


_CPU = Scale(
    count=20_000,
    tests=300,
    operations=4,
    length=64,
    dim=128,
    layers=3,
    heads=4,
    begin=1200,
    restore=600,
    steps=1500,
    batch=32,
    lr=2e-3,
)
SCALES = {
    "smoke": replace(Scale(), length=64),
    "cpu": _CPU,
    "gpu": replace(
        _CPU, count=200_000, operations=8, length=128, dim=512, layers=8, heads=8, begin=20_000, restore=10_000,
        steps=20_000, batch=256, device="auto",
    ),
}  # fmt: skip
GRAPHS = {
    "smoke": Scale(data="graphs", least=2, operations=2, length=128),
    "cpu": replace(
        _CPU, data="graphs", least=2, operations=2, length=128, begin=800, restore=400, steps=600, batch=16, lr=1e-3
    ),
    "gpu": replace(SCALES["gpu"], data="graphs", least=2, operations=5, extra=4, length=256),
}


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale, told = scale_named(SCALES, name), scale_named(GRAPHS, name)
    arms = {
        "none": partial(_spoken, steps=False, scale=scale),
        "tokens": partial(_spoken, steps=True, scale=scale),
        **{kind: partial(_thought, kind=kind, scale=scale) for kind in KINDS},
        "none_graph": partial(_spoken, steps=False, scale=told),
        "tokens_graph": partial(_spoken, steps=True, scale=told),
        "contrast_graph": partial(_thought, kind="contrast", scale=told),
    }
    return Claim(
        statement="Reasoning among contextual sentence embeddings is nearly as good as in tokens, in fewer places and"
        " operations, and better than among semantic ones; what is predicted on the way decodes to the steps; on graphs"
        " told in sentences, too, it is nearly as good as in tokens and better than no chain.",
        arms=arms,
        checks=(
            Check(says="contextual embeddings beat semantic ones", better="context.right", worse="semantic.right"),
            Check(says="with InfoNCE, too", better="contrast.right", worse="semantic.right"),
            Check(
                says="the better kind loses five points or less to tokens",
                better="contrast.right",
                worse="tokens.right",
                margin=-5.0,
            ),
            Check(says="and beats the answer alone (control)", better="contrast.right", worse="none.right"),
            Check(
                says="continuous, it needs fewer places than tokens do", better="tokens.places", worse="contrast.places"
            ),
            Check(says="and fewer operations", better="tokens.mflops", worse="contrast.mflops"),
            Check(says="steps on the way decode rightly, more often than not", better="contrast.lens", worse=50.0),
            Check(
                says="on graphs, too, five points or less are lost to tokens",
                better="contrast_graph.right",
                worse="tokens_graph.right",
                margin=-5.0,
            ),
            Check(says="and the answer alone is beaten", better="contrast_graph.right", worse="none_graph.right"),
        ),
        prepare=partial(_prepare, scales=(scale, told)),
        config=asdict(scale) | {f"graphs_{key}": value for key, value in asdict(told).items()},
    )


def _chains(scale: Scale, seed: int) -> tuple[list[Chain], list[Chain]]:
    """To learn from, and to measure on. The model that the arms begin with has learned from the questions of seed 0."""
    if scale.data == "graphs":
        shape = {"least": scale.least, "hops": scale.operations, "extra": scale.extra}
        return graphs.fresh_split(seed, scale.count, scale.tests, **shape, before=(0,))
    return fresh_split(seed, scale.count, scale.tests, least=scale.least, most=scale.operations, before=(0,))


def _config(scale: Scale, **changes: Any) -> Any:
    return SentencePrediction.Config(**scale.shape(), activation="gelu", **changes)


def _learn(method: SentencePrediction, chains: Sequence[Chain], scale: Scale, run: Run, *, steps: int) -> None:
    """Its checkpoints are named after the stage: an arm of two stages, interrupted, goes on with the right one."""
    source = method.source(chains, batch=scale.batch, seed=run.seed)
    train(method, source, replace(scale, steps=steps), run, name=method.config.stage)


def _prepare(shared: Path, *, scales: Sequence[Scale]) -> None:
    """The plain language models that the kinds begin with, one for each kind of data."""
    run = Run(seed=0, shared=shared, folder=shared, progress=lambda done, total: None)
    for scale in scales:
        learned, _ = _chains(scale, 0)
        method = SentencePrediction.start(_config(scale, stage="tokens"), seed=0)
        _learn(method, learned, scale, run, steps=scale.begin)
        method.save(_plain(shared, scale))


def _plain(shared: Path, scale: Scale) -> Path:
    return shared / f"plain_{scale.data}"


def _spoken(run: Run, *, steps: bool, scale: Scale) -> Mapping[str, float]:
    """A plain language model, with and without chains."""
    learned, tests = _chains(scale, run.seed)
    begin = str(_plain(run.shared, scale)) if steps else ""
    method = SentencePrediction.start(_config(scale, stage="tokens", chains=steps, start_from=begin), seed=run.seed)
    # As many steps as the kinds have in all: ``begin`` of them are those of the model that the others begin with.
    _learn(method, learned, scale, run, steps=scale.restore + scale.steps + (0 if steps else scale.begin))
    prompts = method.ids([chain.question for chain in tests])
    most = scale.length - max(map(len, prompts))
    begun = time.perf_counter()
    written = generate(method.reasoner, prompts, max_new=most, stop=(method.close,))
    seconds = time.perf_counter() - begun
    said = method.texts([_last(method, ids) for ids in written.ids])
    right = [text == f"answer {chain.answer}" for text, chain in zip(said, tests, strict=True)]
    # The last id that is written is not read.
    read = [(len(prompt), len(ids) - 1) for prompt, ids in zip(prompts, written.ids, strict=True)]
    operations = [
        reading_flops(method.reasoner, asked, spoken=1) + reading_flops(method.reasoner, more, after=asked, spoken=more)
        for asked, more in read
    ]
    return {
        "right": 100 * float(np.mean(right)),
        "places": float(np.mean([asked + more for asked, more in read])),
        "passes": float(np.mean(written.passes)),
        "mflops": float(np.mean(operations)) / 1e6,
        "ms": 1000 * seconds / len(tests),
    }


def _last(method: SentencePrediction, ids: Sequence[int]) -> list[int]:
    """The last sentence of what was written, which the close of the chain ends; nothing where it was not closed."""
    if not ids or ids[-1] != method.close:
        return []
    sentence = ids[:-1]
    begin = max((at + 1 for at, token in enumerate(sentence) if token == method.end), default=0)
    return list(sentence[begin:])


def _thought(run: Run, *, kind: str, scale: Scale) -> Mapping[str, float]:
    learned, tests = _chains(scale, run.seed)
    encoder = run.folder / "autoencoder"
    if not encoder.is_dir():  # written in one go: where it is, the first stage was over before an interruption
        first = SentencePrediction.start(
            _config(scale, stage="embed", kind=kind, start_from=str(_plain(run.shared, scale))), seed=run.seed
        )
        _learn(first, learned, scale, run, steps=scale.restore)
        first.save(encoder)
    method = SentencePrediction.start(_config(scale, stage="latent", kind=kind, start_from=str(encoder)), seed=run.seed)
    _learn(method, learned, scale, run, steps=scale.steps)
    measures: dict[str, float] = {}
    for name, continuous in (("", True), ("_discrete", False)):
        begun = time.perf_counter()
        solutions = method.solve(
            [chain.question for chain in tests], continuous=continuous, budget=scale.operations + 2, most=_SENTENCE
        )
        measures[f"ms{name}"] = 1000 * (time.perf_counter() - begun) / len(tests)
        answers = [solution.answer == chain.answer for solution, chain in zip(solutions, tests, strict=True)]
        measures["right" if continuous else "discrete"] = 100 * float(np.mean(answers))
        places = [solution.reasoner_places + solution.decoder_places for solution in solutions]
        measures[f"places{name}"] = float(np.mean(places))
        measures[f"passes{name}"] = float(np.mean([solution.passes for solution in solutions]))
        measures[f"mflops{name}"] = float(np.mean([flops(method, solution) for solution in solutions])) / 1e6
        if continuous:
            measures["lens"] = _lens(method, tests, [solution.states for solution in solutions])
    return measures


def _lens(method: SentencePrediction, tests: Sequence[Chain], states: Sequence[Sequence[torch.Tensor]]) -> float:
    """Percent of the predicted steps before the last that decode to the chain's own."""
    right, count = 0, 0
    device = next(method.parameters()).device
    for chain, own in zip(tests, states, strict=True):
        if len(own) > 1:
            said = method.texts(decode(method, torch.stack(list(own[:-1])).to(device), most=_SENTENCE))
            steps = sentences_of(chain)[: len(said)]
            right += sum(one == other for one, other in zip(said, steps, strict=False))
        count += len(chain.steps)
    return 100 * right / max(count, 1)
