"""Tokenisers: texts to lists of token ids and back.

Three kinds share one interface (``Tokenizer``): bytes as they are; a byte-level BPE trained here; and whatever a
Hugging Face tokenizer.json describes. Special tokens never come from a text: a text that spells "<eos>" is encoded as
those letters, so that nothing a document says can end a sequence or mask a token.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import tokenizers

from nextvec.files import atomic_write, storage_error
from nextvec.types import InputError, NotFoundError

__all__ = ["ByteTokenizer", "TextTokenizer", "Tokenizer", "load_tokenizer", "train_bpe"]

ROLES = ("pad", "bos", "eos", "mask")
_SPELLINGS = {
    "pad": ("<pad>", "[PAD]", "<|pad|>"),
    "bos": ("<bos>", "[CLS]", "<s>", "<|begin_of_text|>", "<|startoftext|>"),
    "eos": ("<eos>", "[SEP]", "</s>", "<|end_of_text|>", "<|endoftext|>"),
    "mask": ("<mask>", "[MASK]", "<|mask|>"),
}
_CHUNK = 4096  # texts encoded at once: what a tokeniser returns per text is large
_MAX_TOKENIZER = 64 << 20
_MAX_CONFIG = 4 << 20
_MAX_ID = 1 << 24


class Tokenizer(Protocol):
    """What all tokenisers offer. ``vocab``: ids are below it. ``pad``, ``bos`` (or [CLS]), ``eos`` (or [SEP]),
    ``mask``: ids, None where there is no such token. ``specials``: the ids of all special tokens."""

    vocab: int
    pad: int | None
    bos: int | None
    eos: int | None
    mask: int | None
    specials: frozenset[int]

    def encode(self, texts: Sequence[str], *, special: bool = True, max_length: int | None = None) -> list[list[int]]:
        """The ids of each text, with special tokens around them (``special``), cut to ``max_length`` with those
        kept."""
        ...

    def decode(self, sequences: Iterable[Sequence[int]], *, special: bool = False) -> list[str]:
        """The texts of these ids; special tokens are written out only on request. Bytes that are not UTF-8 become
        U+FFFD. InputError for ids outside the vocabulary."""
        ...

    def save(self, folder: Path) -> None:
        """Write what ``load_tokenizer(folder)`` reads."""
        ...


class ByteTokenizer:
    """The bytes of a text (UTF-8) are its ids, 0..255; then come pad, bos, eos and mask. Sequences are bos text eos."""

    vocab = 260
    pad: int | None = 256
    bos: int | None = 257
    eos: int | None = 258
    mask: int | None = 259
    specials = frozenset(range(256, 260))

    def encode(
        self, texts: Sequence[str | bytes], *, special: bool = True, max_length: int | None = None
    ) -> list[list[int]]:
        """As ``Tokenizer.encode``; a text may also be bytes, valid UTF-8 or not. A cut may fall inside a character."""
        kept = _room(max_length, 2 if special else 0)
        before, after = ([257], [258]) if special else ([], [])
        return [before + list(_bytes(text, i)[:kept]) + after for i, text in enumerate(_several(texts))]

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Exactly the bytes that were encoded; special tokens are passed over."""
        _check_ids(ids, self.vocab)
        return bytes(i for i in ids if i < 256)

    def decode(self, sequences: Iterable[Sequence[int]], *, special: bool = False) -> list[str]:
        """As ``Tokenizer.decode``."""
        if not special:
            return [self.decode_bytes(ids).decode(errors="replace") for ids in sequences]
        written = [f"<{role}>".encode() for role in ROLES]
        texts = []
        for ids in sequences:
            _check_ids(ids, self.vocab)
            texts.append(b"".join(bytes((i,)) if i < 256 else written[i - 256] for i in ids).decode(errors="replace"))
        return texts

    def save(self, folder: Path) -> None:
        """Write tokenizer_config.json, which says that the tokens are bytes."""
        _write_config(folder, {"nextvec_tokenizer": "bytes"})


