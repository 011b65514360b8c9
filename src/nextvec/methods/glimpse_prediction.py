"""Glimpse Prediction Networks: see a part of a scene, know where the eye goes next, predict what it will see there.

    a_t = relu(LN(A x_t))           what is seen                     (no LN and relu where paths="linear")
    b_t = relu(LN(S s_t)) or 0      where the eye goes next          (0 without saccades)
    h_t = LSTM([a_t; b_t], h_t-1)   or LSTM([a_t; b_t], 0)           (0 without recurrence)
    p_t = LN(W relu(LN(R LN(h_t))))

    loss = mean_t  -cos(p_t, x_t+1) + 1/2 [ mean_i cos(p_t, x_i) + mean_j cos(p_t, y_j) ]

i runs over the other glimpses that the same sequence predicts and whose cosine to x_t+1 is below 0.999, j over all
that sequences over other scenes predict; a mean over nothing is 0. Recurrence and saccade make the paper's 2 x 2
design: RS, R, S and B ("both off"), four sizes of the same network.

Legend: B sequences, T steps (one fewer than fixations), N fixations end to end, E width of a glimpse's embedding,
H ``size``, x_t [E] embedding of glimpse t (y: of another scene), s_t [2] saccade from fixation t to t + 1,
A [H/2, E], S [H/2, 2], h_t [H], R [H/3, H], W [E, H/3], p_t [E] prediction.

Source: "Predicting upcoming visual features during eye movements" (Glimpse Prediction Networks, GPN), arXiv 2511.12715,
and the letters in a plane of the authors' follow-up, arXiv 2602.03490. What differs is on the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nextvec.data.sources import Shuffled
from nextvec.engine.method import Method
from nextvec.methods import _glimpse_parts as parts
from nextvec.nn.backbones.attention import places_of
from nextvec.nn.backbones.recurrent import Recurrent
from nextvec.nn.backbones.vit import ViTConfig
from nextvec.objectives.base import Columns, Objective, Outputs, Scope
from nextvec.types import Batch, Card, Claim, Column, InputError, Ragged, Term, did_you_mean

if TYPE_CHECKING:
    from nextvec.data.sources import Source

SAME = 0.999
"""Glimpses whose cosine is at least this are one and the same: not rivals of each other."""


class Scores(NamedTuple):
    """Cosines of predictions, each [B, T]: to the true next glimpse, mean over the sequence's other ones, mean over
    other scenes; rivals: how many others the sequence has; seen: bool, False beyond a sequence's end."""

    true: Tensor
    same: Tensor
    other: Tensor
    rivals: Tensor
    seen: Tensor

    def loss(self) -> Tensor:
        """The loss of every step [B, T]."""
        return (self.same + self.other) / 2 - self.true


def scores(pred: Tensor, target: Tensor, steps: Tensor, scene: Tensor | None = None) -> Scores:
    """The cosines of pred and target, both [B, T, E], of sequences of ``steps`` int64 [B] steps, at most T. scene:
    int64 [B], what each sequence is over (None: all differ).

    Memory is O(B T (E + T)): the mean over other scenes is a product with the sum of their unit vectors.
    """
    seen = torch.arange(pred.shape[1], device=pred.device) < steps[:, None]
    guess = functional.normalize(pred, dim=-1)
    truth = functional.normalize(target, dim=-1) * seen[..., None]
    alike = truth.detach() @ truth.detach().mT
    itself = torch.eye(pred.shape[1], dtype=torch.bool, device=pred.device)
    rival = (alike < SAME) & seen[:, None, :] & ~itself
    rivals = rival.sum(-1)
    same = ((guess @ truth.mT) * rival).sum(-1) / rivals.clamp(min=1)
    if scene is None:
        scene = torch.arange(len(pred), device=pred.device)
    names, group = torch.unique(scene, return_inverse=True)
    sums = truth.new_zeros(len(names), truth.shape[-1]).index_add(0, group, truth.sum(1))
    sizes = torch.zeros_like(names).index_add(0, group, seen.sum(1))
    rest, left = sums.sum(0) - sums[group], sizes.sum() - sizes[group]
    other = torch.einsum("bte,be->bt", guess, rest) / left.clamp(min=1)[:, None]
    return Scores((guess * truth).sum(-1), same, other, rivals, seen)


