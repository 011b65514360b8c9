"""Encoder: texts to embeddings. Load any model folder, encode, compare, save.

The order is fixed and always the same: pool, (dense), truncate, normalise, quantise. Truncating before normalising
keeps shortened vectors on the unit sphere; quantising last means that codes are codes of what is compared.

Legend: n texts, D the model's width, d the width asked for (d <= D), L the transformer's layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.nn.backbones.static import StaticBackbone
from nextvec.nn.dense import Dense
from nextvec.nn.layout import Layout, read_layout
from nextvec.nn.locate import bundled_models, model_folder
from nextvec.types import InputError, Progress, did_you_mean

if TYPE_CHECKING:
    from nextvec.nn.backbones.hf import HFBackbone

__all__ = ["Encoder", "Role", "bundled_models"]

Role = Literal["query", "document"]
DTYPES = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "binary": np.uint8}
_ROLE_PROMPTS = {"query": ("query",), "document": ("document", "passage", "corpus")}


class Encoder:
    """A text encoder. Make one with :meth:`load`; encode with :meth:`encode`."""

    def __init__(
        self, backbone: StaticBackbone | HFBackbone, layout: Layout, *, name: str, dense: Sequence[Dense] = ()
    ) -> None:
        """backbone: tokens to vectors; layout: how to pool and prompt; dense: maps after pooling, in order."""
        self.backbone = backbone
        self.layout = layout
        self.name = name
        self.dense = list(dense)

    # ------------------------------------------------------------------ loading

    @classmethod
    def load(
        cls,
        path_or_name: str | Path,
        *,
        device: str = "auto",
        max_length: int | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
    ) -> Encoder:
        """Load a model by bundled name ("nextvec-mini"), folder, or hub id ("owner/name").

        device: "auto", "cpu", "cuda" (transformers only); max_length: tokens kept per text; local_files_only: never
        use the network. Only safetensors are read; a model's own code is never run. Raises NotFoundError,
        InputError (damaged, pickled or unsupported folders), OfflineError, MissingExtraError.
        """
        folder, name = model_folder(path_or_name, local_files_only=local_files_only, revision=revision)
        layout = read_layout(folder)
        if max_length is not None and max_length < 1:
            raise InputError(f"max_length is {max_length}; expected at least 1")
        length = max_length or layout.max_length
        backbone: StaticBackbone | HFBackbone
        if layout.kind == "static":
            backbone = StaticBackbone.load(layout.folder, max_length=length)
        else:
            require("torch", why=f"loading {name!r}")
            from nextvec.nn.backbones.hf import HFBackbone, pick_device
            from nextvec.nn.pooling.modes import check_modes

            layout.pooling = check_modes(layout.pooling)
            backbone = HFBackbone.load(
                layout.folder, device=pick_device(device), max_length=length, lower_case=layout.lower_case
            )
        encoder = cls(backbone, layout, name=name, dense=[Dense.load(path) for path in layout.dense])
        encoder._check_widths()
        return encoder

    def _check_widths(self) -> None:
        width = self._pooled_dim
        for module in self.dense:
            if module.weight.shape[1] != width:
                raise InputError(f"{self.name}: Dense expects width {module.weight.shape[1]}, gets {width}")
            width = module.dim

    @property
    def _pooled_dim(self) -> int:
        return self.backbone.dim * (len(self.layout.pooling) if self.layout.kind == "transformer" else 1)

    @property
    def _window(self) -> int:
        """Texts sorted by length and encoded together: the unit of progress, and of what ``out=`` resumes."""
        return 8192 if self.layout.kind == "static" else 1024

    @property
    def full_dim(self) -> int:
        """The width D before truncation."""
        return self.dense[-1].dim if self.dense else self._pooled_dim

    @property
    def dim(self) -> int:
        """The width of a vector when ``encode`` is given no ``dim``."""
        return min(self.layout.dim or self.full_dim, self.full_dim)

    @property
    def layers(self) -> int:
        """The transformer layers L; 0 for a static model."""
        return 0 if isinstance(self.backbone, StaticBackbone) else self.backbone.layers

    @property
    def nested_dims(self) -> list[int]:
        """The widths that the model was trained to be cut to, where its folder says so."""
        return list(self.layout.nested_dims)

    @property
    def nested_layers(self) -> list[int]:
        """The numbers of layers that the model was trained to stop after, where its folder says so."""
        return list(self.layout.nested_layers)

    @property
    def max_length(self) -> int | None:
        """Tokens kept per text (None: all)."""
        return self.backbone.max_length

    @property
    def prompts(self) -> dict[str, str]:
        """The model's prompts by name."""
        return dict(self.layout.prompts)

    def __repr__(self) -> str:
        return f"Encoder({self.name!r}, dim={self.dim}, {self.layout.kind})"

    # ------------------------------------------------------------------ encoding

    def encode(
        self,
        inputs: str | Iterable[str],
        *,
        role: Role | None = None,
        prompt: str | None = None,
        batch_tokens: int | None = None,
        dim: int | None = None,
        layers: int | None = None,
        precision: str = "auto",
        normalize: bool = True,
        dtype: str = "float32",
        out: str | Path | None = None,
        progress: Progress | None = None,
    ) -> NDArray[Any]:
        """Embed texts.

        inputs: one text (gives [d]) or many (gives [n, d]); role: "query" or "document" picks the model's prompt of
        that name; prompt: a prompt text, instead; batch_tokens: upper bound of tokens in one batch (on a CPU each
        core works on a batch of its own); dim: width d, the first d values are kept; layers: run the first n of a
        transformer's L layers only and pool what the n-th gives (before any final norm); precision: arithmetic of a
        transformer, "fp32", "bf16" or "auto" (bf16 where the hardware has it); normalize: to unit length; dtype: of
        the result, "float32", "float16", "int8" (127 * value of unit vectors, rounded) or "binary" (signs, 8 to a
        byte, [n, ceil(d/8)]); out: a .npy file that is written as it goes and resumed when run again, returned
        memory-mapped; progress: called with (texts done, texts in all).
        A text without tokens gives a zero vector. Raises InputError for anything unusable.
        """
        settings = self._settings(role, prompt, dim, layers, precision, normalize, dtype, batch_tokens)
        if isinstance(inputs, str):
            if out is not None:
                raise InputError("out= needs a list of texts; got one text")
            vector: NDArray[Any] = self._encode_texts([_text(inputs, 0)], settings)[0]
            return vector
        if out is not None:
            from nextvec.resumable import write_vectors

            texts = [_text(text, i) for i, text in enumerate(inputs)]
            shape = (len(texts), -(-settings["dim"] // 8) if dtype == "binary" else settings["dim"])
            return write_vectors(
                Path(out),
                texts,
                lambda part: self._encode_texts(part, settings),
                shape=shape,
                dtype=DTYPES[dtype],
                settings={"model": self.name, "weights": self.fingerprint(), **settings},
                window=self._window,
                progress=progress,
            )
        return self._encode_stream(inputs, settings, progress)

    def encode_query(self, inputs: str | Iterable[str], **options: Any) -> NDArray[Any]:
        """:meth:`encode` with ``role="query"``."""
        return self.encode(inputs, role="query", **options)

    def encode_document(self, inputs: str | Iterable[str], **options: Any) -> NDArray[Any]:
        """:meth:`encode` with ``role="document"``."""
        return self.encode(inputs, role="document", **options)

    def similarity(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float32]:
        """Scores [n, m] of vectors a [n, d] and b [m, d] (or single vectors), by the model's measure.

        Cosine unless the model's configuration says "dot", or "euclidean" or "manhattan": then negative distances.
        """
        left, right = (np.atleast_2d(np.asarray(x, dtype=np.float32)) for x in (a, b))
        if left.shape[1] != right.shape[1]:
            raise InputError(f"widths differ: {left.shape[1]} and {right.shape[1]}; encode both with the same dim")
        if self.layout.similarity in ("euclidean", "manhattan"):
            order = 2 if self.layout.similarity == "euclidean" else 1
            return np.stack([-np.linalg.norm(right - row, ord=order, axis=1) for row in left]).astype(np.float32)
        if self.layout.similarity == "cosine":
            left, right = _unit(left), _unit(right)
        scores: NDArray[np.float32] = left @ right.T
        return scores

    def fingerprint(self) -> str:
        """A short hash of the weights (and tokenizer) on disk: tells whether two vectors come from the same model.

        Sizes, and 64 blocks spread over each file: training changes every block, copying and reinstalling none.
        """
        import hashlib

        digest = hashlib.sha256()
        folder = self.layout.folder
        for path in sorted([*folder.glob("*.safetensors"), *folder.glob("tokenizer.json")]):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            with path.open("rb") as stream:
                for start in range(0, size, max(size // 64, 1)):
                    stream.seek(start)
                    digest.update(stream.read(4096))
        return digest.hexdigest()[:16]

    def _settings(
        self,
        role: str | None,
        prompt: str | None,
        dim: int | None,
        layers: int | None,
        precision: str,
        normalize: bool,
        dtype: str,
        batch_tokens: int | None,
    ) -> dict[str, Any]:
        from nextvec.nn.backbones.hf import PRECISIONS

        if role is not None and role not in _ROLE_PROMPTS:
            raise InputError(
                f"role is {role!r}; expected 'query', 'document' or None{did_you_mean(role, _ROLE_PROMPTS)}"
            )
        if precision not in PRECISIONS:
            raise InputError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
        if dtype not in DTYPES:
            raise InputError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
        if dtype == "int8" and not normalize:
            raise InputError("dtype='int8' codes unit vectors; it needs normalize=True")
        if dim is not None and not 1 <= dim <= self.full_dim:
            raise InputError(f"dim is {dim}; {self.name} gives 1 to {self.full_dim}")
        if layers is not None and not 1 <= layers <= self.layers:
            known = f"runs 1 to {self.layers} layers" if self.layers else "is no transformer: it has no layers"
            raise InputError(f"layers is {layers}; {self.name} {known}")
        if batch_tokens is not None and batch_tokens < 1:
            raise InputError(f"batch_tokens is {batch_tokens}; expected at least 1")
        return {
            "prompt": self._prompt(role) if prompt is None else prompt,
            "dim": dim or self.dim,
            "layers": layers if layers != self.layers else None,
            "precision": precision,
            "normalize": normalize,
            "dtype": dtype,
            "batch_tokens": batch_tokens,
        }

    def _prompt(self, role: str | None) -> str:
        prompts = self.layout.prompts
        if role is None:
            return prompts.get(self.layout.default_prompt or "", "")
        return next((prompts[name] for name in _ROLE_PROMPTS[role] if name in prompts), "")

    def _encode_stream(
        self, inputs: Iterable[str], settings: dict[str, Any], progress: Progress | None
    ) -> NDArray[Any]:
        total = len(inputs) if isinstance(inputs, Sequence) else None
        source = (_text(text, i) for i, text in enumerate(inputs))
        parts, done = [], 0
        while texts := list(islice(source, self._window)):
            parts.append(self._encode_texts(texts, settings))
            done += len(texts)
            if progress:
                progress(done, total)
        return np.concatenate(parts) if parts else self._finish(np.zeros((0, self._pooled_dim), np.float32), settings)

    def _encode_texts(self, texts: list[str], settings: dict[str, Any]) -> NDArray[Any]:
        prompt = settings["prompt"]
        ids = self.backbone.tokenize([prompt + text for text in texts] if prompt else texts)
        if isinstance(self.backbone, StaticBackbone):
            pooled = self.backbone.pool(ids)
        else:
            skip = self.backbone.prompt_tokens(prompt) if prompt and not self.layout.include_prompt else 0
            pooled = self._run_transformer(ids, settings, skip)
        return self._finish(pooled, settings)

    def _run_transformer(self, ids: list[list[int]], settings: dict[str, Any], skip: int) -> NDArray[np.float32]:
        from nextvec.nn.backbones.workers import run_batches
        from nextvec.nn.pooling.modes import pool

        backbone = self.backbone
        assert not isinstance(backbone, StaticBackbone)
        pooled = np.zeros((len(ids), self._pooled_dim), np.float32)

        def run(batch: list[int]) -> None:
            texts = [ids[i] for i in batch]
            hidden, lengths = backbone.hidden(texts, precision=settings["precision"], layers=settings["layers"])
            pooled[batch] = pool(hidden, lengths, modes=self.layout.pooling, skip=skip).cpu().numpy()

        budget = settings["batch_tokens"] or backbone.batch_tokens(settings["precision"])
        batches = _batches([len(text) for text in ids], budget)
        run_batches(run, batches, parallel=backbone.device == "cpu")
        return pooled

    def _finish(self, pooled: NDArray[np.float32], settings: dict[str, Any]) -> NDArray[Any]:
        for module in self.dense:
            pooled = module(pooled)
        vectors = pooled[:, : settings["dim"]]
        if settings["normalize"]:
            vectors = _unit(vectors)
        return _quantise(vectors, settings["dtype"])

    # ------------------------------------------------------------------ saving

    def save(self, folder: str | Path) -> Path:
        """Write the model as a sentence-transformers folder (which opens there and here); returns the folder.

        Written beside the target and renamed, so that a half-written model is never seen. Refuses a target that
        exists and is not empty.
        """
        from nextvec.nn.save import save_encoder

        return save_encoder(Path(folder), self.backbone, self.layout, self.dense, dim=self.dim)


def _text(text: Any, position: int) -> str:
    if not isinstance(text, str):
        raise InputError(f"input {position} is {type(text).__name__}, expected a text (str)")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"input {position} holds a lone surrogate at character {error.start}: not valid text"
        ) from error
    return text


def _batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in batches of at most ``budget`` tokens (at least one text), longest first, equal lengths together.

    Texts without tokens are left out.
    """
    order = sorted((i for i, n in enumerate(lengths) if n), key=lambda i: -lengths[i])
    batches: list[list[int]] = []
    used = budget + 1
    for i in order:
        if used + lengths[i] > budget:
            batches.append([])
            used = 0
        batches[-1].append(i)
        used += lengths[i]
    return batches


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = vectors / np.maximum(norms, np.float32(1e-12))
    return scaled


_QUANTISERS: dict[str, Callable[[NDArray[np.float32]], NDArray[Any]]] = {
    "float32": lambda x: np.ascontiguousarray(x),
    "float16": lambda x: x.astype(np.float16),
    "int8": lambda x: np.rint(x * 127).clip(-127, 127).astype(np.int8),
    "binary": lambda x: np.packbits(x > 0, axis=1),
}


def _quantise(vectors: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    return _QUANTISERS[dtype](vectors)
