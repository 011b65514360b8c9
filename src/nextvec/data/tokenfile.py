"""Token files: a tokenised corpus on disk, memory-mapped, so that it may be larger than memory.

One file, little-endian: a header of 64 bytes, the tokens of all documents end to end (uint16, or uint32 for
vocabularies over 65,536), zeros up to a multiple of 8 bytes, then int64 [M + 1], where each document begins and the
last one ends. The header holds sizes and checksums; it is written last, and the file appears under its name only when
it is complete.

Legend: M documents, N tokens.
"""

from __future__ import annotations

import itertools
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextvec.data.packing import stream
from nextvec.data.sources import Indices, generator, share
from nextvec.data.tokenizers import Tokenizer
from nextvec.files import atomic_write, storage_error
from nextvec.types import Batch, InputError, NotFoundError, Progress, Ragged, StorageError

__all__ = ["PackedTokens", "TokenFile", "build_token_file", "write_tokens"]

_MAGIC = b"nvtokens"
_VERSION = 1
# magic, version, bytes per token, vocabulary, documents, tokens, CRC-32 of the tokens and of the offsets
_HEADER = struct.Struct("<8sIIQQQII")
_TOKENS_AT = 64
_BLOCK = 1 << 24


class TokenFile:
    """A token file, open for reading. ``len`` is the number of documents.

    vocab: ids are below it; tokens: N; offsets: int64 [M + 1]; lengths: int64 [M]; values: uint16 or uint32 [N],
    mapped.
    """

    def __init__(self, path: Path, *, vocab: int, values: NDArray[Any], offsets: Indices, crc: int) -> None:
        self.path, self.vocab, self.values, self.offsets, self._crc = path, vocab, values, offsets, crc
        self.tokens = len(values)
        self.lengths: Indices = np.diff(offsets)

    @classmethod
    def open(cls, path: Path) -> TokenFile:
        """The file at ``path``: header, size and offsets are checked here, the tokens themselves by ``verify``.

        Raises NotFoundError, InputError for a file of another kind or version, StorageError for a torn or damaged one.
        """
        try:
            if not path.is_file():
                raise NotFoundError(f"there is no token file {str(path)!r}: make it with build_token_file")
            size = path.stat().st_size
            with path.open("rb") as source:
                head = source.read(_TOKENS_AT)
            if not head.startswith(_MAGIC) and any(head):
                raise InputError(f"{str(path)!r} is not a token file: make one with build_token_file")
            if len(head) < _TOKENS_AT or zlib.crc32(head[:-4]) != int.from_bytes(head[-4:], "little"):
                raise StorageError(f"{str(path)!r} has a damaged header: build or copy it again")
            _, version, width, vocab, documents, tokens, crc, crc_offsets = _HEADER.unpack_from(head)
            if version != _VERSION or width not in (2, 4):
                raise InputError(f"{str(path)!r} has version {version}; this release reads {_VERSION}: build it again")
            offsets_at = _aligned(_TOKENS_AT + tokens * width)
            expected = offsets_at + 8 * (documents + 1)
            if size != expected:
                raise StorageError(f"{str(path)!r} has {size:,} bytes, its header says {expected:,}: build it again")
            offsets = np.fromfile(path, dtype="<i8", offset=offsets_at).astype(np.int64, copy=False)
            values = np.memmap(path, dtype=f"<u{width}", mode="r", offset=_TOKENS_AT, shape=(tokens,))
        except OSError as error:
            raise error if isinstance(error, StorageError) else storage_error(error, path) from error
        whole = zlib.crc32(offsets.astype("<i8").tobytes()) == crc_offsets
        if not whole or offsets[0] or offsets[-1] != tokens or (np.diff(offsets) < 0).any():
            raise StorageError(f"{str(path)!r} has damaged document offsets: build or copy it again")
        return cls(path, vocab=vocab, values=values, offsets=offsets, crc=crc)

    def __len__(self) -> int:
        return len(self.lengths)

    def document(self, i: int) -> NDArray[np.int64]:
        """The ids of document ``i``: int64 [its length]."""
        if not 0 <= i < len(self):
            raise InputError(f"document {i}: {str(self.path)!r} has {len(self):,}")
        return self.values[self.offsets[i] : self.offsets[i + 1]].astype(np.int64)

    def verify(self) -> None:
        """Read every token and compare the checksum; StorageError where it differs."""
        crc = 0
        for start in range(0, self.tokens, _BLOCK):
            crc = zlib.crc32(self.values[start : start + _BLOCK].tobytes(), crc)
        if crc != self._crc:
            raise StorageError(f"{str(self.path)!r} has damaged tokens (checksum differs): build or copy it again")


def build_token_file(
    path: Path,
    texts: Iterable[str],
    tokenizer: Tokenizer,
    *,
    special: bool = True,
    chunk: int = 1024,
    progress: Progress | None = None,
) -> TokenFile:
    """Tokenise ``texts`` as they come, ``chunk`` at a time, into a token file at ``path``; a text is a document, with
    the tokeniser's special tokens around it unless ``special`` is False. What was at ``path`` stays until the new file
    is complete. ``progress`` gets (documents done, None)."""
    if chunk < 1:
        raise InputError(f"chunk {chunk}: expected 1 or more texts at a time")

    def documents() -> Iterator[list[int]]:
        remaining = iter(texts)
        while some := list(itertools.islice(remaining, chunk)):
            yield from tokenizer.encode(some, special=special)

    return write_tokens(path, documents(), vocab=tokenizer.vocab, progress=progress)


