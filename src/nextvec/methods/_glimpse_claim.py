"""The claim of ``glimpse_prediction``: letters in a plane, then people's gaze over photographs.

Legend: W worlds, L fixations of a walk, n scanpaths, N fixations of all of them, E width of a glimpse's embedding.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nextvec.data.catalog import find, locate
from nextvec.data.gaze import Scanpath, glimpses, read_osie
from nextvec.data.images import read_image
from nextvec.data.sources import Generated, Shuffled, Source
from nextvec.data.synthetic.letters import Letters
from nextvec.engine.engine import Engine, Report, TrainConfig
from nextvec.engine.optim import OptimConfig
from nextvec.engine.schedule import ScheduleConfig
from nextvec.evaluate.probes import held_out_r2
from nextvec.extras import available
from nextvec.files import atomic_write
from nextvec.methods._glimpse_parts import EYES, Paths, make_eye
from nextvec.methods.glimpse_prediction import GlimpsePrediction, scores
from nextvec.nn.backbones.vit import ViTConfig
from nextvec.types import Batch, Check, Claim, Ragged, Run

ARMS = {"RS": (True, True), "R": (True, False), "S": (False, True), "B": (False, False)}
"""Recurrence, saccade."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One network and how it is trained: settings of the method, then of the engine."""

    size: int
    layers: int
    window: int
    paths: str
    dropout: float
    steps: int
    batch: int
    lr: float


@dataclass(frozen=True, kw_only=True)
class Size:
    """One scale. worlds: held-out worlds, the first half of which the probe is fitted to. scenes: where gaze comes
    from, "osie" or "made" (a few random images, for a quick run); held: images held out; eye_dim, eye_layers,
    eye_steps: the eye and its training."""

    letters: Training
    worlds: int
    gaze: Training
    scenes: str
    held: int
    eye_dim: int
    eye_layers: int
    eye_steps: int
    device: str = "cpu"


SIZES = {
    "smoke": Size(
        letters=Training(size=24, layers=1, window=7, paths="linear", dropout=0.0, steps=4, batch=8, lr=4e-3),
        worlds=16,
        gaze=Training(size=24, layers=1, window=4, paths="norm", dropout=0.1, steps=3, batch=6, lr=1e-3),
        scenes="made", held=2, eye_dim=16, eye_layers=1, eye_steps=2,
    ),
    "cpu": Size(
        letters=Training(size=128, layers=1, window=31, paths="linear", dropout=0.0, steps=2000, batch=64, lr=4e-3),
        worlds=1024,
        gaze=Training(size=128, layers=1, window=7, paths="norm", dropout=0.1, steps=400, batch=128, lr=2e-3),
        scenes="osie", held=40, eye_dim=64, eye_layers=2, eye_steps=250,
    ),
    "gpu": Size(
        letters=Training(size=512, layers=3, window=101, paths="linear", dropout=0.0, steps=16000, batch=512, lr=1e-3),
        worlds=4096,
        gaze=Training(size=1024, layers=3, window=7, paths="norm", dropout=0.1, steps=5000, batch=512, lr=3e-4),
        scenes="osie", held=40, eye_dim=192, eye_layers=6, eye_steps=5000, device="auto",
    ),
}  # fmt: skip
CROP, PIXELS = 96, 32
SCALE = 1.0  # on letters saccades stay in the world's units: divided by more, Xavier's start hides them

PAPER = {
    "RS.position_r2": 1.0,
    "RS.gaze_trained_gap": 0.41,
    "RS.gaze_trained_within": 0.11,
    "S.gaze_trained_within": 0.11,
    "R.gaze_trained_within": 4.6e-4,
    "B.gaze_trained_within": 4.6e-4,
}
PAPER_IS = "COCO scenes, simulated scanpaths, SimCLR ResNet-50; position_r2 is of those scenes, gap is a lower bound"


def make(scale: str) -> Claim:
    """The claim at ``scale``; what rests on gaze is left out where the data set or what reads it is not here."""
    size = SIZES[scale]
    gaze = size.scenes == "made" or has_gaze()
    note = "" if gaze else "without gaze: needs the data set osie_eye and pip install 'nextvec[images]'"
    return Claim(
        statement="Prediction of the next glimpse improves along the sequence, and absolute position becomes linearly"
        " decodable, only with recurrence and saccades together; saccades tell apart the glimpses of one scene.",
        arms={name: partial(_arm, name=name, size=size) for name in ARMS},
        checks=(*_letter_checks(), *(_gaze_checks() if gaze else ())),
        paper={name: value for name, value in PAPER.items() if gaze or "gaze" not in name} if scale != "smoke" else {},
        curves=("accuracy", *((f"gaze_{eye}_loss" for eye in EYES) if gaze else ())),
        prepare=partial(_prepare, size=size),
        config={**asdict(size), "crop": CROP, "pixels": PIXELS, "paper": PAPER_IS, "note": note},
    )


def has_gaze() -> bool:
    """Whether OSIE and what reads it are here."""
    return find("osie_eye") is not None and available("PIL") and available("scipy")


