"""Glyphs as pictures, tables made of them, and a language model that leaves its table alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")
pytest.importorskip("PIL.Image", reason="glyphs need Pillow: pip install 'nextvec[images]'")
pytest.importorskip("matplotlib", reason="glyphs need a font: pip install 'nextvec[plots]'")

from nextvec.data.tokenizers import ByteTokenizer, train_bpe  # noqa: E402
from nextvec.methods.frozen_glyphs import TABLES, FrozenGlyphs, token_texts  # noqa: E402
from nextvec.nn.inputs.glyphs import code_table, default_font, glyph_table, render  # noqa: E402
from nextvec.types import InputError, NotFoundError  # noqa: E402


def test_pictures_are_of_their_characters() -> None:
    drawn = render(["i", "l", "O", "0", " ", "ll"])
    assert (drawn.patterned, drawn.marked) == (0, 0)
    assert drawn.pixels.shape == (6, 16, 16)
    assert set(np.unique(drawn.pixels[:5])) == {0, 255}
    pictures = drawn.pixels > 127
    ink = pictures.reshape(6, -1).sum(axis=1)
    assert (ink[[0, 1, 2, 3, 5]] > 5).all()
    assert not drawn.pixels[4].any()
    assert ink[2] > ink[0]  # an O is larger than an i

    def common(a: int, b: int) -> float:
        return float((pictures[a] & pictures[b]).sum() / (pictures[a] | pictures[b]).sum())

    assert common(2, 3) > common(2, 1)  # and more like a 0 than like an l
    halves = pictures[5][:, :8], pictures[5][:, 8:]
    assert all(half.any() for half in halves)  # two characters stand side by side


def test_what_the_font_lacks_has_a_pattern_of_its_own() -> None:
    pictures, patterned, marked = render(["語", "文", "\n", "\x80", "\U000f0000", "a"])
    assert (patterned, marked) == (5, 0)
    assert len(np.unique(pictures, axis=0)) == 6
    assert all(0.3 < picture.mean() / 255 < 0.7 for picture in pictures[:5])
    np.testing.assert_array_equal(render(["文", "語"]).pixels[1], pictures[0])  # the code point alone decides


def test_what_would_look_alike_is_told_apart() -> None:
    """A Greek and a Latin A, rules of 16 and of 32 dashes, one text twice, no text at all beside a space."""
    texts = ["\u0391", "A", "-" * 32, "-" * 16, "the", "the", "", " ", "  "]
    pictures, _, marked = render(texts)
    assert marked == 5
    assert len(np.unique(pictures, axis=0)) == len(texts)
    plain = [render([text]).pixels[0] for text in texts]
    kept = [bool((one == other).all()) for one, other in zip(pictures, plain, strict=True)]
    assert kept == [False, True, False, True, True, False, False, True, False]
    changed = (pictures != np.stack(plain)).reshape(len(texts), -1).mean(axis=1)
    assert (changed < 0.25).all()  # still a picture of the text
    again = render(texts[::-1]).pixels[::-1]
    np.testing.assert_array_equal(np.delete(again, [4, 5], axis=0), np.delete(pictures, [4, 5], axis=0))


def test_no_two_tokens_have_one_vector() -> None:
    words = [
        f"{one}{two}{three}" for one in ("re", "un", "trans") for two in ("form", "late") for three in ("s", "ing")
    ]
    bpe = train_bpe([f"{word} {' ' * n}{'=' * n} naïve Ãé" for n, word in enumerate(words * 3)], vocab=400)
    for tokenizer in (ByteTokenizer(), bpe):
        texts = token_texts(tokenizer)
        table = glyph_table(render(texts).pixels, 64)
        unit = table / np.linalg.norm(table, axis=1, keepdims=True)
        alike = unit @ unit.T - np.eye(len(unit))
        assert alike.max() < 0.999, [texts[i] for i in np.unravel_index(alike.argmax(), alike.shape)]


def test_the_table_keeps_the_pictures_angles() -> None:
    """With as many components as there are, cosines are those of the centred pictures."""
    pictures = render([chr(i) for i in range(33, 127)]).pixels.astype(float)
    table = glyph_table(pictures, 256)
    flat = pictures.reshape(len(pictures), -1) - pictures.reshape(len(pictures), -1).mean(axis=0)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    np.testing.assert_allclose(table @ table.T, unit @ unit.T, atol=1e-5)
    narrow = glyph_table(pictures, 20)
    np.testing.assert_allclose(np.linalg.norm(narrow, axis=1), 1, atol=1e-5)
    assert (glyph_table(pictures, 256)[:, 120:] == 0).all()  # fewer pictures than components


def test_codes_are_the_numbers_bits() -> None:
    table = code_table(6, 7) * np.sqrt(7)
    np.testing.assert_allclose(table[5], [1, -1, 1, 1, -1, 1, 1], atol=1e-6)
    assert len(np.unique(table, axis=0)) == 6


@pytest.mark.parametrize("table", TABLES)
def test_only_a_trained_table_is_trained(table: str) -> None:
    torch.manual_seed(0)
    config = FrozenGlyphs.Config(table=table, dim=32, layers=1, heads=2, vocab=260, length=16)
    method = FrozenGlyphs(config).fill(token_texts(ByteTokenizer()), seed=0)
    trained = {name for name, p in method.named_parameters() if p.requires_grad}
    assert ("backbone.tokens.weight" in trained) == (table == "trained")
    assert "backbone.head.weight" in trained


def test_shuffled_pictures_are_the_same_ones_elsewhere() -> None:
    made = {}
    for table in ("glyph", "shuffled"):
        config = FrozenGlyphs.Config(table=table, dim=16, layers=1, heads=2, vocab=260, length=16)
        rows = FrozenGlyphs(config).fill(token_texts(ByteTokenizer()), seed=1).backbone.tokens
        assert rows is not None
        made[table] = rows.weight.detach().numpy()
    assert (made["glyph"] != made["shuffled"]).any()
    order = [np.lexsort(rows.T) for rows in made.values()]
    np.testing.assert_array_equal(made["glyph"][order[0]], made["shuffled"][order[1]])


def test_texts_of_tokens() -> None:
    tokenizer = train_bpe(["the cat and the dog", "the cats"], vocab=300)
    texts = token_texts(tokenizer)
    assert len(texts) == tokenizer.vocab
    assert any("the" in text for text in texts)
    assert all("\ufffd" not in text for text in texts)
    assert sorted(texts[i] for i in tokenizer.specials) == [chr(0xF0000 + k) for k in range(4)]


def test_training_leaves_the_table_alone(tmp_path: Path) -> None:
    from nextvec.training import fit, load_method

    data = tmp_path / "texts.jsonl"
    data.write_text("\n".join(json.dumps({"text": f"the dog number {i} runs"}) for i in range(80)))
    trained = fit(
        "frozen_glyphs",
        data,
        out=tmp_path / "run",
        set=["depth=1", "length=16", "steps=4", "tokenizer=bytes", "batch=4"],
    )
    loaded = load_method(tmp_path / "run")
    pictures = render(token_texts(ByteTokenizer())).pixels
    for method in (trained.method, loaded):
        rows = method.backbone.tokens.weight.detach().cpu().numpy()  # type: ignore[union-attr]
        np.testing.assert_allclose(rows, glyph_table(pictures, 64), atol=1e-6)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="table is 'glyphs'"):
        FrozenGlyphs(FrozenGlyphs.Config(table="glyphs", dim=16, layers=1, heads=1))
    with pytest.raises(InputError, match="leave it false"):
        FrozenGlyphs(FrozenGlyphs.Config(tied=True, dim=16, layers=1, heads=1))
    with pytest.raises(NotFoundError, match="does not exist"):
        render(["a"], font=tmp_path / "absent.ttf")
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    with pytest.raises(InputError, match="not a font"):
        render(["a"], font=tmp_path / "broken.ttf")
    with pytest.raises(InputError, match="at least 4"):
        render(["a"], size=2)
    assert default_font().is_file()
