"""Sentence vectors of a BERT-type teacher on a CPU: mean pooling, bf16 autocast, length-sorted, resumable.

N texts, T tokens of a batch, H hidden width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.files import atomic_write
from nextvec.types import Progress

__all__ = ["Teacher"]


class Teacher:
    """A sentence encoder read from a local Hugging Face directory (safetensors only, no remote code).

    The vector of a text is the mean of the last hidden states over its tokens, [CLS] and [SEP] included, as
    the sentence-transformers MiniLM models define it; it is not normalised here.
    """

    def __init__(self, folder: Path, *, max_length: int = 256) -> None:
        torch = require("torch", why="training a bundled encoder")
        transformers = require("transformers", why="training a bundled encoder")
        from tokenizers import Tokenizer

        self.folder = folder
        self.max_length = max_length
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_length)
        self.model = transformers.AutoModel.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).eval()
        self.width = int(self.model.config.hidden_size)
        self._torch = torch

    def encode(
        self, texts: Sequence[str], *, batch_tokens: int = 8192, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """float32 [N, H] in the order of ``texts``."""
        torch = self._torch
        encoded = self.tokenizer.encode_batch(list(texts))
        lengths = np.array([len(item.ids) for item in encoded], dtype=np.int64)
        out = np.zeros((len(texts), self.width), dtype=np.float32)
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            longest = int(lengths[order[start]])
            rows = order[start : start + max(1, batch_tokens // max(longest, 1))]
            ids = torch.zeros((len(rows), longest), dtype=torch.long)
            mask = torch.zeros((len(rows), longest), dtype=torch.long)
            for i, row in enumerate(rows):
                ids[i, : lengths[row]] = torch.tensor(encoded[row].ids)
                mask[i, : lengths[row]] = 1
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask.unsqueeze(-1).float()
            out[rows] = ((hidden.float() * weight).sum(1) / weight.sum(1)).numpy()
            start += len(rows)
            if progress is not None:
                progress(start, len(order))
        return out

    def encode_cached(
        self, texts: Sequence[str], folder: Path, *, chunk: int = 4096, progress: Progress | None = None
    ) -> NDArray[np.float16]:
        """float16 [N, H]; every finished chunk is a file of ``folder``, so that an interrupted run goes on.

        The chunk's file name carries a hash of its texts and of the teacher's configuration: changed input is
        computed anew, never mixed up with what lies there.
        """
        folder.mkdir(parents=True, exist_ok=True)
        key = json.dumps([(self.folder / "config.json").read_text(encoding="utf-8"), self.max_length])
        parts: list[NDArray[np.float16]] = []
        for start in range(0, len(texts), chunk):
            piece = list(texts[start : start + chunk])
            digest = hashlib.sha256("\0".join([key, *piece]).encode()).hexdigest()[:20]
            path = folder / f"{digest}.npy"
            if not path.exists():
                vectors = self.encode(piece).astype(np.float16)
                with atomic_write(path) as stream:
                    np.save(stream, vectors)
            parts.append(np.load(path))
            if progress is not None:
                progress(min(start + chunk, len(texts)), len(texts))
        return np.concatenate(parts) if parts else np.zeros((0, self.width), dtype=np.float16)