def _letter_checks() -> tuple[Check, ...]:
    risen = [
        Check(says=f"letters: accuracy rises more along the sequence than in {arm}",
              better="RS.gain", worse=f"{arm}.gain", margin=0.1)
        for arm in ("S", "R", "B")
    ]  # fmt: skip
    decoded = [
        Check(says=f"letters: absolute position is better decoded from layer 1 than in {arm}",
              better="RS.position_r2", worse=f"{arm}.position_r2", margin=0.1)
        for arm in ("S", "R", "B")
    ]  # fmt: skip
    rises = Check(says="letters: with recurrence and saccades accuracy rises", better="RS.gain", worse=0.1)
    return (rises, *risen, *decoded)


def _gaze_checks() -> tuple[Check, ...]:
    apart = [
        Check(says=f"gaze: {with_} tells the next glimpse from others of the scene better than {without}",
              better=f"{with_}.gaze_trained_within", worse=f"{without}.gaze_trained_within")
        for with_, without in (("RS", "R"), ("S", "B"))
    ]  # fmt: skip
    recurrent = [
        Check(says=f"gaze: without recurrence the loss is higher ({without} against {with_})",
              better=f"{without}.gaze_trained_loss", worse=f"{with_}.gaze_trained_loss")
        for with_, without in (("RS", "S"), ("R", "B"))
    ]  # fmt: skip
    position = Check(says="gaze: absolute position is better decoded from layer 1 of RS than of S",
                     better="RS.gaze_trained_position_r2", worse="S.gaze_trained_position_r2")  # fmt: skip
    return (*apart, *recurrent, position)


# ---------------------------------------------------------------------------- what the arms share


