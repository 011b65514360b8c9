"""What the file ``glimpse_prediction`` stands on: the small eye that embeds glimpses, and scanpaths from a user's file.

Legend: n scanpaths, N fixations of all of them, E width of a glimpse's embedding, P pixels of a glimpse's side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nextvec.data.gaze import glimpses
from nextvec.data.images import read_image
from nextvec.data.readers import read_located
from nextvec.data.sources import generator
from nextvec.files import atomic_write
from nextvec.nn.backbones.vit import ViT, ViTConfig
from nextvec.objectives.info_nce import InfoNCE
from nextvec.types import Column, InputError, Progress, Ragged

EYES = ("trained", "random")
_SIZES = (2 / 3, 1.0, 4 / 3)  # of the two views of a place, as shares of a glimpse's crop


class Eye(nn.Module):
    """Embeds glimpses with a small vision transformer, frozen once it is made. Its vectors are standardised: each of
    the E values has mean 0 and variance 1 over the glimpses it was made on, or else all cosines would be near 1."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.vit = ViT(config)
        self.register_buffer("mean", torch.zeros(config.dim))
        self.register_buffer("scale", torch.ones(config.dim))
        self.requires_grad_(False)

    def raw(self, images: Tensor) -> Tensor:
        """Vectors [n, E] before they are standardised; images: uint8 [n, P, P, 3]."""
        return self.vit.embed(images.permute(0, 3, 1, 2).to(self.mean.dtype) / 127.5 - 1)

    @torch.no_grad()
    def embed(self, images: NDArray[np.uint8], *, standardise: bool = True) -> NDArray[np.float32]:
        """float32 [n, E] of glimpses uint8 [n, P, P, 3]."""
        device = self.mean.device
        parts = [self.raw(torch.from_numpy(part).to(device)) for part in np.array_split(images, -(-len(images) // 512))]
        vectors = torch.cat(parts)
        if standardise:
            vectors = (vectors - self.mean) / self.scale
        found: NDArray[np.float32] = vectors.float().cpu().numpy()
        return found

    def standardise_on(self, images: NDArray[np.uint8]) -> None:
        """Take mean and scale from these glimpses."""
        vectors = self.embed(images, standardise=False)
        self.mean.copy_(torch.from_numpy(vectors.mean(axis=0)))
        self.scale.copy_(torch.from_numpy(np.maximum(vectors.std(axis=0), np.float32(1e-6))))


def make_eye(
    scenes: Sequence[NDArray[np.uint8]],
    config: ViTConfig,
    *,
    crop: int,
    steps: int,
    seed: int,
    batch: int = 128,
    lr: float = 1e-3,
    progress: Progress | None = None,
) -> Eye:
    """An eye that tells places of ``scenes`` (uint8 [H, W, 3]) apart: two views of a place (moved, nearer or farther,
    mirrored, in another light) are to be closer to each other than to views of other places, by InfoNCE on the output
    of a head that is thrown away (SimCLR, Chen et al. 2020, arXiv 2002.05709). steps=0: random weights."""
    torch.manual_seed(seed)
    eye = Eye(config)
    if not steps:
        return eye
    eye.vit.requires_grad_(True)
    head = nn.Sequential(nn.Linear(config.dim, config.dim), nn.GELU(), nn.Linear(config.dim, config.dim))
    objective = InfoNCE(query="one", document="other", temperature=0.2)
    optimiser = torch.optim.AdamW([*eye.vit.parameters(), *head.parameters()], lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=lr, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        views = torch.from_numpy(_views(scenes, generator(seed, step), batch, crop, config.image))
        one, other = head(eye.raw(views)).chunk(2)
        loss = objective({"one": one, "other": other}, {}).mean
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)
    return eye.requires_grad_(False).eval()


def _views(
    scenes: Sequence[NDArray[np.uint8]], rng: np.random.Generator, batch: int, crop: int, pixels: int
) -> NDArray[np.uint8]:
    """Two views each of ``batch`` places, uint8 [2 * batch, P, P, 3]: all first views, then all second ones."""
    made = np.empty((2, batch, pixels, pixels, 3), dtype=np.float32)
    for i, number in enumerate(rng.integers(len(scenes), size=batch).tolist()):
        scene = scenes[number]
        limit = np.array([scene.shape[1], scene.shape[0]])
        place = rng.random(2) * limit
        for view in made[:, i]:
            size = max(round(crop * float(rng.choice(_SIZES)) / pixels), 1) * pixels
            moved = np.clip(place + rng.uniform(-crop / 6, crop / 6, size=2), 0, limit - 1)
            view[:] = glimpses(scene, moved[None], size=size, pixels=pixels)[0]
    mirrored = rng.random((2, batch)) < 0.5
    made[mirrored] = made[mirrored][:, :, ::-1]
    light = rng.uniform(0.6, 1.4, size=(2, batch, 1, 1, 1)) * rng.uniform(0.8, 1.2, size=(2, batch, 1, 1, 3))
    middle = made.mean(axis=(2, 3, 4), keepdims=True)
    contrast = rng.uniform(0.6, 1.4, size=(2, batch, 1, 1, 1))
    lit = ((made - middle) * contrast + middle) * light
    views: NDArray[np.uint8] = np.clip(lit, 0, 255).astype(np.uint8).reshape(2 * batch, pixels, pixels, 3)
    return views


# ---------------------------------------------------------------------------- scanpaths


@dataclass(frozen=True, slots=True)
class Paths:
    """Scanpaths end to end. vectors: float32 [N, E], the glimpses' embeddings; points: float32 [N, 2]; lengths: int64
    [n]; scenes: int64 [n], equal where two scanpaths are over the same scene."""

    vectors: NDArray[np.float32]
    points: NDArray[np.float32]
    lengths: NDArray[np.int64]
    scenes: NDArray[np.int64]

    def columns(self, window: int) -> dict[str, Column]:
        """Batch columns of consecutive pieces of at most ``window`` fixations; a last piece of one fixation, in which
        there is nothing to predict, is left out."""
        keep, lengths, scenes = [], [], []
        for start, length, scene in zip(np.cumsum(self.lengths) - self.lengths, self.lengths, self.scenes, strict=True):
            for first in range(0, int(length), window):
                size = min(window, int(length) - first)
                if size > 1:
                    keep.append(np.arange(start + first, start + first + size))
                    lengths.append(size)
                    scenes.append(scene)
        rows, sizes = torch.from_numpy(np.concatenate(keep)), torch.tensor(lengths)
        return {
            "glimpses": Ragged(torch.from_numpy(self.vectors)[rows], sizes),
            "positions": Ragged(torch.from_numpy(self.points)[rows], sizes),
            "scene": torch.from_numpy(np.array(scenes, dtype=np.int64)),
        }

    def saccade_scale(self) -> float:
        """The root mean square of the saccades' x and y; 1 where nobody moves."""
        within = np.ones(len(self.points), dtype=bool)
        within[np.cumsum(self.lengths) - self.lengths] = False
        steps = np.diff(self.points, axis=0, prepend=self.points[:1])[within]
        return float(np.sqrt((steps.astype(np.float64) ** 2).mean())) or 1.0


Entry = tuple[str, dict[str, Any]]
"""Where a record stands ("paths.jsonl:3"), and the record."""


def read_entries(data: Path) -> tuple[list[Entry], bool]:
    """The records of a user's file, and whether they are over images ("image", "fixations") rather than embedded
    already ("glimpses", "positions"). InputError where there is none, or both kinds are mixed."""
    entries = list(read_located(data))
    if not entries:
        raise InputError(f"{str(data)!r} holds no scanpath: expected one JSON object per line")
    kinds = {"image" in record for _, record in entries}
    if len(kinds) > 1:
        where = next(place for place, record in entries if ("image" in record) != ("image" in entries[0][1]))
        raise InputError(f"{where}: some scanpaths have an 'image' and some do not; give all of one kind")
    return entries, kinds.pop()


def embedded_paths(entries: Iterable[Entry]) -> Paths:
    """Scanpaths whose glimpses are embedded already. InputError, with file and line, for what cannot be used."""
    vectors: list[NDArray[np.float32]] = []
    points, scenes = [], []
    for where, record in entries:
        own = _rows(record, "glimpses", None, where)
        places = _rows(record, "positions", 2, where)
        if len(own) != len(places):
            raise InputError(f"{where}: {len(own)} glimpses but {len(places)} positions; expected one for each")
        if vectors and own.shape[1] != vectors[0].shape[1]:
            raise InputError(f"{where}: glimpses of {own.shape[1]} values; those before have {vectors[0].shape[1]}")
        vectors.append(own)
        points.append(places)
        scenes.append(str(record.get("scene", where)))
    return _join(vectors, points, scenes)


@dataclass(frozen=True, slots=True)
class Viewed:
    """Scanpaths over images, before anything is embedded: the image, points, scene and place in the file of each."""

    images: list[Path]
    points: list[NDArray[np.float32]]
    scenes: list[str]
    places: list[str]

    def scenes_to_learn(self, limit: int, seed: int) -> list[NDArray[np.uint8]]:
        """At most ``limit`` different images, as uint8 [H, W, 3]."""
        paths = sorted(set(self.images))
        chosen = generator(seed, 0).permutation(len(paths))[:limit]
        return [read_image(paths[i]) for i in sorted(chosen.tolist())]

    def crops(self, *, crop: int, pixels: int) -> NDArray[np.uint8]:
        """All glimpses, uint8 [N, P, P, 3]; each image is read once."""
        made: dict[int, NDArray[np.uint8]] = {}
        by_image: dict[Path, list[int]] = {}
        for i, path in enumerate(self.images):
            by_image.setdefault(path, []).append(i)
        for path, numbers in by_image.items():
            image = read_image(path)
            for i in numbers:
                try:
                    made[i] = glimpses(image, self.points[i], size=crop, pixels=pixels)
                except InputError as error:
                    raise InputError(f"{self.places[i]}: {error}") from error
        return np.concatenate([made[i] for i in range(len(self.images))])

    def paths(self, vectors: NDArray[np.float32]) -> Paths:
        """With the glimpses' embeddings float32 [N, E]."""
        ends = np.cumsum([len(points) for points in self.points])[:-1]
        return _join(np.split(vectors, ends), self.points, self.scenes)


def viewed_paths(entries: Iterable[Entry], folder: Path) -> Viewed:
    """Scanpaths over images; "image" is a path relative to ``folder``."""
    viewed = Viewed([], [], [], [])
    for where, record in entries:
        if not isinstance(record["image"], str) or not record["image"]:
            raise InputError(f"{where}: 'image' is {record['image']!r}; expected the path of an image")
        path = folder / record["image"]
        if not path.is_file():
            raise InputError(f"{where}: the image {str(path)!r} does not exist (paths are relative to the data file)")
        viewed.images.append(path)
        viewed.points.append(_rows(record, "fixations", 2, where))
        viewed.scenes.append(str(record.get("scene", path)))
        viewed.places.append(where)
    return viewed


def embed_viewed(viewed: Viewed, config: Any, *, seed: int, folder: Path) -> tuple[Paths, Eye]:
    """Scanpaths over images with their glimpses embedded, and the eye that did it, as the method's ``config`` says.
    Both are kept in ``folder`` (eye.safetensors, glimpses.npy): a run that resumes sees the same vectors."""
    from safetensors.torch import load_file, save

    shape = config.vision or ViTConfig()
    path, vectors_path = folder / "eye.safetensors", folder / "glimpses.npy"
    if path.is_file() and vectors_path.is_file():
        eye = Eye(shape)
        eye.load_state_dict(load_file(path))
        return viewed.paths(np.load(vectors_path)), eye.eval()
    scenes = viewed.scenes_to_learn(200, seed) if config.eye == "trained" else []
    steps = config.eye_steps if config.eye == "trained" else 0
    eye = make_eye(scenes, shape, crop=config.crop, steps=steps, seed=seed)
    crops = viewed.crops(crop=config.crop, pixels=shape.image)
    eye.standardise_on(crops)
    vectors = eye.embed(crops)
    with atomic_write(path) as stream:
        stream.write(save(eye.state_dict()))
    with atomic_write(vectors_path) as stream:
        np.save(stream, vectors)
    return viewed.paths(vectors), eye


def _rows(record: dict[str, Any], name: str, width: int | None, where: str) -> NDArray[np.float32]:
    """The field ``name`` as float32 [n >= 2, width]."""
    if name not in record:
        raise InputError(
            f"{where}: no {name!r}; a scanpath has 'glimpses' (vectors) and 'positions' ([x, y] each), or an 'image' "
            "(a path) and 'fixations' ([x, y] each, in pixels)"
        )
    try:
        rows = np.asarray(record[name], dtype=np.float32)
    except (ValueError, TypeError):
        rows = np.zeros(0, dtype=np.float32)
    if rows.ndim != 2 or not rows.shape[1] or (width is not None and rows.shape[1] != width):
        raise InputError(f"{where}: {name!r} is not a list of {'[x, y]' if width else 'vectors of one width'}")
    if len(rows) < 2:
        raise InputError(f"{where}: {len(rows)} fixation; at least 2 are needed to predict one from the other")
    if not np.isfinite(rows).all():
        raise InputError(f"{where}: {name!r} holds a value that is not finite (NaN or infinite)")
    return rows


def _join(vectors: Sequence[NDArray[Any]], points: Sequence[NDArray[Any]], scenes: Sequence[str]) -> Paths:
    numbers = {name: i for i, name in enumerate(dict.fromkeys(scenes))}
    return Paths(
        np.concatenate(vectors).astype(np.float32, copy=False),
        np.concatenate(points).astype(np.float32, copy=False),
        np.array([len(part) for part in points], dtype=np.int64),
        np.array([numbers[name] for name in scenes], dtype=np.int64),
    )