def write_tokens(
    path: Path,
    documents: Iterable[Sequence[int] | NDArray[Any]],
    *,
    vocab: int,
    progress: Progress | None = None,
) -> TokenFile:
    """As ``build_token_file``, from ids. Empty documents keep their place.

    InputError for an id outside 0..vocab - 1, a document that is not a row of integers, or no token at all;
    StorageError where the disk refuses. Either leaves ``path`` as it was.
    """
    if not 1 <= vocab <= 1 << 32:
        raise InputError(f"vocab {vocab}: expected 1 to {1 << 32}")
    width = 2 if vocab <= 1 << 16 else 4
    with atomic_write(path) as out:
        out.write(bytes(_TOKENS_AT))
        # Offsets follow the tokens but are known only as those come: they wait in a file, not in memory.
        with tempfile.TemporaryFile(dir=path.parent) as waiting:
            waiting.write(bytes(8))
            count = tokens = crc = 0
            for count, document in enumerate(documents, 1):
                ids = _checked(document, count - 1, vocab)
                raw = ids.astype(f"<u{width}").tobytes()
                out.write(raw)
                crc = zlib.crc32(raw, crc)
                tokens += len(ids)
                waiting.write(tokens.to_bytes(8, "little"))
                if progress and count % 1024 == 0:
                    progress(count, None)
            if not tokens:
                raise InputError(f"no tokens for {str(path)!r}: {count} documents, all empty")
            out.write(bytes(_aligned(tokens * width) - tokens * width))
            crc_offsets = _append(out, waiting)
        head = _HEADER.pack(_MAGIC, _VERSION, width, vocab, count, tokens, crc, crc_offsets)
        head = head.ljust(_TOKENS_AT - 4, b"\0")
        # The header makes it a token file: everything else must have reached the disk before.
        out.flush()
        os.fsync(out.fileno())
        out.seek(0)
        out.write(head + zlib.crc32(head).to_bytes(4, "little"))
    if progress:
        progress(count, None)
    return TokenFile.open(path)


def _checked(document: Any, number: int, vocab: int) -> NDArray[Any]:
    ids = np.asarray(document)
    if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
        raise InputError(f"document {number} is an array {list(ids.shape)} of {ids.dtype}; expected a row of token ids")
    if len(ids) and not (ids.min() >= 0 and ids.max() < vocab):
        raise InputError(f"document {number} has ids from {ids.min()} to {ids.max()}; expected 0 to {vocab - 1}")
    return ids


def _append(out: IO[bytes], waiting: IO[bytes]) -> int:
    """Copy what waits in a file to the end of ``out``; its CRC-32."""
    waiting.seek(0)
    crc = 0
    while block := waiting.read(_BLOCK):
        out.write(block)
        crc = zlib.crc32(block, crc)
    return crc


def _aligned(size: int) -> int:
    return -(-size // 8) * 8


class PackedTokens:
    """Batches of exactly ``tokens`` tokens in the column "text", cut from documents in an order shuffled per epoch.

    Documents are laid end to end in the order of (seed, epoch); batch k takes the k-th run of ``tokens``. Every
    document or piece is a sequence of its own, of at most ``length`` tokens (see ``packing.stream``): nothing is
    padded, no batch is part empty, and attention stays inside documents. The tokens after an epoch's last whole batch
    are left out; they are others in every epoch.

    ``corpus`` is a ``TokenFile`` or a ``Ragged`` of ids; in memory are 32 bytes a document.
    """

    def __init__(self, corpus: TokenFile | Ragged, *, tokens: int, length: int, seed: int) -> None:
        if isinstance(corpus, TokenFile):
            self._vocab: int | None = corpus.vocab
            self._values: NDArray[Any] = corpus.values
            self._lengths, self._starts = corpus.lengths, corpus.offsets[:-1]
        else:
            self._vocab, self._values = None, corpus.values.numpy()
            self._lengths = corpus.lengths.numpy()
            self._starts = np.cumsum(self._lengths) - self._lengths
        total = len(self._values)
        if not 1 <= tokens <= total or length < 1:
            raise InputError(
                f"batches of {tokens:,} tokens in sequences of at most {length:,} from {total:,} tokens: "
                f"expected 1 to {total:,} tokens and a length of 1 or more"
            )
        self._tokens, self._length, self._seed = tokens, length, seed
        self.batches_per_epoch = total // tokens
        self._kept = (0, *self._shuffled(0))

    def _shuffled(self, epoch: int) -> tuple[Indices, Indices]:
        """The order of the documents in an epoch, and where each ends when they are laid end to end so."""
        order = generator(self._seed, epoch).permutation(len(self._lengths))
        return order, np.cumsum(self._lengths[order])

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> Batch:
        epoch, number = divmod(step, self.batches_per_epoch)
        if self._kept[0] != epoch:
            self._kept = (epoch, *self._shuffled(epoch))
        _, order, ends = self._kept
        place, offset, size = stream(ends, number * self._tokens, (number + 1) * self._tokens, longest=self._length)
        start, stop = share(len(size), part, parts)
        if start == stop:
            raise InputError(f"a batch of {len(size)} sequences cannot be shared by {parts} processes: raise tokens")
        begins, sizes = (self._starts[order[place]] + offset)[start:stop], size[start:stop]
        ids = np.concatenate([self._values[b : b + n] for b, n in zip(begins, sizes, strict=True)]).astype(np.int64)
        if self._vocab is not None and int(ids.max()) >= self._vocab:
            raise StorageError(f"the token file holds the id {ids.max()} (vocabulary {self._vocab}): it is damaged")
        return Batch({"text": Ragged(torch.from_numpy(ids), torch.from_numpy(np.ascontiguousarray(sizes)))})
