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
    pictures, absent = render(["i", "l", "O", "0", "", " ", "\n", "ll"])
    assert absent == 0
    assert pictures.shape == (8, 16, 16)
    ink = pictures.reshape(8, -1).sum(axis=1)
    assert (ink[[0, 1, 2, 3, 7]] > 5).all()
    assert (ink[[4, 5, 6]] == 0).all()
    assert ink[2] > ink[0]  # an O is larger than an i

    def common(a: int, b: int) -> float:
        return float((pictures[a] & pictures[b]).sum() / (pictures[a] | pictures[b]).sum())

    assert common(2, 3) > common(2, 1)  # and more like a 0 than like an l
    halves = pictures[7][:, :8], pictures[7][:, 8:]
    assert all(half.any() for half in halves)  # two characters stand side by side


def test_what_the_font_lacks_has_a_pattern_of_its_own() -> None:
    pictures, absent = render(["語", "文", "語", "a"])
    assert absent == 2
    assert (pictures[0] == pictures[2]).all()
    assert (pictures[0] != pictures[1]).any()
    assert 0.3 < pictures[0].mean() < 0.7


def test_the_table_keeps_the_pictures_angles() -> None:
    """With as many components as there are, cosines are those of the centred pictures."""
    pictures, _ = render([chr(i) for i in range(33, 127)])
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
    assert all(texts[i] == "" for i in tokenizer.specials)


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
    pictures, _ = render(token_texts(ByteTokenizer()))
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
