"""Tokenisers: round trips, special tokens, equality with transformers, and files that are not what they should be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from nextvec.data.tokenizers import ByteTokenizer, TextTokenizer, load_tokenizer, train_bpe
from nextvec.types import InputError, NotFoundError

TEXTS = [
    "The cat sat on the mat, and the cat saw the other cat.",
    "A graph is a set of nodes; a path is a sequence of nodes.",
    "naïve café, 東京 and 🦉 owls",
    "",
] * 20


@pytest.fixture(scope="module")
def bpe() -> TextTokenizer:
    return train_bpe(TEXTS, vocab=320)


@pytest.fixture
def hugging_face(tmp_path: Path) -> Path:
    """A BERT-like folder: WordPiece, a template, truncation and padding switched on, roles in the configuration."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "[", "]", "sep"]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({t: i for i, t in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    inner.add_special_tokens(vocabulary[:5])
    inner.normalizer = tokenizers.normalizers.Lowercase()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    inner.enable_truncation(4)
    inner.enable_padding(length=9)
    inner.save(str(tmp_path / "tokenizer.json"))
    names = {"cls_token": "[CLS]", "sep_token": {"content": "[SEP]"}, "mask_token": "[MASK]", "pad_token": "[PAD]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    return tmp_path


@given(st.binary(max_size=60))
def test_bytes_round_trip_exactly(raw: bytes) -> None:
    tokenizer = ByteTokenizer()
    [ids] = tokenizer.encode([raw])
    assert (ids[0], ids[-1], len(ids)) == (tokenizer.bos, tokenizer.eos, len(raw) + 2)
    assert tokenizer.decode_bytes(ids) == raw
    assert tokenizer.encode([raw], special=False) == [list(raw)]


@settings(max_examples=200)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=4))
def test_texts_round_trip(bpe: TextTokenizer, texts: list[str]) -> None:
    for tokenizer in (ByteTokenizer(), bpe):
        sequences = tokenizer.encode(texts)
        assert all(ids[0] == tokenizer.bos and ids[-1] == tokenizer.eos for ids in sequences)
        assert tokenizer.decode(sequences) == texts
        assert tokenizer.encode(texts, special=False) == [ids[1:-1] for ids in sequences]


def test_a_text_cannot_spell_a_special_token(bpe: TextTokenizer, hugging_face: Path) -> None:
    for tokenizer in (ByteTokenizer(), bpe, load_tokenizer(hugging_face)):
        for text in ("a<eos>b<mask><pad>", "[SEP] [MASK]", "<bos>"):
            assert not tokenizer.specials.intersection(tokenizer.encode([text], special=False)[0]) - {1}  # [UNK] may


def test_special_tokens_are_written_out_on_request(bpe: TextTokenizer) -> None:
    for tokenizer in (ByteTokenizer(), bpe):
        [ids] = tokenizer.encode(["hi"])
        assert tokenizer.decode([[*ids, tokenizer.mask, tokenizer.pad]], special=True) == ["<bos>hi<eos><mask><pad>"]
        assert tokenizer.decode([[*ids, tokenizer.mask]]) == ["hi"]


@pytest.mark.parametrize("limit", [2, 3, 7, None])
def test_the_length_limit_keeps_special_tokens(bpe: TextTokenizer, limit: int | None) -> None:
    for tokenizer in (ByteTokenizer(), bpe):
        whole = tokenizer.encode(TEXTS[:3])
        cut = tokenizer.encode(TEXTS[:3], max_length=limit)
        assert cut == [ids if limit is None else [*ids[: limit - 1], ids[-1]] for ids in whole]
        bare = tokenizer.encode(TEXTS[:3], max_length=limit, special=False)
        assert bare == [ids[1:-1][:limit] for ids in whole]
        assert tokenizer.encode(TEXTS[:3]) == whole  # no limit left behind


def test_training_learns_merges_and_repeats_itself(bpe: TextTokenizer) -> None:
    assert bpe.vocab <= 320
    assert (bpe.pad, bpe.bos, bpe.eos, bpe.mask) == (0, 1, 2, 3) and bpe.specials == {0, 1, 2, 3}
    [ids] = bpe.encode(["the cat"], special=False)
    assert len(ids) == 2
    assert train_bpe(iter(TEXTS), vocab=320)._inner.to_str() == bpe._inner.to_str()
    code = (
        "import sys, hashlib; sys.path.insert(0, sys.argv[1]); import test_tokenizers as t;"
        "print(hashlib.sha256(t.train_bpe(t.TEXTS, vocab=320)._inner.to_str().encode()).hexdigest())"
    )
    runs = [subprocess.check_output([sys.executable, "-c", code, str(Path(__file__).parent)]) for _ in range(2)]
    assert runs[0] == runs[1]


def test_a_small_corpus_gives_a_small_vocabulary() -> None:
    assert train_bpe(["abc"], vocab=1000).vocab == 260
    for texts in ([], ["", ""]):
        with pytest.raises(InputError, match="no text"):
            train_bpe(texts, vocab=300)
    with pytest.raises(InputError, match="at least 260"):
        train_bpe(TEXTS, vocab=100)


