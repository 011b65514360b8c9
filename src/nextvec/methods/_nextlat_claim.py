"""The claim of NextLat, in three parts: planning, compact states, drafts for itself.

planning   Path-Star: read a star's edges in random order, write the path from its centre to a given tip. Next-token
           training learns to follow edges and guesses the first step; the share of whole paths that are right on graphs
           never seen, greedy decoding. Every step draws fresh graphs. At cpu scale all runs begin from one
           and the same model, which next-token training has taught to follow edges (``Task.plain``): from random
           weights the latent terms, even at a hundredth of their weight, keep a model this small from learning that
           within the steps that fit here. The paper's run is a hundred times as long. Seeds differ in the rest.
compact    walks on a torus, where the position is all that matters: the effective rank of 256 states, one from each of
           256 new walks, at places drawn at random (the same for all arms of a seed).
drafts     a small language model of abstracts: new tokens per pass of the backbone when it drafts for itself, on the
           first tokens of abstracts it has not seen; the share of outputs that equal plain greedy decoding; the loss.
           The control drafts with dynamics that were never trained: repetitive text would flatter any draft.

Arms: the method; a GPT, which is the same without the terms; multi-token prediction, which foretells as many tokens but
not states. All share shape, data, order of data and optimiser.

Legend: B graphs or walks, T tokens of each, D width, d horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nextvec.data.sources import Generated, Source
from nextvec.data.synthetic.grid_world import GridWorld
from nextvec.data.synthetic.path_star import PathStar
from nextvec.data.tokenfile import PackedTokens, TokenFile
from nextvec.engine.engine import Engine, TrainConfig
from nextvec.engine.method import Method
from nextvec.engine.optim import OptimConfig
from nextvec.engine.schedule import ScheduleConfig
from nextvec.evaluate.geometry import effective_rank
from nextvec.generate import LatentDraft, generate
from nextvec.language_claims import write_tokens
from nextvec.methods._nextlat_parts import LatentDynamics, MultiToken
from nextvec.methods._nextlat_scales import SCALES, Scale, Task
from nextvec.methods.nextlat import NextLat
from nextvec.objectives.next_token import NextToken
from nextvec.types import Batch, Check, Claim, InputError, Ragged, Run

ARMS = ("gpt", "mtp", "nextlat")
_STATES = 256
_BEGINNINGS = 8
_FOLLOWS = 0.5  # nats: the loss is above 1 before a model follows edges, and some 0.17 once it guesses the first step
_PLAIN_SEED = 1_000_000  # other graphs than those of the arms' own training


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    if name not in SCALES:
        raise InputError(f"scale is {name!r}; expected one of {', '.join(SCALES)}")
    scale = SCALES[name]
    return Claim(
        statement="NextLat plans where next-token and multi-token prediction guess, its states are more compact than a"
        " GPT's, and it drafts for itself in fewer passes with identical output. The paper's path figures beside"
        " G(2, 5) are its G(2, 10).",
        arms={arm: _arm(arm, scale) for arm in ARMS},
        checks=tuple(_checks(scale)),
        paper=scale.paper,
        prepare=lambda shared: _prepare(shared, scale),
        config=asdict(scale),
    )


def _checks(scale: Scale) -> Iterator[Check]:
    for degree, length, _ in scale.graphs:
        name = f"path_{degree}_{length}"
        graph = f"G({degree}, {length})"
        for other, called in (("gpt", "a GPT"), ("mtp", "multi-token prediction")):
            yield Check(
                says=f"NextLat finds more whole paths in {graph} than {called}",
                better=f"nextlat.{name}",
                worse=f"{other}.{name}",
            )
        yield Check(
            says=f"on {graph} a GPT only guesses the first of {degree} steps (control: it follows edges, and errs in"
            " most of the rest)",
            better=f"gpt.{name}_wrong",
            worse=0.8 * (1 - 1 / degree),
        )
    yield Check(says="its states are more compact than a GPT's", better="gpt.rank", worse="nextlat.rank")
    yield Check(
        says="it drafts for itself better than dynamics that were not trained",
        better="nextlat.tokens_per_pass",
        worse="nextlat.tokens_per_pass_untrained",
    )
    yield Check(
        says="with drafts the output is that of plain decoding", better="nextlat.identical", worse=1.0, margin=-1e-6
    )


def _arm(arm: str, scale: Scale) -> Callable[[Run], Mapping[str, float]]:
    def run(given: Run) -> Mapping[str, float]:
        meter = _Steps(given, scale, text=arm != "mtp")
        measures: dict[str, float] = {}
        for graph in scale.graphs:
            measures |= _planning(arm, graph, scale, given, meter)
        measures |= _compact(arm, scale, given, meter)
        if arm != "mtp":
            measures |= _drafts(arm, scale, given, meter)
        return measures

    return run


class _Steps:
    """Progress of one arm over all its trainings."""

    def __init__(self, run: Run, scale: Scale, *, text: bool) -> None:
        self.run, self.done = run, 0
        self.total = len(scale.graphs) * scale.planning.steps + scale.walks.steps + text * scale.text.steps

    def train(self, method: Method, source: Source, task: Task, name: str, device: str) -> Method:
        """``method``, trained; what an interrupted run left in the arm's folder is taken up again."""
        engine = Engine(method, _settings(task, seed=self.run.seed), device=device)
        engine.fit(
            source,
            folder=self.run.folder / name,
            on_step=lambda report: self.run.progress(self.done + report.step, self.total),
        )
        self.done += task.steps
        return method.eval()


