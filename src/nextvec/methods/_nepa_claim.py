"""The claim of NEPA on CIFAR-10: what its weights are worth, as features and as a beginning.

nepa       trained on the training images without their classes; then probed, and fine-tuned with classes
scratch    random weights: probed (the random-feature control), and trained with classes in as many steps
supervised as scratch, in as many steps as nepa has in both trainings; then probed
unshifted  as nepa, but it foretells the patch that it sees (control)
unstopped  as nepa without the stop-gradient (control)

Fine-tuning sees all patches (bidirectional), adds a linear layer on their mean, and mirrors images at random.

probe      accuracy of a linear map (ridge regression onto the classes) of the mean of the patches' states, of the layer
           that is best on a fifth of the training images; ``last``: of the last layer. In percent, on test images
tuned      accuracy after fine-tuning
rank       effective rank of the embeddings of patches: collapse onto a point or a line lowers it
alike      mean absolute cosine of the embeddings of two patches of different images: 1 is collapse
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nextvec.arms import arm_config, fit_arm
from nextvec.data.catalog import locate
from nextvec.data.images import Images, read_images
from nextvec.data.sources import Shuffled, generator
from nextvec.evaluate.geometry import effective_rank
from nextvec.evaluate.probes import fit_ridge
from nextvec.files import atomic_write
from nextvec.methods.nepa import Nepa
from nextvec.text_claims import scale_named
from nextvec.types import Check, Claim, Run

ARMS: Mapping[str, Mapping[str, Any]] = {
    "nepa": {},
    "scratch": {},
    "supervised": {},
    "unshifted": {"shift": 0},
    "unstopped": {"stop": False},
}
_LABELLED = ("scratch", "supervised")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """images: "stripes" (made here) or "cifar10_jpg"; steps, batch, lr: without classes; tune_steps, tune_lr: with."""

    images: str = "stripes"
    size: int = 12
    patch: int = 4
    depth: int = 2
    dim: int = 32
    steps: int = 10
    batch: int = 32
    lr: float = 1e-3
    tune_steps: int = 20
    tune_lr: float = 1e-3
    device: str = "cpu"


_CPU = Scale(images="cifar10_jpg", size=32, depth=4, dim=128, steps=600, batch=64, tune_steps=300)
SCALES = {
    "smoke": Scale(),
    "cpu": _CPU,
    "gpu": replace(_CPU, depth=8, dim=384, patch=2, steps=20_000, batch=512, tune_steps=4000, device="auto"),
}


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    return Claim(
        statement="Weights that foretell the next patch's embedding are a better beginning for fine-tuning than random"
        " ones, and better features; without the shift they are not, and without the stop-gradient embeddings collapse."
        " The paper's figures are ImageNet-1K's, ViT-B and ViT-L fine-tuned.",
        arms={arm: partial(_arm, arm=arm, scale=scale) for arm in ARMS},
        checks=(
            Check(says="fine-tuned, it is better than random weights", better="nepa.tuned", worse="scratch.tuned"),
            Check(says="its features are better than random ones", better="nepa.probe", worse="scratch.probe"),
            Check(says="and than those of a model that was not shifted", better="nepa.probe", worse="unshifted.probe"),
            Check(
                says="without the stop-gradient embeddings lose half their rank",
                better="nepa.rank",
                worse="unstopped.twice",
            ),
            Check(says="and features are worse", better="nepa.probe", worse="unstopped.probe"),
            Check(
                says="in as many steps in all, it is as good as classes alone (2 points are given)",
                better="nepa.tuned",
                worse="supervised.tuned",
                margin=-2.0,
            ),
            Check(says="classes make better features (control)", better="supervised.probe", worse="nepa.probe"),
        ),
        prepare=partial(_prepare, scale=scale),
        config=asdict(scale),
    )


def _prepare(shared: Path, *, scale: Scale) -> None:
    """Images to learn from and to measure on."""
    if scale.images == "stripes":
        parts = {part: _stripes(200, scale.size, seed) for seed, part in enumerate(("train", "test"))}
    else:
        archive = next(locate(scale.images).glob("*.tar.xz"))
        parts = {part: read_images(archive, size=scale.size, within=f"{part}/") for part in ("train", "test")}
    for part, images in parts.items():
        with atomic_write(shared / f"{part}.npz") as stream:
            np.savez(stream, pixels=images.pixels, labels=images.labels, names=np.array(images.names))


def _stripes(count: int, size: int, seed: int) -> Images:
    """Stripes of four directions and random widths and colours; the direction is the class."""
    random = np.random.default_rng([seed, 1612])
    labels = np.arange(count) % 4
    down, right = np.mgrid[:size, :size]
    across = np.stack([down, right, down + right, down - right])[labels]
    period, phase = random.uniform(3, 6, (count, 1, 1)), random.uniform(0, 6, (count, 1, 1))
    light = np.sin((across + phase) * 2 * np.pi / period)[..., None]
    middle, strength = (random.uniform(*span, (count, 1, 1, 3)) for span in ((90, 160), (30, 80)))
    pixels = np.clip(middle + strength * light + random.normal(0, 8, light.shape), 0, 255)
    return Images(pixels.astype(np.uint8), labels.astype(np.int64), ("rows", "columns", "falling", "rising"))


def _read(path: Path) -> Images:
    with np.load(path, allow_pickle=False) as kept:
        return Images(kept["pixels"], kept["labels"], tuple(kept["names"].tolist()))


def _arm(run: Run, *, arm: str, scale: Scale) -> Mapping[str, float]:
    train, test = (_read(run.shared / f"{part}.npz") for part in ("train", "test"))
    torch.manual_seed(run.seed)
    config = Nepa.Config(depth=scale.depth, dim=scale.dim, size=scale.size, patch=scale.patch, **ARMS[arm])
    method = Nepa(config)
    steps = 0 if arm in _LABELLED else scale.steps
    tuned = {"nepa": scale.tune_steps, "scratch": scale.tune_steps, "supervised": scale.steps + scale.tune_steps}
    labelled = tuned.get(arm, 0)
    if steps:
        settings = arm_config(steps=steps, batch=scale.batch, lr=scale.lr, seed=run.seed, weight_decay=0.05)
        source = Shuffled({"image": train.pixels}, batch=scale.batch, seed=run.seed)
        fit_arm(method, source, settings, run, device=scale.device, total=steps + labelled)
    method.eval()
    measures = _spread(method, test)
    if arm != "supervised":
        measures |= _probed(method, train, test)
    if labelled:
        model = _tuned(method, train, scale, run, done=steps, steps=labelled)
        measures["tuned"] = _right(model, test)
        if arm == "supervised":
            measures |= _probed(model.method, train, test)
    return measures


# ---------------------------------------------------------------------------- features


def _features(method: Nepa, images: Images) -> list[NDArray[np.float32]]:
    """The features of every layer, [n, D] each."""
    device = next(method.parameters()).device
    parts = [
        [state.float().cpu() for state in method.features(torch.from_numpy(part).to(device))]
        for part in np.array_split(images.pixels, -(-len(images) // 256))
    ]
    return [torch.cat(layer).numpy() for layer in zip(*parts, strict=True)]


def _probed(method: Nepa, train: Images, test: Images) -> dict[str, float]:
    """``probe``, ``last`` and the layer that was chosen for the former."""
    learned, asked = _features(method, train), _features(method, test)
    kept = np.random.default_rng(0).permutation(len(train))
    own, other = np.array_split(kept, [len(kept) - len(kept) // 5])
    chosen = [
        _accuracy(layer[own], train.labels[own], layer[other], train.labels[other], len(train.names))
        for layer in learned
    ]
    layer = int(np.argmax(chosen))
    found = [
        _accuracy(learned[i], train.labels, asked[i], test.labels, len(train.names)) for i in (layer, len(learned) - 1)
    ]
    return {"probe": found[0], "last": found[1], "layer": float(layer)}


def _accuracy(
    x: NDArray[np.float32], y: NDArray[np.int64], x_test: NDArray[np.float32], y_test: NDArray[np.int64], classes: int
) -> float:
    """Percent of the test examples whose class the ridge regression onto classes puts first."""
    guessed = fit_ridge(x, np.eye(classes)[y], alpha=1e-3).predict(x_test).argmax(axis=1)
    return 100 * float((guessed == y_test).mean())


@torch.no_grad()
def _spread(method: Nepa, images: Images) -> dict[str, float]:
    """How alike patches' embeddings are, over a thousand pairs, and their effective rank, over as many."""
    device = next(method.parameters()).device
    some = torch.from_numpy(images.pixels[:: max(len(images) // 256, 1)]).to(device)
    vectors = functional.normalize(method.vit.patch_vectors(method.pixels(some)).flatten(1, 2), dim=-1)
    random = torch.Generator().manual_seed(0)
    count, places = vectors.shape[:2]
    one = torch.randint(count, (1000,), generator=random)
    other = (one + torch.randint(1, count, (1000,), generator=random)) % count
    at = torch.randint(places, (2, 1000), generator=random)
    first, second = vectors[one, at[0]], vectors[other, at[1]]
    rank = effective_rank(first.float().cpu().numpy())
    return {"alike": float((first * second).sum(dim=-1).abs().mean()), "rank": rank, "twice": 2 * rank}


# ---------------------------------------------------------------------------- fine-tuning


class _Classifier(nn.Module):
    """The transformer's weights, seeing in both directions, and a linear layer on the mean of its states."""

    def __init__(self, method: Nepa, classes: int) -> None:
        super().__init__()
        self.method = Nepa(replace(method.config, attention="bidirectional"))
        self.method.load_state_dict(method.state_dict())
        self.method.to(next(method.parameters()).device)
        self.head = nn.Linear(self.method.vit.config.dim, classes, device=next(method.parameters()).device)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.method.vit.embed(self.method.pixels(images)))
        return logits


def _tuned(method: Nepa, train: Images, scale: Scale, run: Run, *, done: int, steps: int) -> _Classifier:
    """The model after ``steps`` steps with classes; done: steps before these."""
    torch.manual_seed(run.seed)
    device = next(method.parameters()).device
    model = _Classifier(method, len(train.names)).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=scale.tune_lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=scale.tune_lr, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        random = generator(run.seed, step)
        rows = random.choice(len(train), size=min(scale.batch, len(train)), replace=False)
        pixels = train.pixels[rows]
        mirrored = random.random(len(rows)) < 0.5 if scale.images != "stripes" else np.zeros(len(rows), dtype=bool)
        pixels[mirrored] = pixels[mirrored][:, :, ::-1]
        logits = model(torch.from_numpy(pixels).to(device))
        loss = functional.cross_entropy(logits, torch.from_numpy(train.labels[rows]).to(device))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        run.progress(done + step + 1, done + steps)
    return model.eval()


@torch.no_grad()
def _right(model: _Classifier, test: Images) -> float:
    """Accuracy in percent."""
    device = next(model.parameters()).device
    guessed = [
        model(torch.from_numpy(part).to(device)).argmax(dim=1).cpu().numpy()
        for part in np.array_split(test.pixels, -(-len(test) // 256))
    ]
    return 100 * float((np.concatenate(guessed) == test.labels).mean())