def test_saving_and_loading_change_nothing(bpe: TextTokenizer, tmp_path: Path) -> None:
    for name, tokenizer in (("bpe", bpe), ("bytes", ByteTokenizer())):
        tokenizer.encode(["x"], max_length=2)  # a limit of one call is not saved
        tokenizer.save(tmp_path / name)
        loaded = load_tokenizer(tmp_path / name)
        assert type(loaded) is type(tokenizer)
        assert loaded.encode(TEXTS) == tokenizer.encode(TEXTS)
        for role in ("pad", "bos", "eos", "mask", "vocab", "specials"):
            assert getattr(loaded, role) == getattr(tokenizer, role)


def test_transformers_opens_what_is_saved(bpe: TextTokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="compares with transformers: pip install 'nextvec[hf]'")
    bpe.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert theirs(TEXTS[:3])["input_ids"] == bpe.encode(TEXTS[:3])
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id, theirs.mask_token_id) == (0, 1, 2, 3)


def test_any_tokenizer_json_is_read(hugging_face: Path) -> None:
    tokenizer = load_tokenizer(hugging_face)
    assert isinstance(tokenizer, TextTokenizer)
    assert tokenizer.encode(["The cats sat the cat", "the"]) == [[2, 5, 6, 7, 8, 5, 6, 3], [2, 5, 3]]
    assert (tokenizer.pad, tokenizer.bos, tokenizer.eos, tokenizer.mask, tokenizer.vocab) == (0, 2, 3, 4, 12)
    assert tokenizer.specials == {0, 1, 2, 3, 4}
    (hugging_face / "tokenizer_config.json").unlink()
    assert load_tokenizer(hugging_face / "tokenizer.json").mask == 4  # a usual spelling
    assert load_tokenizer(hugging_face, roles={"eos": "sat"}).eos == 8
    with pytest.raises(InputError, match=r"mask token '<m>' is not in the vocabulary"):
        load_tokenizer(hugging_face, roles={"mask": "<m>"})
    (hugging_face / "special_tokens_map.json").write_text('{"mask_token": "<gone>", "pad_token": "cat"}')
    assert (load_tokenizer(hugging_face).mask, load_tokenizer(hugging_face).pad) == (4, 6)


def test_ids_outside_the_vocabulary_are_refused(bpe: TextTokenizer) -> None:
    for tokenizer in (ByteTokenizer(), bpe):
        for wrong in (-1, tokenizer.vocab):
            with pytest.raises(InputError, match="expected 0 to"):
                tokenizer.decode([[5, wrong]])


def test_half_characters_are_replaced(bpe: TextTokenizer) -> None:
    for tokenizer in (ByteTokenizer(), bpe):
        assert tokenizer.decode(tokenizer.encode(["a\ud800b", "\ud83e\udd89"])) == ["a\ufffdb", "🦉"]


@pytest.mark.parametrize("wrong", ["a text", [3], [None]])
def test_what_is_not_a_list_of_texts_is_refused(bpe: TextTokenizer, wrong: Any) -> None:
    for tokenizer in (ByteTokenizer(), bpe):
        with pytest.raises(InputError, match="expected"):
            tokenizer.encode(wrong)
    with pytest.raises(InputError, match="at least 2"):
        bpe.encode(["a"], max_length=1)


def body(**changed: Any) -> str:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}
    return json.dumps({"version": "1.0", "model": model, **changed})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "damaged or incomplete"),
        ("{}", "damaged or incomplete"),
        ("[" * 50_000, "damaged or incomplete"),
        (body()[:40], "damaged or incomplete"),
        (body(model={"type": "BPE", "vocab": {"a": 4_294_967_295}, "merges": []}), "expected ids below"),
        (body(model={"type": "BPE", "vocab": {}, "merges": []}), "empty vocabulary"),
        # Two that make the library's own code panic: a merge it cannot have, a template with an undefined token.
        (body(model={"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}), "damaged or incomplete"),
        (
            body(
                post_processor={
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                    "pair": [],
                    "special_tokens": {},
                }
            ),
            "damaged or incomplete",
        ),
        (body(post_processor={"type": "BertProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 101]}), "adds the id"),
    ],
    ids=["empty", "no model", "deep", "truncated", "large id", "no tokens", "merge", "template", "frame"],
)
def test_damaged_tokenizers_are_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=message) as raised:
        load_tokenizer(tmp_path)
    assert "\n" not in str(raised.value) and "tokenizer.json" in str(raised.value)


def test_a_model_without_its_unknown_token_says_so(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(body(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[U]"}))
    tokenizer = load_tokenizer(tmp_path)
    with pytest.raises(InputError, match="UNK"):
        tokenizer.encode(["b"])


def test_missing_large_and_broken_files_are_refused(
    bpe: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFoundError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path / "none")
    bpe.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(InputError, match="expected an object"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(b"\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"a"')
    with pytest.raises(InputError, match="not valid JSON"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    monkeypatch.setattr("nextvec.data.tokenizers._MAX_TOKENIZER", 1000)
    with pytest.raises(InputError, match="expected at most 1,000"):
        load_tokenizer(tmp_path)