def _settings(task: Task, *, seed: int) -> TrainConfig:
    return TrainConfig(
        steps=task.steps,
        batch=task.batch,
        optim=OptimConfig(name=task.optimiser, lr=task.lr, muon_lr=task.muon_lr, weight_decay=task.weight_decay),
        schedule=ScheduleConfig(name=task.schedule, warmup=min(50.0, task.steps // 4)),
        seed=seed,
        save_every=max(1, task.steps // 4),
        keep=1,
        log_every=50,
    )


def _made(arm: str, task: Task, *, vocab: int, length: int, seed: int) -> Any:
    """The model of ``arm``: the same backbone from the same random numbers for all."""
    torch.manual_seed(seed)
    config = NextLat.Config(
        dim=task.dim,
        layers=task.layers,
        heads=task.heads,
        horizon=task.horizon if arm == "nextlat" else 0,
        kl=1.0,
        vocab=vocab,
        length=length,
        activation="gelu",
        positions=task.positions,
        tied=task.tied,
        qk_norm=task.qk_norm,
    )
    if arm == "mtp":
        return MultiToken(MultiToken.Config(model=config.model(), horizon=task.horizon))
    return NextLat(config)


# ---------------------------------------------------------------- planning


def _planning(arm: str, graph: tuple[int, int, int], scale: Scale, run: Run, meter: _Steps) -> dict[str, float]:
    """The share of whole paths found, and of those not, in graphs never seen."""
    degree, length, nodes = graph
    world = PathStar(degree, length, nodes)
    name = f"path_{degree}_{length}"
    task = replace(scale.planning, horizon=scale.planning.horizon or length - 2)
    method = _made(arm, task, vocab=world.vocab, length=world.sequence_length, seed=run.seed)
    if task.plain:
        method.backbone.load_state_dict(NextLat.load(run.shared / name).backbone.state_dict())
    meter.train(method, _graphs(world, task, run.seed), task, name, scale.device)
    ids = world.dataset(scale.test, seed=run.seed)
    right = 0.0
    for start in range(0, len(ids), 500):
        some = ids[start : start + 500]
        prompts = torch.from_numpy(some[:, : world.prompt_length].copy())
        lengths = torch.full((len(some),), world.prompt_length)
        written = generate(method.backbone, Ragged(prompts.flatten(), lengths), max_new=length).ids
        right += world.accuracy(np.array(written), some) * len(some)
    share = right / len(ids)
    return {name: share, f"{name}_wrong": 1 - share}


def _graphs(world: PathStar, task: Task, seed: int) -> Source:
    """Fresh graphs for every step."""

    def draw(rng: np.random.Generator, count: int) -> Batch:
        return Batch(world.columns(world.sample(rng, count)))

    return Generated(draw, batch=task.batch, seed=seed)


def _begin(shared: Path, graph: tuple[int, int, int], scale: Scale) -> None:
    """The model that all runs on ``graph`` begin from: the first, of several random beginnings, that learned to follow
    edges in ``plain`` steps (about half of them do)."""
    degree, length, nodes = graph
    world, task = PathStar(degree, length, nodes), replace(scale.planning, steps=scale.planning.plain)
    for seed in range(_BEGINNINGS):
        method = _made("gpt", task, vocab=world.vocab, length=world.sequence_length, seed=seed)
        engine = Engine(method, _settings(task, seed=seed), device=scale.device)
        if engine.fit(_graphs(world, task, _PLAIN_SEED + seed)).loss < _FOLLOWS:
            break
    method.save(shared / f"path_{degree}_{length}")


# ---------------------------------------------------------------- compact states


def _compact(arm: str, scale: Scale, run: Run, meter: _Steps) -> dict[str, float]:
    """The effective rank of states on walks never seen, and the loss on them."""
    world = GridWorld(scale.grid, scale.grid, every=scale.every)
    length = world.sequence_length(scale.moves)
    method = _made(arm, scale.walks, vocab=world.vocab, length=length, seed=run.seed)

    def draw(rng: np.random.Generator, count: int) -> Batch:
        ids, _ = world.sample(rng, count, scale.moves)
        return Batch({"text": Ragged(torch.from_numpy(ids.reshape(-1)), torch.full((count,), length))})

    source = Generated(draw, batch=scale.walks.batch, seed=run.seed)
    meter.train(method, source, scale.walks, "walks", scale.device)
    rng = np.random.default_rng([run.seed, 0, 1])  # not the numbers of any step
    batch = draw(rng, _STATES).to(scale.device)
    places = torch.arange(_STATES) * length + torch.from_numpy(rng.integers(1, length, size=_STATES))
    with torch.no_grad():
        out = method(batch)
    states = out["hidden"][places.to(scale.device)]
    return {"rank": effective_rank(states.float().cpu().numpy()), "walk_loss": _loss(method, batch)}


def _loss(method: Method, batch: Batch) -> float:
    """Mean cross entropy of the next token, in nats."""

    with torch.no_grad():
        return float(NextToken()(method(batch), batch).mean)


# ---------------------------------------------------------------- drafts


def _prepare(shared: Path, scale: Scale) -> None:
    """The models that planning begins from; tokenizer, tokens of the abstracts to learn from, and of every 20th to test
    on."""
    if scale.planning.plain:
        for graph in scale.graphs:
            _begin(shared, graph, scale)
    write_tokens(shared, count=scale.abstracts, vocab=scale.vocab)


def _drafts(arm: str, scale: Scale, run: Run, meter: _Steps) -> dict[str, float]:
    """The loss on abstracts never seen; for the method also what drafting for itself saves."""
    train, test = (TokenFile.open(run.shared / f"{name}.bin") for name in ("train", "test"))
    task = scale.text
    method = _made(arm, task, vocab=train.vocab, length=scale.length, seed=run.seed)
    source = PackedTokens(train, tokens=task.batch * scale.length, length=scale.length, seed=run.seed)
    meter.train(method, source, task, "text", scale.device)
    batch = PackedTokens(test, tokens=min(test.tokens, 20_000), length=scale.length, seed=0).batch(0)
    measures = {"text_loss": _loss(method, batch.to(scale.device))}
    if arm == "nextlat":
        long = [test.document(i)[: scale.prompt] for i in range(len(test)) if test.lengths[i] >= scale.prompt]
        prompts = [document.tolist() for document in long[: scale.prompts]]
        measures |= _saved(method, prompts, scale, run.seed)
    return measures


def _saved(method: NextLat, prompts: list[list[int]], scale: Scale, seed: int) -> dict[str, float]:
    """New tokens per pass with drafts: greedy, drawn at temperature 1, and greedy with untrained dynamics."""
    backbone = method.backbone
    assert method.dynamics is not None
    torch.manual_seed(seed)
    fresh = LatentDynamics(backbone.config.dim, hidden=method.config.hidden).to(scale.device).eval()
    own, control = (LatentDraft(dynamics, backbone, scale.drafts) for dynamics in (method.dynamics, fresh))
    plain = generate(backbone, prompts, max_new=scale.new)
    drafted = generate(backbone, prompts, max_new=scale.new, draft=own)
    drawn = generate(backbone, prompts, max_new=scale.new, temperature=1.0, seed=seed, draft=own)
    untrained = generate(backbone, prompts, max_new=scale.new, draft=control)
    same = [one == other for one, other in zip(plain.ids, drafted.ids, strict=True)]
    return {
        "tokens_per_pass": drafted.tokens_per_pass,
        "tokens_per_pass_drawn": drawn.tokens_per_pass,
        "tokens_per_pass_untrained": untrained.tokens_per_pass,
        "identical": sum(same) / len(same),
    }