class GlimpseContrast(Objective):
    """The loss of a GPN. Reads ``pred`` and ``target`` [B, T, E] and ``steps`` int64 [B], how many of T a sequence has;
    the column ``scene`` int64 [B], where it is there, says which sequences are over one scene.

    Counts steps. Logs ``glimpse_loss``, ``glimpse_true`` (mean cosine to the true next glimpse) and ``glimpse_within``
    (that minus the mean cosine to the sequence's other glimpses).
    """

    scope: Scope = "batch"
    reads = ("pred", "target", "steps")
    columns = ("scene",)

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[GlimpseContrast, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        out = {name: torch.randn(rows, 4, 6, generator=random, dtype=torch.float64) for name in ("pred", "target")}
        out["target"][:, 2] = out["target"][:, 0]  # the eye comes back: one and the same glimpse twice
        out = {name: tensor.requires_grad_() for name, tensor in out.items()}
        return cls(), {**out, "steps": 2 + torch.arange(rows) % 3}, {"scene": torch.arange(rows) // 2}

    def forward(self, out: Outputs, batch: Columns) -> Term:
        pred, target, steps = (out[name] for name in self.reads)
        scene = cast("Tensor | None", batch.get("scene"))
        if pred.ndim != 3 or pred.shape != target.shape or steps.shape != pred.shape[:1]:
            raise InputError(
                f"GlimpseContrast needs pred and target of one shape [B, T, E] and steps [B]; got {list(pred.shape)}, "
                f"{list(target.shape)} and {list(steps.shape)}"
            )
        if scene is not None and scene.shape != steps.shape:
            raise InputError(f"GlimpseContrast: scenes {list(scene.shape)} for {len(pred)} sequences")
        found = scores(pred, target, steps, scene)
        count = float(found.seen.sum())
        sums = [(part * found.seen).sum() for part in (found.loss(), found.true, found.true - found.same)]
        means = [float(one.detach()) / max(count, 1.0) for one in sums]
        return Term(sums[0], count, dict(zip(("glimpse_loss", "glimpse_true", "glimpse_within"), means, strict=True)))


class GlimpsePrediction(Method):
    """A recurrent network that predicts the next glimpse's embedding from glimpses and saccades."""

    card = Card(
        name="glimpse_prediction",
        title="Predicting upcoming visual features during eye movements (Glimpse Prediction Networks)",
        arxiv="2511.12715",
        year=2025,
        family="next-embedding prediction",
        claim="Only with recurrence and saccades together does prediction improve along the sequence, and is absolute"
        " position linearly decodable; saccades are needed to tell apart the glimpses of one scene.",
        differs=(
            "Glimpses are embedded by a small vision transformer made here without labels (SimCLR-like, on crops of the"
            " training images), or one of random weights; the paper uses a ResNet-50 and DINOv2.",
            "People's gaze over 199 photographs (OSIE), where the paper has simulated scanpaths over 48,000 or more.",
            "The mean over rivals in the sequence is taken per prediction; the authors' code pools it over the batch.",
            "Sequences over the same scene are no 'other sequences'; the paper has too many scenes to need this.",
            "Without saccades their path gives zeros, so that all four networks have the same shape.",
            "A forget gate's bias begins at 1; saccades are divided by their root mean square over the data.",
            "AdamW with warm-up and cosine decay for a fixed number of steps, not decay on a plateau.",
            "On letters: an LSTM of one layer where the follow-up has a GRU of three, glimpses are one-hot, and the"
            " loss is the GPN's contrastive one, not cross entropy; saccades unscaled; walks start at the centre.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("batch=128", "optim.lr=1e-3", "optim.weight_decay=0.01")
    sample: ClassVar[str] = "scanpaths"
    direction: ClassVar[Mapping[str, str]] = {"glimpse_true": "up", "glimpse_within": "up", "glimpse_loss": "down"}

    @dataclass(kw_only=True)
    class Config:
        """size: H, which the paths and the readout follow. window: fixations per sequence; longer scanpaths are cut.
        paths: "norm", or "linear" for linear maps without bias. For scanpaths over images: crop, pixels around a
        fixation; eye: "trained" for eye_steps steps on crops of the images, or "random". embedding, scale (what
        saccades are divided by) and vision (the eye's shape) are filled in by ``prepare`` where they are None."""

        size: int = 256
        layers: int = 3
        cell: str = "lstm"
        recurrence: bool = True
        saccade: bool = True
        paths: str = "norm"
        dropout: float = 0.1
        window: int = 7
        crop: int = 96
        eye: str = "trained"
        eye_steps: int = 300
        embedding: int | None = None
        scale: float | None = None
        vision: ViTConfig | None = None

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for name, known in (("paths", ("norm", "linear")), ("eye", parts.EYES)):
            value = getattr(config, name)
            if value not in known:
                raise InputError(f"{name} is {value!r}; expected {' or '.join(known)}{did_you_mean(value, known)}")
        if config.size < 3 or config.window < 2 or not (config.embedding or 0) > 0 or not (config.scale or 0) > 0:
            raise InputError(
                f"size {config.size}, window {config.window}, embedding {config.embedding}, scale {config.scale}: "
                "expected at least 3, at least 2, and positive numbers, which prepare takes from the data"
            )
        width, half, third = config.embedding, config.size // 2, config.size // 3
        self.glimpse_path = nn.Sequential(nn.Dropout(config.dropout), *_path(width, half, config.paths))
        self.saccade_path = nn.Sequential(*_path(2, half, config.paths))
        self.core = Recurrent(
            2 * half,
            config.size,
            kind=config.cell,
            layers=config.layers,
            dropout=config.dropout,
            reset=not config.recurrence,
        )
        self.readout = nn.Sequential(
            nn.LayerNorm(config.size), nn.Linear(config.size, third), nn.LayerNorm(third), nn.ReLU(),
            nn.Linear(third, width), nn.LayerNorm(width),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.eye = parts.Eye(config.vision) if config.vision is not None else None
        """Embeds new glimpses, uint8 [n, P, P, 3], where the method was prepared on images."""

    def states(self, glimpses: Ragged, positions: Ragged) -> list[Tensor]:
        """The states [N - B, H] of every layer, after every fixation but each sequence's last; glimpses: [N, E],
        positions: [N, 2], in any unit that ``scale`` knows."""
        if not torch.equal(glimpses.lengths, positions.lengths):
            raise InputError("glimpses and positions of different lengths: expected one position for each glimpse")
        shortest, longest = int(glimpses.lengths.min()), int(glimpses.lengths.max())
        if shortest < 2 or longest > self.config.window:
            raise InputError(
                f"sequences of {shortest} to {longest} fixations; expected 2 to {self.config.window} (the setting"
                " 'window')"
            )
        at = _before_last(glimpses.lengths).to(glimpses.values.device)
        saccades = (positions.values[at + 1] - positions.values[at]) / self.config.scale
        aims = self.saccade_path(saccades)
        seen = self.glimpse_path(glimpses.values[at])
        joined = torch.cat([seen, aims if self.config.saccade else torch.zeros_like(aims)], dim=-1)
        states: list[Tensor] = self.core(Ragged(joined, glimpses.lengths - 1), all_states=True)
        return states

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """pred, target [B, T, E] and steps int64 [B] of the ragged columns ``glimpses`` and ``positions``; T is window
        - 1 and rows beyond a sequence's end are 0."""
        glimpses, positions = batch.ragged("glimpses"), batch.ragged("positions")
        pred = self.readout(self.states(glimpses, positions)[-1])
        steps = glimpses.lengths - 1
        following = glimpses.values[_before_last(glimpses.lengths).to(pred.device) + 1]
        longest = self.config.window - 1
        return {
            "pred": _rows(pred, steps, longest),
            "target": _rows(following, steps, longest),
            "steps": steps.to(pred.device),
        }

    def objective(self) -> Objective:
        """The contrastive cosine loss."""
        return GlimpseContrast()

    def encoder(self) -> None:
        """There is no encoder of texts: what is embedded here are glimpses (``eye``), and the states of scanpaths."""

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: JSON lines, one scanpath each: {"glimpses": [[...], ...], "positions": [[x, y], ...]} or {"image":
        "a.jpg", "fixations": [[x, y], ...]}, both optionally with "scene", a name that scanpaths over one scene share.

        Over images, the eye and all glimpses' embeddings are kept in ``folder``.
        """
        entries, viewed = parts.read_entries(data)
        if viewed:
            paths, eye = parts.embed_viewed(parts.viewed_paths(entries, data.parent), config, seed=seed, folder=folder)
            config = replace(config, vision=eye.vit.config)
        else:
            paths, eye = parts.embedded_paths(entries), None
        config = replace(config, embedding=paths.vectors.shape[1], scale=config.scale or paths.saccade_scale())
        torch.manual_seed(seed)
        method = cls(config)
        if eye is not None and method.eye is not None:
            method.eye.load_state_dict(eye.state_dict())
        return method, Shuffled(paths.columns(config.window), batch=batch, seed=seed)

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight scanpaths of 3 to 5 fixations over six scenes."""
        torch.manual_seed(seed)
        sizes = torch.tensor([3, 5, 4, 5, 3, 4, 5, 3])
        method = cls(cls.Config(size=24, layers=2, dropout=0.0, window=5, embedding=8, scale=1.0))
        glimpses, positions = torch.randn(int(sizes.sum()), 8), torch.randn(int(sizes.sum()), 2)
        scene = torch.tensor([0, 1, 2, 3, 4, 5, 5, 0])
        return method, Batch(
            {"glimpses": Ragged(glimpses, sizes), "positions": Ragged(positions, sizes), "scene": scene}
        )

    @staticmethod
    def claim(scale: str) -> Claim:
        """The 2 x 2 design on letters in a plane, then on people's gaze where that data set is at hand."""
        from nextvec.methods._glimpse_claim import make

        return make(scale)


def _path(inputs: int, width: int, kind: str) -> list[nn.Module]:
    """From what comes in to the network's width."""
    if kind == "linear":
        return [nn.Linear(inputs, width, bias=False)]
    return [nn.Linear(inputs, width), nn.LayerNorm(width), nn.ReLU()]


def _before_last(lengths: Tensor) -> Tensor:
    """The numbers of all items but each sequence's last, int64 [N - B]."""
    return (places_of(lengths) < torch.repeat_interleave(lengths - 1, lengths)).nonzero().squeeze(1)


def _rows(values: Tensor, lengths: Tensor, longest: int) -> Tensor:
    """Values [sum of lengths, E] as [B, T, E] with zeros beyond each sequence's end; T is ``longest``."""
    at = places_of(lengths) + torch.arange(len(lengths)).repeat_interleave(lengths) * longest
    rows = values.new_zeros(len(lengths) * longest, values.shape[1])
    return rows.index_copy(0, at.to(values.device), values).view(len(lengths), longest, values.shape[1])