def _prepare(shared: Path, *, size: Size) -> None:
    """gaze.npz: first ``window`` fixations of every scanpath that has them, glimpses embedded by both eyes."""
    if size.scenes == "made":
        images, scanpaths = _made()
    elif has_gaze():
        scanpaths = [path for path in read_osie(locate("osie_eye")) if len(path.points) >= size.gaze.window]
        images = {path: read_image(path) for path in sorted({scanpath.image for scanpath in scanpaths})}
    else:
        return
    names = sorted(images)
    held = {names[i] for i in np.random.default_rng(2511).permutation(len(names))[: size.held]}
    points = np.stack([path.points[: size.gaze.window] for path in scanpaths])
    crops = np.stack(
        [glimpses(images[path.image], own, size=CROP, pixels=PIXELS)
         for path, own in zip(scanpaths, points, strict=True)]
    )  # fmt: skip
    test = np.array([path.image in held for path in scanpaths])
    learned = [images[name] for name in names if name not in held]
    shape = ViTConfig(image=PIXELS, patch=8, dim=size.eye_dim, layers=size.eye_layers)
    arrays: dict[str, NDArray[Any]] = {
        "points": points, "scene": np.array([names.index(path.image) for path in scanpaths]), "test": test
    }  # fmt: skip
    for kind in EYES:
        steps = size.eye_steps if kind == "trained" else 0
        eye = make_eye(learned, shape, crop=CROP, steps=steps, seed=0)
        eye.standardise_on(crops[~test].reshape(-1, *crops.shape[2:]))
        arrays[kind] = eye.embed(crops.reshape(-1, *crops.shape[2:])).reshape(*crops.shape[:2], -1)
    with atomic_write(shared / "gaze.npz") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def _made() -> tuple[dict[Path, NDArray[np.uint8]], list[Scanpath]]:
    """Six images of coloured squares, and four random scanpaths over each."""
    rng = np.random.default_rng(0)
    images = {Path(f"{i}.png"): rng.integers(256, size=(9, 12, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
              for i in range(6)}  # fmt: skip
    points = [(rng.random((5, 2)) * (192, 144)).astype(np.float32) for _ in range(24)]
    return images, [Scanpath(Path(f"{i // 4}.png"), i % 4, own, np.ones(5, np.float32)) for i, own in enumerate(points)]


# ---------------------------------------------------------------------------- arms


def _arm(run: Run, *, name: str, size: Size) -> Mapping[str, float]:
    gaze = run.shared / "gaze.npz"
    total = size.letters.steps + (len(EYES) * size.gaze.steps if gaze.is_file() else 0)
    measures = _letters(run, name, size, partial(_progress, run, 0, total))
    if gaze.is_file():
        with np.load(gaze) as arrays:
            for i, eye in enumerate(EYES):
                done = size.letters.steps + i * size.gaze.steps
                measures |= _gaze(run, name, size, arrays, eye, partial(_progress, run, done, total))
    shutil.rmtree(run.folder / "training")
    return measures


def _progress(run: Run, before: int, total: int, report: Report) -> None:
    run.progress(before + report.step, total)


def _letters(run: Run, name: str, size: Size, on_step: Any) -> dict[str, float]:
    """Training on random worlds; accuracy by step, and position decoded, on worlds that are the same for all runs."""
    world, window = Letters(), size.letters.window

    def make_batch(rng: np.random.Generator, worlds: int) -> Batch:
        letters, _, positions = world.sample(rng, worlds, window)
        seen = functional.one_hot(torch.from_numpy(letters).flatten(), world.vocab).float()
        sizes = torch.full((worlds,), window)
        return Batch({"glimpses": Ragged(seen, sizes),
                      "positions": Ragged(torch.from_numpy(positions).flatten(0, 1), sizes)})  # fmt: skip

    source = Generated(make_batch, batch=size.letters.batch, seed=run.seed)
    method = _train(run, name, size.letters, source, width=world.vocab, scale=SCALE, device=size.device,
                    folder="letters", on_step=on_step)  # fmt: skip
    held = make_batch(np.random.default_rng(12715), size.worlds).to(method_device(method))
    with torch.no_grad():
        out = method(held)
    right = (out["pred"].argmax(-1) == out["target"].argmax(-1)).float().mean(0).cpu()
    third = len(right) // 3
    early, late = float(right[:third].mean()), float(right[-third:].mean())
    half = size.worlds // 2
    r2 = _position_r2(method, held.take(0, half), held.take(half, size.worlds))
    measures = {"accuracy_early": early, "accuracy_late": late, "gain": late - early, "position_r2": r2}
    return measures | {f"accuracy@{t + 1}": float(value) for t, value in enumerate(right)}


def _gaze(run: Run, name: str, size: Size, arrays: Any, eye: str, on_step: Any) -> dict[str, float]:
    """Training on the scanpaths over some images, measured on those over the others."""
    vectors, points, test = arrays[eye], arrays["points"], arrays["test"]

    def paths(chosen: NDArray[np.bool_]) -> Paths:
        rows = vectors[chosen]
        sizes = np.full(len(rows), rows.shape[1], dtype=np.int64)
        return Paths(rows.reshape(-1, rows.shape[2]), points[chosen].reshape(-1, 2), sizes, arrays["scene"][chosen])

    train, held = paths(~test), paths(test)
    source = Shuffled(train.columns(size.gaze.window), batch=size.gaze.batch, seed=run.seed)
    method = _train(run, name, size.gaze, source, width=vectors.shape[2], scale=train.saccade_scale(),
                    device=size.device, folder=f"gaze-{eye}", on_step=on_step)  # fmt: skip
    seen, unseen = (Batch(part.columns(size.gaze.window)).to(method_device(method)) for part in (train, held))
    with torch.no_grad():
        out = method(unseen)
        found = scores(out["pred"], out["target"], out["steps"], unseen.tensor("scene"))
    # The scene's glimpses are the true next one and its rivals.
    scene = (found.true + found.same * found.rivals) / (1 + found.rivals)
    measures = {
        "loss": found.loss(),
        "true": found.true,
        "within": found.true - found.same,
        "gap": scene - found.other,
    }
    made = {f"gaze_{eye}_{key}": float(value.mean()) for key, value in measures.items()}
    made[f"gaze_{eye}_position_r2"] = _position_r2(method, seen, unseen)
    return made | {f"gaze_{eye}_loss@{t + 1}": float(value) for t, value in enumerate(found.loss().mean(0))}


def method_device(method: GlimpsePrediction) -> torch.device:
    """Where the method's weights are."""
    return next(method.parameters()).device


def _train(
    run: Run, name: str, training: Training, source: Source, *, width: int, scale: float, device: str, folder: str,
    on_step: Any,
) -> GlimpsePrediction:  # fmt: skip
    recurrence, saccade = ARMS[name]
    torch.manual_seed(run.seed)
    method = GlimpsePrediction(
        GlimpsePrediction.Config(
            size=training.size, layers=training.layers, window=training.window, paths=training.paths,
            dropout=training.dropout, recurrence=recurrence, saccade=saccade, embedding=width, scale=scale,
        )
    )  # fmt: skip
    config = TrainConfig(
        steps=training.steps,
        batch=training.batch,
        optim=OptimConfig(lr=training.lr, weight_decay=0.01),
        schedule=ScheduleConfig(name="cosine", warmup=0.05),
        seed=run.seed,
        save_every=max(training.steps // 4, 1),
        keep=1,
    )
    Engine(method, config, device=device).fit(source, folder=run.folder / "training" / folder, on_step=on_step)
    return method.eval()


@torch.no_grad()
def _position_r2(method: GlimpsePrediction, train: Batch, test: Batch) -> float:
    """R^2, on ``test``, of a linear map from the first layer's states to where the eye lands next."""

    def pair(batch: Batch) -> tuple[NDArray[Any], NDArray[Any]]:
        positions = batch.ragged("positions")
        states = method.states(batch.ragged("glimpses"), positions)[0]
        steps = positions.values.view(len(positions), -1, 2)
        landing: Tensor = steps[:, 1:].flatten(0, 1)
        return states.cpu().numpy(), landing.cpu().numpy()

    return held_out_r2(pair(train), pair(test))