class TextTokenizer:
    """A tokeniser as the ``tokenizers`` library holds it, and which of its tokens play the four roles."""

    def __init__(self, inner: tokenizers.Tokenizer, *, roles: Mapping[str, str] | None = None) -> None:
        """``roles``: the spelling of the "pad", "bos", "eos" and "mask" tokens; where one is not given, a special
        token with a usual spelling is taken. Truncation and padding set in ``inner`` are switched off."""
        inner.no_padding()
        inner.no_truncation()
        inner.encode_special_tokens = True
        ids: dict[str, int] = inner.get_vocab(with_added_tokens=True)
        if not ids:
            raise InputError("a tokenizer with an empty vocabulary is of no use here")
        self.vocab = max(ids.values()) + 1
        if self.vocab > _MAX_ID:
            raise InputError(f"a tokenizer with the id {self.vocab - 1:,}: expected ids below {_MAX_ID:,}")
        added = {i for i, token in inner.get_added_tokens_decoder().items() if token.special}
        found = {role: _role(role, ids, added, (roles or {}).get(role)) for role in ROLES}
        self.pad, self.bos, self.eos, self.mask = (found[role] for role in ROLES)
        self.specials = frozenset(added | {i for i in found.values() if i is not None})
        self._inner, self._limit = inner, None
        with _told("the tokenizer"):
            frame = inner.encode("").ids
        if frame and max(frame) >= self.vocab:
            raise InputError(
                f"the tokenizer adds the id {max(frame)} to texts; its vocabulary ends at {self.vocab - 1}"
            )
        self._frame = len(frame)

    _limit: int | None

    def encode(self, texts: Sequence[str], *, special: bool = True, max_length: int | None = None) -> list[list[int]]:
        """As ``Tokenizer.encode``; the special tokens around a text are those of the tokeniser's own template."""
        _room(max_length, self._frame if special else 0)
        if max_length != self._limit:
            if max_length is None:
                self._inner.no_truncation()
            else:
                self._inner.enable_truncation(max_length)
            self._limit = max_length
        clean = [_clean(text, i) for i, text in enumerate(_several(texts))]
        found: list[list[int]] = []
        with _told("the tokenizer"):
            for start in range(0, len(clean), _CHUNK):
                chunk = clean[start : start + _CHUNK]
                found += [e.ids for e in self._inner.encode_batch_fast(chunk, add_special_tokens=special)]
        return found

    def spelling(self, i: int) -> str:
        """How the vocabulary writes token ``i`` ("##ing", "Ġword"); "" for an id without a token."""
        return str(self._inner.id_to_token(i) or "")

    def decode(self, sequences: Iterable[Sequence[int]], *, special: bool = False) -> list[str]:
        """As ``Tokenizer.decode``."""
        lists = [list(map(int, ids)) for ids in sequences]
        for ids in lists:
            _check_ids(ids, self.vocab)
        with _told("the tokenizer"):
            texts: list[str] = self._inner.decode_batch(lists, skip_special_tokens=not special)
        return texts

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, in the form that ``transformers`` opens."""
        self._inner.no_truncation()
        self._limit = None
        with atomic_write(folder / "tokenizer.json", "w") as stream:
            stream.write(self._inner.to_str())
        named = {"pad": self.pad, "bos": self.bos, "eos": self.eos, "mask": self.mask}
        roles = {f"{role}_token": self._inner.id_to_token(i) for role, i in named.items() if i is not None}
        _write_config(folder, {"tokenizer_class": "PreTrainedTokenizerFast", **roles})


def load_tokenizer(path: Path, *, roles: Mapping[str, str] | None = None) -> ByteTokenizer | TextTokenizer:
    """The tokeniser in a folder (what ``save`` wrote, or any Hugging Face model folder with a tokenizer.json), or in a
    tokenizer.json itself.

    ``roles`` is as for ``TextTokenizer`` and goes before what tokenizer_config.json and special_tokens_map.json say.
    A file that names a token the vocabulary lacks is taken to have no token for that role. NotFoundError where there is
    no tokeniser; InputError where a file is damaged or oversized, or ``roles`` names a token that does not exist.
    """
    folder, file = (path, path / "tokenizer.json") if path.is_dir() else (path.parent, path)
    config = _read_object(folder / "tokenizer_config.json", _MAX_CONFIG) or {}
    if path.is_dir() and config.get("nextvec_tokenizer") == "bytes":
        return ByteTokenizer()
    text = _read_text(file, _MAX_TOKENIZER)
    if text is None:
        raise NotFoundError(f"{str(file)!r} is missing: give a tokenizer.json or a folder that has one")
    known = _named({**(_read_object(folder / "special_tokens_map.json", _MAX_CONFIG) or {}), **config})
    with _told(f"{str(file)!r}"):
        inner = tokenizers.Tokenizer.from_str(text)
    known = {role: spelling for role, spelling in known.items() if inner.token_to_id(spelling) is not None}
    try:
        return TextTokenizer(inner, roles={**known, **(roles or {})})
    except InputError as error:
        raise InputError(f"{str(file)!r}: {error}") from error


def train_bpe(texts: Iterable[str], *, vocab: int, least: int = 2) -> TextTokenizer:
    """A byte-level BPE of at most ``vocab`` tokens (pad, bos, eos and mask first, then the 256 bytes, then merges),
    learned from ``texts`` in one pass. Pairs that occur fewer than ``least`` times are not merged, so that a small
    corpus gives a smaller vocabulary. The same texts give the same tokeniser.

    Nothing is normalised: decoding gives back any text. Sequences are bos text eos.
    Byte-level BPE: Radford et al. 2019 (GPT-2), whose splitting into words is used.
    """
    if vocab < 256 + len(ROLES):
        raise InputError(f"vocab {vocab}: a byte-level BPE has at least {256 + len(ROLES)} tokens")
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=least,
        special_tokens=[f"<{role}>" for role in ROLES],
        # Sorted by the trainer, like the ids of the merges: nothing depends on an order of hashing.
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(_counted(texts), trainer)
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return TextTokenizer(inner)


def _counted(texts: Iterable[str]) -> Iterator[str]:
    filled = False
    for i, text in enumerate(_several(texts)):
        filled = filled or bool(text)
        yield _clean(text, i)
    if not filled:
        raise InputError("no text to learn a tokenizer from: all texts are empty, or there are none")


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of the ``tokenizers`` library, panics of its Rust code included, as one line."""
    try:
        yield
    except BaseException as error:
        # A panic is not an Exception, and its class cannot be imported.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            reason = (str(error).splitlines() or [""])[0]
            raise InputError(f"{what} is damaged or incomplete ({reason})") from error
        raise


