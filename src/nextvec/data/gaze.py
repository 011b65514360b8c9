"""Where people looked: scanpaths over images, and the glimpses (crops) at their fixations.

OSIE, read here: fixations of 15 people who looked freely at 700 images of 800 x 600 pixels for 3 seconds each; Xu et
al. 2014, "Predicting human gaze beyond pixels" (Journal of Vision 14(1):28). Its coordinates count from 1, as MATLAB's
do; ours are pixels from the upper left corner, x to the right and y down, from 0.

Legend: n fixations of a scanpath, H x W pixels of an image, S side of a crop, P side of a glimpse.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.files import storage_error
from nextvec.types import InputError, NotFoundError

__all__ = ["Scanpath", "glimpses", "read_osie"]


@dataclass(frozen=True, slots=True)
class Scanpath:
    """One person's fixations on one image, in order. points: float32 [n, 2], x and y in pixels; durations: float32
    [n], milliseconds; subject: the person's number."""

    image: Path
    subject: int
    points: NDArray[np.float32]
    durations: NDArray[np.float32]


def read_osie(folder: Path) -> list[Scanpath]:
    """The scanpaths of the data set ``osie_eye`` in ``folder`` on the images that are there, in the order of images,
    then subjects; those without any fixation are left out.

    Raises NotFoundError where the file is missing, InputError where it is not what OSIE's is, MissingExtraError.
    """
    path = folder / "eye" / "fixations.mat"
    if not path.is_file():
        raise NotFoundError(f"{str(path)!r} is missing: 'nextvec data fetch osie_eye' fetches it")
    loadmat = require("scipy.io", why="reading OSIE's fixations (a MATLAB file)").loadmat
    try:
        entries = loadmat(path, simplify_cells=True)["fixations"]
        found = [
            Scanpath(
                folder / "stimuli" / str(entry["img"]),
                subject,
                np.stack([_row(seen["fix_x"]), _row(seen["fix_y"])], axis=1) - np.float32(1),
                _row(seen["fix_duration"]),
            )
            for entry in entries
            for subject, seen in enumerate(entry["subjects"])
        ]
    except OSError as error:
        raise storage_error(error, path) from error
    except (ValueError, TypeError, KeyError, IndexError, NotImplementedError) as error:
        raise InputError(f"{str(path)!r} is not OSIE's fixations.mat: {str(error).splitlines()[0]}") from error
    return [scanpath for scanpath in found if len(scanpath.points) and scanpath.image.is_file()]


def _row(values: Any) -> NDArray[np.float32]:
    """What MATLAB stored as a row, a single number or nothing, as float32 [n]."""
    row: NDArray[np.float32] = np.asarray(values, dtype=np.float32).reshape(-1)
    return row


def glimpses(
    image: NDArray[np.uint8], points: NDArray[np.floating[Any]], *, size: int = 96, pixels: int = 32
) -> NDArray[np.uint8]:
    """Crops of ``size`` pixels around ``points`` [n, 2], shrunk to uint8 [n, pixels, pixels, 3].

    image: uint8 [H, W, 3]; what lies outside is black. ``size`` must be a multiple of ``pixels``: each pixel of a
    glimpse is the mean of a square, which neither aliases nor blurs. InputError for a point that is not a number or not
    on the image (in other units, or x and y exchanged), and shapes that do not fit.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"an image of shape {list(image.shape)} ({image.dtype}); expected uint8 [H, W, 3]")
    if pixels < 1 or size % pixels or size < pixels:
        raise InputError(f"crops of {size} pixels do not shrink evenly to {pixels}: choose a multiple")
    height, width = image.shape[:2]
    if points.ndim != 2 or points.shape[1] != 2:
        raise InputError(f"fixations of shape {list(points.shape)}; expected [n, 2], x and y")
    outside = ~((points >= 0) & (points < (width, height))).all(axis=1)  # true for NaN too
    if outside.any():
        i = int(outside.argmax())
        x, y = points[i].tolist()
        raise InputError(
            f"fixation {i} at ({x:g}, {y:g}) is not on the image of {width} x {height} pixels; expected x and y in "
            "pixels from its upper left corner"
        )
    if not len(points):
        return np.zeros((0, pixels, pixels, 3), dtype=np.uint8)
    crops = np.zeros((len(points), size, size, 3), dtype=np.uint8)
    corners = np.floor(points).astype(np.int64) - size // 2
    for crop, (x, y) in zip(crops, corners.tolist(), strict=True):
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + size, width), min(y + size, height)
        crop[top - y : bottom - y, left - x : right - x] = image[top:bottom, left:right]
    side = size // pixels
    means = crops.reshape(len(crops), pixels, side, pixels, side, 3).mean(axis=(2, 4), dtype=np.float32)
    rounded: NDArray[np.uint8] = np.rint(means).astype(np.uint8)
    return rounded
