"""Glimpse prediction: the loss against loops, the 2 x 2 design, scanpaths of a user, crops and gaze."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="glimpse prediction needs torch: pip install 'nextvec[hf]'")

from nextvec.data.catalog import find  # noqa: E402
from nextvec.data.gaze import glimpses, read_osie  # noqa: E402
from nextvec.data.images import read_image  # noqa: E402
from nextvec.methods.glimpse_prediction import GlimpseContrast, GlimpsePrediction  # noqa: E402
from nextvec.types import Batch, InputError, NotFoundError, Ragged  # noqa: E402


def reference(pred: Any, target: Any, steps: list[int], scene: list[int]) -> float:
    """The sum over all steps, written out pair by pair."""

    def cos(a: Any, b: Any) -> float:
        return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))

    total = 0.0
    for b, length in enumerate(steps):
        for t in range(length):
            truth = target[b][t]
            own = [target[b][i] for i in range(length) if i != t and cos(target[b][i], truth) < 0.999]
            rest = [target[c][i] for c in range(len(steps)) if scene[c] != scene[b] for i in range(steps[c])]
            means = [sum(cos(pred[b][t], y) for y in part) / len(part) if part else 0.0 for part in (own, rest)]
            total += -cos(pred[b][t], truth) + sum(means) / 2
    return total


def test_loss_equals_the_loops_with_scenes_lengths_and_repeated_glimpses() -> None:
    objective, out, columns = GlimpseContrast.example(6, 0)
    arrays = [out[name].detach().numpy() for name in ("pred", "target")]
    steps = out["steps"].tolist()
    for scene in (columns["scene"], None):
        named = list(range(6)) if scene is None else scene.tolist()  # type: ignore[union-attr]
        term = objective(out, {} if scene is None else {"scene": scene})
        assert float(term.sum.detach()) == pytest.approx(reference(*arrays, steps, named), rel=1e-9)
        assert term.count == sum(steps)
        assert term.logs["glimpse_loss"] == pytest.approx(float(term.sum.detach()) / term.count)


@pytest.mark.parametrize(("cosine", "rival"), [(0.9985, True), (0.9995, False)])
def test_a_glimpse_seen_again_is_no_rival(cosine: float, rival: bool) -> None:
    near = [cosine, math.sqrt(1 - cosine**2)]
    target = torch.tensor([[[1.0, 0.0], near]], dtype=torch.float64)
    term = GlimpseContrast()({"pred": target.clone(), "target": target, "steps": torch.tensor([2])}, {})
    # every prediction is exact: -1 each, and half a cosine to the other where that is another glimpse
    assert float(term.mean) == pytest.approx(-1 + cosine / 2 if rival else -1)


def test_what_lies_beyond_a_sequences_end_does_not_count() -> None:
    objective, out, columns = GlimpseContrast.example(6, 1)
    seen = torch.arange(4) < out["steps"][:, None]
    changed = {k: torch.where(seen[..., None], out[k], 7.0) for k in ("pred", "target")}
    with torch.no_grad():
        assert float(objective({**out, **changed}, columns).sum) == pytest.approx(float(objective(out, columns).sum))


def test_gradients() -> None:
    objective, out, columns = GlimpseContrast.example(4, 2)

    def loss(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return objective({"pred": pred, "target": target, "steps": out["steps"]}, columns).sum

    assert torch.autograd.gradcheck(loss, (out["pred"], out["target"]))


def test_optimising_moves_predictions_to_the_true_glimpse_and_off_the_others() -> None:
    objective, out, columns = GlimpseContrast.example(6, 3)
    target, steps = out["target"].detach(), out["steps"]
    pred = out["pred"].detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([pred], lr=0.05)
    logs = []
    for _ in range(100):
        term = objective({"pred": pred, "target": target, "steps": steps}, columns)
        optimiser.zero_grad()
        term.mean.backward()
        optimiser.step()
        logs.append(term.logs)
    assert logs[-1]["glimpse_true"] > logs[0]["glimpse_true"] + 0.5
    assert logs[-1]["glimpse_within"] > logs[0]["glimpse_within"] + 0.5


def test_shapes_that_do_not_fit_are_refused() -> None:
    out = {"pred": torch.zeros(2, 3, 4), "target": torch.zeros(2, 2, 4), "steps": torch.tensor([2, 2])}
    with pytest.raises(InputError, match="one shape"):
        GlimpseContrast()(out, {})


# ---------------------------------------------------------------------------- the network


def arm(recurrence: bool, saccade: bool) -> tuple[GlimpsePrediction, Batch]:
    _, batch = GlimpsePrediction.toy(0)
    config = GlimpsePrediction.Config(
        size=24, layers=2, dropout=0.0, window=5, embedding=8, scale=1.0, recurrence=recurrence, saccade=saccade
    )
    torch.manual_seed(0)
    return GlimpsePrediction(config).eval(), batch


def changed(batch: Batch, column: str, row: int) -> Batch:
    old = batch.ragged(column)
    values = old.values.clone()
    values[row] += 1.0
    return Batch({**batch, column: Ragged(values, old.lengths)})


@pytest.mark.parametrize("recurrence", [True, False])
@pytest.mark.parametrize("saccade", [True, False])
def test_what_a_prediction_depends_on(recurrence: bool, saccade: bool) -> None:
    """Sequence 1 has five fixations, rows 3 to 7 of the toy batch: predictions 0 to 3."""
    method, batch = arm(recurrence, saccade)
    before = method(batch)["pred"]
    moved = (method(changed(batch, "glimpses", 3))["pred"] - before).abs().amax(-1) > 1e-6
    expected = torch.zeros_like(moved)
    expected[1, 0] = True
    expected[1, 1:4] = recurrence  # the first glimpse is remembered, or not
    assert torch.equal(moved, expected)
    # The last position is where the last saccade leads.
    moved = (method(changed(batch, "positions", 7))["pred"] - before).abs().amax(-1) > 1e-6
    expected = torch.zeros_like(moved)
    expected[1, 3] = saccade
    assert torch.equal(moved, expected)


def test_targets_are_the_next_glimpses_and_ends_are_zero() -> None:
    method, batch = arm(True, True)
    out = method(batch)
    values = batch.ragged("glimpses").values
    assert torch.equal(out["target"][0, :2], values[1:3])
    assert torch.equal(out["target"][1], values[4:8])
    assert out["pred"][0, 2:].abs().sum() == 0
    assert out["steps"].tolist() == [2, 4, 3, 4, 2, 3, 4, 2]


def test_absolute_position_is_not_given_away() -> None:
    method, batch = arm(True, True)
    old = batch.ragged("positions")
    shifted = Batch({**batch, "positions": Ragged(old.values + 8.0, old.lengths)})
    torch.testing.assert_close(method(shifted)["pred"], method(batch)["pred"])


# ---------------------------------------------------------------------------- a user's scanpaths


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def embedded(count: int, **extra: Any) -> dict[str, Any]:
    rng = np.random.default_rng(count)
    return {
        "glimpses": rng.normal(size=(count, 4)).tolist(),
        "positions": rng.normal(size=(count, 2)).tolist(),
        **extra,
    }


def prepare(data: Path, folder: Path, *, batch: int = 2, **settings: Any) -> Any:
    config = GlimpsePrediction.Config(size=12, layers=1, **settings)
    return GlimpsePrediction.prepare(data, config, batch=batch, seed=0, folder=folder)


def test_embedded_scanpaths_are_cut_to_the_window(tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", embedded(3, scene="park"), embedded(9, scene="park"), embedded(5))
    method, source = prepare(data, tmp_path, batch=4, window=4)
    assert method.config.embedding == 4
    assert method.config.scale > 0
    batch = source.batch(0)
    # 3; 9 = 4 + 4 + 1, the single one of which is left out; 5 = 4 + 1
    assert sorted(batch.ragged("glimpses").lengths.tolist()) == [3, 4, 4, 4]
    assert sorted(batch.tensor("scene").tolist()) == [0, 0, 0, 1]
    assert math.isfinite(float(method.objective()(method(batch), batch).mean))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**embedded(3), "positions": [[0, 0], [1, 1]]}, "3 glimpses but 2 positions"),
        (embedded(1), "at least 2"),
        ({**embedded(2), "positions": [[0, 0], [float("nan"), 1]]}, "not finite"),
        ({**embedded(2), "positions": [[0, 0], [1]]}, "not a list of"),
        ({"positions": [[0, 0]]}, "no 'glimpses'"),
        ({"glimpses": [[1.0], [2.0]], "positions": [[0, 0], [1, 1]]}, "glimpses of 1 values"),
        ({"image": "a.png", "fixations": [[1, 1], [2, 2]]}, "all of one kind"),
    ],
)
def test_bad_scanpaths_name_file_and_line(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    data = write(tmp_path / "a.jsonl", embedded(3), record)
    with pytest.raises(InputError, match=rf"a\.jsonl:2.*{message}"):
        prepare(data, tmp_path)


@pytest.mark.parametrize("eye", ["trained", "random"])
def test_scanpaths_over_images(tmp_path: Path, eye: str) -> None:
    image = pytest.importorskip("PIL.Image", reason="images need Pillow: pip install 'nextvec[images]'")
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        image.fromarray(rng.integers(256, size=(40, 60, 3), dtype=np.uint8)).save(tmp_path / name)
    points = [[5, 5], [59, 39], [30, 20]]
    data = write(tmp_path / "a.jsonl", *({"image": n, "fixations": points} for n in ("a.png", "b.png", "a.png")))
    method, source = prepare(data, tmp_path, batch=3, crop=32, eye=eye, eye_steps=1)
    batch = source.batch(0)
    assert sorted(batch.tensor("scene").tolist()) == [0, 0, 1]
    assert abs(float(batch.ragged("glimpses").values.mean())) < 1e-5  # standardised
    # What was prepared stays, and the method carries its eye.
    again, source = prepare(data, tmp_path, batch=3, crop=32, eye=eye, eye_steps=1)
    assert torch.equal(source.batch(0).ragged("glimpses").values, batch.ragged("glimpses").values)
    crop = glimpses(read_image(tmp_path / "a.png"), np.array(points), size=32, pixels=32)
    assert np.array_equal(again.eye.embed(crop), method.eye.embed(crop))
    again.save(tmp_path / "model")
    assert np.array_equal(GlimpsePrediction.load(tmp_path / "model").eye.embed(crop), method.eye.embed(crop))
    bad = write(tmp_path / "bad.jsonl", {"image": "a.png", "fixations": [[5, 5], [60, 5]]})
    with pytest.raises(InputError, match=r"bad\.jsonl:1: fixation 1 at \(60, 5\) is not on the image of 60 x 40"):
        prepare(bad, tmp_path / "other", crop=32, eye="random")
    missing = write(tmp_path / "missing.jsonl", {"image": "c.png", "fixations": points})
    with pytest.raises(InputError, match="does not exist"):
        prepare(missing, tmp_path / "other")


# ---------------------------------------------------------------------------- crops and gaze


def test_glimpses_are_means_of_squares_with_black_outside() -> None:
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    (middle, corner) = glimpses(image, np.array([[4.6, 3.2], [0.0, 5.0]]), size=4, pixels=2)
    expected = image[1:5, 2:6].reshape(2, 2, 2, 2, 3).mean(axis=(1, 3))
    assert np.array_equal(middle, np.rint(expected).astype(np.uint8))
    assert np.array_equal(corner[0, 0], np.zeros(3))  # left of the image
    assert np.array_equal(corner[0, 1], np.rint(image[3:5, 0:2].reshape(4, 3).mean(0)).astype(np.uint8))
    assert np.array_equal(corner[1, 1], np.rint(image[5:6, 0:2].reshape(2, 3).sum(0) / 4).astype(np.uint8))
    assert glimpses(image, np.zeros((0, 2)), size=4, pixels=2).shape == (0, 2, 2, 3)
    for point in ([-0.1, 0.0], [8.0, 0.0], [0.0, 6.0], [math.nan, 0.0]):
        with pytest.raises(InputError, match="not on the image"):
            glimpses(image, np.array([[1.0, 1.0], point]), size=4, pixels=2)
    with pytest.raises(InputError, match="multiple"):
        glimpses(image, np.array([[1.0, 1.0]]), size=5, pixels=2)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image", reason="images need Pillow: pip install 'nextvec[images]'")
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="not an image"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(NotFoundError, match="does not exist"):
        read_image(tmp_path / "b.jpg")


def test_osie_is_read_as_matlab_wrote_it(tmp_path: Path) -> None:
    scipy = pytest.importorskip("scipy.io", reason="OSIE needs SciPy: pip install 'nextvec[images]'")
    with pytest.raises(NotFoundError, match="nextvec data fetch"):
        read_osie(tmp_path)
    for folder in ("eye", "stimuli"):
        (tmp_path / folder).mkdir()
    (tmp_path / "stimuli/1.jpg").write_bytes(b"")

    def seen(*points: tuple[float, float]) -> dict[str, Any]:
        x, y = zip(*points, strict=True) if points else ((), ())
        return {"fix_x": np.array(x), "fix_y": np.array(y), "fix_duration": np.full(len(points), 200.0)}

    def cells(values: list[Any]) -> Any:
        array = np.empty((1, len(values)), dtype=object)
        array[0] = values
        return array

    entries = [
        {"img": f"{i}.jpg", "subjects": cells([seen((1.0, 5.0), (4.5, 2.0)), seen(), seen((3, 3))])} for i in (1, 2)
    ]
    scipy.savemat(tmp_path / "eye/fixations.mat", {"fixations": cells(entries)})
    found = read_osie(tmp_path)  # image 2 is not there, subject 1 saw nothing
    assert [(path.image.name, path.subject) for path in found] == [("1.jpg", 0), ("1.jpg", 2)]
    assert found[0].points.tolist() == [[0.0, 4.0], [3.5, 1.0]]
    assert found[1].durations.tolist() == [200.0]
    (tmp_path / "eye/fixations.mat").write_bytes(b"not a MATLAB file at all, whatever its name says" * 10)
    with pytest.raises(InputError, match="not OSIE's"):
        read_osie(tmp_path)


def test_osie_itself() -> None:
    pytest.importorskip("scipy", reason="OSIE needs SciPy: pip install 'nextvec[images]'")
    place = find("osie_eye")
    if place is None:
        pytest.skip("the data set osie_eye is not here: set NEXTVEC_DATA")
    found = read_osie(place[1])
    assert (len({path.image for path in found}), len(found)) == (199, 2985)
    points = np.concatenate([path.points for path in found])
    assert (points >= 0).all()
    assert (points < (800, 600)).all()
