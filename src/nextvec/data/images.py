"""Images of one size, from a folder or an archive; the folder that an image lies in is its class.

Archives are read in memory, within limits, and nothing is unpacked. Legend: n images, H x W pixels, S side.
"""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.files import storage_error
from nextvec.types import InputError, NotFoundError, Progress

__all__ = ["Images", "read_image", "read_images", "square"]

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm"})
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_MOST_BYTES = 64 << 20  # of one image in an archive
_MOST_IMAGES = 1_000_000


@dataclass(frozen=True, slots=True)
class Images:
    """pixels: uint8 [n, S, S, 3]; names of the classes, in order; labels: int64 [n], numbers of ``names``."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> Images:
        """Those with these numbers."""
        return Images(self.pixels[rows], self.labels[rows], self.names)


def read_image(source: str | os.PathLike[str] | IO[bytes], *, name: str = "") -> NDArray[np.uint8]:
    """The image at a path, or in a file that is open, as uint8 [H, W, 3], RGB: JPEG, PNG and what else Pillow reads.
    name: what messages call an open file.

    Raises NotFoundError, InputError for what is not an image (or one of more pixels than Pillow's limit against
    decompression bombs), StorageError, MissingExtraError.
    """
    module = require("PIL.Image", why="reading images")
    shown = name or os.fspath(source)  # type: ignore[arg-type]
    try:
        with module.open(source) as image:
            pixels: NDArray[np.uint8] = np.array(image.convert("RGB"), dtype=np.uint8)
    except FileNotFoundError:
        raise NotFoundError(f"the image {shown!r} does not exist") from None
    except (module.UnidentifiedImageError, module.DecompressionBombError, ValueError, SyntaxError) as error:
        raise InputError(f"{shown!r} is not an image that can be read: {error}") from error
    except OSError as error:
        if error.errno is None:  # Pillow's own complaint, about the contents
            raise InputError(f"{shown!r} is damaged: {error}") from error
        raise storage_error(error, shown) from error
    return pixels


def read_images(path: Path, *, size: int, within: str = "", progress: Progress | None = None) -> Images:
    """All images of a folder (at any depth) or a tar archive, cut to their middle square and shrunk or enlarged to
    ``size`` pixels, in the order of their names. within: only those below this folder.

    NotFoundError where nothing is there, InputError for an archive or an image that is damaged, naming it.
    """
    if size < 1:
        raise InputError(f"size is {size}; expected at least 1 pixel")
    if not path.exists():
        raise NotFoundError(f"{str(path)!r} does not exist; expected a folder of images, or a tar archive of them")
    found: list[tuple[str, NDArray[np.uint8]]] = []
    for name, source in _files(path) if path.is_dir() else _members(path):
        if not name.startswith(within):
            continue
        if len(found) >= _MOST_IMAGES:
            raise InputError(f"{str(path)!r} holds more than {_MOST_IMAGES:,} images: divide it")
        found.append((name, square(read_image(source, name=name), size)))
        if progress is not None:
            progress(len(found), None)
    if not found:
        kinds = ", ".join(sorted(ending[1:] for ending in ENDINGS))
        raise NotFoundError(f"{str(path)!r} holds no images{f' below {within!r}' if within else ''} ({kinds})")
    found.sort(key=lambda pair: pair[0])
    folders = [PurePosixPath(name).parent.name for name, _ in found]
    names = tuple(sorted(set(folders)))
    number = {name: i for i, name in enumerate(names)}
    labels = np.array([number[folder] for folder in folders], dtype=np.int64)
    return Images(np.stack([pixels for _, pixels in found]), labels, names)


def square(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The middle square of [H, W, 3] as [S, S, 3]."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = image[top : top + side, left : left + side]
    if side == size:
        return image
    module = require("PIL.Image", why="reading images")
    shrunk: NDArray[np.uint8] = np.asarray(module.fromarray(image).resize((size, size), module.Resampling.LANCZOS))
    return shrunk


def _files(folder: Path) -> Iterator[tuple[str, Any]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS and path.is_file():
            yield path.relative_to(folder).as_posix(), path


def _members(path: Path) -> Iterator[tuple[str, Any]]:
    if not path.name.endswith(_ARCHIVES):
        raise InputError(f"{str(path)!r} is no folder and no archive ({', '.join(_ARCHIVES)})")
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if PurePosixPath(member.name).suffix.lower() not in ENDINGS or not member.isfile():
                    continue
                if member.size > _MOST_BYTES:
                    raise InputError(f"{path.name}: {member.name!r} has {member.size:,} bytes; at most {_MOST_BYTES:,}")
                stream = archive.extractfile(member)
                assert stream is not None
                yield member.name.removeprefix("./"), io.BytesIO(stream.read())
    except (tarfile.TarError, LZMAError, EOFError, zlib.error) as error:
        raise InputError(f"{str(path)!r} is not a readable tar archive: {error}") from error
    except OSError as error:
        if error.errno is None:
            raise InputError(f"{str(path)!r} is damaged: {error}") from error
        raise storage_error(error, path) from error
