"""SwimBird: the layout, what is foretold, decoding that switches, pictures, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.data.synthetic.grids import grids, spelled  # noqa: E402
from nextvec.methods._swimbird_claim import _spoke, _whole  # noqa: E402
from nextvec.methods._swimbird_parts import Example, Said, lay_out, patches_of  # noqa: E402
from nextvec.methods.swimbird import SwimBird  # noqa: E402
from nextvec.nn.backbones.transformer import Transformer  # noqa: E402
from nextvec.types import InputError, Ragged  # noqa: E402


def model(**changes: Any) -> SwimBird:
    shape: dict[str, Any] = {"dim": 16, "layers": 2, "heads": 2, "length": 64, "size": 4, **changes}
    made = SwimBird.start(SwimBird.Config(**shape), seed=0)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(1 if "tokens" in name else 4)
    return made.eval()


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=(4, 4, 3)).astype(np.uint8)


def test_patches_row_by_row() -> None:
    image = picture()
    found = patches_of(image, 2)
    assert found.shape == (4, 12)
    np.testing.assert_allclose(found[1], image[:2, 2:].reshape(-1) / 127.5 - 1, rtol=1e-5)
    np.testing.assert_allclose(found[2], image[2:, :2].reshape(-1) / 127.5 - 1, rtol=1e-5)


def test_the_layout_by_hand() -> None:
    made = model()
    batch = lay_out(made, [Example(("a", picture(0)), ("b", picture(1)), "c")])
    i, x, s, t = made.image, made.latent, made.start_span, made.stop_span
    tokens = batch.ragged("tokens").values.tolist()
    assert tokens == [97, i, i, i, i, 98, s, x, x, x, x, t, made.answer, 99, made.end]
    assert batch.ragged("labels").values.tolist() == [-100] * 4 + tokens[5:] + [-100]
    assert batch.ragged("latent").values.nonzero().flatten().tolist() == [7, 8, 9, 10]
    expected = np.concatenate([patches_of(picture(seed), 2) for seed in (0, 1)])
    np.testing.assert_array_equal(batch.ragged("patches").values.numpy(), expected)


def test_patches_stand_at_their_places_and_are_as_long_as_states() -> None:
    made = model()
    batch = lay_out(made, [Example((picture(0), "a"), (), "c"), Example(("b",), (picture(1),), "d")])
    vectors = made.vectors(batch.ragged("tokens"), batch.ragged("patches").values)
    at = [0, 1, 2, 3, 10, 11, 12, 13]
    tokens = batch.ragged("tokens").values
    assert [i for i, token in enumerate(tokens.tolist()) if token in (made.image, made.latent)] == at
    raw = batch.ragged("patches").values @ made.patch_map
    torch.testing.assert_close(vectors[at], 4 * raw / raw.norm(dim=1, keepdim=True))
    torch.testing.assert_close(vectors[4], made.backbone.embed(tokens[4:5])[0])
    with pytest.raises(InputError, match="7 patches for 8 places"):
        made.vectors(batch.ragged("tokens"), batch.ragged("patches").values[:7])


def test_states_before_patches_foretell_them() -> None:
    made = model(vision=0.5)
    batch = lay_out(made, [Example(("ab",), (picture(0),), "c"), Example(("a", picture(2)), ("b", picture(1)), "d")])
    out = made(batch)
    latent = batch.ragged("latent").values
    rows = latent.nonzero().flatten()
    errors = (out["hidden"][rows - 1] - out["target"][rows]).square().mean(dim=1)
    term = made.objective()(out, batch)
    labels = batch.ragged("labels").values
    spoken = torch.nn.functional.cross_entropy(made.backbone.logits(out["hidden"][labels >= 0]), labels[labels >= 0])
    assert float(term.mean.detach()) == pytest.approx(float((spoken + 0.5 * errors.mean()).detach()), rel=1e-5)
    assert "next_embedding" not in model(vision=0.0).objective()(out, batch).logs


def by_definition(made: SwimBird, question: list[Any], *, most: int) -> Said:
    """One whole pass per place."""
    laid = lay_out(made, [Example(tuple(question), (), "")])
    count = len(laid.ragged("tokens").values) - 2
    tokens = Ragged(laid.ragged("tokens").values[:count], torch.tensor([count]))
    patches = laid.ragged("patches").values
    rows = made.vectors(tokens, patches if len(patches) else None)
    said, inside = Said(), 0
    for _ in range(most):
        with torch.no_grad():
            state = made.backbone(Ragged(rows, torch.tensor([len(rows)])))[-1]
            token = int(made.backbone.logits(state).argmax())
        if inside and token != made.stop_span and inside <= made.config.span:
            said.tokens.append(made.latent)
            said.latents.append(state)
            rows, inside = torch.cat([rows, state[None]]), inside + 1
            continue
        token = made.stop_span if inside else token
        inside = 1 if token == made.start_span else 0
        said.tokens.append(token)
        rows = torch.cat([rows, made.backbone.embed(torch.tensor([token]))])
        if token == made.end:
            break
    return said


@pytest.mark.parametrize("span", [3, 8])
def test_responses_equal_whole_passes_and_read_every_place_once(span: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = model(span=span)
    with torch.no_grad():  # a model that likes to begin spans
        made.backbone.head_weight()[made.start_span] *= 12
    seen: list[int] = []
    inner = Transformer.forward_cached

    def counted(self: Any, inputs: Any, cache: Any) -> Any:
        seen.append(inputs.shape[0] * inputs.shape[1])
        return inner(self, inputs, cache)

    questions = [["ab", picture(0)], ["c"], [picture(1), "de"]]
    monkeypatch.setattr(Transformer, "forward_cached", counted)
    found = made.respond(questions, most=16)
    assert set(seen) == {3} and len(seen) <= 16
    for question, said in zip(questions, found, strict=True):
        expected = by_definition(made, question, most=16)
        assert said.tokens == expected.tokens
        assert len(said.latents) == said.tokens.count(made.latent)
        for one, other in zip(said.latents, expected.latents, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    if span == 3:
        runs = "".join("x" if token == made.latent else "." for said in found for token in said.tokens).split(".")
        assert max(map(len, runs)) <= 3


def test_an_unclosed_span_is_closed() -> None:
    made = model(span=2)
    with torch.no_grad():
        made.backbone.head_weight()[made.start_span] *= 12
    found = made.respond([["ab"]], most=20)[0]
    spans = [i for i, token in enumerate(found.tokens) if token == made.start_span and i + 3 < len(found.tokens)]
    assert spans, "the model never began a span: the test says nothing"
    assert all(made.stop_span in found.tokens[i + 1 : i + 4] for i in spans)
    assert found.cut


def test_pictures_of_several_sizes_in_one_batch() -> None:
    """A span is as long as its picture has patches; one that would always be cut is refused."""
    made = model(span=9)
    small, large = (np.full((side, side, 3), 200, dtype=np.uint8) for side in (4, 6))
    examples = [Example(("a", one), (one, "b"), "c") for one in (small, large)]
    batch = made.source(examples, batch=2, seed=0).batch(0)
    tokens = batch.ragged("tokens")
    spans = [int((row == made.latent).sum()) for row in tokens.values.split(tokens.lengths.tolist())]
    assert sorted(spans) == [4, 9]
    with pytest.raises(InputError, match="9 patches among the thoughts; a span has 8"):
        model(span=8).source(examples, batch=2, seed=0)
    for shape in ((4, 6, 3), (5, 5, 3), (4, 4)):
        with pytest.raises(InputError, match="a multiple of the patch's 2"):
            made.places(["a", np.zeros(shape, dtype=np.uint8)])


def test_how_a_response_was_thought_of() -> None:
    made = model()
    drawn, end = [made.start_span, *[made.latent] * 4, made.stop_span], [made.answer, 49, made.end]
    assert _spoke(made, Said([*drawn, 50, *end]))
    assert not _spoke(made, Said([*drawn, *end]))
    assert _whole(made, Said([*drawn, *drawn, *end]), 4)
    assert not _whole(made, Said([*drawn, *drawn[:3], made.stop_span, *end]), 4)
    assert not _whole(made, Said([50, *end]), 4)


def test_grids_are_what_they_say() -> None:
    for question in grids(np.random.default_rng(0), 30, side=6, moves=3):
        moves = question.text.partition(";")[0].split(", ")
        grid = question.pictures[0][..., 0] // 255
        for move, after in zip(moves, question.pictures[1:], strict=True):
            grid = {"rotate": np.rot90, "mirror": np.fliplr, "flip": np.flipud}[move](grid)
            np.testing.assert_array_equal(after[..., 1] // 255, grid)
        corner = int(question.text[-2])
        row, column = 4 * (corner // 2), 4 * (corner % 2)
        assert question.answer == "".join(map(str, grid[row : row + 2, column : column + 2].flatten().tolist()))
        assert spelled(question.pictures[-1]).split("/")[0] == "".join(map(str, grid[0].tolist()))
    for question in grids(np.random.default_rng(0), 10, side=4, white=True):
        assert question.answer == str(question.cells.count("1"))
        assert "white in corner" in question.text
    with pytest.raises(InputError, match="even number of cells"):
        grids(np.random.default_rng(0), 1, side=5)


def test_training_from_pictures_and_texts(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    from nextvec.training import fit, load_method

    records = []
    for i in range(6):
        image.fromarray(picture(i).repeat(3, axis=0)).save(tmp_path / f"{i}.png")
        thoughts: Any = [{"image": f"{i}.png"}] if i % 2 else "by words"
        records.append({"question": [f"what {i}?", {"image": f"{i}.png"}], "thoughts": thoughts, "answer": str(i)})
    data = tmp_path / "all.jsonl"
    data.write_text("\n".join(map(json.dumps, records)))
    shape = ["dim=16", "layers=1", "heads=2", "length=64", "size=4", "steps=2", "batch=4"]
    fit("swimbird", data, out=tmp_path / "run", set=shape)
    loaded = load_method(tmp_path / "run")
    assert isinstance(loaded, SwimBird)
    assert len(loaded.respond([["what 1?", picture(1)]], most=8)[0].tokens) <= 8
    data.write_text(json.dumps({"question": [{"picture": "a.png"}], "answer": "1"}))
    with pytest.raises(InputError, match="neither a text nor"):
        fit("swimbird", data, out=tmp_path / "other", set=shape)


def test_refusals() -> None:
    made = model()
    with pytest.raises(InputError, match=r"shape \[7, 7, 3\]; expected"):
        made.respond([[np.zeros((7, 7, 3), np.uint8)]], most=4)
    with pytest.raises(InputError, match="none empty"):
        made.respond([[""]], most=4)
    with pytest.raises(InputError, match="raise length"):
        made.source([Example(("a",), tuple(picture(i) for i in range(20)), "b")], batch=1, seed=0)
    with pytest.raises(InputError, match="whole patches"):
        model(patch=3)
