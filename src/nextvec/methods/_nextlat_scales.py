"""The scales of NextLat's claim: what is trained, for how long, and the paper's figures beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Task:
    """How a model of one part is shaped and trained. horizon: of NextLat's states and MTP's tokens (0, on Path-Star: as
    in the paper, two less than the path's nodes). plain: steps of next-token training before the arm's own
    ``steps``, from which only the backbone is kept."""

    dim: int
    layers: int
    heads: int
    steps: int
    batch: int
    horizon: int = 0
    lr: float = 3e-3
    muon_lr: float = 0.0125
    weight_decay: float = 0.01
    optimiser: str = "muon"
    schedule: str = "constant"
    positions: str = "learned"
    tied: bool = False
    qk_norm: bool = False
    plain: int = 0


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One scale of the claim. graphs: (degree, length, node values) of the Path-Star graphs, each with its own model;
    test: graphs to find paths in. moves: of a walk on a grid x grid torus whose cells are written every ``every``
    moves. abstracts: read for the language model, every 20th kept for tests; vocab: of its BPE; length: tokens of a
    sequence; drafts: tokens drafted per pass; prompts, prompt, new: continuations to write, of how many tokens, how
    long."""

    graphs: tuple[tuple[int, int, int], ...]
    planning: Task
    test: int
    walks: Task
    text: Task
    grid: int = 4
    moves: int = 8
    every: int = 1
    abstracts: int = 6000
    vocab: int = 2048
    length: int = 128
    drafts: int = 3
    prompts: int = 32
    prompt: int = 16
    new: int = 48
    device: str = "cpu"
    paper: Mapping[str, float] = field(default_factory=dict)


SCALES = {
    "smoke": Scale(
        graphs=((2, 3, 6),),
        planning=Task(dim=16, layers=2, heads=2, steps=8, batch=16, plain=4),
        test=32,
        walks=Task(dim=16, layers=1, heads=2, horizon=2, steps=8, batch=16),
        text=Task(dim=16, layers=1, heads=2, horizon=2, steps=6, batch=2, positions="rope", tied=True),
        abstracts=100,
        vocab=320,
        length=64,
        prompts=4,
        prompt=8,
        new=12,
    ),
    "cpu": Scale(
        graphs=((2, 5, 9),),
        planning=Task(
            dim=64,
            layers=4,
            heads=2,
            steps=3000,
            batch=64,
            muon_lr=0.02,
            weight_decay=0.1,
            tied=True,
            qk_norm=True,
            plain=500,
        ),
        test=500,
        walks=Task(dim=64, layers=2, heads=2, horizon=4, steps=400, batch=64),
        text=Task(dim=128, layers=2, heads=2, horizon=3, steps=500, batch=8, positions="rope", tied=True),
        paper={"gpt.path_2_5": 0.494, "mtp.path_2_5": 0.662, "nextlat.path_2_5": 0.971},
    ),
    "gpu": Scale(
        graphs=((5, 5, 100), (7, 7, 100)),
        planning=Task(
            dim=384,
            layers=12,
            heads=6,
            steps=20_000,
            batch=512,
            lr=5e-4,
            weight_decay=0.1,
            optimiser="adamw",
            tied=True,
        ),
        test=20_000,
        walks=Task(dim=256, layers=4, heads=4, horizon=8, steps=5000, batch=256),
        text=Task(dim=512, layers=8, heads=8, horizon=4, steps=10_000, batch=64, positions="rope", tied=True),
        abstracts=54_000,
        vocab=8192,
        length=512,
        prompts=256,
        new=128,
        device="cuda",
        paper={
            "gpt.path_5_5": 0.186,
            "mtp.path_5_5": 0.212,
            "nextlat.path_5_5": 0.998,
            "gpt.path_7_7": 0.126,
            "mtp.path_7_7": 0.126,
            "nextlat.path_7_7": 0.943,
        },
    ),
}