def _role(role: str, ids: Mapping[str, int], added: set[int], spelling: str | None) -> int | None:
    """The id of the token that plays ``role``: the one spelt so, else a special token with a usual spelling."""
    if spelling is not None:
        if spelling not in ids:
            raise InputError(f"the {role} token {spelling!r} is not in the vocabulary")
        return ids[spelling]
    return next((ids[usual] for usual in _SPELLINGS[role] if ids.get(usual) in added), None)


def _named(config: Mapping[str, Any]) -> dict[str, str]:
    """The roles' spellings in a Hugging Face configuration: "pad_token": "[PAD]" or {"content": "[PAD]", ...}.

    Models of the BERT kind say cls and sep where others say bos and eos.
    """
    found: dict[str, str] = {}
    for role, keys in {"pad": ("pad",), "bos": ("bos", "cls"), "eos": ("eos", "sep"), "mask": ("mask",)}.items():
        for key in keys:
            value = config.get(f"{key}_token")
            value = value.get("content") if isinstance(value, Mapping) else value
            if isinstance(value, str) and value:
                found.setdefault(role, value)
    return found


def _several(texts: Iterable[Any]) -> Iterable[Any]:
    if isinstance(texts, str | bytes):
        raise InputError("one text was given where a list of texts is expected: [text]")
    return texts


def _clean(text: Any, place: int) -> str:
    """``text`` with lone surrogates (half a character, as broken JSON has them) replaced by U+FFFD."""
    if not isinstance(text, str):
        raise InputError(f"text {place} is a {type(text).__name__}; expected a string")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _bytes(text: Any, place: int) -> bytes:
    return text if isinstance(text, bytes) else _clean(text, place).encode()


def _room(max_length: int | None, frame: int) -> int | None:
    """How many tokens of a text fit beside ``frame`` special ones."""
    if max_length is not None and max_length < max(frame, 1):
        raise InputError(f"max_length {max_length}: expected at least {max(frame, 1)} (special tokens are kept)")
    return None if max_length is None else max_length - frame


def _check_ids(ids: Sequence[int], vocab: int) -> None:
    if len(ids) and (min(ids) < 0 or max(ids) >= vocab):
        raise InputError(f"token ids from {min(ids)} to {max(ids)}; expected 0 to {vocab - 1}")


def _write_config(folder: Path, values: Mapping[str, Any]) -> None:
    with atomic_write(folder / "tokenizer_config.json", "w") as stream:
        json.dump(values, stream, indent=2, ensure_ascii=False)


def _read_text(path: Path, limit: int) -> str | None:
    """The content of a file, None where it does not exist; InputError over ``limit`` bytes or not UTF-8."""
    if not path.is_file():
        return None
    try:
        size = path.stat().st_size
        if size > limit:
            raise InputError(f"{str(path)!r} has {size:,} bytes; expected at most {limit:,}: refused")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is not UTF-8 text ({error}): the file is damaged") from error
    except OSError as error:
        raise storage_error(error, path) from error


def _read_object(path: Path, limit: int) -> dict[str, Any] | None:
    text = _read_text(path, limit)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{str(path)!r} is not valid JSON ({error}): the file is damaged or truncated") from error
    if not isinstance(value, dict):
        raise InputError(f"{str(path)!r} holds a JSON {type(value).__name__}, expected an object")
    return value
