"""NEPA: what it foretells, what it sees, and what its controls do; images read from folders and archives."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")
Image = pytest.importorskip("PIL.Image", reason="images need Pillow: pip install 'nextvec[images]'")

from nextvec.data.images import read_images  # noqa: E402
from nextvec.methods.nepa import Nepa  # noqa: E402
from nextvec.types import Batch, InputError, NotFoundError  # noqa: E402


def images(count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def model(**changes: object) -> Nepa:
    torch.manual_seed(1)
    return Nepa(Nepa.Config(depth=2, dim=32, size=8, patch=2, **changes)).eval()  # type: ignore[arg-type]


def test_a_patch_sees_those_before_it_alone() -> None:
    method, batch = model(), images()
    changed = batch.clone()
    changed[:, 4:6, 2:4] = 255 - changed[:, 4:6, 2:4]  # patch 9 of 16, row by row
    one, other = (method(Batch({"image": each}))["pred_1"].view(3, 15, -1) for each in (batch, changed))
    assert torch.equal(one[:, :9], other[:, :9])
    assert not torch.allclose(one[:, 9], other[:, 9])


def test_the_loss_is_the_mean_cosine_to_the_next_patch_by_hand() -> None:
    method, batch = model(), Batch({"image": images()})
    vectors = method.vit.patch_vectors(method.pixels(batch.tensor("image"))).flatten(1, 2)
    states = method.vit.contextual(vectors.view(3, 4, 4, -1))
    losses = []
    for i in range(3):
        for t in range(15):
            a, b = states[i, t].detach().numpy(), vectors[i, t + 1].detach().numpy()
            losses.append(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    term = method.objective()(method(batch), batch)
    assert float(term.mean.detach()) == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert term.count == 45


def test_no_gradient_reaches_the_targets_unless_asked() -> None:
    """The last patch is a target and foretells nothing: with the stop, its pixels cannot move the patch embedding."""
    for stop in (True, False):
        method = model(stop=stop)
        pixels = method.pixels(images()).requires_grad_()
        vectors = method.vit.patch_vectors(pixels)
        states = method.vit.contextual(vectors)
        out = {"target": vectors.reshape(-1, 32), "pred_1": states[:, :-1].reshape(-1, 32)}
        method.objective()(out, Batch({"image": images()})).mean.backward()
        assert pixels.grad is not None
        assert bool(pixels.grad[:, :, 6:, 6:].any()) != stop


def test_features_are_of_every_layer_and_fine_tuning_sees_everything() -> None:
    method = model()
    features = method.features(images())
    assert [tuple(feature.shape) for feature in features] == [(3, 32)] * 3
    both = Nepa(replace(method.config, attention="bidirectional")).eval()
    both.load_state_dict(method.state_dict())
    assert not torch.allclose(both.features(images())[-1], features[-1])
    assert torch.equal(both.features(images())[0], features[0])


def test_refusals() -> None:
    with pytest.raises(InputError, match="at least 4 patches"):
        Nepa(Nepa.Config(size=8, patch=8))
    with pytest.raises(InputError, match="shift is 2"):
        model(shift=2)


# ---------------------------------------------------------------- images


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (6, 6)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def test_a_folder_and_an_archive_of_it_are_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for name, colour in (
        ("train/red/1.png", (255, 0, 0)),
        ("train/blue/2.PNG", (0, 0, 255)),
        ("test/red/3.png", (9, 0, 0)),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(colour, (9, 6)))
    (folder / "train" / "notes.txt").write_text("no image")
    with tarfile.open(tmp_path / "all.tar.xz", "w:xz") as archive:
        archive.add(folder, arcname=".")
    for source in (folder, tmp_path / "all.tar.xz"):
        found = read_images(source, size=3, within="train/")
        assert found.names == ("blue", "red")
        assert found.labels.tolist() == [0, 1]
        assert found.pixels.shape == (2, 3, 3, 3)
        assert found.pixels[1, 1, 1].tolist() == [255, 0, 0]
    assert len(read_images(folder, size=3)) == 3


def test_what_holds_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        read_images(tmp_path / "absent", size=8)
    with pytest.raises(NotFoundError, match="holds no images"):
        read_images(tmp_path, size=8)
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="no folder and no archive"):
        read_images(tmp_path / "a.zip", size=8)
    (tmp_path / "b.tar").write_bytes(b"not a tar")
    with pytest.raises(InputError, match="not a readable tar archive"):
        read_images(tmp_path / "b.tar", size=8)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "broken.png").write_bytes(picture((1, 2, 3))[:40])
    with pytest.raises(InputError, match=r"broken\.png"):
        read_images(tmp_path / "c", size=8)


def test_training_from_a_folder_of_images(tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(picture((i * 30, 255 - i * 30, 7), (20, 16)))
    config = Nepa.Config(depth=1, size=8, patch=4)
    method, source = Nepa.prepare(tmp_path, config, batch=4, seed=0, folder=tmp_path / "out")
    assert tuple(source.batch(0).tensor("image").shape) == (4, 8, 8, 3)
    assert float(method.objective()(method(source.batch(0)), source.batch(0)).mean.detach()) > 0
